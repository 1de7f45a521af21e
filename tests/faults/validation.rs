//! Challenges and authorizations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::prelude::*;

#[test]
fn failed_challenges_are_listed() {
    let setup = Setup::with_fake_ca(|ca| ca);
    // The files are where the web server does not look.
    fs::create_dir(setup.path("elsewhere")).unwrap();
    let run = setup
        .getcrt()
        .args(&["--disable-check", "--acme-dir", "elsewhere"]);
    setup.run_fails(run, str![[r#"
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
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: the file is not there (urn:ietf:params:acme:error:unauthorized)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir on every server to which the name's A and AAAA records point

"#]]);
    assert_eq!(listing(&setup.path("elsewhere")), [""; 0]);
    assert_eq!(setup.ca.count("finalize"), 0);
}

#[test]
fn refused_challenge_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("challenge", |reply, _| {
            reply.problem(400, "unauthorized", "I looked and saw nothing")
        })
    });
    // The first refusal ends the run; those that have come by then are listed.
    setup.fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: Challenge did not pass for [..].test: HTTP 400, I looked and saw nothing (urn:ietf:params:acme:error:unauthorized)

"#]]);
}

/// A CA that decides nothing after the challenges were posted, and shows an error in each of them.
fn erring(ca: FakeCaBuilder, status: &'static str) -> FakeCaBuilder {
    let err = move |a: &mut Value| {
        a["status"] = json!("pending");
        a["challenges"][1]["status"] = json!(status);
        a["challenges"][1]["error"] =
            json!({"type": "urn:ietf:params:acme:error:dns", "detail": "no such host"});
    };
    let ca = ca.tamper("authorization", move |reply, count| {
        if count >= 3 {
            reply.edit(err)
        }
    });
    ca.tamper("order", |reply, _| {
        reply.edit(|order| order["status"] = json!("pending"))
    })
}

#[test]
fn invalid_challenge_in_a_pending_authorization_is_final() {
    Setup::with_fake_ca(|ca| erring(ca, "invalid")).fails(str![[r#"
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
...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)
hint: repair the name's DNS: each of its name servers must answer for A, AAAA and CAA and, where the domain is signed, with valid DNSSEC signatures

"#]]);
}

#[test]
fn lasting_challenge_error_is_final() {
    let setup = Setup::with_fake_ca(|ca| erring(ca, "processing"));
    let run = setup.getcrt().args(&["--timeout", "100"]);
    setup.run_fails(run, str![[r#"
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
Waiting for the CA to verify a.test, b.test, c.test, [SECONDS] s so far...
...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)
hint: repair the name's DNS: each of its name servers must answer for A, AAAA and CAA and, where the domain is signed, with valid DNSSEC signatures

"#]]);
}

#[test]
fn deadline_does_not_hide_the_cas_reason() {
    let setup = Setup::with_fake_ca(|ca| erring(ca, "processing"));
    let run = setup.getcrt().args(&["--timeout", "10"]);
    setup.run_fails(run, str![[r#"
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
...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)
hint: repair the name's DNS: each of its name servers must answer for A, AAAA and CAA and, where the domain is signed, with valid DNSSEC signatures

"#]]);
}

#[test]
fn damaged_order_does_not_hide_the_cas_reason() {
    let is_reason_told = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_reason_told);
    let setup = Setup::with_fake_ca(|ca| {
        // Three replies before the challenges are posted, and three with the reason.
        let ca = erring(ca, "processing").tamper("authorization", move |_, count| {
            if count == 5 {
                told.store(true, Ordering::Relaxed);
            }
        });
        ca.tamper("order", move |reply, _| {
            if is_reason_told.load(Ordering::Relaxed) {
                reply.replace(200, "<html>");
            }
        })
    });
    setup.fails(str![[r#"
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
...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)
hint: repair the name's DNS: each of its name servers must answer for A, AAAA and CAA and, where the domain is signed, with valid DNSSEC signatures

"#]]);
}

#[test]
fn damaged_authorization_does_not_hide_the_cas_reason() {
    let setup = Setup::with_fake_ca(|ca| {
        // Three replies before the challenges are posted, three with the reason, and then garbage.
        erring(ca, "processing").tamper("authorization", |reply, count| {
            if count >= 6 {
                reply.replace(200, "<html>");
            }
        })
    });
    setup.fails(str![[r#"
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
...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)
hint: repair the name's DNS: each of its name servers must answer for A, AAAA and CAA and, where the domain is signed, with valid DNSSEC signatures

"#]]);
}

/// Another run has posted the challenges, and the CA decides on them by itself.
#[test]
fn challenge_under_way_is_not_submitted_again() {
    let under_way = |reply: &mut Reply, count| {
        if count < 3 {
            reply.edit(|a| a["challenges"][1]["status"] = json!("processing"));
        }
    };
    let ready = |reply: &mut Reply, count| {
        if count == 1 || count == 2 {
            reply.edit(|order| order["status"] = json!("ready"));
        }
    };
    let setup =
        Setup::with_fake_ca(|ca| ca.tamper("authorization", under_way).tamper("order", ready));
    // The CA itself has seen no challenge, and takes the finalization for a violation: so this is not `issues`.
    setup.getcrt().outcome().issued().stderr_is(str![[r#"
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
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn missing_http_01_is_an_error() {
    let without_http_01 = |reply: &mut Reply, _| {
        reply.edit(|a| drop(a["challenges"].as_array_mut().unwrap().remove(1)))
    };
    Setup::with_fake_ca(|ca| ca.tamper("authorization", without_http_01)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: challenge for a.test: the CA offers no http-01

"#]]);
}

#[test]
fn retry_after_of_authorizations_is_obeyed() {
    let lag = |reply: &mut Reply, _| {
        reply.header("Retry-After", "9");
        reply.edit(|a| a["status"] = json!("pending"));
    };
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("authorization", lag).tamper("order", |reply, _| {
            reply.edit(|o| o["status"] = json!("pending"))
        })
    });
    let run = setup.getcrt().args(&["--timeout", "16"]);
    setup.run_fails(
        run,
        str![[r#"
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
Waiting for the CA to verify a.test, b.test, c.test, [SECONDS] s so far...
...
error: order https://localhost:[PORT]/order/1: gave up waiting for the CA to verify a.test, b.test, c.test: [SECONDS] s are left (--timeout), and the next look would be in [SECONDS] s

"#]],
    );
}

#[test]
fn wait_for_many_names_is_abbreviated() {
    let pending = |reply: &mut Reply, _| {
        reply.header("Retry-After", "6");
        reply.edit(|object| object["status"] = json!("pending"));
    };
    let setup =
        Setup::with_fake_ca(|ca| ca.tamper("authorization", pending).tamper("order", pending));
    setup.csr("/", &["a.test", "b.test", "c.test", "d.test"]);
    let run = setup.getcrt().args(&["--timeout", "16"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test, d.test
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
Verifying d.test...
Waiting for the CA to verify a.test, 2 more and d.test, [SECONDS] s so far...
...
error: order https://localhost:[PORT]/order/1: gave up waiting for the CA to verify a.test, 2 more and d.test: [SECONDS] s are left (--timeout), and the next look would be in [SECONDS] s

"#]]);
}

/// Changes an authorization as if the CA had not heard of its challenge.
fn unheard(reply: &mut Reply) {
    reply.edit(|a| {
        a["status"] = json!("pending");
        a["challenges"][1]["status"] = json!("pending");
    })
}

/// The challenge is posted more than once, which this CA takes for a violation: it has heard all of them. So the
/// tests of lost challenges do without `fails` and `issues`.
#[test]
fn challenge_that_never_arrives_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", |reply, _| reply.wire = Wire::Close);
        ca.tamper("authorization", |reply, _| unheard(reply))
    });
    let outcome = setup.getcrt().args(&["--timeout", "12"]).outcome();
    // The first name whose time is over ends the run.
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
Verifying c.test...
warning: https://localhost:[PORT]/challenge/[..]: the connection failed: unexpected end of file; checking what became of it in [SECONDS] s
...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for [..].test: the connection failed: unexpected end of file
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    setup.no_file_is_left(&outcome);
}

#[test]
fn challenge_that_meets_errors_is_submitted_less_and_less_often() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", |reply, _| {
            reply.problem(500, "serverInternal", "out of order")
        });
        ca.tamper("authorization", |reply, _| unheard(reply))
    });
    setup.csr("/", &["a.test"]);
    let outcome = setup.getcrt().args(&["--timeout", "8"]).outcome();
    outcome.failed("").stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
warning: https://localhost:[PORT]/challenge/0: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal); checking what became of it in [SECONDS] s
warning: https://localhost:[PORT]/challenge/0: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal); checking what became of it in [SECONDS] s
warning: https://localhost:[PORT]/challenge/0: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal); checking what became of it in [SECONDS] s
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    setup.no_file_is_left(&outcome);
    // The pauses are at least half a second, one, two and four seconds.
    let posted = setup.ca.count("challenge");
    assert!((2..=5).contains(&posted), "{posted}");
}

/// What the CA has said of the challenge explains more than that the authorization cannot be read in time.
#[test]
fn challenge_error_is_shown_at_the_deadline() {
    let busy = |reply: &mut Reply, _| reply.problem(500, "serverInternal", "out of order");
    let hang = |reply: &mut Reply, count| {
        if count > 0 {
            reply.wire = Wire::Hang;
        }
    };
    let setup =
        Setup::with_fake_ca(|ca| ca.tamper("challenge", busy).tamper("authorization", hang));
    setup.csr("/", &["a.test"]);
    setup.run_fails(setup.getcrt().args(&["--timeout", "8"]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
warning: https://localhost:[PORT]/challenge/0: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal); checking what became of it in [SECONDS] s
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    assert_eq!(setup.ca.count("challenge"), 1);
}

/// The CA asks for a pause before the next look that is longer than the time that is left.
#[test]
fn lost_challenge_shows_its_reason_at_the_deadline() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", |reply, _| reply.wire = Wire::Close);
        ca.tamper("authorization", |reply, _| {
            reply.header("Retry-After", "60");
            unheard(reply);
        })
    });
    let outcome = setup.getcrt().args(&["--timeout", "12"]).outcome();
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
Verifying c.test...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for [..].test: the connection failed: unexpected end of file
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    setup.no_file_is_left(&outcome);
}

#[test]
fn lost_challenge_is_submitted_again_at_once() {
    let is_heard = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&is_heard);
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", move |reply, count| {
            if count < 3 {
                reply.wire = Wire::Close;
            } else {
                heard.store(true, Ordering::Relaxed);
            }
        });
        ca.tamper("authorization", move |reply, _| {
            if !is_heard.load(Ordering::Relaxed) {
                reply.header("Retry-After", "60");
                unheard(reply);
            }
        })
    });
    // There is no time for the wait that the CA asks for.
    let outcome = setup.getcrt().args(&["--timeout", "50"]).outcome();
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
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    let posted = setup.ca.count("challenge");
    assert!((4..=6).contains(&posted), "{posted}");
}

#[test]
fn authorization_gone_after_a_lost_challenge_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", |reply, _| reply.wire = Wire::Close);
        ca.tamper("authorization", |reply, count| {
            if count >= 3 {
                reply.problem(404, "malformed", "no such authorization");
            }
        })
    });
    setup.fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/authorization/[..]: HTTP 404, no such authorization (urn:ietf:params:acme:error:malformed)

"#]]);
}
