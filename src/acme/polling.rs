//! Waiting for the CA: the result of a poll, the pauses between two polls, and what the user hears meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use log::info;
use serde::de::DeserializeOwned;

use super::response::Response;
use super::retry::MIN_TRY_TIME;
use crate::deadline::Deadline;

/// The shortest pause between two polls.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// The longest pause, unless the CA asks for more.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Between these bounds, a pause is the time waited so far divided by this. So a change is seen a tenth too late at
/// most, and the polls become rarer.
const POLL_INTERVAL_DIVISOR: u32 = 10;
/// The longest pause that the CA can ask for.
const POLL_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// After this long, and then again and again, a message says what getcrt is waiting for.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// One wait. The caller polls at once, and after that it calls [`pause`](Polling::pause) before each poll.
pub struct Polling<'a> {
    deadline: &'a Deadline,
    started: Instant,
    /// When it was last said what is awaited; at first, when the wait began.
    last_news: Instant,
}

impl Polling<'_> {
    /// Starts the clock of a wait.
    pub fn new(deadline: &Deadline) -> Polling<'_> {
        Polling {
            deadline,
            started: Instant::now(),
            last_news: Instant::now(),
        }
    }

    /// Sleeps until the next poll, for `poll_after` at least. `awaited` says what is waited for, after the
    /// words "Waiting for".
    ///
    /// # Errors
    /// The next poll would come after the deadline; or the run was cancelled.
    pub fn pause(&mut self, poll_after: Duration, awaited: impl Fn() -> String) -> Result<()> {
        let pause = poll_interval(self.started.elapsed()).max(poll_after);
        let remaining = self.deadline.remaining();
        if pause + MIN_TRY_TIME >= remaining {
            bail!(
                "gave up waiting for {}: {} s are left (--timeout), and the next look would be in {} s",
                awaited(),
                remaining.as_secs(),
                pause.as_secs_f32().ceil(),
            );
        }
        if self.last_news.elapsed() + pause >= SILENCE_MAX {
            self.last_news = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            info!("Waiting for {}, {seconds} s so far...", awaited());
        }
        self.deadline.sleep(pause)?;
        Ok(())
    }
}

/// Returns the pause before the next poll, if the CA does not ask for a longer one. `waited` is the time since the
/// wait began.
fn poll_interval(waited: Duration) -> Duration {
    (waited / POLL_INTERVAL_DIVISOR).clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX)
}

/// A resource as the CA has just described it.
pub struct Update<T> {
    /// The resource.
    pub resource: T,
    /// How long the CA asks to wait before it is read again; zero if the CA does not say.
    pub poll_after: Duration,
}

impl<T: DeserializeOwned> Update<T> {
    /// Reads a response that describes the resource.
    ///
    /// # Errors
    /// The body is not such a resource.
    pub fn from_response(response: &Response) -> Result<Update<T>> {
        let retry_after = response.retry_after().unwrap_or_default();
        Ok(Update {
            resource: response.json()?,
            poll_after: retry_after.min(POLL_RETRY_AFTER_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_time_waited() {
        let milliseconds = Duration::from_millis;
        for (waited, pause) in [
            (0, 250),
            (1_000, 250),
            (2_500, 250),
            (3_000, 300),
            (20_000, 2_000),
            (50_000, 5_000),
            (900_000, 5_000),
        ] {
            let expected = milliseconds(pause);
            assert_eq!(poll_interval(milliseconds(waited)), expected, "{waited}");
        }
    }
}
