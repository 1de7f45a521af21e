//! Files that must not outlive the run: they are removed when it returns, with or without an error, when
//! it panics, and on SIGINT, SIGTERM and SIGHUP. After any other signal that ends the process they stay.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{process, thread};

use log::warn;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// A file that is removed when this guard is dropped, or when one of the three signals ends the process.
pub struct TemporaryFile(Arc<Entry>);

struct Entry {
    path: PathBuf,
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
    /// Creates a file that holds `content` and that every user can read, whatever the umask.
    ///
    /// # Errors
    /// There is something at `path` already (a symlink, too), or the file cannot be written.
    pub fn create_public(path: &Path, content: &str) -> io::Result<TemporaryFile> {
        let (guard, mut file) = create(path.to_owned(), 0o644)?;
        file.write_all(content.as_bytes())?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode != 0o644
            && let Err(error) = file.set_permissions(Permissions::from_mode(0o644))
        {
            let path = path.display();
            warn!(
                "the web server may be unable to read {path}, whose mode cannot be changed: {error}"
            );
        }
        Ok(guard)
    }

    /// Creates an empty file that only this user can read, under a new name. Returns it open for reading
    /// and writing.
    ///
    /// # Errors
    /// The file cannot be created in the directory.
    pub fn create_private_in(directory: &Path) -> io::Result<(TemporaryFile, File)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = now.unwrap_or_default().as_nanos();
        let name = format!(".getcrt-{}-{nanoseconds}", process::id());
        create(directory.join(name), 0o600)
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Gives the file its final name, in place of what is there. It stays from now on, even if this fails.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn rename(self, target: &Path) -> io::Result<()> {
        // This lock is given back before `self` is dropped, which takes it again.
        let mut entries = lock_entries();
        entries.retain(|entry| !Arc::ptr_eq(entry, &self.0));
        fs::rename(self.path(), target)
    }
}

fn create(path: PathBuf, mode: u32) -> io::Result<(TemporaryFile, File)> {
    let mut entries = lock_entries();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)?;
    let identity = Identity::of(&file.metadata()?);
    let entry = Arc::new(Entry { path, identity });
    entries.push(Arc::clone(&entry));
    Ok((TemporaryFile(entry), file))
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
        if let Err(error) = self.0.remove() {
            let path = self.path().display();
            warn!("{path} is left, for it cannot be removed: {error}");
        }
    }
}

impl Entry {
    /// Removes the file, unless it is gone or another one is in its place.
    fn remove(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) == self.identity => fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
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

/// From now on SIGINT, SIGTERM and SIGHUP remove every [`TemporaryFile`] before they end the process. If
/// SIGHUP is ignored, as under nohup, it stays so.
///
/// # Errors
/// The operating system refuses a signal handler or a thread.
pub fn remove_files_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            // This lock is held until the process ends, so no file is created after this.
            let entries = lock_entries();
            for entry in entries.iter() {
                let _ = entry.remove();
            }
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Whether this process was started with a signal ignored. Linux shows a bit mask, in which signal 1 is the
/// lowest bit.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.unwrap_or_default().trim(), 16).unwrap_or(0);
    let bit = 1 << (signal - 1);
    mask & bit != 0
}
