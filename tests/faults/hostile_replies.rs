//! Replies that no honest CA sends.

use crate::support::prelude::*;

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
    let outcome = setup.fails_with("cannot create the order: https://localhost:");
    outcome.says("HTTP 403, no\\u{1b}[31m red\\r\\nerror: fake\\u{202e}txet\\0 (urn:ietf:params:acme:error:rejectedIdentifier)\n");
    outcome
        .says("\n  b.test: bad \\u{7}name (urn:x:malformed)\n  c\\n.test: worse\\u{2066} name (urn:x:caa)\n");
}

#[test]
fn errors_of_every_form_are_shown() {
    for (status, body, told) in [
        (
            400,
            r#"{"errors": ["x"]}"#,
            "HTTP 400, the CA gives no reason",
        ),
        (400, "{}", "HTTP 400, the CA gives no reason"),
        (403, r#"{"type": "nonsense"}"#, "HTTP 403, nonsense"),
        (403, r#"{"detail": "only words"}"#, "HTTP 403, only words"),
        (
            403,
            r#"{"type": 7, "detail": null, "subproblems": "x"}"#,
            "HTTP 403, the CA gives no reason",
        ),
        (
            404,
            "<html>lost</html>",
            "HTTP 404, a reply that begins `<html>lost</html>`",
        ),
        (418, "", "HTTP 418, an empty reply"),
        (
            400,
            "\u{0}\u{1}",
            "HTTP 400, a reply that begins `\\0\\u{1}`",
        ),
    ] {
        let tamper = move |reply: &mut Reply, _| {
            reply.replace(status, body);
            reply.drop_header("Replay-Nonce");
        };
        Setup::with_fake_ca(|ca| ca.tamper("newOrder", tamper))
            .fails_with(told)
            .says("cannot create the order: https://localhost:");
    }
}

#[test]
fn urls_must_be_https() {
    for url in [
        "http://localhost/x",
        "file:///etc/passwd",
        "/relative",
        "",
        "https://",
    ] {
        for (resource, member) in [
            ("directory", "newNonce"),
            ("directory", "newAccount"),
            ("directory", "newOrder"),
            ("newOrder", "finalize"),
            ("finalize", "certificate"),
        ] {
            let tamper = move |reply: &mut Reply, _| {
                reply.edit(|object| {
                    object[member] = json!(url);
                    if member == "certificate" {
                        object["status"] = json!("valid");
                    }
                });
            };
            let setup = Setup::with_fake_ca(|ca| ca.tamper(resource, tamper));
            setup.fails_with(&format!(
                "`{url}` is no https URL, and ACME is spoken over https only"
            ));
        }
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("newOrder", move |reply, _| reply.header("Location", url))
        });
        setup.fails_with("is no https URL");
    }
}

#[test]
fn authorization_and_challenge_urls_must_be_https() {
    for url in ["http://localhost/x", "file:///etc/passwd", "/relative"] {
        let tamper =
            move |reply: &mut Reply, _| reply.edit(|order| order["authorizations"][1] = json!(url));
        Setup::with_fake_ca(|ca| ca.tamper("newOrder", tamper))
            .fails_with(&format!("`{url}` is no https URL"));
        let tamper =
            move |reply: &mut Reply, _| reply.edit(|a| a["challenges"][1]["url"] = json!(url));
        Setup::with_fake_ca(|ca| ca.tamper("authorization", tamper))
            .fails_with(&format!("`{url}` is no https URL"))
            .says("challenge for ");
    }
}

#[test]
fn tokens_must_be_file_names() {
    let long = "x".repeat(10_000);
    for token in [
        "",
        "../../etc/passwd",
        "a/b",
        "..",
        "a\u{0}b",
        "tök",
        "a b",
        long.as_str(),
    ] {
        let token = token.to_owned();
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("authorization", move |reply, _| {
                reply.edit(|a| a["challenges"][1]["token"] = json!(token))
            })
        });
        setup
            .fails_with("is no token; no file is named after it")
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
    setup
        .fails_with("cannot create the order: https://localhost:")
        .says("HTTP 307, an empty reply");
}

#[test]
fn replies_must_be_resources() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, told) in [
        ("", "an empty reply"),
        (
            "<html>hello</html>",
            "the CA's reply is not JSON: a reply that begins `<html>hello</html>`",
        ),
        ("{\"status\": ", "the CA's reply is not JSON: damaged JSON"),
        ("null", "the CA's reply is not as RFC 8555 has it"),
        ("[]", "the CA's reply is not as RFC 8555 has it"),
        (
            "{\"status\": 7}",
            "the CA's reply is not as RFC 8555 has it",
        ),
        ("\u{fffd}", "the CA's reply is not JSON"),
        (deep.as_str(), "the CA's reply is not JSON"),
    ] {
        let body = body.to_owned();
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper("order", move |reply, _| {
                reply.body = body.clone().into_bytes()
            })
        });
        setup
            .fails_with(told)
            .says("error: order https://localhost:");
    }
}

#[test]
fn invalid_utf_8_is_an_error() {
    let tamper = |reply: &mut Reply, _| reply.body = b"{\"status\": \"\xff\xfe\"}".to_vec();
    Setup::with_fake_ca(|ca| ca.tamper("order", tamper))
        .fails_with("the CA's reply is not JSON: damaged JSON");
    let tamper = |reply: &mut Reply, _| {
        reply.status = 500;
        reply.body = b"\xff\xfe oops".to_vec();
    };
    Setup::with_fake_ca(|ca| ca.tamper("order", tamper))
        .fails_within("6", "HTTP 500, a reply that begins `\u{fffd}\u{fffd} oops`");
}

#[test]
fn unreadable_authorization_is_an_error() {
    let odd = |reply: &mut Reply, _| reply.edit(|a| a["identifier"] = json!("a.test"));
    Setup::with_fake_ca(|ca| ca.tamper("authorization", odd))
        .fails_with(": authorization https://localhost:")
        .says(": the CA's reply is not as RFC 8555 has it: ");
    // All is well at first, and they are read again when the order has failed.
    let later = move |reply: &mut Reply, count| {
        if count >= 3 {
            odd(reply, count);
        }
    };
    let over = |reply: &mut Reply, _| reply.edit(|o| o["status"] = json!("invalid"));
    Setup::with_fake_ca(|ca| ca.tamper("authorization", later).tamper("order", over))
        .fails_with(": authorization https://localhost:");
}

#[test]
fn missing_members_are_errors() {
    let bare = |reply: &mut Reply, _| {
        reply.edit(|a| drop(a["challenges"][1].as_object_mut().unwrap().remove("url")))
    };
    Setup::with_fake_ca(|ca| ca.tamper("authorization", bare)).fails_with(
        ": challenge for a.test: the CA's http-01 is not as RFC 8555 has it: missing field `url`",
    );
    let bare =
        |reply: &mut Reply, _| reply.edit(|o| drop(o.as_object_mut().unwrap().remove("finalize")));
    Setup::with_fake_ca(|ca| ca.tamper("newOrder", bare))
        .fails_with(": it has no usable finalize URL: ");
}
