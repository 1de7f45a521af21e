//! A scripted CA. Honest by default: it speaks https on loopback, checks every JWS, fetches the challenge files
//! and issues real certificates; a test tampers with one thing. Whatever a client may not do (RFC 8555) it notes as
//! a violation.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::mem::replace;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64URL, Engine};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::sha::sha256;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{AuthorityKeyIdentifier, BasicConstraints};
use openssl::x509::extension::{SubjectAlternativeName, SubjectKeyIdentifier};
use openssl::x509::{X509, X509Name, X509Req};
use serde_json::{Value, json};

use super::server::TcpServer;
use super::setup::{Ca, Setup, user_directory};
use super::web::{Request as WebRequest, Web};
use super::{PATIENCE, free_port};

/// The longest that a client must heed a Retry-After between two polls.
const MAX_POLL_WAIT: Duration = Duration::from_secs(60);

/// A reply before it is sent, when a test may tamper with it.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub wire: Wire,
    /// Whether the request was the first one on its connection.
    pub is_first: bool,
}

/// What becomes of a reply on its way.
#[derive(Clone)]
pub enum Wire {
    /// It arrives.
    Whole,
    /// It arrives once as many replies about the same resource have gone.
    Behind(usize),
    /// It arrives as from a server of HTTP/1.0: its end is the end of the connection.
    Closing,
    /// It arrives without a word about the end of the connection, which is closed when the next request comes. That
    /// request is lost.
    Last,
    /// The connection is closed in its place.
    Close,
    /// Nothing comes, and the connection stays open.
    Hang,
    /// Something that is not TLS comes in its place, and then the end.
    Garbled,
    /// These bytes come in its place, and then the end.
    Raw(Vec<u8>),
    /// Its head comes, then these bytes again and again, each time after the pause.
    Endless(Vec<u8>, Duration),
}

impl Reply {
    fn json(status: u16, body: Value) -> Reply {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Reply {
            status,
            headers,
            body: body.to_string().into_bytes(),
            wire: Wire::Whole,
            is_first: false,
        }
    }

    /// Replaces it by a problem document.
    pub fn problem(&mut self, status: u16, kind: &str, detail: &str) {
        let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status});
        self.replace(status, &body.to_string());
    }

    /// Replaces status and body; the Location goes with them.
    pub fn replace(&mut self, status: u16, body: &str) {
        self.status = status;
        self.body = body.as_bytes().to_vec();
        self.drop_header("Location");
    }

    /// Changes the JSON of the body.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.body).unwrap();
        change(&mut value);
        self.body = value.to_string().into_bytes();
    }

    pub fn header(&mut self, name: &'static str, value: &str) {
        self.drop_header(name);
        self.headers.push((name, value.to_owned()));
    }

    pub fn drop_header(&mut self, name: &str) {
        self.headers.retain(|(other, _)| *other != name);
    }
}

type Tamper = Box<dyn Fn(&mut Reply, usize) + Send + Sync>;
type TamperLeaf = Box<dyn Fn(&mut Leaf) + Send + Sync>;

/// What the CA can be asked for.
pub const RESOURCES: [&str; 11] = [
    "directory",
    "newNonce",
    "newAccount",
    "account",
    "newOrder",
    "order",
    "authorization",
    "challenge",
    "finalize",
    "certificate",
    "renewalInfo",
];

/// A CA that is not started yet.
pub struct FakeCaBuilder {
    tampers: Vec<(&'static str, Tamper)>,
    leaf: TamperLeaf,
    tls: TamperLeaf,
    refused_nonces: Option<usize>,
    first_token: usize,
    shares_orders: bool,
}

impl FakeCaBuilder {
    /// From now on replies about `resource`, which is one of [`RESOURCES`], are changed by `tamper`. It is told how
    /// many of them there were before.
    pub fn tamper(
        mut self,
        resource: &'static str,
        tamper: impl Fn(&mut Reply, usize) + Send + Sync + 'static,
    ) -> FakeCaBuilder {
        assert!(RESOURCES.contains(&resource), "no resource `{resource}`");
        self.tampers.push((resource, Box::new(tamper)));
        self
    }

    /// The same change for the replies about several resources.
    pub fn tamper_all(
        self,
        resources: &[&'static str],
        tamper: impl Fn(&mut Reply, usize) + Copy + Send + Sync + 'static,
    ) -> FakeCaBuilder {
        resources
            .iter()
            .fold(self, |ca, resource| ca.tamper(resource, tamper))
    }

    /// Changes what is issued.
    pub fn leaf(mut self, tamper: impl Fn(&mut Leaf) + Send + Sync + 'static) -> FakeCaBuilder {
        self.leaf = Box::new(tamper);
        self
    }

    /// Changes the certificate that the CA itself shows for its https.
    pub fn tls(mut self, tamper: impl Fn(&mut Leaf) + Send + Sync + 'static) -> FakeCaBuilder {
        self.tls = Box::new(tamper);
        self
    }

    /// Every n-th signed request is refused for its nonce, and not acted upon.
    pub fn refusing_nonces(mut self, every: usize) -> FakeCaBuilder {
        self.refused_nonces = Some(every);
        self
    }

    /// All names are proven from the start, and an order that is not finalized yet is handed to every run. Only the
    /// first CSR counts. (Boulder does this.)
    pub fn sharing_orders(mut self) -> FakeCaBuilder {
        self.shares_orders = true;
        self
    }

    /// The tokens of its challenges are numbered from here.
    pub fn tokens_from(mut self, first_token: usize) -> FakeCaBuilder {
        self.first_token = first_token;
        self
    }

    /// Starts a CA that looks for challenge files at `http_port`.
    pub fn start(self, http_port: u16) -> FakeCa {
        let port = free_port();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        let (key, issuer) = (ec_key(), Issuer::new());
        let mut leaf = Leaf {
            key: public(&key),
            common_name: None,
            names: vec!["localhost".to_owned()],
            hours: (-1, 48),
            signer: issuer.key.clone(),
            issuers: Vec::new(),
        };
        (self.tls)(&mut leaf);
        acceptor.set_certificate(&leaf.issue(&issuer)).unwrap();
        acceptor.set_private_key(&key).unwrap();
        let acceptor = acceptor.build();
        let state = State {
            setup: self,
            http_port,
            url: format!("https://localhost:{port}"),
            issuer: Issuer::new(),
            ..State::empty()
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let handle = move |connection| converse(&acceptor, connection, &shared);
        FakeCa {
            port,
            https_root: issuer.certificate.to_pem().unwrap(),
            state,
            _server: TcpServer::start("127.0.0.1", port, handle),
        }
    }
}

/// A CA that is running, and the root of its https.
pub struct FakeCa {
    pub port: u16,
    https_root: Vec<u8>,
    state: Arc<Mutex<State>>,
    _server: TcpServer,
}

impl Ca for FakeCa {
    fn directory_url(&self) -> String {
        format!("https://localhost:{}/directory", self.port)
    }

    fn root(&self) -> Vec<u8> {
        self.https_root.clone()
    }

    fn complaints(&self) -> Vec<String> {
        self.state().violations.clone()
    }
}

impl FakeCa {
    /// A CA that does all things right, unless the builder is told otherwise.
    pub fn honest() -> FakeCaBuilder {
        FakeCaBuilder {
            tampers: Vec::new(),
            leaf: Box::new(|_| ()),
            tls: Box::new(|_| ()),
            refused_nonces: None,
            first_token: 0,
            shares_orders: false,
        }
    }

    /// The resources asked for so far, in order.
    pub fn requests(&self) -> Vec<&'static str> {
        self.state()
            .requests
            .iter()
            .map(|request| request.resource)
            .collect()
    }

    /// How often a resource was asked for.
    pub fn count(&self, resource: &str) -> usize {
        self.requests()
            .iter()
            .filter(|other| **other == resource)
            .count()
    }

    /// The paths of the requests for a resource, in the order in which they came.
    pub fn asked(&self, resource: &str) -> Vec<String> {
        let state = self.state();
        let asked = state.requests.iter().filter(|r| r.resource == resource);
        asked.map(|request| request.path.clone()).collect()
    }

    /// The same paths, in the order in which the replies went.
    pub fn answered(&self, resource: &str) -> Vec<String> {
        let state = self.state();
        state.answered.get(resource).cloned().unwrap_or_default()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// How many requests waited for their replies at one time, at the most.
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// The decoded payload of the last request for a resource.
    pub fn payload(&self, resource: &str) -> Value {
        let state = self.state();
        let last = state
            .requests
            .iter()
            .rev()
            .find(|request| request.resource == resource);
        last.map_or(Value::Null, |request| request.payload.clone())
    }

    /// The signatures of all requests so far.
    pub fn signatures(&self) -> Vec<String> {
        self.state().signatures.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The names of the CSR that a setup with this CA has.
pub const NAMES: [&str; 3] = ["a.test", "b.test", "c.test"];

impl Setup<FakeCa> {
    /// A user and a CA that is honest but for what `configure` does to it.
    pub fn with_fake_ca(configure: impl FnOnce(FakeCaBuilder) -> FakeCaBuilder) -> Setup<FakeCa> {
        Setup::with_fake_ca_and_web(configure, |_, _| None)
    }

    /// The same, with a web server that has answers of its own, told the request and how many came before.
    pub fn with_fake_ca_and_web(
        configure: impl FnOnce(FakeCaBuilder) -> FakeCaBuilder,
        answer: impl Fn(&WebRequest, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Setup<FakeCa> {
        let directory = user_directory();
        let count = AtomicUsize::new(0);
        let web = Web::answering(
            &directory.path().join("acme"),
            Box::new(move |request| answer(request, count.fetch_add(1, Ordering::Relaxed))),
        );
        let ca = configure(FakeCa::honest()).start(web.port);
        Setup::new(directory, web, ca, &NAMES)
    }
}

/// What becomes of an order after its names are proven.
#[derive(Default)]
struct Order {
    csr: Option<Vec<u8>>,
    reads_since_finalize: usize,
}

struct Request {
    resource: &'static str,
    path: String,
    payload: Value,
}

struct State {
    setup: FakeCaBuilder,
    http_port: u16,
    url: String,
    issuer: Issuer,
    nonces: BTreeSet<String>,
    nonce_count: u64,
    account: Option<Value>,
    contact: Value,
    identifiers: Vec<Value>,
    /// The status of each identifier's authorization.
    statuses: Vec<&'static str>,
    told: BTreeSet<usize>,
    /// The first one is at `/order/1`, and so on.
    orders: Vec<Order>,
    requests: Vec<Request>,
    signatures: Vec<String>,
    answered: HashMap<&'static str, Vec<String>>,
    connections: usize,
    at_once: usize,
    most_at_once: usize,
    violations: Vec<String>,
    /// The earliest time at which a URL may be polled again.
    not_before: HashMap<String, Instant>,
}

impl State {
    fn empty() -> State {
        State {
            setup: FakeCa::honest(),
            http_port: 0,
            url: String::new(),
            issuer: Issuer::new(),
            nonces: BTreeSet::new(),
            nonce_count: 0,
            account: None,
            contact: Value::Null,
            identifiers: Vec::new(),
            statuses: Vec::new(),
            told: BTreeSet::new(),
            orders: Vec::new(),
            requests: Vec::new(),
            signatures: Vec::new(),
            answered: HashMap::new(),
            connections: 0,
            at_once: 0,
            most_at_once: 0,
            violations: Vec::new(),
            not_before: HashMap::new(),
        }
    }

    fn note(&mut self, violation: impl Into<String>) {
        self.violations.push(violation.into());
    }

    fn nonce(&mut self) -> String {
        self.nonce_count += 1;
        let nonce = format!("nonce-{}_{}", self.nonce_count, self.url.len());
        self.nonces.insert(nonce.clone());
        nonce
    }

    fn begin(&mut self) {
        self.at_once += 1;
        self.most_at_once = self.most_at_once.max(self.at_once);
    }

    fn end(&mut self, resource: &'static str, path: &str) {
        self.at_once -= 1;
        let answered = self.answered.entry(resource).or_default();
        answered.push(path.to_owned());
    }

    /// The reply to one request, tampering included.
    fn reply(&mut self, head: &Head, body: &[u8]) -> (Reply, &'static str) {
        if !head.user_agent.starts_with("getcrt/") || !head.user_agent.contains(" ureq/") {
            self.note(format!("User-Agent `{}`", head.user_agent));
        }
        if head.has_nonce_header {
            self.note("a Replay-Nonce header in a request");
        }
        let resource = self.resource(&head.path);
        let payload = match (head.method.as_str(), resource) {
            ("GET", "directory" | "renewalInfo") | ("HEAD", "newNonce") => Value::Null,
            ("POST", _) => self.check_jws(head, resource, body),
            _ => {
                self.note(format!("{} {}", head.method, head.path));
                Value::Null
            }
        };
        if let Some(moment) = self.not_before.get(&head.path)
            && Instant::now() < *moment
        {
            self.note(format!("{} was polled sooner than asked", head.path));
        }
        let every = self.setup.refused_nonces.filter(|_| head.method == "POST");
        let mut reply = if every.is_some_and(|every| self.signatures.len().is_multiple_of(every)) {
            let mut refusal = Reply::json(200, Value::Null);
            refusal.problem(400, "badNonce", "stale");
            refusal
        } else {
            self.honest_reply(resource, &head.path, &payload)
        };
        reply.is_first = head.is_first;
        let nonce = self.nonce();
        if head.method != "GET" {
            reply.header("Replay-Nonce", &nonce);
        }
        let before = self
            .requests
            .iter()
            .filter(|request| request.resource == resource)
            .count();
        self.requests.push(Request {
            resource,
            path: head.path.clone(),
            payload,
        });
        for (_, tamper) in self
            .setup
            .tampers
            .iter()
            .filter(|(name, _)| *name == resource)
        {
            tamper(&mut reply, before);
        }
        let asked = reply
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("Retry-After"));
        if let Some(seconds) = asked.and_then(|(_, value)| value.parse().ok())
            && matches!(resource, "order" | "authorization" | "finalize")
        {
            // A little less, for the clocks of two processes.
            let wait = Duration::from_secs(seconds)
                .min(MAX_POLL_WAIT)
                .saturating_sub(Duration::from_millis(20));
            let path = if resource == "finalize" {
                head.path.replace("finalize", "order")
            } else {
                head.path.clone()
            };
            self.not_before.insert(path, Instant::now() + wait);
        }
        (reply, resource)
    }

    fn resource(&mut self, path: &str) -> &'static str {
        match path.split('/').nth(1).unwrap_or_default() {
            "directory" => "directory",
            "new-nonce" => "newNonce",
            "new-account" => "newAccount",
            "account" => "account",
            "new-order" => "newOrder",
            "order" => "order",
            "authorization" => "authorization",
            "challenge" => "challenge",
            "finalize" => "finalize",
            "certificate" => "certificate",
            "renewal-info" => "renewalInfo",
            _ => {
                self.note(format!("a request for {path}"));
                "nothing"
            }
        }
    }

    /// Checks a signed request (RFC 8555 §6.2 to §6.5), and gives its payload; null for POST-as-GET.
    fn check_jws(&mut self, head: &Head, resource: &str, body: &[u8]) -> Value {
        if head.content_type != "application/jose+json" {
            self.note(format!("Content-Type `{}`", head.content_type));
        }
        let jws: Value = serde_json::from_slice(body).unwrap_or_default();
        let members: Vec<&str> = jws
            .as_object()
            .map_or(Vec::new(), |jws| jws.keys().map(String::as_str).collect());
        if members != ["payload", "protected", "signature"] {
            self.note(format!("a JWS of {members:?}"));
        }
        let signature = jws["signature"].as_str().unwrap_or_default();
        self.signatures.push(signature.to_owned());
        let decode = |member: &str| {
            BASE64URL
                .decode(jws[member].as_str().unwrap_or("!"))
                .unwrap_or_default()
        };
        let protected: Value = serde_json::from_slice(&decode("protected")).unwrap_or_default();
        if protected["url"] != format!("{}{}", self.url, head.path) {
            self.note(format!("url {} at {}", protected["url"], head.path));
        }
        if !self
            .nonces
            .remove(protected["nonce"].as_str().unwrap_or_default())
        {
            self.note(format!("nonce {} is not fresh", protected["nonce"]));
        }
        let mut names: Vec<&String> = protected.as_object().unwrap().keys().collect();
        names.sort();
        let by_key = resource == "newAccount";
        if names
            != if by_key {
                ["alg", "jwk", "nonce", "url"]
            } else {
                ["alg", "kid", "nonce", "url"]
            }
        {
            self.note(format!("a protected header of {names:?} for {resource}"));
        }
        if by_key {
            self.account = Some(protected["jwk"].clone());
        } else if protected["kid"] != format!("{}/account/1", self.url) {
            self.note(format!("kid {}", protected["kid"]));
        }
        let signed = format!(
            "{}.{}",
            jws["protected"].as_str().unwrap_or(""),
            jws["payload"].as_str().unwrap_or("")
        );
        let jwk = self.account.clone().unwrap_or_default();
        if protected["alg"] != "ES256" || !verifies(&jwk, signed.as_bytes(), &decode("signature")) {
            self.note("a signature that does not verify");
        }
        let payload = decode("payload");
        if payload.is_empty() {
            if !matches!(resource, "order" | "authorization" | "certificate") {
                self.note(format!("POST-as-GET to {resource}"));
            }
            return Value::Null;
        }
        if matches!(resource, "order" | "authorization" | "certificate") {
            self.note(format!("a payload for {resource}"));
        }
        serde_json::from_slice(&payload).unwrap_or_default()
    }

    fn honest_reply(&mut self, resource: &str, path: &str, payload: &Value) -> Reply {
        let url = self.url.clone();
        let at = |path: &str| format!("{url}{path}");
        let index = path
            .rsplit('/')
            .next()
            .and_then(|last| last.parse::<usize>().ok())
            .unwrap_or(0);
        match resource {
            "directory" => Reply::json(
                200,
                json!({
                    "newNonce": at("/new-nonce"), "newAccount": at("/new-account"), "newOrder": at("/new-order"),
                    "revokeCert": at("/revoke"), "keyChange": at("/key-change"),
                    "meta": {"termsOfService": "https://ca.test/terms", "externalAccountRequired": false},
                    "kLYg2jM": "https://community.test/random-junk",
                }),
            ),
            "newNonce" => Reply {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
                wire: Wire::Whole,
                is_first: false,
            },
            "newAccount" | "account" => {
                let is_asking = payload["onlyReturnExisting"] == true;
                if resource == "newAccount" && payload["termsOfServiceAgreed"] != true && !is_asking
                {
                    self.note("the terms of service are not agreed to");
                }
                if !payload["contact"].is_null() {
                    self.contact = payload["contact"].clone();
                }
                let status = if resource == "newAccount" { 201 } else { 200 };
                let mut reply = Reply::json(
                    status,
                    json!({"status": "valid", "contact": self.contact, "orders": at("/orders")}),
                );
                reply.header("Location", &at("/account/1"));
                reply
            }
            "newOrder" => {
                self.identifiers = payload["identifiers"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let known = ["identifiers", "profile", "replaces"];
                let is_known = |order: &serde_json::Map<_, _>| {
                    order.keys().all(|name| known.contains(&name.as_str()))
                };
                if !payload.as_object().is_some_and(is_known) || self.identifiers.is_empty() {
                    self.note(format!("newOrder of {payload}"));
                }
                let number = self.new_order();
                let mut reply = Reply::json(201, self.order(number));
                reply.header("Location", &at(&format!("/order/{number}")));
                reply
            }
            "order" => {
                let order = &mut self.orders[index - 1];
                order.reads_since_finalize += usize::from(order.csr.is_some());
                Reply::json(200, self.order(index))
            }
            "authorization" => Reply::json(200, self.authorization(index)),
            "challenge" => {
                if *payload != json!({}) {
                    self.note(format!("the challenge is answered by {payload}"));
                }
                if !self.told.insert(index) {
                    self.note(format!("challenge {index} was posted again"));
                }
                self.statuses[index] = if self.validate(index) {
                    "valid"
                } else {
                    "invalid"
                };
                Reply::json(200, self.authorization(index)["challenges"][1].clone())
            }
            "finalize" => {
                if self.statuses.iter().any(|status| *status != "valid") {
                    self.note("finalize before the order is ready");
                }
                let is_finalized = self.orders[index - 1].csr.is_some();
                if is_finalized && self.setup.shares_orders {
                    let mut refusal = Reply::json(200, Value::Null);
                    refusal.problem(403, "orderNotReady", "the order is finalized");
                    return refusal;
                }
                if is_finalized {
                    self.note("the CSR was sent again");
                }
                self.orders[index - 1] = Order {
                    csr: BASE64URL
                        .decode(payload["csr"].as_str().unwrap_or("!"))
                        .ok(),
                    reads_since_finalize: 0,
                };
                let mut reply = Reply::json(200, self.order(index));
                reply.header("Location", &at(&format!("/order/{index}")));
                reply
            }
            "certificate" => {
                let headers = vec![(
                    "Content-Type",
                    "application/pem-certificate-chain".to_owned(),
                )];
                let body = self.chain(index);
                Reply {
                    status: 200,
                    headers,
                    body,
                    wire: Wire::Whole,
                    is_first: false,
                }
            }
            _ => Reply::json(
                404,
                json!({"type": "about:blank", "detail": "no such thing"}),
            ),
        }
    }

    /// The number of a new order, or of one that is shared.
    fn new_order(&mut self) -> usize {
        if self.setup.shares_orders {
            self.statuses = vec!["valid"; self.identifiers.len()];
            if self.orders.last().is_none_or(|order| order.csr.is_some()) {
                self.orders.push(Order::default());
            }
        } else {
            self.statuses = vec!["pending"; self.identifiers.len()];
            self.told.clear();
            self.orders = vec![Order::default()];
        }
        self.orders.len()
    }

    fn order(&self, number: usize) -> Value {
        let at = |path: String| format!("{}{path}", self.url);
        let order = &self.orders[number - 1];
        let status = match &order.csr {
            Some(_) if order.reads_since_finalize > 0 => "valid",
            Some(_) => "processing",
            None if self.statuses.contains(&"invalid") => "invalid",
            None if self.statuses.iter().all(|status| *status == "valid") => "ready",
            None => "pending",
        };
        let authorizations: Vec<String> = (0..self.identifiers.len())
            .rev()
            .map(|i| at(format!("/authorization/{i}")))
            .collect();
        let mut resource = json!({
            "status": status, "identifiers": self.identifiers, "authorizations": authorizations,
            "finalize": at(format!("/finalize/{number}")), "expires": "2099-01-01T00:00:00Z",
        });
        if status == "valid" {
            resource["certificate"] = json!(at(format!("/certificate/{number}")));
        }
        resource
    }

    fn authorization(&self, index: usize) -> Value {
        let Some(status) = self.statuses.get(index) else {
            return json!({});
        };
        let mut http = json!({
            "type": "http-01", "status": status, "url": format!("{}/challenge/{index}", self.url), "token": token(self.setup.first_token + index),
        });
        if *status == "invalid" {
            http["error"] = json!({"type": "urn:ietf:params:acme:error:unauthorized", "detail": "the file is not there", "status": 403});
        }
        let others =
            json!({"type": "dns-persist-01", "status": "pending", "url": "https://nowhere.test/"});
        json!({
            "identifier": self.identifiers[index], "status": status, "expires": "2099-01-01T00:00:00Z",
            "challenges": [others, http],
        })
    }

    /// Looks at the challenge file as a validator does.
    fn validate(&self, index: usize) -> bool {
        let Some(jwk) = &self.account else {
            return false;
        };
        let thumbprint = BASE64URL.encode(sha256(jwk.to_string().as_bytes()));
        let Ok(mut connection) = TcpStream::connect(("127.0.0.1", self.http_port)) else {
            return false;
        };
        let token = token(self.setup.first_token + index);
        let path = format!("/.well-known/acme-challenge/{token}");
        let asked = write!(
            connection,
            "GET {path} HTTP/1.0\r\nHost: x\r\nUser-Agent: validator\r\n\r\n"
        );
        let mut answer = String::new();
        let read = connection.read_to_string(&mut answer);
        asked.is_ok() && read.is_ok() && answer.ends_with(&format!("\r\n\r\n{token}.{thumbprint}"))
    }

    fn chain(&mut self, number: usize) -> Vec<u8> {
        // Tests have certificates at addresses of their own.
        let order = self.orders.get(number - 1).unwrap_or(&self.orders[0]);
        let request = X509Req::from_der(order.csr.as_deref().unwrap_or_default()).unwrap();
        let names = self
            .identifiers
            .iter()
            .map(|identifier| identifier["value"].as_str().unwrap().to_owned())
            .collect();
        let mut leaf = Leaf {
            key: request.public_key().unwrap(),
            common_name: None,
            names,
            hours: (-1, 24 * 30),
            signer: self.issuer.key.clone(),
            issuers: vec![self.issuer.certificate.clone()],
        };
        (self.setup.leaf)(&mut leaf);
        let mut chain = leaf.issue(&self.issuer).to_pem().unwrap();
        leaf.issuers
            .iter()
            .for_each(|issuer| chain.extend(issuer.to_pem().unwrap()));
        chain
    }
}

/// The token of an authorization's challenge.
pub fn token(index: usize) -> String {
    format!("tOkEn-{index:_>40}")
}

/// What will be issued.
pub struct Leaf {
    pub key: PKey<Public>,
    /// What the subject consists of, if there is one.
    pub common_name: Option<&'static str>,
    /// The subject alternative names. Without any, the certificate lacks the extension.
    pub names: Vec<String>,
    /// Begin and end, from now.
    pub hours: (i64, i64),
    pub signer: PKey<Private>,
    /// The certificates that follow it in the chain.
    pub issuers: Vec<X509>,
}

impl Leaf {
    fn issue(&self, issuer: &Issuer) -> X509 {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder
            .set_issuer_name(issuer.certificate.subject_name())
            .unwrap();
        builder.set_pubkey(&self.key).unwrap();
        set_validity(&mut builder, self.hours);
        if let Some(common_name) = self.common_name {
            builder.set_subject_name(&named(common_name)).unwrap();
        }
        let mut serial = [0; 16];
        openssl::rand::rand_bytes(&mut serial).unwrap();
        let serial = BigNum::from_slice(&serial)
            .unwrap()
            .to_asn1_integer()
            .unwrap();
        builder.set_serial_number(&serial).unwrap();
        let context = builder.x509v3_context(Some(&issuer.certificate), None);
        let issuers_key = AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&context)
            .unwrap();
        builder.append_extension(issuers_key).unwrap();
        if !self.names.is_empty() {
            let mut sans = SubjectAlternativeName::new();
            for name in &self.names {
                if name.parse::<std::net::IpAddr>().is_ok() {
                    sans.ip(name)
                } else {
                    sans.dns(name)
                };
            }
            let sans = sans
                .build(&builder.x509v3_context(Some(&issuer.certificate), None))
                .unwrap();
            builder.append_extension(sans).unwrap();
        }
        builder.sign(&self.signer, MessageDigest::sha256()).unwrap();
        builder.build()
    }
}

/// The name of a subject or an issuer.
fn named(common_name: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", common_name).unwrap();
    name.build()
}

/// A certificate authority's key and certificate.
pub struct Issuer {
    pub key: PKey<Private>,
    pub certificate: X509,
}

impl Issuer {
    pub fn new() -> Issuer {
        Issuer::called("Fake CA")
    }

    pub fn called(common_name: &str) -> Issuer {
        let key = ec_key();
        let name = named(common_name);
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        set_validity(&mut builder, (-24 * 365, 24 * 365));
        let constraints = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(constraints).unwrap();
        let own_key = SubjectKeyIdentifier::new()
            .build(&builder.x509v3_context(None, None))
            .unwrap();
        builder.append_extension(own_key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Issuer {
            certificate: builder.build(),
            key,
        }
    }
}

/// The public half of a key.
pub fn public(key: &PKey<Private>) -> PKey<Public> {
    PKey::public_key_from_pem(&key.public_key_to_pem().unwrap()).unwrap()
}

/// A new key.
pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn set_validity(builder: &mut openssl::x509::X509Builder, (from, until): (i64, i64)) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    builder
        .set_not_before(&Asn1Time::from_unix(now + from * 3600).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(now + until * 3600).unwrap())
        .unwrap();
}

fn verifies(jwk: &Value, signed: &[u8], signature: &[u8]) -> bool {
    let number = |text: &Value| BigNum::from_slice(&BASE64URL.decode(text.as_str()?).ok()?).ok();
    let half = |bytes: &[u8]| BigNum::from_slice(bytes).ok();
    let check = || {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).ok()?;
        let key = EcKey::from_public_key_affine_coordinates(
            &group,
            &*number(&jwk["x"])?,
            &*number(&jwk["y"])?,
        )
        .ok()?;
        let (r, s) = signature.split_at_checked(32)?;
        let pair = EcdsaSig::from_private_components(half(r)?, half(s)?).ok()?;
        Some(s.len() == 32 && pair.verify(&sha256(signed), &key).ok()?)
    };
    check() == Some(true)
}

#[derive(Default)]
struct Head {
    method: String,
    path: String,
    user_agent: String,
    content_type: String,
    has_nonce_header: bool,
    length: usize,
    is_first: bool,
}

/// Reads the head of a request; None at the end of the connection.
fn read_head(from: &mut impl BufRead) -> Option<Head> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut head = Head {
        method: words.next()?,
        path: words.next()?,
        ..Head::default()
    };
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            return Some(head);
        };
        match name.to_ascii_lowercase().as_str() {
            "user-agent" => head.user_agent = value.to_owned(),
            "content-type" => head.content_type = value.to_owned(),
            "content-length" => head.length = value.parse().unwrap(),
            "replay-nonce" => head.has_nonce_header = true,
            _ => {}
        }
    }
}

fn converse(acceptor: &SslAcceptor, connection: TcpStream, state: &Mutex<State>) {
    let Ok(stream) = acceptor.accept(connection) else {
        return;
    };
    let lock = || state.lock().unwrap();
    lock().connections += 1;
    let mut reader = BufReader::new(stream);
    let mut is_first = true;
    while let Some(mut head) = read_head(&mut reader) {
        head.is_first = replace(&mut is_first, false);
        let mut body = vec![0; head.length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        lock().begin();
        let (reply, resource) = lock().reply(&head, &body);
        if let Wire::Behind(count) = reply.wire {
            let started = Instant::now();
            let gone = || lock().answered.get(resource).map_or(0, Vec::len);
            while gone() < count && started.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
        }
        if !matches!(reply.wire, Wire::Hang) {
            // Before the reply goes, for then the next request may come.
            lock().end(resource, &head.path);
        }
        let mut text = format!("HTTP/1.1 {} Whatever\r\n", reply.status);
        for (name, value) in &reply.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let stream = reader.get_mut();
        match reply.wire {
            Wire::Whole | Wire::Behind(_) | Wire::Last => {
                let has_length = reply
                    .headers
                    .iter()
                    .any(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
                if !has_length {
                    let _ = write!(text, "Content-Length: {}\r\n", reply.body.len());
                }
                text += "\r\n";
                let body: &[u8] = if head.method == "HEAD" {
                    b""
                } else {
                    &reply.body
                };
                if stream.write_all(&[text.as_bytes(), body].concat()).is_err() {
                    return;
                }
                if matches!(reply.wire, Wire::Last) {
                    let _ = stream.read(&mut [0]);
                    return;
                }
            }
            Wire::Closing => {
                let head = text.replace("HTTP/1.1", "HTTP/1.0") + "\r\n";
                let _ = stream.write_all(&[head.as_bytes(), &reply.body].concat());
                let _ = stream.shutdown();
                return;
            }
            Wire::Close => return,
            Wire::Hang => {
                let _ = stream.read(&mut [0]);
                return;
            }
            Wire::Garbled => {
                let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                return;
            }
            Wire::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown();
                return;
            }
            Wire::Endless(bytes, pause) => {
                text += "Transfer-Encoding: chunked\r\n\r\n";
                let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
                let mut alive = stream.write_all(text.as_bytes()).is_ok();
                while alive {
                    alive = stream.write_all(&chunk).is_ok();
                    thread::sleep(pause);
                }
                return;
            }
        }
    }
}
