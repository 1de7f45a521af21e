//! The chain that the CA delivers.

use openssl::x509::X509;

use crate::support::fake_ca::{ec_key, public};
use crate::support::prelude::*;

#[test]
fn chain_must_consist_of_certificates() {
    let leaf_key = ec_key().private_key_to_pem_pkcs8().unwrap();
    let empty: Vec<u8> = Vec::new();
    for (body, told) in [
        (empty, "there is no certificate in the chain"),
        (
            b"<html></html>".to_vec(),
            "there is no certificate in the chain",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            "a certificate of the chain is damaged",
        ),
        (
            b"x -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            "a certificate of the chain is cut off",
        ),
        (
            b"-----BEGIN CERTIFICATE-----".to_vec(),
            "a certificate of the chain is",
        ),
        (
            leaf_key,
            "the chain has a PRIVATE KEY in it, where nothing but certificates belongs",
        ),
    ] {
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("certificate", move |reply, _| reply.body = body.clone())
        });
        setup
            .fails_with(told)
            .says("error: order https://localhost:");
    }
    let cut = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", |reply, _| {
            reply.body.truncate(reply.body.len() - 40)
        })
    });
    cut.fails_with("a certificate of the chain is ");
    let torn = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", |reply, _| {
            reply.body.truncate(reply.body.len() / 2 + 60);
        })
    });
    torn.fails_with("a certificate of the chain is ");
}

#[test]
fn text_between_certificates_is_left_out() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", |reply, _| {
            reply.body = [
                b"some \x1b[31m text\n",
                reply.body.as_slice(),
                b"more text\n",
            ]
            .concat();
        })
    });
    let outcome = setup.issues();
    outcome
        .issued()
        .check("text is in the output", !outcome.stdout.contains("text"));
}

#[test]
fn certificate_must_fit_the_csr() {
    let other = Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.key = public(&ec_key())));
    other.fails_with("the certificate is for another key than the CSR's");
    let short = Setup::with_fake_ca(|ca| ca.leaf(|leaf| drop(leaf.names.remove(1))));
    short.fails_with("the certificate is not for b.test, which the CSR asks for");
    let old = Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.hours = (-48, -24)));
    old.fails_with("the certificate ended at ")
        .says("by this machine's clock it is ");
    let forged = Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.signer = ec_key()));
    forged.fails_with("the certificate's signature is not its issuer's");
}

#[test]
fn harmless_oddities_are_warnings() {
    let more = Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.names.push("more.test".to_owned())));
    more.issues()
        .says("\nwarning: the certificate is for more.test too, which the CSR does not ask for\n")
        .says(", 4 names\n");
    let ahead = Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.hours = (3, 48)));
    ahead
        .issues()
        .says("warning: the certificate begins at ")
        .says(", is that right?\n");
    let disorder =
        Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.issuers.push(Issuer::new().certificate)));
    disorder.issues().exits(0);
    let strange = Setup::with_fake_ca(|ca| {
        ca.leaf(|leaf| {
            let alone = openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ed25519",
                "-nodes",
                "-subj",
                "/CN=stranger",
                "-keyout",
                "/dev/null",
            ]);
            leaf.issuers
                .insert(0, X509::from_pem(alone.as_bytes()).unwrap());
        })
    });
    strange
        .issues()
        .says("warning: the chain is out of order: ");
    let unknown = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", |reply, _| {
            let chain = X509::stack_from_pem(&reply.body).unwrap();
            let mut leaf = chain[0].to_der().unwrap();
            // ecdsa-with-SHA256, in both its places, and then an algorithm that nobody knows.
            let algorithm = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
            for place in 0..leaf.len() - algorithm.len() {
                if leaf[place..].starts_with(algorithm) {
                    leaf[place + algorithm.len() - 1] = 0x7f;
                }
            }
            let leaf = X509::from_der(&leaf).unwrap().to_pem().unwrap();
            reply.body = [leaf, chain[1].to_pem().unwrap()].concat();
        })
    });
    unknown
        .issues()
        .says("warning: the certificate's signature is of a kind that OpenSSL cannot verify\n");
    let alone = Setup::with_fake_ca(|ca| ca.leaf(|leaf| leaf.issuers.clear()));
    alone.issues().issued();
}
