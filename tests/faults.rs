//! What a CA, a network, a disk or a neighbour can do wrong, one fault a test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use openssl::x509::X509;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::ca::{Ca, Issuer, Reply, Script, Wire, ec_key, honest, public, token};
use crate::support::files::{csr, directory, key, library, listing, openssl, set_mode};
use crate::support::pebble::text;
use crate::support::run::{GETCRT, Outcome, Run};
use crate::support::web::{Request, Web, response};

/// The names of the CSR.
const NAMES: [&str; 3] = ["a.test", "b.test", "c.test"];

/// A user, a web server, and a CA that lies about one thing.
pub struct Stage {
    pub directory: TempDir,
    pub web: Web,
    pub ca: Ca,
}

/// A stage with an honest CA but for what `lie` does to it.
pub fn stage(lie: impl FnOnce(Script) -> Script) -> Stage {
    stage_with(lie, |_, _| None)
}

/// A stage whose web server has answers of its own, told the request and how many came before.
pub fn stage_with(
    lie: impl FnOnce(Script) -> Script,
    answer: impl Fn(&Request, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Stage {
    let directory = directory();
    let acme = directory.path().join("acme");
    fs::create_dir(&acme).unwrap();
    let count = AtomicUsize::new(0);
    let web = Web::answering(
        &acme,
        Box::new(move |request| answer(request, count.fetch_add(1, Ordering::Relaxed))),
    );
    let ca = lie(honest(web.port)).open();
    let path = |name: &str| directory.path().join(name);
    key(&path("account.key"), "EC:P-256");
    key(&path("domain.key"), "EC:P-256");
    csr(&path("domain.csr"), &path("domain.key"), "/", &NAMES);
    let hosts: String = NAMES
        .iter()
        .map(|name| format!("127.0.0.1 {name}\n"))
        .collect();
    fs::write(path("hosts"), hosts).unwrap();
    fs::write(path("old.crt"), "the old certificate").unwrap();
    fs::write(path("bundle.pem"), &ca.root).unwrap();
    Stage { directory, web, ca }
}

impl Stage {
    pub fn getcrt(&self) -> Run {
        self.by(Run::new())
    }

    fn by(&self, run: Run) -> Run {
        let mut run = run
            .env("LD_PRELOAD", library("libnss_wrapper.so"))
            .env("NSS_WRAPPER_HOSTS", self.directory.path().join("hosts"))
            .args(&[
                "--account-key",
                "account.key",
                "--csr",
                "domain.csr",
                "--acme-dir",
                "acme",
            ])
            .args(&[
                "--directory-url",
                &self.ca.directory_url(),
                "--check-port",
                &self.web.port.to_string(),
            ])
            .args(&["--ca-bundle", "bundle.pem", "--timeout", "60"]);
        run.command.current_dir(self.directory.path());
        run
    }

    /// A run that must bring a certificate in spite of all, by the rules of the protocol.
    #[track_caller]
    pub fn issues(&self) -> Outcome {
        let outcome = self.getcrt().outcome();
        outcome.exits(0).check(
            "no PEM",
            outcome.stdout.starts_with("-----BEGIN CERTIFICATE-----\n"),
        );
        outcome.check(
            "the last line is another",
            outcome.stderr.ends_with("\nCertificate signed!\n"),
        );
        self.nothing_is_left(&outcome);
        outcome
    }

    /// A run that must fail with `told` in its error line, and lose nothing.
    #[track_caller]
    pub fn fails(&self, told: &str) -> Outcome {
        self.fails_within("60", told)
    }

    #[track_caller]
    pub fn fails_within(&self, seconds: &str, told: &str) -> Outcome {
        let outcome = self
            .getcrt()
            .args(&["-o", "old.crt", "--timeout", seconds])
            .outcome();
        outcome.failed(told);
        assert_eq!(
            text(&self.directory.path().join("old.crt")),
            "the old certificate",
            "{outcome}"
        );
        self.nothing_is_left(&outcome);
        outcome
    }

    #[track_caller]
    pub fn nothing_is_left(&self, outcome: &Outcome) {
        assert_eq!(
            listing(&self.directory.path().join("acme")),
            [""; 0],
            "{outcome}"
        );
        assert!(
            !listing(self.directory.path())
                .iter()
                .any(|name| name.starts_with(".getcrt")),
            "{outcome}"
        );
        assert_eq!(self.ca.violations(), [""; 0], "{outcome}");
    }
}

#[test]
fn an_honest_ca() {
    let stage = stage(|ca| ca);
    let outcome = stage.issues();
    outcome
        .issued()
        .says("\nThis agrees to the CA's terms of service: https://ca.test/terms\n");
    outcome
        .says("Found domains: a.test, b.test, c.test\n")
        .says("Verifying a.test...\nVerifying b.test...\nVerifying c.test...\n");
    for (resource, count) in [
        ("directory", 1),
        ("newAccount", 1),
        ("account", 0),
        ("newOrder", 1),
        ("authorization", 3),
        ("challenge", 3),
        ("order", 2),
        ("finalize", 1),
        ("certificate", 1),
    ] {
        assert_eq!(stage.ca.count(resource), count, "{resource}");
    }
    // One for the first request, and one more for each other name that is worked on at that time.
    assert!(stage.ca.count("newNonce") <= 3, "{:?}", stage.ca.requests());
    assert_eq!(
        stage.ca.payload("newAccount"),
        json!({"termsOfServiceAgreed": true})
    );
}

#[test]
fn contact_that_the_ca_does_not_confirm() {
    let forget = |reply: &mut Reply, _| {
        reply.edit(|account| drop(account.as_object_mut().unwrap().remove("contact")))
    };
    let stage = stage(|ca| ca.lie("newAccount", forget));
    let outcome = stage.getcrt().args(&["--contact", "me@a.test"]).outcome();
    outcome.issued().says(
        "\nUpdated contact details:\nmailto:me@a.test\n(the CA did not confirm it)\nCreating",
    );
    // A new account has it from the registration.
    assert_eq!(stage.ca.count("account"), 0);
    assert_eq!(
        stage.ca.payload("newAccount")["contact"],
        json!(["mailto:me@a.test"])
    );
}

#[test]
fn contact_of_an_old_account() {
    let stage = stage(|ca| ca.lie("newAccount", |reply, _| reply.status = 200));
    let outcome = stage.getcrt().args(&["--contact", "me@a.test"]).outcome();
    outcome
        .issued()
        .says("Already registered!")
        .says("\nUpdated contact details:\nmailto:me@a.test\nCreating");
    outcome.says_not("terms of service");
    assert_eq!(
        stage.ca.payload("account"),
        json!({"contact": ["mailto:me@a.test"]})
    );
}

#[test]
fn subproblems_and_hostile_words() {
    let stage = stage(|ca| {
        ca.lie("newOrder", |reply, _| {
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
    let outcome = stage.fails("cannot create the order: https://localhost:");
    outcome.says("HTTP 403, no\\u{1b}[31m red\\r\\nerror: fake\\u{202e}txet\\0 (urn:ietf:params:acme:error:rejectedIdentifier)\n");
    outcome
        .says("\n  b.test: bad \\u{7}name (urn:x:malformed)\n  c\\n.test: worse\\u{2066} name (urn:x:caa)\n");
}

#[test]
fn user_action_is_required() {
    let stage = stage(|ca| {
        ca.lie("newAccount", |reply, _| {
            reply.problem(403, "userActionRequired", "the terms have changed");
            reply.edit(|problem| problem["instance"] = json!("https://ca.test/agree"));
        })
    });
    stage
        .fails("the terms have changed")
        .says("\nhint: the CA wants you to visit https://ca.test/agree\n");
}

#[test]
fn a_bad_nonce_without_a_nonce() {
    let stage = stage(|ca| {
        ca.lie("newOrder", |reply, count| {
            if count < 7 {
                reply.problem(400, "badNonce", "stale");
                if count % 2 == 0 {
                    reply.drop_header("Replay-Nonce");
                }
            }
        })
    });
    stage.issues();
    assert_eq!(stage.ca.count("newOrder"), 8);
    // Four of the errors had none; two names more were worked on side by side.
    let fetched = stage.ca.count("newNonce");
    assert!((5..=7).contains(&fetched), "{fetched} nonces were fetched");
}

#[test]
fn nonces_that_are_always_bad() {
    let stage = stage(|ca| {
        ca.lie("newOrder", |reply, _| {
            reply.problem(400, "badNonce", "stale")
        })
    });
    stage.fails("HTTP 400, stale (urn:ietf:params:acme:error:badNonce)");
    assert_eq!(stage.ca.count("newOrder"), 201);
}

#[test]
fn an_acme_v1_directory() {
    let stage = stage(|ca| {
        ca.lie("directory", |reply, _| {
            reply.replace(200, r#"{"new-reg": "https://x.test/"}"#)
        })
    });
    stage.fails("speaks ACME v1, which is out of use");
}

#[test]
fn urls_that_are_not_https() {
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
            let lie = move |reply: &mut Reply, _| {
                reply.edit(|object| {
                    object[member] = json!(url);
                    if member == "certificate" {
                        object["status"] = json!("valid");
                    }
                });
            };
            let stage = stage(|ca| ca.lie(resource, lie));
            stage.fails(&format!(
                "`{url}` is no https URL, and ACME is spoken over https only"
            ));
        }
        let stage = stage(|ca| ca.lie("newOrder", move |reply, _| reply.header("Location", url)));
        stage.fails("is no https URL");
    }
}

#[test]
fn tokens_that_are_no_file_names() {
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
        let stage = stage(|ca| {
            ca.lie("authorization", move |reply, _| {
                reply.edit(|a| a["challenges"][1]["token"] = json!(token))
            })
        });
        stage
            .fails("is no token; no file is named after it")
            .says("challenge for ");
        assert_eq!(stage.ca.count("challenge"), 0);
    }
}

#[test]
fn a_foreign_file_has_the_tokens_name() {
    let stage = stage(|ca| ca);
    let foreign = stage.directory.path().join("acme").join(token(1));
    fs::write(&foreign, "something that is not ours").unwrap();
    let outcome = stage.getcrt().outcome();
    outcome
        .failed("cannot write the challenge file acme/")
        .says("a foreign file has that name");
    assert_eq!(text(&foreign), "something that is not ours");
    assert_eq!(listing(&stage.directory.path().join("acme")), [token(1)]);
    // A link is no file of ours either, wherever it leads.
    let target = stage.directory.path().join("target");
    fs::write(&target, "").unwrap();
    fs::remove_file(&foreign).unwrap();
    std::os::unix::fs::symlink(&target, &foreign).unwrap();
    stage
        .getcrt()
        .outcome()
        .failed("a foreign file has that name");
    assert_eq!(text(&target), "");
    assert_eq!(stage.ca.violations(), [""; 0]);
}

#[test]
fn a_killed_runs_leftovers_are_completed() {
    let stage = stage(|ca| ca);
    let acme = stage.directory.path().join("acme");
    fs::write(acme.join(token(0)), "").unwrap();
    fs::write(acme.join(token(1)), format!("{}.", token(1))).unwrap();
    set_mode(&acme.join(token(1)), 0o600);
    stage.issues().issued();
}

#[test]
fn identifiers_that_were_not_asked_for() {
    let stranger = json!({"type": "dns", "value": "stranger.test"});
    let (in_order, in_authorization) = (stranger.clone(), stranger);
    let stage_1 = stage(|ca| {
        ca.lie("newOrder", move |reply, _| {
            reply.edit(|o| o["identifiers"][1] = in_order.clone())
        })
    });
    stage_1.fails(
        "the CA has made it an order for a.test, stranger.test, c.test, not the CSR's names",
    );
    let stage_2 = stage(|ca| {
        ca.lie("authorization", move |reply, _| {
            reply.edit(|a| a["identifier"] = in_authorization.clone())
        })
    });
    stage_2.fails("the CA asks about stranger.test, not in the CSR");
    assert_eq!(stage_2.web.requests().len(), 0);
}

#[test]
fn a_challenge_that_fails() {
    let stage = stage(|ca| ca);
    // The files are where the web server does not look.
    let outcome = stage
        .getcrt()
        .args(&["--disable-check", "--acme-dir", "elsewhere"]);
    fs::create_dir(stage.directory.path().join("elsewhere")).unwrap();
    let outcome = outcome.outcome();
    outcome.failed("Challenge did not pass for a.test, b.test, c.test: the file is not there (urn:ietf:params:acme:error:unauthorized)");
    for name in NAMES {
        outcome.says(&format!(
            "\n  {name}: the file is not there (urn:ietf:params:acme:error:unauthorized)"
        ));
    }
    assert_eq!(listing(&stage.directory.path().join("elsewhere")), [""; 0]);
    assert_eq!(stage.ca.count("finalize"), 0);
}

#[test]
fn http_400_to_the_challenge() {
    let stage = stage(|ca| {
        ca.lie("challenge", |reply, _| {
            reply.problem(400, "unauthorized", "I looked and saw nothing")
        })
    });
    let outcome = stage.fails(": Challenge did not pass for a.test");
    outcome.says("\n  a.test: HTTP 400, I looked and saw nothing (urn:ietf:params:acme:error:unauthorized)\n");
}

/// Lies about every authorization once its challenge was posted: its challenge shows an error.
fn erring(ca: Script, status: &'static str) -> Script {
    let err = move |a: &mut Value| {
        a["status"] = json!("pending");
        a["challenges"][1]["status"] = json!(status);
        a["challenges"][1]["error"] =
            json!({"type": "urn:ietf:params:acme:error:dns", "detail": "no such host"});
    };
    let ca = ca.lie("authorization", move |reply, count| {
        if count >= 3 {
            reply.edit(err)
        }
    });
    ca.lie("order", |reply, _| {
        reply.edit(|order| order["status"] = json!("pending"))
    })
}

#[test]
fn a_challenge_invalid_in_a_pending_authorization() {
    let stage = stage(|ca| erring(ca, "invalid"));
    let outcome = stage.fails("Challenge did not pass for a.test, b.test, c.test: no such host (urn:ietf:params:acme:error:dns)");
    outcome.says("\n  a.test: no such host (urn:ietf:params:acme:error:dns)\n  b.test: ");
}

#[test]
fn a_challenge_that_errs_and_stays_pending() {
    let stage = stage(|ca| erring(ca, "processing"));
    stage.fails_within(
        "100",
        "Challenge did not pass for a.test, b.test, c.test: no such host",
    );
}

#[test]
fn challenges_that_the_ca_is_looking_at_already() {
    // Honest about a challenge that another run has posted: the CA decides on it by itself.
    let lie = |reply: &mut Reply, count| {
        if count < 3 {
            reply.edit(|a| a["challenges"][1]["status"] = json!("processing"));
        }
    };
    let ready = |reply: &mut Reply, count| {
        if count == 1 || count == 2 {
            reply.edit(|order| order["status"] = json!("ready"));
        }
    };
    let stage = stage(|ca| ca.lie("authorization", lie).lie("order", ready));
    // This CA has not looked, and notes that; here it is the client that is to be seen.
    stage
        .getcrt()
        .outcome()
        .issued()
        .says("\nVerifying c.test...\n");
    assert_eq!(stage.ca.count("challenge"), 0);
}

#[test]
fn an_order_that_lags_when_it_is_finalized() {
    let lie = |reply: &mut Reply, count| {
        if count == 1 || count == 2 {
            reply.edit(|order| order["status"] = json!("pending"));
        }
    };
    stage(|ca| ca.lie("order", lie)).issues().issued();
}

#[test]
fn a_ca_that_is_at_the_finalize_request_already() {
    let lie = |reply: &mut Reply, count| {
        if count == 0 {
            reply.replace(504, "gateway timeout");
        }
    };
    let stage_1 = stage(|ca| ca.lie("finalize", lie));
    stage_1
        .issues()
        .says("HTTP 504, a reply that begins `gateway timeout`; looking what became of it in ");
    for (status, kind) in [(403, "orderNotReady"), (409, "conflict")] {
        let lie = move |reply: &mut Reply, _| reply.problem(status, kind, "processing");
        stage(|ca| ca.lie("finalize", lie)).issues();
    }
}

#[test]
fn retry_after_of_a_fault_is_obeyed_for_what_is_done_once() {
    for resource in ["challenge", "finalize"] {
        let busy = |reply: &mut Reply, _| {
            reply.problem(503, "serverInternal", "come back later");
            reply.header("Retry-After", "3600");
        };
        let stage = stage(|ca| ca.lie(resource, busy));
        stage
            .fails("HTTP 503, come back later")
            .says("\nhint: the CA asks to come back after ");
    }
}

#[test]
fn an_order_that_lags_behind_its_authorizations() {
    let stage = stage(|ca| {
        ca.lie("order", |reply, count| {
            if count < 4 {
                reply.edit(|o| o["status"] = json!("pending"))
            }
        })
    });
    stage.issues().issued();
}

#[test]
fn an_order_that_lags_for_long() {
    let all_valid = OnceLock::new();
    let lag = move |reply: &mut Reply, _| {
        // Long enough for its authorizations to be read again, and for silence to be broken after that.
        let since = all_valid.get_or_init(Instant::now);
        if since.elapsed() < Duration::from_secs(12) {
            reply.edit(|order| order["status"] = json!("pending"));
        }
    };
    stage(|ca| ca.lie("order", lag))
        .issues()
        .says("\n3 of 3 names verified\nWaiting for the CA to verify the order, ");
}

#[test]
fn an_order_that_is_ready_again_after_finalize() {
    let stage = stage(|ca| {
        ca.lie("finalize", |reply, _| {
            reply.edit(|o| o["status"] = json!("ready"))
        })
    });
    stage.issues().issued();
    assert_eq!(stage.ca.count("finalize"), 1);
}

#[test]
fn a_certificate_in_the_finalize_reply() {
    let lie = |reply: &mut Reply, _| {
        reply.drop_header("Location");
        reply.edit(|order| {
            let url = order["finalize"]
                .as_str()
                .unwrap()
                .replace("finalize", "certificate");
            order["certificate"] = json!(url);
            order["status"] = json!("valid");
        });
    };
    let stage = stage(|ca| ca.lie("finalize", lie));
    stage.issues().issued();
    assert_eq!(
        stage
            .ca
            .requests()
            .into_iter()
            .rev()
            .take(2)
            .collect::<Vec<_>>(),
        ["certificate", "finalize"]
    );
}

#[test]
fn replies_that_lack_what_the_first_one_had() {
    let strip = |reply: &mut Reply, _| {
        reply.edit(|order| {
            let order = order.as_object_mut().unwrap();
            order.retain(|name, _| name == "status" || name == "certificate");
            order.insert("error".to_owned(), json!({}));
            order.insert("authorizations".to_owned(), Value::Null);
        });
    };
    let stage = stage(|ca| ca.lie("order", strip).lie("finalize", strip));
    stage.issues().issued();
}

#[test]
fn an_order_that_fails_at_the_end() {
    let lie = |reply: &mut Reply, _| {
        reply.edit(|order| {
            if order["status"] == "valid" {
                *order = json!({"status": "invalid", "error": {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"}});
            }
        });
    };
    let stage = stage(|ca| ca.lie("order", lie));
    stage
        .fails("Order failed, it is Invalid: CAA forbids it (urn:ietf:params:acme:error:caa)")
        .says("error: order https://localhost:");
}

#[test]
fn pre_authorized_names() {
    let lie = |reply: &mut Reply, _| {
        reply.edit(|a| {
            a["status"] = json!("valid");
            a["challenges"] = json!([]);
        });
    };
    let ready = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|o| o["status"] = json!("ready"))
        }
    };
    let stage = stage(|ca| ca.lie("authorization", lie).lie("order", ready));
    let outcome = stage.getcrt().outcome();
    outcome
        .issued()
        .says("Already verified: a.test, skipping...\nAlready verified: b.test, skipping...\n");
    assert_eq!(stage.web.requests().len(), 0);
}

#[test]
fn replies_lost_on_the_way() {
    for resource in [
        "directory",
        "newNonce",
        "newAccount",
        "newOrder",
        "authorization",
        "challenge",
        "order",
        "finalize",
        "certificate",
    ] {
        let stage = stage(|ca| {
            ca.lie(resource, move |reply, count| {
                // Three nonces are asked for ahead; only a fourth is asked for because it is needed.
                if count == 0 || (resource == "newNonce" && count < 4) {
                    reply.wire = Wire::Close
                }
            })
        });
        let outcome = stage.issues();
        outcome
            .says("warning: https://localhost:")
            .says("the connection failed");
        // What must not be done twice was not: the honest CA has noted no violation.
    }
}

#[test]
fn a_reply_that_breaks_the_tls_connection() {
    for resource in ["authorization", "finalize"] {
        let stage = stage(|ca| {
            ca.lie(resource, |reply, count| {
                if count == 0 {
                    reply.wire = Wire::Garbled;
                }
            })
        });
        stage.issues().says(": the connection failed: ");
        // The CA has acted on it, and it is not sent again.
        assert_eq!(stage.ca.count("finalize"), 1);
    }
}

#[test]
fn a_busy_ca() {
    for resource in [
        "directory",
        "newAccount",
        "newOrder",
        "authorization",
        "order",
        "certificate",
    ] {
        let stage = stage(|ca| {
            ca.lie(resource, |reply, count| match count {
                0 => reply.replace(503, "<html>Service Unavailable</html>"),
                1 => reply.problem(429, "rateLimited", "slow down"),
                _ => {}
            })
        });
        let outcome = stage.issues();
        outcome.says(
            "HTTP 503, a reply that begins `<html>Service Unavailable</html>`; trying again in ",
        );
        outcome
            .says("HTTP 429, slow down (urn:ietf:params:acme:error:rateLimited); trying again in ");
    }
}

#[test]
fn a_rate_limit_beyond_the_deadline() {
    let limit = |reply: &mut Reply, _| {
        reply.problem(429, "rateLimited", "too many certificates");
        reply.header("Retry-After", "86400");
    };
    let stage = stage(|ca| ca.lie("newOrder", limit));
    let outcome =
        stage.fails("HTTP 429, too many certificates (urn:ietf:params:acme:error:rateLimited)");
    outcome
        .says("\nhint: the CA asks to come back after ")
        .says(" GMT\n");
    assert_eq!(stage.ca.count("newOrder"), 1);
}

#[test]
fn retry_after_is_obeyed_between_polls() {
    let asked = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("pending"));
            reply.header("Retry-After", "2");
        }
    };
    let stage = stage(|ca| {
        ca.lie("order", asked)
            .lie("finalize", |reply, _| reply.header("Retry-After", "2"))
    });
    stage.issues().issued();
}

#[test]
fn redirects_of_signed_requests_are_not_followed() {
    let stage = stage(|ca| {
        ca.lie("newOrder", |reply, _| {
            reply.replace(307, "");
            reply.header("Location", "https://localhost:1/elsewhere");
        })
    });
    stage
        .fails("cannot create the order: https://localhost:")
        .says("HTTP 307, an empty reply");
}

#[test]
fn bodies_without_end() {
    let flood = Wire::Endless(vec![b' '; 1 << 16], Duration::ZERO);
    let stage_1 = stage(|ca| ca.lie("directory", move |reply, _| reply.wire = flood.clone()));
    stage_1.fails("the response body is larger than request limit: 1048576");
    let drip = Wire::Endless(b" ".to_vec(), Duration::from_secs(1));
    let stage_2 = stage(|ca| ca.lie("directory", move |reply, _| reply.wire = drip.clone()));
    stage_2
        .fails_within("3", "no answer in time")
        .says("hint: no time was left (--timeout) for another try");
    let stage_3 = stage(|ca| ca.lie("directory", |reply, _| reply.wire = Wire::Hang));
    stage_3.fails_within("3", "no answer in time");
}

#[test]
fn replies_that_are_no_resource() {
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
        let stage = stage(|ca| {
            ca.lie("order", move |reply, _| {
                reply.body = body.clone().into_bytes()
            })
        });
        stage.fails(told).says("error: order https://localhost:");
    }
}

#[test]
fn a_reply_that_is_cut_off_is_asked_for_again() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"status\": \"re".to_vec();
    for raw in [
        half,
        b"HTTP/1.1 200 OK\r\nTransf".to_vec(),
        b"gar\xffbage\r\n\r\n".to_vec(),
    ] {
        let lie = move |reply: &mut Reply, count| {
            if count == 0 {
                reply.wire = Wire::Raw(raw.clone());
            }
        };
        let stage = stage(|ca| ca.lie("order", lie));
        stage.issues().says("; trying again in ");
    }
}

#[test]
fn chains_that_are_none() {
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
        let stage = stage(|ca| ca.lie("certificate", move |reply, _| reply.body = body.clone()));
        stage.fails(told).says("error: order https://localhost:");
    }
    let cut = stage(|ca| {
        ca.lie("certificate", |reply, _| {
            reply.body.truncate(reply.body.len() - 40)
        })
    });
    cut.fails("a certificate of the chain is ");
    let torn = stage(|ca| {
        ca.lie("certificate", |reply, _| {
            reply.body.truncate(reply.body.len() / 2 + 60);
        })
    });
    torn.fails("a certificate of the chain is ");
}

#[test]
fn text_between_certificates_is_left_out() {
    let stage = stage(|ca| {
        ca.lie("certificate", |reply, _| {
            reply.body = [
                b"some \x1b[31m text\n",
                reply.body.as_slice(),
                b"more text\n",
            ]
            .concat();
        })
    });
    let outcome = stage.issues();
    outcome
        .issued()
        .check("text is in the output", !outcome.stdout.contains("text"));
}

#[test]
fn certificates_that_are_not_for_the_csr() {
    let other = stage(|ca| ca.leaf(|leaf| leaf.key = public(&ec_key())));
    other.fails("the certificate is for another key than the CSR's");
    let short = stage(|ca| ca.leaf(|leaf| drop(leaf.names.remove(1))));
    short.fails("the certificate is not for b.test, which the CSR asks for");
    let old = stage(|ca| ca.leaf(|leaf| leaf.hours = (-48, -24)));
    old.fails("the certificate ended at ")
        .says("by this machine's clock it is ");
    let forged = stage(|ca| ca.leaf(|leaf| leaf.signer = ec_key()));
    forged.fails("the certificate's signature is not its issuer's");
}

#[test]
fn harmless_oddities_are_warnings() {
    let more = stage(|ca| ca.leaf(|leaf| leaf.names.push("more.test".to_owned())));
    more.issues()
        .says("\nwarning: the certificate is for more.test too, which the CSR does not ask for\n")
        .says(", 4 names\n");
    let ahead = stage(|ca| ca.leaf(|leaf| leaf.hours = (3, 48)));
    ahead
        .issues()
        .says("warning: the certificate begins at ")
        .says(", is that right?\n");
    let disorder = stage(|ca| ca.leaf(|leaf| leaf.issuers.push(Issuer::new().certificate)));
    disorder.issues().exits(0);
    let strange = stage(|ca| {
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
    let unknown = stage(|ca| {
        ca.lie("certificate", |reply, _| {
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
    let alone = stage(|ca| ca.leaf(|leaf| leaf.issuers.clear()));
    alone.issues().issued();
}

/// What the web server answers to getcrt; the CA's validator gets the file.
pub fn to_getcrt(reply: Vec<u8>) -> impl Fn(&Request, usize) -> Option<Vec<u8>> + Send + Sync {
    move |request, _| {
        request
            .user_agent
            .starts_with("getcrt/")
            .then(|| reply.clone())
    }
}

#[test]
fn wrong_answers_to_the_self_check() {
    let wrong = |reply: Vec<u8>, told: &str, hint: &str| {
        let stage = stage_with(|ca| ca, to_getcrt(reply));
        let outcome = stage.fails("local check: a.test: Wrote file to acme/tOkEn-");
        outcome
            .says(", but couldn't download http://a.test:")
            .says(told)
            .says("(--disable-check leaves this to the CA)\n");
        outcome
            .says("\n  a.test: Wrote file to ")
            .says("\n  b.test: Wrote file to ")
            .says("\n  c.test: Wrote file to ");
        outcome
            .check(hint, outcome.stderr.contains("\nhint: ") != hint.is_empty())
            .says(hint);
        assert_eq!(stage.ca.count("challenge"), 0);
    };
    wrong(
        response("403 Forbidden", b"no"),
        "127.0.0.1 (private: the CA may reach another server): HTTP 403 with the body `no`",
        "hint: the web server may not read",
    );
    wrong(
        response("404 Not Found", b""),
        "HTTP 404 with the body ``",
        "hint: the web server serves another directory",
    );
    wrong(
        response("200 OK", b"<html>\x1b[31mwelcome"),
        "HTTP 200 with the body `<html>\\u{1b}[31mwelcome`",
        "hint: something else than the web server",
    );
    wrong(
        response("500 Oops", b"oops"),
        "HTTP 500 with the body `oops`",
        "",
    );
}

#[test]
fn a_web_server_that_adds_to_the_file() {
    let add = |request: &Request, _| {
        Some(response(
            "200 OK",
            &[&request.file.as_ref()?.0[..], b"!"].concat(),
        ))
    };
    let stage = stage_with(|ca| ca, add);
    stage
        .fails("HTTP 200 with the body `tOkEn-")
        .says("hint: the web server adds something to what is in the file");
}

#[test]
fn white_space_at_the_end_is_no_fault() {
    let add = |request: &Request, _| {
        let is_ours = request.user_agent.starts_with("getcrt/");
        is_ours.then(|| {
            response(
                "200 OK",
                &[&request.file.as_ref().unwrap().0[..], b" \r\n"].concat(),
            )
        })
    };
    stage_with(|ca| ca, add).issues().issued();
}

#[test]
fn a_web_server_that_is_just_starting() {
    for reply in [
        response("503 Not yet", b""),
        response("429 Slowly", b""),
        Vec::new(),
    ] {
        let answer = move |_: &Request, count| (count < 2).then(|| reply.clone());
        stage_with(|ca| ca, answer).issues().issued();
    }
}

/// The answer is what the user needs to hear, not that the time is over.
#[test]
fn a_deadline_does_not_hide_the_web_servers_answer() {
    let stage = stage_with(|ca| ca, to_getcrt(response("503 Not yet", b"soon")));
    stage
        .fails_within("4", "local check: a.test: Wrote file to acme/tOkEn-")
        .says("HTTP 503 with the body `soon`");
    assert_eq!(stage.ca.count("challenge"), 0);
}

#[test]
fn answers_that_leave_it_to_the_ca() {
    let leave = |reply: Vec<u8>, told: &str| {
        let stage = stage_with(|ca| ca, to_getcrt(reply));
        let outcome = stage.issues();
        outcome
            .says("warning: local check: Wrote file to acme/tOkEn-")
            .says(told)
            .says("the CA decides");
    };
    leave(
        response("303 See\r\nLocation: /x", b""),
        "HTTP 303 to /x: validators do not follow HTTP 303",
    );
    leave(
        response("301 Moved\r\nLocation: http://a.test:8080/x", b""),
        "validators go to the ports 80 and 443 only",
    );
    leave(
        response("302 Moved\r\nLocation: ftp://a.test/x", b""),
        "HTTP 302 to ftp://a.test/x: ",
    );
    leave(
        Vec::new(),
        "127.0.0.1 (private: the CA may reach another server): ",
    );
}

#[test]
fn a_redirect_to_a_port_that_speaks_http() {
    let to_https = |request: &Request, _| {
        let to = format!("302 Found\r\nLocation: https://{}/x", request.host);
        request
            .user_agent
            .starts_with("getcrt/")
            .then(|| response(&to, b""))
    };
    let stage = stage_with(|ca| ca, to_https);
    stage
        .issues()
        .says("/x: 127.0.0.1 (private: the CA may reach another server): no TLS with it: wrong version number; the CA decides");
}

#[test]
fn a_circle_of_redirects() {
    let circle = |request: &Request, _| {
        let token = request.path.strip_prefix("/.well-known/acme-challenge/")?;
        let to = format!("302 Found\r\nLocation: /.well-known/acme-challenge/{token}");
        request
            .user_agent
            .starts_with("getcrt/")
            .then(|| response(&to, b""))
    };
    let stage = stage_with(|ca| ca, circle);
    stage
        .issues()
        .says("validators follow 10 redirects and no more");
    assert_eq!(stage.web.requests().len(), 3 * 11 + 3);
}

/// Runs in a mount namespace where `folder` is a file system of `size`.
fn on_a_small_disk(stage: &Stage, folder: &str, size: &str) -> Run {
    let script = format!("mount -t tmpfs -o size={size} none {folder} && exec \"$0\" \"$@\"");
    let run = Run::of_script_with_mounts(&script).arg(GETCRT);
    stage.by(run)
}

#[test]
fn disks_that_are_full() {
    let stage = stage(|ca| ca);
    fs::create_dir(stage.directory.path().join("small")).unwrap();
    let outcome = on_a_small_disk(&stage, "small", "16k")
        .args(&["-o", "small/out.crt"])
        .outcome();
    outcome.failed("--output small/out.crt: no room for a certificate: No space left on device");
    assert_eq!(stage.ca.requests(), [""; 0]);
    let outcome = on_a_small_disk(&stage, "acme", "4k").outcome();
    outcome
        .failed("cannot write the challenge file acme/")
        .says("No space left on device");
    assert_eq!(stage.ca.count("challenge"), 0);
}

#[test]
fn a_read_only_disk() {
    let stage = stage(|ca| ca);
    let outcome = on_a_small_disk(&stage, "acme", "1m,ro").outcome();
    outcome.failed("--acme-dir acme: no file can be made in it: Read-only file system");
    assert_eq!(stage.ca.requests(), [""; 0]);
}

#[test]
fn a_poor_environment() {
    let stage = stage(|ca| ca);
    let script = "ulimit -n 24; exec \"$0\" \"$@\" <&-";
    let run = stage.by(Run::of("sh").args(&["-c", script, GETCRT]));
    let outcome = run
        .env("HOME", "")
        .env("LC_ALL", "xx_XX")
        .env("SSL_CERT_FILE", "/nowhere")
        .outcome();
    outcome.issued();
}

#[test]
fn https_that_is_not_to_be_trusted() {
    let refused = |stage: Stage, told: &str, hint: &str| {
        let outcome = stage.fails("cannot use the directory: https://localhost:");
        outcome
            .says(": its TLS certificate is refused: ")
            .says(told)
            .says(hint);
        assert_eq!(stage.ca.requests(), [""; 0]);
    };
    let clock = "hint: is the clock of this machine right?";
    refused(
        stage(|ca| ca.tls(|leaf| leaf.hours = (-48, -24))),
        "certificate has expired",
        clock,
    );
    refused(
        stage(|ca| ca.tls(|leaf| leaf.hours = (24, 48))),
        "certificate is not yet valid",
        clock,
    );
    refused(
        stage(|ca| ca.tls(|leaf| leaf.names = vec!["other.test".to_owned()])),
        "hostname mismatch",
        "",
    );
    let foreign = stage(|ca| ca);
    fs::write(
        foreign.directory.path().join("bundle.pem"),
        Issuer::called("Another CA").certificate.to_pem().unwrap(),
    )
    .unwrap();
    refused(
        foreign,
        "",
        "hint: for a private CA, name its root with --ca-bundle; else install ca-certificates",
    );
}

#[test]
fn a_port_that_speaks_http() {
    let stage = stage(|ca| ca);
    let url = format!("https://localhost:{}/directory", stage.web.port);
    let outcome = stage.getcrt().args(&["--directory-url", &url]).outcome();
    outcome
        .failed(": no TLS with it: wrong version number")
        .says("hint: is this the port where it speaks https?");
}

#[test]
fn urls_of_authorizations_and_challenges_that_are_not_https() {
    for url in ["http://localhost/x", "file:///etc/passwd", "/relative"] {
        let lie =
            move |reply: &mut Reply, _| reply.edit(|order| order["authorizations"][1] = json!(url));
        stage(|ca| ca.lie("newOrder", lie)).fails(&format!("`{url}` is no https URL"));
        let lie =
            move |reply: &mut Reply, _| reply.edit(|a| a["challenges"][1]["url"] = json!(url));
        stage(|ca| ca.lie("authorization", lie))
            .fails(&format!("`{url}` is no https URL"))
            .says("challenge for ");
    }
}

#[test]
fn errors_of_every_form() {
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
        let lie = move |reply: &mut Reply, _| {
            reply.replace(status, body);
            reply.drop_header("Replay-Nonce");
        };
        stage(|ca| ca.lie("newOrder", lie))
            .fails(told)
            .says("cannot create the order: https://localhost:");
    }
}

#[test]
fn algorithms_that_the_ca_would_take() {
    let lie = |reply: &mut Reply, _| {
        reply.problem(400, "badSignatureAlgorithm", "not that one");
        reply.edit(|problem| problem["algorithms"] = json!(["RS256", "ES384"]));
    };
    let outcome = stage(|ca| ca.lie("newAccount", lie)).fails("cannot register the account: ");
    outcome.says("not that one (urn:ietf:params:acme:error:badSignatureAlgorithm); it takes [\"RS256\",\"ES384\"]\n");
}

#[test]
fn replies_without_a_location() {
    for (resource, told) in [
        ("newAccount", "cannot register the account"),
        ("newOrder", "cannot create the order"),
    ] {
        let stage = stage(|ca| ca.lie(resource, |reply, _| reply.drop_header("Location")));
        stage.fails(&format!("{told}: the CA's reply has no Location header"));
    }
}

#[test]
fn no_http_01_is_offered() {
    let lie = |reply: &mut Reply, _| {
        reply.edit(|a| drop(a["challenges"].as_array_mut().unwrap().remove(1)))
    };
    stage(|ca| ca.lie("authorization", lie))
        .fails("challenge for a.test: the CA offers no http-01");
}

#[test]
fn old_fashioned_replies() {
    let every = [
        "directory",
        "newNonce",
        "newAccount",
        "newOrder",
        "authorization",
        "challenge",
        "order",
        "finalize",
        "certificate",
    ];
    let closing = every.iter().fold(honest(0), |ca, resource| {
        ca.lie(resource, |reply, _| reply.wire = Wire::Closing)
    });
    let lower = |reply: &mut Reply, _| {
        for (name, _) in &mut reply.headers {
            *name = match *name {
                "Replay-Nonce" => "replay-nonce",
                "Location" => "location",
                "Content-Type" => "CONTENT-TYPE",
                other => other,
            };
        }
    };
    let both = every
        .iter()
        .fold(closing, |ca, resource| ca.lie(resource, lower));
    stage(|ca| both.at(&ca)).issues().issued();
}

#[test]
fn retry_after_that_is_nonsense() {
    for value in [
        "-1",
        "soon",
        "",
        "1e3",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "0",
    ] {
        let lie = move |reply: &mut Reply, count| {
            reply.header("Retry-After", value);
            if count < 2 {
                reply.edit(|order| order["status"] = json!("pending"));
            }
        };
        stage(|ca| ca.lie("order", lie)).issues().issued();
    }
    let lie = |reply: &mut Reply, _| {
        reply.header("Retry-After", "1000000000");
        reply.edit(|order| order["status"] = json!("pending"));
    };
    let stage = stage(|ca| ca.lie("order", lie));
    stage.fails_within(
        "20",
        "waiting for the CA to verify a.test, b.test, c.test: to look again in 60 s is too late for --timeout, in ",
    );
}

#[test]
fn a_flood_takes_no_memory() {
    let flood = Wire::Endless(vec![b'x'; 1 << 16], Duration::ZERO);
    let stage = stage(|ca| ca.lie("certificate", move |reply, _| reply.wire = flood.clone()));
    // Its own report of its memory, as it is at the end.
    let script = "\"$0\" \"$@\" & pid=$!; while m=$(grep VmHWM /proc/$pid/status 2>/dev/null); do [ -z \"$m\" ] || last=$m; done; wait $pid; status=$?; echo \"$last\" >peak; exit $status";
    let outcome = stage
        .by(Run::of("sh").args(&["-c", script, GETCRT]))
        .outcome();
    outcome.failed("larger than request limit: 1048576");
    let peak = text(&stage.directory.path().join("peak"));
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 32 << 10, "{peak}");
}

#[test]
fn a_stale_aaaa_record() {
    // The web server is at IPv4 alone, then at IPv6 too, where it is another one.
    let stage = stage_with(|ca| ca, to_getcrt(response("404 Not Found", b"lost")));
    let hosts: String = NAMES
        .iter()
        .map(|name| format!("::1 {name}\n127.0.0.1 {name}\n"))
        .collect();
    fs::write(stage.directory.path().join("hosts"), hosts).unwrap();
    let outcome = stage.fails(
        "IPv6 comes before IPv4, so its AAAA record must be right: HTTP 404 with the body `lost`",
    );
    outcome.says("::1 (private: the CA may reach another server): IPv6 comes before IPv4");
}

#[test]
fn a_redirect_that_has_lost_its_slash() {
    let lost = |request: &Request, _| {
        let to = format!(
            "301 Moved\r\nLocation: http://a.test{}",
            request.path.strip_prefix('/')?
        );
        request
            .user_agent
            .starts_with("getcrt/")
            .then(|| response(&to, b""))
    };
    stage_with(|ca| ca, lost)
        .issues()
        .says("HTTP 301 to http://a.test.well-known/acme-challenge/")
        .says("the redirect has lost the `/` after the host's name");
}

#[test]
fn redirects_to_another_path() {
    for form in ["/else/", "//HOST/else/", "http://HOST/else/"] {
        let redirect = move |request: &Request, _| {
            let token = request.path.strip_prefix("/.well-known/acme-challenge/")?;
            let host = request.host.clone();
            let to = format!(
                "302 Found\r\nLocation: {}{token}",
                form.replace("HOST", &host)
            );
            request
                .user_agent
                .starts_with("getcrt/")
                .then(|| response(&to, b""))
        };
        let stage = stage_with(|ca| ca, redirect);
        // Followed to a path that this server does not know, which is a plain wrong answer.
        stage
            .fails(": HTTP 404 with the body `no such file`")
            .says("HTTP 302 to ");
    }
}

#[test]
fn no_trust_store_at_all() {
    let stage = stage(|ca| ca);
    let script =
        "mount -t tmpfs none /etc/ssl && mount -t tmpfs none /usr/lib/ssl && exec \"$0\" \"$@\"";
    let run = Run::of_script_with_mounts(script).arg(GETCRT);
    stage.by(run).outcome().issued();
}

#[test]
fn two_runs_at_once() {
    let world = crate::support::pebble::World::new();
    let runs: Vec<_> = (0..4).map(|_| world.getcrt().start()).collect();
    for run in runs {
        let outcome = run.outcome();
        outcome.issued();
        world.verify_pem(&outcome.stdout, &crate::support::pebble::NAMES);
    }
    assert_eq!(listing(&world.acme_dir()), [""; 0]);
}

#[test]
fn nonces_from_new_nonce_alone() {
    let every = [
        "newAccount",
        "newOrder",
        "authorization",
        "challenge",
        "order",
        "finalize",
        "certificate",
    ];
    for _ in 0..5 {
        let bare = every.iter().fold(honest(0), |ca, resource| {
            ca.lie(resource, |reply, _| reply.drop_header("Replay-Nonce"))
        });
        // Each of the names that are worked on side by side uses the nonce it has fetched.
        stage(|ca| bare.at(&ca)).issues().issued();
    }
}

#[test]
fn retry_after_of_authorizations_is_obeyed() {
    let lag = |reply: &mut Reply, _| {
        reply.header("Retry-After", "9");
        reply.edit(|a| a["status"] = json!("pending"));
    };
    let stage = stage(|ca| {
        ca.lie("authorization", lag).lie("order", |reply, _| {
            reply.edit(|o| o["status"] = json!("pending"))
        })
    });
    stage.fails_within(
        "16",
        "waiting for the CA to verify a.test, b.test, c.test: to look again in ",
    );
}

#[test]
fn a_deadline_does_not_hide_the_cas_reason() {
    let stage = stage(|ca| erring(ca, "processing"));
    let outcome = stage.fails_within(
        "10",
        "Challenge did not pass for a.test, b.test, c.test: no such host",
    );
    outcome.says("\n  c.test: no such host (urn:ietf:params:acme:error:dns)\n");
}

#[test]
fn a_pending_order_without_authorizations() {
    for none in [json!(null), json!([])] {
        let lie =
            move |reply: &mut Reply, _| reply.edit(|order| order["authorizations"] = none.clone());
        stage(|ca| ca.lie("newOrder", lie))
            .fails(": it is pending, and the CA names no authorizations");
    }
}

#[test]
fn authorizations_that_are_named_twice() {
    let lie = |reply: &mut Reply, _| {
        reply.edit(|order| {
            let first = order["authorizations"][0].clone();
            order["authorizations"].as_array_mut().unwrap().push(first);
        });
    };
    let stage = stage(|ca| ca.lie("newOrder", lie));
    stage.issues().issued();
    assert_eq!(stage.ca.count("challenge"), 3);
}

#[test]
fn invalid_utf_8_in_a_reply() {
    let lie = |reply: &mut Reply, _| reply.body = b"{\"status\": \"\xff\xfe\"}".to_vec();
    stage(|ca| ca.lie("order", lie)).fails("the CA's reply is not JSON: damaged JSON");
    let lie = |reply: &mut Reply, _| {
        reply.status = 500;
        reply.body = b"\xff\xfe oops".to_vec();
    };
    stage(|ca| ca.lie("order", lie))
        .fails_within("6", "HTTP 500, a reply that begins `\u{fffd}\u{fffd} oops`");
}

#[test]
fn https_with_a_self_signed_certificate() {
    let stage = stage(|ca| ca);
    let directory = stage.directory.path();
    let certificate =
        crate::support::files::self_signed(directory, "/CN=localhost", &["localhost"], "2");
    let (port, key) = (crate::support::free_port(), directory.join("self.key"));
    let mut server = std::process::Command::new("openssl");
    server
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &port.to_string(),
            "-cert",
        ])
        .arg(certificate)
        .arg("-key")
        .arg(key);
    server
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let _server = crate::support::Server(server.spawn().unwrap());
    crate::support::await_port(port);
    let outcome = stage
        .getcrt()
        .args(&["--directory-url", &format!("https://localhost:{port}/")])
        .outcome();
    outcome.failed("its TLS certificate is refused: self-signed certificate");
    outcome.says(
        "hint: for a private CA, name its root with --ca-bundle; else install ca-certificates",
    );
}

#[test]
fn a_new_nonce_without_a_nonce() {
    let stage = stage(|ca| ca.lie("newNonce", |reply, _| reply.drop_header("Replay-Nonce")));
    stage
        .fails("cannot register the account: https://localhost:")
        .says("/new-nonce gives no usable Replay-Nonce\n");
}

/// One of the nonces that are asked for ahead never comes, and the CA's replies bring none.
#[test]
fn a_nonce_that_never_comes() {
    let stage = stage(|ca| {
        let none = |reply: &mut Reply, _| reply.drop_header("Replay-Nonce");
        let hung = AtomicBool::new(false);
        // One of those that open a connection; what is asked for on an open one is needed at once.
        let ca = ca.lie("newNonce", move |reply, _| {
            if reply.is_first && !hung.swap(true, Ordering::Relaxed) {
                reply.wire = Wire::Hang;
            }
        });
        let resources = [
            "newAccount",
            "newOrder",
            "authorization",
            "challenge",
            "order",
        ];
        resources
            .iter()
            .fold(ca, |ca, resource| ca.lie(resource, none))
    });
    // A request may hang for a minute, and this one is not waited for.
    let outcome = stage.getcrt().args(&["--timeout", "45"]).outcome();
    outcome.issued();
}

#[test]
fn a_deadline_among_nonces() {
    let stale = |reply: &mut Reply, _| reply.problem(400, "badNonce", "stale");
    let stage = stage(|ca| ca.lie("newOrder", stale));
    let told = "cannot create the order: no time left (--timeout) for https://localhost:";
    stage.fails_within("2", told).says("/new-order\n");
}

#[test]
fn a_ca_that_is_never_told() {
    let stage = stage(|ca| {
        let ca = ca.lie("challenge", |reply, _| reply.wire = Wire::Close);
        // It is as if the CA had not heard of it.
        ca.lie("authorization", |reply, _| {
            reply.edit(|a| {
                a["status"] = json!("pending");
                a["challenges"][1]["status"] = json!("pending");
            })
        })
    });
    let outcome = stage.getcrt().args(&["--timeout", "12"]).outcome();
    // The first name whose time is over ends the run.
    outcome
        .failed(": Challenge did not pass for ")
        .says(".test: the connection failed: ")
        .says("\nWaiting for the CA to take the challenge for ")
        .says(" s so far...\n");
}

#[test]
fn a_ca_that_is_told_too_late() {
    let stage = stage(|ca| {
        let ca = ca.lie("challenge", |reply, _| reply.wire = Wire::Close);
        ca.lie("authorization", |reply, _| {
            reply.header("Retry-After", "60");
            reply.edit(|a| {
                a["status"] = json!("pending");
                a["challenges"][1]["status"] = json!("pending");
            })
        })
    });
    // What was wrong explains more than that there is no time to look again.
    let outcome = stage.getcrt().args(&["--timeout", "12"]).outcome();
    outcome
        .failed(": Challenge did not pass for ")
        .says(".test: the connection failed: ")
        .says("\nhint: no time was left (--timeout) for another try\n");
}

#[test]
fn a_finalize_request_that_always_fails() {
    let busy = |reply: &mut Reply, _| reply.problem(500, "serverInternal", "out of order");
    let ready = |reply: &mut Reply, count| {
        if count > 0 {
            reply.edit(|order| order["status"] = json!("ready"));
        }
    };
    let stage = stage(|ca| ca.lie("finalize", busy).lie("order", ready));
    // The first request has no other effect, as far as the client can see, so it is right to send it again.
    let outcome = stage.getcrt().args(&["--timeout", "8"]).outcome();
    outcome
        .failed(": HTTP 500, out of order (urn:ietf:params:acme:error:serverInternal)")
        .says("\nhint: no time was left (--timeout) for another try\n");
    assert!(stage.ca.count("finalize") > 1);
}

#[test]
fn an_authorization_that_is_gone_when_the_order_has_failed() {
    let gone = |reply: &mut Reply, count| {
        if count >= 3 {
            reply.problem(404, "malformed", "no such authorization");
        }
    };
    let over = |reply: &mut Reply, _| {
        reply.edit(|order| {
            order["status"] = json!("invalid");
            order["error"] =
                json!({"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"});
        });
    };
    stage(|ca| ca.lie("authorization", gone).lie("order", over))
        .fails("Order failed, it is Invalid: CAA forbids it (urn:ietf:params:acme:error:caa)");
}

#[test]
fn authorizations_that_are_none() {
    let odd = |reply: &mut Reply, _| reply.edit(|a| a["identifier"] = json!("a.test"));
    stage(|ca| ca.lie("authorization", odd))
        .fails(": authorization https://localhost:")
        .says(": the CA's reply is not as RFC 8555 has it: ");
    // All is well at first, and they are read again when the order has failed.
    let later = move |reply: &mut Reply, count| {
        if count >= 3 {
            odd(reply, count);
        }
    };
    let over = |reply: &mut Reply, _| reply.edit(|o| o["status"] = json!("invalid"));
    stage(|ca| ca.lie("authorization", later).lie("order", over))
        .fails(": authorization https://localhost:");
}

#[test]
fn replies_that_lack_what_is_needed() {
    let bare = |reply: &mut Reply, _| {
        reply.edit(|a| drop(a["challenges"][1].as_object_mut().unwrap().remove("url")))
    };
    stage(|ca| ca.lie("authorization", bare)).fails(
        ": challenge for a.test: the CA's http-01 is not as RFC 8555 has it: missing field `url`",
    );
    let bare =
        |reply: &mut Reply, _| reply.edit(|o| drop(o.as_object_mut().unwrap().remove("finalize")));
    stage(|ca| ca.lie("newOrder", bare)).fails(": it has no usable finalize URL: ");
}

#[test]
fn failures_without_a_reason() {
    let fail = |reply: &mut Reply, count| {
        if count >= 3 {
            reply.edit(|a| {
                a["status"] = json!("invalid");
                a["challenges"] = json!([]);
            });
        }
    };
    let over = |reply: &mut Reply, _| reply.edit(|o| o["status"] = json!("invalid"));
    stage(|ca| ca.lie("authorization", fail).lie("order", over))
        .fails("Challenge did not pass for a.test, b.test, c.test: the CA gives no reason")
        .says("\n  c.test: the CA gives no reason\n");
    stage(|ca| ca.lie("order", over)).fails("Order failed, it is Invalid: the CA gives no reason");
    let bare = |reply: &mut Reply, _| {
        let body = json!({"subproblems": [{"type": "urn:x:caa", "detail": "no"}]});
        reply.replace(403, &body.to_string());
    };
    stage(|ca| ca.lie("newOrder", bare))
        .fails("HTTP 403, the CA gives no reason")
        .says("\n  no (urn:x:caa)\n");
}

#[test]
fn an_issuance_that_takes_too_long() {
    let slow = |reply: &mut Reply, _| {
        reply.edit(|o| {
            if o["status"] == "valid" {
                o["status"] = json!("processing");
            }
        });
    };
    let stage = stage(|ca| ca.lie("order", slow));
    let told = ": waiting for the CA to issue the certificate: to look again in ";
    stage
        .fails_within("12", told)
        .says("\nWaiting for the CA to issue the certificate, ");
}

#[test]
fn contacts_that_are_refused() {
    let stage = stage(|ca| {
        let ca = ca.lie("newAccount", |reply, _| reply.status = 200);
        ca.lie("account", |reply, _| {
            reply.problem(400, "invalidContact", "no such domain")
        })
    });
    let outcome = stage.getcrt().args(&["--contact", "me@a.test"]).outcome();
    outcome
        .failed("cannot update the contact details: https://localhost:")
        .says("HTTP 400, no such domain (urn:ietf:params:acme:error:invalidContact)");
}

#[test]
fn a_web_server_that_is_not_running() {
    let stage = stage(|ca| ca);
    let port = crate::support::free_port().to_string();
    let outcome = stage.getcrt().args(&["--check-port", &port]).outcome();
    outcome.exits(0).says(
        ": 127.0.0.1 (private: the CA may reach another server): no connection: Connection refused",
    );
}

#[test]
fn a_wrong_answer_from_a_public_address() {
    let stage = stage_with(|ca| ca, to_getcrt(response("404 Not Found", b"lost")));
    // It is no private address, and leads to this machine.
    let hosts: String = NAMES
        .iter()
        .map(|name| format!("0.0.0.0 {name}\n"))
        .collect();
    fs::write(stage.directory.path().join("hosts"), hosts).unwrap();
    stage.fails(": 0.0.0.0: HTTP 404 with the body `lost`");
}

#[test]
fn a_leftover_that_somebody_has_locked_is_replaced() {
    let stage = stage(|ca| ca);
    let path = stage.directory.path().join("acme").join(token(0));
    let file = fs::File::create(&path).unwrap();
    file.lock().unwrap();
    stage.issues().issued();
}

impl Stage {
    /// A run by nobody, for whom the working directory has this `mode`.
    fn getcrt_as_nobody(&self, mode: u32) -> Run {
        let path = |name: &str| self.directory.path().join(name);
        set_mode(self.directory.path(), mode);
        set_mode(&path("acme"), 0o777);
        set_mode(&path("account.key"), 0o644);
        self.by(Run::as_nobody())
    }
}

#[test]
fn what_belongs_to_others_is_a_warning() {
    let stage = stage(|ca| ca);
    let leftover = stage.directory.path().join("acme").join(token(0));
    fs::write(&leftover, "").unwrap();
    set_mode(&leftover, 0o666);
    // A directory that cannot be opened cannot be synced.
    let outcome = stage
        .getcrt_as_nobody(0o733)
        .args(&["-o", "old.crt"])
        .outcome();
    outcome.exits(0).says("\nCertificate signed!\n");
    for told in [
        "--output old.crt: its owner, group or mode cannot be kept: Operation not permitted",
        "--output old.crt is written, but may not survive a power failure: Permission denied",
    ] {
        outcome.says(told);
    }
}

#[test]
fn challenge_files_that_cannot_be_removed() {
    let directory: Arc<OnceLock<PathBuf>> = Arc::default();
    let shared = Arc::clone(&directory);
    let close = move |request: &Request, _| {
        if !request.user_agent.starts_with("getcrt/") {
            set_mode(shared.get().unwrap(), 0o555);
        }
        None
    };
    let stage = stage_with(|ca| ca, close);
    directory.set(stage.directory.path().join("acme")).unwrap();
    let outcome = stage.getcrt_as_nobody(0o755).outcome();
    outcome
        .exits(0)
        .says("\nwarning: acme/tOkEn-")
        .says(" is left, for it cannot be removed: Permission denied");
}

#[test]
fn a_proxy_that_makes_no_tunnel() {
    let stage = stage(|ca| ca);
    // The web server knows no CONNECT.
    let proxy = format!("http://127.0.0.1:{}", stage.web.port);
    let outcome = stage.getcrt().env("HTTPS_PROXY", proxy).outcome();
    outcome
        .failed("cannot use the directory: https://localhost:")
        .says(": CONNECT proxy failed: ");
}

#[test]
fn many_names_are_waited_for() {
    let pending = |reply: &mut Reply, _| {
        reply.header("Retry-After", "6");
        reply.edit(|object| object["status"] = json!("pending"));
    };
    let stage = stage(|ca| ca.lie("authorization", pending).lie("order", pending));
    let path = |name: &str| stage.directory.path().join(name);
    let names = ["a.test", "b.test", "c.test", "d.test"];
    csr(&path("domain.csr"), &path("domain.key"), "/", &names);
    let hosts = names.map(|name| format!("127.0.0.1 {name}\n")).concat();
    fs::write(path("hosts"), hosts).unwrap();
    let told = "waiting for the CA to verify a.test, 2 more and d.test: to look again in ";
    stage
        .fails_within("16", told)
        .says("\nWaiting for the CA to verify a.test, 2 more and d.test, ");
}

/// Somebody has added a root to the bundle by hand; OpenSSL's hashed directory lacks it.
#[test]
fn a_root_that_only_the_bundle_has() {
    let stage = stage(|ca| ca);
    let other = Issuer::new().certificate.to_pem().unwrap();
    fs::write(stage.directory.path().join("other.pem"), other).unwrap();
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let script = format!(
        "cat {bundle} bundle.pem >merged.pem && mount --bind merged.pem {bundle} && exec \"$0\" \"$@\""
    );
    let run = stage.by(Run::of_script_with_mounts(&script).arg(GETCRT));
    run.args(&["--ca-bundle", "other.pem"]).outcome().issued();
}

#[test]
fn a_lost_challenge_is_told_again_at_once() {
    let is_heard = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&is_heard);
    let stage = stage(|ca| {
        let ca = ca.lie("challenge", move |reply, count| {
            if count < 3 {
                reply.wire = Wire::Close;
            } else {
                heard.store(true, Ordering::Relaxed);
            }
        });
        ca.lie("authorization", move |reply, _| {
            if !is_heard.load(Ordering::Relaxed) {
                reply.header("Retry-After", "60");
                reply.edit(|a| {
                    a["status"] = json!("pending");
                    a["challenges"][1]["status"] = json!("pending");
                });
            }
        })
    });
    // It would be too late for the time that the CA asks to wait.
    let outcome = stage.getcrt().args(&["--timeout", "50"]).outcome();
    outcome.exits(0).says("\nCertificate signed!\n");
    let told = stage.ca.count("challenge");
    assert!((4..=6).contains(&told), "{told}");
}

#[test]
fn an_order_that_is_processing_before_it_is_ready() {
    let lie = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("processing"));
        }
    };
    let stage = stage(|ca| ca.lie("order", lie));
    stage.issues().issued();
    assert_eq!(stage.ca.count("finalize"), 1);
}

#[test]
fn a_damaged_reply_does_not_hide_the_cas_reason() {
    let started = OnceLock::new();
    let damaged_order = stage(|ca| {
        erring(ca, "processing").lie("order", move |reply, _| {
            let since = started.get_or_init(Instant::now);
            if since.elapsed() > Duration::from_secs(7) {
                reply.replace(200, "<html>");
            }
        })
    });
    damaged_order.fails("Challenge did not pass for a.test, b.test, c.test: no such host");
    // Three replies before the challenges, three at the first survey, and then garbage.
    let damaged_authorization = stage(|ca| {
        erring(ca, "processing").lie("authorization", |reply, count| {
            if count >= 6 {
                reply.replace(200, "<html>");
            }
        })
    });
    damaged_authorization.fails("Challenge did not pass for a.test, b.test, c.test: no such host");
}

#[test]
fn an_authorization_that_is_gone_after_a_lost_challenge() {
    let stage = stage(|ca| {
        let ca = ca.lie("challenge", |reply, _| reply.wire = Wire::Close);
        ca.lie("authorization", |reply, count| {
            if count >= 3 {
                reply.problem(404, "malformed", "no such authorization");
            }
        })
    });
    let outcome = stage.fails("/authorization/");
    outcome
        .says(": HTTP 404, no such authorization (urn:ietf:params:acme:error:malformed)\n")
        .says_not("did not pass");
}

#[test]
fn a_challenge_file_that_getcrt_may_not_read_is_removed() {
    let directory: Arc<OnceLock<PathBuf>> = Arc::default();
    let shared = Arc::clone(&directory);
    let hide = move |request: &Request, _| {
        if !request.user_agent.starts_with("getcrt/") {
            for name in listing(shared.get().unwrap()) {
                set_mode(&shared.get().unwrap().join(name), 0o200);
            }
        }
        None
    };
    let stage = stage_with(|ca| ca, hide);
    directory.set(stage.directory.path().join("acme")).unwrap();
    let outcome = stage.getcrt_as_nobody(0o755).outcome();
    outcome.exits(0).says_not(" is left");
    stage.nothing_is_left(&outcome);
}
