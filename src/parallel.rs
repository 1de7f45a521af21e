//! Work on many names at a time, with the results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::Result;

use crate::acme::MAX_CONNECTIONS;
use crate::acme::client::Client;

/// Calls `step` for every item, [`MAX_CONNECTIONS`] at a time, and returns the results in the order of
/// the items. The first error cancels the run: no step begins after it, the requests of those under way
/// end in a moment, and only then does this function return.
///
/// # Errors
/// The first error in time. Those that follow it may be due to the cancellation, so they are dropped.
pub fn try_map_parallel<'a, T, R>(
    client: &Client,
    items: &'a [T],
    step: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>>
where
    T: Sync,
    R: Send,
{
    client.deadline().check_not_cancelled()?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        while client.deadline().check_not_cancelled().is_ok() {
            let index = next.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else {
                break;
            };
            let result = step(item);
            let is_first_error = result.is_err() && client.cancel();
            if result.is_ok() || is_first_error {
                results.push((index, result));
            }
        }
        results
    };
    let mut results = Vec::new();
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 1..items.len().min(MAX_CONNECTIONS) {
            // If no thread can be made, the others have more to do.
            helpers.extend(thread::Builder::new().spawn_scoped(scope, work));
        }
        results.extend(work());
        for helper in helpers {
            results.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
