//! Nonces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::prelude::*;

#[test]
fn bad_nonce_error_without_a_nonce_is_survived() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, count| {
            if count < 7 {
                reply.problem(400, "badNonce", "stale");
                if count % 2 == 0 {
                    reply.drop_header("Replay-Nonce");
                }
            }
        })
    });
    setup.issues();
    assert_eq!(setup.ca.count("newOrder"), 8);
    // Four of the errors had none; two names more were worked on side by side.
    let fetched = setup.ca.count("newNonce");
    assert!((5..=7).contains(&fetched), "{fetched} nonces were fetched");
}

#[test]
fn nonces_that_are_always_bad_end_the_run() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, _| {
            reply.problem(400, "badNonce", "stale")
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 400, stale (urn:ietf:params:acme:error:badNonce)

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 201);
}

#[test]
fn nonces_from_new_nonce_alone_suffice() {
    let every = [
        "newAccount",
        "newOrder",
        "authorization",
        "challenge",
        "order",
        "finalize",
        "certificate",
    ];
    let without_nonce = |reply: &mut Reply, _| reply.drop_header("Replay-Nonce");
    for _ in 0..5 {
        // Each of the names that are worked on side by side uses the nonce it has fetched.
        Setup::with_fake_ca(|ca| ca.tamper_all(&every, without_nonce))
            .issues()
            .issued();
    }
}

#[test]
fn new_nonce_without_a_nonce_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newNonce", |reply, _| reply.drop_header("Replay-Nonce"))
    });
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/new-nonce gives no usable Replay-Nonce

"#]]);
}

/// One of the nonces that are asked for ahead never comes, and the CA's replies bring none.
#[test]
fn hanging_new_nonce_is_not_waited_for() {
    let setup = Setup::with_fake_ca(|ca| {
        let none = |reply: &mut Reply, _| reply.drop_header("Replay-Nonce");
        let hung = AtomicBool::new(false);
        let is_ahead = Arc::new(AtomicBool::new(true));
        let has_account = Arc::clone(&is_ahead);
        // Three nonces are asked for ahead. One of these requests, on a new connection, hangs.
        let ca = ca.tamper("newNonce", move |reply, _| {
            let is_ahead = is_ahead.load(Ordering::Relaxed);
            if is_ahead && reply.is_first && !hung.swap(true, Ordering::Relaxed) {
                reply.wire = Wire::Hang;
            }
        });
        // Nonces that are asked for after this are waited for.
        let ca = ca.tamper("newAccount", move |_, _| {
            has_account.store(false, Ordering::Relaxed)
        });
        let resources = [
            "newAccount",
            "newOrder",
            "authorization",
            "challenge",
            "order",
        ];
        ca.tamper_all(&resources, none)
    });
    // A request may hang for a minute, and this one is not waited for.
    let outcome = setup.getcrt().args(&["--timeout", "45"]).outcome();
    outcome.issued();
}

#[test]
fn deadline_ends_retries_of_nonces() {
    let stale = |reply: &mut Reply, _| reply.problem(400, "badNonce", "stale");
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", stale));
    setup.run_fails(
        setup.getcrt().args(&["--timeout", "2"]),
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 400, stale (urn:ietf:params:acme:error:badNonce)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]],
    );
}
