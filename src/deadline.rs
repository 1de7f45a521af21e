//! The time that is left to a run, and pauses that end at once when the run has failed.

use std::fmt;
use std::mem::replace;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A moment by which everything must be done, and a switch that ends all pauses when the run has failed.
/// Deadlines that are made from each other share the switch.
#[derive(Clone)]
pub struct Deadline {
    end: Instant,
    switch: Arc<Switch>,
}

#[derive(Default)]
struct Switch {
    is_cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Deadline {
    /// Creates a deadline `timeout` from now.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline {
            end: Instant::now() + timeout,
            switch: Arc::default(),
        }
    }

    /// Returns this deadline, or one `timeout` from now if that is sooner.
    pub fn at_most(&self, timeout: Duration) -> Deadline {
        Deadline {
            end: self.end.min(Instant::now() + timeout),
            switch: Arc::clone(&self.switch),
        }
    }

    /// Returns this deadline, or one `grace` from now if that is later.
    pub fn at_least(&self, grace: Duration) -> Deadline {
        Deadline {
            end: self.end.max(Instant::now() + grace),
            switch: Arc::clone(&self.switch),
        }
    }

    /// Returns the time that is left; zero when it is over.
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Sleeps for `pause`. Whether that fits the deadline is for the caller to check.
    ///
    /// # Errors
    /// The run was cancelled before or meanwhile; then the pause ends at once.
    pub fn sleep(&self, pause: Duration) -> Result<(), Cancelled> {
        let goes_on = |is_cancelled: &mut bool| !*is_cancelled;
        let lock = self.switch.lock();
        let waited = self.switch.changed.wait_timeout_while(lock, pause, goes_on);
        // Give the lock back: the check takes it again.
        drop(waited);
        self.check_not_cancelled()
    }

    /// Cancels the run: ends every [`sleep`](Deadline::sleep), present and future. Returns false if
    /// it was cancelled already.
    pub fn cancel(&self) -> bool {
        let was_cancelled = replace(&mut *self.switch.lock(), true);
        self.switch.changed.notify_all();
        !was_cancelled
    }

    /// Checks that the run goes on.
    ///
    /// # Errors
    /// It was cancelled.
    pub fn check_not_cancelled(&self) -> Result<(), Cancelled> {
        if *self.switch.lock() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }
}

impl Switch {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_cancelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of work that was given up because other work of the same run has failed.
#[derive(Debug)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run has failed by now")
    }
}

impl std::error::Error for Cancelled {}
