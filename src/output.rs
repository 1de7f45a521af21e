//! Where the chain goes: to stdout, or into a file that is replaced as a whole or not at all.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use log::warn;

use crate::chain::Chain;
use crate::error::Failure;
use crate::files;
use crate::options::Options;
use crate::temporary::TemporaryFile;

/// The most symlinks that are followed, as in Linux.
const MAX_LINKS: usize = 40;
/// How many bytes are written before a certificate is ordered, so that a full disk is noticed while nothing
/// is lost. A typical chain has a tenth of that.
const RESERVED_BYTES: usize = 64 << 10;
/// The mode of an output file that did not exist before.
const NEW_FILE_MODE: u32 = 0o644;

/// Where the chain goes. It was checked that it can be written there.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(Box<Replacement>),
}

/// A file that will be replaced, and the temporary file beside it that will take its place.
pub struct Replacement {
    target: PathBuf,
    /// The file that will be replaced, if there is one.
    old: Option<OldFile>,
    /// The temporary file, open.
    file: File,
    /// Removes it, until it is renamed to the target.
    guard: TemporaryFile,
}

/// What is at the target before the run.
struct OldFile {
    metadata: Metadata,
    /// The certificates in it, if there are any.
    chain: Option<Chain>,
}

impl Output {
    /// Prepares the destination. For a file, this creates the temporary file and reserves disk space.
    ///
    /// # Errors
    /// Stdout is closed. The file is not regular. It holds a PEM block that is no certificate, or a valid
    /// certificate that one from staging would replace. No other file can be written beside it.
    pub fn open(options: &Options) -> Result<Output> {
        match &options.output {
            Some(path) => {
                let replacement =
                    Replacement::prepare(path, options).with_context(|| shown(path))?;
                Ok(Output::File(Box::new(replacement)))
            }
            None => {
                let is_needed = !options.dry_run;
                if is_needed && is_stdout_closed() {
                    bail!("stdout is closed; name a file with -o");
                }
                Ok(Output::Stdout)
            }
        }
    }

    /// Returns the certificate in the file that will be replaced.
    pub fn old_chain(&self) -> Option<&Chain> {
        match self {
            Output::Stdout => None,
            Output::File(replacement) => replacement.old_chain(),
        }
    }

    /// Writes the chain.
    ///
    /// # Errors
    /// It could not be written. The error carries the chain, so that it is not lost.
    pub fn write(self, pem: &str) -> Result<()> {
        let written = match self {
            Output::Stdout => write_to_stdout(pem).context("stdout"),
            Output::File(replacement) => replacement.commit(pem),
        };
        written.map_err(|error| {
            let message = format!("the certificate was issued, but cannot be written: {error:#}");
            let mut failure = Failure::new(message)
                .with_hint("the certificate follows: save it where it belongs");
            failure.undelivered_chain = Some(pem.to_owned());
            Error::new(failure)
        })
    }
}

fn write_to_stdout(pem: &str) -> io::Result<()> {
    // std's own handle reports success when stdout is open for reading only, so it is not used.
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    File::from(stdout).write_all(pem.as_bytes())
}

/// Whether this process seems to have been started with stdout closed. In its place Rust's runtime opens
/// /dev/null for reading and writing. Shells open it for writing only, so `> /dev/null` is not mistaken for it.
fn is_stdout_closed() -> bool {
    let is_null = fs::read_link("/proc/self/fd/1").is_ok_and(|path| path == Path::new("/dev/null"));
    // A line `flags:	0100002`, in octal. The last digit is the access mode, and 2 is O_RDWR.
    let info = fs::read_to_string("/proc/self/fdinfo/1").unwrap_or_default();
    let is_read_write = info
        .lines()
        .any(|line| line.starts_with("flags:") && line.ends_with('2'));
    is_null && is_read_write
}

impl Replacement {
    fn prepare(path: &Path, options: &Options) -> Result<Replacement> {
        let names_directory = path.to_string_lossy().ends_with('/');
        ensure!(!names_directory, "this names a directory, not a file");
        let target = follow_links(path)?;
        let old = OldFile::read(&target)?;
        if let Some(old) = &old
            && options.is_staging()
            && !options.dry_run
        {
            old.refuse_staging()?;
        }
        let (guard, file) = TemporaryFile::create_private_in(directory_of(&target))
            .context("no file can be made in its directory")?;
        write_and_sync(&file, &[0; RESERVED_BYTES]).context("no room for a certificate")?;
        Ok(Replacement {
            target,
            old,
            file,
            guard,
        })
    }

    fn old_chain(&self) -> Option<&Chain> {
        self.old.as_ref()?.chain.as_ref()
    }

    /// Writes the chain into the temporary file and renames that.
    fn commit(self, pem: &str) -> Result<()> {
        let place = shown(&self.target);
        self.keep_owner_and_mode();
        write_and_sync(&self.file, pem.as_bytes()).context(place.clone())?;

        // If this fails, the chain stays where it is.
        let temporary_path = self.guard.path().to_owned();
        self.guard.rename(&self.target).with_context(|| {
            let left_in = temporary_path.display();
            format!("it is in {left_in}: {place}")
        })?;
        if let Err(error) = sync_directory(directory_of(&self.target)) {
            warn!("{place} is written, but may not survive a power failure: {error}");
        }
        Ok(())
    }

    /// Gives the temporary file the owner, group and mode of the file that it will replace.
    fn keep_owner_and_mode(&self) {
        let mut mode = NEW_FILE_MODE;
        if let Some(old) = &self.old {
            if let Err(error) = self.keep_owner(&old.metadata) {
                self.warn_not_kept(&error);
            }
            mode = old.metadata.mode();
        }
        // The mode comes last: a change of owner may clear some of its bits.
        if let Err(error) = self.file.set_permissions(Permissions::from_mode(mode)) {
            self.warn_not_kept(&error);
        }
    }

    fn keep_owner(&self, old: &Metadata) -> io::Result<()> {
        let new = self.file.metadata()?;
        if new.uid() == old.uid() && new.gid() == old.gid() {
            return Ok(());
        }
        let changed = fchown(&self.file, Some(old.uid()), Some(old.gid()));
        if changed.is_err() {
            // Only root may change the owner, but others may change the group to one of their own.
            let _ = fchown(&self.file, None, Some(old.gid()));
        }
        changed
    }

    fn warn_not_kept(&self, error: &io::Error) {
        let place = shown(&self.target);
        warn!("{place}: its owner, group or mode cannot be kept: {error}");
    }
}

impl OldFile {
    /// Reads the file at `path`, if there is one.
    ///
    /// # Errors
    /// It is not a regular file, cannot be read, or holds a PEM block that is no certificate.
    fn read(path: &Path) -> Result<Option<OldFile>> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !metadata.is_file() {
            bail!("this is no regular file; for stdout leave -o out");
        }
        let (content, _) = files::read(path)?;
        let text = String::from_utf8_lossy(&content);
        for label in files::pem_labels(&text) {
            if label != "CERTIFICATE" {
                bail!("there is a {label} in this file, which would be lost; name another file");
            }
        }
        let chain = Chain::from_file(&content);
        Ok(Some(OldFile { metadata, chain }))
    }

    /// Refuses to replace a certificate that is worth more than one from staging.
    fn refuse_staging(&self) -> Result<()> {
        let is_worth_more = |chain: &Chain| !chain.is_staging() && !chain.is_expired();
        if self.chain.as_ref().is_some_and(is_worth_more) {
            bail!(
                "staging would replace a valid certificate by one nobody trusts; name another file"
            );
        }
        Ok(())
    }
}

/// Replaces the content of `file` and waits until it is on the disk.
fn write_and_sync(file: &File, content: &[u8]) -> io::Result<()> {
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Waits until a rename in `directory` is on the disk.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn shown(path: &Path) -> String {
    format!("--output {}", path.display())
}

/// Returns where `path` leads through all symlinks. The last one may lead to a file that does not exist
/// yet.
fn follow_links(path: &Path) -> Result<PathBuf> {
    // A pipe or a device is refused by the caller. Its links are not followed here: one like /proc/self/fd/1 may
    // hold no path but `pipe:[1234]`.
    let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        return Ok(path.to_owned());
    }
    let mut place = path.to_owned();
    for _ in 0..=MAX_LINKS {
        match fs::read_link(&place) {
            Ok(target) => place = directory_of(&place).join(target),
            Err(_) => return Ok(place),
        }
    }
    bail!("too many levels of symbolic links")
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
