//! Work on many names at a time, with the results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::{Error, Result};

use crate::acme::MAX_CONNECTIONS;
use crate::acme::client::Client;
use crate::deadline::Cancelled;

/// The errors of a pass, in the order of the items. Never empty.
pub struct PassErrors(pub Vec<Error>);

impl From<PassErrors> for Error {
    /// Returns the first one. The others often have the same cause.
    fn from(errors: PassErrors) -> Error {
        let mut all = errors.0;
        all.swap_remove(0)
    }
}

/// Calls `step` for every item, [`MAX_CONNECTIONS`] at a time, and returns the results in the order of
/// the items. The first error cancels the run, which ends pauses and requests to the CA in the other steps. This
/// function returns when all steps have ended.
///
/// # Errors
/// Some steps have failed. (Steps that were only cancelled are left out.) Or the run was cancelled before.
pub fn try_map_parallel<'a, T, R>(
    client: &Client,
    items: &'a [T],
    step: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>, PassErrors>
where
    T: Sync,
    R: Send,
{
    if let Err(cancelled) = client.deadline().check_not_cancelled() {
        return Err(PassErrors(vec![cancelled.into()]));
    }
    let next_index = AtomicUsize::new(0);
    // Each thread takes one item after the other, until none is left or the run is cancelled.
    let work = || {
        let mut outcomes = Vec::new();
        while client.deadline().check_not_cancelled().is_ok() {
            let index = next_index.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else {
                break;
            };
            let outcome = step(item);
            if outcome.is_err() {
                client.cancel();
            }
            outcomes.push((index, outcome));
        }
        outcomes
    };

    let mut outcomes = Vec::new();
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 1..items.len().min(MAX_CONNECTIONS) {
            // If no thread can be started, the others have more to do.
            if let Ok(helper) = thread::Builder::new().spawn_scoped(scope, work) {
                helpers.push(helper);
            }
        }
        // This thread works, too, so there is one helper fewer than connections.
        outcomes.extend(work());
        for helper in helpers {
            outcomes.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    outcomes.sort_by_key(|(index, _)| *index);

    // The run is cancelled by a step that has failed with an error of its own. So without such an error there is
    // a result for every item.
    let mut results = Vec::new();
    let mut errors = Vec::new();
    for (_, outcome) in outcomes {
        match outcome {
            Ok(result) => results.push(result),
            Err(error) if error.is::<Cancelled>() => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(results)
    } else {
        Err(PassErrors(errors))
    }
}
