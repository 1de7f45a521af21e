//! Files that must not outlive the run: they are removed when it returns, with or without an error, when
//! it panics, and when a signal ends it (`signals.rs`).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Result, bail};
use log::warn;

use crate::directory::{Directory, our_uid};

/// What the user is told of a file that has the name of one of ours.
pub const FOREIGN_FILE: &str =
    "another file with this name is in the way; look at it, and remove it if nothing needs it";

/// A file that is removed when this guard is dropped, or when a signal ends the process.
pub struct TemporaryFile(Arc<Entry>);

struct Entry {
    directory: Arc<Directory>,
    name: OsString,
    /// Which file it is. Another file that has taken its place is not removed.
    identity: Identity,
}

/// All files that are to be removed. This lock is held while one of them is created, renamed or
/// removed, so a signal never comes between the file and its entry.
static ENTRIES: Mutex<Vec<Arc<Entry>>> = Mutex::new(Vec::new());

fn lock_entries() -> MutexGuard<'static, Vec<Arc<Entry>>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TemporaryFile {
    /// Creates a file that holds `content` and that every user can read, whatever the umask. (If its mode cannot be
    /// changed, that is a warning.)
    ///
    /// # Errors
    /// There is something of this name already (a symlink, too), or the file cannot be written.
    pub fn create_public(
        directory: &Arc<Directory>,
        name: &OsStr,
        content: &str,
    ) -> io::Result<TemporaryFile> {
        let (guard, mut file) = create(directory, name)?;
        file.write_all(content.as_bytes())?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode != 0o644
            && let Err(error) = file.set_permissions(Permissions::from_mode(0o644))
        {
            let path = guard.shown();
            let path = path.display();
            warn!(
                "the web server may be unable to read {path}, whose mode cannot be changed: {error}"
            );
        }
        Ok(guard)
    }

    /// Creates a file that only this user can use, and locks it. If a run that was killed has left it, it is taken
    /// over. Returns `None` if another process has locked it, or has had it until a moment ago.
    ///
    /// # Errors
    /// The file cannot be created, or somebody else's file has this name.
    pub fn create_locked(
        directory: &Arc<Directory>,
        name: &OsStr,
    ) -> Result<Option<(TemporaryFile, File)>> {
        let mut entries = lock_entries();
        let place = directory.place_of(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let file = match options.clone().create_new(true).open(&place) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
                open_leftover(&options, &place)?
            }
            created => created?,
        };
        let metadata = file.metadata()?;
        let unlocked = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => Some(error),
        };
        let identity = Identity::of(&metadata);
        // The one who had the lock may have renamed or removed the file before it was locked here.
        let is_still_there =
            fs::symlink_metadata(&place).is_ok_and(|found| Identity::of(&found) == identity);
        if !is_still_there {
            return Ok(None);
        }
        let guard = register(&mut entries, directory, name, identity);
        // Printing may block, and a signal needs this lock.
        drop(entries);
        if let Some(error) = unlocked {
            let path = guard.shown();
            let path = path.display();
            warn!("cannot lock {path}, so do not run getcrt twice at once: {error}");
        }
        Ok(Some((guard, file)))
    }

    /// Returns the path of the file, for messages.
    pub fn shown(&self) -> PathBuf {
        self.0.directory.shown(&self.0.name)
    }

    /// Gives the file its final name in the same directory, in place of what is there. It stays from now on, even if
    /// this fails.
    ///
    /// # Errors
    /// The operating system refuses. Or another file has been put in its place meanwhile.
    pub fn rename(self, name: &OsStr) -> io::Result<()> {
        // This lock is given back before `self` is dropped, which takes it again.
        let mut entries = lock_entries();
        entries.retain(|entry| !Arc::ptr_eq(entry, &self.0));
        let directory = &self.0.directory;
        let target = directory.place_of(name);
        fs::rename(directory.place_of(&self.0.name), &target)?;
        if Identity::of(&fs::symlink_metadata(&target)?) != self.0.identity {
            return Err(io::Error::other(
                "somebody has put another file in its place",
            ));
        }
        Ok(())
    }
}

fn create(directory: &Arc<Directory>, name: &OsStr) -> io::Result<(TemporaryFile, File)> {
    let mut entries = lock_entries();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(directory.place_of(name))?;
    let identity = Identity::of(&file.metadata()?);
    let guard = register(&mut entries, directory, name, identity);
    Ok((guard, file))
}

fn register(
    entries: &mut Vec<Arc<Entry>>,
    directory: &Arc<Directory>,
    name: &OsStr,
    identity: Identity,
) -> TemporaryFile {
    let entry = Arc::new(Entry {
        directory: Arc::clone(directory),
        name: name.to_owned(),
        identity,
    });
    entries.push(Arc::clone(&entry));
    TemporaryFile(entry)
}

/// Opens a file that another run is using or has left.
///
/// # Errors
/// It is somebody else's, or gone.
fn open_leftover(options: &OpenOptions, place: &Path) -> Result<File> {
    let file = match options.open(place) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => bail!(FOREIGN_FILE),
        opened => opened?,
    };
    if !is_ours(&file.metadata()?) {
        bail!(FOREIGN_FILE);
    }
    Ok(file)
}

/// Whether this is a regular file of this user with only one name. With a second name (a hard link), it could be another
/// program's file.
fn is_ours(metadata: &Metadata) -> bool {
    let is_owned = our_uid().is_none_or(|uid| uid == metadata.uid());
    metadata.is_file() && metadata.nlink() == 1 && is_owned
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let mut entries = lock_entries();
        let position = entries.iter().position(|it| Arc::ptr_eq(it, &self.0));
        let Some(index) = position else {
            // `rename` was called, so it stays.
            return;
        };
        entries.swap_remove(index);
        let removed = self.0.remove();
        // Printing may block, and a signal needs this lock.
        drop(entries);
        if let Err(error) = removed {
            let path = self.shown();
            let path = path.display();
            warn!("cannot remove {path}; remove it yourself: {error}");
        }
    }
}

impl Entry {
    /// Removes the file, unless it is gone or another one is in its place.
    fn remove(&self) -> io::Result<()> {
        let place = self.directory.place_of(&self.name);
        let removed = match fs::symlink_metadata(&place) {
            Ok(metadata) if Identity::of(&metadata) == self.identity => fs::remove_file(place),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Identifies a file, so that a later one at the same path is not mistaken for it. (A file system may give the
/// inode of a removed file to the next one, which then has another time of creation.)
#[derive(PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
    /// `None` if the file system does not know it.
    created: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            created: metadata.created().ok(),
        }
    }
}

/// The result of [`remove_all`].
pub struct Removed {
    /// How many files there were, without those that are left.
    pub count: usize,
    /// The files that are left, with the reasons.
    pub left: Vec<String>,
    /// While this is held, no other temporary file can be created.
    _entries: MutexGuard<'static, Vec<Arc<Entry>>>,
}

/// Removes every [`TemporaryFile`], because the process is about to end.
pub fn remove_all() -> Removed {
    let entries = lock_entries();
    let mut count = 0;
    let mut left = Vec::new();
    for entry in entries.iter() {
        match entry.remove() {
            Ok(()) => count += 1,
            Err(error) => {
                let path = entry.directory.shown(&entry.name);
                left.push(format!("{}: {error}", path.display()));
            }
        }
    }
    Removed {
        count,
        left,
        _entries: entries,
    }
}
