//! The conversation with the CA, from a CSR to a certificate. Read this first.

use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use log::{info, warn};
use serde_json::{Value, json};

use crate::account_key::{AccountKey, base64url};
use crate::chain::Chain;
use crate::challenge::AcmeDir;
use crate::client::{Client, Reply};
use crate::csr::Csr;
use crate::failure::Failure;
use crate::input;
use crate::options::Options;
use crate::output::Output;
use crate::pass::side_by_side;
use crate::renewal::{self, Renewal};
use crate::resources::{
    AcmeUrl, Authorization, Challenge, Directory, Identifier, Order, Status, Verdict,
};
use crate::self_check::{self, Finding};
use crate::temporary::TemporaryFile;

/// How long a challenge may stay undecided with an error: the CA may be trying again (§8.2).
const ERROR_GRACE: Duration = Duration::from_secs(30);
/// How long an alternate chain is tried for, while the issued certificate waits.
const ALTERNATE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an order may stand still before its authorizations are asked what keeps it.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Gets a certificate for the CSR and writes its chain to where the options say. Sections in the
/// comments are RFC 8555's.
///
/// # Errors
/// The certificate was not issued, or could not be delivered; the error says why.
pub fn get_crt(options: &Options) -> Result<Outcome> {
    info!("Parsing account key...");
    let account_key = AccountKey::read(&options.account_key)?;

    info!("Parsing CSR...");
    let csr = Csr::read(&options.csr)?;
    ensure!(!account_key.has_public_half(&csr.key), key_shared());
    info!("Found domains: {}", list(&csr.identifiers));

    // What would fail at the end is found out now, before anything is asked of the CA.
    let acme_dir = AcmeDir::open(&options.acme_dir)?;
    let output = Output::open(options)?;

    let timeout = Duration::from_secs(options.timeout);
    let mut client = Client::new(&account_key, options.ca_bundle.as_deref(), timeout)?;
    let mut replaces = None;
    if options.renew && options.dry_run {
        info!("This dry run does not ask whether the certificate is due.");
    } else if options.renew {
        match renewal::look(&mut client, options, &csr, output.current())? {
            Renewal::NotDue(told) => return Ok(Outcome::NotDue(told)),
            Renewal::Due(why, id) => {
                info!("Renewing: {why}");
                replaces = id;
            }
        }
    }

    info!("Getting directory...");
    let directory = client.directory(&options.directory());
    let directory = directory.context("cannot use the directory")?;
    info!("Directory found!");
    if let Some(profile) = &options.profile {
        directory.check_profile(profile)?;
    }
    client.prepare(csr.identifiers.len());

    info!("Registering account...");
    let account = register(&mut client, &account_key, &directory, options);
    let (account_url, mut reply) = account.context("cannot register the account")?;
    let is_new = reply.status == 201;
    match is_new {
        true => info!("Registered! Account ID: {account_url}"),
        false => info!("Already registered! Account ID: {account_url}"),
    }
    if let Some(terms) = directory.terms_of_service().filter(|_| is_new) {
        info!("This agrees to the CA's terms of service: {terms}");
    }

    if let Some(contact) = &options.contact {
        // §7.3: a new account has its contacts from the registration.
        if !is_new {
            let update = client.post(&account_url, &json!({"contact": contact}));
            reply = update.context("cannot update the contact details")?;
        }
        tell_contact(contact, &reply);
    }

    info!("Creating new order...");
    let replaces = replaces.filter(|id| directory.renewal_info_url(id).is_some());
    let reply = order(
        &client,
        &directory,
        &csr,
        options.profile.as_deref(),
        replaces,
    );
    let reply = reply.context("cannot create the order")?;
    let order_url = reply.location().context("cannot create the order")?;
    let in_order = || format!("order {order_url}");
    let order: Order = reply.json().with_context(in_order)?;
    info!("Order created!");

    // Each step is made for all names before the next begins.
    let claims = read_authorizations(&client, &csr, &order).with_context(in_order)?;
    let published = publish(&acme_dir, &account_key, &claims).with_context(in_order)?;
    if !options.disable_check {
        self_check(&client, &published, options.check_port).with_context(in_order)?;
    }
    tell_the_ca(&client, &claims).with_context(in_order)?;
    let reply = await_verdicts(&client, &order_url, reply, &claims).with_context(in_order)?;
    drop(published);

    if options.dry_run {
        info!("Dry run passed, no certificate was requested.");
        return Ok(Outcome::Done);
    }

    info!("Signing certificate...");
    // Some CAs tell this URL in the first reply only.
    let url = order.finalize_url().with_context(in_order)?;
    let chain_url = finalize(&client, &order_url, &url, reply, &csr).with_context(in_order)?;
    let preferred = options.preferred_chain.as_deref();
    let chain = download(&mut client, &chain_url, &csr, preferred).with_context(in_order)?;
    output.write(&chain.to_pem()?).with_context(in_order)?;
    info!("{}", chain.summary());
    info!("Certificate signed!");
    Ok(Outcome::Done)
}

/// How a run that did not fail has ended.
pub enum Outcome {
    /// With a certificate, or a dry run that passed.
    Done,
    /// With nothing done: why.
    NotDue(String),
}

/// Makes the account known or finds it (§7.3), bound to one elsewhere where that is asked for.
fn register(
    client: &mut Client,
    key: &AccountKey,
    directory: &Directory,
    options: &Options,
) -> Result<(AcmeUrl, Reply)> {
    let url = &directory.new_account;
    let mut payload = json!({"termsOfServiceAgreed": true});
    if let Some(contact) = &options.contact {
        payload["contact"] = json!(contact);
    }
    if let (Some(kid), Some(path)) = (&options.eab_kid, &options.eab_hmac_key) {
        // A binding is made once, and its key thrown away; an account that exists needs none.
        match client.register(url, &json!({"onlyReturnExisting": true})) {
            Err(error) if Failure::is(&error, "accountDoesNotExist") => {}
            // Some CAs want the binding even in this question.
            Err(error) if Failure::is(&error, "externalAccountRequired") => {}
            found => return found,
        }
        let binding = input::load(path, |hmac_key, _| key.bind(kid, hmac_key, url))?;
        payload["externalAccountBinding"] = binding;
    }
    let mut account = client.register(url, &payload);
    if let Err(error) = &mut account
        && Failure::is(error, "externalAccountRequired")
        && let Some(failure) = error.downcast_mut::<Failure>()
    {
        let page = directory.website().unwrap_or("the CA's website");
        let hint = format!("see {page} for an identifier and key for --eab-kid and --eab-hmac-key");
        failure.hint = Some(hint);
    }
    account
}

/// Creates the order (§7.4). A CA that does not want to hear what it replaces hears nothing of it
/// (RFC 9773 §5).
fn order(
    client: &Client,
    directory: &Directory,
    csr: &Csr,
    profile: Option<&str>,
    replaces: Option<String>,
) -> Result<Reply> {
    let mut payload = json!({"identifiers": csr.identifiers});
    if let Some(profile) = profile {
        payload["profile"] = json!(profile);
    }
    if let Some(id) = replaces {
        let mut renewing = payload.clone();
        renewing["replaces"] = json!(id);
        let reply = client.post(&directory.new_order, &renewing);
        let kinds = [
            "alreadyReplaced",
            "conflict",
            "malformed",
            "notFound",
            "unauthorized",
        ];
        let Err(error) = reply else { return reply };
        if !kinds.iter().any(|kind| Failure::is(&error, kind)) {
            return Err(error);
        }
        info!("The CA does not take this order for a renewal: {error:#}");
    }
    client.post(&directory.new_order, &payload)
}

/// Fetches the chain, or another one of the CA's that leads to `preferred` (§7.4.2), and checks it.
fn download(
    client: &mut Client,
    url: &AcmeUrl,
    csr: &Csr,
    preferred: Option<&str>,
) -> Result<Chain> {
    let reply = client.download(url)?;
    let chain = Chain::parse(&reply.body)?;
    let wanted = preferred.filter(|name| !chain.leads_to(name));
    if let Some(name) = wanted {
        for url in reply.alternates() {
            let read = client.hurried(ALTERNATE_TIMEOUT, |client| client.read(&url));
            let other = read.and_then(|reply| Chain::parse(&reply.body));
            match other {
                Ok(other) if !other.leads_to(name) => {}
                Ok(other) => match other.check(csr) {
                    Ok(()) => return Ok(other),
                    Err(error) => warn!("the chain to `{name}` cannot be used: {error:#}"),
                },
                Err(error) => warn!("an alternate chain cannot be used: {error:#}"),
            }
        }
        let root = chain.root();
        warn!("no chain of the CA's leads to `{name}`; this one leads to `{root}`");
    }
    chain.check(csr)?;
    Ok(chain)
}

/// A name that is still to be proven.
struct Claim {
    identifier: Identifier,
    authorization_url: AcmeUrl,
    challenge: Challenge,
    /// How long the CA asks to wait before the authorization is read again.
    asked: Duration,
}

/// A claim's challenge file and what is in it.
type Published<'a> = (&'a Claim, TemporaryFile, String);

/// Names, and what the CA has found wrong with them.
type Problems = Vec<(Identifier, Failure)>;

/// Reads all authorizations of the order; the claims come in the order of the CSR (§7.1.3: the CA
/// gives them in any order).
fn read_authorizations(client: &Client, csr: &Csr, order: &Order) -> Result<Vec<Claim>> {
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
    let mut authorizations = side_by_side(&urls, |&url| {
        let reply = client.read(url)?;
        let authorization: Authorization = reply.json().context("authorization")?;
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

/// Makes the challenge files of all claims.
fn publish<'a>(dir: &AcmeDir, key: &AccountKey, claims: &'a [Claim]) -> Result<Vec<Published<'a>>> {
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
fn self_check(client: &Client, published: &[Published], port: u16) -> Result<()> {
    let findings = side_by_side(published, |(claim, file, key_authorization)| {
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
fn tell_the_ca(client: &Client, claims: &[Claim]) -> Result<()> {
    let refusals = Mutex::new(Problems::new());
    let told = side_by_side(claims, |claim| {
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
        let what = "the CA to take the challenge";
        client.poll(&claim.authorization_url, None, what, |reply| {
            let challenge = reply.json::<Authorization>()?.http_01();
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
fn await_verdicts(
    client: &Client,
    order_url: &AcmeUrl,
    created: Reply,
    claims: &[Claim],
) -> Result<Reply> {
    let mut open: Vec<&Claim> = claims.iter().collect();
    let what = match claims {
        [first, _, _, .., last] => {
            let between = claims.len() - 2;
            format!(
                "{}, {between} more and {}",
                first.identifier, last.identifier
            )
        }
        few => list(few.iter().map(|claim| &claim.identifier)),
    };
    let what = format!("the CA to verify {what}");
    let asked = claims.iter().map(|claim| claim.asked).max();
    let (mut looked, mut erring_since) = (Instant::now(), None);
    let (mut pause, mut erring) = (STANDSTILL.max(asked.unwrap_or_default()), Problems::new());
    // With nothing left to prove the order may have been ready from the start.
    let latest = Some(created).filter(|_| claims.is_empty());
    let passed = client.poll(order_url, latest, &what, |reply| {
        let order: Order = reply.json()?;
        match order.status {
            Status::Ready | Status::Processing | Status::Valid => {
                return Ok(Some(take(reply)));
            }
            Status::Pending if looked.elapsed() < pause => return Ok(None),
            _ => {}
        }
        let stock = take_stock(client, &mut open)?;
        let mut failed = stock.failed;
        (looked, pause, erring) = (Instant::now(), STANDSTILL.max(stock.asked), stock.erring);
        erring_since = erring_since.or(Some(looked)).filter(|_| !erring.is_empty());
        if !failed.is_empty() || erring_since.is_some_and(|since| since.elapsed() >= ERROR_GRACE) {
            failed.append(&mut erring);
            bail!(not_passed(failed));
        }
        ensure!(order.status == Status::Pending, order_failed(&order));
        let (all, proven) = (claims.len(), claims.len() - open.len());
        if all > 1 {
            info!("{proven} of {all} names verified");
        }
        Ok(None)
    });
    // The deadline is no reason where the CA has given one.
    let is_told = |error: &Error| error.downcast_ref::<Failure>().is_some();
    if passed.as_ref().is_err_and(|error| !is_told(error)) && !erring.is_empty() {
        bail!(not_passed(erring));
    }
    let reply = passed?;
    for claim in open {
        info!("{} verified!", claim.identifier);
    }
    Ok(reply)
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
    let replies = side_by_side(open, |claim| client.read(&claim.authorization_url))?;
    for (claim, reply) in take(open).into_iter().zip(replies) {
        let authorization: Authorization = reply.json()?;
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

/// Sends the CSR to the order (§7.4), whose `latest` state is known, once, and waits until the
/// certificate is there.
fn finalize(
    client: &Client,
    order_url: &AcmeUrl,
    url: &AcmeUrl,
    latest: Reply,
    csr: &Csr,
) -> Result<AcmeUrl> {
    let payload = json!({"csr": base64url(csr.to_der()?)});
    let (what, mut is_sent) = ("the CA to issue the certificate", false);
    client.poll(order_url, Some(latest), what, |reply| {
        let mut order: Order = reply.json()?;
        if order.status == Status::Ready && !is_sent {
            // Where this reply is lost the next look at the order tells whether the CA has the CSR.
            let Some(told) = client.post_once(url, &payload)? else {
                return Ok(None);
            };
            (*reply, is_sent) = (told, true);
            order = reply.json()?;
        }
        match order.status {
            Status::Valid => Ok(Some(order.certificate_url()?)),
            // An order may lag behind its authorizations, and a CA behind itself.
            Status::Pending | Status::Ready | Status::Processing => Ok(None),
            _ => bail!(order_failed(&order)),
        }
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

fn order_failed(order: &Order) -> Failure {
    let line = format!("Order failed, it is {:?}: {}", order.status, order.error);
    Failure::new(line).below(order.error.below())
}

fn key_shared() -> Failure {
    let line = "CSR contains a public key for a known account, namely the account key's own";
    let hint = "the certificate needs a key of its own: make one, and the CSR with it";
    Failure::new(line).hint(Some(hint))
}

/// §7.3: what the CA now knows; Let's Encrypt keeps it to itself.
fn tell_contact(asked: &[String], reply: &Reply) {
    let account: Value = reply.json().unwrap_or_default();
    let confirmed: Option<Vec<String>> = serde_json::from_value(account["contact"].clone()).ok();
    let is_confirmed = confirmed.is_some() || asked.is_empty();
    info!("Updated contact details:");
    for contact in confirmed.as_deref().unwrap_or(asked) {
        info!("{contact}");
    }
    if !is_confirmed {
        info!("(the CA did not confirm it)");
    }
}

fn list<'a>(identifiers: impl IntoIterator<Item = &'a Identifier>) -> String {
    let names: Vec<String> = identifiers.into_iter().map(Identifier::to_string).collect();
    names.join(", ")
}
