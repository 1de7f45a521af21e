//! Replies that no honest CA sends.

use snapbox::data::Inline;

use crate::support::prelude::*;

/// A CA that gives `url` as the `member` of its replies about `resource`.
fn with_url(resource: &'static str, member: &'static str, url: &'static str) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| {
        ca.tamper(resource, move |reply, _| {
            reply.edit(|object| {
                object[member] = json!(url);
                if member == "certificate" {
                    object["status"] = json!("valid");
                }
            })
        })
    })
}

/// A CA that says that the order is at `url`.
fn with_order_at(url: &'static str) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| ca.tamper("newOrder", move |reply, _| reply.header("Location", url)))
}

/// A CA that says that one of the authorizations is at `url`.
fn with_authorization_at(url: &'static str) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", move |reply, _| {
            reply.edit(|order| order["authorizations"][1] = json!(url))
        })
    })
}

/// A CA that gives `value` as the `member` of each http-01 challenge.
fn with_challenge(member: &'static str, value: &str) -> Setup<FakeCa> {
    let value = value.to_owned();
    Setup::with_fake_ca(|ca| {
        ca.tamper("authorization", move |reply, _| {
            reply.edit(|authorization| authorization["challenges"][1][member] = json!(value))
        })
    })
}

#[test]
fn hostile_words_are_made_printable() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, _| {
            let body = json!({
                "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                "detail": "no\u{1b}[31m red\r\nerror: fake\u{202e}txet\u{0}",
                "subproblems": [
                    {"type": "urn:x:malformed", "detail": "bad \u{7}name", "identifier": {"type": "dns", "value": "b.test"}},
                    {"type": "urn:x:caa", "detail": "worse\u{2066} name", "identifier": {"type": "dns", "value": "c\n.test"}},
                ],
            });
            reply.replace(403, &body.to_string());
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, no\u{1b}[31m red\r\nerror: fake\u{202e}txet\0 (urn:ietf:params:acme:error:rejectedIdentifier)
  b.test: bad \u{7}name (urn:x:malformed)
  c\n.test: worse\u{2066} name (urn:x:caa)
hint: leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)

"#]]);
}

/// Whatever member of a reply is a book, the user is not made to read it; and no word of the CA's stands alone on a line,
/// where it could be taken for one of getcrt's.
#[test]
fn endless_words_are_cut() {
    let book = || json!("word ".repeat(180_000));
    let line = || json!("Certificate signed!");
    let problem = |kind: &str, member: &str, words: Value| {
        let mut problem = json!({"type": format!("urn:ietf:params:acme:error:{kind}")});
        problem[member] = words;
        problem
    };
    for words in [book(), line()] {
        // Resource, the member's place in its reply, and what is put there.
        let many = Value::Array(vec![
            words.clone();
            if words == line() { 10_000 } else { 1 }
        ]);
        let subproblem =
            json!({"detail": words, "type": words, "identifier": {"type": "dns", "value": words}});
        let contact = ["--contact", "me@a.test"];
        let profile = ["--profile", "x"];
        let binding = ["--eab-kid", "x", "--eab-hmac-key", "domain.key"];
        let table: [(&str, &str, Value, &[&str]); 18] = [
            ("directory", "/meta/termsOfService", words.clone(), &[]),
            ("directory", "/meta/website", words.clone(), &binding),
            ("directory", "/meta/profiles", json!({"y": words}), &profile),
            ("directory", "/newOrder", words.clone(), &[]),
            ("newAccount", "/status", words.clone(), &[]),
            ("newAccount", "/contact", many.clone(), &contact),
            (
                "newAccount",
                "",
                problem("userActionRequired", "instance", words.clone()),
                &[],
            ),
            (
                "newAccount",
                "",
                problem("badSignatureAlgorithm", "algorithms", words.clone()),
                &[],
            ),
            (
                "newOrder",
                "",
                problem("malformed", "detail", words.clone()),
                &[],
            ),
            (
                "newOrder",
                "",
                problem(
                    "malformed",
                    "subproblems",
                    json!(vec![subproblem; if words == line() { 1000 } else { 1 }]),
                ),
                &[],
            ),
            ("newOrder", "/status", words.clone(), &[]),
            ("newOrder", "/finalize", words.clone(), &[]),
            (
                "newOrder",
                "/identifiers",
                json!([{"type": "dns", "value": words}]),
                &[],
            ),
            ("newOrder", "/authorizations", many, &[]),
            ("order", "/status", words.clone(), &[]),
            ("authorization", "/identifier/value", words.clone(), &[]),
            ("authorization", "/status", words.clone(), &[]),
            ("authorization", "/challenges/1/token", words.clone(), &[]),
        ];
        for (resource, place, value, options) in table {
            let setup = Setup::with_fake_ca(|ca| {
                let ca = ca.tamper("newAccount", move |reply, _| {
                    // So that the website is told.
                    if place == "/meta/website" {
                        reply.problem(403, "externalAccountRequired", "no");
                    }
                });
                let value = value.clone();
                ca.tamper(resource, move |reply, _| {
                    if place.is_empty() {
                        reply.replace(403, &value.to_string());
                    } else {
                        reply.edit(|object| put(object, place, value.clone()));
                    }
                })
            });
            let outcome = setup.getcrt().args(options).outcome();
            let is_wide = |line: &str| line.len() > 5000;
            outcome
                .check(
                    &format!("{resource}{place}: a line is too wide"),
                    !outcome.stderr.lines().any(is_wide),
                )
                .check(
                    &format!("{resource}{place}: too many words"),
                    outcome.stderr.len() < 50_000,
                );
            let is_signed = outcome
                .stderr
                .lines()
                .any(|line| line.trim() == "Certificate signed!");
            assert_eq!(
                is_signed,
                outcome.status.success(),
                "{resource}{place}\n{outcome}"
            );
        }
    }
}

/// Puts `value` at a place in `object`, where something may be already.
fn put(object: &mut Value, place: &str, value: Value) {
    let (parent, member) = place.rsplit_once('/').unwrap();
    if let Some(parent) = object.pointer_mut(parent)
        && let Ok(index) = member.parse::<usize>()
    {
        parent[index] = value;
    } else {
        object.pointer_mut(parent).unwrap()[member] = value;
    }
}

#[test]
fn errors_of_every_form_are_shown() {
    let fails = |status, body: &'static str, stderr: Inline| {
        let refuse = move |reply: &mut Reply, _| {
            reply.replace(status, body);
            reply.drop_header("Replay-Nonce");
        };
        Setup::with_fake_ca(|ca| ca.tamper("newOrder", refuse)).fails(stderr);
    };
    fails(
        400,
        r#"{"errors": ["x"]}"#,
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 400, the CA gives no reason

"#]],
    );
    fails(
        400,
        "{}",
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 400, the CA gives no reason

"#]],
    );
    fails(
        403,
        r#"{"type": "nonsense"}"#,
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, nonsense

"#]],
    );
    fails(
        403,
        r#"{"detail": "only words"}"#,
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, only words

"#]],
    );
    fails(
        403,
        r#"{"type": 7, "detail": null, "subproblems": "x"}"#,
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 403, subproblems: x

"#]],
    );
    fails(
        404,
        "<html>lost</html>",
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 404, a reply that begins `<html>lost</html>`

"#]],
    );
    fails(
        418,
        "",
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 418, an empty reply

"#]],
    );
}

#[test]
fn unprintable_error_is_made_printable() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, _| reply.replace(400, "\u{0}\u{1}"))
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 400, a reply that begins `\0\u{1}`

"#]]);
}

#[test]
fn urls_must_be_https() {
    with_url("directory", "newNonce", "http://localhost/x").fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory is not an ACME directory: the CA's reply does not match RFC 8555: `http://localhost/x` is not an https URL, and ACME uses no others at line 1 column [..]

"#]]);
    with_url("newOrder", "finalize", "file:///etc/passwd").fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
error: order https://localhost:[PORT]/order/1: it has no usable finalize URL: `file:///etc/passwd` is not an https URL, and ACME uses no others

"#]]);
    with_url("finalize", "certificate", "/relative").fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: it has no usable certificate URL: `/relative` is not an https URL, and ACME uses no others

"#]]);
    with_order_at("").fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
error: cannot create the order: `` is not an https URL, and ACME uses no others

"#]]);
    for url in [
        "http://localhost/x",
        "file:///etc/passwd",
        "/relative",
        "",
        "https://",
    ] {
        let told = format!("`{url}` is not an https URL, and ACME uses no others");
        for (resource, member) in [
            ("directory", "newNonce"),
            ("directory", "newAccount"),
            ("directory", "newOrder"),
            ("newOrder", "finalize"),
            ("finalize", "certificate"),
        ] {
            with_url(resource, member, url).fails_with(&told);
        }
        with_order_at(url).fails_with(&told);
    }
}

#[test]
fn authorization_and_challenge_urls_must_be_https() {
    with_authorization_at("http://localhost/x").fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
error: order https://localhost:[PORT]/order/1: the CA's reply does not match RFC 8555: `http://localhost/x` is not an https URL, and ACME uses no others at line 1 column [..]

"#]]);
    with_challenge("url", "http://localhost/x").fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: challenge for a.test: the CA's http-01 does not match RFC 8555: `http://localhost/x` is not an https URL, and ACME uses no others

"#]]);
    for url in ["file:///etc/passwd", "/relative"] {
        let told = format!("`{url}` is not an https URL");
        with_authorization_at(url).fails_with(&told);
        with_challenge("url", url)
            .fails_with(&told)
            .says("challenge for ");
    }
}

#[test]
fn tokens_must_be_file_names() {
    let setup = with_challenge("token", "../../etc/passwd");
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
error: order https://localhost:[PORT]/order/1: challenge for a.test: the CA's http-01 does not match RFC 8555: `../../etc/passwd` is no token, so no file is named after it

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);

    let long = "x".repeat(10_000);
    for token in ["", "a/b", "..", "a\u{0}b", "tök", "a b", long.as_str()] {
        let setup = with_challenge("token", token);
        setup
            .fails_with("is no token, so no file is named after it")
            .says("challenge for ");
        assert_eq!(setup.ca.count("challenge"), 0);
    }
}

#[test]
fn redirects_of_signed_requests_are_not_followed() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, _| {
            reply.replace(307, "");
            reply.header("Location", "https://localhost:1/elsewhere");
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 307, an empty reply

"#]]);
}

#[test]
fn replies_must_be_resources() {
    let fails = |body: &[u8], stderr: Inline| {
        let body = body.to_vec();
        let setup =
            Setup::with_fake_ca(|ca| ca.tamper("order", move |reply, _| reply.body = body.clone()));
        setup.fails(stderr);
    };
    fails(
        b"",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply is not JSON: an empty reply

"#]],
    );
    fails(
        b"<html>hello</html>",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply is not JSON: a reply that begins `<html>hello</html>`

"#]],
    );
    fails(
        b"{\"status\": ",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply is not JSON: damaged JSON

"#]],
    );
    fails(
        b"null",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply does not match RFC 8555: invalid type: null, expected struct Order at line 1 column 4

"#]],
    );
    fails(
        b"[]",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply does not match RFC 8555: invalid length 0, expected struct Order with 6 elements at line 1 column 2

"#]],
    );
    fails(
        b"{\"status\": 7}",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply does not match RFC 8555: data did not match any variant of untagged enum Status at line 1 column 13

"#]],
    );
    fails(
        "\u{fffd}".as_bytes(),
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply is not JSON: a reply that begins `�`

"#]],
    );
    // Not UTF-8.
    fails(
        b"{\"status\": \"\xff\xfe\"}",
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply is not JSON: damaged JSON

"#]],
    );
    // Deep enough to overflow the stack of a recursive parser.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    fails(
        deep.as_bytes(),
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: the CA's reply is not JSON: damaged JSON

"#]],
    );
}

#[test]
fn error_that_is_not_utf_8_is_shown() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("order", |reply, _| {
            reply.status = 500;
            reply.body = b"\xff\xfe oops".to_vec();
        })
    });
    setup.run_fails(setup.getcrt().args(&["--timeout", "6"]), str![[r#"
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
warning: https://localhost:[PORT]/order/1: HTTP 500, a reply that begins `�� oops`; trying again in [SECONDS] s
...
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/order/1: HTTP 500, a reply that begins `�� oops`
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
}

/// Makes the identifier of an authorization a string, where RFC 8555 has an object.
fn damage_identifier(reply: &mut Reply) {
    reply.edit(|authorization| authorization["identifier"] = json!("a.test"));
}

#[test]
fn unreadable_authorization_is_an_error() {
    let setup =
        Setup::with_fake_ca(|ca| ca.tamper("authorization", |reply, _| damage_identifier(reply)));
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
error: order https://localhost:[PORT]/order/1: authorization https://localhost:[PORT]/authorization/2: the CA's reply does not match RFC 8555: invalid type: string "a.test", expected adjacently tagged enum Identifier at line 1 column 284

"#]]);
}

#[test]
fn order_that_fails_with_unreadable_authorizations_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        // The three are readable at first, and read again when the order has failed.
        let ca = ca.tamper("authorization", |reply, count| {
            if count >= 3 {
                damage_identifier(reply);
            }
        });
        ca.tamper("order", |reply, _| {
            reply.edit(|order| order["status"] = json!("invalid"))
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
error: order https://localhost:[PORT]/order/1: Order failed, it is invalid: the CA gives no reason: authorization https://localhost:[PORT]/authorization/0: the CA's reply does not match RFC 8555: invalid type: string "a.test", expected adjacently tagged enum Identifier at line 1 column 282

"#]]);
}

#[test]
fn challenge_without_a_url_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("authorization", |reply, _| {
            reply.edit(|authorization| {
                let challenge = authorization["challenges"][1].as_object_mut().unwrap();
                challenge.remove("url");
            })
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
Order created!
error: order https://localhost:[PORT]/order/1: challenge for a.test: the CA's http-01 does not match RFC 8555: missing field `url`

"#]]);
}

#[test]
fn order_without_a_finalize_url_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, _| {
            reply.edit(|order| drop(order.as_object_mut().unwrap().remove("finalize")))
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
error: order https://localhost:[PORT]/order/1: it has no usable finalize URL: invalid type: null, expected a string

"#]]);
}
