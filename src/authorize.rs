//! Proves the names of an order to the CA, in passes over all of them: each step is done for all names
//! before the next begins. The last pass, waiting for the CA, is in `validation.rs`. Section numbers in
//! the comments refer to RFC 8555.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use log::{info, warn};
use serde_json::json;

use crate::acme::Purpose;
use crate::acme::client::{Client, Submission};
use crate::acme::polling::Update;
use crate::acme::resources::{
    AcmeUrl, Authorization, Challenge, Identifier, Order, Status, Verdict,
};
use crate::acme::retry::{Effect, Retries};
use crate::challenge_files::AcmeDir;
use crate::csr::Csr;
use crate::error::Failure;
use crate::parallel::{PassErrors, try_map_parallel};
use crate::self_check::{self, Finding};
use crate::temporary::TemporaryFile;
use crate::text::{comma_separated, excerpt, first_few, group_by_text};

/// From this number of names on, a web server may be overloaded by the CA's requests for all files at once.
const MANY_NAMES: usize = 10;
const OVERLOAD_HINT: &str = "let the web server accept more connections at once, because the CA fetches the files of all names together: raise the backlog of its port 80 (and net.core.somaxconn) or the number of its workers";

/// An authorization that the CA has not granted yet.
pub struct PendingAuthorization {
    /// The name to prove.
    pub identifier: Identifier,
    /// Where the authorization is read.
    pub url: AcmeUrl,
    /// How long the CA asks to wait before it is read again.
    pub poll_after: Duration,
    challenge: Challenge,
}

/// The challenge file of a pending authorization.
pub struct ChallengeFile<'a> {
    authorization: &'a PendingAuthorization,
    key_authorization: String,
    file: TemporaryFile,
}

/// Why a name could not be proven.
#[derive(Clone, Debug)]
pub struct NameFailure {
    /// The name.
    pub identifier: Identifier,
    /// What the CA says about it, or why the CA could not be reached.
    pub failure: Failure,
}

impl fmt::Display for NameFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.identifier, self.failure)
    }
}

impl std::error::Error for NameFailure {}

/// Reads all authorizations of the order and returns those that are pending, in the order of the CSR's
/// names. (§7.1.3: the CA lists them in any order.)
///
/// # Errors
/// The CA refuses or cannot be reached. The order is for other names than the CSR's. A name has failed already,
/// or cannot be proven by http-01.
pub fn read_authorizations(
    client: &Client,
    csr: &Csr,
    order: &Order,
) -> Result<Vec<PendingAuthorization>> {
    check_identifiers(order, csr)?;
    let urls = authorization_urls(order, csr)?;
    let updates = try_map_parallel(client, &urls, |url| {
        read_authorization(client, Purpose::Authorization(None), url)
    })?;
    let mut authorizations: Vec<(AcmeUrl, Update<Authorization>)> =
        urls.into_iter().zip(updates).collect();
    for (_, update) in &authorizations {
        let identifier = &update.resource.identifier;
        if !csr.identifiers.contains(identifier) {
            let name = excerpt(&identifier.to_string());
            bail!("the CA asks about {name}, not in the CSR");
        }
    }
    authorizations.sort_by_key(|(_, update)| csr.position(&update.resource.identifier));

    let mut pending = Vec::new();
    let mut failed = Vec::new();
    for (url, update) in authorizations {
        let authorization = update.resource;
        let identifier = authorization.identifier.clone();
        match authorization.verdict() {
            Verdict::Valid => info!("Already verified: {identifier}, skipping..."),
            Verdict::Failed(failure) => failed.push(NameFailure {
                identifier,
                failure,
            }),
            Verdict::Pending(_) => {
                let challenge = authorization
                    .http_01()
                    .with_context(|| format!("challenge for {identifier}"))?;
                pending.push(PendingAuthorization {
                    identifier,
                    url,
                    poll_after: update.poll_after,
                    challenge,
                });
            }
        }
    }
    if failed.is_empty() {
        Ok(pending)
    } else {
        Err(failure_of_names(failed, csr.identifiers.len()).into())
    }
}

/// Checks that the order is for the names of the CSR, if it lists its names.
fn check_identifiers(order: &Order, csr: &Csr) -> Result<()> {
    let Some(ordered) = &order.identifiers else {
        return Ok(());
    };
    let is_same_count = ordered.len() == csr.identifiers.len();
    if !is_same_count || !ordered.iter().all(|it| csr.identifiers.contains(it)) {
        let names = first_few(ordered);
        bail!("the CA has made it an order for {names}, not the CSR's names");
    }
    Ok(())
}

/// Returns the URLs of the order's authorizations, each once.
///
/// # Errors
/// There are more than the CSR has names, or none that the order could be waiting for.
fn authorization_urls(order: &Order, csr: &Csr) -> Result<Vec<AcmeUrl>> {
    let name_count = csr.identifiers.len();
    let mut urls: Vec<AcmeUrl> = Vec::new();
    for url in order.authorizations.iter().flatten() {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
        if urls.len() > name_count {
            bail!("the CA lists more authorizations than the CSR has names ({name_count})");
        }
    }
    if urls.is_empty() && order.status == Status::Pending {
        bail!("it is pending, and the CA names no authorizations");
    }
    Ok(urls)
}

/// Reads one authorization.
///
/// # Errors
/// The CA refuses, cannot be reached, or its response is no authorization.
pub fn read_authorization(
    client: &Client,
    purpose: Purpose,
    url: &AcmeUrl,
) -> Result<Update<Authorization>> {
    let response = client.post_as_get(purpose, url)?;
    Update::from_response(&response).with_context(|| format!("authorization {url}"))
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

/// Fetches all challenge files from the web server, before a validation attempt is used up. If there is no
/// response, or a redirect that validators do not follow, that is only a warning: this machine may not see the
/// web server as the CA does.
///
/// # Errors
/// The response for some names is not the key authorization; or the run was cancelled.
pub fn check_challenge_files(client: &Client, files: &[ChallengeFile], port: u16) -> Result<()> {
    let findings = try_map_parallel(client, files, |file| {
        let url = file.url(port);
        self_check::fetch_and_compare(&url, port, &file.key_authorization, client.deadline())
    })?;
    let mut wrong = Vec::new();
    let mut unclear = Vec::new();
    let mut first_hint = None;
    for (file, finding) in files.iter().zip(findings) {
        match finding {
            Finding::Served => {}
            Finding::Wrong { seen, hint } => {
                wrong.push((seen, file));
                first_hint = first_hint.or(hint);
            }
            Finding::Unclear(seen) => unclear.push((seen, file)),
        }
    }
    for (seen, group) in group_by_text(unclear) {
        let attempt = failed_download(&group, port);
        warn!("local check: {attempt}: {seen}; the CA decides (--disable-check skips this check)");
    }
    let mut lines = Vec::new();
    for (seen, group) in group_by_text(wrong) {
        lines.push(format!("{}: {seen}", failed_download(&group, port)));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let first = lines.remove(0);
    let message = format!("local check: {first} (--disable-check leaves this to the CA)");
    let mut failure = Failure::new(message).with_details(lines);
    failure.hint = first_hint.map(str::to_owned);
    Err(failure.into())
}

/// Returns the beginning of the message on files that the local check could not download: their names, and as an example
/// the first file.
fn failed_download(files: &[&ChallengeFile], port: u16) -> String {
    let names: Vec<&Identifier> = files
        .iter()
        .map(|file| &file.authorization.identifier)
        .collect();
    let first = files[0];
    format!(
        "{}: Wrote file to {}, but couldn't download {}",
        first_few(&names),
        first.file.shown().display(),
        first.url(port)
    )
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
/// The CA refuses a challenge, or cannot be reached. After the first refusal no other challenge is submitted. The
/// error lists all refusals that have arrived by then.
pub fn submit_challenges(client: &Client, pending: &[PendingAuthorization]) -> Result<()> {
    let submitted = try_map_parallel(client, pending, |authorization| {
        submit_challenge(client, authorization)
    });
    let Err(PassErrors(errors)) = submitted else {
        return Ok(());
    };
    let mut failed: Vec<NameFailure> = Vec::new();
    let mut others = Vec::new();
    for error in errors {
        match error.downcast::<NameFailure>() {
            Ok(name_failure) => failed.push(name_failure),
            Err(other) => others.push(other),
        }
    }
    // What the CA says about names explains more than, for example, that no time was left.
    if failed.is_empty() {
        Err(PassErrors(others).into())
    } else {
        Err(failure_of_names(failed, pending.len()).into())
    }
}

/// Tells the CA of one challenge, repeatedly until it is clear that the CA has heard of it.
fn submit_challenge(client: &Client, authorization: &PendingAuthorization) -> Result<()> {
    // Another run of the same account may have done it.
    if authorization.challenge.status != Status::Pending {
        return Ok(());
    }
    let identifier = &authorization.identifier;
    let mut retries = Retries::new(Effect::Once);
    while let Submission::Unclear(error) = post_challenge(client, authorization, &mut retries)? {
        let unclear = name_failure_or_other(identifier, error);
        let purpose = Purpose::Authorization(Some(identifier));
        let update = client.after_unclear(unclear, || {
            read_authorization(client, purpose, &authorization.url)
        })?;
        match update.resource.http_01() {
            // The CA may not have heard of it.
            Ok(challenge) if challenge.status == Status::Pending => {}
            // The CA works on the challenge, or has decided and does not show it any more.
            Ok(_) | Err(_) => return Ok(()),
        }
        retries.poll_after = update.poll_after;
    }
    Ok(())
}

/// Posts to the challenge.
///
/// # Errors
/// A [`NameFailure`] if the CA refuses, or cannot be reached and there is no time for another try. Another error
/// if the run was cancelled or its time is over.
fn post_challenge(
    client: &Client,
    authorization: &PendingAuthorization,
    retries: &mut Retries,
) -> Result<Submission> {
    let identifier = &authorization.identifier;
    let purpose = Purpose::Challenge(identifier);
    let url = &authorization.challenge.url;
    let posted = client.post_once(purpose, url, &json!({}), retries);
    posted.map_err(|error| name_failure_or_other(identifier, error))
}

/// Turns a [`Failure`] into that of a name, and returns any other error as it is.
fn name_failure_or_other(identifier: &Identifier, error: Error) -> Error {
    match error.downcast::<Failure>() {
        Ok(failure) => Error::new(NameFailure {
            identifier: identifier.clone(),
            failure,
        }),
        Err(other) => other,
    }
}

/// Returns one failure for all names in `failed`, which is not empty. They are some of `name_count` names. The names that
/// have failed for the same reason have one line.
pub fn failure_of_names(failed: Vec<NameFailure>, name_count: usize) -> Failure {
    let is_overload = is_overload(&failed, name_count);
    let mut by_reason = Vec::new();
    let mut subproblems = Vec::new();
    let mut first_hint = None;
    for name_failure in failed {
        by_reason.push((name_failure.failure.to_string(), name_failure.identifier));
        subproblems.extend(name_failure.failure.details);
        first_hint = first_hint.or(name_failure.failure.hint);
    }
    let mut lines: Vec<String> = group_by_text(by_reason)
        .into_iter()
        .map(|(reason, names)| format!("{}: {reason}", comma_separated(names)))
        .collect();
    let message = format!("Challenge did not pass for {}", lines.remove(0));
    lines.extend(subproblems);
    let mut combined = Failure::new(message).with_details(lines);
    combined.hint = if is_overload {
        Some(OVERLOAD_HINT.to_owned())
    } else {
        first_hint
    };
    combined
}

/// Whether some of many names have failed because the CA could not connect, and others have not. The CA fetches all files
/// at once and from several places, which can be more connections than a small web server accepts.
fn is_overload(failed: &[NameFailure], name_count: usize) -> bool {
    let unconnected = failed
        .iter()
        .filter(|it| it.failure.has_type("connection"))
        .count();
    name_count >= MANY_NAMES && (2..name_count).contains(&unconnected)
}
