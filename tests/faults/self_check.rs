//! The web server, as the self-check sees it.

use crate::support::fake_ca::NAMES;
use crate::support::is_skipped_without_ipv6;
use crate::support::prelude::*;

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
fn wrong_answers_end_the_run() {
    let wrong = |reply: Vec<u8>, told: &str, hint: &str| {
        let setup = Setup::with_fake_ca_and_web(|ca| ca, to_getcrt(reply));
        let outcome = setup.fails_with("local check: a.test: Wrote file to acme/tOkEn-");
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
        assert_eq!(setup.ca.count("challenge"), 0);
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
fn addition_to_the_file_is_recognized() {
    let add = |request: &Request, _| {
        Some(response(
            "200 OK",
            &[&request.file.as_ref()?.0[..], b"!"].concat(),
        ))
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, add);
    setup
        .fails_with("HTTP 200 with the body `tOkEn-")
        .says("hint: the web server adds something to what is in the file");
}

#[test]
fn white_space_at_the_end_is_ignored() {
    let add = |request: &Request, _| {
        let is_ours = request.user_agent.starts_with("getcrt/");
        is_ours.then(|| {
            response(
                "200 OK",
                &[&request.file.as_ref().unwrap().0[..], b" \r\n"].concat(),
            )
        })
    };
    Setup::with_fake_ca_and_web(|ca| ca, add).issues().issued();
}

#[test]
fn starting_web_server_is_asked_again() {
    for reply in [
        response("503 Not yet", b""),
        response("429 Slowly", b""),
        Vec::new(),
    ] {
        let answer = move |_: &Request, count| (count < 2).then(|| reply.clone());
        Setup::with_fake_ca_and_web(|ca| ca, answer)
            .issues()
            .issued();
    }
}

/// The answer is what the user needs to hear, not that the time is over.
#[test]
fn deadline_does_not_hide_the_web_servers_answer() {
    let setup = Setup::with_fake_ca_and_web(|ca| ca, to_getcrt(response("503 Not yet", b"soon")));
    setup
        .fails_within("4", "local check: a.test: Wrote file to acme/tOkEn-")
        .says("HTTP 503 with the body `soon`");
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn unclear_answers_are_warnings() {
    let leave = |reply: Vec<u8>, told: &str| {
        let setup = Setup::with_fake_ca_and_web(|ca| ca, to_getcrt(reply));
        let outcome = setup.issues();
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
fn redirect_to_https_where_http_is_spoken_is_a_warning() {
    let to_https = |request: &Request, _| {
        let to = format!("302 Found\r\nLocation: https://{}/x", request.host);
        request
            .user_agent
            .starts_with("getcrt/")
            .then(|| response(&to, b""))
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, to_https);
    setup
        .issues()
        .says("/x: 127.0.0.1 (private: the CA may reach another server): no TLS with it: wrong version number; the CA decides");
}

#[test]
fn endless_redirects_are_a_warning() {
    let circle = |request: &Request, _| {
        let token = request.path.strip_prefix("/.well-known/acme-challenge/")?;
        let to = format!("302 Found\r\nLocation: /.well-known/acme-challenge/{token}");
        request
            .user_agent
            .starts_with("getcrt/")
            .then(|| response(&to, b""))
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, circle);
    setup
        .issues()
        .says("validators follow 10 redirects and no more");
    assert_eq!(setup.web.requests().len(), 3 * 11 + 3);
}

#[test]
fn stale_aaaa_record_is_recognized() {
    if is_skipped_without_ipv6("a stale AAAA record") {
        return;
    }
    // The web server is at IPv4 alone, then at IPv6 too, where it is another one.
    let setup = Setup::with_fake_ca_and_web(|ca| ca, to_getcrt(response("404 Not Found", b"lost")));
    let hosts: String = NAMES
        .iter()
        .map(|name| format!("::1 {name}\n127.0.0.1 {name}\n"))
        .collect();
    fs::write(setup.path("hosts"), hosts).unwrap();
    let outcome = setup.fails_with(
        "IPv6 comes before IPv4, so its AAAA record must be right: HTTP 404 with the body `lost`",
    );
    outcome.says("::1 (private: the CA may reach another server): IPv6 comes before IPv4");
}

#[test]
fn redirect_without_a_slash_is_recognized() {
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
    Setup::with_fake_ca_and_web(|ca| ca, lost)
        .issues()
        .says("HTTP 301 to http://a.test.well-known/acme-challenge/")
        .says("the redirect has lost the `/` after the host's name");
}

#[test]
fn redirect_to_another_path_is_shown() {
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
        let setup = Setup::with_fake_ca_and_web(|ca| ca, redirect);
        // Followed to a path that this server does not know, which is a plain wrong answer.
        setup
            .fails_with(": HTTP 404 with the body `no such file`")
            .says("HTTP 302 to ");
    }
}

#[test]
fn stopped_web_server_is_a_warning() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let port = free_port().to_string();
    let outcome = setup.getcrt().args(&["--check-port", &port]).outcome();
    outcome.exits(0).says(
        ": 127.0.0.1 (private: the CA may reach another server): no connection: Connection refused",
    );
}

#[test]
fn public_address_has_no_remark() {
    let setup = Setup::with_fake_ca_and_web(|ca| ca, to_getcrt(response("404 Not Found", b"lost")));
    // It is no private address, and leads to this machine.
    let hosts: String = NAMES
        .iter()
        .map(|name| format!("0.0.0.0 {name}\n"))
        .collect();
    fs::write(setup.path("hosts"), hosts).unwrap();
    setup.fails_with(": 0.0.0.0: HTTP 404 with the body `lost`");
}
