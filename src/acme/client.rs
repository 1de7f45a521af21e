//! Signed requests to one CA for one account. The client adds nonces, tries again after errors, and keeps the
//! deadline.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use log::warn;
use openssl::rand::rand_bytes;
use serde_json::{Value, json};

use super::account_key::{AccountKey, Jws};
use super::nonces::NoncePool;
use super::purpose::Purpose;
use super::request_error::RequestError;
use super::resources::{AcmeUrl, Directory};
use super::response::Response;
use super::retry::{Decision, Effect, Reason, Retries};
use super::transport::{MAX_CONNECTIONS, Request, Transport};
use crate::deadline::{Cancelled, Deadline};
use crate::error::Failure;
use crate::time;

/// How long opening connections ahead may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// How much this machine's clock may differ from the CA's without a word, in seconds. Replies can be held up.
const TOLERATED_CLOCK_ERROR: u64 = 3600;
/// How much it may differ with a warning, in seconds.
const MAX_CLOCK_ERROR: u64 = 86_400;

/// A client of one CA, for one account. Clones share connections, nonces, directory and account.
#[derive(Clone)]
pub struct Client<'a> {
    transport: Transport,
    deadline: Deadline,
    key: &'a AccountKey,
    directory_url: &'a str,
    nonces: Arc<NoncePool>,
    directory: Arc<OnceLock<Directory>>,
    /// The account's URL. Once it is known, it stands for the key in every request (§6.2).
    account: Arc<OnceLock<AcmeUrl>>,
}

/// What became of a request that is not repeated blindly.
pub enum Submission {
    /// The CA has accepted it.
    Accepted(Response),
    /// The CA may have acted, or not: the response was lost, or it was an error that does not tell. The caller goes
    /// on by [`after_unclear`](Client::after_unclear): it looks at the object, if there is one.
    Unclear(Error),
}

impl<'a> Client<'a> {
    /// Creates a client of the CA whose directory is at `directory_url`. Nothing is sent yet. Besides the system's
    /// roots it trusts those in the file `ca_bundle`.
    ///
    /// # Errors
    /// `ca_bundle` or the proxy that the environment names is unusable, or OpenSSL cannot be set up.
    pub fn new(
        key: &'a AccountKey,
        directory_url: &'a str,
        ca_bundle: Option<&Path>,
        deadline: Deadline,
    ) -> Result<Client<'a>> {
        Ok(Client {
            transport: Transport::new(ca_bundle, &deadline)?,
            deadline,
            key,
            directory_url,
            nonces: Arc::default(),
            directory: Arc::default(),
            account: Arc::default(),
        })
    }

    /// Returns the key that signs the requests.
    pub fn key(&self) -> &AccountKey {
        self.key
    }

    /// Returns the deadline of this client's requests.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Returns the same client with a deadline that is `timeout` from now, or sooner.
    pub fn with_timeout(&self, timeout: Duration) -> Client<'a> {
        Client {
            deadline: self.deadline.at_most(timeout),
            ..self.clone()
        }
    }

    /// Returns the same client with a deadline that is `grace` from now, or later.
    pub fn with_grace(&self, grace: Duration) -> Client<'a> {
        Client {
            deadline: self.deadline.at_least(grace),
            ..self.clone()
        }
    }

    /// Cancels the run: pauses end at once, and requests to the CA that are under way end a few seconds later.
    pub fn cancel(&self) {
        let is_first_call = self.deadline.cancel();
        if is_first_call {
            self.transport.shut_down_soon();
        }
    }

    /// Returns the CA's directory (§7.1.1). The first call that succeeds fetches it; later ones return the same.
    ///
    /// # Errors
    /// The CA cannot be reached, or what it serves at the URL is no directory. Or this machine's clock is wrong.
    pub fn directory(&self) -> Result<&Directory> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let url = AcmeUrl::try_from(self.directory_url.to_owned()).map_err(Error::msg)?;
        let response = self
            .get(Purpose::Directory, &url)
            .map_err(add_directory_hint)?;
        check_clock(&response)?;
        let json: Value = response.json().unwrap_or_default();
        if json["new-reg"].is_string() {
            bail!("{url} speaks ACME v1, which is out of use; name the CA's RFC 8555 directory");
        }
        let directory = response
            .json()
            .with_context(|| format!("{url} is not an ACME directory"))?;
        Ok(self.directory.get_or_init(|| directory))
    }

    /// Registers the account key at the URL `new_account`, or finds its account (§7.3). Returns the
    /// account's URL with the CA's response. From now on the account's URL identifies the signer.
    ///
    /// # Errors
    /// The CA refuses, cannot be reached, or does not say where the account is.
    pub fn register(&self, new_account: &AcmeUrl, payload: &Value) -> Result<(AcmeUrl, Response)> {
        let response = self.post(Purpose::NewAccount, new_account, payload)?;
        let account = response.location()?;
        let account = self.account.get_or_init(|| account);
        Ok((account.clone(), response))
    }

    /// Sends a request that is not signed.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached.
    pub fn get(&self, purpose: Purpose, url: &AcmeUrl) -> Result<Response> {
        self.send_repeatable(purpose, url, None)
    }

    /// Sends a signed request that the CA may act on twice without harm.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached.
    pub fn post(&self, purpose: Purpose, url: &AcmeUrl, payload: &Value) -> Result<Response> {
        let payload = payload.to_string();
        self.send_repeatable(purpose, url, Some(&payload))
    }

    /// Reads a resource: a signed request with an empty payload (§6.3).
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached.
    pub fn post_as_get(&self, purpose: Purpose, url: &AcmeUrl) -> Result<Response> {
        self.send_repeatable(purpose, url, Some(""))
    }

    /// Sends a signed request. It is sent again if the CA says that it did not act on it. If that is unclear, it
    /// depends on the [`Effect`] of which `retries` was made. A caller that posts again after it has looked at the
    /// object hands over the same `retries`.
    ///
    /// # Errors
    /// The CA refuses, or cannot be reached.
    pub fn post_once(
        &self,
        purpose: Purpose,
        url: &AcmeUrl,
        payload: &Value,
        retries: &mut Retries,
    ) -> Result<Submission> {
        let payload = payload.to_string();
        self.send(purpose, url, Some(&payload), retries)
    }

    /// Does `next`, because it is unclear whether the CA has acted on a request: it reads the object, for example.
    ///
    /// # Errors
    /// That of `next`. If no time is left, it is `unclear`, the error of the request, which explains more.
    pub fn after_unclear<T>(&self, unclear: Error, next: impl FnOnce() -> Result<T>) -> Result<T> {
        match next() {
            Err(error) if self.deadline.remaining().is_zero() && !error.is::<Cancelled>() => {
                Err(unclear)
            }
            result => result,
        }
    }

    /// Does `work` while threads open the connections that later work on `count` names will need. Each thread does
    /// so by fetching a nonce, and ignores errors: a lasting problem is met again by the next request, which reports
    /// it. `work` begins when the first nonce is there, which is soon, because one thread gets the connection that is
    /// open already. This function returns when `work` and all threads have ended.
    pub fn with_connections_ahead<T>(&self, count: usize, work: impl FnOnce() -> T) -> T {
        // The connection that is open already is enough for one name.
        if count < 2 {
            return work();
        }
        let fetch_nonce = || -> Option<()> {
            let directory = self.directory.get()?;
            let request = Request {
                purpose: Purpose::NewNonce,
                url: &directory.new_nonce,
                jws: None,
                needs_new_connection: false,
            };
            let deadline = self.deadline.at_most(OPEN_TIMEOUT);
            let response = self.transport.send(&request, &deadline).ok()?;
            self.nonces.add_from_response(&response);
            Some(())
        };
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..count.min(MAX_CONNECTIONS) {
                let signal = sender.clone();
                let thread = move || {
                    if fetch_nonce().is_some() {
                        let _ = signal.send(());
                    }
                };
                // If no thread can be started, there is one connection fewer.
                let _ = thread::Builder::new().spawn_scoped(scope, thread);
            }
            // Now the channel closes when the last thread has ended.
            drop(sender);
            let _ = receiver.recv();
            work()
        })
    }

    fn send_repeatable(
        &self,
        purpose: Purpose,
        url: &AcmeUrl,
        payload: Option<&str>,
    ) -> Result<Response> {
        let mut retries = Retries::new(Effect::Repeatable);
        match self.send(purpose, url, payload, &mut retries)? {
            Submission::Accepted(response) => Ok(response),
            // This does not happen: a request that is repeatable is sent again instead.
            Submission::Unclear(error) => Err(error),
        }
    }

    /// Sends a request until the CA accepts it, it is unclear whether it did, or there is no point in going on.
    /// With a payload the request is signed; without one it is a GET, or a HEAD for a nonce. To sign a try,
    /// this may call itself for a nonce.
    fn send(
        &self,
        purpose: Purpose,
        url: &AcmeUrl,
        payload: Option<&str>,
        retries: &mut Retries,
    ) -> Result<Submission> {
        loop {
            if self.deadline.remaining().is_zero() {
                return Err(match retries.last_answer.take() {
                    Some(answer) => final_error(answer, Reason::NoTimeLeft, url),
                    None => anyhow!("no time left (--timeout) for {url}"),
                });
            }
            let signed = payload.map(|payload| self.sign(url, payload)).transpose();
            let jws = match (signed, &retries.last_answer) {
                (Ok(jws), _) => jws,
                // There was no time for a nonce. What the CA has answered before explains more.
                (Err(_), Some(answer)) if self.deadline.remaining().is_zero() => {
                    return Err(final_error(answer.clone(), Reason::NoTimeLeft, url));
                }
                (Err(error), _) => return Err(error),
            };
            let request = Request {
                purpose,
                url,
                jws: jws.as_ref(),
                needs_new_connection: retries.connection_was_lost,
            };
            let sent = self.transport.send(&request, &self.deadline);
            // §6.5: error responses bring a nonce, too. (Those of unsigned requests are not kept here: `take_nonce`
            // uses the one that it asks for at once.)
            if let (Some(_), Ok(response)) = (&jws, &sent) {
                self.nonces.add_from_response(response);
            }
            let error = match sent.and_then(Response::into_result) {
                Ok(response) => return Ok(Submission::Accepted(response)),
                Err(error) => error,
            };
            if error.failure.http_status.is_some() {
                retries.last_answer = Some(*error.failure.clone());
            }
            let remaining = self.deadline.remaining();
            match retries.decide(error.kind, error.retry_after, remaining, random_byte()) {
                Decision::TryAnotherNonce(pause) => self.deadline.sleep(pause)?,
                Decision::TryAgain(pause) => {
                    self.report_and_sleep(&error, url, "trying again", pause)?;
                }
                Decision::LookAtObject(pause) => {
                    self.report_and_sleep(&error, url, "checking what became of it", pause)?;
                    let unclear = final_error(*error.failure, Reason::NoTimeLeft, url);
                    return Ok(Submission::Unclear(unclear));
                }
                Decision::LeaveToCaller => {
                    let unclear = final_error(*error.failure, Reason::NoTimeLeft, url);
                    return Ok(Submission::Unclear(unclear));
                }
                Decision::GiveUp(reason) => {
                    let is_time_over = self.deadline.remaining().is_zero();
                    return Err(match retries.last_answer.take() {
                        // An earlier answer explains more than a timeout.
                        Some(answer) if is_time_over => final_error(answer, reason, url),
                        _ => final_error(*error.failure, reason, url),
                    });
                }
            }
        }
    }

    /// Signs a payload for `url` (§6.2), with a nonce that was not used before.
    fn sign(&self, url: &AcmeUrl, payload: &str) -> Result<Jws> {
        let mut protected = json!({"nonce": self.take_nonce()?, "url": url});
        match self.account.get() {
            Some(account) => protected["kid"] = json!(account),
            None => protected["jwk"] = self.key.jwk().clone(),
        }
        self.key
            .sign(protected, payload)
            .context("cannot sign with the account key")
    }

    /// Returns a nonce that a response has brought, or else a fresh one (§7.2).
    fn take_nonce(&self) -> Result<String> {
        if let Some(nonce) = self.nonces.take() {
            return Ok(nonce);
        }
        let directory = self.directory.get().context("no directory has been read")?;
        let url = &directory.new_nonce;
        // This request is not signed, so it needs no nonce itself.
        let response = self.get(Purpose::NewNonce, url)?;
        let nonce = response
            .nonce()
            .with_context(|| format!("{url} gives no usable Replay-Nonce"))?;
        Ok(nonce.to_owned())
    }

    /// Tells the user what went wrong and what will follow after the pause, and sleeps for that time. If there is no
    /// pause, there is nothing to tell.
    fn report_and_sleep(
        &self,
        error: &RequestError,
        url: &AcmeUrl,
        follows: &str,
        pause: Duration,
    ) -> Result<()> {
        // If the run has failed meanwhile, the user wants to hear of that alone.
        self.deadline.check_not_cancelled()?;
        if pause.is_zero() {
            return Ok(());
        }
        let seconds = pause.as_secs_f32().ceil();
        warn!("{url}: {}; {follows} in {seconds} s", error.failure);
        self.deadline.sleep(pause)?;
        Ok(())
    }
}

/// Adds a hint if the CA has said that there is nothing at the directory's URL.
fn add_directory_hint(mut error: Error) -> Error {
    if let Some(failure) = error.downcast_mut::<Failure>()
        && failure.http_status == Some(404)
    {
        failure.hint = Some("check --directory-url: there is nothing at this address".to_owned());
    }
    error
}

/// Returns the error of a request that is given up, with a hint on when to try again.
fn final_error(mut failure: Failure, reason: Reason, url: &AcmeUrl) -> Error {
    let hint = match reason {
        Reason::WouldFailAgain => None,
        Reason::NoTimeLeft => Some(
            "no time was left for another try: raise --timeout, or run getcrt again later"
                .to_owned(),
        ),
        Reason::ComeBackAfter(wait) => {
            let moment = time::to_text(time::now() + wait.as_secs().cast_signed());
            Some(format!("run getcrt again after {moment}, as the CA asks"))
        }
    };
    failure.hint = match (failure.hint, hint) {
        (Some(about_cause), Some(about_time)) => Some(format!("{about_time}; {about_cause}")),
        (about_cause, about_time) => about_cause.or(about_time),
    };
    Error::new(failure).context(url.to_string())
}

/// Compares this machine's clock with the CA's, if the response has a date. If the clock is wrong, certificates that are good look as if they had ended or
/// not begun.
///
/// # Errors
/// They differ by more than [`MAX_CLOCK_ERROR`].
fn check_clock(response: &Response) -> Result<()> {
    let Some(theirs) = response.date() else {
        return Ok(());
    };
    let ours = time::now();
    let difference = ours.abs_diff(theirs);
    if difference <= TOLERATED_CLOCK_ERROR {
        return Ok(());
    }
    let clocks = WrongClock { ours, theirs };
    if difference > MAX_CLOCK_ERROR {
        let hint = "set this machine's clock, for example with `timedatectl set-ntp true`";
        let failure = Failure::new("this machine's clock is wrong").with_hint(hint);
        return Err(Error::new(clocks).context(failure));
    }
    warn!("this machine's clock may be wrong: {clocks}");
    Ok(())
}

/// The error of a machine whose clock differs from the CA's. What depends on the time cannot be told.
#[derive(Debug)]
pub struct WrongClock {
    ours: i64,
    theirs: i64,
}

impl fmt::Display for WrongClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = time::to_text(self.ours);
        let theirs = time::to_text(self.theirs);
        write!(f, "it says {ours}, and the CA's says {theirs}")
    }
}

impl std::error::Error for WrongClock {}

/// Returns a random byte, or 255 if OpenSSL has none; it only spreads the pauses of many clients.
fn random_byte() -> u8 {
    let mut byte = [u8::MAX];
    let _ = rand_bytes(&mut byte);
    byte[0]
}
