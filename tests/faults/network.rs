//! The network: connections, trust, rate limits and pauses.

use crate::support::is_skipped_without_mounts;
use crate::support::prelude::*;

#[test]
fn lost_replies_are_survived() {
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
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper(resource, move |reply, count| {
                // Three nonces are asked for ahead; only a fourth is asked for because it is needed.
                if count == 0 || (resource == "newNonce" && count < 4) {
                    reply.wire = Wire::Close
                }
            })
        });
        let outcome = setup.issues();
        outcome
            .says("warning: https://localhost:")
            .says("the connection failed");
        // What must not be done twice was not: the honest CA has noted no violation.
    }
}

#[test]
fn broken_tls_connection_is_survived() {
    for resource in ["authorization", "finalize"] {
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper(resource, |reply, count| {
                if count == 0 {
                    reply.wire = Wire::Garbled;
                }
            })
        });
        setup.issues().says(": the connection failed: ");
        // The CA has acted on it, and it is not sent again.
        assert_eq!(setup.ca.count("finalize"), 1);
    }
}

#[test]
fn busy_ca_is_asked_again() {
    for resource in [
        "directory",
        "newAccount",
        "newOrder",
        "authorization",
        "order",
        "certificate",
    ] {
        let setup = Setup::with_fake_ca(|ca| {
            ca.tamper(resource, |reply, count| match count {
                0 => reply.replace(503, "<html>Service Unavailable</html>"),
                1 => reply.problem(429, "rateLimited", "slow down"),
                _ => {}
            })
        });
        let outcome = setup.issues();
        outcome.says(
            "HTTP 503, a reply that begins `<html>Service Unavailable</html>`; trying again in ",
        );
        outcome
            .says("HTTP 429, slow down (urn:ietf:params:acme:error:rateLimited); trying again in ");
    }
}

#[test]
fn rate_limit_beyond_the_deadline_is_an_error() {
    let limit = |reply: &mut Reply, _| {
        reply.problem(429, "rateLimited", "too many certificates");
        reply.header("Retry-After", "86400");
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("newOrder", limit));
    let outcome = setup
        .fails_with("HTTP 429, too many certificates (urn:ietf:params:acme:error:rateLimited)");
    outcome
        .says("\nhint: the CA asks to come back after ")
        .says(" GMT\n");
    assert_eq!(setup.ca.count("newOrder"), 1);
}

#[test]
fn retry_after_beyond_the_deadline_is_an_error() {
    for resource in ["challenge", "finalize"] {
        let busy = |reply: &mut Reply, _| {
            reply.problem(503, "serverInternal", "come back later");
            reply.header("Retry-After", "3600");
        };
        let setup = Setup::with_fake_ca(|ca| ca.tamper(resource, busy));
        setup
            .fails_with("HTTP 503, come back later")
            .says("\nhint: the CA asks to come back after ");
    }
}

#[test]
fn retry_after_is_obeyed_between_polls() {
    let asked = |reply: &mut Reply, count| {
        if count < 2 {
            reply.edit(|order| order["status"] = json!("pending"));
            reply.header("Retry-After", "2");
        }
    };
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("order", asked)
            .tamper("finalize", |reply, _| reply.header("Retry-After", "2"))
    });
    setup.issues().issued();
}

#[test]
fn endless_replies_are_cut_off() {
    let flood = Wire::Endless(vec![b' '; 1 << 16], Duration::ZERO);
    let setup_1 = Setup::with_fake_ca(|ca| {
        ca.tamper("directory", move |reply, _| reply.wire = flood.clone())
    });
    setup_1.fails_with("the response body is larger than request limit: 1048576");
    let drip = Wire::Endless(b" ".to_vec(), Duration::from_secs(1));
    let setup_2 =
        Setup::with_fake_ca(|ca| ca.tamper("directory", move |reply, _| reply.wire = drip.clone()));
    setup_2
        .fails_within("3", "no answer in time")
        .says("hint: no time was left (--timeout) for another try");
    let setup_3 =
        Setup::with_fake_ca(|ca| ca.tamper("directory", |reply, _| reply.wire = Wire::Hang));
    setup_3.fails_within("3", "no answer in time");
}

#[test]
fn reply_that_is_cut_off_is_asked_for_again() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"status\": \"re".to_vec();
    for raw in [
        half,
        b"HTTP/1.1 200 OK\r\nTransf".to_vec(),
        b"gar\xffbage\r\n\r\n".to_vec(),
    ] {
        let tamper = move |reply: &mut Reply, count| {
            if count == 0 {
                reply.wire = Wire::Raw(raw.clone());
            }
        };
        let setup = Setup::with_fake_ca(|ca| ca.tamper("order", tamper));
        setup.issues().says("; trying again in ");
    }
}

#[test]
fn untrusted_https_is_refused() {
    let refused = |setup: Setup<FakeCa>, told: &str, hint: &str| {
        let outcome = setup.fails_with("cannot use the directory: https://localhost:");
        outcome
            .says(": its TLS certificate is refused: ")
            .says(told)
            .says(hint);
        assert_eq!(setup.ca.requests(), [""; 0]);
    };
    let clock = "hint: is the clock of this machine right?";
    refused(
        Setup::with_fake_ca(|ca| ca.tls(|leaf| leaf.hours = (-48, -24))),
        "certificate has expired",
        clock,
    );
    refused(
        Setup::with_fake_ca(|ca| ca.tls(|leaf| leaf.hours = (24, 48))),
        "certificate is not yet valid",
        clock,
    );
    refused(
        Setup::with_fake_ca(|ca| ca.tls(|leaf| leaf.names = vec!["other.test".to_owned()])),
        "hostname mismatch",
        "",
    );
    let foreign = Setup::with_fake_ca(|ca| ca);
    fs::write(
        foreign.path("ca.pem"),
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
fn self_signed_https_is_refused() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let directory = setup.directory();
    let certificate = self_signed(directory, "/CN=localhost", &["localhost"], "2");
    let (port, key) = (free_port(), directory.join("self.key"));
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
    let _server = Server(server.spawn().unwrap());
    await_port(port);
    let outcome = setup
        .getcrt()
        .args(&["--directory-url", &format!("https://localhost:{port}/")])
        .outcome();
    outcome.failed("its TLS certificate is refused: self-signed certificate");
    outcome.says(
        "hint: for a private CA, name its root with --ca-bundle; else install ca-certificates",
    );
}

#[test]
fn http_at_the_https_port_is_recognized() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let url = format!("https://localhost:{}/directory", setup.web.port);
    let outcome = setup.getcrt().args(&["--directory-url", &url]).outcome();
    outcome
        .failed(": no TLS with it: wrong version number")
        .says("hint: is this the port where it speaks https?");
}

#[test]
fn closed_connections_and_lower_case_headers_are_fine() {
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
    let closing = every.iter().fold(FakeCa::honest(), |ca, resource| {
        ca.tamper(resource, |reply, _| reply.wire = Wire::Closing)
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
        .fold(closing, |ca, resource| ca.tamper(resource, lower));
    Setup::with_fake_ca(|_| both).issues().issued();
}

#[test]
fn nonsense_in_retry_after_is_bounded() {
    for value in [
        "-1",
        "soon",
        "",
        "1e3",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "0",
    ] {
        let tamper = move |reply: &mut Reply, count| {
            reply.header("Retry-After", value);
            if count < 2 {
                reply.edit(|order| order["status"] = json!("pending"));
            }
        };
        Setup::with_fake_ca(|ca| ca.tamper("order", tamper))
            .issues()
            .issued();
    }
    let tamper = |reply: &mut Reply, _| {
        reply.header("Retry-After", "1000000000");
        reply.edit(|order| order["status"] = json!("pending"));
    };
    let setup = Setup::with_fake_ca(|ca| ca.tamper("order", tamper));
    setup.fails_within(
        "20",
        "waiting for the CA to verify a.test, b.test, c.test: to look again in 60 s is too late for --timeout, in ",
    );
}

#[test]
fn flood_takes_no_memory() {
    let flood = Wire::Endless(vec![b'x'; 1 << 16], Duration::ZERO);
    let setup = Setup::with_fake_ca(|ca| {
        ca.tamper("certificate", move |reply, _| reply.wire = flood.clone())
    });
    // Its own report of its memory, as it is at the end.
    let script = "\"$0\" \"$@\" & pid=$!; while m=$(grep VmHWM /proc/$pid/status 2>/dev/null); do [ -z \"$m\" ] || last=$m; done; wait $pid; status=$?; echo \"$last\" >peak; exit $status";
    let outcome = setup
        .with_options(Run::of("sh").args(&["-c", script, GETCRT]))
        .outcome();
    outcome.failed("larger than request limit: 1048576");
    let peak = text(&setup.path("peak"));
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 32 << 10, "{peak}");
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
    let outcome = setup.getcrt().env("HTTPS_PROXY", proxy).outcome();
    outcome
        .failed("cannot use the directory: https://localhost:")
        .says(": CONNECT proxy failed: ");
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
