//! Waits until the CA has validated all names of an order. Section numbers in the comments refer to RFC
//! 8555.

use std::mem::take;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use log::info;

use crate::acme::Purpose;
use crate::acme::client::Client;
use crate::acme::polling::{Polling, Update};
use crate::acme::resources::{AcmeUrl, Order, Status, Verdict};
use crate::authorize::{NameFailure, PendingAuthorization, failure_of_names, read_authorization};
use crate::error::Failure;
use crate::parallel::try_map_parallel;
use crate::text::comma_separated;

/// How often, at most, the authorizations of a pending order are read, to see what it is waiting for.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);
/// How long problems of undecided names are tolerated: the CA may be trying again (§8.2).
const PROBLEM_GRACE: Duration = Duration::from_secs(30);

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
                let read = survey.read_again(client);
                let are_names_proven = survey.undecided.is_empty();
                let order_failure = update.resource.failure(are_names_proven);
                return Err(match read {
                    // What the CA says about names explains more than what it says about the order.
                    Ok(()) => survey.failure().unwrap_or(order_failure).into(),
                    Err(error) => error.context(order_failure),
                });
            }
            Status::Pending => {
                if Instant::now() >= survey.next_at {
                    let undecided_before = survey.undecided.len();
                    survey.read_again(client)?;
                    if let Some(failure) = survey.failure()
                        && survey.is_hopeless()
                    {
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

/// What the authorizations said when they were last read. Each of them is either valid, or in `undecided`, or in
/// `failed`. One that is undecided can have an entry in `problems` as well.
struct Survey<'a> {
    /// How many authorizations there were at first.
    name_count: usize,
    /// Those on which the CA has not decided.
    undecided: Vec<&'a PendingAuthorization>,
    /// The names that the CA does not accept, and why. With the first of them, the wait ends.
    failed: Vec<NameFailure>,
    /// The names that are undecided, but whose last validation attempt went wrong, and why.
    problems: Vec<NameFailure>,
    /// Since when there have been problems, of this name or that. `None` if the last survey has found none.
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
            name_count: pending.len(),
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
            let name_failure = |failure: Failure| NameFailure {
                identifier: authorization.identifier.clone(),
                failure,
            };
            match update.resource.verdict() {
                Verdict::Valid => info!("{} verified!", authorization.identifier),
                Verdict::Failed(failure) => self.failed.push(name_failure(failure)),
                Verdict::Pending(problem) => {
                    self.undecided.push(authorization);
                    if let Some(problem) = problem {
                        self.problems.push(name_failure(problem.into()));
                    }
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

    /// Whether the CA does not accept some names, or there have been problems for [`PROBLEM_GRACE`].
    fn is_hopeless(&self) -> bool {
        let is_grace_over = self
            .problems_since
            .is_some_and(|since| since.elapsed() >= PROBLEM_GRACE);
        !self.failed.is_empty() || is_grace_over
    }

    /// Returns what the CA says against names, if it says anything.
    fn failure(&self) -> Option<Failure> {
        let names = [self.failed.as_slice(), self.problems.as_slice()].concat();
        if names.is_empty() {
            None
        } else {
            Some(failure_of_names(names, self.name_count))
        }
    }

    /// Returns the error of a wait that was interrupted by `error`. If that says only that the wait has ended, for
    /// example because no time is left, what the CA has said against names explains more.
    fn explain(&self, error: Error) -> Error {
        // The CA refuses, or cannot be reached.
        let is_explained = error.is::<Failure>();
        match self.failure() {
            Some(failure) if !is_explained => failure.into(),
            _ => error,
        }
    }
}

/// Lists up to three names. Of more than three, it shows the first, the number of those between, and the last.
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
