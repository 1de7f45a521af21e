//! What no CA does today, and some may do tomorrow: the certificate is delivered all the same.

use std::sync::OnceLock;

use openssl::x509::X509;

use crate::support::files::with_unknown_algorithm;
use crate::support::prelude::*;

/// As Merkle tree certificates will be: signed by an algorithm that OpenSSL does not know, without intermediates.
#[test]
fn leaf_of_an_unknown_algorithm_alone_is_delivered() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", |reply, _| {
            let leaf = X509::from_pem(&reply.body).unwrap();
            reply.body = with_unknown_algorithm(&leaf).to_pem().unwrap();
        })
    });
    setup.issues().says(
        "\nChecked: key, names and dates; not the signature, because the chain lacks its issuer\n",
    );
}

#[test]
fn unknown_members_are_ignored() {
    let surprise = |reply: &mut Reply, _: usize| {
        reply.edit(|object| {
            object["surprise"] = json!({"type": [1, {"status": "invalid"}], "error": 7});
            object["newThing"] = json!("not a URL");
            object["wildcard"] = json!("maybe");
        });
    };
    let challenges = |reply: &mut Reply, _: usize| {
        reply.edit(|authorization| {
            let challenges = authorization["challenges"].as_array_mut().unwrap();
            challenges.insert(0, json!({"type": "carrier-pigeon-01", "status": "cooing"}));
            challenges.insert(0, json!({"type": null, "status": 5, "url": []}));
            challenges.insert(0, json!("a word"));
            challenges.push(json!(null));
        });
    };
    let resources = [
        "directory",
        "newAccount",
        "newOrder",
        "order",
        "authorization",
        "challenge",
        "finalize",
    ];
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper_all(&resources, surprise)
            .tamper("authorization", challenges)
    });
    setup.issues().issued();
}

/// Pre-authorized names, or authorizations that are reused.
#[test]
fn order_may_be_ready_at_once() {
    let setup = Setup::with_fake_ca(FakeCaBuilder::sharing_orders);
    setup.issues().issued();
    assert_eq!(setup.ca.count("challenge"), 0);
}

/// A CA that answers the second newOrder with the first order, which is in this state by now.
fn with_a_second_order_that_is(status: &'static str) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| {
        ca.sharing_orders().tamper("newOrder", move |reply, count| {
            if count == 1 {
                let mut location = String::new();
                reply.edit(|order| {
                    let finalize = order["finalize"].as_str().unwrap().replace("/2", "/1");
                    location = finalize.replace("finalize", "order");
                    if status == "valid" {
                        order["certificate"] = json!(finalize.replace("finalize", "certificate"));
                    }
                    order["finalize"] = json!(finalize);
                    order["status"] = json!(status);
                });
                reply.header("Location", &location);
            }
        })
    })
}

#[test]
fn order_may_be_processing_or_valid_at_once() {
    for status in ["processing", "valid"] {
        let setup = with_a_second_order_that_is(status);
        setup.issues().issued();
        setup.issues().issued();
        assert_eq!(setup.ca.count("finalize"), 1, "{status}");
        assert_eq!(setup.ca.count("certificate"), 2, "{status}");
    }
}

/// All names are proven, and the order takes ten seconds to notice.
#[test]
fn order_may_lag_behind_its_authorizations_for_long() {
    let first_seen = OnceLock::new();
    let lag = move |reply: &mut Reply, _: usize| {
        reply.edit(|order| {
            if order["status"] == "ready" {
                let since = first_seen.get_or_init(Instant::now);
                if since.elapsed() < Duration::from_secs(10) {
                    order["status"] = json!("pending");
                }
            }
        });
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", lag));
    setup.issues().issued();
}

#[test]
fn unknown_status_is_one_clear_error() {
    for (resource, told) in [
        ("newOrder", "Order failed, it is dreaming"),
        ("order", "Order failed, it is dreaming"),
        ("authorization", "the authorization is dreaming"),
    ] {
        let dream =
            |reply: &mut Reply, _: usize| reply.edit(|object| object["status"] = json!("dreaming"));
        Setup::with_fake_ca(|ca| ca.tamper(resource, dream)).fails_with(told);
    }
}
