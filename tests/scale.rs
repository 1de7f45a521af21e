//! Many names in one run, and many runs at once: what they cost, and that one name among a hundred
//! fails as it would alone. Costs are counted, not timed, so that a busy machine changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;

use snapbox::data::Inline;

use crate::support::prelude::*;
use crate::support::run::Running;

/// How many requests are under way at a time.
const WIDTH: usize = 8;
/// The name that fails, and its place among a hundred.
const ODD: usize = 57;

/// The name at a place in the CSR.
fn name(place: usize) -> String {
    format!("n{place}.test")
}

/// Lets the CSR be for these names.
fn with_names(setup: Setup<FakeCa>, names: &[String]) -> Setup<FakeCa> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    setup
}

/// A setup with as many names.
fn crowd(count: usize, tamper: impl FnOnce(FakeCaBuilder) -> FakeCaBuilder) -> Setup<FakeCa> {
    let names: Vec<String> = (0..count).map(name).collect();
    with_names(Setup::with_fake_ca(tamper), &names)
}

/// Two setups with one fault: the odd name alone, and among a hundred. `tamper` is told its place.
fn alone_and_in_a_crowd(
    tamper: impl Fn(FakeCaBuilder, usize) -> FakeCaBuilder,
) -> [Setup<FakeCa>; 2] {
    [
        with_names(Setup::with_fake_ca(|ca| tamper(ca, 0)), &[name(ODD)]),
        crowd(100, |ca| tamper(ca, ODD)),
    ]
}

/// Whether a reply is about the challenge or the authorization of the name at a place.
fn is_about(reply: &Reply, place: usize) -> bool {
    String::from_utf8_lossy(&reply.body).contains(&format!("/challenge/{place}\""))
}

/// Both runs, at the same time, must fail with the same error but for numbers. What the run for one name says is
/// `alone`. Gives the outcome of the other.
#[track_caller]
fn fail_alike(setups: [Setup<FakeCa>; 2], seconds: &str, alone: Inline) -> Outcome {
    let runs = setups
        .each_ref()
        .map(|setup| setup.getcrt().args(&["--timeout", seconds]).start());
    let outcomes = runs.map(Running::outcome);
    for (setup, outcome) in setups.iter().zip(&outcomes) {
        outcome.failed("");
        setup.nothing_is_left(outcome);
        assert_eq!(setup.ca.count("finalize"), 0, "{outcome}");
    }
    let words = outcomes.each_ref().map(|outcome| {
        let words = &outcome.stderr[outcome.stderr.find("error: ").unwrap()..];
        let words = words.split(|c: char| c.is_ascii_digit());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        words.join("#")
    });
    assert_eq!(words[0], words[1]);
    let [one, crowd] = outcomes;
    one.stderr_is(alone);
    crowd
}

/// The lines of stderr that begin and end with these words, without them.
fn lines<'a>(outcome: &'a Outcome, begin: &str, end: &str) -> Vec<&'a str> {
    let lines = outcome.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix(begin)?.strip_suffix(end))
        .collect()
}

#[test]
fn requests_grow_by_two_a_name_and_connections_stop_at_the_width() {
    for count in [1, 10, 100] {
        let setup = crowd(count, |ca| ca);
        setup.issues().issued();
        // For each name its authorization and its challenge; for all of them the directory, account,
        // order, its state, finalize, its state again, and the chain; and a nonce to begin with for
        // each connection.
        let requests = 2 * count + 7 + WIDTH.min(count);
        assert_eq!(setup.ca.requests().len(), requests, "{count} names");
        assert_eq!(setup.ca.count("order"), 2);
        let connections = setup.ca.connections();
        assert!(
            connections <= WIDTH.min(count),
            "{connections} connections for {count} names"
        );
        assert!(setup.ca.most_at_once() <= WIDTH.min(count));
    }
}

#[test]
fn refused_nonces_cost_one_request_each() {
    let setup = crowd(100, |ca| ca.refusing_nonces(20));
    setup.issues().issued();
    // 215 without refusals; every twentieth of the signed ones is made twice.
    assert_eq!(setup.ca.requests().len(), 225);
}

#[test]
fn twenty_names_and_one_of_twenty_nonces_rejected() {
    let setup = Setup::with_pebble_and_variables(&[("PEBBLE_WFE_NONCEREJECT", "5")]);
    let names: Vec<String> = (0..20).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.csr("/", &names);
    for _ in 0..3 {
        setup.verify(&setup.getcrt().outcome(), &names);
    }
}

/// A tamper by which of each eight replies about the names the last goes first; without eight requests
/// at one time it would be waited for in vain.
fn reverse(reply: &mut Reply, count: usize) {
    let (pass, place) = (count / 100 * 100, count % 100);
    let group = place / WIDTH * WIDTH;
    let last = (group + WIDTH).min(100) - 1;
    reply.wire = Wire::Behind(pass + group + last - place);
}

#[test]
fn replies_may_come_out_of_order() {
    let names: Vec<String> = (0..100).map(name).collect();
    // An order that lags until all authorizations have been read again.
    let is_read = Arc::new(AtomicBool::new(false));
    let reading = Arc::clone(&is_read);
    let setup = crowd(100, |ca| {
        ca.tamper("challenge", reverse)
            .tamper("authorization", move |reply, count| {
                reverse(reply, count);
                reading.fetch_or(count == 199, Relaxed);
            })
            .tamper("order", move |reply, _| {
                if !is_read.load(Relaxed) {
                    reply.edit(|order| order["status"] = json!("pending"));
                }
            })
    });
    let outcome = setup.issues();
    outcome.issued().says("\n100 of 100 names verified\n");
    assert_eq!(lines(&outcome, "Verifying ", "..."), names);
    assert_eq!(lines(&outcome, "", " verified!"), names);
    for resource in ["authorization", "challenge"] {
        let (asked, mut answered) = (setup.ca.asked(resource), setup.ca.answered(resource));
        answered[..WIDTH].reverse();
        assert_eq!(asked[..WIDTH], answered[..WIDTH]);
    }
    assert_eq!(setup.ca.most_at_once(), WIDTH);
}

#[test]
fn one_name_stalls() {
    let setups = alone_and_in_a_crowd(|ca, place| {
        ca.tamper("authorization", move |reply, _| {
            if is_about(reply, place) {
                reply.edit(|authorization| {
                    authorization["status"] = json!("pending");
                    authorization["challenges"][1]["status"] = json!("processing");
                });
            }
        })
        .tamper("order", |reply, _| {
            reply.edit(|order| order["status"] = json!("pending"))
        })
    });
    let outcome = fail_alike(
        setups,
        "20",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: n57.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying n57.test...
...
error: order https://localhost:[PORT]/order/1: gave up waiting for the CA to verify n57.test: [SECONDS] s are left (--timeout), and the next look would be in [SECONDS] s

"#]],
    );
    outcome.says("gave up waiting for the CA to verify n57.test: ");
    outcome.says("\nn99.test verified!\n99 of 100 names verified\n");
    let verified: Vec<String> = (0..100).filter(|place| *place != ODD).map(name).collect();
    assert_eq!(lines(&outcome, "", " verified!"), verified);
}

#[test]
fn one_name_fails_validation() {
    // The files are there for getcrt, and one of them not for the CA.
    let hidden = |place| {
        let path = format!("/.well-known/acme-challenge/{}", token(place));
        move |request: &Request, _| {
            let is_hidden = request.path == path && request.user_agent == "validator";
            is_hidden.then(|| response("404 Not Found", b"lost"))
        }
    };
    let names: Vec<String> = (0..100).map(name).collect();
    let setups = [
        with_names(
            Setup::with_fake_ca_and_web(|ca| ca, hidden(0)),
            &[name(ODD)],
        ),
        with_names(Setup::with_fake_ca_and_web(|ca| ca, hidden(ODD)), &names),
    ];
    let outcome = fail_alike(
        setups,
        "60",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: n57.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying n57.test...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for n57.test: the file is not there (urn:ietf:params:acme:error:unauthorized)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir on every server to which the name's A and AAAA records point

"#]],
    );
    outcome.says("Challenge did not pass for n57.test: the file is not there (urn:ietf:params:acme:error:unauthorized)");
}

/// The CA fetches all files at once, and the web server does not accept that many connections.
#[test]
fn overloaded_web_server_is_recognized() {
    let hide_some = |request: &Request, _: usize| {
        let is_hidden = request.user_agent == "validator" && request.path.ends_with(['0', '5']);
        is_hidden.then(|| response("404 Not Found", b"lost"))
    };
    let refuse = |reply: &mut Reply, _: usize| {
        reply.edit(|authorization| {
            let error = &mut authorization["challenges"][1]["error"];
            if !error.is_null() {
                *error = json!({"type": "urn:ietf:params:acme:error:connection", "detail": "Connection refused"});
            }
        });
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca.tamper("authorization", refuse), hide_some);
    let names: Vec<String> = (0..100).map(name).collect();
    let setup = with_names(setup, &names);
    let outcome = setup.fails_with("Challenge did not pass for ");
    outcome.says("\nhint: let the web server accept more connections at once");
}

#[test]
fn one_challenge_is_refused() {
    let setups = alone_and_in_a_crowd(|ca, place| {
        ca.tamper("challenge", move |reply, _| {
            if is_about(reply, place) {
                reply.problem(400, "malformed", "not that one");
            }
        })
    });
    let outcome = fail_alike(
        setups,
        "60",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: n57.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying n57.test...
error: order https://localhost:[PORT]/order/1: Challenge did not pass for n57.test: HTTP 400, not that one (urn:ietf:params:acme:error:malformed)

"#]],
    );
    outcome.says("Challenge did not pass for n57.test: HTTP 400, not that one (urn:ietf:params:acme:error:malformed)");
}

/// Lies about one name's authorization, at the first reading of it or at all later ones.
fn without_authorization(status: u16, is_later: bool) -> [Setup<FakeCa>; 2] {
    alone_and_in_a_crowd(|ca, place| {
        let was_read = AtomicBool::new(false);
        let ca = ca.tamper("authorization", move |reply, _| {
            let is_it = is_about(reply, place);
            if is_it && (was_read.fetch_or(is_it, Relaxed) || !is_later) {
                reply.problem(status, "serverInternal", "it is gone");
            }
        });
        ca.tamper("order", |reply, _| {
            reply.edit(|order| order["status"] = json!("pending"))
        })
    })
}

#[test]
fn one_authorization_cannot_be_read() {
    let fail = |(status, is_later), seconds: &str, alone: Inline| {
        let outcome = fail_alike(without_authorization(status, is_later), seconds, alone);
        outcome.says(&format!(
            "/authorization/57: HTTP {status}, it is gone (urn:ietf:params:acme:error:serverInternal)"
        ));
    };
    fail(
        (404, false),
        "60",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: n57.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/authorization/0: HTTP 404, it is gone (urn:ietf:params:acme:error:serverInternal)

"#]],
    );
    fail(
        (404, true),
        "60",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: n57.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying n57.test...
...
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/authorization/0: HTTP 404, it is gone (urn:ietf:params:acme:error:serverInternal)

"#]],
    );
    // What may pass is tried again until the deadline.
    fail(
        (500, false),
        "10",
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: n57.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
...
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/authorization/0: HTTP 500, it is gone (urn:ietf:params:acme:error:serverInternal)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]],
    );
}

/// The CA refuses one name, and keeps another waiting for long.
#[test]
fn one_name_fails_while_another_waits() {
    let hang = |reply: &mut Reply| reply.wire = Wire::Hang;
    let busy = |reply: &mut Reply| {
        reply.problem(503, "serverInternal", "come back later");
        reply.header("Retry-After", "600");
    };
    // The CA names authorizations in reverse; the one that waits is asked for before the other.
    for (resource, waiting) in [("challenge", 50), ("authorization", 64)] {
        for wait in [hang as fn(&mut Reply), busy] {
            let setup = crowd(100, |ca| {
                ca.tamper(resource, move |reply, _| {
                    if is_about(reply, waiting) {
                        wait(reply);
                    } else if is_about(reply, ODD) {
                        reply.problem(403, "unauthorized", "never");
                    }
                })
            });
            let started = Instant::now();
            let outcome = setup.fails_within("900", ": HTTP 403, never (urn");
            // A request may hang for 60 s; this run is over before.
            let waited = started.elapsed();
            outcome.check("it was waited for", waited < Duration::from_secs(45));
            // What becomes of the other one is no news.
            outcome.says_not(&format!("\n  {}: ", name(waiting)));
            outcome.says_not("the connection failed");
        }
    }
}

/// Sends SIGTERM once all files are there and `is_under_way`.
fn terminate(setup: &Setup<FakeCa>, is_under_way: impl Fn() -> bool) {
    let acme = setup.path("acme");
    let run = setup.getcrt().start();
    await_that("the middle of a pass", || {
        listing(&acme).len() == 100 && is_under_way()
    });
    run.signal("TERM");
    let outcome = run.outcome();
    outcome.dies_of(15);
    setup.nothing_is_left(&outcome);
}

#[test]
fn signal_ends_a_run_with_a_hundred_names() {
    let setup = crowd(100, |ca| {
        ca.tamper("challenge", |reply, count| {
            if count > 40 {
                reply.wire = Wire::Hang;
            }
        })
    });
    terminate(&setup, || setup.ca.count("challenge") > 44);

    let slow = |_: &Request, count| {
        if count > 40 {
            sleep(PATIENCE);
        }
        None
    };
    let names: Vec<String> = (0..100).map(name).collect();
    let setup = with_names(Setup::with_fake_ca_and_web(|ca| ca, slow), &names);
    terminate(&setup, || setup.web.requests().len() > 44);
}

#[test]
fn fifty_runs_share_an_acme_dir() {
    let setup = Setup::with_fake_ca(|ca| ca);
    // Each run has a CA of its own, and all have the same account key, web server and acme-dir.
    let cas: Vec<FakeCa> = (0..50)
        .map(|run| {
            let ca = FakeCa::honest().tokens_from(10 * run);
            ca.start(setup.web.port)
        })
        .collect();
    let runs: Vec<Running> = cas
        .iter()
        .enumerate()
        .map(|(number, ca)| {
            let root = format!("ca-{number}.pem");
            fs::write(setup.path(&root), ca.root()).unwrap();
            let url = ca.directory_url();
            let options = ["--directory-url", &url, "--ca-bundle", &root];
            setup.getcrt().args(&options).start()
        })
        .collect();
    for (run, ca) in runs.into_iter().zip(&cas) {
        let outcome = run.outcome();
        outcome.issued();
        assert_eq!(ca.complaints(), [""; 0], "{outcome}");
    }
    assert_eq!(listing(&setup.acme_dir()), [""; 0]);
}
