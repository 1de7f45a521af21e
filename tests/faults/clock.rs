//! A machine whose clock is wrong, as the date of the CA's replies shows.

use crate::support::prelude::*;

/// A user whose CA has a clock that differs from this machine's by `difference`, in the words of date(1).
fn with_a_clock_of(difference: &str) -> Setup<FakeCa> {
    let date = http_date(difference);
    let tell = move |reply: &mut Reply, _: usize| reply.header("Date", &date);
    Setup::with_fake_ca(|ca| ca.tamper("directory", tell))
}

fn http_date(difference: &str) -> String {
    let date = Command::new("date")
        .args(["-u", "-d", difference, "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    date.trim().to_owned()
}

/// With a certificate of six days, each run would issue one, take it for ended, and throw it away.
#[test]
fn clock_that_is_days_off_is_an_error_before_the_order() {
    for difference in ["-8 days", "+25 hours"] {
        let setup = with_a_clock_of(difference);
        setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: this machine's clock is wrong: it says [TIME], and the CA's says [TIME]
hint: set this machine's clock, for example with `timedatectl set-ntp true`

"#]]);
        assert_eq!(setup.ca.requests(), ["directory"]);
    }
}

#[test]
fn clock_that_is_hours_off_is_a_warning() {
    for difference in ["-2 hours", "+23 hours"] {
        with_a_clock_of(difference)
            .issues()
            .says("\nwarning: this machine's clock may be wrong: it says ");
    }
}

#[test]
fn clock_that_is_minutes_off_is_no_matter() {
    with_a_clock_of("-50 minutes").issues().issued();
}

/// A cache keeps replies for a while, and says for how many seconds it did.
#[test]
fn reply_from_a_cache_may_be_old() {
    let date = http_date("-8 days");
    let tell = move |reply: &mut Reply, _: usize| {
        reply.header("Date", &date);
        reply.header("Age", "691200");
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("directory", tell));
    setup.issues().issued();
}

#[test]
fn date_that_cannot_be_read_is_no_matter() {
    let tell = |reply: &mut Reply, _| reply.header("Date", "yesterday");
    let setup = Setup::with_fake_ca(|ca| ca.tamper("directory", tell));
    setup.issues().issued();
}

/// Whether the certificate is due is not told by such a clock and the CA's advice.
#[test]
fn renewal_with_a_wrong_clock_keeps_the_certificate() {
    let date = http_date("-8 days");
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("directory", move |reply, count| {
            if count > 0 {
                reply.header("Date", &date);
            }
        })
    });
    let renew = || setup.getcrt().args(&["--renew", "-o", "cert.pem"]);
    renew().outcome().exits(0);
    let outcome = renew().outcome();
    outcome
        .failed("this machine's clock is wrong: ")
        .stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
cert.pem is unchanged, and valid for [..] days and [..] hours more
error: this machine's clock is wrong: it says [TIME], and the CA's says [TIME]
hint: set this machine's clock, for example with `timedatectl set-ntp true`

"#]]);
    setup
        .getcrt()
        .args(&["--is-due", "-o", "cert.pem"])
        .outcome()
        .exits(1);
    assert_eq!(setup.ca.count("newOrder"), 1);
}
