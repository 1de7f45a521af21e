//! How the names of an order are proven to the CA, in passes over all of them: each pass is made for all
//! names before the next begins. Sections in the comments are RFC 8555's.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use log::{info, warn};
use serde_json::json;

use crate::acme::Purpose;
use crate::acme::client::{Client, Submission};
use crate::acme::polling::{Polling, poll_after};
use crate::acme::resources::{
    AcmeUrl, Authorization, Challenge, Identifier, Order, Status, Verdict,
};
use crate::acme::response::Response;
use crate::challenge_files::AcmeDir;
use crate::csr::Csr;
use crate::deadline::OutOfTime;
use crate::error::Failure;
use crate::parallel::try_map_parallel;
use crate::self_check::{self, Finding};
use crate::temporary::TemporaryFile;
use crate::text::comma_separated;

/// How long a challenge may show an error and stay undecided: the CA may be trying again (§8.2).
const ERROR_GRACE: Duration = Duration::from_secs(30);
/// How long an order may stay pending before its authorizations are read to see why.
const STANDSTILL: Duration = Duration::from_secs(5);

/// An authorization that the CA has not granted yet.
pub struct PendingAuthorization {
    identifier: Identifier,
    url: AcmeUrl,
    challenge: Challenge,
    /// How long the CA asks to wait before the authorization is read again.
    poll_after: Duration,
}

/// The challenge file of a pending authorization.
pub struct ChallengeFile<'a> {
    authorization: &'a PendingAuthorization,
    key_authorization: String,
    file: TemporaryFile,
}

/// Why a name could not be proven.
type NameFailure = (Identifier, Failure);

/// Reads all authorizations of the order and returns those that are pending, in the order of the CSR's
/// names. (§7.1.3: the CA lists them in any order.)
///
/// # Errors
/// The order is for other names than the CSR's, or one of them cannot be proven by http-01.
pub fn read_authorizations(
    client: &Client,
    csr: &Csr,
    order: &Order,
) -> Result<Vec<PendingAuthorization>> {
    check_identifiers(order, csr)?;
    let urls = authorization_urls(order)?;
    let mut authorizations = try_map_parallel(client, &urls, |url| {
        let response = client.post_as_get(Purpose::Authorization(None), url)?;
        let authorization = parse_authorization(&response, url)?;
        let identifier = &authorization.identifier;
        let position = csr
            .identifiers
            .iter()
            .position(|other| other == identifier)
            .with_context(|| format!("the CA asks about {identifier}, not in the CSR"))?;
        Ok((position, url, authorization, poll_after(&response)))
    })?;
    authorizations.sort_by_key(|(position, ..)| *position);

    let mut pending = Vec::new();
    let mut failed = Vec::new();
    for (_, url, authorization, poll_after) in authorizations {
        let identifier = authorization.identifier.clone();
        match authorization.verdict() {
            Verdict::Valid => info!("Already verified: {identifier}, skipping..."),
            Verdict::Failed(problem) => failed.push((identifier, problem.into())),
            Verdict::Pending(_) => {
                let challenge = authorization
                    .http_01()
                    .with_context(|| format!("challenge for {identifier}"))?;
                pending.push(PendingAuthorization {
                    identifier,
                    url: url.clone(),
                    challenge,
                    poll_after,
                });
            }
        }
    }
    if failed.is_empty() {
        Ok(pending)
    } else {
        Err(failure_of_names(failed).into())
    }
}

/// Checks that the order is for the names of the CSR. (Some CAs list them in another order.)
fn check_identifiers(order: &Order, csr: &Csr) -> Result<()> {
    let Some(ordered) = &order.identifiers else {
        return Ok(());
    };
    let is_same_count = ordered.len() == csr.identifiers.len();
    if !is_same_count || !ordered.iter().all(|it| csr.identifiers.contains(it)) {
        let names = comma_separated(ordered);
        bail!("the CA has made it an order for {names}, not the CSR's names");
    }
    Ok(())
}

/// Returns the URLs of the order's authorizations, each once.
fn authorization_urls(order: &Order) -> Result<Vec<AcmeUrl>> {
    let mut urls: Vec<AcmeUrl> = Vec::new();
    for url in order.authorizations.iter().flatten() {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    if urls.is_empty() && order.status == Status::Pending {
        bail!("it is pending, and the CA names no authorizations");
    }
    Ok(urls)
}

fn parse_authorization(response: &Response, url: &AcmeUrl) -> Result<Authorization> {
    response
        .json()
        .with_context(|| format!("authorization {url}"))
}

/// Writes the challenge files of all names.
///
/// # Errors
/// A file cannot be written.
pub fn write_challenge_files<'a>(
    client: &Client,
    acme_dir: &AcmeDir,
    pending: &'a [PendingAuthorization],
) -> Result<Vec<ChallengeFile<'a>>> {
    let mut files = Vec::new();
    for authorization in pending {
        info!("Verifying {}...", authorization.identifier);
        let token = &authorization.challenge.token;
        let key_authorization = client.key().key_authorization(token.as_str());
        let file = acme_dir.write(token, &key_authorization)?;
        files.push(ChallengeFile {
            authorization,
            key_authorization,
            file,
        });
    }
    Ok(files)
}

/// Checks that the web server serves all challenge files, before an attempt at the CA is used up. What
/// cannot be seen from here is a warning.
///
/// # Errors
/// The web server gives a wrong answer for some names.
pub fn check_challenge_files(client: &Client, files: &[ChallengeFile], port: u16) -> Result<()> {
    let findings = try_map_parallel(client, files, |file| {
        let url = file.url(port);
        self_check::fetch_and_compare(&url, port, &file.key_authorization, client.deadline())
    })?;
    let mut wrong = Vec::new();
    let mut first_hint = None;
    for (file, finding) in files.iter().zip(findings) {
        let attempt = format!(
            "Wrote file to {}, but couldn't download {}",
            file.file.path().display(),
            file.url(port)
        );
        match finding {
            Finding::Served => {}
            Finding::Wrong { seen, hint } => {
                let identifier = &file.authorization.identifier;
                wrong.push(format!("{identifier}: {attempt}: {seen}"));
                first_hint = first_hint.or(hint);
            }
            Finding::Unclear(seen) => warn!(
                "local check: {attempt}: {seen}; the CA decides (--disable-check skips this check)"
            ),
        }
    }
    let Some(first) = wrong.first() else {
        return Ok(());
    };
    let message = format!("local check: {first} (--disable-check leaves this to the CA)");
    let mut failure = Failure::new(message).with_details(wrong);
    failure.hint = first_hint.map(str::to_owned);
    Err(failure.into())
}

impl ChallengeFile<'_> {
    /// Returns the URL at which the file must be served (§8.3).
    fn url(&self, port: u16) -> String {
        let host = self.authorization.identifier.url_host();
        let token = self.authorization.challenge.token.as_str();
        let port_part = if port == 80 {
            String::new()
        } else {
            format!(":{port}")
        };
        format!("http://{host}{port_part}/.well-known/acme-challenge/{token}")
    }
}

/// Tells the CA that it can validate all challenges (§7.5.1).
///
/// # Errors
/// The CA refuses, and why for each name that it refuses.
pub fn submit_challenges(client: &Client, pending: &[PendingAuthorization]) -> Result<()> {
    // Several may be refused before the pass ends, and the user should hear of all of them.
    let refused = Mutex::new(Vec::new());
    let submitted = try_map_parallel(client, pending, |authorization| {
        submit_challenge(client, authorization).inspect_err(|error| {
            if let Some(failure) = error.downcast_ref::<Failure>() {
                let name_failure = (authorization.identifier.clone(), failure.clone());
                let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.push(name_failure);
            }
        })
    });
    let mut refused = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !refused.is_empty() {
        let position = |name: &Identifier| pending.iter().position(|it| it.identifier == *name);
        refused.sort_by_key(|(name, _)| position(name));
        return Err(failure_of_names(refused).into());
    }
    submitted?;
    Ok(())
}

fn submit_challenge(client: &Client, authorization: &PendingAuthorization) -> Result<()> {
    let identifier = &authorization.identifier;
    let challenge = &authorization.challenge;
    // Another run of the same account may have submitted it.
    if challenge.status != Status::Pending {
        return Ok(());
    }
    let mut polling = Polling::new(client.deadline());
    loop {
        match client.post_once(Purpose::Challenge(identifier), &challenge.url, &json!({}))? {
            Submission::Accepted(_) => return Ok(()),
            Submission::Unclear => {}
        }
        // If the CA has heard of it, the challenge is not pending any more.
        let purpose = Purpose::Authorization(Some(identifier));
        let response = client.post_as_get(purpose, &authorization.url)?;
        let is_pending = parse_authorization(&response, &authorization.url)?
            .http_01()
            .is_ok_and(|current| current.status == Status::Pending);
        if !is_pending {
            return Ok(());
        }
        polling.pause(poll_after(&response), || {
            format!("the CA to take the challenge for {identifier}")
        })?;
    }
}

/// Waits until the order says that all names are proven, and returns the response that says so. Only the
/// order is polled; the authorizations are read when it fails or stands still.
///
/// # Errors
/// The CA does not accept some names, and why for each of them; or they are not all proven in time.
pub fn wait_until_ready(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Response,
    pending: &[PendingAuthorization],
) -> Result<Response> {
    let mut survey = Survey::new(pending);
    match poll_until_ready(client, order_url, new_order, &mut survey) {
        Ok(response) => {
            for authorization in &survey.open {
                info!("{} verified!", authorization.identifier);
            }
            Ok(response)
        }
        // What the CA has said is the reason, not that the time is over.
        Err(error) if error.is::<OutOfTime>() && !survey.problems.is_empty() => {
            Err(failure_of_names(survey.problems).into())
        }
        Err(error) => Err(error),
    }
}

fn poll_until_ready(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Response,
    survey: &mut Survey,
) -> Result<Response> {
    let mut polling = Polling::new(client.deadline());
    // If all names were proven before, the order may have been ready from the start.
    let mut response = if survey.open.is_empty() {
        new_order
    } else {
        client.post_as_get(Purpose::Order, order_url)?
    };
    loop {
        let order: Order = response.json()?;
        match order.status {
            Status::Ready | Status::Processing | Status::Valid => return Ok(response),
            Status::Pending => {
                if survey.is_due() {
                    survey.take(client)?;
                    survey.report_progress();
                }
            }
            Status::Invalid | Status::Other(_) => {
                survey.take(client)?;
                return Err(order.failure().into());
            }
        }
        polling.pause(poll_after(&response), || {
            format!("the CA to verify {}", survey.open_names())
        })?;
        response = client.post_as_get(Purpose::Order, order_url)?;
    }
}

/// What is known of the authorizations while the order is waited for.
struct Survey<'a> {
    /// How many there are in all.
    total: usize,
    /// How many of them the user was told to be verified.
    reported: usize,
    /// Those that are not known to be valid.
    open: Vec<&'a PendingAuthorization>,
    /// Problems that the CA has met, and may overcome, as of the last reading.
    problems: Vec<NameFailure>,
    /// Since when there has been such a problem at every reading.
    problems_since: Option<Instant>,
    last_taken: Instant,
    /// How long after the last reading the next one may be.
    interval: Duration,
}

impl<'a> Survey<'a> {
    fn new(pending: &'a [PendingAuthorization]) -> Survey<'a> {
        let asked = pending.iter().map(|authorization| authorization.poll_after);
        Survey {
            total: pending.len(),
            reported: 0,
            open: pending.iter().collect(),
            problems: Vec::new(),
            problems_since: None,
            last_taken: Instant::now(),
            interval: asked.fold(STANDSTILL, Duration::max),
        }
    }

    fn is_due(&self) -> bool {
        self.last_taken.elapsed() >= self.interval
    }

    /// Reads all open authorizations, and tells the user which have become valid.
    ///
    /// # Errors
    /// The CA will not accept some of them any more, or has not got over a problem in [`ERROR_GRACE`].
    fn take(&mut self, client: &Client) -> Result<()> {
        let responses = try_map_parallel(client, &self.open, |authorization| {
            let purpose = Purpose::Authorization(Some(&authorization.identifier));
            client.post_as_get(purpose, &authorization.url)
        })?;
        let mut open = Vec::new();
        let mut failed = Vec::new();
        self.problems.clear();
        self.interval = STANDSTILL;
        for (&authorization, response) in self.open.iter().zip(&responses) {
            let identifier = &authorization.identifier;
            match parse_authorization(response, &authorization.url)?.verdict() {
                Verdict::Valid => info!("{identifier} verified!"),
                Verdict::Failed(problem) => failed.push((identifier.clone(), problem.into())),
                Verdict::Pending(problem) => {
                    open.push(authorization);
                    self.interval = self.interval.max(poll_after(response));
                    if let Some(problem) = problem {
                        self.problems.push((identifier.clone(), problem.into()));
                    }
                }
            }
        }
        self.open = open;
        self.last_taken = Instant::now();
        self.problems_since = match self.problems_since {
            _ if self.problems.is_empty() => None,
            None => Some(Instant::now()),
            since => since,
        };
        let is_grace_over = self
            .problems_since
            .is_some_and(|since| since.elapsed() >= ERROR_GRACE);
        if !failed.is_empty() || is_grace_over {
            failed.append(&mut self.problems);
            return Err(failure_of_names(failed).into());
        }
        Ok(())
    }

    /// Tells the user how many names are verified, if it is more than before.
    fn report_progress(&mut self) {
        let verified = self.total - self.open.len();
        if verified > self.reported && self.total > 1 {
            info!("{verified} of {} names verified", self.total);
            self.reported = verified;
        }
    }

    /// Returns the names that are waited for; of many the first, the last and the number between.
    fn open_names(&self) -> String {
        match &self.open[..] {
            [] => "the order".to_owned(),
            [first, _, _, .., last] => {
                let between = self.open.len() - 2;
                format!(
                    "{}, {between} more and {}",
                    first.identifier, last.identifier
                )
            }
            few => comma_separated(few.iter().map(|authorization| &authorization.identifier)),
        }
    }
}

/// Returns one failure for all names that failed, of which there is at least one.
fn failure_of_names(failed: Vec<NameFailure>) -> Failure {
    let names = comma_separated(failed.iter().map(|(identifier, _)| identifier));
    let reason = &failed[0].1;
    let message = format!("Challenge did not pass for {names}: {reason}");
    let mut details = Vec::new();
    let mut first_hint = None;
    for (identifier, failure) in failed {
        details.push(format!("{identifier}: {failure}"));
        details.extend(failure.details);
        first_hint = first_hint.or(failure.hint);
    }
    let mut combined = Failure::new(message).with_details(details);
    combined.hint = first_hint;
    combined
}
