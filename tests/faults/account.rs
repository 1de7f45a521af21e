//! The CA's directory and the account.

use crate::support::prelude::*;

#[test]
fn unconfirmed_contact_is_reported() {
    let forget = |reply: &mut Reply, _| {
        reply.edit(|account| drop(account.as_object_mut().unwrap().remove("contact")))
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newAccount", forget));
    let outcome = setup.getcrt().args(&["--contact", "me@a.test"]).outcome();
    outcome.issued().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Updated contact details:
mailto:me@a.test
(the CA did not confirm it)
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
    // A new account has it from the registration.
    assert_eq!(setup.ca.count("account"), 0);
    assert_eq!(
        setup.ca.payload("newAccount")["contact"],
        json!(["mailto:me@a.test"])
    );
}

#[test]
fn contact_of_an_existing_account_is_updated() {
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newAccount", |reply, _| reply.status = 200));
    let outcome = setup.getcrt().args(&["--contact", "me@a.test"]).outcome();
    outcome.issued().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/account/1
Updated contact details:
mailto:me@a.test
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
    assert_eq!(
        setup.ca.payload("account"),
        json!({"contact": ["mailto:me@a.test"]})
    );
}

#[test]
fn account_that_is_not_valid_is_an_error() {
    let deactivated = |reply: &mut Reply, _| {
        reply.status = 200;
        reply.edit(|account| account["status"] = json!("deactivated"));
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newAccount", deactivated));
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
error: the account https://localhost:[PORT]/account/1 is deactivated
hint: make another account key, which gets an account of its own

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 0);
}

#[test]
fn account_without_a_status_is_taken_for_valid() {
    for body in ["{}", r#"{"status": null}"#, ""] {
        let strip = move |reply: &mut Reply, _| reply.body = body.as_bytes().to_vec();
        Setup::with_fake_ca(|ca| ca.tamper("newAccount", strip))
            .issues()
            .issued();
    }
}

#[test]
fn refused_contact_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("newAccount", |reply, _| reply.status = 200);
        ca.tamper("account", |reply, _| {
            reply.problem(400, "invalidContact", "no such domain")
        })
    });
    let run = setup.getcrt().args(&["--contact", "me@a.test"]);
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Already registered! Account ID: https://localhost:[PORT]/account/1
error: cannot update the contact details: https://localhost:[PORT]/account/1: HTTP 400, no such domain (urn:ietf:params:acme:error:invalidContact)

"#]]);
}

#[test]
fn changed_terms_are_linked() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newAccount", |reply, _| {
            reply.problem(403, "userActionRequired", "the terms have changed");
            reply.edit(|problem| problem["instance"] = json!("https://ca.test/agree"));
        })
    });
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/new-account: HTTP 403, the terms have changed (urn:ietf:params:acme:error:userActionRequired)
hint: the CA wants you to visit https://ca.test/agree

"#]]);
}

#[test]
fn acme_v1_directory_is_recognized() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("directory", |reply, _| {
            reply.replace(200, r#"{"new-reg": "https://x.test/"}"#)
        })
    });
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory speaks ACME v1, which is out of use; name the CA's RFC 8555 directory

"#]]);
}

#[test]
fn accepted_key_algorithms_are_shown() {
    let tamper = |reply: &mut Reply, _| {
        reply.problem(400, "badSignatureAlgorithm", "not that one");
        reply.edit(|problem| problem["algorithms"] = json!(["RS256", "ES384"]));
    };
    Setup::with_fake_ca(|ca| ca.tamper("newAccount", tamper)).fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/new-account: HTTP 400, not that one (urn:ietf:params:acme:error:badSignatureAlgorithm); it takes ["RS256","ES384"]

"#]]);
}

#[test]
fn missing_location_is_an_error() {
    let without_location = |reply: &mut Reply, _| reply.drop_header("Location");
    Setup::with_fake_ca(|ca| ca.tamper("newAccount", without_location)).fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: the CA's reply has no Location header

"#]]);
    Setup::with_fake_ca(|ca| ca.tamper("newOrder", without_location)).fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
error: cannot create the order: the CA's reply has no Location header

"#]]);
}
