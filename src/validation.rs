//! Waits until the CA has validated all names of an order. Sections in the comments are RFC 8555's.

use std::mem::take;
use std::time::{Duration, Instant};

use anyhow::Result;
use log::info;

use crate::acme::Purpose;
use crate::acme::client::Client;
use crate::acme::polling::{Polling, poll_after};
use crate::acme::resources::{AcmeUrl, Order, Status, Verdict};
use crate::acme::response::Response;
use crate::authorize::{NameFailure, PendingAuthorization, failure_of_names, parse_authorization};
use crate::deadline::OutOfTime;
use crate::parallel::try_map_parallel;
use crate::text::comma_separated;

/// For how long challenges may show errors without being invalid: the CA may be trying again (§8.2).
const ERROR_GRACE: Duration = Duration::from_secs(30);
/// How long an order may stay pending before its authorizations are read, to see why.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Polls the order until it says that all names are proven, and returns the response that says so. The
/// authorizations are read only when the order fails or stands still: one request for the order replaces
/// one for each name.
///
/// # Errors
/// The CA does not accept some names, or not in time. The error says why for each of them.
pub fn wait_until_ready(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Response,
    pending: &[PendingAuthorization],
) -> Result<Response> {
    let mut open = OpenAuthorizations::new(pending);
    match poll_order(client, order_url, new_order, &mut open) {
        Ok(response) => {
            // The order is ready, so these are valid, too.
            for authorization in &open.list {
                info!("{} verified!", authorization.identifier);
            }
            Ok(response)
        }
        // A problem that the CA has met says more than that the time is over.
        Err(error) if error.is::<OutOfTime>() && !open.problems.is_empty() => {
            Err(failure_of_names(open.problems).into())
        }
        Err(error) => Err(error),
    }
}

fn poll_order(
    client: &Client,
    order_url: &AcmeUrl,
    new_order: Response,
    open: &mut OpenAuthorizations,
) -> Result<Response> {
    let mut polling = Polling::new(client.deadline());
    // If all names were proven before, the order may have been ready from the start.
    let mut response = if open.list.is_empty() {
        new_order
    } else {
        client.post_as_get(Purpose::Order, order_url)?
    };
    loop {
        let order: Order = response.json()?;
        match order.status {
            Status::Ready | Status::Processing | Status::Valid => return Ok(response),
            Status::Pending => {
                if open.last_read.elapsed() >= open.read_interval {
                    open.read_again(client)?;
                    open.report_progress();
                }
            }
            Status::Invalid | Status::Other(_) => {
                // They know more about the reason than the order does.
                open.read_again(client)?;
                return Err(order.failure().into());
            }
        }
        polling.pause(poll_after(&response), || {
            format!("the CA to verify {}", open.names())
        })?;
        response = client.post_as_get(Purpose::Order, order_url)?;
    }
}

/// The authorizations that are not known to be valid, and what the CA said of them when they were last
/// read.
struct OpenAuthorizations<'a> {
    list: Vec<&'a PendingAuthorization>,
    last_read: Instant,
    /// How long after that they may be read again.
    read_interval: Duration,
    /// The errors that their challenges showed, without being invalid.
    problems: Vec<NameFailure>,
    /// Since when there have been such errors each time.
    problems_since: Option<Instant>,
    /// How many there were in the beginning.
    total: usize,
    /// How many the user knows to be verified.
    reported: usize,
}

impl<'a> OpenAuthorizations<'a> {
    fn new(pending: &'a [PendingAuthorization]) -> OpenAuthorizations<'a> {
        let waits = pending.iter().map(|authorization| authorization.poll_after);
        OpenAuthorizations {
            list: pending.iter().collect(),
            last_read: Instant::now(),
            read_interval: waits.fold(STANDSTILL, Duration::max),
            problems: Vec::new(),
            problems_since: None,
            total: pending.len(),
            reported: 0,
        }
    }

    /// Reads them all. Those that have become valid are reported, and leave the list.
    ///
    /// # Errors
    /// Some have failed, or have shown errors for longer than [`ERROR_GRACE`].
    fn read_again(&mut self, client: &Client) -> Result<()> {
        let responses = try_map_parallel(client, &self.list, |authorization| {
            let purpose = Purpose::Authorization(Some(&authorization.identifier));
            client.post_as_get(purpose, &authorization.url)
        })?;
        let was_open = take(&mut self.list);
        let mut failed: Vec<NameFailure> = Vec::new();
        self.problems.clear();
        self.read_interval = STANDSTILL;
        for (authorization, response) in was_open.into_iter().zip(responses) {
            let identifier = &authorization.identifier;
            match parse_authorization(&response, &authorization.url)?.verdict() {
                Verdict::Valid => info!("{identifier} verified!"),
                Verdict::Failed(problem) => failed.push((identifier.clone(), problem.into())),
                Verdict::Pending(problem) => {
                    self.list.push(authorization);
                    self.read_interval = self.read_interval.max(poll_after(&response));
                    if let Some(problem) = problem {
                        self.problems.push((identifier.clone(), problem.into()));
                    }
                }
            }
        }
        self.last_read = Instant::now();
        if !failed.is_empty() {
            failed.append(&mut self.problems);
            return Err(failure_of_names(failed).into());
        }
        self.check_grace()
    }

    fn check_grace(&mut self) -> Result<()> {
        if self.problems.is_empty() {
            self.problems_since = None;
            return Ok(());
        }
        let since = *self.problems_since.get_or_insert_with(Instant::now);
        if since.elapsed() < ERROR_GRACE {
            return Ok(());
        }
        Err(failure_of_names(take(&mut self.problems)).into())
    }

    /// Tells the user how many of several names are verified, if it has changed.
    fn report_progress(&mut self) {
        let verified = self.total - self.list.len();
        if verified > self.reported && self.total > 1 {
            info!("{verified} of {} names verified", self.total);
            self.reported = verified;
        }
    }

    /// Returns the names; of more than three the first, the last and the number between.
    fn names(&self) -> String {
        match &self.list[..] {
            [] => "the order".to_owned(),
            [first, _, _, .., last] => {
                let between = self.list.len() - 2;
                let first = &first.identifier;
                let last = &last.identifier;
                format!("{first}, {between} more and {last}")
            }
            few => comma_separated(few.iter().map(|authorization| &authorization.identifier)),
        }
    }
}
