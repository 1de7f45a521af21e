//! Where the chain goes: to stdout, or into a file that is replaced as a whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use log::{info, warn};

use crate::chain::Chain;
use crate::deadline::Deadline;
use crate::directory::{self, Directory};
use crate::error::Failure;
use crate::files;
use crate::options::Options;
use crate::panics;
use crate::signals;
use crate::temporary::TemporaryFile;

/// How many bytes are written before a certificate is ordered, so that a full disk is noticed while nothing
/// is lost. A typical chain has a tenth of that.
const RESERVED_BYTES: usize = 64 << 10;
/// The mode of an output file that did not exist before.
const NEW_FILE_MODE: u32 = 0o644;
/// How a file with certificates begins: with one of them, or with what `openssl x509 -text` and `openssl pkcs12` write
/// before it.
const BEGINNINGS: [&str; 5] = [
    "-----BEGIN CERTIFICATE-----",
    "Certificate:",
    "Bag Attributes",
    "subject=",
    "issuer=",
];
/// The pause before the next try to lock the temporary file.
const LOCK_INTERVAL: Duration = Duration::from_millis(250);

/// Where the chain goes. It was checked that it can be written there.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(Box<Replacement>),
}

/// A file that will be replaced, and the temporary file beside it that will take its place.
pub struct Replacement {
    /// What the user calls the file.
    shown: String,
    /// Where it is, through all symlinks.
    directory: Arc<Directory>,
    name: OsString,
    /// The file that will be replaced, if there is one.
    old: Option<OldFile>,
    /// The temporary file, open. It is locked, so that runs for the same file come one after the other.
    file: File,
    /// Removes the temporary file when it is dropped, unless it was renamed to the target.
    guard: TemporaryFile,
}

/// What is at the target before the run.
struct OldFile {
    metadata: Metadata,
    /// The certificates in it, if there are any.
    chain: Option<Chain>,
}

impl Output {
    /// Prepares the destination. For a file, this creates the temporary file and writes 64 KiB to notice a full disk. If another run
    /// is writing the same file, this waits until it has ended.
    ///
    /// # Errors
    /// Stdout is closed. The file is not regular. It holds something else than certificates, or a valid
    /// certificate that one from staging would replace. No other file can be written beside it. The deadline is over
    /// before the other run has ended.
    pub fn open(options: &Options, deadline: &Deadline) -> Result<Output> {
        match &options.output {
            Some(path) => {
                let replacement =
                    Replacement::prepare(path, options, deadline).with_context(|| shown(path))?;
                Ok(Output::File(Box::new(replacement)))
            }
            None => {
                let is_needed = !options.dry_run;
                if is_needed && is_stdout_closed() {
                    bail!("stdout is closed, or leads to /dev/null; name a file with -o");
                }
                Ok(Output::Stdout)
            }
        }
    }

    /// Returns the certificates in the file that will be replaced.
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
        let written = panics::catch(|| match self {
            Output::Stdout => write_to_stdout(pem).context("stdout"),
            Output::File(replacement) => replacement.commit(pem),
        });
        written.map_err(|error| {
            let message = format!("the certificate was issued, but cannot be written: {error:#}");
            let mut failure = Failure::new(message)
                .with_hint("the certificate is printed above: save it where it belongs");
            failure.undelivered_chain = Some(pem.to_owned());
            Error::new(failure)
        })
    }
}

/// Returns the certificates in the file at `path`. `None` if there is no such file, or it holds none.
///
/// # Errors
/// The file cannot be read, or it is one that would not be replaced.
pub fn read_chain(path: &Path) -> Result<Option<Chain>> {
    let read = || -> Result<Option<Chain>> {
        check_is_no_special_file(path)?;
        let (directory, name) = directory::locate(path)?;
        let old = OldFile::read(&directory, &name)?;
        Ok(old.and_then(|old| old.chain))
    };
    read().with_context(|| shown(path))
}

/// Returns how messages call the file at `path`.
fn shown(path: &Path) -> String {
    format!("--output {}", path.display())
}

fn write_to_stdout(pem: &str) -> io::Result<()> {
    signals::certificate_is_being_written();
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
    fn prepare(path: &Path, options: &Options, deadline: &Deadline) -> Result<Replacement> {
        check_is_no_special_file(path)?;
        let (directory, name) = directory::locate(path)?;
        let directory = Arc::new(directory);
        let (guard, file) = lock_temporary_file(&directory, &name, deadline)?;

        // Another run may have changed it while this one waited for the lock. So it is read only now.
        let old = OldFile::read(&directory, &name)?;
        if let Some(old) = &old
            && options.is_staging()
            && !options.dry_run
        {
            old.refuse_staging()?;
        }
        write_and_sync(&file, &[0; RESERVED_BYTES]).context("no room for a certificate")?;
        Ok(Replacement {
            shown: shown(path),
            directory,
            name,
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
        write_and_sync(&self.file, pem.as_bytes()).context(self.shown.clone())?;

        // Somebody may have written to it since the run began. So look again whether anything would be lost.
        OldFile::read(&self.directory, &self.name).context(self.shown.clone())?;
        // If this process dies after this, the next run does not take the temporary file for its own.
        self.keep_owner_and_mode();
        // If this fails, the chain stays where it is.
        let temporary_path = self.guard.shown();
        signals::certificate_is_being_written();
        self.guard.rename(&self.name).with_context(|| {
            let left_in = temporary_path.display();
            format!(
                "{}: cannot rename {left_in}, where the chain is",
                self.shown
            )
        })?;
        if let Err(error) = self.directory.sync() {
            warn!(
                "{} is written, but may not survive a power failure: {error}",
                self.shown
            );
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
        warn!(
            "{}: its owner, group or mode cannot be kept: {error}",
            self.shown
        );
    }
}

impl OldFile {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It is not a regular file or cannot be read. Or it holds something that would be lost.
    fn read(directory: &Directory, name: &OsStr) -> Result<Option<OldFile>> {
        let file = match directory.open_file(name) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        check_is_regular(&metadata)?;
        ensure!(
            !directory.is_mount_point(&file),
            "this file is a mount point, so it cannot be replaced; mount its directory instead"
        );
        let content = files::read_bounded(file)?;
        check_may_be_lost(&content)?;
        let chain = Chain::from_file(&content);
        Ok(Some(OldFile { metadata, chain }))
    }

    /// Refuses to replace a certificate that is worth more than one from staging.
    fn refuse_staging(&self) -> Result<()> {
        let is_worth_more = |chain: &Chain| !chain.is_staging() && !chain.is_expired();
        if self.chain.as_ref().is_some_and(is_worth_more) {
            bail!(
                "staging would replace a valid certificate with one that nobody trusts; name another file"
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

/// Checks that `path` leads to a file, if it leads anywhere. (A symlink such as /dev/stdout may lead to a pipe, which has
/// no path.)
fn check_is_no_special_file(path: &Path) -> Result<()> {
    let names_directory = path.to_string_lossy().ends_with('/');
    ensure!(
        !names_directory,
        "this names a directory; name a file in it"
    );
    match fs::metadata(path) {
        Ok(metadata) => check_is_regular(&metadata),
        Err(_) => Ok(()),
    }
}

fn check_is_regular(metadata: &Metadata) -> Result<()> {
    ensure!(!metadata.is_dir(), "this is a directory; name a file in it");
    ensure!(
        metadata.is_file(),
        "this is not a regular file; leave -o out to write to stdout"
    );
    Ok(())
}

/// Checks that a file with this content may be replaced: one that is empty, or that begins with a certificate and holds no
/// other PEM. A certificate may be damaged.
fn check_may_be_lost(content: &[u8]) -> Result<()> {
    // A file that was being written when the power failed may hold zero bytes.
    let is_empty = content
        .iter()
        .all(|byte| byte.is_ascii_whitespace() || *byte == 0);
    if is_empty {
        return Ok(());
    }
    let text = String::from_utf8_lossy(content);
    let mut has_certificate = false;
    for label in files::pem_labels(&text) {
        if label != "CERTIFICATE" {
            bail!("this file holds a PEM block `{label}`, which would be lost; name another file");
        }
        has_certificate = true;
    }
    let beginning = text.trim_start();
    let is_known = BEGINNINGS.iter().any(|known| beginning.starts_with(known));
    ensure!(
        has_certificate && is_known,
        "getcrt replaces only files that begin with a certificate, and this one does not; name another file"
    );
    Ok(())
}

/// Creates and locks the temporary file for the chain that will take the place of the file `name`. Its name is always
/// the same, so a run that was killed leaves no more than one.
///
/// # Errors
/// The file cannot be created, or another run has it until the deadline.
fn lock_temporary_file(
    directory: &Arc<Directory>,
    name: &OsStr,
    deadline: &Deadline,
) -> Result<(TemporaryFile, File)> {
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(".getcrt");
    let temporary_path = directory.shown(&temporary_name);

    let mut has_told = false;
    loop {
        let created =
            TemporaryFile::create_locked(directory, &temporary_name).with_context(|| {
                format!(
                    "cannot create the temporary file {}",
                    temporary_path.display()
                )
            })?;
        if let Some(locked) = created {
            return Ok(locked);
        }
        ensure!(
            deadline.remaining() > LOCK_INTERVAL,
            "another getcrt is still writing this file, and no time is left (--timeout)"
        );
        if !has_told {
            info!("Waiting for another getcrt that is writing the same file...");
            has_told = true;
        }
        deadline.sleep(LOCK_INTERVAL)?;
    }
}
