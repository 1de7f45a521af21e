//! External accounts, profiles and the choice of a chain.

use std::sync::{Arc, OnceLock};

use crate::support::pebble::NAMES;
use crate::support::prelude::*;

/// A key of an account elsewhere, as CAs hand them out.
const HMAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// A CA that wants accounts to be bound to `kid-1`, and the key for that in `eab.key`.
fn with_external_account() -> Setup<Pebble> {
    let setup = Setup::with_external_accounts(&format!(r#"{{"kid-1": "{HMAC_KEY}"}}"#));
    fs::write(setup.path("eab.key"), HMAC_KEY).unwrap();
    setup
}

/// The options that bind an account to `kid-1`.
const BINDING: [&str; 4] = ["--eab-kid", "kid-1", "--eab-hmac-key", "eab.key"];

#[test]
fn account_is_bound_once_and_the_key_is_not_needed_again() {
    let setup = with_external_account();
    let padded = format!("{HMAC_KEY}==\n");
    fs::write(setup.path("eab.key"), padded).unwrap();
    let run = setup.getcrt().args(&BINDING);
    let outcome = run.args(&["-v", "--contact", "me@a.test"]).outcome();
    outcome
        .exits(0)
        .says("\nRegistered! Account ID: https://")
        .says("\"onlyReturnExisting\": true")
        .says("\"externalAccountBinding\": {")
        .says_not(HMAC_KEY)
        .says_not(&HMAC_KEY[..20]);
    setup.verify_pem(&outcome.stdout, &NAMES);
    fs::remove_file(setup.path("eab.key")).unwrap();
    let outcome = setup.getcrt().args(&BINDING).outcome();
    outcome
        .issued()
        .says("\nAlready registered! Account ID: https://");
    // The account is known, so the options are not needed either.
    setup.getcrt().outcome().issued();
}

#[test]
fn binding_key_may_come_from_a_pipe() {
    let setup = with_external_account();
    let run = setup.getcrt();
    let mut run = run.args(&["--eab-kid", "kid-1", "--eab-hmac-key", "/dev/stdin"]);
    run.command
        .stdin(fs::File::open(setup.path("eab.key")).unwrap());
    setup.verify(&run.outcome(), &NAMES);
}

#[test]
fn unusable_binding_key_is_an_error() {
    let setup = with_external_account();
    fs::write(setup.path("eab.key"), "not base64!").unwrap();
    setup.run_fails(
        setup.getcrt().args(&BINDING),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: --eab-hmac-key eab.key: no base64url key in it

"#]],
    );
    fs::remove_file(setup.path("eab.key")).unwrap();
    setup.run_fails(
        setup.getcrt().args(&BINDING),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: --eab-hmac-key eab.key: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn binding_that_the_ca_refuses_is_an_error() {
    let setup = with_external_account();
    let unknown = ["--eab-kid", "kid-2", "--eab-hmac-key", "eab.key"];
    setup.run_fails(setup.getcrt().args(&unknown), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/sign-me-up: HTTP 403, the field 'kid' references a key that is not known to the ACME server (urn:ietf:params:acme:error:unauthorized)

"#]]);
    let wrong = HMAC_KEY.replace('z', "y");
    fs::write(setup.path("eab.key"), wrong).unwrap();
    setup.run_fails(setup.getcrt().args(&BINDING), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/sign-me-up: HTTP 403, external account binding JWS verification error: [..] (urn:ietf:params:acme:error:unauthorized)

"#]]);
}

#[test]
fn missing_binding_is_an_error_with_a_hint() {
    let setup = with_external_account();
    setup.run_fails(setup.getcrt(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/sign-me-up: HTTP 403, ACME server policy requires newAccount requests must include a value for the 'externalAccountBinding' field (urn:ietf:params:acme:error:externalAccountRequired)
hint: see the CA's website for an identifier and key for --eab-kid and --eab-hmac-key

"#]]);
}

#[test]
fn hint_on_external_accounts_links_the_website_of_the_ca() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("directory", |reply, _| {
            reply.edit(|directory| directory["meta"]["website"] = json!("https://ca.test/eab"))
        });
        ca.tamper("newAccount", |reply, _| {
            reply.problem(403, "externalAccountRequired", "who are you?")
        })
    });
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
error: cannot register the account: https://localhost:[PORT]/new-account: HTTP 403, who are you? (urn:ietf:params:acme:error:externalAccountRequired)
hint: see https://ca.test/eab for an identifier and key for --eab-kid and --eab-hmac-key

"#]]);
}

/// Offers three profiles, one of them without a description.
fn offer_profiles(reply: &mut Reply, _: usize) {
    reply.edit(|directory| {
        directory["meta"]["profiles"] =
            json!({"classic": "90 days", "nameless": 7, "shortlived": "six\u{7} days"})
    });
}

#[test]
fn offered_profile_is_ordered() {
    let setup = Setup::with_fake_ca(|ca| ca.tamper("directory", offer_profiles));
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
fn profile_that_is_not_offered_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| ca.tamper("directory", offer_profiles));
    let run = setup.getcrt().args(&["--profile", "tlsserver"]);
    setup.run_fails(
        run,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
error: --profile tlsserver: the CA does not offer this profile, but these
  --profile classic: 90 days
  --profile nameless: no description
  --profile shortlived: six\u{7} days

"#]],
    );
    assert_eq!(setup.ca.count("newAccount"), 0);
}

#[test]
fn profile_is_an_error_where_the_ca_has_none() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let run = setup.getcrt().args(&["--profile", "classic"]);
    setup.run_fails(
        run,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
error: --profile classic: the CA has no profiles

"#]],
    );
    assert_eq!(setup.ca.count("newAccount"), 0);
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
}

#[test]
fn preferred_chain_that_is_not_offered_is_a_warning() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_ALTERNATE_ROOTS", "2")]);
    let run = setup
        .getcrt()
        .args(&["--preferred-chain", "Nobody Root X9"]);
    let outcome = run.outcome();
    outcome.exits(0).stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, www.a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/my-account/[ID]
This agrees to the CA's terms of service: data:text/plain,Do%20what%20thou%20wilt
Creating new order...
Order created!
Verifying a.test...
Verifying www.a.test...
a.test verified!
www.a.test verified!
Signing certificate...
warning: the CA offers no chain that leads to `Nobody Root X9`, but to `Pebble Root CA [ID]`, `Pebble Root CA [ID]`, `Pebble Root CA [ID]`
Valid until [TIME], issued by Pebble Intermediate CA [ID], 2 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    setup.verify_pem(&outcome.stdout, &NAMES);
}

/// A CA whose default chain comes with a Link header, `LINK` standing for the address of an alternate that leads to
/// `Another CA` but is of no use for the CSR.
fn with_alternate(header: impl Into<String>) -> Setup<FakeCa> {
    with_tampered_alternate(header, |_| ())
}

/// The same, but what comes from that address is changed.
fn with_tampered_alternate(
    header: impl Into<String>,
    tamper: impl Fn(&mut Reply) + Send + Sync + 'static,
) -> Setup<FakeCa> {
    let header = header.into();
    // The port is known only once the CA has started.
    let port = Arc::new(OnceLock::new());
    let shared = Arc::clone(&port);
    let other = Issuer::called("Another CA").certificate.to_pem().unwrap();
    let offer_another = move |reply: &mut Reply, count| match count {
        0 => {
            let url = format!("https://localhost:{}/certificate/2", shared.get().unwrap());
            reply.header("Link", &header.replace("LINK", &url));
        }
        _ => {
            reply.body.clone_from(&other);
            tamper(reply);
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("certificate", offer_another));
    port.set(setup.ca.port).unwrap();
    setup
}

#[test]
fn alternate_chains_are_found_by_the_grammar_of_links() {
    for (header, is_alternate) in [
        ("<LINK>;rel=\"index alternate\"", true),
        (
            "<https://x.test/>;title=\"a, <b>; rel=up\", <LINK> ; REL = alternate",
            true,
        ),
        ("<LINK>;title=\"\\\";\";rel=alternate", true),
        ("<LINK>;title=\"a;rel=alternate\"", false),
        ("<LINK>;rel=up;rel=alternate", false),
    ] {
        let setup = with_alternate(header);
        let run = setup.getcrt().args(&["--preferred-chain", "Another CA"]);
        run.outcome().exits(0);
        assert_eq!(setup.ca.count("certificate") == 2, is_alternate, "{header}");
    }
}

#[test]
fn at_most_ten_alternate_chains_are_fetched() {
    let list = |count: usize| {
        let links: Vec<String> = vec!["<LINK>;rel=alternate".to_owned(); count];
        with_alternate(links.join(", "))
    };
    let setup = list(10);
    let run = setup
        .getcrt()
        .args(&["--preferred-chain", "Nobody Root X9"]);
    run.outcome().exits(0).says_not("not looked at");
    assert_eq!(setup.ca.count("certificate"), 11);

    let setup = list(12);
    let run = setup
        .getcrt()
        .args(&["--preferred-chain", "Nobody Root X9"]);
    run.outcome().exits(0).says(
        "\nwarning: 2 of 12 alternate chains were not looked at (at most 10 are, within 15 s)\n",
    );
    assert_eq!(setup.ca.count("certificate"), 11);
}

/// The first one takes all of the time that there is for alternates.
#[test]
fn slow_alternate_chains_are_given_up_together() {
    let links = vec!["<LINK>;rel=alternate".to_owned(); 3].join(", ");
    let setup = with_tampered_alternate(links, |reply| reply.wire = Wire::Hang);
    let run = setup.getcrt().args(&["--preferred-chain", "Another CA"]);
    run.outcome()
        .exits(0)
        .says("\nwarning: an alternate chain cannot be used: ")
        .says(
            "\nwarning: 2 of 3 alternate chains were not looked at (at most 10 are, within 15 s)\n",
        );
    assert_eq!(setup.ca.count("certificate"), 2);
}

/// One of the links is an alternate, in an unusual form, and nobody listens there.
#[test]
fn alternate_chain_that_cannot_be_fetched_is_a_warning() {
    let link = |reply: &mut Reply, count| {
        if count == 0 {
            reply.header("Link", "<https://localhost:1/index>;rel=\"index\", </relative>; rel=alternate, <https://localhost:1/alternate>; title=\"x, y\" ; rel=Alternate");
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("certificate", link));
    let preferring = |chain| setup.getcrt().args(&["--preferred-chain", chain]);
    let outcome = preferring("Another CA").args(&["--timeout", "6"]).outcome();
    outcome
        .exits(0)
        .says_not("localhost:1/index")
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
...
warning: an alternate chain cannot be used: https://localhost:1/alternate: the connection failed: Connection refused (os error 111)
warning: the CA offers no chain that leads to `Another CA`, but to `Fake CA`
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    setup.nothing_is_left(&outcome);
    // The default chain needs no alternate.
    preferring("Fake CA").outcome().issued();
}

#[test]
fn binding_is_sent_where_the_ca_wants_it_even_to_look_up_the_account() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newAccount", |reply, count| {
            if count == 0 {
                reply.problem(400, "externalAccountRequired", "who asks?");
            }
        })
    });
    fs::write(setup.path("eab.key"), HMAC_KEY).unwrap();
    setup.getcrt().args(&BINDING).outcome().issued();
    assert!(setup.ca.payload("newAccount")["externalAccountBinding"].is_object());
}

#[test]
fn alternate_chain_for_another_key_is_a_warning() {
    let setup = with_alternate("<LINK>;rel=\"alternate\"");
    let run = setup.getcrt().args(&["--preferred-chain", "Another CA"]);
    run.outcome().exits(0).stderr_is(str![[r#"
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
warning: an alternate chain cannot be used: the certificate is for another key than the CSR's
warning: the CA offers no chain that leads to `Another CA`, but to `Fake CA`
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}
