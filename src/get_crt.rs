//! The conversation with the CA, from a CSR to a certificate. Section numbers in the comments refer to RFC 8555.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use log::{Level, info, log};
use serde_json::{Value, json};

use crate::acme::Purpose;
use crate::acme::account_key::{AccountKey, base64url};
use crate::acme::client::{Client, Submission};
use crate::acme::polling::{Polling, Update};
use crate::acme::problem::{is_refusal, is_refusal_but_no_rate_limit};
use crate::acme::resources::{
    AcmeUrl, Directory, FINISHED_BY_ANOTHER_RUN, Identifier, Order, Status,
};
use crate::acme::response::Response;
use crate::acme::retry::{Effect, Retries};
use crate::authorize::{
    check_challenge_files, read_authorizations, submit_challenges, write_challenge_files,
};
use crate::chain::{Chain, Defect};
use crate::challenge_files::AcmeDir;
use crate::csr::Csr;
use crate::deadline::Deadline;
use crate::download::download_chain;
use crate::error::Failure;
use crate::files;
use crate::options::Options;
use crate::output::{self, Output};
use crate::renewal::{self, Renewal};
use crate::text::{comma_separated, excerpt, first_few};
use crate::validation::{read_order, wait_until_ready};

/// All CAs take this many names in an order.
const NAMES_TAKEN_EVERYWHERE: usize = 25;

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
    let first_order = client.with_connections_ahead(csr.identifiers.len(), || {
        register_account(&client, directory, options, &csr)?;
        place_order(&client, directory, options, &csr, replaces.as_deref())
    })?;
    let mut completed = complete_order(&client, &first_order, options, &csr, &acme_dir)
        .with_context(|| format!("order {}", first_order.url));

    if let Err(error) = &completed
        && let Some(reason) = reason_to_order_again(&client, error)
    {
        info!("Ordering again, because {reason}: {error:#}");
        let second_order = place_order(&client, directory, options, &csr, replaces.as_deref())?;
        completed = complete_order(&client, &second_order, options, &csr, &acme_dir)
            .with_context(|| format!("order {}", second_order.url));
    }

    let Some(chain) = completed? else {
        info!("Dry run passed, no certificate was requested.");
        return Ok(Outcome::Done);
    };
    output.write(&chain.to_pem()?)?;
    info!("{}", chain.summary());
    info!("{}", chain.checks());
    info!("Certificate signed!");
    Ok(Outcome::Done)
}

/// Returns why a second order may succeed although the first has failed with `error`, if that is so.
fn reason_to_order_again(client: &Client, error: &Error) -> Option<&'static str> {
    if client.deadline().check_not_cancelled().is_err() {
        // The client has stopped for good.
        return None;
    }
    if let Some(Defect::AnotherKey) = error.downcast_ref::<Defect>() {
        return Some(FINISHED_BY_ANOTHER_RUN);
    }
    error.downcast_ref::<Failure>()?.reason_to_order_again
}

/// An order that was just created.
struct NewOrder {
    /// Where it is read.
    url: AcmeUrl,
    /// The response that describes it.
    response: Response,
}

/// Brings an order to a certificate: proves the names, sends the CSR, and downloads the chain. Returns `None` if this
/// is a dry run, which ends when the names are proven.
///
/// # Errors
/// There is no certificate, or none that is fit for the CSR.
fn complete_order(
    client: &Client,
    order: &NewOrder,
    options: &Options,
    csr: &Csr,
    acme_dir: &AcmeDir,
) -> Result<Option<Chain>> {
    let new_order: Update<Order> = Update::from_response(&order.response)?;
    if let Status::Invalid | Status::Other(_) = new_order.resource.status {
        return Err(new_order.resource.failure(false).into());
    }
    // Some CAs leave this URL out of later responses.
    let finalize_url = new_order.resource.finalize_url()?;
    info!("Order created!");

    let pending = read_authorizations(client, csr, &new_order.resource)?;
    let challenge_files = write_challenge_files(client, acme_dir, &pending)?;
    if !options.disable_check {
        check_challenge_files(client, &challenge_files, options.check_port)?;
    }
    submit_challenges(client, &pending)?;
    let validated_order = wait_until_ready(client, &order.url, new_order, &pending)?;
    drop(challenge_files);

    if options.dry_run {
        return Ok(None);
    }

    info!("Signing certificate...");
    let chain_url = finalize(client, &order.url, &finalize_url, validated_order, csr)?;
    let chain = download_chain(client, &chain_url, csr, options.preferred_chain.as_deref())?;
    Ok(Some(chain))
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
fn register_account(
    client: &Client,
    directory: &Directory,
    options: &Options,
    csr: &Csr,
) -> Result<()> {
    info!("Registering account...");
    let (account_url, response) = find_or_create_account(client, directory, options)
        .context("cannot register the account")?;
    check_account_status(&account_url, &response)?;
    let is_new = response.status == 201;
    if is_new {
        info!("Registered! Account ID: {account_url}");
        if let Some(terms) = directory.terms_of_service() {
            let terms = excerpt(terms);
            info!("This agrees to the CA's terms of service: {terms}");
        }
    } else {
        info!("Already registered! Account ID: {account_url}");
    }
    if let Some(record) = caa_record(directory, &account_url, csr) {
        let level = if is_new { Level::Info } else { Level::Debug };
        log!(
            level,
            "A CAA record that lets only this account get certificates for this name, and by http-01 only: {record}"
        );
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

/// Returns the CAA record that lets this account alone get certificates for the first DNS name of the CSR, by http-01
/// alone (RFC 8657). `None` if the CA does not say how records name it.
fn caa_record(directory: &Directory, account_url: &AcmeUrl, csr: &Csr) -> Option<String> {
    let identity = directory.caa_identity()?;
    let name = csr
        .identifiers
        .iter()
        .find_map(|identifier| match identifier {
            Identifier::Dns(name) => Some(name),
            Identifier::Ip(_) => None,
        })?;
    Some(format!(
        "{name}. CAA 0 issue \"{identity}; accounturi={account_url}; validationmethods=http-01\""
    ))
}

/// Checks that the account can be used (§7.1.2). One without a status is taken for valid.
fn check_account_status(account_url: &AcmeUrl, response: &Response) -> Result<()> {
    let account: Value = response.json().unwrap_or_default();
    match account["status"].as_str() {
        None | Some("valid") => Ok(()),
        Some(status) => {
            let message = format!("the account {account_url} is {}", excerpt(status));
            let hint = "make another account key, which gets an account of its own";
            bail!(Failure::new(message).with_hint(hint))
        }
    }
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
        payload["externalAccountBinding"] = files::load(
            "--eab-hmac-key",
            hmac_key_file,
            client.deadline(),
            |hmac_key, _| {
                client
                    .key()
                    .bind_external_account(kid, hmac_key, new_account)
            },
        )?;
    }
    client
        .register(new_account, &payload)
        .map_err(|error| add_external_account_hint(error, directory))
}

fn add_external_account_hint(mut error: Error, directory: &Directory) -> Error {
    if is_refusal(&error, "externalAccountRequired")
        && let Some(failure) = error.downcast_mut::<Failure>()
    {
        let page = excerpt(directory.website().unwrap_or("the CA's website"));
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
    let mut others = Vec::new();
    for contact in confirmed.as_deref().unwrap_or(requested) {
        if requested.contains(contact) {
            info!("{contact}");
        } else {
            others.push(contact);
        }
    }
    // They are the CA's words, so they do not get a line of their own, where they could look like one of ours.
    if !others.is_empty() {
        info!("(the CA has other contacts: {})", first_few(&others));
    }
    if confirmed.is_none() && !requested.is_empty() {
        info!("(the CA did not confirm this)");
    }
}

/// Creates an order (§7.4).
fn place_order(
    client: &Client,
    directory: &Directory,
    options: &Options,
    csr: &Csr,
    replaces: Option<&str>,
) -> Result<NewOrder> {
    info!("Creating new order...");
    let mut payload = json!({"identifiers": csr.identifiers});
    if let Some(profile) = &options.profile {
        payload["profile"] = json!(profile);
    }
    let created = match replaces {
        // RFC 9773 §5: `replaces` is for CAs that have renewal information.
        Some(old_id) if directory.has_renewal_info() => {
            send_renewal_order(client, directory, &payload, old_id)
        }
        _ => client.post(Purpose::NewOrder, &directory.new_order, &payload),
    };
    let response = created
        .map_err(|error| add_name_count_hint(error, csr.identifiers.len()))
        .context("cannot create the order")?;
    let url = response.location().context("cannot create the order")?;
    Ok(NewOrder { url, response })
}

/// CAs call an order for too many names malformed, as they do other orders.
fn add_name_count_hint(mut error: Error, name_count: usize) -> Error {
    let may_be_too_many = name_count > NAMES_TAKEN_EVERYWHERE && is_refusal(&error, "malformed");
    if may_be_too_many && let Some(failure) = error.downcast_mut::<Failure>() {
        failure.hint = Some(format!(
            "if {name_count} names are too many for this CA, make several CSRs (Let's Encrypt takes 100 names, and 25 with the profiles tlsserver and shortlived)"
        ));
    }
    error
}

/// Orders with `replaces` (RFC 9773 §5) or, if the CA refuses that, without it. CAs refuse it in many ways: by an
/// error of any type or of none, by a web page, by an internal error.
fn send_renewal_order(
    client: &Client,
    directory: &Directory,
    payload: &Value,
    old_id: &str,
) -> Result<Response> {
    let url = &directory.new_order;
    let mut renewal_payload = payload.clone();
    renewal_payload["replaces"] = json!(old_id);
    let mut retries = Retries::new(Effect::Optional);
    let refusal = match client.post_once(Purpose::NewOrder, url, &renewal_payload, &mut retries) {
        Ok(Submission::Accepted(response)) => return Ok(response),
        Ok(Submission::Unclear(error)) => error,
        Err(error) if is_refusal_but_no_rate_limit(&error) => error,
        Err(error) => return Err(error),
    };
    info!("Ordering again without `replaces`, because: {refusal:#}");
    client.after_unclear(refusal, || client.post(Purpose::NewOrder, url, payload))
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
    let mut retries = Retries::new(Effect::Once);
    let mut is_accepted = false;
    let mut update = validated_order;
    loop {
        match update.resource.status {
            Status::Valid => return update.resource.certificate_url(),
            Status::Ready if !is_accepted => {
                match client.post_once(Purpose::Finalize, finalize_url, &payload, &mut retries)? {
                    Submission::Accepted(response) => {
                        is_accepted = true;
                        update = Update::from_response(&response)?;
                        // Many CAs need no more than a moment, so the first poll follows at once.
                        let is_at_work = update.resource.status == Status::Processing;
                        if is_at_work && update.poll_after.is_zero() {
                            update = read_order(client, order_url)?;
                        }
                        continue;
                    }
                    Submission::Unclear(error) => {
                        update = client.after_unclear(error, || read_order(client, order_url))?;
                        retries.poll_after = update.poll_after;
                        continue;
                    }
                }
            }
            // The CA works on the CSR. Or the order lags behind: some CAs call it pending although its names are
            // proven, or ready although they have accepted the CSR.
            Status::Processing | Status::Pending | Status::Ready => {
                polling.pause(update.poll_after, awaited)?;
            }
            Status::Invalid | Status::Other(_) => {
                return Err(update.resource.failure(true).into());
            }
        }
        update = read_order(client, order_url)?;
    }
}
