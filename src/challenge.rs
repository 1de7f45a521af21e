//! The challenge files: the only file that writes in the acme-dir.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use log::warn;

use crate::resources::Token;
use crate::temporary::TemporaryFile;

/// How often, and at what distance, a file is tried that another run is just removing.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The directory that the web server serves as `/.well-known/acme-challenge/`.
pub struct AcmeDir(PathBuf);

impl AcmeDir {
    /// Takes a directory in which files can be made; that is tried.
    ///
    /// # Errors
    /// There is none, it is something else, or nothing can be written in it.
    pub fn open(path: &Path) -> Result<AcmeDir> {
        let shown = || format!("--acme-dir {}", path.display());
        let metadata = fs::metadata(path).with_context(shown)?;
        ensure!(metadata.is_dir(), "{}: this is no directory", shown());
        let trial = TemporaryFile::create_in(path).context("no file can be made in it");
        trial.with_context(shown)?;
        Ok(AcmeDir(path.to_owned()))
    }

    /// Makes the file that the CA will fetch for `token` (RFC 8555 §8.3): the key authorization and
    /// nothing else, readable by all whatever the umask. A file of that name is taken over where it
    /// holds the beginning of the same text, as a killed run leaves it, and else left as it is.
    ///
    /// # Errors
    /// The file cannot be written, or a foreign one is in its place.
    pub fn publish(&self, token: &Token, key_authorization: &str) -> Result<TemporaryFile> {
        let path = self.0.join(token.as_str());
        let shown = || format!("cannot write the challenge file {}", path.display());
        for _ in 0..TRIES {
            let file = match TemporaryFile::create(path.clone(), 0o644) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    take_over(&path, key_authorization)
                }
                created => Ok(Some(created.with_context(shown)?)),
            };
            if let Some(file) = file.with_context(shown)? {
                complete(&file, key_authorization).with_context(shown)?;
                return Ok(file);
            }
            sleep(PAUSE);
        }
        bail!("{}: other runs keep making and removing it", shown());
    }
}

/// Opens what is at `path` already, if it is ours. None: it is gone by now.
fn take_over(path: &Path, key_authorization: &str) -> Result<Option<TemporaryFile>> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(None);
    };
    let limit = key_authorization.len() as u64;
    let foreign = "a foreign file has that name: look what it is, remove it if nothing needs it";
    ensure!(metadata.is_file() && metadata.len() <= limit, foreign);
    // One that another user's run has completed need not be written.
    let writable = OpenOptions::new().read(true).write(true).open(path);
    let (mut file, mut content) = (writable.or_else(|_| File::open(path))?, Vec::new());
    (&mut file).take(limit).read_to_end(&mut content)?;
    ensure!(key_authorization.as_bytes().starts_with(&content), foreign);
    Ok(TemporaryFile::adopt(path.to_owned(), file))
}

/// Writes what is missing, and makes the file readable for the web server.
fn complete(file: &TemporaryFile, key_authorization: &str) -> io::Result<()> {
    let metadata = file.file().metadata()?;
    if metadata.len() < key_authorization.len() as u64 {
        file.file().write_all_at(key_authorization.as_bytes(), 0)?;
    }
    let (path, readable) = (file.path().display(), Permissions::from_mode(0o644));
    let is_readable = metadata.permissions().mode() & 0o777 == 0o644;
    if !is_readable && let Err(error) = file.file().set_permissions(readable) {
        warn!("the web server may be unable to read {path}, whose mode cannot be changed: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use super::*;

    /// Two runs with one account can be given one token: the last to leave removes the file.
    #[test]
    fn two_runs_share_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let (acme_dir, path) = (AcmeDir::open(directory.path()).unwrap(), directory.path());
        let token = Token::try_from("token".to_owned()).unwrap();
        let first = acme_dir.publish(&token, "token.thumbprint").unwrap();
        let second = acme_dir.publish(&token, "token.thumbprint").unwrap();
        drop(first);
        assert_eq!(fs::read(path.join("token")).unwrap(), b"token.thumbprint");
        let third = acme_dir.publish(&token, "token.thumbprint").unwrap();
        drop(second);
        assert!(path.join("token").exists());
        drop(third);
        assert!(!path.join("token").exists());
    }

    /// What has taken the place of a challenge file meanwhile is somebody else's.
    #[test]
    fn a_file_put_in_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let acme_dir = AcmeDir::open(directory.path()).unwrap();
        let token = Token::try_from("token".to_owned()).unwrap();
        let file = acme_dir.publish(&token, "token.thumbprint").unwrap();
        fs::remove_file(file.path()).unwrap();
        fs::write(file.path(), "foreign").unwrap();
        let path = file.path().to_owned();
        drop(file);
        assert_eq!(fs::read(path).unwrap(), b"foreign");
    }
}
