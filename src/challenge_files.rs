//! The challenge files in the acme-dir, which the web server serves and the CA fetches.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::acme::resources::Token;
use crate::directory::{self, Directory};
use crate::temporary::{FOREIGN_FILE, TemporaryFile};

/// How often getcrt tries to create a file. Removing a leftover takes one try, and so does each collision with
/// another run.
const MAX_TRIES: u32 = 10;
/// The file that is created and removed to find out whether files can be created. The dot keeps it from being a token.
const TRIAL_NAME: &str = ".getcrt-trial";

/// The directory that the web server serves as `/.well-known/acme-challenge/`.
pub struct AcmeDir(Arc<Directory>);

impl AcmeDir {
    /// Opens the directory, and checks that files can be created in it.
    ///
    /// # Errors
    /// There is no such directory, or no file can be created in it.
    pub fn open(path: &Path) -> Result<AcmeDir> {
        let shown = || format!("--acme-dir {}", path.display());
        let directory = Arc::new(directory::open(path).with_context(shown)?);
        try_out(&directory)
            .with_context(|| format!("cannot create {}", directory.shown(TRIAL_NAME).display()))
            .with_context(shown)?;
        Ok(AcmeDir(directory))
    }

    /// Creates the file that the CA will fetch for `token`. It holds the key authorization and nothing
    /// else (RFC 8555 §8.3).
    ///
    /// # Errors
    /// The file cannot be written, or a foreign file has its name.
    pub fn write(&self, token: &Token, key_authorization: &str) -> Result<TemporaryFile> {
        let name = OsStr::new(token.as_str());
        create_or_replace(&self.0, name, key_authorization).with_context(|| {
            let path = self.0.shown(name);
            format!("cannot write the challenge file {}", path.display())
        })
    }
}

/// Creates a file and removes it.
fn try_out(directory: &Arc<Directory>) -> Result<()> {
    let name = OsStr::new(TRIAL_NAME);
    match TemporaryFile::create_public(directory, name, "") {
        Ok(_) => Ok(()),
        // Another run does the same at this moment, or was killed. If its file can be removed, ours could have been created.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            remove_leftover(directory, name, "")
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates the file. If there is a leftover of a run that was killed, it is replaced. (It may belong to another run of
/// the same account that is still under way. If that run still goes on, it loses its file when we remove ours; it never removes ours.)
fn create_or_replace(
    directory: &Arc<Directory>,
    name: &OsStr,
    content: &str,
) -> Result<TemporaryFile> {
    let mut tries = 0;
    loop {
        tries += 1;
        match TemporaryFile::create_public(directory, name, content) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < MAX_TRIES => {
                remove_leftover(directory, name, content)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes the file if it is a leftover.
///
/// # Errors
/// It is not, or cannot be read or removed.
fn remove_leftover(directory: &Directory, name: &OsStr, content: &str) -> Result<()> {
    let removed = match is_leftover(directory, name, content) {
        Ok(true) => fs::remove_file(directory.place_of(name)),
        Ok(false) => bail!(FOREIGN_FILE),
        Err(error) => Err(error),
    };
    match removed {
        // Another run has removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// Whether there is a regular file that holds `content`, or only the beginning of it: the run may have been killed
/// while it wrote.
fn is_leftover(directory: &Directory, name: &OsStr, content: &str) -> io::Result<bool> {
    let file = match directory.open_file(name) {
        // A symlink. getcrt makes none.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(false),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    let max_length = content.len() as u64;
    if !metadata.is_file() || metadata.len() > max_length {
        return Ok(false);
    }
    let mut found = Vec::new();
    file.take(max_length).read_to_end(&mut found)?;
    Ok(content.as_bytes().starts_with(&found))
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
        fs::remove_file(file.shown()).unwrap();
        fs::write(file.shown(), "foreign").unwrap();
        let path = file.shown();
        drop(file);
        assert_eq!(fs::read(path).unwrap(), b"foreign");
    }
}
