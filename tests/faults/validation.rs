//! Challenges and authorizations.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::support::fake_ca::NAMES;
use crate::support::prelude::*;

#[test]
fn failed_challenges_are_listed() {
    let setup = Setup::with_fake_ca(|ca| ca);
    // The files are where the web server does not look.
    let outcome = setup
        .getcrt()
        .args(&["--disable-check", "--acme-dir", "elsewhere"]);
    fs::create_dir(setup.path("elsewhere")).unwrap();
    let outcome = outcome.outcome();
    outcome.failed("Challenge did not pass for a.test, b.test, c.test: the file is not there (urn:ietf:params:acme:error:unauthorized)");
    for name in NAMES {
        outcome.says(&format!(
            "\n  {name}: the file is not there (urn:ietf:params:acme:error:unauthorized)"
        ));
    }
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
    let outcome = setup.fails_with(": Challenge did not pass for a.test");
    outcome.says("\n  a.test: HTTP 400, I looked and saw nothing (urn:ietf:params:acme:error:unauthorized)\n");
}

/// Lies about every authorization once its challenge was posted: its challenge shows an error.
pub fn erring(ca: FakeCaBuilder, status: &'static str) -> FakeCaBuilder {
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
    let setup = Setup::with_fake_ca(|ca| erring(ca, "invalid"));
    let outcome = setup.fails_with("Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)");
    outcome.says("\n  a.test: no such host (urn:ietf:params:acme:error:dns)\n  b.test: ");
}

#[test]
fn lasting_challenge_error_is_final() {
    let setup = Setup::with_fake_ca(|ca| erring(ca, "processing"));
    setup.fails_within(
        "100",
        "Challenge did not pass for a.test, b.test, c.test: no such host",
    );
}

#[test]
fn challenge_under_way_is_not_submitted_again() {
    // Honest about a challenge that another run has posted: the CA decides on it by itself.
    let tamper = |reply: &mut Reply, count| {
        if count < 3 {
            reply.edit(|a| a["challenges"][1]["status"] = json!("processing"));
        }
    };
    let ready = |reply: &mut Reply, count| {
        if count == 1 || count == 2 {
            reply.edit(|order| order["status"] = json!("ready"));
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("authorization", tamper).tamper("order", ready));
    // This CA has not looked, and notes that; here it is the client that is to be seen.
    setup
        .getcrt()
        .outcome()
        .issued()
        .says("\nVerifying c.test...\n");
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn missing_http_01_is_an_error() {
    let tamper = |reply: &mut Reply, _| {
        reply.edit(|a| drop(a["challenges"].as_array_mut().unwrap().remove(1)))
    };
    Setup::with_fake_ca(|ca| ca.tamper("authorization", tamper))
        .fails_with("challenge for a.test: the CA offers no http-01");
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
    setup.fails_within(
        "16",
        "waiting for the CA to verify a.test, b.test, c.test: to look again in ",
    );
}

#[test]
fn deadline_does_not_hide_the_cas_reason() {
    let setup = Setup::with_fake_ca(|ca| erring(ca, "processing"));
    let outcome = setup.fails_within(
        "10",
        "Challenge did not pass for a.test, b.test, c.test: no such host",
    );
    outcome.says("\n  c.test: no such host (urn:ietf:params:acme:error:dns)\n");
}

#[test]
fn challenge_that_never_arrives_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", |reply, _| reply.wire = Wire::Close);
        // It is as if the CA had not heard of it.
        ca.tamper("authorization", |reply, _| {
            reply.edit(|a| {
                a["status"] = json!("pending");
                a["challenges"][1]["status"] = json!("pending");
            })
        })
    });
    let outcome = setup.getcrt().args(&["--timeout", "12"]).outcome();
    // The first name whose time is over ends the run.
    outcome
        .failed(": Challenge did not pass for ")
        .says(".test: the connection failed: ")
        .says("\nWaiting for the CA to take the challenge for ")
        .says(" s so far...\n");
}

#[test]
fn lost_challenge_shows_its_reason_at_the_deadline() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("challenge", |reply, _| reply.wire = Wire::Close);
        ca.tamper("authorization", |reply, _| {
            reply.header("Retry-After", "60");
            reply.edit(|a| {
                a["status"] = json!("pending");
                a["challenges"][1]["status"] = json!("pending");
            })
        })
    });
    // What was wrong explains more than that there is no time to look again.
    let outcome = setup.getcrt().args(&["--timeout", "12"]).outcome();
    outcome
        .failed(": Challenge did not pass for ")
        .says(".test: the connection failed: ")
        .says("\nhint: no time was left (--timeout) for another try\n");
}

#[test]
fn wait_for_many_names_is_abbreviated() {
    let pending = |reply: &mut Reply, _| {
        reply.header("Retry-After", "6");
        reply.edit(|object| object["status"] = json!("pending"));
    };
    let setup =
        Setup::with_fake_ca(|ca| ca.tamper("authorization", pending).tamper("order", pending));
    let path = |name: &str| setup.path(name);
    let names = ["a.test", "b.test", "c.test", "d.test"];
    csr(&path("domain.csr"), &path("domain.key"), "/", &names);
    let hosts = names.map(|name| format!("127.0.0.1 {name}\n")).concat();
    fs::write(path("hosts"), hosts).unwrap();
    let told = "waiting for the CA to verify a.test, 2 more and d.test: to look again in ";
    setup
        .fails_within("16", told)
        .says("\nWaiting for the CA to verify a.test, 2 more and d.test, ");
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
                reply.edit(|a| {
                    a["status"] = json!("pending");
                    a["challenges"][1]["status"] = json!("pending");
                });
            }
        })
    });
    // It would be too late for the time that the CA asks to wait.
    let outcome = setup.getcrt().args(&["--timeout", "50"]).outcome();
    outcome.exits(0).says("\nCertificate signed!\n");
    let told = setup.ca.count("challenge");
    assert!((4..=6).contains(&told), "{told}");
}

#[test]
fn damaged_reply_does_not_hide_the_cas_reason() {
    let started = OnceLock::new();
    let damaged_order = Setup::with_fake_ca(|ca| {
        erring(ca, "processing").tamper("order", move |reply, _| {
            let since = started.get_or_init(Instant::now);
            if since.elapsed() > Duration::from_secs(7) {
                reply.replace(200, "<html>");
            }
        })
    });
    damaged_order.fails_with("Challenge did not pass for a.test, b.test, c.test: no such host");
    // Three replies before the challenges, three at the first survey, and then garbage.
    let damaged_authorization = Setup::with_fake_ca(|ca| {
        erring(ca, "processing").tamper("authorization", |reply, count| {
            if count >= 6 {
                reply.replace(200, "<html>");
            }
        })
    });
    damaged_authorization
        .fails_with("Challenge did not pass for a.test, b.test, c.test: no such host");
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
    let outcome = setup.fails_with("/authorization/");
    outcome
        .says(": HTTP 404, no such authorization (urn:ietf:params:acme:error:malformed)\n")
        .says_not("did not pass");
}
