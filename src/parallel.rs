//! Work on many names at a time, with the results in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
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
/// The errors of all steps that have failed, except those that were merely cancelled. Or the run was cancelled before.
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
    // By the index of the item, so they are in order in the end.
    let outcomes = Mutex::new(BTreeMap::new());
    // Each thread takes one item after the other, until none is left or the run is cancelled.
    let work = || {
        while client.deadline().check_not_cancelled().is_ok() {
            let index = next_index.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else {
                break;
            };
            let outcome = step(item);
            if outcome.is_err() {
                client.cancel();
            }
            let mut ended = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            ended.insert(index, outcome);
        }
    };
    thread::scope(|scope| {
        // This thread works, too, so one fewer is started.
        for _ in 1..items.len().min(MAX_CONNECTIONS) {
            // If a thread cannot be started, the others have more to do.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });

    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // Only a step that fails cancels the run. So if none has failed, there is a result for every item.
    let mut results = Vec::new();
    let mut errors = Vec::new();
    for outcome in outcomes.into_values() {
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
