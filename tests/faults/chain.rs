//! The chain that the CA delivers.

use std::sync::atomic::{AtomicBool, Ordering};

use openssl::x509::X509;

use crate::support::fake_ca::{Leaf, ec_key, public};
use crate::support::files::with_unknown_algorithm;
use crate::support::prelude::*;

/// A user whose CA delivers a changed chain.
fn delivering(change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| ca.tamper("certificate", move |reply, _| change(&mut reply.body)))
}

/// A user whose CA issues something else than it should.
fn issuing(change: impl Fn(&mut Leaf) + Send + Sync + 'static) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| ca.leaf(change))
}

#[test]
fn chain_without_a_certificate_is_refused() {
    for body in ["", "<html></html>"] {
        delivering(|chain| *chain = body.into()).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: there is no certificate in the chain

"#]]);
    }
}

#[test]
fn damaged_certificate_is_refused() {
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    delivering(|chain| *chain = damaged.into()).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: a certificate of the chain is damaged or cut off

"#]]);
}

#[test]
fn certificate_that_does_not_begin_a_line_is_refused() {
    let indented = "x -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    delivering(|chain| *chain = indented.into()).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: a certificate of the chain is damaged or cut off

"#]]);
}

#[test]
fn chain_that_is_cut_off_is_refused() {
    // In its first line.
    delivering(|chain| *chain = "-----BEGIN CERTIFICATE-----".into()).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: a certificate of the chain is damaged or cut off

"#]]);
    // Near the end of its last certificate.
    delivering(|chain| chain.truncate(chain.len() - 40)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: a certificate of the chain is damaged or cut off

"#]]);
    // Near the beginning of its second certificate.
    delivering(|chain| chain.truncate(chain.len() / 2 + 60)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: a certificate of the chain is damaged or cut off

"#]]);
}

#[test]
fn chain_with_a_private_key_is_refused() {
    let key = ec_key().private_key_to_pem_pkcs8().unwrap();
    delivering(move |chain| *chain = key.clone()).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: the chain has a PRIVATE KEY in it, where nothing but certificates belongs

"#]]);
}

#[test]
fn text_around_certificates_is_left_out() {
    let setup = delivering(|chain| {
        *chain = [b"some \x1b[31m text\n", chain.as_slice(), b"more text\n"].concat();
    });
    let outcome = setup.issues();
    outcome
        .issued()
        .check("text is in the output", !outcome.stdout.contains("text"));
}

/// Another run of the account was handed the same order, and has finished it.
#[test]
fn certificate_for_another_key_leads_to_a_second_order() {
    let is_first = AtomicBool::new(true);
    let setup = issuing(move |leaf| {
        if is_first.swap(false, Ordering::Relaxed) {
            leaf.key = public(&ec_key());
        }
    });
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
Ordering again, because another run of this account may have finished the order: order https://localhost:[PORT]/order/1: the certificate is for another key than the CSR's
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
    for (resource, count) in [
        ("newAccount", 1),
        ("newOrder", 2),
        ("finalize", 2),
        ("certificate", 2),
    ] {
        assert_eq!(setup.ca.count(resource), count, "{resource}");
    }
}

/// Two runs of one account are handed the same order at the same time, one for an RSA key and one for an ECDSA key.
#[test]
fn two_runs_with_one_order_get_a_certificate_each() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.sharing_orders().tamper("newOrder", |reply, count| {
            if count == 0 {
                // No run goes on before both have the order.
                reply.wire = Wire::Behind(1);
            }
        })
    });
    key(&setup.path("rsa.key"), "RSA:2048");
    let names = ["a.test", "b.test", "c.test"];
    csr(&setup.path("rsa.csr"), &setup.path("rsa.key"), "/", &names);
    let rsa_run = setup.getcrt().args(&["--csr", "rsa.csr"]).start();
    let ecdsa_run = setup.getcrt().start();
    let outcomes = [rsa_run.outcome(), ecdsa_run.outcome()];
    let mut second_orders = 0;
    for outcome in &outcomes {
        outcome.delivers();
        setup.nothing_is_left(outcome);
        second_orders += outcome.stderr.matches("\nOrdering again, because ").count();
    }
    assert_eq!(second_orders, 1, "{}\n{}", outcomes[0], outcomes[1]);
    assert_eq!(setup.ca.count("newOrder"), 3);
}

#[test]
fn second_certificate_for_another_key_is_refused() {
    let setup = issuing(|leaf| leaf.key = public(&ec_key()));
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
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Ordering again, because another run of this account may have finished the order: order https://localhost:[PORT]/order/1: the certificate is for another key than the CSR's
Creating new order...
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
error: order https://localhost:[PORT]/order/1: the certificate is for another key than the CSR's

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 2);
    assert_eq!(setup.ca.count("finalize"), 2);
}

#[test]
fn certificate_that_lacks_a_name_is_refused() {
    issuing(|leaf| drop(leaf.names.remove(1))).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: the certificate is not for b.test, which the CSR asks for

"#]]);
}

#[test]
fn expired_certificate_is_refused() {
    issuing(|leaf| leaf.hours = (-48, -24)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: the certificate ended at [TIME]; by this machine's clock it is [TIME]

"#]]);
}

#[test]
fn forged_signature_is_refused() {
    issuing(|leaf| leaf.signer = ec_key()).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: the certificate was not signed by its issuer

"#]]);
}

#[test]
fn signature_of_an_unknown_kind_is_a_warning() {
    let setup = delivering(|chain| {
        let certificates = X509::stack_from_pem(chain).unwrap();
        let leaf = with_unknown_algorithm(&certificates[0]).to_pem().unwrap();
        *chain = [leaf, certificates[1].to_pem().unwrap()].concat();
    });
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
warning: the certificate's signature is of a kind that OpenSSL cannot verify
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names and dates; not the signature
Certificate signed!

"#]]);
}

#[test]
fn additional_name_is_a_warning() {
    let setup = issuing(|leaf| leaf.names.push("more.test".to_owned()));
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
warning: the certificate is for names that the CSR does not ask for: more.test
Valid until [TIME], issued by Fake CA, 4 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn certificate_that_is_not_valid_yet_is_a_warning() {
    issuing(|leaf| leaf.hours = (3, 48))
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
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
warning: the certificate begins at [TIME]; by this machine's clock it is [TIME], is that right?
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn unrelated_certificate_at_the_end_is_a_warning() {
    // It even has the name of the issuer before it.
    let setup = issuing(|leaf| leaf.issuers.push(Issuer::new().certificate));
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
warning: the chain is out of order: `Fake CA` is not signed by the certificate after it
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn unrelated_certificate_in_between_is_a_warning() {
    let setup = issuing(|leaf| {
        // Its key is of another kind than those around it.
        let request = "req -x509 -newkey ed25519 -nodes -subj /CN=stranger -keyout /dev/null";
        let stranger = openssl(&request.split(' ').collect::<Vec<_>>());
        let stranger = X509::from_pem(stranger.as_bytes()).unwrap();
        leaf.issuers.insert(0, stranger);
    });
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
warning: the chain is out of order: `(no name)` is not signed by the certificate after it
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn leaf_alone_is_accepted() {
    let outcome = issuing(|leaf| leaf.issuers.clear()).issues();
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
Verifying a.test...
Verifying b.test...
Verifying c.test...
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names and dates; not the signature, because the chain lacks its issuer
Certificate signed!

"#]]);
}

#[test]
fn certificate_that_begins_in_days_is_refused() {
    issuing(|leaf| leaf.hours = (25, 24 * 90)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: the certificate begins at [TIME]; by this machine's clock it is [TIME]

"#]]);
}

/// Replaces the month in a certificate's time by one that does not exist. `which` is 0 for notBefore, 1 for notAfter.
fn with_a_malformed_time(chain: &[u8], which: usize) -> Vec<u8> {
    let mut leaf = X509::from_pem(chain).unwrap().to_der().unwrap();
    // A UTCTime: the tag 23, the length 13, YYMMDDHHMMSSZ.
    let is_time = |place: &usize| leaf[*place..].starts_with(&[23, 13]) && leaf[place + 14] == b'Z';
    let place = (0..leaf.len() - 15).filter(is_time).nth(which).unwrap();
    leaf[place + 4..place + 6].copy_from_slice(b"99");
    X509::from_der(&leaf).unwrap().to_pem().unwrap()
}

#[test]
fn malformed_time_is_refused() {
    for which in [0, 1] {
        // Without its issuer, so the signature, which the change has broken, cannot be checked.
        let setup = delivering(move |chain| *chain = with_a_malformed_time(chain, which));
        setup.fails_with("the time at which the certificate begins or ends is malformed");
    }
}

#[test]
fn many_additional_names_are_one_warning() {
    let setup = issuing(|leaf| {
        let more = (0..10_000).map(|number| format!("more-{number}.test"));
        leaf.names.extend(more);
    });
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
warning: the certificate is for names that the CSR does not ask for: more-0.test, more-1.test, more-2.test and 9997 more
Valid until [TIME], issued by Fake CA, 10003 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}
