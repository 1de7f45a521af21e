//! The passes over all names of an order, by which they are proven to the CA: each is made for all
//! names before the next begins. Sections in the comments are RFC 8555's.

use std::cell::RefCell;
use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use log::{info, warn};
use serde_json::json;

use crate::account_key::AccountKey;
use crate::challenge::AcmeDir;
use crate::client::{Client, Reply};
use crate::csr::Csr;
use crate::failure::Failure;
use crate::pass::side_by_side;
use crate::resources::{
    AcmeUrl, Authorization, Challenge, Identifier, Order, Status, Verdict, list,
};
use crate::self_check::{self, Finding};
use crate::temporary::TemporaryFile;

/// How long a challenge may stay undecided with an error: the CA may be trying again (§8.2).
const ERROR_GRACE: Duration = Duration::from_secs(30);
/// How long an order may stand still before its authorizations are asked what keeps it.
const STANDSTILL: Duration = Duration::from_secs(5);

/// A name that is still to be proven.
pub struct Claim {
    identifier: Identifier,
    authorization_url: AcmeUrl,
    challenge: Challenge,
    /// How long the CA asks to wait before the authorization is read again.
    asked: Duration,
}

/// A claim's challenge file and what is in it.
pub type Published<'a> = (&'a Claim, TemporaryFile, String);

/// Names, and what the CA has found wrong with them.
type Problems = Vec<(Identifier, Failure)>;

/// Reads all authorizations of the order; the claims come in the order of the CSR (§7.1.3: the CA
/// gives them in any order).
///
/// # Errors
/// The order is not for the CSR's names, or one of them cannot be proven by http-01.
pub fn read_authorizations(client: &Client, csr: &Csr, order: &Order) -> Result<Vec<Claim>> {
    let ours = &csr.identifiers;
    let theirs = order.identifiers.as_deref().unwrap_or(ours);
    if theirs.len() != ours.len() || !theirs.iter().all(|i| ours.contains(i)) {
        let theirs = list(theirs);
        bail!("the CA has made it an order for {theirs}, not the CSR's names");
    }
    let mut urls: Vec<&AcmeUrl> = Vec::new();
    for url in order.authorizations.iter().flatten() {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    let is_open = order.status == Status::Pending;
    ensure!(
        !is_open || !urls.is_empty(),
        "it is pending, and the CA names no authorizations"
    );
    let mut authorizations = side_by_side(client, &urls, |&url| {
        let reply = client.read(url)?;
        let authorization = authorization(&reply, url)?;
        let identifier = &authorization.identifier;
        let place = ours.iter().position(|i| i == identifier);
        let place =
            place.with_context(|| format!("the CA asks about {identifier}, not in the CSR"))?;
        Ok((place, url, authorization, reply.poll_after()))
    })?;
    authorizations.sort_by_key(|(place, ..)| *place);

    let (mut claims, mut failed) = (Vec::new(), Vec::new());
    for (_, url, authorization, asked) in authorizations {
        let identifier = authorization.identifier.clone();
        match authorization.verdict() {
            Verdict::Valid => info!("Already verified: {identifier}, skipping..."),
            Verdict::Failed(problem) => failed.push((identifier, problem.into())),
            Verdict::Open(_) => {
                let challenge = authorization.http_01();
                let challenge = challenge.with_context(|| format!("challenge for {identifier}"))?;
                claims.push(Claim {
                    identifier,
                    authorization_url: url.clone(),
                    challenge,
                    asked,
                });
            }
        }
    }
    ensure!(failed.is_empty(), not_passed(failed));
    Ok(claims)
}

fn authorization(reply: &Reply, url: &AcmeUrl) -> Result<Authorization> {
    reply.json().with_context(|| format!("authorization {url}"))
}

/// Makes the challenge files of all claims.
///
/// # Errors
/// A file cannot be made.
pub fn publish<'a>(
    dir: &AcmeDir,
    key: &AccountKey,
    claims: &'a [Claim],
) -> Result<Vec<Published<'a>>> {
    let mut published = Vec::new();
    for claim in claims {
        info!("Verifying {}...", claim.identifier);
        let key_authorization = key.key_authorization(claim.challenge.token.as_str());
        let file = dir.publish(&claim.challenge.token, &key_authorization)?;
        published.push((claim, file, key_authorization));
    }
    Ok(published)
}

/// Looks whether all challenge files are served, before an attempt is spent at the CA.
///
/// # Errors
/// A file of any name is provably not served.
pub fn self_check(client: &Client, published: &[Published], port: u16) -> Result<()> {
    let findings = side_by_side(client, published, |(claim, file, key_authorization)| {
        let host = format!("{}:{port}", claim.identifier.url_host());
        let (host, token) = (host.trim_end_matches(":80"), claim.challenge.token.as_str());
        let url = format!("http://{host}/.well-known/acme-challenge/{token}");
        let told = format!(
            "Wrote file to {}, but couldn't download {url}",
            file.path().display()
        );
        Ok((
            told,
            self_check::look(&url, port, key_authorization, client.remaining())?,
        ))
    })?;
    let (mut wrong, mut hint) = (Vec::new(), None);
    for ((claim, ..), (told, finding)) in published.iter().zip(findings) {
        match finding {
            Finding::Right => {}
            Finding::Wrong(seen, cause) => {
                hint = hint.or(cause);
                wrong.push(format!("{}: {told}: {seen}", claim.identifier));
            }
            Finding::Unclear(seen) => {
                let told = format!("local check: {told}: {seen}");
                warn!("{told}; the CA decides (--disable-check skips this check)");
            }
        }
    }
    let Some(first) = wrong.first() else {
        return Ok(());
    };
    let line = format!("local check: {first} (--disable-check leaves this to the CA)");
    bail!(Failure::new(line).below(wrong).hint(hint))
}

/// Tells the CA to look at all challenge files (§7.5.1), but for those that it is looking at.
///
/// # Errors
/// The CA refuses, and why for each name that it refuses.
pub fn tell_the_ca(client: &Client, claims: &[Claim]) -> Result<()> {
    let refusals = Mutex::new(Problems::new());
    let told = side_by_side(client, claims, |claim| {
        let url = &claim.challenge.url;
        let tell = || client.post_once(url, &json!({}));
        let tell = || {
            tell().map_err(|error| match error.downcast::<Failure>() {
                Ok(failure) => {
                    let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
                    refusals.push((claim.identifier.clone(), failure));
                    anyhow!("refused")
                }
                Err(error) => error,
            })
        };
        if claim.challenge.status != Status::Pending || tell()?.is_some() {
            return Ok(());
        }
        // The reply is lost. Where the challenge has moved the CA was told, else it is told again.
        let what = || format!("the CA to take the challenge for {}", claim.identifier);
        client.poll(&claim.authorization_url, None, what, |reply| {
            let challenge = authorization(reply, &claim.authorization_url)?.http_01();
            let is_open = challenge.is_ok_and(|c| c.status == Status::Pending);
            Ok((!is_open || tell()?.is_some()).then_some(()))
        })
    });
    let mut refusals = refusals
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let place = |name: &Identifier| claims.iter().position(|claim| claim.identifier == *name);
    refusals.sort_by_key(|(name, _)| place(name));
    ensure!(refusals.is_empty(), not_passed(refusals));
    told.map(|_| ())
}

/// Waits until the order, which is `created`, says that all names are proven, by polling it alone;
/// its authorizations are read when it fails or stands still. Gives its latest state.
///
/// # Errors
/// The CA has not verified all names, and why for each that it refuses.
pub fn await_verdicts(
    client: &Client,
    order_url: &AcmeUrl,
    created: Reply,
    claims: &[Claim],
) -> Result<Reply> {
    let open = RefCell::new(claims.iter().collect::<Vec<_>>());
    let what = || format!("the CA to verify {}", in_short(&open.borrow()));
    let asked = claims.iter().map(|claim| claim.asked).max();
    let (mut looked, mut erring_since, mut told) = (Instant::now(), None, 0);
    let (mut pause, mut erring) = (STANDSTILL.max(asked.unwrap_or_default()), Problems::new());
    // With nothing left to prove the order may have been ready from the start.
    let latest = Some(created).filter(|_| claims.is_empty());
    let passed = client.poll(order_url, latest, what, |reply| {
        let order: Order = reply.json()?;
        match order.status {
            Status::Ready | Status::Processing | Status::Valid => {
                return Ok(Some(take(reply)));
            }
            Status::Pending if looked.elapsed() < pause => return Ok(None),
            _ => {}
        }
        let stock = take_stock(client, &mut open.borrow_mut())?;
        let mut failed = stock.failed;
        (looked, pause, erring) = (Instant::now(), STANDSTILL.max(stock.asked), stock.erring);
        erring_since = erring_since.or(Some(looked)).filter(|_| !erring.is_empty());
        if !failed.is_empty() || erring_since.is_some_and(|since| since.elapsed() >= ERROR_GRACE) {
            failed.append(&mut erring);
            bail!(not_passed(failed));
        }
        ensure!(order.status == Status::Pending, order.failed());
        let (all, proven) = (claims.len(), claims.len() - open.borrow().len());
        if all > 1 && proven > told {
            info!("{proven} of {all} names verified");
            told = proven;
        }
        Ok(None)
    });
    // The deadline is no reason where the CA has given one.
    let is_told = |error: &Error| error.downcast_ref::<Failure>().is_some();
    if passed.as_ref().is_err_and(|error| !is_told(error)) && !erring.is_empty() {
        bail!(not_passed(erring));
    }
    let reply = passed?;
    for claim in open.into_inner() {
        info!("{} verified!", claim.identifier);
    }
    Ok(reply)
}

/// The names that are waited for, which can be many.
fn in_short(open: &[&Claim]) -> String {
    match open {
        [] => "the order".to_owned(),
        [first, _, _, .., last] => {
            let (first, last, between) = (&first.identifier, &last.identifier, open.len() - 2);
            format!("{first}, {between} more and {last}")
        }
        few => list(few.iter().map(|claim| &claim.identifier)),
    }
}

/// What the authorizations say.
struct Stock {
    failed: Problems,
    /// Those with an error that may pass.
    erring: Problems,
    /// How long the CA asks to wait before it is asked again.
    asked: Duration,
}

/// Reads the authorizations of all open claims. The proven ones are told, and they and those that
/// failed leave the list.
fn take_stock(client: &Client, open: &mut Vec<&Claim>) -> Result<Stock> {
    let (mut failed, mut erring, mut asked) = (Problems::new(), Problems::new(), Duration::ZERO);
    let replies = side_by_side(client, open, |claim| client.read(&claim.authorization_url))?;
    for (claim, reply) in take(open).into_iter().zip(replies) {
        let authorization = authorization(&reply, &claim.authorization_url)?;
        let identifier = claim.identifier.clone();
        match authorization.verdict() {
            Verdict::Valid => info!("{identifier} verified!"),
            Verdict::Failed(problem) => failed.push((identifier, problem.into())),
            Verdict::Open(problem) => {
                asked = asked.max(reply.poll_after());
                erring.extend(problem.map(|problem| (identifier, problem.into())));
                open.push(claim);
            }
        }
    }
    Ok(Stock {
        failed,
        erring,
        asked,
    })
}

/// `failed` is never empty.
fn not_passed(failed: Problems) -> Failure {
    let names = list(failed.iter().map(|(identifier, _)| identifier));
    let line = format!("Challenge did not pass for {names}: {}", failed[0].1);
    let (mut below, mut hint) = (Vec::new(), None);
    for (identifier, failure) in failed {
        below.push(format!("{identifier}: {failure}"));
        below.extend(failure.below);
        hint = hint.or(failure.hint);
    }
    Failure::new(line).below(below).hint(hint)
}
