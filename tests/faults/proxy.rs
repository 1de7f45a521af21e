//! The proxy between getcrt and the CA, and what the environment says about it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread::sleep;

use base64::prelude::{BASE64_STANDARD, Engine};
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

use crate::support::prelude::*;
use crate::support::server::TcpServer;
use crate::support::web::Proxy;

/// What no run may show.
const USER: &str = "proxyuser";
const PASSWORD: &str = "pr0xyp4ss";

fn honest() -> Setup<FakeCa> {
    Setup::with_fake_ca(|ca| ca)
}

fn url(port: u16) -> String {
    format!("http://localhost:{port}")
}

fn url_with_password(port: u16) -> String {
    format!("http://{USER}:{PASSWORD}@localhost:{port}")
}

/// What goes to the proxy is not shown to the user.
#[track_caller]
fn keeps_the_password(outcome: &Outcome) {
    let basic = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    outcome.says_not(USER).says_not(PASSWORD).says_not(&basic);
}

/// A server that gives the same answer to everybody who asks for a tunnel, with a pause after each byte, and
/// remembers what it was asked.
struct ScriptedProxy {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    _server: TcpServer,
}

impl ScriptedProxy {
    fn answering(answer: &'static [u8], pause: Duration) -> ScriptedProxy {
        let port = free_port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&requests);
        let handle = move |mut client: TcpStream| {
            let lines = BufReader::new(&client).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            asked.lock().unwrap().push(head.join("\n"));
            for byte in answer {
                if client.write_all(&[*byte]).is_err() {
                    return;
                }
                sleep(pause);
            }
        };
        ScriptedProxy {
            port,
            requests,
            _server: TcpServer::start("127.0.0.1", port, handle),
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The variables of the environment, and whether a run with them goes through the proxy.
fn goes_through_proxy(variables: &[(&str, &str)]) -> bool {
    let setup = honest();
    let proxy = Proxy::start();
    let mut run = setup.getcrt();
    for (name, value) in variables {
        run = run.env(name, value.replace("PROXY", &url(proxy.port)));
    }
    let outcome = run.outcome();
    outcome.issued();
    setup.nothing_is_left(&outcome);
    proxy.requests() > 0
}

#[test]
fn proxy_variables_mean_what_they_mean_to_curl() {
    let elsewhere = "http://localhost:1";
    for variables in [
        [("https_proxy", "PROXY"), ("HTTPS_PROXY", elsewhere)],
        [("HTTPS_PROXY", "PROXY"), ("all_proxy", elsewhere)],
        [
            ("HTTPS_PROXY", "PROXY"),
            ("ALL_PROXY", "socks5://localhost:1"),
        ],
        [("all_proxy", "PROXY"), ("ALL_PROXY", elsewhere)],
        [("https_proxy", ""), ("HTTPS_PROXY", "PROXY")],
        [("HTTPS_PROXY", ""), ("ALL_PROXY", "PROXY")],
        [("HTTPS_PROXY", "PROXY"), ("HTTP_PROXY", elsewhere)],
        [
            ("HTTPS_PROXY", "PROXY"),
            ("NO_PROXY", "host, other.localhost"),
        ],
        [("HTTPS_PROXY", "PROXY"), ("NO_PROXY", "")],
    ] {
        assert!(goes_through_proxy(&variables), "{variables:?}");
    }
    for variables in [
        [("HTTP_PROXY", elsewhere), ("http_proxy", elsewhere)],
        [("HTTPS_PROXY", ""), ("ALL_PROXY", "")],
        [("HTTPS_PROXY", elsewhere), ("NO_PROXY", "localhost")],
        [
            ("HTTPS_PROXY", elsewhere),
            ("NO_PROXY", "other.test, .LOCALHOST"),
        ],
        [
            ("HTTPS_PROXY", elsewhere),
            ("no_proxy", "other.test localhost"),
        ],
        [("HTTPS_PROXY", elsewhere), ("NO_PROXY", "*")],
    ] {
        assert!(!goes_through_proxy(&variables), "{variables:?}");
    }
}

#[test]
fn unusable_proxy_is_an_error_that_names_the_variable() {
    let setup = honest();
    for (variable, value) in [
        ("HTTPS_PROXY", "socks5://localhost:1"),
        ("https_proxy", "ftp://localhost:1"),
        ("ALL_PROXY", "socks5h://proxyuser:pr0xyp4ss@localhost:1"),
        ("all_proxy", "http://"),
        ("HTTPS_PROXY", "http://proxyuser:pr0xy/p4ss@localhost:1"),
        ("HTTPS_PROXY", "http://proxyuser:1/pr0xyp4ss@localhost:1"),
        ("HTTPS_PROXY", "http://proxyuser:1#pr0xyp4ss@localhost:1"),
        ("HTTPS_PROXY", "http://localhost:port"),
        ("HTTPS_PROXY", "http://localhost:99999"),
        ("HTTPS_PROXY", "proxy at home"),
    ] {
        let outcome = setup.getcrt().env(variable, value).outcome();
        outcome.failed(&format!(
            "error: {variable}: this does not name an http or https proxy, and getcrt can use no others"
        ));
        outcome.says_not(USER).says_not("p4ss");
        setup.nothing_is_left(&outcome);
    }
    assert_eq!(setup.ca.requests(), [""; 0]);
}

#[test]
fn unreachable_proxy_is_named_without_its_password() {
    let setup = honest();
    let port = free_port();
    let run = setup.getcrt().env("HTTPS_PROXY", url_with_password(port));
    let outcome = run.args(&["-vv", "--timeout", "1"]).outcome();
    outcome.failed(&format!(
        "the connection failed: the proxy localhost:{port} (HTTPS_PROXY): Connection refused"
    ));
    keeps_the_password(&outcome);
    setup.nothing_is_left(&outcome);
}

#[test]
fn unknown_proxy_is_named() {
    let setup = honest();
    let run = setup.getcrt().env("ALL_PROXY", "http://proxy.test:3128");
    setup.run_fails(run.args(&["--timeout", "1"]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
...
error: cannot use the directory: https://localhost:[PORT]/directory: the connection failed: the proxy proxy.test:[PORT] (ALL_PROXY): failed to lookup address information: Name or service not known
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
}

#[test]
fn password_for_the_proxy_is_sent_and_not_shown() {
    let setup = honest();
    let proxy = Proxy::start();
    let run = setup
        .getcrt()
        .env("HTTPS_PROXY", url_with_password(proxy.port));
    let outcome = run.arg("-vv").outcome();
    outcome.issued();
    keeps_the_password(&outcome);
    assert!(proxy.requests() > 0);

    let refusing = ScriptedProxy::answering(
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        Duration::ZERO,
    );
    let run = setup
        .getcrt()
        .env("HTTPS_PROXY", url_with_password(refusing.port));
    setup.run_fails(run, str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the proxy localhost:[PORT] (HTTPS_PROXY): it refuses to connect to the CA (HTTP 407)
hint: put user name and password into the variable: http://USER:PASSWORD@HOST:PORT

"#]]);
    let requests = refusing.requests();
    assert_eq!(requests.len(), 1);
    let ca = setup.ca.directory_url().replace("/directory", "");
    let ca = ca.strip_prefix("https://").unwrap();
    assert!(
        requests[0].starts_with(&format!("CONNECT {ca} HTTP/1.1\nHost: {ca}\n")),
        "{requests:?}"
    );
    let basic = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    assert!(
        requests[0].contains(&format!("Proxy-Authorization: Basic {basic}")),
        "{requests:?}"
    );
}

#[test]
fn server_that_is_no_proxy_is_an_error() {
    let setup = honest();
    let run = |proxy: &ScriptedProxy| {
        let run = setup.getcrt().env("HTTPS_PROXY", url(proxy.port));
        run.args(&["--timeout", "1"])
    };
    let silent = ScriptedProxy::answering(b"", Duration::ZERO);
    setup.run_fails(run(&silent), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
...
error: cannot use the directory: https://localhost:[PORT]/directory: the connection failed: the proxy localhost:[PORT] (HTTPS_PROXY): it has closed the connection
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    let other = ScriptedProxy::answering(b"220 mail.test ESMTP\r\n\r\n", Duration::ZERO);
    setup.run_fails(run(&other), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the proxy localhost:[PORT] (HTTPS_PROXY): it does not answer as a proxy does: its answer is not HTTP

"#]]);
    let flood = vec![b'x'; 1 << 20].leak();
    let flooding = ScriptedProxy::answering(flood, Duration::ZERO);
    setup.run_fails(run(&flooding), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the proxy localhost:[PORT] (HTTPS_PROXY): it does not answer as a proxy does: its answer has no end

"#]]);
}

#[test]
fn proxy_may_speak_https() {
    let setup = honest();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    let files = https();
    acceptor
        .set_private_key_file(&files.key, SslFiletype::PEM)
        .unwrap();
    acceptor
        .set_certificate_chain_file(&files.certificate)
        .unwrap();
    let acceptor = acceptor.build();
    let port = free_port();
    let _proxy = TcpServer::start("127.0.0.1", port, move |client| {
        let Ok(mut stream) = acceptor.accept(client) else {
            return;
        };
        let _ = BufReader::new(&mut stream).read_line(&mut String::new());
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
    });
    let run = || {
        let url = format!("https://localhost:{port}");
        setup.getcrt().env("HTTPS_PROXY", url)
    };
    // The first certificate that it sees is the proxy's.
    setup.run_fails(run(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the proxy localhost:[PORT] (HTTPS_PROXY): its TLS certificate is refused: unable to get local issuer certificate
hint: for a private CA, name its root with --ca-bundle; else install ca-certificates

"#]]);
    fs::copy(&files.root, setup.path("ca.pem")).unwrap();
    setup.run_fails(run(), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the proxy localhost:[PORT] (HTTPS_PROXY): it refuses to connect to the CA (HTTP 403)

"#]]);
}

/// Each byte comes in time, all of them do not.
#[test]
fn proxy_that_drips_is_given_up() {
    let setup = honest();
    let drip = b"HTTP/1.1 200 OK\r\nX-Drip: drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip-drip";
    let dripping = ScriptedProxy::answering(drip, Duration::from_secs(1));
    let run = setup.getcrt().env("HTTPS_PROXY", url(dripping.port));
    setup.run_fails(run.args(&["--timeout", "3"]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
error: cannot use the directory: https://localhost:[PORT]/directory: the connection failed: the proxy localhost:[PORT] (HTTPS_PROXY): no answer in time
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    assert_eq!(dripping.requests().len(), 1);
}

/// As Squid answers while it cannot reach the CA.
#[test]
fn proxy_that_cannot_connect_is_asked_again() {
    let setup = honest();
    let busy = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
    let proxy = ScriptedProxy::answering(busy, Duration::ZERO);
    let run = setup.getcrt().env("HTTPS_PROXY", url(proxy.port));
    setup.run_fails(run.args(&["--timeout", "4"]), str![[r#"
Parsing account key...
Parsing CSR...
Found domains: a.test, b.test, c.test
Getting directory...
...
error: cannot use the directory: https://localhost:[PORT]/directory: the connection failed: the proxy localhost:[PORT] (HTTPS_PROXY): it refuses to connect to the CA (HTTP 503)
hint: no time was left for another try: raise --timeout, or run getcrt again later

"#]]);
    assert!(proxy.requests().len() >= 2);
}
