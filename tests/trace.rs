//! What `-v` and `-vv` show of a run, and what they must never show.

use std::ffi::OsStr;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64URL, Engine};
use openssl::pkey::PKey;

use crate::support::prelude::*;

/// How much of a secret may be in the trace by accident, in characters.
const CHANCE: usize = 12;

/// No piece of `secret` is in what a run has said, folded lines or not.
#[track_caller]
fn keeps(outcome: &Outcome, secret: &str) {
    let said: String = outcome.stderr.split_whitespace().collect();
    let secret: Vec<char> = secret.chars().collect();
    assert!(secret.len() > CHANCE, "{secret:?} is no secret");
    for piece in secret.windows(CHANCE) {
        let piece: String = piece.iter().collect();
        outcome.check(&format!("shows `{piece}`"), !said.contains(&piece));
    }
}

/// The private numbers of a key, each in the forms in which it might be printed.
fn secrets(pem: &str) -> Vec<String> {
    let key = PKey::private_key_from_pem(pem.as_bytes()).unwrap();
    let mut numbers = Vec::new();
    if let Ok(rsa) = key.rsa() {
        numbers.push(rsa.d().to_vec());
        numbers.extend(rsa.p().map(|p| p.to_vec()));
        numbers.extend(rsa.q().map(|q| q.to_vec()));
    } else {
        numbers.push(key.ec_key().unwrap().private_key().to_vec());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let forms = |number: &Vec<u8>| {
        let (base64, base64url) = (BASE64_STANDARD.encode(number), BASE64URL.encode(number));
        let decimal = format!("{number:?}").split_whitespace().collect();
        [base64, base64url, hex(number), decimal]
    };
    numbers.iter().flat_map(forms).collect()
}

#[test]
fn fullest_trace_shows_no_secret() {
    let hmac_key = BASE64URL.encode([0x5b; 48].map(|byte| byte ^ 0x11));
    for kind in ["RSA:2048", "EC:P-256"] {
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("newAccount", |reply, count| {
                if count == 0 {
                    reply.problem(400, "accountDoesNotExist", "unknown");
                }
            })
        });
        let path = |name: &str| setup.path(name);
        key(&path("account.key"), kind);
        fs::write(path("eab.key"), &hmac_key).unwrap();
        let outcome = setup
            .getcrt()
            .args(&["-vv", "--eab-kid", "kid-1", "--eab-hmac-key", "eab.key"])
            .outcome();
        outcome.issued();
        let pem = fs::read_to_string(path("account.key")).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        // The public half of the key is no secret, and both begin with the kind of the key.
        let private = match kind {
            "RSA:2048" => &body[body.len() / 2..],
            _ => &body[40..80],
        };
        keeps(&outcome, private);
        for secret in secrets(&pem) {
            keeps(&outcome, &secret);
        }
        keeps(&outcome, &hmac_key);
        let binding = &setup.ca.payload("newAccount")["externalAccountBinding"]["signature"];
        let mut signatures = setup.ca.signatures();
        assert!(signatures.len() >= 10, "{signatures:?}");
        signatures.push(binding.as_str().unwrap().to_owned());
        for signature in signatures {
            // What is shown is enough to know it again.
            outcome.says(&format!("{}...", &signature[..8]));
            keeps(&outcome, &signature);
        }
        outcome.says_not("PRIVATE KEY");
    }
}

#[test]
fn verbose_shows_the_conversation() {
    let setup = Setup::with_pebble();
    let outcome = setup.getcrt().arg("-v").outcome();
    outcome.issued();
    for shown in [
        "Getting directory...\n  1 --> GET directory\n        https://localhost:",
        " --> HEAD newNonce\n",
        " --> POST newAccount\n",
        "        signed by jwk, the public half of the account key\n",
        "        {\n          \"termsOfServiceAgreed\": true\n        }\n",
        " --> POST newOrder\n",
        "        signed by kid https://localhost:",
        " <-- 201 Created for newOrder, ",
        " ms\n        location: https://localhost:",
        " --> POST-as-GET authorization\n",
        " --> GET challenge file (local check)\n        http://a.test:",
        " <-- 200 OK for challenge file (local check), ",
        " --> POST challenge of a.test\n",
        "        {}\n",
        " <-- 200 OK for challenge of a.test, ",
        " --> POST-as-GET order\n",
        "          \"status\": \"ready\"\n",
        " --> POST finalize\n",
        "          \"csr\": \"",
        " --> POST-as-GET certificate\n",
        "\n        -----BEGIN CERTIFICATE-----\n",
    ] {
        outcome.says(shown);
    }
    for more in ["protected: ", "nonce", "signature: ", "content-type: "] {
        outcome.says_not(&format!("        {more}"));
    }
    let wide = outcome.stderr.lines().find(|line| line.len() > 120);
    outcome.check("a line is too wide", wide.is_none());
}

#[test]
fn twice_verbose_shows_headers_too() {
    let setup = Setup::with_pebble();
    let outcome = setup.getcrt().arg("-vv").outcome();
    outcome.issued();
    for shown in [
        "        content-type: application/jose+json\n",
        "        protected: {\n          \"alg\": \"ES256\",\n",
        "          \"nonce\": \"",
        "          \"jwk\": {\n",
        "          \"kid\": \"https://localhost:",
        "        signature: ",
        "        replay-nonce: ",
        "        link: <https://localhost:",
        "        content-type: application/pem-certificate-chain; charset=utf-8\n",
    ] {
        outcome.says(shown);
    }
}

#[test]
fn verbose_shows_failed_requests() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("newOrder", |reply, count| {
            if count == 0 {
                reply.wire = Wire::Close;
            }
        });
        ca.tamper("authorization", |reply, _| {
            reply.problem(403, "unauthorized", "not \u{1b}[31mthis one\nerror: none");
        })
    });
    let outcome = setup.getcrt().arg("-v").outcome();
    outcome
        .exits(1)
        .says(" <-- no reply for newOrder, ")
        .says(" <-- 403 Forbidden for authorization, ")
        .says("\n          \"detail\": \"not \\u001b[31mthis one\\nerror: none\",\n");
}

#[test]
fn trace_cannot_be_forged_or_flooded() {
    let setup = Setup::with_fake_ca(|ca| {
        let ca = ca.tamper("directory", |reply, _| {
            reply.edit(|directory| {
                let url = directory["newOrder"].clone();
                directory["a\nCertificate signed!\nerror: all is well\nx"] = url;
            });
        });
        // White space that would be repeated before each piece of a folded line.
        ca.tamper("newOrder", |reply, _| {
            reply.replace(
                400,
                &format!("{}{}", " ".repeat(20_000), "x".repeat(900_000)),
            );
        })
    });
    let outcome = setup.getcrt().arg("-v").outcome();
    outcome
        .exits(1)
        .says_not("\nCertificate signed!\n")
        .says_not("\nerror: all is well");
    let size = outcome.stderr.len();
    outcome.check(&format!("{size} bytes"), size < 1 << 20);
}

/// The output of a run at a terminal, which `script` makes.
fn at_a_terminal(setup: &Setup<Pebble>, environment: &str) -> String {
    let getcrt = setup.getcrt().arg("-v").command;
    let words = std::iter::once(getcrt.get_program()).chain(getcrt.get_args());
    let quoted = |word: &OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<String> = words.map(quoted).collect();
    let line = format!("{environment} {} 2>&1 >/dev/null", words.join(" "));
    let run = Run::of("script").args(&["-qefc", &line, "/dev/null"]);
    let outcome = setup.here(run).outcome();
    outcome.exits(0).stdout.replace('\r', "")
}

#[test]
fn colour_is_for_terminals() {
    let setup = Setup::with_pebble();
    let coloured = at_a_terminal(&setup, "");
    assert!(coloured.contains("\n\u{1b}[36m  1 --> GET directory\u{1b}[0m\n        https://"));
    assert!(coloured.contains("\n\u{1b}[32m  1 <-- 200 OK for directory, "));
    let plain = at_a_terminal(&setup, "NO_COLOR=1");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let file = setup.getcrt().arg("-v").outcome();
    file.issued().says_not("\u{1b}");
    // The same is told, whoever reads it; numbers and order of what goes side by side aside.
    let colours = ["\u{1b}[36m", "\u{1b}[32m", "\u{1b}[31m", "\u{1b}[0m"];
    let colourless = colours
        .iter()
        .fold(coloured, |text, colour| text.replace(colour, ""));
    for text in [colourless, plain] {
        for part in [
            " --> GET directory\n        https://",
            " --> POST newOrder\n",
            " --> POST finalize\n",
            " for finalize, ",
            "-----BEGIN CERTIFICATE-----",
        ] {
            // Pebble refuses a nonce now and then, so how often differs.
            assert!(text.contains(part) && file.stderr.contains(part), "{part}");
        }
    }
}
