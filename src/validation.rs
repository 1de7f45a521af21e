//! Waits until the CA has validated all names of an order. Section numbers in the comments refer to RFC
//! 8555.

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
                // This fails with the reason for each name that the CA does not accept, which says more than the
                // order does.
                survey.repeat(client)?;
                return Err(update.resource.failure().into());
            }
            Status::Pending => {
                if Instant::now() >= survey.next_at {
                    let open_before = survey.open.len();
                    *survey = survey.repeat(client)?;
                    if survey.open.len() < open_before && total > 1 {
                        let verified = total - survey.open.len();
                        info!("{verified} of {total} names verified");
                    }
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

/// What the authorizations have said when they were last read.
struct Survey<'a> {
    /// Those that are undecided.
    open: Vec<&'a PendingAuthorization>,
    /// The errors that the challenges of some of them show.
    problems: Vec<NameFailure>,
    /// Since when every survey has shown a problem of some name. `None` if this one has not.
    problems_since: Option<Instant>,
    /// When they may be read again.
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
            problems: Vec::new(),
            problems_since: None,
            next_at: Instant::now() + wait,
        }
    }

    /// Reads the authorizations that are open, and tells the user which of them are valid now.
    ///
    /// # Errors
    /// The CA does not accept some names, there have been problems for [`ERROR_GRACE`], or the CA cannot be
    /// reached.
    fn repeat(&self, client: &Client) -> Result<Survey<'a>> {
        let updates = try_map_parallel(client, &self.open, |authorization| {
            let purpose = Purpose::Authorization(Some(&authorization.identifier));
            read_authorization(client, purpose, &authorization.url)
        })?;
        let mut open = Vec::new();
        let mut problems = Vec::new();
        let mut failed = Vec::new();
        let mut wait = SURVEY_INTERVAL;
        for (&authorization, update) in self.open.iter().zip(updates) {
            let name_failure = |problem: Problem| NameFailure {
                identifier: authorization.identifier.clone(),
                failure: problem.into(),
            };
            match update.resource.verdict() {
                Verdict::Valid => info!("{} verified!", authorization.identifier),
                Verdict::Failed(problem) => failed.push(name_failure(problem)),
                Verdict::Pending(problem) => {
                    open.push(authorization);
                    problems.extend(problem.map(name_failure));
                    wait = wait.max(update.poll_after);
                }
            }
        }

        if !failed.is_empty() {
            failed.extend(problems);
            return Err(failure_of_names(failed).into());
        }
        let now = Instant::now();
        let problems_since = if problems.is_empty() {
            None
        } else {
            Some(self.problems_since.unwrap_or(now))
        };
        if problems_since.is_some_and(|since| now - since >= ERROR_GRACE) {
            return Err(failure_of_names(problems).into());
        }
        Ok(Survey {
            open,
            problems,
            problems_since,
            next_at: now + wait,
        })
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
