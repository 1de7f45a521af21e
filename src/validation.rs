//! Waits until the CA has validated all names of an order. Section numbers in the comments refer to RFC
//! 8555.

use std::mem::take;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
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

/// How often, at most, the authorizations of a pending order are read, to see what it is waiting for.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);
/// How long the errors of undecided challenges are tolerated: the CA may be trying again (§8.2).
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
    let mut survey = Survey::new(pending);
    let mut polling = Polling::new(client.deadline());
    // If all names were proven before, the order may have been ready from the start.
    let mut update = if pending.is_empty() {
        new_order
    } else {
        read_order(client, order_url)?
    };
    loop {
        match update.resource.status {
            Status::Ready | Status::Processing | Status::Valid => {
                // So those that were undecided at the last survey have become valid.
                for authorization in &survey.undecided {
                    info!("{} verified!", authorization.identifier);
                }
                return Ok(update);
            }
            Status::Invalid | Status::Other(_) => {
                survey.read_again(client)?;
                // What the CA says about names explains more than what it says about the order.
                let failure = survey.reason_to_give_up();
                return Err(failure.unwrap_or(update.resource.failure()).into());
            }
            Status::Pending => {
                if Instant::now() >= survey.next_at {
                    let undecided_before = survey.undecided.len();
                    survey.read_again(client)?;
                    if let Some(failure) = survey.reason_to_give_up() {
                        return Err(failure.into());
                    }
                    if survey.undecided.len() < undecided_before && pending.len() > 1 {
                        let verified = pending.len() - survey.undecided.len();
                        info!("{verified} of {} names verified", pending.len());
                    }
                }
            }
        }
        let next = polling
            .pause(update.poll_after, || {
                format!("the CA to verify {}", names_in_short(&survey.undecided))
            })
            .and_then(|()| read_order(client, order_url));
        update = next.map_err(|error| survey.explain(error))?;
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
    undecided: Vec<&'a PendingAuthorization>,
    /// The names that the CA does not accept.
    failed: Vec<NameFailure>,
    /// The errors that undecided authorizations show.
    problems: Vec<NameFailure>,
    /// When the first of the surveys was made that have all shown such errors. `None` if the last one has not.
    problems_since: Option<Instant>,
    /// When the authorizations may be read again.
    next_at: Instant,
}

impl<'a> Survey<'a> {
    /// Starts with all authorizations undecided.
    fn new(pending: &'a [PendingAuthorization]) -> Survey<'a> {
        let mut wait = SURVEY_INTERVAL;
        for authorization in pending {
            wait = wait.max(authorization.poll_after);
        }
        Survey {
            undecided: pending.iter().collect(),
            failed: Vec::new(),
            problems: Vec::new(),
            problems_since: None,
            next_at: Instant::now() + wait,
        }
    }

    /// Reads the authorizations that are undecided, and tells the user which of them are valid now.
    ///
    /// # Errors
    /// The CA refuses, cannot be reached, or its response is no authorization.
    fn read_again(&mut self, client: &Client) -> Result<()> {
        let read = try_map_parallel(client, &self.undecided, |authorization| {
            let purpose = Purpose::Authorization(Some(&authorization.identifier));
            read_authorization(client, purpose, &authorization.url)
        });
        let updates = read.map_err(|errors| self.explain(errors.into()))?;
        let mut wait = SURVEY_INTERVAL;
        self.problems.clear();
        for (authorization, update) in take(&mut self.undecided).into_iter().zip(updates) {
            let name_failure = |problem: Problem| NameFailure {
                identifier: authorization.identifier.clone(),
                failure: problem.into(),
            };
            match update.resource.verdict() {
                Verdict::Valid => info!("{} verified!", authorization.identifier),
                Verdict::Failed(problem) => self.failed.push(name_failure(problem)),
                Verdict::Pending(problem) => {
                    self.undecided.push(authorization);
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

    /// Returns the failure that ends the wait: the CA does not accept some names, or there have been problems for
    /// [`ERROR_GRACE`]. `None` if there is hope.
    fn reason_to_give_up(&self) -> Option<Failure> {
        let is_patience_over = self
            .problems_since
            .is_some_and(|since| since.elapsed() >= ERROR_GRACE);
        if self.failed.is_empty() && !is_patience_over {
            return None;
        }
        let names = [self.failed.as_slice(), self.problems.as_slice()].concat();
        Some(failure_of_names(names))
    }

    /// Returns the error of a wait that was interrupted. What the CA has said about names explains more than, for
    /// example, that no time is left.
    fn explain(&self, error: Error) -> Error {
        if error.is::<Failure>() || self.problems.is_empty() {
            error
        } else {
            failure_of_names(self.problems.clone()).into()
        }
    }
}

/// Lists up to three names. Of more, it shows the first, the number of those between, and the last.
fn names_in_short(authorizations: &[&PendingAuthorization]) -> String {
    match authorizations {
        [] => "the order".to_owned(),
        [first, _, _, .., last] => {
            let between = authorizations.len() - 2;
            format!(
                "{}, {between} more and {}",
                first.identifier, last.identifier
            )
        }
        few => comma_separated(few.iter().map(|authorization| &authorization.identifier)),
    }
}
