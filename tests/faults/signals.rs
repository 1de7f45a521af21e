//! Signals.

use crate::support::pebble;
use crate::support::prelude::*;

#[test]
fn signals_while_polling_remove_all_files() {
    let setup = Setup::with_pebble_and_variables(&[
        ("PEBBLE_VA_NOSLEEP", "0"),
        ("PEBBLE_VA_SLEEPTIME", "30"),
    ]);
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        // The shell this test was started from may have told its children to ignore SIGINT.
        let run = setup.getcrt_by("env", &["--default-signal=INT,HUP"]);
        let output = setup.path("out.crt");
        let run = run.args(&["-o", output.to_str().unwrap()]).start();
        await_that("the challenge files", || {
            listing(&setup.acme_dir()).len() == 2
        });
        run.signal(name);
        let outcome = run.outcome();
        outcome
            .dies_of(number)
            .check("stdout is not empty", outcome.stdout.is_empty());
        assert_eq!(listing(&setup.acme_dir()), [""; 0], "{outcome}");
        assert!(
            !listing(&setup.path(""))
                .iter()
                .any(|name| name.starts_with(".getcrt")),
            "{outcome}"
        );
        assert!(!output.exists());
    }
}

#[test]
fn ignored_sighup_is_respected() {
    let setup = Setup::with_pebble_and_variables(&[
        ("PEBBLE_VA_NOSLEEP", "0"),
        ("PEBBLE_VA_SLEEPTIME", "8"),
    ]);
    let run = setup.getcrt_by("env", &["--ignore-signal=HUP"]).start();
    await_that("the challenge files", || {
        listing(&setup.acme_dir()).len() == 2
    });
    run.signal("HUP");
    setup.verify(&run.outcome(), &pebble::NAMES);
}
