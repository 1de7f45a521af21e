//! Reads the files that the user names, with a bound on their size. If a file is the wrong one, the error says
//! what it holds. Key, CSR and bundle are read once, so they can come from pipes.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A file must be smaller than this, in bytes. Keys, CSRs, chains and bundles of roots are much smaller.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads the file at `path` and returns what `parse` makes of its content and metadata.
///
/// # Errors
/// The file is missing, unreadable, empty or too large, or `parse` refuses it. The error names it.
pub fn load<T>(path: &Path, parse: impl FnOnce(&[u8], &Metadata) -> Result<T>) -> Result<T> {
    let read_and_parse = || {
        let (content, metadata) = read(path)?;
        ensure!(!content.is_empty(), "the file is empty");
        parse(&content, &metadata)
    };
    read_and_parse().with_context(|| format!("Error loading {}", path.display()))
}

/// Returns the content and the metadata of the file at `path`.
///
/// # Errors
/// The file cannot be read, or is too large.
pub fn read(path: &Path) -> Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut content = Vec::new();
    let length = file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
    ensure!(
        (length as u64) < MAX_FILE_BYTES,
        "the file is larger than 4 MiB"
    );
    Ok((content, metadata))
}

/// Explains why no `wanted` ("private key", "CSR") could be read from `content`, by the label of the
/// first PEM block in it.
pub fn explain_unusable(wanted: &str, content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let found = match pem_labels(&text).next() {
        Some("CERTIFICATE" | "TRUSTED CERTIFICATE") => "certificate",
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => "CSR",
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => "public key",
        Some("OPENSSH PRIVATE KEY") => "key in OpenSSH's own format",
        Some(label) if label.ends_with("PRIVATE KEY") => "private key",
        Some(_) => return format!("no usable {wanted} in it, it looks like PEM of another kind"),
        None => return format!("no usable {wanted} in it, nor any other PEM"),
    };
    if found == wanted {
        format!("the {wanted} in it is damaged, or of a kind that OpenSSL does not know")
    } else {
        format!("no usable {wanted} in it, it looks like a {found}")
    }
}

/// Returns the label of each PEM block in `text`, such as `CERTIFICATE` or `RSA PRIVATE KEY`. A block that is
/// cut off after its first line counts, too.
pub fn pem_labels(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("-----BEGIN ").skip(1);
    blocks.filter_map(|block| block.split("-----").next())
}
