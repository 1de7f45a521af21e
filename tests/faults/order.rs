//! The order, and its end.

use std::sync::OnceLock;

use crate::support::prelude::*;

#[test]
fn each_step_of_a_run_is_reported() {
    let setup = Setup::with_fake_ca(|ca| ca);
    setup.issues().issued().stderr_is(str![[r#"
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
}

#[test]
fn honest_ca_gets_each_request_once() {
    let setup = Setup::with_fake_ca(|ca| ca);
    setup.issues().issued();
    for (resource, count) in [
        ("directory", 1),
        ("newAccount", 1),
        ("account", 0),
        ("newOrder", 1),
        ("authorization", 3),
        ("challenge", 3),
        ("order", 2),
        ("finalize", 1),
        ("certificate", 1),
    ] {
        assert_eq!(setup.ca.count(resource), count, "{resource}");
    }
    // One for the first request, and one more for each other name that is worked on at that time.
    assert!(setup.ca.count("newNonce") <= 3, "{:?}", setup.ca.requests());
    assert_eq!(
        setup.ca.payload("newAccount"),
        json!({"termsOfServiceAgreed": true})
    );
}

#[test]
fn order_for_other_names_is_refused() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, _| {
            reply.edit(|order| {
                order["identifiers"][1] = json!({"type": "dns", "value": "stranger.test"})
            })
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
error: order https://localhost:[PORT]/order/1: the CA has made it an order for a.test, stranger.test, c.test, not the CSR's names

"#]]);
}

#[test]
fn authorization_for_another_name_is_refused() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("authorization", |reply, _| {
            reply.edit(|authorization| {
                authorization["identifier"] = json!({"type": "dns", "value": "stranger.test"})
            })
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
error: order https://localhost:[PORT]/order/1: the CA asks about stranger.test, not in the CSR

"#]]);
    assert_eq!(setup.web.requests().len(), 0);
}

#[test]
fn pending_order_without_authorizations_is_refused() {
    for none in [json!(null), json!([])] {
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("newOrder", move |reply, _| {
                reply.edit(|order| order["authorizations"] = none.clone())
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
error: order https://localhost:[PORT]/order/1: it is pending, and the CA names no authorizations

"#]]);
    }
}

#[test]
fn order_that_is_born_invalid_is_an_error() {
    let born_invalid = |reply: &mut Reply, _| {
        reply.edit(|order| {
            order["status"] = json!("invalid");
            order["error"] = caa_error();
        })
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", born_invalid));
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
error: order https://localhost:[PORT]/order/1: Order failed, it is invalid: CAA forbids it (urn:ietf:params:acme:error:caa)
hint: change the name's CAA record in the DNS, which does not let this CA issue for this account by http-01

"#]]);
    assert_eq!(setup.ca.count("authorization"), 0);
}

#[test]
fn order_with_more_authorizations_than_names_is_refused() {
    let list_more = |reply: &mut Reply, _| {
        reply.edit(|order| {
            let more = (3..8000).map(|i| json!(format!("https://localhost:1/authorization/{i}")));
            order["authorizations"].as_array_mut().unwrap().extend(more);
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", list_more));
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
error: order https://localhost:[PORT]/order/1: the CA lists more authorizations than the CSR has names (3)

"#]]);
    assert_eq!(setup.ca.count("authorization"), 0);
}

#[test]
fn authorization_listed_twice_is_read_once() {
    let list_twice = |reply: &mut Reply, _| {
        reply.edit(|order| {
            let first = order["authorizations"][0].clone();
            order["authorizations"].as_array_mut().unwrap().push(first);
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", list_twice));
    setup.issues().issued();
    assert_eq!(setup.ca.count("authorization"), 3);
    assert_eq!(setup.ca.count("challenge"), 3);
}

#[test]
fn proven_names_are_skipped() {
    let is_proven = |reply: &mut Reply, _| {
        reply.edit(|authorization| {
            authorization["status"] = json!("valid");
            authorization["challenges"] = json!([]);
        });
    };
    let is_ready = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("ready"))
        }
    };
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("authorization", is_proven)
            .tamper("order", is_ready)
    });
    // Not by `issues`: the CA does not know that the names are proven, so finalize counts as a violation.
    let outcome = setup.getcrt().outcome();
    outcome.issued().stderr_is(str![[r#"
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
Already verified: a.test, skipping...
Already verified: b.test, skipping...
Already verified: c.test, skipping...
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    assert_eq!(setup.web.requests().len(), 0);
}

#[test]
fn order_that_is_pending_again_is_waited_for() {
    let pending_again = |reply: &mut Reply, count| {
        if count == 1 || count == 2 {
            reply.edit(|order| order["status"] = json!("pending"));
        }
    };
    Setup::with_fake_ca(|ca| ca.tamper("order", pending_again))
        .issues()
        .issued();
}

/// The CA issues the certificate, although its reply to the CSR is an error.
#[test]
fn finalize_that_is_under_way_is_waited_for() {
    let issues_after = |error: fn(&mut Reply)| {
        Setup::with_fake_ca(|ca| ca.tamper("finalize", move |reply, _| error(reply))).issues()
    };
    issues_after(|reply| reply.replace(504, "gateway timeout")).stderr_is(str![[r#"
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
warning: https://localhost:[PORT]/finalize/1: HTTP 504, a reply that begins `gateway timeout`; checking what became of it in [SECONDS] s
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    issues_after(|reply| reply.problem(403, "orderNotReady", "processing")).stderr_is(str![[r#"
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
warning: https://localhost:[PORT]/finalize/1: HTTP 403, processing (urn:ietf:params:acme:error:orderNotReady); checking what became of it in [SECONDS] s
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    issues_after(|reply| reply.problem(409, "conflict", "processing")).stderr_is(str![[r#"
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
warning: https://localhost:[PORT]/finalize/1: HTTP 409, processing (urn:ietf:params:acme:error:conflict); checking what became of it in [SECONDS] s
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn order_that_lags_behind_its_authorizations_is_waited_for() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("order", |reply, count| {
            if count < 4 {
                reply.edit(|order| order["status"] = json!("pending"))
            }
        })
    });
    setup.issues().issued();
}

/// Lets the order have `status` instead of `awaited` for three seconds, from the first time that it has that.
fn delay(ca: FakeCaBuilder, awaited: &'static str, status: &'static str) -> FakeCaBuilder {
    let first_seen = OnceLock::new();
    ca.tamper("order", move |reply, _| {
        reply.edit(|order| {
            if order["status"] == awaited {
                let since = first_seen.get_or_init(Instant::now);
                if since.elapsed() < Duration::from_secs(3) {
                    order["status"] = json!(status);
                }
            }
        })
    })
}

/// At most four polls a second: one at once, those of three seconds, and the one that sees the end. The other wait
/// of the run takes one poll.
#[test]
fn order_is_polled_four_times_a_second_at_most() {
    let most = 1 + 3 * 4 + 1 + 1;
    let setup = Setup::with_fake_ca(|ca| delay(ca, "ready", "pending"));
    setup.issues().issued();
    let polls = setup.ca.count("order");
    assert!((3..=most).contains(&polls), "{polls}");

    let setup = Setup::with_fake_ca(|ca| delay(ca, "valid", "processing"));
    setup.issues().issued();
    let polls = setup.ca.count("order");
    assert!((3..=most).contains(&polls), "{polls}");
}

#[test]
fn long_wait_for_the_order_is_reported() {
    let all_valid = OnceLock::new();
    let lag = move |reply: &mut Reply, _| {
        // Long enough for the authorizations to be read again, and for another message some seconds later.
        let since = all_valid.get_or_init(Instant::now);
        if since.elapsed() < Duration::from_secs(12) {
            reply.edit(|order| order["status"] = json!("pending"));
        }
    };
    Setup::with_fake_ca(|ca| ca.tamper("order", lag))
        .issues()
        .stderr_is(str![[r#"
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
a.test verified!
b.test verified!
c.test verified!
3 of 3 names verified
Waiting for the CA to verify the order, [SECONDS] s so far...
...
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn order_that_is_ready_after_finalize_is_not_finalized_twice() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("finalize", |reply, _| {
            reply.edit(|order| order["status"] = json!("ready"))
        })
    });
    setup.issues().issued();
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn valid_finalize_reply_needs_no_poll() {
    let issue_at_once = |reply: &mut Reply, _| {
        reply.drop_header("Location");
        reply.edit(|order| {
            let finalize_url = order["finalize"].as_str().unwrap();
            order["certificate"] = json!(finalize_url.replace("finalize", "certificate"));
            order["status"] = json!("valid");
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("finalize", issue_at_once));
    setup.issues().issued();
    assert!(setup.ca.requests().ends_with(&["finalize", "certificate"]));
}

#[test]
fn later_replies_may_lack_members() {
    let strip = |reply: &mut Reply, _| {
        reply.edit(|order| {
            let order = order.as_object_mut().unwrap();
            order.retain(|name, _| name == "status" || name == "certificate");
            order.insert("error".to_owned(), json!({}));
            order.insert("authorizations".to_owned(), Value::Null);
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", strip).tamper("finalize", strip));
    setup.issues().issued();
}

/// Why an order is invalid.
fn caa_error() -> Value {
    json!({"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"})
}

#[test]
fn invalid_order_shows_its_error() {
    let fail = |reply: &mut Reply, _| {
        reply.edit(|order| {
            if order["status"] == "valid" {
                *order = json!({"status": "invalid", "error": caa_error()});
            }
        });
    };
    Setup::with_fake_ca(|ca| ca.tamper("order", fail)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: Order failed, it is invalid: CAA forbids it (urn:ietf:params:acme:error:caa)
hint: change the name's CAA record in the DNS, which does not let this CA issue for this account by http-01

"#]]);
}

#[test]
fn invalid_order_keeps_its_error_if_authorizations_are_gone() {
    let gone = |reply: &mut Reply, count| {
        if count >= 3 {
            reply.problem(404, "malformed", "no such authorization");
        }
    };
    let invalid = |reply: &mut Reply, _| {
        reply.edit(|order| {
            order["status"] = json!("invalid");
            order["error"] = caa_error();
        });
    };
    Setup::with_fake_ca(|ca| ca.tamper("authorization", gone).tamper("order", invalid))
        .fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: Order failed, it is invalid: CAA forbids it (urn:ietf:params:acme:error:caa): https://localhost:[PORT]/authorization/[..]: HTTP 404, no such authorization (urn:ietf:params:acme:error:malformed)
hint: change the name's CAA record in the DNS, which does not let this CA issue for this account by http-01

"#]]);
}

#[test]
fn lasting_finalize_error_is_shown() {
    let busy = |reply: &mut Reply, _| reply.problem(500, "serverInternal", "out of order");
    let ready = |reply: &mut Reply, count| {
        if count > 0 {
            reply.edit(|order| order["status"] = json!("ready"));
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("finalize", busy).tamper("order", ready));
    // Not by `run_fails`: to send the CSR again counts as a violation. But it is right, since the first request has
    // had no effect as far as getcrt can see.
    let outcome = setup.getcrt().args(&["--timeout", "8"]).outcome();
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
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
warning: https://localhost:[PORT]/finalize/1: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal); checking what became of it in [SECONDS] s
...
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/finalize/1: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    // The pauses are at least half a second, one, two and four seconds.
    let posted = setup.ca.count("finalize");
    assert!((2..=5).contains(&posted), "{posted}");
}

/// What the CA has said of the CSR explains more than that the order cannot be read in time.
#[test]
fn finalize_error_is_shown_at_the_deadline() {
    let busy = |reply: &mut Reply, _| reply.problem(500, "serverInternal", "out of order");
    let hang = |reply: &mut Reply, count| {
        if count > 0 {
            reply.wire = Wire::Hang;
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("finalize", busy).tamper("order", hang));
    setup.run_fails(setup.getcrt().args(&["--timeout", "8"]), str![[r#"
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
warning: https://localhost:[PORT]/finalize/1: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal); checking what became of it in [SECONDS] s
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/finalize/1: HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn slow_issuance_ends_at_the_deadline() {
    let never_done = |reply: &mut Reply, _| {
        reply.edit(|order| {
            if order["status"] == "valid" {
                order["status"] = json!("processing");
            }
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", never_done));
    setup.run_fails(setup.getcrt().args(&["--timeout", "12"]), str![[r#"
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
Waiting for the CA to issue the certificate, [SECONDS] s so far...
...
error: order https://localhost:[PORT]/order/1: gave up waiting for the CA to issue the certificate: [SECONDS] s are left (--timeout), and the next look would be in [SECONDS] s

"#]]);
}

#[test]
fn order_may_be_processing_before_it_is_ready() {
    let process = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("processing"));
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", process));
    setup.issues().issued();
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn names_that_fail_without_a_reason_are_listed() {
    let fail = |reply: &mut Reply, count| {
        if count >= 3 {
            reply.edit(|authorization| {
                authorization["status"] = json!("invalid");
                authorization["challenges"] = json!([]);
            });
        }
    };
    let invalid = |reply: &mut Reply, _| reply.edit(|order| order["status"] = json!("invalid"));
    Setup::with_fake_ca(|ca| ca.tamper("authorization", fail).tamper("order", invalid))
        .fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test, b.test, c.test: the authorization is invalid, and the CA gives no reason

"#]]);
}

/// The statuses of RFC 8555 §7.1.6, and one of the CA's own. There is a reason for none.
#[test]
fn status_of_an_authorization_is_the_reason_if_there_is_no_other() {
    for (status, reason) in [
        (
            "invalid",
            "the authorization is invalid, and the CA gives no reason",
        ),
        ("deactivated", "the authorization is deactivated"),
        ("expired", "the authorization is expired"),
        ("revoked", "the authorization is revoked"),
        ("on-hold", "the authorization is on-hold"),
    ] {
        let end = move |reply: &mut Reply, _| {
            reply.edit(|authorization| authorization["status"] = json!(status));
        };
        let setup = Setup::with_fake_ca(|ca| ca.tamper("authorization", end));
        let told = format!("Challenge did not pass for a.test, b.test, c.test: {reason}");
        setup.fails_with(&told);
        assert_eq!(setup.ca.count("challenge"), 0);
    }
}

#[test]
fn invalid_challenge_without_a_reason_is_told() {
    let end = move |reply: &mut Reply, _| {
        reply.edit(|authorization| authorization["challenges"][1]["status"] = json!("invalid"));
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("authorization", end));
    setup.fails_with(
        "Challenge did not pass for a.test, b.test, c.test: the challenge is invalid, and the CA gives no reason",
    );
}

#[test]
fn order_that_fails_without_a_reason_is_an_error() {
    let invalid = |reply: &mut Reply, _| reply.edit(|order| order["status"] = json!("invalid"));
    Setup::with_fake_ca(|ca| ca.tamper("order", invalid)).fails(str![[r#"
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
Ordering again, because another run of this account may have finished the order: order https://localhost:[PORT]/order/1: Order failed, it is invalid: the CA gives no reason
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
error: order https://localhost:[PORT]/order/1: Order failed, it is invalid: the CA gives no reason

"#]]);
}

/// The first order turns invalid when its certificate is awaited, with this error if it is no null.
fn failing_once(error: Value) -> Setup<FakeCa> {
    let has_failed = OnceLock::new();
    Setup::with_fake_ca(|ca| {
        ca.tamper("order", move |reply, _| {
            reply.edit(|order| {
                if order["status"] == "valid" && has_failed.set(()).is_ok() {
                    order["status"] = json!("invalid");
                    order["error"] = error.clone();
                }
            })
        })
    })
}

#[test]
fn order_that_fails_by_an_internal_error_leads_to_a_second_one() {
    let setup = failing_once(json!({
        "type": "urn:ietf:params:acme:error:serverInternal", "detail": "out of order",
    }));
    setup.issues().stderr_is(str![[r#"
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
Ordering again, because the CA had an internal error: order https://localhost:[PORT]/order/1: Order failed, it is invalid: out of order (urn:ietf:params:acme:error:serverInternal)
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
    assert_eq!(setup.ca.count("newOrder"), 2);
    assert_eq!(setup.ca.count("finalize"), 2);
}

/// As if another run had finished it.
#[test]
fn proven_order_that_fails_without_a_reason_leads_to_a_second_one() {
    for error in [Value::Null, json!({})] {
        let setup = failing_once(error);
        setup.issues().says(
            "\nOrdering again, because another run of this account may have finished the order: ",
        );
        assert_eq!(setup.ca.count("newOrder"), 2);
    }
}

#[test]
fn order_that_fails_for_a_reason_is_final() {
    let setup = failing_once(caa_error());
    setup.fails_with("Order failed, it is invalid: CAA forbids it");
    assert_eq!(setup.ca.count("newOrder"), 1);
}

#[test]
fn second_order_that_fails_by_an_internal_error_is_final() {
    let fail = |reply: &mut Reply, _| {
        reply.edit(|order| {
            order["status"] = json!("invalid");
            order["error"] = json!({"type": "urn:ietf:params:acme:error:serverInternal"});
        })
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", fail));
    setup.fails_with("Order failed, it is invalid: urn:ietf:params:acme:error:serverInternal");
    assert_eq!(setup.ca.count("newOrder"), 2);
}

/// The CA gives up before it has decided about the names, and says nothing. A second order would go the same way.
#[test]
fn unproven_order_that_fails_without_a_reason_is_final() {
    let undecided = |reply: &mut Reply, _| {
        reply.edit(|authorization| {
            authorization["status"] = json!("pending");
            authorization["challenges"][1]["status"] = json!("pending");
        })
    };
    let fail = |reply: &mut Reply, _| reply.edit(|order| order["status"] = json!("invalid"));
    let setup =
        Setup::with_fake_ca(|ca| ca.tamper("authorization", undecided).tamper("order", fail));
    setup.fails_with("Order failed, it is invalid: the CA gives no reason");
    assert_eq!(setup.ca.count("newOrder"), 1);
}

#[test]
fn subproblems_are_shown_where_the_problem_has_no_detail() {
    let refuse = |reply: &mut Reply, _| {
        let problem = json!({"subproblems": [{"type": "urn:x:caa", "detail": "no"}]});
        reply.replace(403, &problem.to_string());
    };
    Setup::with_fake_ca(|ca| ca.tamper("newOrder", refuse)).fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, the CA gives no reason
  no (urn:x:caa)

"#]]);
}

/// Each type of problem that a user can cure has a hint, and others have none.
#[test]
fn hints_on_problems() {
    for (kind, hint) in [
        ("accountDoesNotExist", "--account-key"),
        ("badCSR", "make another CSR"),
        ("badPublicKey", "make another key"),
        ("badSignatureAlgorithm", "make another account key"),
        ("caa", "CAA record"),
        ("connection", "open port 80"),
        ("dns", "DNSSEC"),
        ("invalidProfile", "--profile"),
        ("orderNotReady", "run getcrt again"),
        ("rateLimited", "--staging"),
        ("rejectedIdentifier", "--profile shortlived"),
        ("tls", "plain http"),
        ("unsupportedIdentifier", "leave out"),
        ("externalAccountRequired", ""),
        ("malformed", ""),
        ("unauthorized", ""),
        ("newAndUnknown", ""),
    ] {
        let refuse = move |reply: &mut Reply, _: usize| reply.problem(403, kind, "no");
        let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", refuse));
        let outcome = setup.fails_with("HTTP 403, no");
        let shown = outcome
            .stderr
            .lines()
            .find(|line| line.starts_with("hint: "));
        match shown {
            Some(line) => assert!(!hint.is_empty() && line.contains(hint), "{kind}: {line}"),
            None => assert!(hint.is_empty(), "{kind}: no hint"),
        }
    }
}

/// The CA's own problem is a summary; the cause is in what it lists.
#[test]
fn hint_on_the_first_subproblem_that_is_known() {
    let refuse = |reply: &mut Reply, _: usize| {
        let problem = |kind: &str| json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no"});
        let mut body = problem("malformed");
        body["subproblems"] = json!([problem("unknown"), problem("caa"), problem("dns")]);
        reply.replace(403, &body.to_string());
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", refuse));
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, no (urn:ietf:params:acme:error:malformed)
  no (urn:ietf:params:acme:error:unknown)
  no (urn:ietf:params:acme:error:caa)
  no (urn:ietf:params:acme:error:dns)
hint: change the name's CAA record in the DNS, which does not let this CA issue for this account by http-01

"#]]);
}

#[test]
fn order_for_too_many_names_has_a_hint() {
    let refuse = |reply: &mut Reply, _: usize| {
        reply.problem(
            400,
            "malformed",
            "Order cannot contain more than 100 DNS names",
        );
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", refuse));
    // Three names are not too many.
    setup.fails_with("more than 100").says_not("hint");

    let names: Vec<String> = (0..101).map(|number| format!("n{number}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    let outcome = setup.fails_with("more than 100");
    outcome.says("\nhint: if 101 names are too many for this CA, make several CSRs");
}
