//! Files, disks, permissions, and where the output goes.

use std::sync::{Arc, OnceLock};

use crate::support::is_skipped_without_mounts;
use crate::support::is_skipped_without_root;
use crate::support::pebble;
use crate::support::prelude::*;

#[test]
fn foreign_token_file_is_refused() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let foreign = setup.path("acme").join(token(1));
    fs::write(&foreign, "something that is not ours").unwrap();
    let outcome = setup.getcrt().outcome();
    outcome
        .failed("cannot write the challenge file acme/")
        .says("a foreign file has that name");
    assert_eq!(text(&foreign), "something that is not ours");
    assert_eq!(listing(&setup.path("acme")), [token(1)]);
    // A link is no file of ours either, wherever it leads.
    let target = setup.path("target");
    fs::write(&target, "").unwrap();
    fs::remove_file(&foreign).unwrap();
    std::os::unix::fs::symlink(&target, &foreign).unwrap();
    setup
        .getcrt()
        .outcome()
        .failed("a foreign file has that name");
    assert_eq!(text(&target), "");
    assert_eq!(setup.ca.violations(), [""; 0]);
}

#[test]
fn leftovers_of_a_killed_run_are_replaced() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let acme = setup.path("acme");
    fs::write(acme.join(token(0)), "").unwrap();
    fs::write(acme.join(token(1)), format!("{}.", token(1))).unwrap();
    set_mode(&acme.join(token(1)), 0o600);
    setup.issues().issued();
}

/// Runs in a mount namespace where `folder` is a file system of `size`.
fn on_a_small_disk(setup: &Setup<FakeCa>, folder: &str, size: &str) -> Run {
    let script = format!("mount -t tmpfs -o size={size} none {folder} && exec \"$0\" \"$@\"");
    setup.getcrt_with_mounts(&script)
}

#[test]
fn full_disk_is_an_error() {
    if is_skipped_without_mounts("a full disk") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::create_dir(setup.path("small")).unwrap();
    let outcome = on_a_small_disk(&setup, "small", "16k")
        .args(&["-o", "small/out.crt"])
        .outcome();
    outcome.failed("--output small/out.crt: no room for a certificate: No space left on device");
    assert_eq!(setup.ca.requests(), [""; 0]);
    let outcome = on_a_small_disk(&setup, "acme", "4k").outcome();
    outcome
        .failed("cannot write the challenge file acme/")
        .says("No space left on device");
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn read_only_disk_is_an_error() {
    if is_skipped_without_mounts("a read-only disk") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    let outcome = on_a_small_disk(&setup, "acme", "1m,ro").outcome();
    outcome.failed("--acme-dir acme: no file can be made in it: Read-only file system");
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn poor_environment_suffices() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let script = "ulimit -n 24; exec \"$0\" \"$@\" <&-";
    let run = setup.with_options(Run::of("sh").args(&["-c", script, GETCRT]));
    let outcome = run
        .env("HOME", "")
        .env("LC_ALL", "xx_XX")
        .env("SSL_CERT_FILE", "/nowhere")
        .outcome();
    outcome.issued();
}

#[test]
fn runs_at_once_do_not_disturb_each_other() {
    let setup = Setup::with_pebble();
    let runs: Vec<_> = (0..4).map(|_| setup.getcrt().start()).collect();
    for run in runs {
        let outcome = run.outcome();
        outcome.issued();
        setup.verify_pem(&outcome.stdout, &crate::support::pebble::NAMES);
    }
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
}

#[test]
fn locked_leftover_is_replaced() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let path = setup.path("acme").join(token(0));
    let file = fs::File::create(&path).unwrap();
    file.lock().unwrap();
    setup.issues().issued();
}

#[test]
fn output_of_another_owner_is_a_warning() {
    if is_skipped_without_root("a file at --output that belongs to somebody else") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    let leftover = setup.acme_dir().join(token(0));
    fs::write(&leftover, "").unwrap();
    set_mode(&leftover, 0o666);
    std::os::unix::fs::chown(setup.path("old.crt"), Some(12345), Some(54321)).unwrap();
    // A directory that cannot be opened cannot be synced.
    set_mode(setup.directory(), 0o333);
    let run = setup.getcrt_without_privileges();
    let outcome = run.args(&["-o", "old.crt"]).outcome();
    outcome.exits(0).says("\nCertificate signed!\n");
    for told in [
        "--output old.crt: its owner, group or mode cannot be kept: Operation not permitted",
        "--output old.crt is written, but may not survive a power failure: Permission denied",
    ] {
        outcome.says(told);
    }
}

#[test]
fn challenge_file_that_cannot_be_removed_is_a_warning() {
    let directory: Arc<OnceLock<PathBuf>> = Arc::default();
    let shared = Arc::clone(&directory);
    let close = move |request: &Request, _| {
        if !request.user_agent.starts_with("getcrt/") {
            set_mode(shared.get().unwrap(), 0o555);
        }
        None
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, close);
    directory.set(setup.path("acme")).unwrap();
    let outcome = setup.getcrt_without_privileges().outcome();
    outcome
        .exits(0)
        .says("\nwarning: acme/tOkEn-")
        .says(" is left, for it cannot be removed: Permission denied");
}

#[test]
fn challenge_file_that_cannot_be_read_is_removed() {
    let directory: Arc<OnceLock<PathBuf>> = Arc::default();
    let shared = Arc::clone(&directory);
    let hide = move |request: &Request, _| {
        if !request.user_agent.starts_with("getcrt/") {
            for name in listing(shared.get().unwrap()) {
                set_mode(&shared.get().unwrap().join(name), 0o200);
            }
        }
        None
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, hide);
    directory.set(setup.path("acme")).unwrap();
    let outcome = setup.getcrt_without_privileges().outcome();
    outcome.exits(0).says_not(" is left");
    setup.nothing_is_left(&outcome);
}

#[test]
fn full_stdout_loses_no_certificate() {
    let setup = Setup::with_pebble();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let outcome = setup.getcrt().stdout(full).outcome();
    outcome.failed_to_deliver(
        "the certificate was issued, but cannot be written: stdout: No space left on device",
    );
    let start = outcome
        .stderr
        .find("-----BEGIN")
        .expect("the certificate is lost");
    setup.verify_pem(&outcome.stderr[start..], &pebble::NAMES);
    outcome.says_not("Certificate signed!");
    // Errors are told under --quiet too, and this one has a certificate to save.
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    setup
        .getcrt()
        .arg("--quiet")
        .stdout(full)
        .outcome()
        .says("-----END CERTIFICATE-----\n");
}

#[test]
fn closed_stdout_loses_no_certificate() {
    let setup = Setup::with_pebble();
    // Closed: found out before anything is asked of the CA.
    let closed = setup
        .getcrt_by("sh", &["-c", "exec \"$0\" \"$@\" >&-"])
        .outcome();
    closed
        .failed("stdout is closed; name a file with -o")
        .says_not("Getting directory");
    setup
        .getcrt_by("sh", &["-c", "exec \"$0\" \"$@\" --dry-run >&-"])
        .outcome()
        .exits(0);
    // Open for reading only: nothing could be written to it.
    let reading = fs::File::open("/dev/null").unwrap();
    let outcome = setup.getcrt().stdout(reading).outcome();
    outcome.failed_to_deliver("cannot be written: stdout: Bad file descriptor");
    outcome.says("-----BEGIN CERTIFICATE-----\n");
    // Thrown away on purpose: so be it.
    setup
        .getcrt_by("sh", &["-c", "exec \"$0\" \"$@\" >/dev/null"])
        .outcome()
        .exits(0);
}

#[test]
fn lost_reader_of_stdout_loses_no_certificate() {
    let setup = Setup::with_pebble();
    let mut run = setup.getcrt().start();
    drop(run.child.stdout.take());
    let outcome = run.outcome();
    outcome.failed_to_deliver(
        "the certificate was issued, but cannot be written: stdout: Broken pipe",
    );
    outcome.says("-----BEGIN CERTIFICATE-----\n");
}

#[test]
fn closed_stderr_is_no_reason_to_stop() {
    let setup = Setup::with_pebble();
    let mut run = setup.getcrt().start();
    drop(run.child.stderr.take());
    let outcome = run.outcome();
    setup.verify_pem(&outcome.exits(0).stdout, &pebble::NAMES);
}

#[test]
fn chain_that_cannot_be_renamed_is_kept() {
    let setup = Setup::with_pebble_and_variables(&[
        ("PEBBLE_VA_NOSLEEP", "0"),
        ("PEBBLE_VA_SLEEPTIME", "5"),
    ]);
    let output = setup.path("out.crt");
    let run = setup
        .getcrt()
        .args(&["-o", output.to_str().unwrap()])
        .start();
    await_that("the challenge files", || {
        listing(&setup.acme_dir()).len() == 2
    });
    // Somebody makes a directory of that name meanwhile.
    fs::create_dir(&output).unwrap();
    fs::write(output.join("x"), "").unwrap();
    let outcome = run.outcome();
    outcome.failed_to_deliver("the certificate was issued, but cannot be written: it is in ");
    let start = outcome
        .stderr
        .find("-----BEGIN")
        .expect("the certificate is lost");
    setup.verify_pem(&outcome.stderr[start..], &pebble::NAMES);
    let kept = listing(&setup.path(""))
        .into_iter()
        .find(|name| name.starts_with(".getcrt"))
        .unwrap();
    outcome.says(&kept);
    setup.verify_pem(&text(&setup.path(&kept)), &pebble::NAMES);
}
