//! Waits until the CA has validated all names of an order. Sections in the comments are RFC 8555's.

use std::time::{Duration, Instant};

use anyhow::Result;
use log::info;

use crate::acme::Purpose;
use crate::acme::client::Client;
use crate::acme::polling::{Polling, Update};
use crate::acme::resources::{AcmeUrl, Order, Status, Verdict};
use crate::authorize::{NameFailure, PendingAuthorization, failure_of_names, read_authorization};
use crate::deadline::OutOfTime;
use crate::parallel::try_map_parallel;
use crate::text::comma_separated;

/// How long an order may stay pending before its authorizations are read, to see why; and how long until
/// they are read again.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);
/// How long a challenge may show an error while it is still undecided: the CA may be trying again (§8.2).
const ERROR_GRACE: Duration = Duration::from_secs(30);

/// Polls the order until it says that all names are proven, and returns the update that says so. The
/// authorizations are read only when the order fails or stands still, so this takes one request at a time
/// and not one for each name.
///
/// # Errors
/// The CA does not accept some names, or not in time. The error says why for each of them.
pub fn wait_until_ready(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Update<Order>,
    pending: &[PendingAuthorization],
) -> Result<Update<Order>> {
    let mut open: Vec<&PendingAuthorization> = pending.iter().collect();
    let first_wait = pending.iter().map(|it| it.poll_after).max();
    let mut next_survey = Instant::now() + first_wait.unwrap_or_default().max(SURVEY_INTERVAL);
    let mut problems: Vec<NameFailure> = Vec::new();
    let mut problems_since = None;
    let mut polling = Polling::new(client.deadline());
    // If all names were proven before, the order may have been ready from the start.
    let mut update = if open.is_empty() {
        new_order
    } else {
        read_order(client, order_url)?
    };
    loop {
        match update.resource.status {
            Status::Ready | Status::Processing | Status::Valid => {
                // So these must be valid, too.
                for authorization in open {
                    info!("{} verified!", authorization.identifier);
                }
                return Ok(update);
            }
            Status::Invalid | Status::Other(_) => {
                // The authorizations know more about the reason than the order does.
                survey(client, &open)?.check_none_failed()?;
                return Err(update.resource.failure().into());
            }
            Status::Pending if Instant::now() < next_survey => {}
            Status::Pending => {
                let survey = survey(client, &open)?;
                survey.check_none_failed()?;
                if survey.open.len() < open.len() {
                    report_progress(pending.len() - survey.open.len(), pending.len());
                }
                open = survey.open;
                problems = survey.problems;
                check_grace(&problems, &mut problems_since)?;
                next_survey = Instant::now() + survey.poll_after.max(SURVEY_INTERVAL);
            }
        }
        let awaited = || format!("the CA to verify {}", names_in_short(&open));
        let polled = polling
            .pause(update.poll_after, awaited)
            .and_then(|()| read_order(client, order_url));
        update = match polled {
            Ok(next_update) => next_update,
            // What the CA has said is a better reason than that the time is over.
            Err(error) if error.is::<OutOfTime>() && !problems.is_empty() => {
                return Err(failure_of_names(problems).into());
            }
            Err(error) => return Err(error),
        };
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

/// What a reading of the open authorizations has shown.
struct Survey<'a> {
    /// Those that are still undecided.
    open: Vec<&'a PendingAuthorization>,
    /// The undecided names whose challenges show an error, and the error.
    problems: Vec<NameFailure>,
    /// The names that the CA does not accept.
    failed: Vec<NameFailure>,
    /// How long the CA asks to wait before the next reading.
    poll_after: Duration,
}

/// Reads all authorizations in `open`, and tells the user which are valid now.
fn survey<'a>(client: &Client, open: &[&'a PendingAuthorization]) -> Result<Survey<'a>> {
    let updates = try_map_parallel(client, open, |authorization| {
        let purpose = Purpose::Authorization(Some(&authorization.identifier));
        read_authorization(client, purpose, &authorization.url)
    })?;
    let mut survey = Survey {
        open: Vec::new(),
        problems: Vec::new(),
        failed: Vec::new(),
        poll_after: Duration::ZERO,
    };
    for (authorization, update) in open.iter().zip(updates) {
        let identifier = &authorization.identifier;
        match update.resource.verdict() {
            Verdict::Valid => info!("{identifier} verified!"),
            Verdict::Failed(problem) => survey.failed.push((identifier.clone(), problem.into())),
            Verdict::Pending(problem) => {
                survey.open.push(authorization);
                survey.poll_after = survey.poll_after.max(update.poll_after);
                if let Some(problem) = problem {
                    survey.problems.push((identifier.clone(), problem.into()));
                }
            }
        }
    }
    Ok(survey)
}

impl Survey<'_> {
    /// Returns an error that tells of the names that failed, and of those that show an error, if any has
    /// failed.
    fn check_none_failed(&self) -> Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let all = [&self.failed[..], &self.problems[..]].concat();
        Err(failure_of_names(all).into())
    }
}

/// Returns an error if there have been `problems` at each survey for [`ERROR_GRACE`]. `since` keeps the time
/// of the first of these surveys.
fn check_grace(problems: &[NameFailure], since: &mut Option<Instant>) -> Result<()> {
    if problems.is_empty() {
        *since = None;
        return Ok(());
    }
    let first = since.get_or_insert_with(Instant::now);
    if first.elapsed() < ERROR_GRACE {
        return Ok(());
    }
    Err(failure_of_names(problems.to_vec()).into())
}

fn report_progress(verified: usize, total: usize) {
    if total > 1 {
        info!("{verified} of {total} names verified");
    }
}

/// Returns the names; of more than three the first, the last and the number between.
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
