//! The order, and its end.

use std::sync::OnceLock;

use crate::support::prelude::*;

#[test]
fn honest_ca_gets_each_request_once() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let outcome = setup.issues();
    outcome
        .issued()
        .says("\nThis agrees to the CA's terms of service: https://ca.test/terms\n");
    outcome
        .says("Found domains: a.test, b.test, c.test\n")
        .says("Verifying a.test...\nVerifying b.test...\nVerifying c.test...\n");
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
    let stranger = json!({"type": "dns", "value": "stranger.test"});
    let (in_order, in_authorization) = (stranger.clone(), stranger);
    let setup_1 = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", move |reply, _| {
            reply.edit(|o| o["identifiers"][1] = in_order.clone())
        })
    });
    setup_1.fails_with(
        "the CA has made it an order for a.test, stranger.test, c.test, not the CSR's names",
    );
    let setup_2 = Setup::with_fake_ca(|ca| {
        ca.tamper("authorization", move |reply, _| {
            reply.edit(|a| a["identifier"] = in_authorization.clone())
        })
    });
    setup_2.fails_with("the CA asks about stranger.test, not in the CSR");
    assert_eq!(setup_2.web.requests().len(), 0);
}

#[test]
fn pending_order_without_authorizations_is_refused() {
    for none in [json!(null), json!([])] {
        let tamper =
            move |reply: &mut Reply, _| reply.edit(|order| order["authorizations"] = none.clone());
        Setup::with_fake_ca(|ca| ca.tamper("newOrder", tamper))
            .fails_with(": it is pending, and the CA names no authorizations");
    }
}

#[test]
fn authorization_listed_twice_is_read_once() {
    let tamper = |reply: &mut Reply, _| {
        reply.edit(|order| {
            let first = order["authorizations"][0].clone();
            order["authorizations"].as_array_mut().unwrap().push(first);
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", tamper));
    setup.issues().issued();
    assert_eq!(setup.ca.count("challenge"), 3);
}

#[test]
fn proven_names_are_skipped() {
    let tamper = |reply: &mut Reply, _| {
        reply.edit(|a| {
            a["status"] = json!("valid");
            a["challenges"] = json!([]);
        });
    };
    let ready = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|o| o["status"] = json!("ready"))
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("authorization", tamper).tamper("order", ready));
    let outcome = setup.getcrt().outcome();
    outcome
        .issued()
        .says("Already verified: a.test, skipping...\nAlready verified: b.test, skipping...\n");
    assert_eq!(setup.web.requests().len(), 0);
}

#[test]
fn order_that_is_pending_again_is_waited_for() {
    let tamper = |reply: &mut Reply, count| {
        if count == 1 || count == 2 {
            reply.edit(|order| order["status"] = json!("pending"));
        }
    };
    Setup::with_fake_ca(|ca| ca.tamper("order", tamper))
        .issues()
        .issued();
}

#[test]
fn finalize_that_is_under_way_is_waited_for() {
    let tamper = |reply: &mut Reply, count| {
        if count == 0 {
            reply.replace(504, "gateway timeout");
        }
    };
    let setup_1 = Setup::with_fake_ca(|ca| ca.tamper("finalize", tamper));
    setup_1
        .issues()
        .says("HTTP 504, a reply that begins `gateway timeout`; looking what became of it in ");
    for (status, kind) in [(403, "orderNotReady"), (409, "conflict")] {
        let tamper = move |reply: &mut Reply, _| reply.problem(status, kind, "processing");
        Setup::with_fake_ca(|ca| ca.tamper("finalize", tamper)).issues();
    }
}

#[test]
fn order_that_lags_behind_its_authorizations_is_waited_for() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("order", |reply, count| {
            if count < 4 {
                reply.edit(|o| o["status"] = json!("pending"))
            }
        })
    });
    setup.issues().issued();
}

#[test]
fn long_wait_for_the_order_is_reported() {
    let all_valid = OnceLock::new();
    let lag = move |reply: &mut Reply, _| {
        // Long enough for its authorizations to be read again, and for silence to be broken after that.
        let since = all_valid.get_or_init(Instant::now);
        if since.elapsed() < Duration::from_secs(12) {
            reply.edit(|order| order["status"] = json!("pending"));
        }
    };
    Setup::with_fake_ca(|ca| ca.tamper("order", lag))
        .issues()
        .says("\n3 of 3 names verified\nWaiting for the CA to verify the order, ");
}

#[test]
fn order_that_is_ready_after_finalize_is_not_finalized_twice() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("finalize", |reply, _| {
            reply.edit(|o| o["status"] = json!("ready"))
        })
    });
    setup.issues().issued();
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn valid_finalize_reply_needs_no_poll() {
    let tamper = |reply: &mut Reply, _| {
        reply.drop_header("Location");
        reply.edit(|order| {
            let url = order["finalize"]
                .as_str()
                .unwrap()
                .replace("finalize", "certificate");
            order["certificate"] = json!(url);
            order["status"] = json!("valid");
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("finalize", tamper));
    setup.issues().issued();
    assert_eq!(
        setup
            .ca
            .requests()
            .into_iter()
            .rev()
            .take(2)
            .collect::<Vec<_>>(),
        ["certificate", "finalize"]
    );
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

#[test]
fn invalid_order_shows_its_error() {
    let tamper = |reply: &mut Reply, _| {
        reply.edit(|order| {
            if order["status"] == "valid" {
                *order = json!({"status": "invalid", "error": {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"}});
            }
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", tamper));
    setup
        .fails_with("Order failed, it is Invalid: CAA forbids it (urn:ietf:params:acme:error:caa)")
        .says("error: order https://localhost:");
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
    // The first request has no other effect, as far as the client can see, so it is right to send it again.
    let outcome = setup.getcrt().args(&["--timeout", "8"]).outcome();
    outcome
        .failed(": HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal)")
        .says("\nhint: no time was left (--timeout) for another try\n");
    assert!(setup.ca.count("finalize") > 1);
}

#[test]
fn invalid_order_keeps_its_error_if_authorizations_are_gone() {
    let gone = |reply: &mut Reply, count| {
        if count >= 3 {
            reply.problem(404, "malformed", "no such authorization");
        }
    };
    let over = |reply: &mut Reply, _| {
        reply.edit(|order| {
            order["status"] = json!("invalid");
            order["error"] =
                json!({"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"});
        });
    };
    Setup::with_fake_ca(|ca| ca.tamper("authorization", gone).tamper("order", over))
        .fails_with("Order failed, it is Invalid: CAA forbids it (urn:ietf:params:acme:error:caa)");
}

#[test]
fn slow_issuance_ends_at_the_deadline() {
    let slow = |reply: &mut Reply, _| {
        reply.edit(|o| {
            if o["status"] == "valid" {
                o["status"] = json!("processing");
            }
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", slow));
    let told = ": waiting for the CA to issue the certificate: to look again in ";
    setup
        .fails_within("12", told)
        .says("\nWaiting for the CA to issue the certificate, ");
}

#[test]
fn order_may_be_processing_before_it_is_ready() {
    let tamper = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("processing"));
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", tamper));
    setup.issues().issued();
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn failures_without_a_reason_say_so() {
    let fail = |reply: &mut Reply, count| {
        if count >= 3 {
            reply.edit(|a| {
                a["status"] = json!("invalid");
                a["challenges"] = json!([]);
            });
        }
    };
    let over = |reply: &mut Reply, _| reply.edit(|o| o["status"] = json!("invalid"));
    Setup::with_fake_ca(|ca| ca.tamper("authorization", fail).tamper("order", over))
        .fails_with("Challenge did not pass for a.test, b.test, c.test: the CA gives no reason")
        .says("\n  c.test: the CA gives no reason\n");
    Setup::with_fake_ca(|ca| ca.tamper("order", over))
        .fails_with("Order failed, it is Invalid: the CA gives no reason");
    let bare = |reply: &mut Reply, _| {
        let body = json!({"subproblems": [{"type": "urn:x:caa", "detail": "no"}]});
        reply.replace(403, &body.to_string());
    };
    Setup::with_fake_ca(|ca| ca.tamper("newOrder", bare))
        .fails_with("HTTP 403, the CA gives no reason")
        .says("\n  no (urn:x:caa)\n");
}
