//! The files the user hands over: each is read once (so that pipes work) and never beyond a bound.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// More than any key, CSR or bundle of roots has.
const MAX_FILE: u64 = 4 << 20;

/// The content of a file that the user named, with its metadata.
///
/// # Errors
/// One that names the file, where it is missing, unreadable, empty or absurdly large.
pub fn read(path: &Path) -> Result<(Vec<u8>, Metadata)> {
    let read = || -> Result<_> {
        let (file, mut content) = (File::open(path)?, Vec::new());
        let metadata = file.metadata()?;
        let length = file.take(MAX_FILE).read_to_end(&mut content)?;
        ensure!(length > 0, "the file is empty");
        ensure!((length as u64) < MAX_FILE, "the file is absurdly large");
        Ok((content, metadata))
    };
    read().with_context(|| error_loading(path))
}

/// The start of every message about a file that cannot be used.
pub fn error_loading(path: &Path) -> String {
    format!("Error loading {}", path.display())
}

/// What a file holds by its first PEM label, for the message where it cannot be used.
pub fn describe(content: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(content);
    let label = text
        .split("-----BEGIN ")
        .nth(1)
        .and_then(|rest| rest.split("-----").next());
    match label {
        Some("CERTIFICATE" | "TRUSTED CERTIFICATE") => "a certificate",
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => "a CSR",
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => "a public key",
        Some("OPENSSH PRIVATE KEY") => "a key in OpenSSH's own format",
        Some(label) if label.ends_with("PRIVATE KEY") => "a private key",
        Some(_) => "PEM of another kind",
        None => "no PEM",
    }
}
