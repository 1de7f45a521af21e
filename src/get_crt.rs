//! The conversation with the CA, from a CSR to a certificate. Section numbers in the comments refer to RFC 8555.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use log::{info, warn};
use serde_json::{Value, json};

use crate::acme::Purpose;
use crate::acme::account_key::{AccountKey, base64url};
use crate::acme::client::{Client, Submission};
use crate::acme::polling::{Polling, Update};
use crate::acme::problem::is_refusal;
use crate::acme::resources::{AcmeUrl, Directory, Order, Status};
use crate::acme::response::Response;
use crate::authorize::{
    check_challenge_files, read_authorizations, submit_challenges, write_challenge_files,
};
use crate::chain::Chain;
use crate::challenge_files::AcmeDir;
use crate::csr::Csr;
use crate::deadline::Deadline;
use crate::error::Failure;
use crate::files;
use crate::options::Options;
use crate::output::{self, Output};
use crate::renewal::{self, Renewal};
use crate::text::comma_separated;
use crate::validation::{read_order, wait_until_ready};

/// The least time that the download of an issued certificate is given, even if the deadline is over.
const DOWNLOAD_GRACE: Duration = Duration::from_secs(4);
/// How long the download of an alternate chain may take, while the issued certificate waits.
const ALTERNATE_TIMEOUT: Duration = Duration::from_secs(15);

/// The outcome of a run that has not failed.
pub enum Outcome {
    /// A certificate was issued, or a dry run passed. With `--is-due`: the certificate is due.
    Done,
    /// The certificate is not due, so nothing was done. The message says why.
    NotDue(String),
}

/// Gets a certificate for the CSR and writes its chain to the place that the options name.
///
/// # Errors
/// There is no new certificate, or it could not be written. The error says why.
pub fn get_crt(options: &Options) -> Result<Outcome> {
    let deadline = Deadline::after(Duration::from_secs(options.timeout));

    info!("Parsing account key...");
    let account_key = AccountKey::read(&options.account_key, &deadline)?;

    info!("Parsing CSR...");
    let csr = Csr::read(&options.csr, &deadline)?;
    check_keys_differ(&account_key, &csr)?;
    info!("Found domains: {}", comma_separated(&csr.identifiers));

    let directory_url = options.directory();
    let ca_bundle = options.ca_bundle.as_deref();
    let client = Client::new(&account_key, &directory_url, ca_bundle, deadline)?;
    if options.is_due {
        return tell_whether_due(&client, options, &csr);
    }

    // These would fail at the end. It is better to know before the CA is asked for anything.
    let acme_dir = AcmeDir::open(&options.acme_dir)?;
    let output = Output::open(options, client.deadline())?;

    let mut replaces = None;
    if options.renew && options.dry_run {
        info!("This dry run does not ask whether the certificate is due.");
    } else if options.renew {
        match renewal::decide(&client, options, &csr, output.old_chain())? {
            Renewal::NotDue(message) => return Ok(Outcome::NotDue(message)),
            Renewal::Due { reason, old_id } => {
                info!("Renewing: {reason}");
                replaces = old_id;
            }
        }
    }

    info!("Getting directory...");
    let directory = client.directory().context("cannot use the directory")?;
    info!("Directory found!");
    if let Some(profile) = &options.profile {
        directory.check_profile(profile)?;
    }

    // The connections are for the names. Account and order need no more than one.
    let (order_url, response) = client.with_connections_ahead(csr.identifiers.len(), || {
        register_account(&client, directory, options)?;
        place_order(&client, directory, options, &csr, replaces).context("cannot create the order")
    })?;

    complete_order(
        &client, &order_url, &response, options, &csr, &acme_dir, output,
    )
    .with_context(|| format!("order {order_url}"))
}

/// Brings a new order, which `response` describes, to a certificate: proves the names, sends the CSR, and
/// writes the chain.
fn complete_order(
    client: &Client,
    order_url: &AcmeUrl,
    response: &Response,
    options: &Options,
    csr: &Csr,
    acme_dir: &AcmeDir,
    output: Output,
) -> Result<Outcome> {
    let new_order: Update<Order> = Update::from_response(response)?;
    // Some CAs leave this URL out of later responses.
    let finalize_url = new_order.resource.finalize_url()?;
    info!("Order created!");

    let pending = read_authorizations(client, csr, &new_order.resource)?;
    let challenge_files = write_challenge_files(client, acme_dir, &pending)?;
    if !options.disable_check {
        check_challenge_files(client, &challenge_files, options.check_port)?;
    }
    submit_challenges(client, &pending)?;
    let validated_order = wait_until_ready(client, order_url, new_order, &pending)?;
    drop(challenge_files);

    if options.dry_run {
        info!("Dry run passed, no certificate was requested.");
        return Ok(Outcome::Done);
    }

    info!("Signing certificate...");
    let chain_url = finalize(client, order_url, &finalize_url, validated_order, csr)?;
    let chain = download_chain(client, &chain_url, csr, options.preferred_chain.as_deref())?;
    output.write(&chain.to_pem()?)?;
    info!("{}", chain.summary());
    info!("Certificate signed!");
    Ok(Outcome::Done)
}

/// Tells whether the certificate at `--output` is due, and does nothing about it.
fn tell_whether_due(client: &Client, options: &Options, csr: &Csr) -> Result<Outcome> {
    let chain = match &options.output {
        Some(path) => output::read_chain(path)?,
        None => None,
    };
    match renewal::decide(client, options, csr, chain.as_ref())? {
        Renewal::NotDue(message) => Ok(Outcome::NotDue(message)),
        Renewal::Due { reason, .. } => {
            info!("Due: {reason}");
            Ok(Outcome::Done)
        }
    }
}

fn check_keys_differ(account_key: &AccountKey, csr: &Csr) -> Result<()> {
    if account_key.has_public_half(&csr.key) {
        let message = "CSR contains a public key for a known account, namely the account key's own";
        let hint = "the certificate needs a key of its own: make one, and the CSR with it";
        bail!(Failure::new(message).with_hint(hint));
    }
    Ok(())
}

/// Makes the account known to the CA, or finds it, and updates its contacts (§7.3).
fn register_account(client: &Client, directory: &Directory, options: &Options) -> Result<()> {
    info!("Registering account...");
    let (account_url, response) = find_or_create_account(client, directory, options)
        .context("cannot register the account")?;
    let is_new = response.status == 201;
    if is_new {
        info!("Registered! Account ID: {account_url}");
        if let Some(terms) = directory.terms_of_service() {
            info!("This agrees to the CA's terms of service: {terms}");
        }
    } else {
        info!("Already registered! Account ID: {account_url}");
    }

    if let Some(contacts) = &options.contact {
        if is_new {
            // They were part of the registration.
            report_contacts(contacts, &response);
        } else {
            let payload = json!({"contact": contacts});
            let updated = client
                .post(Purpose::Account, &account_url, &payload)
                .context("cannot update the contact details")?;
            report_contacts(contacts, &updated);
        }
    }
    Ok(())
}

/// Sends newAccount, with a binding to an external account if the options name one (§7.3.4).
fn find_or_create_account(
    client: &Client,
    directory: &Directory,
    options: &Options,
) -> Result<(AcmeUrl, Response)> {
    let new_account = &directory.new_account;
    let mut payload = json!({"termsOfServiceAgreed": true});
    if let Some(contacts) = &options.contact {
        payload["contact"] = json!(contacts);
    }
    if let (Some(kid), Some(hmac_key_file)) = (&options.eab_kid, &options.eab_hmac_key) {
        // The binding is needed once, and its key may be gone by the next run. So the account is looked
        // for without it first. Some CAs want the binding even for that.
        match client.register(new_account, &json!({"onlyReturnExisting": true})) {
            Ok(existing) => return Ok(existing),
            Err(error) if is_refusal(&error, "accountDoesNotExist") => {}
            Err(error) if is_refusal(&error, "externalAccountRequired") => {}
            Err(error) => return Err(error),
        }
        payload["externalAccountBinding"] =
            files::load(hmac_key_file, client.deadline(), |hmac_key, _| {
                client
                    .key()
                    .bind_external_account(kid, hmac_key, new_account)
            })?;
    }
    client
        .register(new_account, &payload)
        .map_err(|error| add_external_account_hint(error, directory))
}

fn add_external_account_hint(mut error: Error, directory: &Directory) -> Error {
    if is_refusal(&error, "externalAccountRequired")
        && let Some(failure) = error.downcast_mut::<Failure>()
    {
        let page = directory.website().unwrap_or("the CA's website");
        failure.hint = Some(format!(
            "see {page} for an identifier and key for --eab-kid and --eab-hmac-key"
        ));
    }
    error
}

/// Tells the user which contacts the CA has confirmed or, if it confirms none (as Let's Encrypt), which were sent.
fn report_contacts(requested: &[String], response: &Response) {
    let account: Value = response.json().unwrap_or_default();
    let confirmed: Option<Vec<String>> = serde_json::from_value(account["contact"].clone()).ok();
    info!("Updated contact details:");
    for contact in confirmed.as_deref().unwrap_or(requested) {
        info!("{contact}");
    }
    if confirmed.is_none() && !requested.is_empty() {
        info!("(the CA did not confirm it)");
    }
}

/// Creates the order (§7.4). Returns its URL, and the response that describes it.
fn place_order(
    client: &Client,
    directory: &Directory,
    options: &Options,
    csr: &Csr,
    replaces: Option<String>,
) -> Result<(AcmeUrl, Response)> {
    info!("Creating new order...");
    let mut payload = json!({"identifiers": csr.identifiers});
    if let Some(profile) = &options.profile {
        payload["profile"] = json!(profile);
    }
    let response = match replaces {
        // RFC 9773 §5: `replaces` is for CAs that have renewal information.
        Some(old_id) if directory.has_renewal_info() => {
            send_renewal_order(client, directory, &payload, &old_id)?
        }
        _ => client.post(Purpose::NewOrder, &directory.new_order, &payload)?,
    };
    let url = response.location()?;
    Ok((url, response))
}

/// Orders with `replaces` (RFC 9773 §5) or, if the CA refuses that, without it.
fn send_renewal_order(
    client: &Client,
    directory: &Directory,
    payload: &Value,
    old_id: &str,
) -> Result<Response> {
    let mut renewal_payload = payload.clone();
    renewal_payload["replaces"] = json!(old_id);
    // The refusals of CAs that do not know the old certificate, or do not let this order replace it.
    let refusals = [
        "alreadyReplaced",
        "conflict",
        "malformed",
        "notFound",
        "unauthorized",
    ];
    match client.post(Purpose::NewOrder, &directory.new_order, &renewal_payload) {
        Err(error) if refusals.iter().any(|name| is_refusal(&error, name)) => {
            info!("The CA does not take this order for a renewal: {error:#}");
            client.post(Purpose::NewOrder, &directory.new_order, payload)
        }
        result => result,
    }
}

/// Sends the CSR, and waits until the certificate is issued (§7.4). Returns where its chain is. The order's status
/// says what comes next:
///
/// ```text
/// ready        send the CSR, unless the CA has accepted it; if that is unclear, read the order
/// processing   read the order again after a pause
/// valid        the certificate is there
/// invalid      the CA has refused it
/// ```
fn finalize(
    client: &Client,
    order_url: &AcmeUrl,
    finalize_url: &AcmeUrl,
    validated_order: Update<Order>,
    csr: &Csr,
) -> Result<AcmeUrl> {
    let payload = json!({"csr": base64url(csr.to_der()?)});
    let awaited = || "the CA to issue the certificate".to_owned();
    let mut polling = Polling::new(client.deadline());
    let mut is_accepted = false;
    let mut update = validated_order;
    loop {
        match update.resource.status {
            Status::Valid => return update.resource.certificate_url(),
            Status::Ready if !is_accepted => {
                match client.post_once(Purpose::Finalize, finalize_url, &payload)? {
                    Submission::Accepted(response) => {
                        is_accepted = true;
                        update = Update::from_response(&response)?;
                        continue;
                    }
                    Submission::Unclear(error) => {
                        polling.pause_after(error, update.poll_after, awaited)?;
                    }
                }
            }
            // The CA works on the CSR. Or the order lags behind: some CAs call it pending although its names are
            // proven, or ready although they have accepted the CSR.
            Status::Processing | Status::Pending | Status::Ready => {
                polling.pause(update.poll_after, awaited)?;
            }
            Status::Invalid | Status::Other(_) => return Err(update.resource.failure().into()),
        }
        update = read_order(client, order_url)?;
    }
}

/// Downloads the chain (§7.4.2), or the one that leads to `preferred` if the CA offers it, and checks it.
fn download_chain(
    client: &Client,
    url: &AcmeUrl,
    csr: &Csr,
    preferred: Option<&str>,
) -> Result<Chain> {
    let patient = client.with_grace(DOWNLOAD_GRACE);
    let response = patient.post_as_get(Purpose::Certificate, url)?;
    let default_chain = Chain::from_ca(&response.body)?;
    if let Some(name) = preferred
        && !default_chain.leads_to(name)
    {
        if let Some(chain) = find_alternate_chain(&patient, &response, csr, name) {
            return Ok(chain);
        }
        let top_issuer = default_chain.top_issuer();
        warn!("no chain of the CA's leads to `{name}`; this one leads to `{top_issuer}`");
    }
    default_chain.check(csr)?;
    Ok(default_chain)
}

/// Returns the first alternate chain that leads to `preferred` and is fit for the CSR.
fn find_alternate_chain(
    client: &Client,
    default_response: &Response,
    csr: &Csr,
    preferred: &str,
) -> Option<Chain> {
    for url in default_response.alternate_urls() {
        let downloaded = client
            .with_timeout(ALTERNATE_TIMEOUT)
            .post_as_get(Purpose::Certificate, &url)
            .and_then(|response| Chain::from_ca(&response.body));
        match downloaded {
            Ok(chain) if chain.leads_to(preferred) => match chain.check(csr) {
                Ok(()) => return Some(chain),
                Err(error) => warn!("the chain to `{preferred}` cannot be used: {error:#}"),
            },
            Ok(_) => {}
            Err(error) => warn!("an alternate chain cannot be used: {error:#}"),
        }
    }
    None
}
