//! Waits until the CA has validated all names of an order. Section numbers in the comments refer to RFC
//! 8555.

use std::mem::take;
use std::time::{Duration, Instant};

use anyhow::Result;
use log::info;

use crate::acme::Purpose;
use crate::acme::client::Client;
use crate::acme::polling::{Polling, Update};
use crate::acme::problem::Problem;
use crate::acme::resources::{AcmeUrl, Order, Status, Verdict};
use crate::authorize::{NameFailure, PendingAuthorization, failure_of_names, read_authorization};
use crate::error::Failure;
use crate::parallel::try_map_parallel;
use crate::text::comma_separated;

/// How long an order may stay pending before its authorizations are read, to see why; and the shortest time
/// until they are read again.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);
/// For how long challenges may show errors while they are undecided: the CA may be trying again (§8.2).
const ERROR_GRACE: Duration = Duration::from_secs(30);

/// Polls the order until it says that all names are proven, and returns the update that says so. The
/// authorizations are read only when the order fails or stands still, so a poll takes one request and not one
/// for each name.
///
/// # Errors
/// The CA does not accept some names (the error says which and why), or it does not decide in time.
pub fn wait_until_ready(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Update<Order>,
    pending: &[PendingAuthorization],
) -> Result<Update<Order>> {
    let mut survey = Survey::before_the_first(pending);
    match poll_order(client, order_url, new_order, &mut survey) {
        // What the CA has said about names explains more than, for example, that no time is left.
        Err(error) if !error.is::<Failure>() && !survey.problems.is_empty() => {
            Err(failure_of_names(survey.problems).into())
        }
        result => result,
    }
}

fn poll_order(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Update<Order>,
    survey: &mut Survey,
) -> Result<Update<Order>> {
    let total = survey.open.len();
    let mut polling = Polling::new(client.deadline());
    // If all names were proven before, the order may have been ready from the start.
    let mut update = if total == 0 {
        new_order
    } else {
        read_order(client, order_url)?
    };
    loop {
        match update.resource.status {
            Status::Ready | Status::Processing | Status::Valid => {
                // So those that were still open at the last survey have become valid.
                for authorization in &survey.open {
                    info!("{} verified!", authorization.identifier);
                }
                return Ok(update);
            }
            Status::Invalid | Status::Other(_) => {
                survey.repeat(client)?;
                // What the CA says about names explains more than what it says about the order.
                let failure = survey.failure();
                return Err(failure.unwrap_or(update.resource.failure()).into());
            }
            Status::Pending if Instant::now() < survey.next_at => {}
            Status::Pending => {
                let open_before = survey.open.len();
                survey.repeat(client)?;
                if let Some(failure) = survey.failure() {
                    return Err(failure.into());
                }
                if survey.open.len() < open_before && total > 1 {
                    let verified = total - survey.open.len();
                    info!("{verified} of {total} names verified");
                }
            }
        }
        polling.pause(update.poll_after, || {
            format!("the CA to verify {}", names_in_short(&survey.open))
        })?;
        update = read_order(client, order_url)?;
    }
}

/// Reads the order.
///
/// # Errors
/// The CA refuses, cannot be reached, or its response is no order.
pub fn read_order(client: &Client, order_url: &AcmeUrl) -> Result<Update<Order>> {
    let response = client.post_as_get(Purpose::Order, order_url)?;
    Update::from_response(&response)
}

/// What the authorizations said when they were last read.
struct Survey<'a> {
    /// Those that are undecided.
    open: Vec<&'a PendingAuthorization>,
    /// The names that the CA does not accept.
    failed: Vec<NameFailure>,
    /// The errors that challenges of undecided authorizations show.
    problems: Vec<NameFailure>,
    /// Since when every survey has shown such a problem. `None` if the last one has not.
    problems_since: Option<Instant>,
    /// When the authorizations may be read again.
    next_at: Instant,
}

impl<'a> Survey<'a> {
    /// Returns what is known before any authorization was read again.
    fn before_the_first(pending: &'a [PendingAuthorization]) -> Survey<'a> {
        let mut wait = SURVEY_INTERVAL;
        for authorization in pending {
            wait = wait.max(authorization.poll_after);
        }
        Survey {
            open: pending.iter().collect(),
            failed: Vec::new(),
            problems: Vec::new(),
            problems_since: None,
            next_at: Instant::now() + wait,
        }
    }

    /// Reads the authorizations that are open, and tells the user which of them are valid now.
    ///
    /// # Errors
    /// The CA cannot be reached.
    fn repeat(&mut self, client: &Client) -> Result<()> {
        let updates = try_map_parallel(client, &self.open, |authorization| {
            let purpose = Purpose::Authorization(Some(&authorization.identifier));
            read_authorization(client, purpose, &authorization.url)
        })?;
        let mut wait = SURVEY_INTERVAL;
        self.problems.clear();
        for (authorization, update) in take(&mut self.open).into_iter().zip(updates) {
            let name_failure = |problem: Problem| NameFailure {
                identifier: authorization.identifier.clone(),
                failure: problem.into(),
            };
            match update.resource.verdict() {
                Verdict::Valid => info!("{} verified!", authorization.identifier),
                Verdict::Failed(problem) => self.failed.push(name_failure(problem)),
                Verdict::Pending(problem) => {
                    self.open.push(authorization);
                    self.problems.extend(problem.map(name_failure));
                    wait = wait.max(update.poll_after);
                }
            }
        }

        let now = Instant::now();
        self.next_at = now + wait;
        if self.problems.is_empty() {
            self.problems_since = None;
        } else if self.problems_since.is_none() {
            self.problems_since = Some(now);
        }
        Ok(())
    }

    /// Returns the error that ends the wait: the CA does not accept some names, or there have been problems for
    /// [`ERROR_GRACE`]. `None` if there is hope.
    fn failure(&self) -> Option<Failure> {
        let is_patience_over = self
            .problems_since
            .is_some_and(|since| since.elapsed() >= ERROR_GRACE);
        if self.failed.is_empty() && !is_patience_over {
            return None;
        }
        let names = [self.failed.as_slice(), self.problems.as_slice()].concat();
        Some(failure_of_names(names))
    }
}

/// Returns up to three names, or the first, the number of those between, and the last.
fn names_in_short(open: &[&PendingAuthorization]) -> String {
    match open {
        [] => "the order".to_owned(),
        [first, _, _, .., last] => {
            let between = open.len() - 2;
            format!(
                "{}, {between} more and {}",
                first.identifier, last.identifier
            )
        }
        few => comma_separated(few.iter().map(|authorization| &authorization.identifier)),
    }
}
