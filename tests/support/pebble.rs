//! Pebble, a real RFC 8555 CA, with its DNS server; and a user's files to go there with.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::files::{csr, directory, https, key, library, listing, openssl};
use super::run::{GETCRT, Outcome, Run};
use super::web::Web;
use super::{Server, await_port, free_port};

/// A user with an account key, a domain key, a CSR and a web server, and a CA that can be asked.
pub struct World {
    directory: TempDir,
    pub web: Web,
    acme_port: u16,
    management_port: u16,
    dns_port: u16,
    _servers: [Server; 2],
}

/// The names of the CSR that every world has.
pub const NAMES: [&str; 2] = ["a.test", "www.a.test"];

impl World {
    /// A CA that is quick and in good temper.
    pub fn new() -> World {
        World::with(&[])
    }

    /// A CA with Pebble's knobs in its environment.
    pub fn with(knobs: &[(&str, &str)]) -> World {
        let directory = directory();
        super::files::set_mode(directory.path(), 0o755);
        let acme_dir = directory.path().join("acme");
        fs::create_dir(&acme_dir).unwrap();
        World::around(directory, Web::serving(&acme_dir), knobs)
    }

    /// A CA that wants every account bound to one that it has elsewhere: these keys by their names.
    pub fn with_external_accounts(keys: &str) -> World {
        let directory = directory();
        let acme_dir = directory.path().join("acme");
        fs::create_dir(&acme_dir).unwrap();
        let config = format!(
            r#", "externalAccountBindingRequired": true, "externalAccountMACKeys": {keys}"#
        );
        World::configured(directory, Web::serving(&acme_dir), &[], &config)
    }

    /// A CA whose certificates live as many seconds.
    pub fn with_validity(seconds: u64) -> World {
        let directory = directory();
        let acme_dir = directory.path().join("acme");
        fs::create_dir(&acme_dir).unwrap();
        let config = format!(r#", "certificateValidityPeriod": {seconds}"#);
        World::configured(directory, Web::serving(&acme_dir), &[], &config)
    }

    /// A CA that looks for challenge files at `web`.
    pub fn around(directory: TempDir, web: Web, knobs: &[(&str, &str)]) -> World {
        World::configured(directory, web, knobs, "")
    }

    fn configured(directory: TempDir, web: Web, knobs: &[(&str, &str)], more: &str) -> World {
        let [acme_port, management_port, dns, dns_port] =
            [free_port(), free_port(), free_port(), free_port()];
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{acme_port}", "managementListenAddress": "127.0.0.1:{management_port}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {}, "tlsPort": 1{more}}}}}"#,
            https().certificate.display(),
            https().key.display(),
            web.port
        );
        let path = |name: &str| directory.path().join(name);
        fs::write(path("pebble.json"), config).unwrap();
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
            &format!("127.0.0.1:{dns}"),
            "-management",
            &format!("127.0.0.1:{dns_port}"),
        ]);
        names.stdout(log("dns.log")).stderr(Stdio::null());
        let mut pebble = Command::new("pebble");
        pebble.args(["-strict", "-config"]).arg(path("pebble.json"));
        pebble.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        pebble
            // Pebble locks an order for reading twice while it answers one request. If the thread that issues the
            // certificate asks for the lock in between, Pebble hangs for good. With one thread that does not happen.
            .env("GOMAXPROCS", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_VA_NOSLEEP", "1");
        pebble
            .envs(knobs.iter().copied())
            .stdout(log("pebble.log"))
            .stderr(log("pebble.err"));
        let servers = [names, pebble]
            .map(|mut command| Server(command.spawn().expect("is pebble installed?")));
        for port in [dns_port, management_port, acme_port] {
            await_port(port);
        }
        fs::write(path("hosts"), "").unwrap();
        let world = World {
            directory,
            web,
            acme_port,
            management_port,
            dns_port,
            _servers: servers,
        };
        key(&world.path("account.key"), "EC:P-256");
        key(&world.path("domain.key"), "EC:P-256");
        world.csr("/", &NAMES);
        world
    }

    /// A file of the user's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn acme_dir(&self) -> PathBuf {
        self.path("acme")
    }

    pub fn directory_url(&self) -> String {
        format!("https://localhost:{}/dir", self.acme_port)
    }

    /// Makes another CSR for the domain key, and lets its names lead to the web server.
    pub fn csr(&self, subject: &str, names: &[&str]) -> PathBuf {
        self.resolve(names);
        csr(
            &self.path("domain.csr"),
            &self.path("domain.key"),
            subject,
            names,
        )
    }

    /// Lets getcrt resolve these names to the web server.
    pub fn resolve(&self, names: &[&str]) {
        let lines: String = names
            .iter()
            .map(|name| format!("127.0.0.1 {name}\n"))
            .collect();
        fs::write(self.path("hosts"), lines).unwrap();
    }

    /// Lets the CA, and the CA alone, look for `name` at another address.
    pub fn mislead_the_ca(&self, name: &str, address: &str) {
        let body = format!(r#"{{"host": "{name}.", "addresses": ["{address}"]}}"#);
        let mut connection = TcpStream::connect(("127.0.0.1", self.dns_port)).unwrap();
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

    /// getcrt as the user calls it.
    pub fn getcrt(&self) -> Run {
        self.by(Run::new())
    }

    /// getcrt called by another program, whose own arguments end with what to run.
    pub fn getcrt_by(&self, program: &str, arguments: &[&str]) -> Run {
        self.by(Run::of(program).args(arguments).arg(GETCRT))
    }

    fn by(&self, run: Run) -> Run {
        let root = https().root.to_str().unwrap();
        self.distrusting(run).args(&["--ca-bundle", root])
    }

    /// getcrt called by `run`, with all that is needed but a reason to trust the CA.
    pub fn distrusting(&self, run: Run) -> Run {
        self.resolving(run)
            .args(&["--account-key", self.path("account.key").to_str().unwrap()])
            .args(&["--csr", self.path("domain.csr").to_str().unwrap()])
            .args(&["--acme-dir", self.acme_dir().to_str().unwrap()])
            .args(&[
                "--directory-url",
                &self.directory_url(),
                "--check-port",
                &self.web.port.to_string(),
            ])
    }

    /// A run that finds the names of this world.
    ///
    /// nss_wrapper reads its hosts file at the first lookup and fails where two threads make that
    /// at once, as the self-check does. So the CA, or the proxy that leads to it, has to be named
    /// `localhost` and not by its address: its lookup comes first, and from one thread.
    pub fn resolving(&self, run: Run) -> Run {
        run.env("LD_PRELOAD", library("libnss_wrapper.so"))
            .env("NSS_WRAPPER_HOSTS", self.path("hosts"))
    }

    /// What was issued leads to the CA's root, is for these names and for the domain key, and the
    /// acme-dir is clean.
    #[track_caller]
    pub fn verify(&self, outcome: &Outcome, names: &[&str]) {
        outcome.issued();
        self.verify_pem(&outcome.stdout, names);
        assert_eq!(listing(&self.acme_dir()), [""; 0], "{outcome}");
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
        let page = https_get(self.management_port, &format!("/roots/{number}"));
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

/// Reads a file as text.
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
