//! Reads the files that the user names, with a bound on their size. If a file holds no key or CSR, the error says
//! what it holds. Key, CSR and bundle are read once, so they can come from pipes.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::deadline::Deadline;
use crate::error::Failure;

/// A file must be smaller than this, in bytes. Keys, CSRs, chains and bundles of roots are much smaller.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads the file at `path`, which `option` names, and returns what `parse` makes of its content and metadata.
///
/// # Errors
/// The file is missing, unreadable, empty or too large, or `parse` refuses it. Or it is a pipe, and nobody has written
/// to it by the deadline. The error names the option and the file.
pub fn load<T>(
    option: &str,
    path: &Path,
    deadline: &Deadline,
    parse: impl FnOnce(&[u8], &Metadata) -> Result<T>,
) -> Result<T> {
    let read_and_parse = || {
        let (content, metadata) = read_in_time(path, deadline)?;
        ensure!(!content.is_empty(), "the file is empty");
        parse(&content, &metadata)
    };
    read_and_parse().with_context(|| format!("{option} {}", path.display()))
}

/// Returns the content and the metadata of the file at `path`.
fn read_in_time(path: &Path, deadline: &Deadline) -> Result<(Vec<u8>, Metadata)> {
    if fs::metadata(path)?.is_file() {
        return open_and_read(path);
    }
    // A pipe can be silent for ever, already when it is opened. So a thread waits for it.
    let (sender, receiver) = mpsc::channel();
    let owned_path = path.to_owned();
    let work = move || {
        let _ = sender.send(open_and_read(&owned_path));
    };
    match thread::Builder::new().spawn(work) {
        Ok(_) => receiver
            .recv_timeout(deadline.remaining())
            .ok()
            .context("nothing came from it in time (--timeout)")?,
        Err(error) => Err(error).context("cannot start a thread that waits for it"),
    }
}

fn open_and_read(path: &Path) -> Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let content = read_bounded(file)?;
    Ok((content, metadata))
}

/// Returns the content of a file.
///
/// # Errors
/// The file cannot be read, or is too large.
pub fn read_bounded(file: File) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let length = file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
    ensure!(
        (length as u64) < MAX_FILE_BYTES,
        "the file is too large, with 4 MiB or more"
    );
    Ok(content)
}

/// Returns the error for a file in which there is no `wanted` ("private key", "CSR") that can be read. It says what there is
/// instead, by the label of the first PEM block.
pub fn unusable(wanted: &str, content: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(content);
    let found = match pem_labels(&text).next() {
        Some("CERTIFICATE" | "TRUSTED CERTIFICATE") => "certificate",
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => "CSR",
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => "public key",
        Some("OPENSSH PRIVATE KEY") => "key in OpenSSH's own format",
        Some(label) if label.ends_with("PRIVATE KEY") => "private key",
        Some(_) => {
            return Failure::new(format!(
                "this file holds no {wanted}, but PEM of another kind"
            ));
        }
        None => return Failure::new("there is no PEM in it"),
    };
    if found == wanted {
        let message =
            format!("the {wanted} in it is damaged, or of a kind that OpenSSL does not know");
        return Failure::new(message);
    }
    let failure = Failure::new(format!("no usable {wanted} in it; it looks like a {found}"));
    match (wanted, found) {
        ("private key", "CSR") | ("CSR", "private key") => {
            failure.with_hint("check whether --account-key and --csr are swapped")
        }
        _ => failure,
    }
}

/// What stands in a PEM block that is encrypted in the old way of OpenSSL, before the base64 (RFC 1421 §4.6.1.1).
const ENCRYPTION_HEADER: &[u8] = b"Proc-Type:";

/// Checks that no PEM block in `content` has the header of an encrypted one. OpenSSL would ask for the passphrase on the
/// terminal, whatever kind of block it is.
///
/// # Errors
/// There is such a block.
pub fn check_not_encrypted(content: &[u8]) -> Result<()> {
    // Not only at the beginning of a line: OpenSSL cuts long lines into pieces.
    let mut pieces = content.windows(ENCRYPTION_HEADER.len());
    ensure!(
        !pieces.any(|piece| piece == ENCRYPTION_HEADER),
        "it holds an encrypted PEM block, and getcrt never asks for a passphrase"
    );
    Ok(())
}

/// Returns the label of each PEM block in `text`, such as `CERTIFICATE` or `RSA PRIVATE KEY`. A block that is
/// cut off after its first line counts, too. Labels are shown to the user, so a first line that is damaged
/// is replaced by a fixed text: it could hold a part of a key.
pub fn pem_labels(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("-----BEGIN ").skip(1);
    blocks.map(|block| match block.split_once("-----") {
        Some((label, _)) if is_pem_label(label) => label,
        _ => "DAMAGED PEM BLOCK",
    })
}

/// Whether `text` looks like a label. Those that exist are short and have no lower case letters (RFC 7468 §4).
fn is_pem_label(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::pem_labels;

    #[test]
    fn labels_hold_nothing_of_a_key() {
        let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----
            -----BEGIN PRIVATE KEY\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----
            -----BEGIN EC PRIVATE KEY-----\nAAAA";
        let labels: Vec<&str> = pem_labels(text).collect();
        assert_eq!(
            labels,
            ["CERTIFICATE", "DAMAGED PEM BLOCK", "EC PRIVATE KEY"]
        );
        for damaged in ["", "-----", "PRIVATE KEY MIGHAgEA-----", "PRIVATE KEY----"] {
            let begin = format!("-----BEGIN {damaged}");
            let mut found = pem_labels(&begin);
            assert_eq!(found.next(), Some("DAMAGED PEM BLOCK"), "{damaged}");
        }
    }
}
