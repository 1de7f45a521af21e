//! Signals.

use crate::support::pebble;
use crate::support::prelude::*;

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
    let run = setup.getcrt_by("env", &["--default-signal=INT,HUP"]);
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

"#]]);
    setup.nothing_is_left(&outcome);
    assert!(!setup.path("out.crt").exists());
}

#[test]
fn ignored_sighup_stays_ignored() {
    let setup = Setup::with_slow_validation("8");
    let run = setup.getcrt_by("env", &["--ignore-signal=HUP"]);
    let run = setup.start_and_await_challenge_files(run);
    run.signal("HUP");
    setup.verify(&run.outcome(), &pebble::NAMES);
}
