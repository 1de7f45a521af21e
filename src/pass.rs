//! A pass over many names that crosses the network: side by side, with results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::client::{Client, WIDTH};

/// Takes `step` for every item and gives the results in the order of the items. After an error no
/// new step begins, `client` gives up those that are under way, and none outlives this call.
///
/// # Errors
/// The first that there was.
pub fn side_by_side<'a, T, R>(
    client: &Client,
    items: &'a [T],
    step: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>>
where
    T: Sync,
    R: Send,
{
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while client.pause(Duration::ZERO).is_ok() {
            let index = next.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = step(item);
            // What fails after the first failure may be of its making.
            if result.is_ok() || client.give_up() {
                done.push((index, result));
            }
        }
        done
    };
    let mut results = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WIDTH.min(items.len()))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            results.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
