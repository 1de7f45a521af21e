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
(the CA did not confirm this)
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
            reply.header("Link", "<https://ca.test/terms/2>;rel=\"terms-of-service\"");
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
hint: visit https://ca.test/agree, where the CA wants you to act (its terms of service are https://ca.test/terms/2)

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
hint: make another account key: RSA with 2048 bits and P-256 are taken everywhere, P-521 and Ed25519 by few CAs

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

/// A CA that says how CAA records name it.
fn with_caa_identities(identities: Value) -> Setup<FakeCa> {
    let tell = move |reply: &mut Reply, _: usize| {
        reply.edit(|directory| directory["meta"]["caaIdentities"] = identities.clone());
    };
    let find = |reply: &mut Reply, count| {
        if count > 0 {
            reply.status = 200;
        }
    };
    Setup::with_fake_ca(|ca| ca.tamper("directory", tell).tamper("newAccount", find))
}

#[test]
fn caa_record_is_shown_when_the_account_is_registered() {
    let setup = with_caa_identities(json!(["ca.test", "ca.example"]));
    setup.issues().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
A CAA record that lets only this account get certificates for this name, and by http-01 only: a.test. CAA 0 issue "ca.test; accounturi=https://localhost:[PORT]/account/1; validationmethods=http-01"
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
    // Not again, but for -v.
    let line = |outcome: &Outcome| {
        let lines = outcome.stderr.lines();
        lines.filter(|line| line.contains("CAA 0 issue")).count()
    };
    assert_eq!(line(&setup.issues()), 0);
    assert_eq!(line(&setup.getcrt().arg("-v").outcome()), 1);
}

#[test]
fn no_caa_record_is_shown_where_the_ca_does_not_say_how() {
    for identities in [json!(null), json!([]), json!(7), json!(["ca.test\"; x"])] {
        with_caa_identities(identities).issues().says_not("CAA");
    }
}
