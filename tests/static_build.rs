//! The binary that needs nothing of the system: alone in an empty root, it gets a certificate.

use std::env::{self, consts::ARCH};
use std::os::unix::fs::symlink;

use crate::support::pebble::NAMES;
use crate::support::prelude::*;
use crate::support::{is_root, is_too_long};

/// The binary, built where tests/run.sh has built it before.
fn built() -> PathBuf {
    let target = format!("{ARCH}-unknown-linux-musl");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("static");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--locked"]);
    cargo.args([
        "--features",
        "vendored",
        "--target",
        &target,
        "--target-dir",
    ]);
    assert!(cargo.arg(&folder).status().unwrap().success());
    folder.join(target).join("release/getcrt")
}

#[test]
fn the_static_binary_is_enough() {
    // tests/run.sh has said so where rustup has no such target.
    if is_too_long("the static build") || env::var_os("GETCRT_NO_MUSL").is_some() {
        return;
    }
    let directory = directory();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("acme")).unwrap();
    symlink("root/acme", directory.path().join("acme")).unwrap();
    let web = Web::serving(&root.join("acme"));
    let setup = Setup::with_pebble_and_web(directory, web);
    fs::copy(built(), root.join("getcrt")).unwrap();
    fs::copy(&https().root, root.join("root.pem")).unwrap();
    for name in ["account.key", "domain.csr"] {
        fs::copy(setup.path(name), root.join(name)).unwrap();
    }
    let run = |url: &str| {
        // Root needs no user namespace, which is not to be had everywhere.
        let run = Run::of("unshare").args(if is_root() { &[] } else { &["--map-root-user"] });
        let run = run.arg("--root").arg(&root).arg("/getcrt");
        run.args(&["--account-key", "account.key", "--csr", "domain.csr"])
            .args(&["--acme-dir", "acme", "--directory-url", url])
            .args(&["--check-port", &setup.web.port.to_string()])
    };

    // Names lead nowhere in there, not even localhost, and nobody can be asked for them.
    let all = ["account.key", "acme", "domain.csr", "getcrt", "root.pem"];
    assert_eq!(listing(&root), all);
    let url = setup.ca.directory_url().replace("localhost", "127.0.0.1");
    let bundle = ["--ca-bundle", "root.pem", "--disable-check"];
    setup.verify(&run(&url).args(&bundle).outcome(), &NAMES);

    // With two files more it resolves names, checks what is served, and knows whom to trust.
    fs::create_dir_all(root.join("etc/ssl")).unwrap();
    let hosts = format!("127.0.0.1 localhost {}\n", NAMES.join(" "));
    fs::write(root.join("etc/hosts"), hosts).unwrap();
    fs::rename(root.join("root.pem"), root.join("etc/ssl/cert.pem")).unwrap();
    setup.verify(&run(&setup.ca.directory_url()).outcome(), &NAMES);
}
