//! The conversation's carrier: signed requests, nonces, retries, and the deadline of the whole run.
//! The only file on the CA's network.

use std::mem::replace;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use log::{info, warn};
use openssl::asn1::Asn1Time;
use openssl::rand::rand_bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Method, Request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Proxy, ProxyProtocol};

use crate::account_key::AccountKey;
use crate::failure::Failure;
use crate::input;
use crate::resources::{AcmeUrl, Directory, Problem, is_base64url};
use crate::tls::TlsConnector;
use crate::trace::Exchange;

/// How many requests are under way at a time: enough to hide round trips, few enough for CAs' limits.
pub const WIDTH: usize = 8;
/// How long one request may take, and reaching the CA for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the download of an issued certificate may take after the deadline.
const DOWNLOAD_GRACE: Duration = Duration::from_secs(4);
/// How long the requests that are under way may take once the run has failed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A timeout of none at all would mean that there is no bound.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// Largest reply that is read, in bytes.
const MAX_REPLY: u64 = 1 << 20;
/// What a connection buffers each way, in bytes.
pub const BUFFER: usize = 16 << 10;
/// Tries of one request that the CA refuses for its nonce alone, and how many go without a pause.
const MAX_NONCE_TRIES: u32 = 200;
const FREE_NONCE_TRIES: u32 = 5;
/// How long a nonce that is on its way is waited for.
const NONCE_WAIT: Duration = Duration::from_secs(3);
const NONCE_PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause after a fault; each pause doubles the one before.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The longest Retry-After that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Between polls: the first pause and the longest; each is a tenth longer than the one before.
const FIRST_POLL: Duration = Duration::from_millis(50);
const MAX_POLL: Duration = Duration::from_secs(5);
/// The longest that a CA's Retry-After can make a poll wait.
const MAX_POLL_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Silence after which a wait says what it waits for.
const NEWS: Duration = Duration::from_secs(5);
/// Client and HTTP library (RFC 8555 §6.1).
pub const USER_AGENT: &str = concat!("getcrt/", env!("CARGO_PKG_VERSION"), " ureq/3.5");

/// A client of one CA, for one account.
pub struct Client<'a> {
    agent: Agent,
    key: &'a AccountKey,
    end: Instant,
    directory: Option<Directory>,
    account: Option<AcmeUrl>,
    shared: Arc<Shared>,
}

/// What the threads of a run share.
#[derive(Default)]
struct Shared {
    pool: Mutex<Pool>,
    has_changed: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Nonces for requests to come (§6.5), and how many more are on their way.
    nonces: Vec<String>,
    coming: usize,
    /// Whether the run has failed, after which nothing is waited for.
    has_failed: bool,
}

/// What the CA answered, read to its end.
#[derive(Default)]
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
        let tcp = ConnectProxyConnector::default().chain(TcpConnector::default());
        let tls = match ca_bundle {
            Some(path) => input::load(path, |pem, _| TlsConnector::trusting(Some(pem), tcp))?,
            None => TlsConnector::trusting(None, tcp)?,
        };
        let proxy = Proxy::try_from_env();
        let kind = proxy.as_ref().map_or(ProxyProtocol::Http, Proxy::protocol);
        let is_spoken = matches!(kind, ProxyProtocol::Http | ProxyProtocol::Https);
        let told = "the environment asks for a SOCKS proxy; only http(s) proxies are spoken";
        ensure!(is_spoken, told);
        let config = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            // §6.4: the signature names the URL, so a redirect cannot be followed.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .accept("application/pem-certificate-chain, */*")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            // A pass over many names keeps as many connections as it has workers.
            .max_idle_connections_per_host(WIDTH)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .proxy(proxy)
            .build();
        let agent = Agent::with_parts(config, tls, DefaultResolver::default());
        Ok(Client {
            agent,
            key,
            end: Instant::now() + timeout,
            directory: None,
            account: None,
            shared: Arc::default(),
        })
    }

    /// Fetches the CA's directory (§7.1.1), once; nonces come from where it says from now on.
    ///
    /// # Errors
    /// The CA cannot be reached within the deadline, or what is there is no RFC 8555 directory.
    pub fn directory(&mut self, url: &str) -> Result<Directory> {
        if let Some(directory) = &self.directory {
            return Ok(directory.clone());
        }
        let url = AcmeUrl::try_from(url.to_owned()).map_err(Error::msg)?;
        let reply = self.get(&url)?;
        let v1: Value = reply.json().unwrap_or_default();
        if v1["new-reg"].is_string() {
            bail!("{url} speaks ACME v1, which is out of use; name the CA's RFC 8555 directory");
        }
        let directory = reply.json::<Directory>();
        let directory = directory.with_context(|| format!("{url} is no directory"))?;
        self.directory = Some(directory.clone());
        Ok(directory)
    }

    /// A request that is not signed: for the directory, and for renewal information.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached within the deadline.
    pub fn get(&self, url: &AcmeUrl) -> Result<Reply> {
        self.exchange_unsigned(Method::GET, url)
    }

    /// Does `work` in `time` at most, or until the deadline if that is sooner.
    pub fn hurried<T>(&mut self, time: Duration, work: impl FnOnce(&mut Self) -> T) -> T {
        let end = self.end;
        self.end = end.min(Instant::now() + time);
        let result = work(self);
        self.end = end;
        result
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
        let payload = payload.to_string();
        self.exchange_until(url, Fate::Unknown, || self.send_signed(url, &payload))
    }

    /// Reads the object at `url`, whose `latest` state may be known, until `look` has found what it
    /// wants in it. The pauses grow, and are never shorter than the CA asks in the reply that `look`
    /// leaves behind.
    ///
    /// # Errors
    /// What `look` says, the CA refuses, or the deadline has come; then the message says `what` is
    /// still waited for.
    pub fn poll<T>(
        &self,
        url: &AcmeUrl,
        mut latest: Option<Reply>,
        what: impl Fn() -> String,
        mut look: impl FnMut(&mut Reply) -> Result<Option<T>>,
    ) -> Result<T> {
        let (began, mut told, mut pause) = (Instant::now(), Instant::now(), FIRST_POLL);
        loop {
            let mut reply = latest.take().map_or_else(|| self.read(url), Ok)?;
            if let Some(found) = look(&mut reply)? {
                return Ok(found);
            }
            let wait = pause.max(reply.poll_after());
            if told.elapsed() + wait >= NEWS {
                told = Instant::now();
                let (what, so_far) = (what(), began.elapsed().as_secs());
                info!("Waiting for {what}, {so_far} s so far...");
            }
            if wait >= self.remaining() {
                let (what, left) = (what(), self.remaining().as_secs());
                let wait = wait.as_secs_f32().ceil();
                bail!(
                    "waiting for {what}: to look again in {wait} s is too late for --timeout, in {left} s"
                );
            }
            self.pause(wait)?;
            pause = (pause * 11 / 10).min(MAX_POLL);
        }
    }

    /// Fetches the chain (§7.4.2). An issued certificate is not lost to a deadline that is just over.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached within the grace.
    pub fn download(&mut self, url: &AcmeUrl) -> Result<Reply> {
        self.end = self.end.max(Instant::now() + DOWNLOAD_GRACE);
        self.read(url)
    }

    /// Opens the connections of the passes over `names` names, each with a nonce, while account and
    /// order are made. What fails here is met again, and told, by the request that needs it.
    pub fn prepare(&self, names: usize) {
        let Some(directory) = self.directory.as_ref().filter(|_| names > 1) else {
            return;
        };
        let width = WIDTH.min(names);
        self.shared.lock().coming += width;
        for _ in 0..width {
            let (agent, end, shared) = (self.agent.clone(), self.end, self.shared.clone());
            let url = directory.new_nonce.clone();
            let fetch = move || {
                let request = Request::head(url.as_str());
                shared.arrive(send(&agent, end, request, (), "").ok().as_ref(), 1);
            };
            if thread::Builder::new().spawn(fetch).is_err() {
                self.shared.arrive(None, 1);
            }
        }
    }

    /// A nonce for one request (§7.2): the newest that a reply has brought, or else a fresh one.
    fn nonce(&self) -> Result<String> {
        let is_coming = |pool: &mut Pool| pool.nonces.is_empty() && pool.coming > 0;
        let most = NONCE_WAIT.min(self.remaining());
        let mut pool = self.shared.wait_while(most, is_coming);
        if let Some(nonce) = pool.nonces.pop() {
            return Ok(nonce);
        }
        // What is late, or lost with its thread, is waited for no more.
        pool.coming = 0;
        drop(pool);
        let directory = self
            .directory
            .as_ref()
            .context("no directory has been read")?;
        let url = &directory.new_nonce;
        let reply = self.exchange_unsigned(Method::HEAD, url)?;
        let nonce = reply.nonce().map(str::to_owned);
        nonce.with_context(|| format!("{url} gives no usable Replay-Nonce"))
    }

    fn exchange_unsigned(&self, method: Method, url: &AcmeUrl) -> Result<Reply> {
        self.exchange(url, || {
            let request = Request::builder().method(&method).uri(url.as_str());
            Ok(send(&self.agent, self.end, request, (), ""))
        })
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
            if self.remaining().is_zero() {
                bail!("no time left (--timeout) for {url}");
            }
            let (mut failure, fate, asked) = match attempt()? {
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
            let wait = jittered(backoff).max(asked.unwrap_or_default());
            if fate == Fate::Final || wait >= self.remaining() {
                let back = asked.filter(|wait| !wait.is_zero()).and_then(from_now);
                let hint = match back {
                    Some(moment) => Some(format!("the CA asks to come back after {moment}")),
                    None if fate == Fate::Final => None,
                    None => Some("no time was left (--timeout) for another try".to_owned()),
                };
                failure.hint = failure.hint.or(hint);
                return Err(Error::new(failure).context(url.to_string()));
            }
            self.pause(Duration::ZERO)?;
            let is_open = fate == Fate::Unknown && stop == fate;
            let then = if is_open {
                "looking what became of it"
            } else {
                "trying again"
            };
            let seconds = wait.as_secs_f32().ceil();
            warn!("{url}: {failure}; {then} in {seconds} s");
            self.pause(wait)?;
            if is_open {
                return Ok(None);
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn send_signed(&self, url: &AcmeUrl, payload: &str) -> Result<Attempt> {
        let mut protected = json!({"nonce": self.nonce()?, "url": url});
        // §6.2: the key itself in newAccount, the account's URL everywhere else.
        match &self.account {
            Some(account) => protected["kid"] = json!(account),
            None => protected["jwk"] = self.key.jwk.clone(),
        }
        let jws = self.key.sign(protected, payload);
        let jws = jws.context("cannot sign with the account key")?;
        let request = Request::post(url.as_str()).header("Content-Type", "application/jose+json");
        let reply = send(&self.agent, self.end, request, &jws, &jws);
        self.shared.arrive(reply.as_ref().ok(), 0);
        Ok(reply)
    }

    /// Ends all waiting, for the run has failed: pauses at once, requests in a moment. False: it had
    /// failed before.
    pub fn give_up(&self) -> bool {
        let is_first = !replace(&mut self.shared.lock().has_failed, true);
        self.shared.has_changed.notify_all();
        let agent = self.agent.clone();
        thread::spawn(move || (sleep(LAST_WORDS), agent.shutdown()));
        is_first
    }

    /// Waits as long as that, unless the run has failed.
    ///
    /// # Errors
    /// It has, before or meanwhile.
    pub fn pause(&self, wait: Duration) -> Result<()> {
        let pool = self.shared.wait_while(wait, |pool| !pool.has_failed);
        ensure!(!pool.has_failed, "the run has failed by now");
        Ok(())
    }

    /// What is left until the deadline.
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, time: Duration, so: impl Fn(&mut Pool) -> bool) -> MutexGuard<'_, Pool> {
        let waited = self.has_changed.wait_timeout_while(self.lock(), time, so);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Keeps the nonce of a reply, for which `awaited` were on their way.
    fn arrive(&self, reply: Option<&Reply>, awaited: usize) {
        let mut pool = self.lock();
        let nonce = reply.and_then(Reply::nonce);
        pool.nonces.extend(nonce.map(str::to_owned));
        pool.coming = pool.coming.saturating_sub(awaited);
        self.has_changed.notify_all();
    }
}

/// One request and its reply, which must be there by `end`; `jws` is what the body is, if it is one.
fn send(
    agent: &Agent,
    end: Instant,
    request: ureq::http::request::Builder,
    body: impl AsSendBody,
    jws: &str,
) -> Attempt {
    let request = request.header("Accept-Language", "en").body(body)?;
    let exchange = Exchange::with_the_ca(&request, jws);
    let left = end.saturating_duration_since(Instant::now());
    let timeout = REQUEST_TIMEOUT.min(left).max(MIN_TIMEOUT);
    let request = agent.configure_request(request);
    let request = request.timeout_global(Some(timeout)).build();
    let reply = agent.run(request).and_then(|reply| {
        let (parts, mut body) = reply.into_parts();
        let body = body.with_config().limit(MAX_REPLY).read_to_vec()?;
        Ok((parts, body))
    });
    if let Some(exchange) = exchange {
        exchange.end(reply.as_ref().map(|(parts, body)| (parts, body.as_slice())));
    }
    let (parts, body) = reply?;
    Ok(Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
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
        let location = self.header("Location");
        let location = location.context("the CA's reply has no Location header")?;
        AcmeUrl::try_from(location.to_owned()).map_err(Error::msg)
    }

    /// The nonce that it brings; one that is not base64url is ignored (§6.5.1).
    fn nonce(&self) -> Option<&str> {
        let nonce = self.header("Replay-Nonce");
        nonce.filter(|nonce| is_base64url(nonce))
    }

    /// How long the CA asks to wait between polls, up to a cap.
    pub fn poll_after(&self) -> Duration {
        let asked = self.retry_after().unwrap_or_default();
        asked.min(MAX_POLL_RETRY_AFTER)
    }

    /// How long the CA asks to wait (RFC 9110 §10.2.3): seconds or a date. Nonsense is ignored.
    fn retry_after(&self) -> Option<Duration> {
        let value = self.header("Retry-After")?;
        let wait = value.parse().ok().or_else(|| seconds_until(value))?;
        Some(Duration::from_secs(wait).min(MAX_RETRY_AFTER))
    }

    /// Where the CA has the same certificate with another chain (§7.4.2, RFC 8288 §3): several links
    /// can be in one header, and `rel` need not be quoted.
    pub fn alternates(&self) -> Vec<AcmeUrl> {
        let headers = self
            .headers
            .get_all("Link")
            .iter()
            .filter_map(|value| value.to_str().ok());
        // A `<` begins the URL of a link; the parameters after its `>` reach to the next one.
        let links = headers.flat_map(|value| value.split('<').skip(1));
        let links = links.filter_map(|link| link.split_once('>'));
        let is_alternate = |parameter: &str| {
            let parameter = parameter
                .trim()
                .trim_end_matches(',')
                .replace([' ', '"'], "");
            parameter.eq_ignore_ascii_case("rel=alternate")
        };
        let alternates = links.filter(|(_, parameters)| parameters.split(';').any(is_alternate));
        let urls = alternates.map(|(url, _)| AcmeUrl::try_from(url.to_owned()));
        urls.filter_map(Result::ok).collect()
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
        let page = problem.text("instance");
        let page = page.filter(|_| problem.is("userActionRequired"));
        let hint = page.map(|url| format!("the CA wants you to visit {url}"));
        let failure = Failure::new(format!("HTTP {status}, {problem}"));
        let mut failure = failure.below(problem.below()).hint(hint);
        failure.problem = problem;
        failure
    }

    fn fate(&self, stop: Fate) -> Fate {
        match self.status {
            429 => Fate::Refused,
            // The CA is at it already, so another request has come through.
            409 => stop,
            _ if self.problem().is("orderNotReady") => stop,
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
        ureq::Error::Other(inner) => match inner.downcast() {
            Ok(failure) => (*failure, Fate::Final),
            Err(inner) => (Failure::new(inner.to_string()), Fate::Final),
        },
        ureq::Error::BodyExceedsLimit(_)
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::BadUri(_) => (Failure::new(error.to_string()), Fate::Final),
        ureq::Error::Io(io) => {
            let line = format!("the connection failed: {io}");
            (Failure::new(line), Fate::Unknown)
        }
        ureq::Error::Timeout(_) => (Failure::new("no answer in time"), Fate::Unknown),
        error => (Failure::new(error.to_string()), Fate::Unknown),
    };
    (failure, fate, None)
}

/// The moment `wait` from now, as a person reads it.
fn from_now(wait: Duration) -> Option<String> {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).ok()? + wait;
    let moment = Asn1Time::from_unix(moment.as_secs().try_into().ok()?);
    Some(moment.ok()?.to_string())
}

/// Seconds until an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`; zero where it is past.
fn seconds_until(date: &str) -> Option<u64> {
    let parts: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(month)? / 3 + 1;
    let moment = format!("{year}{month:02}{day}{}Z", time.replace(':', ""));
    let (now, moment) = (Asn1Time::days_from_now(0), Asn1Time::from_str(&moment));
    let wait = now.ok()?.diff(&*moment.ok()?).ok()?;
    let seconds = i64::from(wait.days) * 86_400 + i64::from(wait.secs);
    Some(seconds.try_into().unwrap_or(0))
}

/// A pause of half to all of `pause`, so that many clients do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [u8::MAX];
    // Without randomness the pause is whole, which is fine too.
    let _ = rand_bytes(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use openssl::asn1::Asn1TimeRef;
    use proptest::prelude::*;

    use super::*;

    fn asked(value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("Retry-After", value.parse().ok()?);
        let reply = Reply {
            status: 503,
            headers,
            body: Vec::new(),
        };
        reply.retry_after().map(|wait| wait.as_secs())
    }

    /// A moment as HTTP writes it, by way of OpenSSL's `Nov  6 08:49:37 1994 GMT`.
    fn http_date(moment: &Asn1TimeRef) -> String {
        let text = moment.to_string();
        let parts: Vec<&str> = text.split_whitespace().collect();
        format!(
            "Sun, {:0>2} {} {} {} GMT",
            parts[1], parts[0], parts[3], parts[2]
        )
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        assert_eq!(asked("0"), Some(0));
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("1000000000"), Some(MAX_RETRY_AFTER.as_secs()));
        for nonsense in [
            "",
            "-1",
            "soon",
            "1.5",
            "99999999999999999999999",
            "Sun, 99 Foo 2026 08:49:37 GMT",
        ] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        let tomorrow = asked(&http_date(&Asn1Time::days_from_now(1).unwrap())).unwrap();
        assert!((86_000..=86_400).contains(&tomorrow), "{tomorrow}");
        let far = asked(&http_date(&Asn1Time::days_from_now(4000).unwrap()));
        assert_eq!(far, Some(MAX_RETRY_AFTER.as_secs()));
    }

    /// Several links in one header, several headers, with and without quotes.
    #[test]
    fn links_to_alternate_chains() {
        let mut headers = HeaderMap::new();
        for value in [
            r#"<https://ca.test/directory>;rel="index""#,
            r#"<https://ca.test/a>; rel="alternate", <https://ca.test/up>;rel=up,<https://ca.test/b>;title="x; y, z";rel=alternate"#,
            "<http://ca.test/c>;rel=alternate",
            "rel=alternate",
        ] {
            headers.append("Link", value.parse().unwrap());
        }
        let reply = Reply {
            status: 200,
            headers,
            body: Vec::new(),
        };
        let urls = reply.alternates();
        let urls: Vec<&str> = urls.iter().map(AcmeUrl::as_str).collect();
        assert_eq!(urls, ["https://ca.test/a", "https://ca.test/b"]);
    }

    proptest! {
        #![proptest_config(crate::tests::cases())]

        #[test]
        fn any_retry_after_is_bounded(
            value in "-?[0-9]{0,25}|[A-Z][a-z]{2}, [0-9]{1,3} (Jan|Feb|Dec|Foo|anF) [0-9]{0,6} [0-9:]{0,9} GMT|\\PC*",
        ) {
            prop_assert!(asked(&value).is_none_or(|wait| wait <= MAX_RETRY_AFTER.as_secs()));
        }

        #[test]
        fn any_link_is_https(
            links in prop::collection::vec("(<https?://[a-z]{1,5}\\.test/[a-z]{0,3}>; ?(rel=\"?(alternate|up)\"?|x=y),? ?)|\\PC{0,20}", 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for value in links.iter().filter_map(|link| link.parse().ok()) {
                headers.append("Link", value);
            }
            let reply = Reply { status: 200, headers, body: Vec::new() };
            let urls = reply.alternates();
            prop_assert!(urls.iter().all(|url| url.as_str().starts_with("https://")));
        }

        #[test]
        fn any_reply_can_be_told(status in 200u16..600, body: Vec<u8>) {
            let reply = Reply { status, headers: HeaderMap::new(), body };
            let told = reply.failure().to_string();
            prop_assert!(told.len() < 5000);
            let _ = (reply.json::<Directory>(), reply.location());
        }
    }
}
