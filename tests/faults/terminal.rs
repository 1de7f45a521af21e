//! getcrt at a terminal: it never asks for a passphrase there. OpenSSL would do so for PEM with a `Proc-Type:` line.

use crate::support::prelude::*;

/// A PEM block that says of itself that it is encrypted.
fn encrypted(label: &str) -> String {
    format!(
        "-----BEGIN {label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n\
         AAAAAAAAAAAAAAAAAAAAAA==\n-----END {label}-----\n"
    )
}

/// Runs getcrt with a terminal of its own, on which all that it prints appears.
fn at_a_terminal(setup: &Setup<FakeCa>, more: &str) -> Outcome {
    let url = setup.ca.directory_url();
    let port = setup.web.port;
    let command = format!(
        "'{GETCRT}' --account-key account.key --csr domain.csr --acme-dir acme --ca-bundle ca.pem \
         --directory-url {url} --check-port {port} --timeout 60 {more}"
    );
    let run = Run::of("script").args(&["--quiet", "--return", "--command", &command, "/dev/null"]);
    setup.here(run).outcome()
}

#[track_caller]
fn refuses(setup: &Setup<FakeCa>, more: &str, message: &str) {
    let outcome = at_a_terminal(setup, more);
    outcome.exits(1);
    is_silent(&outcome);
    outcome.check(
        "getcrt does not say what is wrong",
        outcome.stdout.contains(message),
    );
}

#[track_caller]
fn is_silent(outcome: &Outcome) {
    let is_asked = outcome.stdout.contains("pass phrase");
    outcome.check("a passphrase is asked for", !is_asked);
}

const MESSAGE: &str = "it holds an encrypted PEM block, and getcrt never asks for a passphrase";

#[test]
fn encrypted_chain_is_refused() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", |reply, _| {
            reply.body = encrypted("CERTIFICATE").into();
        })
    });
    refuses(&setup, "", MESSAGE);
}

#[test]
fn encrypted_chain_with_one_long_line_is_refused() {
    // OpenSSL reads lines in pieces of 254 bytes, so the header begins a line for it.
    let begin = format!("{:<254}", "-----BEGIN CERTIFICATE-----");
    let one_line = encrypted("CERTIFICATE").replacen("-----BEGIN CERTIFICATE-----\n", &begin, 1);
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", move |reply, _| {
            reply.body = one_line.clone().into();
        })
    });
    refuses(&setup, "", MESSAGE);
}

#[test]
fn encrypted_csr_is_refused() {
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::write(setup.path("domain.csr"), encrypted("CERTIFICATE REQUEST")).unwrap();
    refuses(&setup, "", MESSAGE);
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn encrypted_ca_bundle_is_refused() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let root = text(&setup.path("ca.pem"));
    fs::write(setup.path("ca.pem"), root + &encrypted("CERTIFICATE")).unwrap();
    refuses(&setup, "", MESSAGE);
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn encrypted_account_key_is_refused() {
    for label in [
        "EC PRIVATE KEY",
        "PRIVATE KEY",
        "EC PARAMETERS",
        "CERTIFICATE",
    ] {
        let setup = Setup::with_fake_ca(|ca| ca);
        let plain = text(&setup.path("account.key"));
        fs::write(setup.path("account.key"), encrypted(label) + &plain).unwrap();
        refuses(&setup, "", "this key is encrypted");
        assert_eq!(setup.ca.requests(), [""; 0]);
    }
}

#[test]
fn encrypted_old_certificate_counts_as_none() {
    let setup = Setup::with_fake_ca(|ca| ca);
    fs::write(setup.path("signed.crt"), encrypted("CERTIFICATE")).unwrap();
    let outcome = at_a_terminal(&setup, "--renew -o signed.crt");
    outcome.exits(0);
    is_silent(&outcome);
    assert!(!text(&setup.path("signed.crt")).contains("Proc-Type"));
}
