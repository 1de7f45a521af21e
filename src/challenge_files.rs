//! The challenge files in the acme-dir, which the web server serves and the CA fetches.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::acme::resources::Token;
use crate::temporary::TemporaryFile;

/// How often getcrt tries to create a file. Removing a leftover takes one try, and so does each collision with
/// another run.
const MAX_TRIES: u32 = 10;

/// The directory that the web server serves as `/.well-known/acme-challenge/`.
pub struct AcmeDir(PathBuf);

impl AcmeDir {
    /// Checks that the directory is there, and that files can be created in it.
    ///
    /// # Errors
    /// There is no such directory, or no file can be created in it.
    pub fn open(path: &Path) -> Result<AcmeDir> {
        let try_out = || {
            let metadata = fs::metadata(path)?;
            ensure!(metadata.is_dir(), "this is no directory");
            let trial =
                TemporaryFile::create_private_in(path).context("no file can be made in it")?;
            drop(trial);
            Ok(AcmeDir(path.to_owned()))
        };
        try_out().with_context(|| format!("--acme-dir {}", path.display()))
    }

    /// Creates the file that the CA will fetch for `token`. It holds the key authorization and nothing
    /// else (RFC 8555 §8.3).
    ///
    /// # Errors
    /// The file cannot be written, or a foreign file has its name.
    pub fn write(&self, token: &Token, key_authorization: &str) -> Result<TemporaryFile> {
        let path = self.0.join(token.as_str());
        create_or_replace(&path, key_authorization)
            .with_context(|| format!("cannot write the challenge file {}", path.display()))
    }
}

/// Creates the file. If there is a leftover of a run that was killed, it is replaced. (It may also belong to
/// another run of the same account that is under way. That run will not remove ours, but when this one ends, the
/// other has no file any more.)
fn create_or_replace(path: &Path, key_authorization: &str) -> Result<TemporaryFile> {
    let mut tries = 0;
    loop {
        tries += 1;
        match TemporaryFile::create_public(path, key_authorization) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < MAX_TRIES => {
                remove_leftover(path, key_authorization)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes the file at `path` if it is a leftover.
///
/// # Errors
/// It is not, or cannot be read or removed.
fn remove_leftover(path: &Path, key_authorization: &str) -> Result<()> {
    let removed = match is_leftover(path, key_authorization) {
        Ok(true) => fs::remove_file(path),
        Ok(false) => {
            bail!("a foreign file has that name: look what it is, remove it if nothing needs it")
        }
        Err(error) => Err(error),
    };
    match removed {
        // Another run has removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// Whether there is a regular file that holds the key authorization, or only the beginning of it: the run
/// may have been killed while it wrote.
fn is_leftover(path: &Path, key_authorization: &str) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    let max_length = key_authorization.len() as u64;
    if !metadata.is_file() || metadata.len() > max_length {
        return Ok(false);
    }
    let mut content = Vec::new();
    File::open(path)?
        .take(max_length)
        .read_to_end(&mut content)?;
    Ok(key_authorization.as_bytes().starts_with(&content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use super::*;

    fn token() -> Token {
        Token::try_from("token".to_owned()).unwrap()
    }

    /// Two runs with one account can be given one token.
    #[test]
    fn a_file_of_another_run_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let acme_dir = AcmeDir::open(directory.path()).unwrap();
        let path = directory.path().join("token");
        let first = acme_dir.write(&token(), "token.thumbprint").unwrap();
        let second = acme_dir.write(&token(), "token.thumbprint").unwrap();
        drop(first);
        assert_eq!(fs::read(&path).unwrap(), b"token.thumbprint");
        drop(second);
        assert!(!path.exists());
    }

    /// What has taken the place of a challenge file meanwhile is somebody else's.
    #[test]
    fn a_file_put_in_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let acme_dir = AcmeDir::open(directory.path()).unwrap();
        let file = acme_dir.write(&token(), "token.thumbprint").unwrap();
        fs::remove_file(file.path()).unwrap();
        fs::write(file.path(), "foreign").unwrap();
        let path = file.path().to_owned();
        drop(file);
        assert_eq!(fs::read(path).unwrap(), b"foreign");
    }
}
