//! Keys, CSRs and directories, made by openssl's command line as a user would make them.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use openssl::x509::X509;
use tempfile::TempDir;

use super::is_root;

/// A directory of the test's own.
///
/// The web servers that root starts become other users, and their configurations do not quote paths. So if `TMPDIR`
/// is for root alone, or has a space in its path, this directory is in `/tmp` instead.
pub fn directory() -> TempDir {
    let tmpdir = env::temp_dir().canonicalize().unwrap();
    let is_private = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o1 == 0;
    let is_for_root_alone = is_root() && tmpdir.ancestors().any(is_private);
    let has_space = tmpdir.to_string_lossy().contains(char::is_whitespace);
    let parent = if is_for_root_alone || has_space {
        Path::new("/tmp")
    } else {
        &tmpdir
    };
    let directory = tempfile::Builder::new()
        .prefix("getcrt-test-")
        .tempdir_in(parent)
        .unwrap();
    set_mode(directory.path(), 0o755);
    directory
}

/// Runs openssl, whose words are shown where it fails.
pub fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "openssl {}\n{errors}",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A private key in PKCS#8; `kind` is openssl's, such as `RSA:2048`, `EC:P-256` or `ED25519`.
pub fn key(path: &Path, kind: &str) -> PathBuf {
    let (algorithm, option) = kind.split_once(':').unwrap_or((kind, ""));
    let option = match algorithm {
        "RSA" => format!("rsa_keygen_bits:{option}"),
        _ => format!("ec_paramgen_curve:{option}"),
    };
    let mut arguments = vec![
        "genpkey",
        "-algorithm",
        algorithm,
        "-out",
        path.to_str().unwrap(),
    ];
    if kind.contains(':') {
        arguments.extend(["-pkeyopt", &option]);
    }
    openssl(&arguments);
    set_mode(path, 0o600);
    path.to_owned()
}

/// A CSR for `names`, with `subject` as openssl's -subj. A name may be `IP:…`; others are DNS names.
pub fn csr(path: &Path, key: &Path, subject: &str, names: &[&str]) -> PathBuf {
    let sans: Vec<String> = names
        .iter()
        .map(|name| {
            if name.contains(':') {
                (*name).to_owned()
            } else {
                format!("DNS:{name}")
            }
        })
        .collect();
    let extension = format!("subjectAltName={}", sans.join(","));
    let mut arguments = vec![
        "req",
        "-new",
        "-key",
        key.to_str().unwrap(),
        "-subj",
        subject,
    ];
    arguments.extend(["-out", path.to_str().unwrap()]);
    if !names.is_empty() {
        arguments.extend(["-addext", &extension]);
    }
    openssl(&arguments);
    path.to_owned()
}

/// A self-signed certificate for `names` that ends `days` from now.
pub fn self_signed(directory: &Path, subject: &str, names: &[&str], days: &str) -> PathBuf {
    let (key, certificate) = (directory.join("self.key"), directory.join("self.crt"));
    let sans: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    let extension = format!("subjectAltName={}", sans.join(","));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        subject,
        "-days",
        days,
        "-addext",
        &extension,
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        certificate.to_str().unwrap(),
    ]);
    certificate
}

/// The tests' own CA for https on loopback: the root, and a certificate and key for localhost.
pub struct Https {
    pub root: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Made once for all tests of a day or two, and renamed when it is whole: several test processes may need it at
/// the same time.
pub fn https() -> &'static Https {
    static HTTPS: OnceLock<Https> = OnceLock::new();
    HTTPS.get_or_init(|| {
        let since_1970 = UNIX_EPOCH.elapsed().unwrap();
        let day = since_1970.as_secs() / 86_400;
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = parent.join(format!("https-{day}"));
        if !directory.exists() {
            let made = tempfile::tempdir_in(parent).unwrap();
            make_https(made.path());
            // Another process may have been faster.
            let _ = fs::rename(made.path(), &directory);
        }
        Https {
            root: directory.join("root.pem"),
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        }
    })
}

fn make_https(directory: &Path) {
    let path = |name: &str| directory.join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    key(&path("root.key"), "EC:P-256");
    openssl(&[
        "req",
        "-x509",
        "-key",
        &text("root.key"),
        "-subj",
        "/CN=tests' root",
        "-days",
        "2",
        "-out",
        &text("root.pem"),
    ]);
    key(&path("server.key"), "EC:P-256");
    let csr = csr(
        &path("server.csr"),
        &path("server.key"),
        "/CN=localhost",
        &[],
    );
    let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
    fs::write(path("extensions"), extensions).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        csr.to_str().unwrap(),
        "-CA",
        &text("root.pem"),
        "-CAkey",
        &text("root.key"),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &text("extensions"),
        "-out",
        &text("server.pem"),
    ]);
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The names of the files in a directory, sorted.
pub fn listing(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Where Debian has a shared library.
pub fn library(name: &str) -> PathBuf {
    let folders = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let found = folders
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name}: install libnss-wrapper (sh tests/run.sh does)"))
}

/// The files of the source.
pub fn sources() -> Vec<PathBuf> {
    let mut sources = Vec::new();
    for folder in ["src", "src/acme"] {
        let entries = fs::read_dir(folder).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        sources.extend(files.filter(|path| path.extension().is_some_and(|it| it == "rs")));
    }
    sources
}

/// Reads a file as text.
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Returns the certificate, which is signed with ecdsa-with-SHA256, as if it were signed by an algorithm that
/// nobody knows.
pub fn with_unknown_algorithm(certificate: &X509) -> X509 {
    let mut der = certificate.to_der().unwrap();
    // The algorithm's OID is there twice.
    let oid = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
    for place in 0..der.len() - oid.len() {
        if der[place..].starts_with(oid) {
            der[place + oid.len() - 1] = 0x7f;
        }
    }
    X509::from_der(&der).unwrap()
}

/// Makes a directory and everything in it somebody else's.
pub fn give_away(directory: &Path, user: u32) {
    for name in listing(directory) {
        let path = directory.join(name);
        if path.is_dir() {
            give_away(&path, user);
        } else {
            chown(&path, Some(user), Some(user)).unwrap();
        }
    }
    chown(directory, Some(user), Some(user)).unwrap();
}
