//! Panics are faults of getcrt itself. [`catch`] turns them into errors.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use crate::error::Failure;

/// The message and the place of the first panic.
static FIRST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// From now on a panic prints nothing by itself. It is remembered for [`catch`].
pub fn silence() {
    panic::set_hook(Box::new(|info| {
        let message = info.to_string().replace('\n', " ");
        let mut first = FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic of one thread makes the thread that waits for it panic, too.
        first.get_or_insert(message);
    }));
}

/// Returns what `work` returns.
///
/// # Errors
/// The error of `work`. Or it panicked, here or in a scoped thread.
pub fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What `work` has borrowed is not used after a panic, apart from locks, which all code here takes over if they
    // are poisoned.
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(_) => {
            let mut first = FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            let message = first.take().unwrap_or_default();
            let hint = "this is a fault of getcrt; please report it with this message";
            bail!(Failure::new(format!("internal error: {message}")).with_hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "panics are the subject")]

    use std::thread;

    use super::*;

    #[test]
    fn panic_of_a_scoped_thread_is_an_error() {
        let default_hook = panic::take_hook();
        silence();
        let result = catch(|| {
            thread::scope(|scope| {
                scope.spawn(|| panic!("over\nboard"));
            });
            Ok(())
        });
        panic::set_hook(default_hook);
        let message = result.err().map(|error| error.to_string());
        let message = message.unwrap_or_default();
        assert!(
            message.starts_with("internal error: panicked at src/panics.rs:"),
            "{message}"
        );
        assert!(message.ends_with(": over board"), "{message}");
    }
}
