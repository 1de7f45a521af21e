//! The conversation with the CA, from a CSR to a certificate. Read this first.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use log::{info, warn};
use serde_json::{Value, json};

use crate::account_key::{AccountKey, base64url};
use crate::authorize::{await_verdicts, publish, read_authorizations, self_check, tell_the_ca};
use crate::chain::Chain;
use crate::challenge::AcmeDir;
use crate::client::{Client, Reply};
use crate::csr::Csr;
use crate::failure::Failure;
use crate::input;
use crate::options::Options;
use crate::output::Output;
use crate::renewal::{self, Renewal};
use crate::resources::{AcmeUrl, Directory, Order, Status, list};

/// How long an alternate chain is tried for, while the issued certificate waits.
const ALTERNATE_TIMEOUT: Duration = Duration::from_secs(15);

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
    let what = || "the CA to issue the certificate".to_owned();
    let mut is_sent = false;
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
            _ => bail!(order.failed()),
        }
    })
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
