//! The network: connections, trust, rate limits and pauses.

use openssl::asn1::Asn1Time;
use snapbox::data::Inline;

use crate::support::is_skipped_without_mounts;
use crate::support::prelude::*;

/// The resources that every successful run asks for.
const RESOURCES: [&str; 9] = [
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

/// A CA whose first reply about `resource` is lost or damaged, as `wire` says.
fn with_first_reply(resource: &'static str, wire: Wire) -> Setup<FakeCa> {
    // Three nonces are asked for ahead; only the fourth is asked for because it is needed.
    let lost = if resource == "newNonce" { 4 } else { 1 };
    Setup::with_fake_ca(|ca| {
        ca.tamper(resource, move |reply, count| {
            if count < lost {
                reply.wire = wire.clone();
            }
        })
    })
}

/// A CA that is too busy for the first two requests for `resource`. It answers one with a web page, and the other
/// with a problem document that does not call this a rate limit.
fn with_busy_ca(resource: &'static str) -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| {
        ca.tamper(resource, |reply, count| match count {
            0 => reply.replace(503, "<html>Service Unavailable</html>"),
            1 => reply.problem(429, "serverInternal", "slow down"),
            _ => {}
        })
    })
}

#[test]
fn lost_replies_are_survived() {
    // The CA would note a violation if what must happen once happened twice.
    for resource in RESOURCES {
        with_first_reply(resource, Wire::Close).issues().issued();
    }
}

#[test]
fn connections_that_are_lost_after_each_reply_cost_no_pause() {
    let last = |reply: &mut Reply, _| reply.wire = Wire::Last;
    // A pause would be announced by a warning.
    Setup::with_fake_ca(|ca| ca.tamper_all(&RESOURCES, last))
        .issues()
        .issued();
}

#[test]
fn second_loss_of_one_request_is_followed_by_a_pause() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("newOrder", |reply, count| {
            if count < 2 {
                reply.wire = Wire::Close;
            }
        })
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
warning: https://localhost:[PORT]/new-order: the connection failed: unexpected end of file; trying again in [SECONDS] s
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
    assert_eq!(setup.ca.count("newOrder"), 3);
}

#[test]
fn request_whose_reply_is_lost_is_sent_again() {
    let setup = with_first_reply("newOrder", Wire::Close);
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
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 2);
}

#[test]
fn finalize_whose_reply_is_lost_is_not_sent_again() {
    let setup = with_first_reply("finalize", Wire::Close);
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
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    // The CA has acted on it, and the order shows that.
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn broken_tls_connection_is_survived() {
    let setup = with_first_reply("authorization", Wire::Garbled);
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
warning: https://localhost:[PORT]/authorization/[..]: the connection failed: [..]; trying again in [SECONDS] s
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
    assert_eq!(setup.ca.count("finalize"), 1);

    let setup = with_first_reply("finalize", Wire::Garbled);
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
warning: https://localhost:[PORT]/finalize/1: the connection failed: [..]; checking what became of it in [SECONDS] s
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    // The CA has acted on it, and the order shows that.
    assert_eq!(setup.ca.count("finalize"), 1);
}

#[test]
fn busy_ca_is_asked_again() {
    with_busy_ca("newOrder").issues().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
warning: https://localhost:[PORT]/new-order: HTTP 503, a reply that begins `<html>Service Unavailable</html>`; trying again in [SECONDS] s
warning: https://localhost:[PORT]/new-order: HTTP 429, slow down (urn:ietf:params:acme:error:serverInternal); trying again in [SECONDS] s
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
    for resource in [
        "directory",
        "newAccount",
        "authorization",
        "order",
        "certificate",
    ] {
        with_busy_ca(resource)
            .issues()
            .says("HTTP 503, a reply that begins `<html>Service Unavailable</html>`; trying again in ")
            .says("HTTP 429, slow down (urn:ietf:params:acme:error:serverInternal); trying again in ");
    }
}

#[test]
fn rate_limit_beyond_the_deadline_is_an_error() {
    let limit = |reply: &mut Reply, _| {
        reply.problem(429, "rateLimited", "too many certificates");
        reply.header("Retry-After", "86400");
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", limit));
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
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 429, too many certificates (urn:ietf:params:acme:error:rateLimited)
hint: run getcrt again after [TIME], as the CA asks

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 1);
}

/// Only a person can lift such a limit, at the page that the CA links to.
#[test]
fn rate_limit_without_an_end_is_final() {
    let pause = |reply: &mut Reply, _| {
        reply.problem(429, "rateLimited", "this account is paused");
        let links =
            "<https://ca.test/directory>;rel=index, <https://ca.test/unpause?jwt=x>;rel=\"help\"";
        reply.header("Link", links);
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", pause));
    setup.run_fails(setup.getcrt().args(&["--timeout", "8"]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
error: cannot create the order: https://localhost:[PORT]/new-order: HTTP 429, this account is paused (urn:ietf:params:acme:error:rateLimited)
hint: see https://ca.test/unpause?jwt=x, where the CA explains this limit

"#]]);
    assert_eq!(setup.ca.count("newOrder"), 1);
}

#[test]
fn rate_limit_is_waited_for_as_long_as_the_ca_asks() {
    let limit = |reply: &mut Reply, count| {
        if count == 0 {
            reply.problem(403, "rateLimited", "slow down");
            reply.header("Retry-After", "1");
        }
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", limit));
    setup
        .issues()
        .says("slow down (urn:ietf:params:acme:error:rateLimited); trying again in ");
    assert_eq!(setup.ca.count("newOrder"), 2);
}

#[test]
fn date_to_come_back_is_that_of_the_ca() {
    let limit = |reply: &mut Reply, _| {
        reply.problem(429, "rateLimited", "too many certificates");
        reply.header("Retry-After", &(46 * 86_400).to_string());
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", limit));
    // The run may see the date change.
    let before = in_46_days();
    let outcome = setup.fails_with("too many certificates");
    let hint = outcome.stderr.lines().last().unwrap();
    let shown =
        |day: &[String; 2]| hint.contains(&day[0]) && hint.contains(&format!("{},", day[1]));
    outcome.check(
        "the date is another",
        shown(&before) || shown(&in_46_days()),
    );
}

/// The day as OpenSSL prints it: ` Jan  9 `, and ` 2027 GMT`.
fn in_46_days() -> [String; 2] {
    let moment = Asn1Time::days_from_now(46).unwrap().to_string();
    let (day, time_and_year) = moment.split_at("Jan  9".len());
    let (_, year) = time_and_year.split_at(" 08:49:37".len());
    [format!(" {day} "), year.to_owned()]
}

#[test]
fn retry_after_beyond_the_deadline_is_an_error() {
    let busy = |reply: &mut Reply, _| {
        reply.problem(503, "serverInternal", "come back later");
        reply.header("Retry-After", "3600");
    };
    // The challenges are posted side by side. The first refusal ends the run, so not all of them may be listed.
    Setup::with_fake_ca(|ca| ca.tamper("challenge", busy)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: Challenge did not pass for a.test[..]: HTTP 503, come back later (urn:ietf:params:acme:error:serverInternal)
hint: run getcrt again after [TIME], as the CA asks

"#]]);
    Setup::with_fake_ca(|ca| ca.tamper("finalize", busy)).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/finalize/1: HTTP 503, come back later (urn:ietf:params:acme:error:serverInternal)
hint: run getcrt again after [TIME], as the CA asks

"#]]);
}

#[test]
fn retry_after_is_obeyed_between_polls() {
    let asked = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("pending"));
            reply.header("Retry-After", "2");
        }
    };
    // The CA notes a violation if the order is polled sooner.
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("order", asked)
            .tamper("finalize", |reply, _| reply.header("Retry-After", "2"))
    });
    setup.issues().issued();
}

#[test]
fn nonsense_in_retry_after_is_ignored() {
    for value in [
        "-1",
        "soon",
        "",
        "1e3",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "0",
    ] {
        let answer_nonsense = move |reply: &mut Reply, count| {
            reply.header("Retry-After", value);
            if count < 2 {
                reply.edit(|order| order["status"] = json!("pending"));
            }
        };
        Setup::with_fake_ca(|ca| ca.tamper("order", answer_nonsense))
            .issues()
            .issued();
    }
}

#[test]
fn retry_after_between_polls_is_at_most_a_minute() {
    let ask_for_years = |reply: &mut Reply, _| {
        reply.header("Retry-After", "1000000000");
        reply.edit(|order| order["status"] = json!("pending"));
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", ask_for_years));
    setup
        .fails_within(
            "20",
            "gave up waiting for the CA to verify a.test, b.test, c.test: ",
        )
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
error: order https://localhost:[PORT]/order/1: gave up waiting for the CA to verify a.test, b.test, c.test: [SECONDS] s are left (--timeout), and the next look would be in [SECONDS] s

"#]]);
}

#[test]
fn flood_is_cut_off() {
    let flood = Wire::Endless(vec![b' '; 1 << 16], Duration::ZERO);
    with_first_reply("directory", flood).fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the response body is larger than request limit: 1048576

"#]]);
}

#[test]
fn flood_takes_no_memory() {
    let setup = with_first_reply(
        "certificate",
        Wire::Endless(vec![b'x'; 1 << 16], Duration::ZERO),
    );
    // Reads the kernel's record of the peak until the process has ended.
    let script = "\"$0\" \"$@\" & pid=$!; while m=$(grep VmHWM /proc/$pid/status 2>/dev/null); do [ -z \"$m\" ] || last=$m; done; wait $pid; status=$?; echo \"$last\" >peak; exit $status";
    let run = setup.getcrt_by("sh", &["-c", script]);
    setup.run_fails(run, str![[r#"
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
error: order https://localhost:[PORT]/order/1: https://localhost:[PORT]/certificate/1: the response body is larger than request limit: 1048576

"#]]);
    let peak = text(&setup.path("peak"));
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 32 << 10, "{peak}");
}

#[test]
fn reply_that_drips_without_end_is_given_up() {
    let drip = Wire::Endless(b" ".to_vec(), Duration::from_secs(1));
    let setup = with_first_reply("directory", drip);
    setup.run_fails(
        setup.getcrt().args(&["--timeout", "3"]),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: no answer in time
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]],
    );
}

#[test]
fn ca_that_hangs_is_given_up() {
    let setup = with_first_reply("directory", Wire::Hang);
    setup.run_fails(
        setup.getcrt().args(&["--timeout", "3"]),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: no answer in time
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]],
    );
}

#[test]
fn reply_that_is_cut_off_is_asked_for_again() {
    let survives = |reply: &[u8], stderr: Inline| {
        let setup = with_first_reply("order", Wire::Raw(reply.to_vec()));
        setup.issues().stderr_is(stderr);
    };
    survives(
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"status\": \"re",
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
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
    survives(
        b"HTTP/1.1 200 OK\r\nTransf",
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
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
    survives(
        b"gar\xffbage\r\n\r\n",
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
warning: https://localhost:[PORT]/order/1: protocol: http parse fail: invalid HTTP version; trying again in [SECONDS] s
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]],
    );
}

#[test]
fn untrusted_https_is_refused() {
    let refuses = |setup: Setup<FakeCa>, stderr: Inline| {
        setup.fails(stderr);
        assert_eq!(setup.ca.requests(), [""; 0]);
    };
    refuses(
        Setup::with_fake_ca(|ca| ca.tls(|leaf| leaf.hours = (-48, -24))),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: its TLS certificate is refused: certificate has expired
hint: check the clock of this machine

"#]],
    );
    refuses(
        Setup::with_fake_ca(|ca| ca.tls(|leaf| leaf.hours = (24, 48))),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: its TLS certificate is refused: certificate is not yet valid
hint: check the clock of this machine

"#]],
    );
    refuses(
        Setup::with_fake_ca(|ca| ca.tls(|leaf| leaf.names = vec!["other.test".to_owned()])),
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: its TLS certificate is refused: hostname mismatch

"#]],
    );
    let of_another_ca = Setup::with_fake_ca(|ca| ca);
    let other_root = Issuer::called("Another CA").certificate.to_pem().unwrap();
    fs::write(of_another_ca.path("ca.pem"), other_root).unwrap();
    refuses(
        of_another_ca,
        str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: its TLS certificate is refused: unable to get local issuer certificate
hint: for a private CA, name its root with --ca-bundle; else install ca-certificates

"#]],
    );
}

/// Name constraints may not apply to a common name, so it does not count.
#[test]
fn https_for_a_common_name_alone_is_refused() {
    let setup = Setup::with_fake_ca(|ca| {
        ca.tls(|leaf| {
            leaf.common_name = Some("localhost");
            leaf.names = Vec::new();
        })
    });
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: its TLS certificate is refused: hostname mismatch

"#]]);
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn https_at_an_address_is_for_that_address() {
    let with_address = |address: &'static str| {
        Setup::with_fake_ca(|ca| {
            ca.tls(move |leaf| leaf.names = vec![address.to_owned()])
                .tamper("directory", |reply, _| reply.replace(404, "no directory"))
        })
    };
    let run_at_address = |setup: &Setup<FakeCa>| {
        let url = setup.ca.directory_url().replace("localhost", "127.0.0.1");
        setup.getcrt().args(&["--directory-url", &url])
    };
    let right = with_address("127.0.0.1");
    right.run_fails(run_at_address(&right), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://127.0.0.1:[PORT]/directory: HTTP 404, a reply that begins `no directory`
hint: check --directory-url: there is nothing at this address

"#]]);
    assert_eq!(right.ca.requests(), ["directory"]);

    let wrong = with_address("127.0.0.2");
    wrong.run_fails(run_at_address(&wrong), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://127.0.0.1:[PORT]/directory: its TLS certificate is refused: IP address mismatch

"#]]);
    assert_eq!(wrong.ca.requests(), [""; 0]);
}

#[test]
fn self_signed_https_is_refused() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let certificate = self_signed(setup.directory(), "/CN=localhost", &["localhost"], "2");
    let port = free_port();
    let mut server = Command::new("openssl");
    server
        .args(["s_server", "-quiet", "-www"])
        .args(["-accept", &port.to_string()])
        .arg("-cert")
        .arg(certificate)
        .arg("-key")
        .arg(setup.path("self.key"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _server = Server(server.spawn().unwrap());
    await_port(port);
    let url = format!("https://localhost:{port}/");
    setup.run_fails(setup.getcrt().args(&["--directory-url", &url]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/: its TLS certificate is refused: self-signed certificate
hint: for a private CA, name its root with --ca-bundle; else install ca-certificates

"#]]);
}

#[test]
fn http_at_the_https_port_is_recognized() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let url = format!("https://localhost:{}/directory", setup.web.port);
    setup.run_fails(setup.getcrt().args(&["--directory-url", &url]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the TLS handshake fails: wrong version number
hint: check the port: the server does not speak https there

"#]]);
}

#[test]
fn connections_that_close_after_each_reply_are_fine() {
    let close = |reply: &mut Reply, _| reply.wire = Wire::Closing;
    Setup::with_fake_ca(|ca| ca.tamper_all(&RESOURCES, close))
        .issues()
        .issued();
}

#[test]
fn header_names_in_any_case_are_fine() {
    let change_case = |reply: &mut Reply, _| {
        for (name, _) in &mut reply.headers {
            *name = match *name {
                "Replay-Nonce" => "replay-nonce",
                "Location" => "location",
                "Content-Type" => "CONTENT-TYPE",
                other => other,
            };
        }
    };
    Setup::with_fake_ca(|ca| ca.tamper_all(&RESOURCES, change_case))
        .issues()
        .issued();
}

#[test]
fn ca_bundle_suffices_without_a_trust_store() {
    if is_skipped_without_mounts("a system without a trust store") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    let script =
        "mount -t tmpfs none /etc/ssl && mount -t tmpfs none /usr/lib/ssl && exec \"$0\" \"$@\"";
    setup.getcrt_with_mounts(script).outcome().issued();
}

#[test]
fn proxy_without_tunnels_is_an_error() {
    let setup = Setup::with_fake_ca(|ca| ca);
    // The web server knows no CONNECT.
    let proxy = format!("http://127.0.0.1:{}", setup.web.port);
    setup.run_fails(setup.getcrt().env("HTTPS_PROXY", proxy), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the proxy 127.0.0.1:[PORT] (HTTPS_PROXY): it refuses to connect to the CA (HTTP 404)

"#]]);
}

/// Somebody has added a root to the bundle by hand; OpenSSL's hashed directory lacks it.
#[test]
fn root_that_only_the_bundle_has_is_trusted() {
    if is_skipped_without_mounts("a root that only the system's bundle has") {
        return;
    }
    let setup = Setup::with_fake_ca(|ca| ca);
    let other = Issuer::new().certificate.to_pem().unwrap();
    fs::write(setup.path("other.pem"), other).unwrap();
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let script = format!(
        "cat {bundle} ca.pem >merged.pem && mount --bind merged.pem {bundle} && exec \"$0\" \"$@\""
    );
    let run = setup.getcrt_with_mounts(&script);
    run.args(&["--ca-bundle", "other.pem"]).outcome().issued();
}
