//! Pebble, a real RFC 8555 CA, with its DNS server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::files::{https, listing, openssl};
use super::run::{Outcome, Run, Running};
use super::setup::{Ca, Setup, user_directory};
use super::web::Web;
use super::{Server, await_port, await_that, free_port};

/// Pebble, with the DNS server that it asks.
pub struct Pebble {
    acme_port: u16,
    management_port: u16,
    dns_management_port: u16,
    _servers: [Server; 2],
}

impl Ca for Pebble {
    fn directory_url(&self) -> String {
        format!("https://localhost:{}/dir", self.acme_port)
    }

    fn root(&self) -> Vec<u8> {
        fs::read(&https().root).unwrap()
    }
}

/// The names of the CSR that a setup with Pebble has.
pub const NAMES: [&str; 2] = ["a.test", "www.a.test"];

/// How Pebble is started.
#[derive(Default)]
pub struct Config<'a> {
    /// Variables for its environment.
    pub variables: &'a [(&'a str, &'a str)],
    /// More members of its configuration, each with a comma before it.
    pub members: &'a str,
}

impl Pebble {
    /// Starts a CA that looks for challenge files at `http_port`, and writes its files to `directory`.
    pub fn start(directory: &Path, http_port: u16, config: &Config) -> Pebble {
        let members = config.members;
        let [acme_port, management_port, dns_port, dns_management_port] =
            [free_port(), free_port(), free_port(), free_port()];
        let json = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{acme_port}", "managementListenAddress": "127.0.0.1:{management_port}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {}, "tlsPort": 1{members}}}}}"#,
            https().certificate.display(),
            https().key.display(),
            http_port
        );
        let path = |name: &str| directory.join(name);
        fs::write(path("pebble.json"), json).unwrap();
        let log = |name: &str| fs::File::create(path(name)).unwrap();
        let mut names = Command::new("pebble-challtestsrv");
        names.args([
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ]);
        names.args([
            "-dns01",
            &format!("127.0.0.1:{dns_port}"),
            "-management",
            &format!("127.0.0.1:{dns_management_port}"),
        ]);
        names.stdout(log("dns.log")).stderr(Stdio::null());
        let mut pebble = Command::new("pebble");
        pebble.args(["-strict", "-config"]).arg(path("pebble.json"));
        pebble.args(["-dnsserver", &format!("127.0.0.1:{dns_port}")]);
        pebble
            // Pebble locks an order for reading twice while it answers one request. If the thread that issues the
            // certificate asks for the lock in between, Pebble hangs for good. With one thread that does not happen.
            .env("GOMAXPROCS", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            // Even so, Pebble reuses one authorization of a hundred. So a run whose output matters has to be the
            // first for its names.
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_VA_NOSLEEP", "1");
        pebble
            .envs(config.variables.iter().copied())
            .stdout(log("pebble.log"))
            .stderr(log("pebble.err"));
        let servers = [names, pebble]
            .map(|mut command| Server(command.spawn().expect("is pebble installed?")));
        for port in [dns_management_port, management_port, acme_port] {
            await_port(port);
        }
        Pebble {
            acme_port,
            management_port,
            dns_management_port,
            _servers: servers,
        }
    }
}

impl Setup<Pebble> {
    /// A user and a CA that is fast and cooperative.
    pub fn with_pebble() -> Setup<Pebble> {
        Setup::with_pebble_and_variables(&[])
    }

    /// A CA with these variables in its environment.
    pub fn with_pebble_and_variables(variables: &[(&str, &str)]) -> Setup<Pebble> {
        Setup::with_configured_pebble(&Config {
            variables,
            ..Config::default()
        })
    }

    /// A CA that waits before it validates, for at most as many seconds.
    pub fn with_slow_validation(seconds: &str) -> Setup<Pebble> {
        Setup::with_pebble_and_variables(&[
            ("PEBBLE_VA_NOSLEEP", "0"),
            ("PEBBLE_VA_SLEEPTIME", seconds),
        ])
    }

    /// A CA that requires external account binding. `keys` maps key identifiers to MAC keys, in JSON.
    pub fn with_external_accounts(keys: &str) -> Setup<Pebble> {
        let members = format!(
            r#", "externalAccountBindingRequired": true, "externalAccountMACKeys": {keys}"#
        );
        Setup::with_configured_pebble(&Config {
            members: &members,
            ..Config::default()
        })
    }

    /// A CA whose certificates are valid for `seconds`.
    pub fn with_validity(seconds: u64) -> Setup<Pebble> {
        let members = format!(r#", "certificateValidityPeriod": {seconds}"#);
        Setup::with_configured_pebble(&Config {
            members: &members,
            ..Config::default()
        })
    }

    pub fn with_configured_pebble(config: &Config) -> Setup<Pebble> {
        let directory = user_directory();
        let web = Web::serving(&directory.path().join("acme"));
        let ca = Pebble::start(directory.path(), web.port, config);
        Setup::new(directory, web, ca, &NAMES)
    }

    /// A CA that looks for challenge files at `web`.
    pub fn with_pebble_and_web(directory: TempDir, web: Web) -> Setup<Pebble> {
        let ca = Pebble::start(directory.path(), web.port, &Config::default());
        Setup::new(directory, web, ca, &NAMES)
    }

    /// Lets the CA, and the CA alone, look for `name` at another address.
    pub fn mislead_the_ca(&self, name: &str, address: &str) {
        let body = format!(r#"{{"host": "{name}.", "addresses": ["{address}"]}}"#);
        let mut connection =
            TcpStream::connect(("127.0.0.1", self.ca.dns_management_port)).unwrap();
        let length = body.len();
        write!(
            connection,
            "POST /add-a HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut reply = String::new();
        connection.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.0 200"), "{reply}");
    }

    /// Starts `run`, and waits until its challenge files are there. With a slow validation it is still polling then.
    pub fn start_and_await_challenge_files(&self, run: Run) -> Running {
        let running = run.start();
        await_that("the challenge files", || {
            listing(&self.acme_dir()).len() == NAMES.len()
        });
        running
    }

    /// What was issued leads to the CA's root, is for these names and for the domain key, and the
    /// acme-dir is clean.
    #[track_caller]
    pub fn verify(&self, outcome: &Outcome, names: &[&str]) {
        outcome.issued();
        self.verify_pem(&outcome.stdout, names);
        self.no_file_is_left(outcome);
    }

    #[track_caller]
    pub fn verify_pem(&self, pem: &str, names: &[&str]) {
        let chain = self.path("issued.pem");
        fs::write(&chain, pem).unwrap();
        let chain = chain.to_str().unwrap();
        let root = self.fetch_root();
        openssl(&[
            "verify",
            "-CAfile",
            root.to_str().unwrap(),
            "-untrusted",
            chain,
            chain,
        ]);
        let sans = openssl(&["x509", "-in", chain, "-noout", "-ext", "subjectAltName"]);
        let mut found: Vec<&str> = sans
            .lines()
            .nth(1)
            .unwrap()
            .split(',')
            .map(|san| san.trim().trim_start_matches("DNS:"))
            .collect();
        let mut wanted = names.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        let domain_key = self.path("domain.key");
        let public = openssl(&["pkey", "-in", domain_key.to_str().unwrap(), "-pubout"]);
        assert_eq!(
            openssl(&["x509", "-in", chain, "-noout", "-pubkey"]),
            public
        );
    }

    /// The root that Pebble has made for itself.
    pub fn fetch_root(&self) -> PathBuf {
        self.fetch_alternate_root(0)
    }

    /// One of the roots that Pebble has made for itself.
    pub fn fetch_alternate_root(&self, number: usize) -> PathBuf {
        let root = self.path("pebble-root.pem");
        let page = https_get(self.ca.management_port, &format!("/roots/{number}"));
        let start = page
            .find("-----BEGIN")
            .unwrap_or_else(|| panic!("no root in {page}"));
        fs::write(&root, &page[start..]).unwrap();
        root
    }

    pub fn web_saw_the_ca(&self) -> bool {
        !self.web.of_the_ca().is_empty()
    }
}

/// A page of Pebble's management interface.
fn https_get(port: u16, path: &str) -> String {
    use openssl::ssl::{SslConnector, SslMethod};
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_ca_file(&https().root).unwrap();
    let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut connection = builder.build().connect("localhost", connection).unwrap();
    write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut page = Vec::new();
    let _ = connection.read_to_end(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}
