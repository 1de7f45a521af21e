//! Files that must not outlive the run, whichever way it ends: by return, by error or by a signal.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{io, process, thread};

use log::warn;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// A file that is removed when this is dropped, or when a signal ends the process.
///
/// It holds a shared lock on the file: two runs with one account can be given one token, and the last
/// of them to leave removes their common challenge file.
pub struct TemporaryFile(Arc<(PathBuf, File)>);

type Alive = Vec<Arc<(PathBuf, File)>>;

/// All such files. Whoever makes, renames or removes one holds this lock, so that a signal finds a
/// file that is listed here or none.
static ALIVE: Mutex<Alive> = Mutex::new(Vec::new());

impl TemporaryFile {
    /// Creates the file; nothing may be at `path`, not even a symlink.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(path: PathBuf, mode: u32) -> io::Result<TemporaryFile> {
        let mut alive = alive();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        let file = options.open(&path)?;
        // A file system without locks is one where every run is alone.
        let _ = file.try_lock_shared();
        Ok(TemporaryFile::listed(&mut alive, path, file))
    }

    /// Creates a file under a name of its own, for nobody else to read.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create_in(directory: &Path) -> io::Result<TemporaryFile> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let name = format!(".getcrt-{}-{now}", process::id());
        TemporaryFile::create(directory.join(name), 0o600)
    }

    /// Takes over a file that an earlier run has left, or that another run shares. None: it is just
    /// being removed.
    pub fn adopt(path: PathBuf, file: File) -> Option<TemporaryFile> {
        let mut alive = alive();
        let is_going = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        let is_there = !is_going && is_at(&file, &path);
        is_there.then(|| TemporaryFile::listed(&mut alive, path, file))
    }

    fn listed(alive: &mut Alive, path: PathBuf, file: File) -> TemporaryFile {
        alive.push(Arc::new((path, file)));
        TemporaryFile(Arc::clone(&alive[alive.len() - 1]))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.0.0
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.0.1
    }

    /// Gives the file its final name, over whatever is there. From now on it stays.
    ///
    /// # Errors
    /// The operating system's; the file then stays where it is.
    pub fn rename(self, target: &Path) -> io::Result<()> {
        let mut alive = alive();
        alive.retain(|other| !Arc::ptr_eq(other, &self.0));
        fs::rename(self.path(), target)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let mut alive = alive();
        let Some(index) = alive.iter().position(|other| Arc::ptr_eq(other, &self.0)) else {
            return;
        };
        alive.swap_remove(index);
        if let Err(error) = remove(self.path(), self.file()) {
            warn!(
                "{} is left, for it cannot be removed: {error}",
                self.path().display()
            );
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP remove every [`TemporaryFile`] before the process dies of
/// them. A SIGHUP that is ignored (nohup) stays so.
///
/// # Errors
/// The operating system's.
pub fn clean_up_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            // The lock is held to the end, so that no file is made after this.
            let alive = alive();
            for entry in alive.iter() {
                let _ = remove(&entry.0, &entry.1);
            }
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

fn alive() -> MutexGuard<'static, Alive> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the file, unless another run still needs it or another file has taken its place.
fn remove(path: &Path, file: &File) -> io::Result<()> {
    let _ = file.unlock();
    let is_shared = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    if is_shared || !is_at(file, path) {
        return Ok(());
    }
    fs::remove_file(path)
}

/// Whether `path` is this very file, and no link to it.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let there = fs::symlink_metadata(path).map(identity).ok();
    there.is_some() && there == file.metadata().map(identity).ok()
}

fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.unwrap_or_default().trim(), 16);
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}
