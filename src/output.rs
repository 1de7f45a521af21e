//! Where the chain goes: stdout, or a file that is replaced as a whole or not at all.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use log::warn;

use crate::chain::Chain;
use crate::failure::Failure;
use crate::input;
use crate::options::Options;
use crate::temporary::TemporaryFile;

/// Longest chain of symlinks that is followed, as in Linux.
const MAX_LINKS: usize = 40;
/// What is written and synced before a certificate is ordered, so that a full disk shows itself
/// while nothing is lost by it; more than any chain needs.
const RESERVE: usize = 64 << 10;
/// Mode of an output file that did not exist before.
const NEW_MODE: u32 = 0o644;

/// A place for the chain that was writable when it was looked at: a file, or else stdout.
pub struct Output(Option<Replacement>);

/// The temporary file beside the one that it will replace.
struct Replacement {
    target: PathBuf,
    old: Option<Metadata>,
    current: Option<Chain>,
    temporary: TemporaryFile,
}

impl Output {
    /// Prepares the place: for a file, the temporary one is made and its space taken.
    ///
    /// # Errors
    /// Stdout is closed, what is there is no regular file, its directory or disk cannot take a new
    /// one, or it holds a certificate that is worth more than the new one would be.
    pub fn open(options: &Options) -> Result<Output> {
        let Some(path) = &options.output else {
            let is_lost = is_stdout_closed() && !options.dry_run;
            ensure!(!is_lost, "stdout is closed; name a file with -o");
            return Ok(Output(None));
        };
        let replaces = options.is_staging() && !options.dry_run;
        let replacement = Replacement::prepare(path, replaces).with_context(|| shown(path))?;
        Ok(Output(Some(replacement)))
    }

    /// The certificate in the file that will be replaced, as it is now.
    pub fn current(&self) -> Option<&Chain> {
        self.0.as_ref()?.current.as_ref()
    }

    /// Delivers the chain.
    ///
    /// # Errors
    /// It could not be delivered; the failure then carries it, for it is too precious to be lost.
    pub fn write(self, pem: &str) -> Result<()> {
        let result = match self.0 {
            None => to_stdout(pem).context("stdout"),
            Some(replacement) => replacement.commit(pem),
        };
        result.map_err(|error| {
            let line = format!("the certificate was issued, but cannot be written: {error:#}");
            let mut failure =
                Failure::new(line).hint(Some("the certificate follows: save it where it belongs"));
            failure.rescued = Some(pem.to_owned());
            Error::new(failure)
        })
    }
}

fn to_stdout(pem: &str) -> io::Result<()> {
    // Not by std's own handle, for which a descriptor that cannot be written is written well.
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    File::from(stdout).write_all(pem.as_bytes())
}

/// Where stdout is closed std has opened /dev/null in its place, for reading too.
fn is_stdout_closed() -> bool {
    let info = fs::read_to_string("/proc/self/fdinfo/1").unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let is_null = fs::read_link("/proc/self/fd/1").is_ok_and(|path| path == Path::new("/dev/null"));
    is_null && flags.is_some_and(|flags| flags.ends_with('2'))
}

impl Replacement {
    fn prepare(path: &Path, by_staging: bool) -> Result<Replacement> {
        let is_directory = path.to_string_lossy().ends_with('/');
        ensure!(!is_directory, "this names a directory, not a file");
        let target = follow_links(path)?;
        let old = match fs::metadata(&target) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            metadata => Some(metadata?),
        };
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            bail!("this is no regular file; for stdout leave -o out");
        }
        let mut current = None;
        if old.is_some() {
            let content = fs::read(&target)?;
            let text = String::from_utf8_lossy(&content);
            if let Some(label) = input::pem_labels(&text).find(|label| *label != "CERTIFICATE") {
                bail!("there is a {label} in this file, which would be lost; name another file");
            }
            current = Chain::of_file(&content);
            let is_precious = current
                .as_ref()
                .is_some_and(|chain| !chain.is_staging() && !chain.is_expired());
            if by_staging && is_precious {
                bail!(
                    "staging would replace a valid certificate by one nobody trusts; name another file"
                );
            }
        }
        let temporary = TemporaryFile::create_in(directory_of(&target));
        let temporary = temporary.context("no file can be made in its directory")?;
        fill(temporary.file(), &[0; RESERVE]).context("no room for a certificate")?;
        Ok(Replacement {
            target,
            old,
            current,
            temporary,
        })
    }

    fn commit(self, pem: &str) -> Result<()> {
        let (place, path) = (shown(&self.target), self.temporary.path().to_owned());
        self.keep_owner_and_mode();
        fill(self.temporary.file(), pem.as_bytes()).with_context(|| place.clone())?;

        let renamed = self.temporary.rename(&self.target);
        let renamed = renamed.with_context(|| place.clone());
        renamed.with_context(|| format!("it is in {}", path.display()))?;
        let directory = File::open(directory_of(&self.target));
        if let Err(error) = directory.and_then(|directory| directory.sync_all()) {
            warn!("{place} is written, but may not survive a power failure: {error}");
        }
        Ok(())
    }

    fn keep_owner_and_mode(&self) {
        let file = self.temporary.file();
        let mode = self.old.as_ref().map_or(NEW_MODE, Metadata::mode);
        let owners = |metadata: &Metadata| (metadata.uid(), metadata.gid());
        let old = self.old.as_ref().map(owners);
        let new = file.metadata().as_ref().map(owners).ok();
        // Where there is nothing to change, none of the two is given.
        let (uid, gid) = old.filter(|_| old != new).unzip();
        let owned = fchown(file, uid, gid);
        // A group of one's own can be given even where the owner cannot.
        let owned = owned.or_else(|error| fchown(file, None, gid).and(Err(error)));
        // The mode comes last, for a change of owner may take bits from it.
        let moded = file.set_permissions(Permissions::from_mode(mode));
        for error in [owned.err(), moded.err()].into_iter().flatten() {
            let place = shown(&self.target);
            warn!("{place}: its owner, group or mode cannot be kept: {error}");
        }
    }
}

/// Makes `content` all that the file holds, on the disk.
fn fill(file: &File, content: &[u8]) -> io::Result<()> {
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

fn shown(path: &Path) -> String {
    format!("--output {}", path.display())
}

/// The file behind `path` through all symlinks, the last of which may lead to nothing yet.
fn follow_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        // What a device or pipe has below /proc looks like a link, and leads nowhere.
        let is_special = fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        match fs::read_link(&path) {
            Ok(target) if !is_special => path = directory_of(&path).join(target),
            _ => return Ok(path),
        }
    }
    Err(io::Error::other("too many levels of symbolic links").into())
}

fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|path| *path != Path::new(""));
    parent.unwrap_or(Path::new("."))
}
