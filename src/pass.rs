//! A pass over many names that crosses the network: side by side, with results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::Result;

/// How many steps are under way at a time: enough to hide round trips, few enough for CAs' limits.
pub const WIDTH: usize = 8;

/// Takes `step` for every item and gives the results in the order of the items. After an error no
/// new step begins, and none outlives this call.
///
/// # Errors
/// The error of the first item that had one.
pub fn side_by_side<'a, T, R>(
    items: &'a [T],
    step: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>>
where
    T: Sync,
    R: Send,
{
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        while !has_failed.load(Relaxed) {
            let index = next.fetch_add(1, Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = step(item);
            has_failed.fetch_or(result.is_err(), Relaxed);
            done.push((index, result));
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
