//! The web server, as the self-check sees it.

use std::io::{Read, Write};

use crate::support::fake_ca::NAMES;
use crate::support::is_skipped_without_ipv6;
use crate::support::prelude::*;
use crate::support::server::TcpServer;

/// What the web server answers to getcrt; the CA's validator gets the file.
pub fn to_getcrt(reply: Vec<u8>) -> impl Fn(&Request, usize) -> Option<Vec<u8>> + Send + Sync {
    move |request, _| request.is_from_getcrt().then(|| reply.clone())
}

/// A user whose web server answers getcrt with this.
fn answering(reply: Vec<u8>) -> Setup<FakeCa> {
    Setup::with_fake_ca_and_web(|ca| ca, to_getcrt(reply))
}

/// A user whose web server redirects getcrt to where `target` says, if it says anything; the CA's validator gets
/// the file.
fn redirecting(
    status: &'static str,
    target: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
) -> Setup<FakeCa> {
    let redirect = move |request: &Request, _| {
        let head = format!("{status}\r\nLocation: {}", target(request)?);
        request.is_from_getcrt().then(|| response(&head, b""))
    };
    Setup::with_fake_ca_and_web(|ca| ca, redirect)
}

#[test]
fn forbidden_file_is_an_error() {
    let setup = answering(response("403 Forbidden", b"no"));
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 403 with the body `no` (--disable-check leaves this to the CA)
hint: let the web server read the files in --acme-dir, and enter all directories above it

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn missing_file_is_an_error() {
    let setup = answering(response("404 Not Found", b""));
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 404 with the body `` (--disable-check leaves this to the CA)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn internal_error_of_the_web_server_is_an_error() {
    let setup = answering(response("500 Oops", b"oops"));
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 500 with the body `oops` (--disable-check leaves this to the CA)

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn redirect_to_nowhere_is_an_error() {
    let setup = answering(response("302 Found", b""));
    setup.fails_with(
        "127.0.0.1 (private: the CA may reach another server): HTTP 302 without a Location",
    );
}

#[test]
fn another_page_is_an_error() {
    let setup = answering(response("200 OK", b"<html>\x1b[31mwelcome"));
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 200 with the body `<html>\u{1b}[31mwelcome` (--disable-check leaves this to the CA)
hint: make the name lead to the web server that serves --acme-dir: something else answers

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn addition_to_the_file_is_recognized() {
    let add = |request: &Request, _| {
        let (file, _) = request.file.as_ref()?;
        Some(response("200 OK", &[file, &b"!"[..]].concat()))
    };
    Setup::with_fake_ca_and_web(|ca| ca, add).fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 200 with the body `[TOKEN]0.[..]` (--disable-check leaves this to the CA)
  b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 200 with the body `[TOKEN]1.[..]`
  c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 200 with the body `[TOKEN]2.[..]`
hint: let the web server send the file as it is: something is added to it

"#]]);
}

#[test]
fn white_space_at_the_end_is_ignored() {
    let add = |request: &Request, _| {
        let (file, _) = request.file.as_ref()?;
        let with_space = || response("200 OK", &[file, &b" \r\n"[..]].concat());
        request.is_from_getcrt().then(with_space)
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
    let setup = answering(response("503 Not yet", b"soon"));
    let run = setup.getcrt().args(&["--timeout", "4"]);
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 503 with the body `soon` (--disable-check leaves this to the CA)

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn unclear_answers_are_warnings() {
    let setup = answering(response("303 See\r\nLocation: /x", b""));
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
warning: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 303 to /x: validators do not follow HTTP 303; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    let setup = answering(response("301 Moved\r\nLocation: http://a.test:8080/x", b""));
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
warning: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 301 to http://a.test:[PORT]/x: validators go to the ports 80 and 443 only; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    let setup = answering(response("302 Moved\r\nLocation: ftp://a.test/x", b""));
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
warning: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to ftp://a.test/x: bad uri: unknown scheme: ftp; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    // The connection is closed without an answer.
    let setup = answering(Vec::new());
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
warning: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): Peer disconnected; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn redirect_to_https_where_http_is_spoken_is_a_warning() {
    let setup = redirecting("302 Found", |request| {
        Some(format!("https://{}/x", request.host))
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
warning: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to https://a.test:[PORT]/x: the TLS handshake fails: wrong version number; the CA decides (--disable-check skips this check)
warning: local check: b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to https://b.test:[PORT]/x: the TLS handshake fails: wrong version number; the CA decides (--disable-check skips this check)
warning: local check: c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to https://c.test:[PORT]/x: the TLS handshake fails: wrong version number; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn endless_redirects_are_a_warning() {
    let setup = redirecting("302 Found", |request| Some(request.path.clone()));
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
warning: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: HTTP 302 to /.well-known/acme-challenge/[TOKEN]0: validators follow 10 redirects and no more; the CA decides (--disable-check skips this check)
warning: local check: b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: HTTP 302 to /.well-known/acme-challenge/[TOKEN]1: validators follow 10 redirects and no more; the CA decides (--disable-check skips this check)
warning: local check: c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: HTTP 302 to /.well-known/acme-challenge/[TOKEN]2: validators follow 10 redirects and no more; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    // For each name, the first request and ten redirects; then the CA's own requests.
    assert_eq!(setup.web.requests().len(), 3 * 11 + 3);
}

#[test]
fn addresses_of_both_families_are_asked() {
    if is_skipped_without_ipv6("a name with IPv4 and IPv6 addresses") {
        return;
    }
    let setup = answering(response("404 Not Found", b"lost"));
    let both = |name| format!("::1 {name}\n127.0.0.1 {name}\n");
    fs::write(setup.path("hosts"), NAMES.map(both).concat()).unwrap();
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: ::1 (private: the CA may reach another server): HTTP 404 with the body `lost`; 127.0.0.1 (private: the CA may reach another server): HTTP 404 with the body `lost` (--disable-check leaves this to the CA)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
}

/// A user whose name `a.test` has these addresses. At 127.0.0.2 there is a web server that has lost the files.
fn with_addresses(addresses: &[&str]) -> (Setup<FakeCa>, TcpServer) {
    let setup = Setup::with_fake_ca(|ca| ca);
    setup.csr("/", &["a.test"]);
    let lines: Vec<String> = addresses
        .iter()
        .map(|address| format!("{address} a.test\n"))
        .collect();
    fs::write(setup.path("hosts"), lines.concat()).unwrap();
    let lost = TcpServer::start("127.0.0.2", setup.web.port, |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(&response("404 Not Found", b"lost"));
    });
    (setup, lost)
}

/// The CA may ask the one or the other, so this failure would come and go.
#[test]
fn one_wrong_address_of_two_is_an_error() {
    let (setup, _lost) = with_addresses(&["127.0.0.1", "127.0.0.2"]);
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.2 (private: the CA may reach another server): HTTP 404 with the body `lost` (it is served at 127.0.0.1) (--disable-check leaves this to the CA)
hint: the CA may ask at any address of the name: let all of them serve the challenge files, or remove the wrong ones from the DNS

"#]]);
    assert_eq!(setup.ca.count("challenge"), 0);
}

#[test]
fn address_where_nobody_answers_is_a_warning() {
    let (setup, _lost) = with_addresses(&["127.0.0.1", "127.0.0.3"]);
    setup.issues().stderr_is(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
warning: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.3 (private: the CA may reach another server): no web server listens there (connection refused) (it is served at 127.0.0.1); the CA decides (--disable-check skips this check)
a.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 1 name
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

#[test]
fn redirect_without_a_slash_is_recognized() {
    let setup = redirecting("301 Moved", |request| {
        let path = request.path.strip_prefix('/')?;
        Some(format!("http://a.test{path}"))
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
Order created!
Verifying a.test...
Verifying b.test...
Verifying c.test...
warning: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 301 to http://a.test.well-known/acme-challenge/[TOKEN]0: the redirect has lost the `/` after the host's name; the CA decides (--disable-check skips this check)
warning: local check: b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 301 to http://a.test.well-known/acme-challenge/[TOKEN]1: the redirect has lost the `/` after the host's name; the CA decides (--disable-check skips this check)
warning: local check: c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 301 to http://a.test.well-known/acme-challenge/[TOKEN]2: the redirect has lost the `/` after the host's name; the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
}

/// It is followed to a path that this web server does not know, which is a plain wrong answer.
#[test]
fn redirect_to_another_path_is_shown() {
    let redirecting_to = |form: &'static str| {
        redirecting("302 Found", move |request| {
            let token = request.path.strip_prefix("/.well-known/acme-challenge/")?;
            Some(form.replace("HOST", &request.host) + token)
        })
    };
    redirecting_to("/else/").fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /else/[TOKEN]0: HTTP 404 with the body `no such file` (--disable-check leaves this to the CA)
  b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /else/[TOKEN]1: HTTP 404 with the body `no such file`
  c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /else/[TOKEN]2: HTTP 404 with the body `no such file`
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
    redirecting_to("//HOST/else/").fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to //a.test:[PORT]/else/[TOKEN]0: HTTP 404 with the body `no such file` (--disable-check leaves this to the CA)
  b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to //b.test:[PORT]/else/[TOKEN]1: HTTP 404 with the body `no such file`
  c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to //c.test:[PORT]/else/[TOKEN]2: HTTP 404 with the body `no such file`
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
    redirecting_to("http://HOST/else/").fails(str![[r#"
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
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to http://a.test:[PORT]/else/[TOKEN]0: HTTP 404 with the body `no such file` (--disable-check leaves this to the CA)
  b.test: Wrote file to acme/[TOKEN]1, but couldn't download http://b.test:[PORT]/.well-known/acme-challenge/[TOKEN]1: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to http://b.test:[PORT]/else/[TOKEN]1: HTTP 404 with the body `no such file`
  c.test: Wrote file to acme/[TOKEN]2, but couldn't download http://c.test:[PORT]/.well-known/acme-challenge/[TOKEN]2: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to http://c.test:[PORT]/else/[TOKEN]2: HTTP 404 with the body `no such file`
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
}

#[test]
fn stopped_web_server_is_a_warning() {
    let setup = Setup::with_fake_ca(|ca| ca);
    let port = free_port().to_string();
    let outcome = setup.getcrt().args(&["--check-port", &port]).outcome();
    outcome.exits(0).stderr_is(str![[r#"
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
warning: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): no web server listens there (connection refused); the CA decides (--disable-check skips this check)
a.test verified!
b.test verified!
c.test verified!
Signing certificate...
Valid until [TIME], issued by Fake CA, 3 names
Checked: key, names, dates and signature
Certificate signed!

"#]]);
    setup.nothing_is_left(&outcome);
}

#[test]
fn public_address_has_no_remark() {
    let setup = answering(response("404 Not Found", b"lost"));
    // It is no private address, and leads to this machine.
    setup.resolve_to("0.0.0.0", &NAMES);
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
error: order https://localhost:[PORT]/order/1: local check: a.test, b.test, c.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 0.0.0.0: HTTP 404 with the body `lost` (--disable-check leaves this to the CA)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
}

/// The web server may be somebody else's, and getcrt may reach what nobody else does.
#[test]
fn nothing_of_another_hosts_body_is_shown() {
    let redirect = |request: &Request, _: usize| {
        let port = request.host.rsplit(':').next()?;
        let body = b"internal password";
        if request.host.starts_with("other.test:") {
            return Some(response("200 OK", body));
        }
        let head = format!("302 Found\r\nLocation: http://other.test:{port}/latest");
        request.is_from_getcrt().then(|| response(&head, b""))
    };
    let setup = Setup::with_fake_ca_and_web(|ca| ca, redirect);
    setup.csr("/", &["a.test"]);
    setup.resolve(&["a.test", "other.test"]);
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to http://other.test:[PORT]/latest: 127.0.0.1 (private: the CA may reach another server): HTTP 200 from another host; its body is not shown (--disable-check leaves this to the CA)
hint: make the name lead to the web server that serves --acme-dir: something else answers

"#]]);
    for option in ["-v", "-vv"] {
        let outcome = setup.getcrt().arg(option).outcome();
        outcome
            .exits(1)
            .says(" --> GET challenge file (local check)\n        http://other.test:");
        outcome.says_not("internal").says_not("password");
    }
}

#[test]
fn little_of_a_body_is_shown() {
    let setup = answering(response("404 Not Found", &[b'#'; 4000]));
    setup.csr("/", &["a.test"]);
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 404 with the body `############################################################…` (--disable-check leaves this to the CA)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
    for option in ["-v", "-vv"] {
        let outcome = setup.getcrt().arg(option).outcome();
        outcome
            .exits(1)
            .says(&format!("\n        {}…\n", "#".repeat(60)));
        outcome.says_not(&"#".repeat(61));
    }
}

#[test]
fn little_of_a_location_is_shown() {
    let setup = redirecting("302 Found", |request| {
        let is_redirected = request.path.starts_with("/%");
        (!is_redirected).then(|| format!("/{}", "%".repeat(15_000)))
    });
    setup.csr("/", &["a.test"]);
    setup.fails(str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test
Getting directory...
Directory found!
Registering account...
Registered! Account ID: https://localhost:[PORT]/account/1
This agrees to the CA's terms of service: https://ca.test/terms
Creating new order...
Order created!
Verifying a.test...
error: order https://localhost:[PORT]/order/1: local check: a.test: Wrote file to acme/[TOKEN]0, but couldn't download http://a.test:[PORT]/.well-known/acme-challenge/[TOKEN]0: 127.0.0.1 (private: the CA may reach another server): HTTP 302 to /%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%…: HTTP 404 with the body `no such file` (--disable-check leaves this to the CA)
hint: make /.well-known/acme-challenge/ lead to the directory of --acme-dir

"#]]);
    for option in ["-v", "-vv"] {
        let outcome = setup.getcrt().arg(option).outcome();
        outcome.exits(1);
        // As a header, as the next request's URL, and twice in the error.
        let count = outcome.stderr.matches('%').count();
        outcome.check(
            &format!("shows {count} characters"),
            (200..=4 * 200).contains(&count),
        );
    }
}

#[test]
fn password_in_a_location_is_not_shown() {
    let setup = redirecting("302 Found", |_| {
        Some("http://user:pw0rd@localhost:1/x".to_owned())
    });
    for option in ["--dry-run", "-v", "-vv"] {
        let outcome = setup.getcrt().arg(option).outcome();
        outcome.says("localhost:1/x").says_not("pw0rd");
    }
}
