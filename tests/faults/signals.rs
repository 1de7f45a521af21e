//! Signals.

use std::io::{self, Write};

use crate::support::prelude::*;
use crate::support::{is_root, is_skipped_without_mounts, is_skipped_without_root, kill, pebble};

#[test]
fn sigint_removes_all_files() {
    signal_removes_all_files("INT", 2);
}

#[test]
fn sigterm_removes_all_files() {
    signal_removes_all_files("TERM", 15);
}

#[test]
fn sighup_removes_all_files() {
    signal_removes_all_files("HUP", 1);
}

fn signal_removes_all_files(name: &str, number: i32) {
    let setup = Setup::with_slow_validation("30");
    // The shell that started this test may have told its children to ignore SIGINT.
    let run = setup.getcrt_by("env", &["--default-signal=INT,HUP,QUIT"]);
    let run = setup.start_and_await_challenge_files(run.args(&["-o", "out.crt"]));
    run.signal(name);
    let outcome = run.outcome();
    outcome
        .dies_of(number)
        .check("stdout is not empty", outcome.stdout.is_empty())
        .stderr_is(str![[r#"
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
error: stopped by SIG[..]; no certificate was written, 3 temporary files were removed

"#]]);
    setup.nothing_is_left(&outcome);
    assert!(!setup.path("out.crt").exists());
}

#[test]
fn sigquit_removes_all_files() {
    signal_removes_all_files("QUIT", 3);
}

#[test]
fn ignored_signals_stay_ignored() {
    let setup = Setup::with_slow_validation("8");
    let run = setup.getcrt_by("env", &["--ignore-signal=HUP,INT,QUIT,TERM"]);
    let run = setup.start_and_await_challenge_files(run);
    for name in ["HUP", "INT", "QUIT", "TERM"] {
        run.signal(name);
    }
    setup.verify(&run.outcome(), &pebble::NAMES);
}

/// The first process of a container. The kernel does not let it die of a signal of its own.
#[test]
fn first_process_of_a_container_exits() {
    if is_skipped_without_mounts("a process namespace") {
        return;
    }
    let setup = Setup::with_slow_validation("30");
    let user: &[&str] = if is_root() { &[] } else { &["--map-root-user"] };
    let unshare = Run::of("unshare").args(user).args(&["--pid", "--fork"]);
    let run = setup.with_options(unshare.arg(GETCRT));
    let run = setup.start_and_await_challenge_files(run);
    let unshare = run.child.id();
    let children = text(Path::new(&format!(
        "/proc/{unshare}/task/{unshare}/children"
    )));
    assert!(kill("TERM", children.trim().parse().unwrap()));
    let outcome = run.outcome();
    outcome.exits(128 + 15).says(
        "\nerror: stopped by SIGTERM; no certificate was written, 2 temporary files were removed\n",
    );
    setup.nothing_is_left(&outcome);
}

/// Nobody reads stderr, and its pipe is full.
#[test]
fn full_stderr_does_not_keep_a_signal_from_ending_the_run() {
    let setup = Setup::with_slow_validation("30");
    let (reader, mut writer) = io::pipe().unwrap();
    // As much as a pipe holds.
    writer.write_all(&[b' '; 64 << 10]).unwrap();
    let mut run = setup
        .getcrt_by("env", &["--default-signal=INT"])
        .arg("--quiet");
    run.command.stderr(writer);
    let run = setup.start_and_await_challenge_files(run);
    run.signal("INT");
    let outcome = run.outcome();
    drop(reader);
    outcome.dies_of(2);
    setup.nothing_is_left(&outcome);
}

/// Where no thread can be started, nobody can clean up. The signal ends the run all the same.
#[test]
fn signal_ends_a_run_that_cannot_watch_for_it() {
    if is_skipped_without_root("a user who may start no thread") {
        return;
    }
    let setup = Setup::with_slow_validation("30");
    let run = setup.getcrt_without_threads();
    let run = setup.start_and_await_challenge_files(run);
    run.signal("TERM");
    run.outcome().dies_of(15);
}
