//! A directory that is opened once, so that nobody can put another one in its place while the run goes on.
//!
//! getcrt often runs as root in directories that belong to others, such as the user of the web server. Whoever may
//! rename a directory or make a symlink could lead a later use of the same path to another place. An open
//! directory stays the one that it is.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The most symlinks that are followed on the way to a file, as in Linux.
const MAX_LINKS: usize = 40;

/// An open directory.
pub struct Directory {
    /// Its path, for messages.
    shown: PathBuf,
    /// The path that system calls get: one that leads through the open directory or, without /proc, its own.
    place: PathBuf,
    /// Keeps the directory open. It is open as a place only (`O_PATH`), so no permission to read it is needed.
    handle: File,
}

impl Directory {
    /// Opens the directory at `place`, which messages call `shown`, with more flags of open(2).
    fn open_with(place: &Path, shown: PathBuf, more_flags: i32) -> io::Result<Directory> {
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | more_flags)
            .open(place)?;
        let through_handle = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        // Where /proc is missing, as in some containers, the path itself has to do.
        let place = if is_same_file(&through_handle, &handle) {
            through_handle
        } else {
            place.to_owned()
        };
        Ok(Directory {
            shown,
            place,
            handle,
        })
    }

    /// Returns the path by which system calls reach `name` in this directory.
    pub fn place_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.join(name)
    }

    /// Returns the path of `name` in this directory, for messages.
    pub fn shown(&self, name: impl AsRef<Path>) -> PathBuf {
        self.shown.join(name)
    }

    /// Opens a file in this directory for reading. A symlink is not followed, and a pipe does not block.
    ///
    /// # Errors
    /// There is no such file, it is a symlink, or it may not be read.
    pub fn open_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.place_of(name))
    }

    /// Whether an open file in this directory is a mount of its own, as a single file in a container may be. It cannot
    /// be replaced.
    pub fn is_mount_point(&self, file: &File) -> bool {
        mount_id(file) != mount_id(&self.handle)
    }

    /// Waits until changes of this directory, such as a rename, are on the disk.
    ///
    /// # Errors
    /// The directory may not be read, or the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        File::open(self.place_of("."))?.sync_all()
    }
}

/// Returns the number of the mount that an open file is on. `None` without /proc.
fn mount_id(file: &impl AsRawFd) -> Option<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    Some(line.trim().to_owned())
}

fn is_same_file(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
}

/// Opens the directory at `path`. For symlinks on the way, see [`walk`].
///
/// # Errors
/// There is no such directory, or the way is not followed.
pub fn open(path: &Path) -> Result<Directory> {
    let (directory, _) = walk(path, LastStep::IsFollowed)?;
    Ok(directory)
}

/// Returns where the file at `path` is: its directory, opened, and its name there, which is not a symlink. The file
/// need not exist. For symlinks on the way, see [`walk`].
///
/// # Errors
/// A directory is missing, the path names a directory, or the way is not followed.
pub fn locate(path: &Path) -> Result<(Directory, OsString)> {
    match walk(path, LastStep::MayBeAName)? {
        (directory, Some(name)) => Ok((directory, name)),
        (_, None) => bail!("this names a directory; name a file in it"),
    }
}

/// What [`walk`] does with the last step of a path.
#[derive(PartialEq)]
enum LastStep {
    /// It leads to a directory, which is opened.
    IsFollowed,
    /// If it is a name and not a symlink, it is returned.
    MayBeAName,
}

/// Walks along the path as the operating system would, and opens each directory on the way. A symlink is followed only if
/// it and its directory belong to root or to the user who runs getcrt. `..` is followed only if the directory that it
/// leaves belongs to one of them. Otherwise the owners could make root write to any place. (Who else may write in a
/// directory, by its mode, is not looked at.)
///
/// # Errors
/// A directory is missing. Or there is a step that is not followed, or there are more than [`MAX_LINKS`] symlinks.
fn walk(path: &Path, last_step: LastStep) -> Result<(Directory, Option<OsString>)> {
    let mut directory = Directory::open_with(Path::new("."), PathBuf::new(), 0)?;
    // The next step is the last one in this list.
    let mut remaining = steps(path);
    let mut links = 0;
    while let Some(step) = remaining.pop() {
        let place = directory.place_of(&step);
        let shown = directory.shown(&step);
        let owner = directory.handle.metadata()?;
        let metadata = fs::symlink_metadata(&place);
        if let Ok(link) = &metadata
            && link.is_symlink()
        {
            check_owners(&shown, &[link, &owner])?;
            links += 1;
            if links > MAX_LINKS {
                bail!("too many levels of symbolic links");
            }
            remaining.extend(steps(&fs::read_link(&place)?));
        } else if last_step == LastStep::MayBeAName && remaining.is_empty() && is_name(&step) {
            return Ok((directory, Some(step)));
        } else {
            if step == ".." {
                // Whoever may move the directory decides where this leads.
                check_owners(&shown, &[&owner])?;
            }
            // If a symlink takes its place meanwhile, this fails.
            directory = Directory::open_with(&place, shown.clone(), libc::O_NOFOLLOW)
                .with_context(|| format!("cannot open the directory {}", shown.display()))?;
        }
    }
    Ok((directory, None))
}

/// Returns the steps of a path, the last one first: `/`, names, and `..`.
fn steps(path: &Path) -> Vec<OsString> {
    let mut steps: Vec<OsString> = path
        .components()
        .map(|component| component.as_os_str().to_owned())
        .collect();
    steps.reverse();
    steps
}

/// Whether a step is the name of a file or directory, and not `/`, `.` or `..`.
fn is_name(step: &OsStr) -> bool {
    let component = Path::new(step).components().next();
    matches!(component, Some(Component::Normal(_)))
}

/// Checks that what decides where `shown` leads belongs to root or to the user who runs getcrt.
fn check_owners(shown: &Path, deciding: &[&Metadata]) -> Result<()> {
    let our_uid = our_uid();
    for metadata in deciding {
        let uid = metadata.uid();
        if uid != 0 && Some(uid) != our_uid {
            let shown = shown.display();
            bail!(
                "another user (uid {uid}) could change where {shown} leads; give the path without it"
            );
        }
    }
    Ok(())
}

/// Returns the id of the user who runs getcrt. `None` without /proc.
pub fn our_uid() -> Option<u32> {
    let metadata = fs::metadata("/proc/self").ok()?;
    Some(metadata.uid())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn links_and_pipes_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path()).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(directory.open_file("file").is_ok());

        symlink("file", folder.path().join("link")).unwrap();
        let error = directory.open_file("link").err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));

        let pipe = folder.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        // This would wait for a writer if it blocked.
        let opened = directory.open_file("pipe").unwrap();
        assert!(!opened.metadata().unwrap().is_file());
    }

    #[test]
    fn directory_that_is_renamed_stays_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        let directory = open(&path).unwrap();
        fs::rename(&path, folder.path().join("b")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(directory.place_of("file"), "").unwrap();
        assert!(folder.path().join("b/file").exists());
        assert!(!path.join("file").exists());
    }

    #[test]
    fn ways_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a", root.join("to-a")).unwrap();
        symlink(root.join("a/b"), root.join("to-b")).unwrap();
        symlink("../../new", root.join("a/b/to-new")).unwrap();
        symlink("to-itself", root.join("to-itself")).unwrap();
        for (path, expected) in [
            ("new", "new"),
            ("a/./b/new", "a/b/new"),
            ("a/b/../new", "a/new"),
            ("to-a/b/new", "a/b/new"),
            ("to-b/../new", "a/new"),
            ("to-b/to-new", "new"),
        ] {
            let (directory, name) = locate(&root.join(path)).unwrap();
            fs::write(directory.place_of(name), path).unwrap();
            assert_eq!(fs::read_to_string(root.join(expected)).unwrap(), path);
            fs::remove_file(root.join(expected)).unwrap();
        }
        for path in ["missing/new", "to-itself", "a/.."] {
            assert!(locate(&root.join(path)).is_err(), "{path}");
        }
    }
}
