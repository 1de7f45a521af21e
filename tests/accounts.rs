//! External accounts, profiles and the choice of a chain.

use std::sync::{Arc, OnceLock};

use crate::support::pebble::NAMES;
use crate::support::prelude::*;

/// A key of an account elsewhere, as CAs hand them out.
const HMAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[test]
fn an_account_is_bound_once_and_the_key_is_needed_no_more() {
    let setup = Setup::with_external_accounts(&format!(r#"{{"kid-1": "{HMAC_KEY}"}}"#));
    let key = setup.path("eab.key");
    fs::write(&key, format!("{HMAC_KEY}==\n")).unwrap();
    let getcrt = || {
        setup.getcrt().args(&[
            "--eab-kid",
            "kid-1",
            "--eab-hmac-key",
            key.to_str().unwrap(),
        ])
    };
    let outcome = getcrt().args(&["-v", "--contact", "me@a.test"]).outcome();
    outcome
        .exits(0)
        .says("\nRegistered! Account ID: https://")
        .says("\"onlyReturnExisting\": true");
    outcome
        .says("\"externalAccountBinding\": {")
        .says_not(HMAC_KEY)
        .says_not(&HMAC_KEY[..20]);
    setup.verify_pem(&outcome.stdout, &NAMES);
    fs::remove_file(&key).unwrap();
    getcrt()
        .outcome()
        .issued()
        .says("\nAlready registered! Account ID: https://");
    // Without the pair, too: the account is known.
    setup.getcrt().outcome().issued();
}

#[test]
fn a_key_from_a_pipe() {
    let setup = Setup::with_external_accounts(&format!(r#"{{"kid-1": "{HMAC_KEY}"}}"#));
    let key = setup.path("eab.key");
    fs::write(&key, HMAC_KEY).unwrap();
    let mut run = setup
        .getcrt()
        .args(&["--eab-kid", "kid-1", "--eab-hmac-key", "/dev/stdin"]);
    run.command.stdin(fs::File::open(&key).unwrap());
    setup.verify(&run.outcome(), &NAMES);
}

#[test]
fn external_accounts_that_are_none() {
    let setup = Setup::with_external_accounts(&format!(r#"{{"kid-1": "{HMAC_KEY}"}}"#));
    let key = setup.path("eab.key");
    let run = |kid: &str| {
        setup
            .getcrt()
            .args(&["--eab-kid", kid, "--eab-hmac-key", key.to_str().unwrap()])
            .outcome()
    };
    run("kid-1")
        .failed("cannot register the account: Error loading ")
        .says("eab.key: No such file or directory");
    fs::write(&key, "not base64!").unwrap();
    run("kid-1")
        .failed("eab.key: no base64url key in it")
        .says_not("not base64!");
    fs::write(&key, HMAC_KEY).unwrap();
    run("kid-2")
        .failed("cannot register the account: https://")
        .says("urn:ietf:params:acme:error:");
    fs::write(&key, HMAC_KEY.replace('z', "y")).unwrap();
    run("kid-1")
        .failed("cannot register the account: https://")
        .says_not(&HMAC_KEY[1..20]);
    let without = setup.getcrt().outcome();
    without.failed("urn:ietf:params:acme:error:externalAccountRequired");
    without.says(
        "\nhint: see the CA's website for an identifier and key for --eab-kid and --eab-hmac-key\n",
    );
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
}

#[test]
fn the_cas_own_page_on_external_accounts() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("directory", |reply, _| {
            reply.edit(|d| d["meta"]["website"] = json!("https://ca.test/eab"))
        });
        ca.tamper("newAccount", |reply, _| {
            reply.problem(403, "externalAccountRequired", "who are you?")
        })
    });
    setup
        .fails_with("who are you? (")
        .says("\nhint: see https://ca.test/eab for an identifier and key");
}

/// Offers two profiles.
fn offer(reply: &mut Reply, _: usize) {
    reply.edit(|directory| {
        directory["meta"]["profiles"] =
            json!({"classic": "90 days", "nameless": 7, "shortlived": "six\u{7} days"})
    });
}

#[test]
fn a_profile_that_is_offered() {
    let setup = Setup::with_fake_ca(|ca| ca.tamper("directory", offer));
    setup
        .getcrt()
        .args(&["--profile", "shortlived"])
        .outcome()
        .issued();
    assert_eq!(setup.ca.payload("newOrder")["profile"], "shortlived");
    setup.getcrt().outcome().issued();
    assert!(setup.ca.payload("newOrder")["profile"].is_null());
}

#[test]
fn profiles_that_are_not_offered() {
    let others = Setup::with_fake_ca(|ca| ca.tamper("directory", offer));
    let outcome = others.getcrt().args(&["--profile", "tlsserver"]).outcome();
    outcome.failed("--profile tlsserver: the CA has others");
    outcome.says("\n  --profile classic: 90 days\n  --profile nameless: no description\n  --profile shortlived: six\\u{7} days\n");
    assert_eq!(others.ca.count("newAccount"), 0);
    let none = Setup::with_fake_ca(|ca| ca);
    none.getcrt()
        .args(&["--profile", "classic"])
        .outcome()
        .failed("--profile classic: the CA has no profiles");
}

#[test]
fn every_chain_can_be_chosen() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_ALTERNATE_ROOTS", "2")]);
    for number in 0..3 {
        let root = setup.fetch_alternate_root(number);
        let root = root.to_str().unwrap();
        let subject = openssl(&[
            "x509",
            "-in",
            root,
            "-noout",
            "-subject",
            "-nameopt",
            "multiline",
        ]);
        let name = subject
            .lines()
            .find_map(|line| line.trim().strip_prefix("commonName"))
            .unwrap();
        let name = name.trim_start_matches([' ', '=']);
        let outcome = setup.getcrt().args(&["--preferred-chain", name]).outcome();
        outcome.issued();
        let chain = setup.path("chain.pem");
        fs::write(&chain, &outcome.stdout).unwrap();
        let chain = chain.to_str().unwrap();
        // Its last certificate was issued by that root and no other.
        openssl(&["verify", "-CAfile", root, "-untrusted", chain, chain]);
    }
    let outcome = setup
        .getcrt()
        .args(&["--preferred-chain", "Nobody Root X9"])
        .outcome();
    outcome.exits(0).says("\nwarning: no chain of the CA's leads to `Nobody Root X9`; this one leads to `Pebble Root CA ");
    setup.verify_pem(&outcome.stdout, &NAMES);
}

#[test]
fn links_in_all_their_forms() {
    let links = |reply: &mut Reply, count| {
        if count == 0 {
            reply.header("Link", "<https://localhost:1/index>;rel=\"index\", </relative>; rel=alternate, <https://localhost:1/alternate>; title=\"x, y\" ; rel=Alternate");
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("certificate", links));
    let outcome = setup
        .getcrt()
        .args(&["--preferred-chain", "Another CA", "--timeout", "6"])
        .outcome();
    // One link is an alternate, and nobody is at home there; the default chain is as good as ever.
    outcome
        .exits(0)
        .says("warning: an alternate chain cannot be used: https://localhost:1/alternate: ");
    outcome
        .says_not("localhost:1/index")
        .says("warning: no chain of the CA's leads to `Another CA`; this one leads to `Fake CA`");
    let chosen = setup
        .getcrt()
        .args(&["--preferred-chain", "Fake CA"])
        .outcome();
    chosen.issued();
}

#[test]
fn a_ca_that_wants_the_binding_even_to_be_asked() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newAccount", |reply, count| {
            if count == 0 {
                reply.problem(400, "externalAccountRequired", "who asks?");
            }
        })
    });
    fs::write(setup.path("eab.key"), HMAC_KEY).unwrap();
    setup
        .getcrt()
        .args(&["--eab-kid", "kid-1", "--eab-hmac-key", "eab.key"])
        .outcome()
        .issued();
    assert!(setup.ca.payload("newAccount")["externalAccountBinding"].is_object());
}

#[test]
fn an_alternate_chain_that_is_for_another_key() {
    let port = Arc::new(OnceLock::new());
    let shared = Arc::clone(&port);
    let other = Issuer::called("Another CA").certificate.to_pem().unwrap();
    let tamper = move |reply: &mut Reply, count| match count {
        0 => {
            let url = format!("https://localhost:{}/certificate/2", shared.get().unwrap());
            reply.header("Link", &format!("<{url}>;rel=\"alternate\""));
        }
        _ => reply.body.clone_from(&other),
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("certificate", tamper));
    port.set(setup.ca.port).unwrap();
    let run = setup.getcrt().args(&["--preferred-chain", "Another CA"]);
    run.outcome().exits(0).says(
        "\nwarning: the chain to `Another CA` cannot be used: the certificate is for another key than the CSR's\n",
    );
}
