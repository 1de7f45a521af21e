//! Files, disks, permissions, and where the output goes.

use std::os::unix::fs::{chown, symlink};
use std::sync::{Arc, OnceLock};

use crate::support::prelude::*;
use crate::support::{is_skipped_without_mounts, is_skipped_without_root, pebble};

#[test]
fn foreign_file_in_the_acme_dir_is_kept() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let foreign = setup.acme_dir().join(token(1));
    fs::write(&foreign, "something that is not ours").unwrap();
    let outcome = setup.getcrt().outcome();
    outcome.failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
error: order https://localhost:[PORT]/order/1: cannot write the challenge file acme/[TOKEN]1: another file with this name is in the way; look at it, and remove it if nothing needs it

"#]]);
    assert_eq!(text(&foreign), "something that is not ours");
    assert_eq!(listing(&setup.acme_dir()), [token(1)]);
    assert_eq!(setup.ca.complaints(), [""; 0]);
}

/// getcrt makes no links, so this one is foreign wherever it leads.
#[test]
fn foreign_link_in_the_acme_dir_is_kept() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let (link, target) = (setup.acme_dir().join(token(1)), setup.path("target"));
    fs::write(&target, "").unwrap();
    symlink(&target, &link).unwrap();
    let outcome = setup.getcrt().outcome();
    outcome.failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
error: order https://localhost:[PORT]/order/1: cannot write the challenge file acme/[TOKEN]1: another file with this name is in the way; look at it, and remove it if nothing needs it

"#]]);
    assert_eq!(fs::read_link(&link).unwrap(), target);
    assert_eq!(text(&target), "");
    assert_eq!(setup.ca.complaints(), [""; 0]);
}

#[test]
fn leftovers_of_a_killed_run_are_replaced() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let leave = |number: usize, content: &str, mode: u32| {
        let path = setup.acme_dir().join(token(number));
        fs::write(&path, content).unwrap();
        set_mode(&path, mode);
    };
    leave(0, "", 0o666);
    leave(1, &format!("{}.", token(1)), 0o600);
    setup.issues().issued();
}

#[test]
fn locked_leftover_is_replaced() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let leftover = fs::File::create(setup.acme_dir().join(token(0))).unwrap();
    leftover.lock().unwrap();
    setup.issues().issued();
}

/// Whoever can read a challenge file can lock it.
#[test]
fn locked_challenge_files_are_removed() {
    let setup = when_the_ca_fetches_a_file(|file| {
        let reader = fs::File::open(file).unwrap();
        reader.lock_shared().unwrap();
        std::mem::forget(reader);
    });
    setup.issues().issued();
}

#[test]
fn many_names_need_few_file_descriptors() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let names: Vec<String> = (0..50).map(|number| format!("n{number}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    let run = setup.getcrt_by("sh", &["-c", "ulimit -n 32; exec \"$0\" \"$@\""]);
    run.outcome().issued();
}

/// Where no thread can be started, this one does all the work.
#[test]
fn threads_are_not_needed() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let outcome = setup.getcrt_without_threads().outcome();
    outcome.exits(0).stderr_is(str![[r#"
warning: cannot watch for signals, so Ctrl-C leaves challenge files behind: Resource temporarily unavailable (os error 11)
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    setup.nothing_is_left(&outcome);
}

/// `ulimit -f` and systemd's LimitFSIZE. The kernel's signal would end the run with the certificate.
#[test]
fn limit_of_file_sizes_loses_no_certificate() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let limited = ["-c", "ulimit -f 0; exec \"$0\" \"$@\""];
    let stdout = fs::File::create(setup.path("stdout")).unwrap();
    let run = setup
        .getcrt_by("bash", &limited)
        .arg("--disable-check")
        .stdout(stdout);
    let outcome = run.outcome();
    outcome.failed("File too large");
    setup.no_file_is_left(&outcome);

    let outcome = setup
        .getcrt_by("bash", &limited)
        .args(&["-o", "out.crt"])
        .outcome();
    outcome.failed("no room for a certificate: File too large");
    setup.no_file_is_left(&outcome);
}

/// Somebody writes a file to -o after the run has begun.
#[test]
fn output_that_has_changed_meanwhile_is_kept() {
    let folder: Arc<OnceLock<PathBuf>> = Arc::default();
    let known = Arc::clone(&folder);
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", move |_, _| {
            fs::write(known.get().unwrap().join("out.crt"), "my notes").unwrap();
        })
    });
    folder.set(setup.directory().to_owned()).unwrap();
    let outcome = setup.getcrt().args(&["-o", "out.crt"]).outcome();
    outcome.failed_to_deliver("getcrt replaces only files that begin with a certificate");
    outcome.says("\n-----END CERTIFICATE-----\n");
    assert_eq!(text(&setup.path("out.crt")), "my notes");
}

/// Two cron jobs for one certificate.
#[test]
fn second_renewal_at_once_waits_and_finds_nothing_due() {
    let setup = Setup::with_slow_validation("3");
    let renew = ["--renew", "--output", "out.crt"];
    let first = setup.start_and_await_challenge_files(setup.getcrt().args(&renew));
    let second = setup.getcrt().args(&renew).outcome();
    second.exits(3).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Waiting for another getcrt that is writing the same file...
No usable suggestion from the CA, so the lifetime decides: the CA has no renewal information
Not due before [TIME], by its lifetime; nothing was done

"#]]);
    first.outcome().exits(0);
    setup.no_file_is_left(&second);
}

#[test]
fn waiting_for_another_run_ends_in_time() {
    let setup = Setup::with_slow_validation("8");
    let to_file = ["--output", "out.crt"];
    let first = setup.start_and_await_challenge_files(setup.getcrt().args(&to_file));
    let second = setup.getcrt().args(&to_file).args(&["--timeout", "2"]);
    second.outcome().failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Waiting for another getcrt that is writing the same file...
error: --output out.crt: another getcrt is still writing this file, and no time is left (--timeout)

"#]]);
    first.outcome().exits(0);
}

#[test]
fn killed_run_leaves_one_temporary_file_for_the_next() {
    let setup = Setup::with_slow_validation("4");
    let to_file = ["--output", "out.crt"];
    for _ in 0..2 {
        let run = setup.start_and_await_challenge_files(setup.getcrt().args(&to_file));
        run.signal("KILL");
        run.outcome().dies_of(9);
        let names = listing(setup.directory()).into_iter();
        let hidden: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
        assert_eq!(hidden, [".out.crt.getcrt"]);
        for name in listing(&setup.acme_dir()) {
            fs::remove_file(setup.acme_dir().join(name)).unwrap();
        }
    }
    let outcome = setup.getcrt().args(&to_file).outcome();
    outcome.exits(0);
    setup.no_file_is_left(&outcome);
}

/// `--account-key <(…)` where the command never writes.
#[test]
fn silent_pipe_in_place_of_a_file_ends_in_time() {
    let setup = Setup::with_silent_ca();
    let pipe = setup.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let run = setup
        .getcrt()
        .args(&["--account-key", "pipe", "--timeout", "2"]);
    setup.run_fails(
        run,
        str![[r#"
Parsing account key...
error: --account-key pipe: nothing came from it in time (--timeout)

"#]],
    );
}

#[test]
fn full_disk_for_the_output_is_noticed_before_the_ca_is_asked() {
    if is_skipped_without_mounts("a full disk") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::create_dir(setup.path("small")).unwrap();
    let run = with_a_small_disk(&setup, "small", "16k");
    let outcome = run.args(&["-o", "small/out.crt"]).outcome();
    outcome.failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
error: --output small/out.crt: no room for a certificate: No space left on device (os error 28)

"#]]);
    setup.nothing_is_left(&outcome);
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn full_disk_for_the_challenge_files_is_an_error() {
    if is_skipped_without_mounts("a full disk") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    setup.run_fails(with_a_small_disk(&setup, "acme", "4k"), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
error: order https://localhost:[PORT]/order/1: cannot write the challenge file acme/[TOKEN]1: No space left on device (os error 28)

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

/// As in a container into which a single file is mounted.
#[test]
fn output_that_is_a_mount_point_is_noticed_before_the_ca_is_asked() {
    if is_skipped_without_mounts("a mounted file") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::write(setup.path("mounted.crt"), "").unwrap();
    let run = setup.getcrt_with_mounts("mount --bind old.crt mounted.crt && exec \"$0\" \"$@\"");
    let outcome = run.args(&["-o", "mounted.crt"]).outcome();
    outcome.failed("--output mounted.crt: this file is a mount point, so it cannot be replaced");
    setup.nothing_is_left(&outcome);
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn read_only_disk_is_an_error() {
    if is_skipped_without_mounts("a read-only disk") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    setup.run_fails(
        with_a_small_disk(&setup, "acme", "1m,ro"),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
error: --acme-dir acme: cannot create acme/.getcrt-trial: Read-only file system (os error 30)

"#]],
    );
    assert_eq!(setup.ca.requests(), [""; 0]);
}

/// A run in a mount namespace where `folder` is a file system of `size`.
fn with_a_small_disk(setup: &Setup<FakeCa>, folder: &str, size: &str) -> Run {
    let script = format!("mount -t tmpfs -o size={size} none {folder} && exec \"$0\" \"$@\"");
    setup.getcrt_with_mounts(&script)
}

#[test]
fn poor_environment_suffices() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let run = setup.getcrt_by("sh", &["-c", "ulimit -n 24; exec \"$0\" \"$@\" <&-"]);
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
        setup.verify_pem(&outcome.stdout, &pebble::NAMES);
    }
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
}

#[test]
fn output_whose_owner_cannot_be_kept_is_a_warning() {
    if is_skipped_without_root("a file at --output that belongs to somebody else") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    let output = setup.path("old.crt");
    chown(&output, Some(12345), Some(54321)).unwrap();
    set_mode(&output, 0o644);
    let run = setup.getcrt_without_privileges();
    let outcome = run.args(&["-o", "old.crt"]).outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
warning: --output old.crt: its owner, group or mode cannot be kept: Operation not permitted (os error 1)
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    setup.nothing_is_left(&outcome);
}

#[test]
fn output_directory_that_cannot_be_synced_is_a_warning() {
    let setup = Setup::with_fake_ca(|ca| ca);
    // To sync a directory, it has to be opened for reading.
    set_mode(setup.directory(), 0o333);
    let run = setup.getcrt_without_privileges();
    let outcome = run.args(&["-o", "old.crt"]).outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
warning: --output old.crt is written, but may not survive a power failure: Permission denied (os error 13)
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    set_mode(setup.directory(), 0o755);
    setup.nothing_is_left(&outcome);
}

#[test]
fn challenge_file_that_cannot_be_removed_is_a_warning() {
    let setup = when_the_ca_fetches_a_file(|file| set_mode(file.parent().unwrap(), 0o555));
    let outcome = setup.getcrt_without_privileges().outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
warning: cannot remove acme/[TOKEN]0; remove it yourself: Permission denied (os error 13)
warning: cannot remove acme/[TOKEN]1; remove it yourself: Permission denied (os error 13)
warning: cannot remove acme/[TOKEN]2; remove it yourself: Permission denied (os error 13)
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    assert_eq!(listing(&setup.acme_dir()), [token(0), token(1), token(2)]);
}

#[test]
fn challenge_file_that_cannot_be_read_is_removed() {
    let setup = when_the_ca_fetches_a_file(|file| set_mode(file, 0o200));
    let outcome = setup.getcrt_without_privileges().outcome();
    outcome.issued();
    setup.nothing_is_left(&outcome);
}

/// A setup where something is done to each challenge file that the CA fetches.
fn when_the_ca_fetches_a_file(change: impl Fn(&Path) + Send + Sync + 'static) -> Setup<FakeCa> {
    // The web server starts before the directory is known.
    let acme_dir: Arc<OnceLock<PathBuf>> = Arc::default();
    let known = Arc::clone(&acme_dir);
    let on_request = move |request: &Request, _| {
        if !request.is_from_getcrt() {
            let (_, name) = request.path.rsplit_once('/').unwrap();
            change(&known.get().unwrap().join(name));
        }
        None
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, on_request);
    acme_dir.set(setup.acme_dir()).unwrap();
    setup
}

#[test]
fn full_stdout_loses_no_certificate() {
    let setup = Setup::with_pebble();
    let outcome = setup.getcrt().stdout(full_device()).outcome();
    certificate_is_on_stderr(&setup, &outcome);
    outcome.stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Signing certificate...
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
error: the certificate was issued, but cannot be written: stdout: No space left on device (os error 28)
hint: the certificate is printed above: save it where it belongs

"#]]);
}

/// --quiet hides no error, and this one comes with a certificate.
#[test]
fn quiet_loses_no_certificate() {
    let setup = Setup::with_pebble();
    let run = setup.getcrt().arg("--quiet");
    let outcome = run.stdout(full_device()).outcome();
    certificate_is_on_stderr(&setup, &outcome);
    outcome.stderr_is(str![[r#"
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
error: the certificate was issued, but cannot be written: stdout: No space left on device (os error 28)
hint: the certificate is printed above: save it where it belongs

"#]]);
}

fn full_device() -> fs::File {
    let mut options = fs::OpenOptions::new();
    options.write(true).open("/dev/full").unwrap()
}

#[test]
fn read_only_stdout_loses_no_certificate() {
    let setup = Setup::with_pebble();
    let read_only = fs::File::open("/dev/null").unwrap();
    let outcome = setup.getcrt().stdout(read_only).outcome();
    certificate_is_on_stderr(&setup, &outcome);
    outcome.stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Signing certificate...
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
error: the certificate was issued, but cannot be written: stdout: Bad file descriptor (os error 9)
hint: the certificate is printed above: save it where it belongs

"#]]);
}

#[test]
fn lost_reader_of_stdout_loses_no_certificate() {
    let setup = Setup::with_pebble();
    let mut run = setup.getcrt().start();
    drop(run.child.stdout.take());
    let outcome = run.outcome();
    certificate_is_on_stderr(&setup, &outcome);
    outcome.stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Signing certificate...
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
error: the certificate was issued, but cannot be written: stdout: Broken pipe (os error 32)
hint: the certificate is printed above: save it where it belongs

"#]]);
}

/// The certificate was issued but could not be delivered, so it comes before the error.
#[track_caller]
fn certificate_is_on_stderr(setup: &Setup<Pebble>, outcome: &Outcome) {
    outcome.failed_to_deliver("the certificate was issued, but cannot be written: ");
    let start = outcome.stderr.find("-----BEGIN");
    let start = start.expect("the certificate is lost");
    setup.verify_pem(&outcome.stderr[start..], &pebble::NAMES);
}

#[test]
fn closed_stdout_is_noticed_before_the_ca_is_asked() {
    let setup = Setup::with_silent_ca();
    let run = setup.getcrt_by("sh", &["-c", "exec \"$0\" \"$@\" >&-"]);
    setup.run_fails(
        run,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
error: stdout is closed, or leads to /dev/null; name a file with -o

"#]],
    );
}

#[test]
fn dry_run_needs_no_stdout() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let run = setup.getcrt_by("sh", &["-c", "exec \"$0\" \"$@\" --dry-run >&-"]);
    let outcome = run.outcome();
    outcome.exits(0);
    setup.nothing_is_left(&outcome);
}

/// Unlike a closed stdout, this is what the user asked for.
#[test]
fn certificate_may_go_to_dev_null() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let run = setup.getcrt_by("sh", &["-c", "exec \"$0\" \"$@\" >/dev/null"]);
    let outcome = run.outcome();
    outcome.exits(0);
    setup.nothing_is_left(&outcome);
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
fn output_that_has_become_a_directory_loses_no_certificate() {
    let setup = Setup::with_slow_validation("5");
    let output = setup.path("out.crt");
    let run = setup.getcrt().args(&["-o", output.to_str().unwrap()]);
    let run = setup.start_and_await_challenge_files(run);
    // Meanwhile somebody makes a directory of that name.
    fs::create_dir(&output).unwrap();
    fs::write(output.join("x"), "").unwrap();
    let outcome = run.outcome();
    certificate_is_on_stderr(&setup, &outcome);
    outcome.stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
...
Signing certificate...
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
...
-----END CERTIFICATE-----
error: the certificate was issued, but cannot be written: --output [DIRECTORY]/out.crt: this is a directory; name a file in it
hint: the certificate is printed above: save it where it belongs

"#]]);
    setup.no_file_is_left(&outcome);
}
