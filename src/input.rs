//! The files the user hands over: each is read once (so that pipes work) and never beyond a bound.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// More than any key, CSR or bundle of roots has.
const MAX_FILE: u64 = 4 << 20;

/// What `parse` makes of the content and metadata of a file that the user named.
///
/// # Errors
/// One that names the file, where it is missing, unreadable, empty, absurdly large or not what
/// `parse` wants.
pub fn load<T>(path: &Path, parse: impl FnOnce(&[u8], &Metadata) -> Result<T>) -> Result<T> {
    let load = || {
        let (file, mut content) = (File::open(path)?, Vec::new());
        let metadata = file.metadata()?;
        let length = file.take(MAX_FILE).read_to_end(&mut content)?;
        ensure!(length > 0, "the file is empty");
        ensure!((length as u64) < MAX_FILE, "the file is larger than 4 MiB");
        parse(&content, &metadata)
    };
    load().with_context(|| format!("Error loading {}", path.display()))
}

/// That there is no `wanted` in a file, and what its first PEM label says it holds.
pub fn unusable(wanted: &str, content: &[u8]) -> String {
    let found = match pem_labels(&String::from_utf8_lossy(content)).next() {
        Some("CERTIFICATE" | "TRUSTED CERTIFICATE") => "a certificate",
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => "a CSR",
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => "a public key",
        Some("OPENSSH PRIVATE KEY") => "a key in OpenSSH's own format",
        Some(label) if label.ends_with("PRIVATE KEY") => "a private key",
        Some(_) => "PEM of another kind",
        None => return format!("no usable {wanted} in it, nor any other PEM"),
    };
    if found.ends_with(wanted) {
        return format!("the {wanted} in it is damaged, or of a kind that OpenSSL does not know");
    }
    format!("no usable {wanted} in it, it looks like {found}")
}

/// The labels of all PEM blocks.
pub fn pem_labels(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("-----BEGIN ").skip(1);
    blocks.filter_map(|block| block.split("-----").next())
}
