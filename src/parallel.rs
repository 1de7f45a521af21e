//! Work on many names at a time, with the results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use crate::acme::MAX_CONNECTIONS;
use crate::acme::client::Client;

/// Calls `step` for every item, [`MAX_CONNECTIONS`] at a time, and returns the results in the order of
/// the items. The first error cancels the run: no other step begins, and the requests to the CA that are
/// under way are ended. This function returns when all steps have ended.
///
/// # Errors
/// The first error in time. Those that follow may be due to the cancellation, so they are dropped.
pub fn try_map_parallel<'a, T, R>(
    client: &Client,
    items: &'a [T],
    step: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>>
where
    T: Sync,
    R: Send,
{
    let next_index = AtomicUsize::new(0);
    let first_error = Mutex::new(None);
    // Every thread takes one item after the other, until none is left or the run is cancelled.
    let work = || {
        let mut results = Vec::new();
        while client.deadline().check_not_cancelled().is_ok() {
            let index = next_index.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else {
                break;
            };
            match step(item) {
                Ok(result) => results.push((index, result)),
                Err(error) => {
                    if client.cancel() {
                        *first_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                }
            }
        }
        results
    };

    let mut indexed_results = Vec::new();
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 1..items.len().min(MAX_CONNECTIONS) {
            // If no thread can be made, the others have more to do.
            if let Ok(helper) = thread::Builder::new().spawn_scoped(scope, work) {
                helpers.push(helper);
            }
        }
        // This thread works, too.
        indexed_results.extend(work());
        for helper in helpers {
            let results = helper.join().unwrap_or_else(|panic| resume_unwind(panic));
            indexed_results.extend(results);
        }
    });

    if let Some(error) = first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(error);
    }
    // Without an error every item has a result, unless the run had been cancelled before.
    client.deadline().check_not_cancelled()?;
    indexed_results.sort_by_key(|(index, _)| *index);
    Ok(indexed_results
        .into_iter()
        .map(|(_, result)| result)
        .collect())
}
