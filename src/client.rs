//! The conversation's carrier: signed requests, nonces, retries, and the deadline of the whole run.
//! The only file on the CA's network.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result, anyhow, ensure};
use log::{Level, debug, info, log_enabled, warn};
use openssl::asn1::Asn1Time;
use openssl::rand::rand_bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Proxy, ProxyProtocol};

use crate::account_key::AccountKey;
use crate::failure::Failure;
use crate::input;
use crate::resources::{AcmeUrl, Directory, Problem, Token};
use crate::tls::{Refused, TlsConnector};

/// How long one request may take, and reaching the CA for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest reply that is read, in bytes.
const MAX_REPLY: u64 = 1 << 20;
/// Tries of one request that the CA refuses for its nonce alone, and how many go without a pause.
const MAX_NONCE_TRIES: u32 = 200;
const FREE_NONCE_TRIES: u32 = 5;
const NONCE_PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause after a fault; each pause doubles the one before.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The longest Retry-After that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Between polls: the first pause and the longest; each is a quarter longer than the one before.
const FIRST_POLL: Duration = Duration::from_millis(100);
const MAX_POLL: Duration = Duration::from_secs(5);
/// The longest that a CA's Retry-After can make a poll wait.
const MAX_POLL_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Silence after which a wait says what it waits for.
const NEWS: Duration = Duration::from_secs(10);
/// Client and HTTP library (RFC 8555 §6.1).
pub const USER_AGENT: &str = concat!("getcrt/", env!("CARGO_PKG_VERSION"), " ureq/3.5");

/// A client of one CA, for one account.
pub struct Client<'a> {
    agent: Agent,
    key: &'a AccountKey,
    end: Instant,
    new_nonce: Option<AcmeUrl>,
    account: Option<AcmeUrl>,
    nonces: Mutex<Vec<Token>>,
}

/// What the CA answered, read to its end.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// What a request that failed leaves to be done.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Nothing: it would fail again.
    Final,
    /// The CA has not acted, and may the next time.
    Refused,
    /// The CA may have acted, and may not.
    Unknown,
}

impl<'a> Client<'a> {
    /// A client that has not spoken yet. `timeout` bounds all that it will ever do.
    ///
    /// # Errors
    /// `ca_bundle` is unusable, or the environment asks for a proxy of a kind that is not spoken.
    pub fn new(key: &'a AccountKey, ca_bundle: Option<&Path>, timeout: Duration) -> Result<Self> {
        let tls = match ca_bundle {
            Some(path) => input::load(path, |pem, _| TlsConnector::trusting(Some(pem)))?,
            None => TlsConnector::trusting(None)?,
        };
        let proxy = Proxy::try_from_env();
        let kind = proxy.as_ref().map_or(ProxyProtocol::Http, Proxy::protocol);
        let is_spoken = matches!(kind, ProxyProtocol::Http | ProxyProtocol::Https);
        ensure!(
            is_spoken,
            "the environment asks for a SOCKS proxy; only http(s) proxies are spoken"
        );
        let config = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            // §6.4: the signature names the URL, so a redirect cannot be followed.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .accept("application/pem-certificate-chain, */*")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .proxy(proxy)
            .build();
        let tcp = ConnectProxyConnector::default().chain(TcpConnector::default());
        let agent = Agent::with_parts(config, tcp.chain(tls), DefaultResolver::default());
        let (end, nonces) = (Instant::now() + timeout, Mutex::default());
        Ok(Client {
            agent,
            key,
            end,
            new_nonce: None,
            account: None,
            nonces,
        })
    }

    /// Fetches the CA's directory (§7.1.1); nonces come from where it says from now on.
    ///
    /// # Errors
    /// The CA cannot be reached within the deadline, or what is there is no RFC 8555 directory.
    pub fn directory(&mut self, url: &str) -> Result<Directory> {
        let url = AcmeUrl::try_from(url.to_owned()).map_err(Error::msg)?;
        let reply = self.exchange(&url, || {
            debug!("GET {url}");
            Ok(self.send(Request::get(url.as_str()), ()))
        })?;
        let is_v1 = reply
            .json::<Value>()
            .is_ok_and(|directory| directory["new-reg"].is_string());
        ensure!(
            !is_v1,
            "{url} speaks ACME v1, which is out of use; name the CA's RFC 8555 directory"
        );
        let directory: Directory = reply
            .json()
            .with_context(|| format!("{url} is no directory"))?;
        self.new_nonce = Some(directory.new_nonce.clone());
        Ok(directory)
    }

    /// Makes the account known, or finds it (§7.3). From now on requests are signed in its name.
    ///
    /// # Errors
    /// The CA refuses, or does not say where the account is.
    pub fn register(&mut self, new_account: &AcmeUrl, payload: &Value) -> Result<(AcmeUrl, Reply)> {
        let reply = self.post(new_account, payload)?;
        let account = reply.location()?;
        self.account = Some(account.clone());
        Ok((account, reply))
    }

    /// A signed request that may be repeated without harm.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached within the deadline.
    pub fn post(&self, url: &AcmeUrl, payload: &Value) -> Result<Reply> {
        self.exchange(url, || self.send_signed(url, &payload.to_string()))
    }

    /// A signed read, POST-as-GET (§6.3): its payload is nothing at all.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached within the deadline.
    pub fn read(&self, url: &AcmeUrl) -> Result<Reply> {
        self.exchange(url, || self.send_signed(url, ""))
    }

    /// A signed request that asks the CA to act once. None: the reply is lost, or it says that the
    /// CA is at it already; the object tells what became of it.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached within the deadline.
    pub fn post_once(&self, url: &AcmeUrl, payload: &Value) -> Result<Option<Reply>> {
        self.exchange_until(url, Fate::Unknown, || {
            self.send_signed(url, &payload.to_string())
        })
    }

    /// Reads the object at `url` until `look` has found what it wants in it. The pauses grow, and
    /// are never shorter than the CA asks in the reply that `look` leaves behind.
    ///
    /// # Errors
    /// What `look` says, the CA refuses, or the deadline has come; then the message says `what` was
    /// waited for.
    pub fn poll<T>(
        &self,
        url: &AcmeUrl,
        what: &str,
        mut look: impl FnMut(&mut Reply) -> Result<Option<T>>,
    ) -> Result<T> {
        let (began, mut told, mut pause) = (Instant::now(), Instant::now(), FIRST_POLL);
        loop {
            let mut reply = self.read(url)?;
            if let Some(found) = look(&mut reply)? {
                return Ok(found);
            }
            let asked = reply
                .retry_after()
                .unwrap_or_default()
                .min(MAX_POLL_RETRY_AFTER);
            let wait = pause.max(asked);
            if told.elapsed() + wait >= NEWS {
                told = Instant::now();
                info!(
                    "Waiting for {what}, {} s so far...",
                    began.elapsed().as_secs()
                );
            }
            ensure!(
                wait < self.remaining(),
                "no time left (--timeout) to wait for {what}"
            );
            sleep(wait);
            pause = (pause * 5 / 4).min(MAX_POLL);
        }
    }

    /// A nonce for one request (§7.2): the newest that a reply has brought, or else a fresh one.
    fn nonce(&self) -> Result<Token> {
        if let Some(nonce) = self.nonces().pop() {
            return Ok(nonce);
        }
        let url = self
            .new_nonce
            .as_ref()
            .context("no directory has been read")?;
        self.exchange(url, || {
            debug!("HEAD {url}");
            Ok(self.send(Request::head(url.as_str()), ()))
        })?;
        self.nonces()
            .pop()
            .with_context(|| format!("{url} gives no usable Replay-Nonce"))
    }

    fn nonces(&self) -> MutexGuard<'_, Vec<Token>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(&self, url: &AcmeUrl, attempt: impl Fn() -> Result<Attempt>) -> Result<Reply> {
        let reply = self.exchange_until(url, Fate::Final, attempt)?;
        reply.with_context(|| format!("no reply from {url}"))
    }

    /// Tries `attempt` until the CA answers it, a failure has the fate `stop` (then None), or a
    /// final failure or the deadline ends it.
    fn exchange_until(
        &self,
        url: &AcmeUrl,
        stop: Fate,
        attempt: impl Fn() -> Result<Attempt>,
    ) -> Result<Option<Reply>> {
        let (mut refused_nonces, mut backoff) = (0, FIRST_BACKOFF);
        loop {
            let (failure, fate, asked) = match attempt()? {
                Ok(reply) if reply.status < 300 => return Ok(Some(reply)),
                Ok(reply) if reply.problem().is("badNonce") && refused_nonces < MAX_NONCE_TRIES => {
                    // §6.5: the error brought the nonce for the next try.
                    refused_nonces += 1;
                    if refused_nonces > FREE_NONCE_TRIES {
                        sleep(NONCE_PAUSE.min(self.remaining()));
                    }
                    continue;
                }
                Ok(reply) => (reply.failure(), reply.fate(stop), reply.retry_after()),
                Err(error) => explain(error),
            };
            if fate == Fate::Unknown && stop == fate {
                warn!("{url}: {failure}; looking at what became of it");
                return Ok(None);
            }
            let wait = jittered(backoff).max(asked.unwrap_or_default());
            if fate == Fate::Final || wait >= self.remaining() {
                let hint = asked
                    .and_then(from_now)
                    .map(|at| format!("the CA asks to come back after {at}"));
                let failure = if failure.hint.is_none() {
                    failure.hint(hint)
                } else {
                    failure
                };
                return Err(Error::new(failure).context(url.to_string()));
            }
            warn!(
                "{url}: {failure}; trying again in {} s",
                wait.as_secs_f32().ceil()
            );
            sleep(wait);
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn send_signed(&self, url: &AcmeUrl, payload: &str) -> Result<Attempt> {
        let mut protected = json!({"nonce": self.nonce()?.as_str(), "url": url.as_str()});
        // §6.2: the key itself in newAccount, the account's URL everywhere else.
        match &self.account {
            Some(account) => protected["kid"] = json!(account.as_str()),
            None => protected["jwk"] = self.key.jwk().clone(),
        }
        let jws = self
            .key
            .sign(protected, payload)
            .context("cannot sign with the account key")?;
        debug!("POST {url}");
        trace(payload.as_bytes());
        let request = Request::post(url.as_str()).header("Content-Type", "application/jose+json");
        Ok(self.send(request, jws))
    }

    /// One request and its reply, whose nonce is kept.
    fn send(&self, request: ureq::http::request::Builder, body: impl AsSendBody) -> Attempt {
        let request = request.header("Accept-Language", "en").body(body)?;
        let timeout = REQUEST_TIMEOUT
            .min(self.remaining())
            .max(Duration::from_millis(1));
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(timeout))
            .build();
        let (parts, mut body) = self.agent.run(request)?.into_parts();
        let body = body.with_config().limit(MAX_REPLY).read_to_vec()?;
        let reply = Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        };
        debug!("{}", parts.status);
        trace(&reply.body);
        // §6.5.1: a nonce that is not base64url is ignored.
        let nonce = reply
            .header("Replay-Nonce")
            .map(|nonce| Token::try_from(nonce.to_owned()));
        self.nonces().extend(nonce.and_then(Result::ok));
        Ok(reply)
    }

    fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

type Attempt = Result<Reply, ureq::Error>;

impl Reply {
    /// The body as a resource.
    ///
    /// # Errors
    /// The body is not JSON, or not of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| match error.is_data() {
            true => anyhow!("the CA's reply is not as RFC 8555 has it: {error}"),
            false => anyhow!("the CA's reply is not JSON: {}", self.beginning()),
        })
    }

    /// The URL of the object that this reply made, which is told here only.
    ///
    /// # Errors
    /// The reply has none, or one that is no https URL.
    pub fn location(&self) -> Result<AcmeUrl> {
        let location = self
            .header("Location")
            .context("the CA's reply has no Location header")?;
        AcmeUrl::try_from(location.to_owned()).map_err(Error::msg)
    }

    /// How long the CA asks to wait (RFC 9110 §10.2.3): seconds or a date. Nonsense is ignored.
    fn retry_after(&self) -> Option<Duration> {
        let value = self.header("Retry-After")?;
        let wait = value.parse().ok().or_else(|| seconds_until(value))?;
        Some(Duration::from_secs(wait).min(MAX_RETRY_AFTER))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn problem(&self) -> Problem {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What went wrong: by the problem document, or else by the beginning of what is there.
    fn failure(&self) -> Failure {
        let (status, problem) = (self.status, self.problem());
        if problem.is_empty() && serde_json::from_slice::<Value>(&self.body).is_err() {
            return Failure::new(format!("HTTP {status}, {}", self.beginning()));
        }
        let visit = problem
            .text("instance")
            .filter(|_| problem.is("userActionRequired"));
        let hint = visit.map(|url| format!("the CA wants you to visit {url}"));
        Failure::new(format!("HTTP {status}, {problem}"))
            .below(problem.below())
            .hint(hint)
    }

    fn fate(&self, stop: Fate) -> Fate {
        match self.status {
            429 => Fate::Refused,
            409 => stop,
            500.. => Fate::Unknown,
            _ => Fate::Final,
        }
    }

    fn beginning(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        match text.trim() {
            "" => "an empty reply".to_owned(),
            json if json.starts_with(['{', '[']) => "damaged JSON".to_owned(),
            text => format!("a reply that begins `{text}`"),
        }
    }
}

/// A failure below HTTP.
fn explain(error: ureq::Error) -> (Failure, Fate, Option<Duration>) {
    let (failure, fate) = match error {
        ureq::Error::Other(inner) => {
            let hint = inner.downcast_ref::<Refused>().and_then(Refused::hint);
            (Failure::new(inner.to_string()).hint(hint), Fate::Final)
        }
        ureq::Error::BodyExceedsLimit(limit) => (
            Failure::new(format!("the reply is longer than {limit} bytes")),
            Fate::Final,
        ),
        ureq::Error::Timeout(_) => (Failure::new("no answer in time"), Fate::Unknown),
        ureq::Error::Io(io) => (
            Failure::new(format!("the connection failed: {io}")),
            Fate::Unknown,
        ),
        error => (Failure::new(error.to_string()), Fate::Unknown),
    };
    (failure, fate, None)
}

/// The moment `wait` from now, as a person reads it.
fn from_now(wait: Duration) -> Option<String> {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).ok()? + wait;
    Some(
        Asn1Time::from_unix(moment.as_secs().try_into().ok()?)
            .ok()?
            .as_ref()
            .to_string(),
    )
}

/// Seconds until an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`; zero where it is past.
fn seconds_until(date: &str) -> Option<u64> {
    let parts: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(month)? / 3 + 1;
    let moment = format!("{year}{month:02}{day}{}Z", time.replace(':', ""));
    let wait = Asn1Time::days_from_now(0)
        .ok()?
        .diff(Asn1Time::from_str(&moment).ok()?.as_ref())
        .ok()?;
    Some(
        (i64::from(wait.days) * 86_400 + i64::from(wait.secs))
            .try_into()
            .unwrap_or(0),
    )
}

/// A pause of half to all of `pause`, so that many clients do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [u8::MAX];
    // Without randomness the pause is whole, which is fine too.
    let _ = rand_bytes(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

/// Shows a payload or a body, JSON laid out to be read.
fn trace(body: &[u8]) {
    if log_enabled!(Level::Debug) {
        let json = serde_json::from_slice(body)
            .and_then(|json: Value| serde_json::to_string_pretty(&json));
        let text = json.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
        text.lines().for_each(|line| debug!("    {line}"));
    }
}
