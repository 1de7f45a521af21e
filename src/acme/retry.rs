//! What to do about a request that failed. Pure decisions: no network and no clock.

use std::time::Duration;

use super::request_error::ErrorKind;

/// Tries of one request that the CA refuses for its nonce alone (§6.5)...
const MAX_NONCE_TRIES: u32 = 200;
/// ...how many of them follow at once, and the pause before each of the others.
const IMMEDIATE_NONCE_TRIES: u32 = 5;
const NONCE_PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause after any other error; each is twice the one before.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// It may: the CA can act on it twice without harm.
    Repeatable,
    /// It may not: first the object shows whether the CA has acted.
    Once,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Send the request again with another nonce, after a pause that may be zero.
    TryAnotherNonce(Duration),
    /// Send the request again after the pause.
    TryAgain(Duration),
    /// After the pause look at the object: it shows whether the CA has acted.
    LookAtObject(Duration),
    /// Stop trying.
    GiveUp(Reason),
}

/// Why no other try is made.
#[derive(Debug, PartialEq)]
pub enum Reason {
    /// It would fail in the same way.
    WouldFailAgain,
    /// The pause before it would not fit the deadline.
    NoTimeLeft,
    /// The CA asks to come back after so long, which is not within this run.
    ComeBackAfter(Duration),
}

/// The tries of one request so far.
pub struct Retries {
    effect: Effect,
    refused_nonces: u32,
    backoff: Duration,
}

impl Retries {
    /// Begins with a request that has not been tried.
    pub fn new(effect: Effect) -> Retries {
        Retries {
            effect,
            refused_nonces: 0,
            backoff: MIN_BACKOFF,
        }
    }

    /// Decides what follows an error. `retry_after` is what the CA asks for, `remaining` the time until
    /// the deadline, and `random` any byte: it spreads the pauses of many clients.
    pub fn decide(
        &mut self,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        remaining: Duration,
        random: u8,
    ) -> Decision {
        if kind == ErrorKind::BadNonce && self.refused_nonces < MAX_NONCE_TRIES {
            self.refused_nonces += 1;
            let is_immediate = self.refused_nonces <= IMMEDIATE_NONCE_TRIES;
            let pause = if is_immediate {
                Duration::ZERO
            } else {
                NONCE_PAUSE
            };
            return Decision::TryAnotherNonce(pause.min(remaining));
        }
        let retry_after = retry_after.filter(|pause| !pause.is_zero());
        let pause = with_jitter(self.backoff, random).max(retry_after.unwrap_or_default());
        let is_too_late = pause >= remaining;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);

        let would_fail_again = match kind {
            ErrorKind::BadNonce | ErrorKind::Permanent => true,
            // It is nothing to wait for unless the object will show the outcome.
            ErrorKind::AlreadyUnderWay => self.effect == Effect::Repeatable,
            ErrorKind::TooManyRequests | ErrorKind::OutcomeUnknown => false,
        };
        if would_fail_again || is_too_late {
            return Decision::GiveUp(match retry_after {
                Some(wait) => Reason::ComeBackAfter(wait),
                None if would_fail_again => Reason::WouldFailAgain,
                None => Reason::NoTimeLeft,
            });
        }
        if kind == ErrorKind::TooManyRequests || self.effect == Effect::Repeatable {
            Decision::TryAgain(pause)
        } else {
            Decision::LookAtObject(pause)
        }
    }
}

/// Returns half to all of `pause`.
fn with_jitter(pause: Duration, random: u8) -> Duration {
    pause / 2 + pause / 2 * u32::from(random) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(900);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_follows_the_first_error() {
        use Decision::{GiveUp, LookAtObject, TryAgain, TryAnotherNonce};
        use Effect::{Once, Repeatable};
        use ErrorKind::{AlreadyUnderWay, BadNonce, OutcomeUnknown, Permanent, TooManyRequests};
        use Reason::{ComeBackAfter, NoTimeLeft, WouldFailAgain};

        let asked = |count| Some(seconds(count));
        let table = [
            (
                BadNonce,
                Repeatable,
                None,
                LONG,
                TryAnotherNonce(seconds(0)),
            ),
            (BadNonce, Once, None, LONG, TryAnotherNonce(seconds(0))),
            (
                TooManyRequests,
                Repeatable,
                None,
                LONG,
                TryAgain(seconds(1)),
            ),
            (TooManyRequests, Once, None, LONG, TryAgain(seconds(1))),
            (TooManyRequests, Once, asked(5), LONG, TryAgain(seconds(5))),
            (TooManyRequests, Once, asked(0), LONG, TryAgain(seconds(1))),
            (
                TooManyRequests,
                Once,
                asked(900),
                LONG,
                GiveUp(ComeBackAfter(LONG)),
            ),
            (OutcomeUnknown, Repeatable, None, LONG, TryAgain(seconds(1))),
            (OutcomeUnknown, Once, None, LONG, LookAtObject(seconds(1))),
            (OutcomeUnknown, Once, None, seconds(1), GiveUp(NoTimeLeft)),
            (
                OutcomeUnknown,
                Repeatable,
                None,
                seconds(1),
                GiveUp(NoTimeLeft),
            ),
            (
                AlreadyUnderWay,
                Repeatable,
                None,
                LONG,
                GiveUp(WouldFailAgain),
            ),
            (
                AlreadyUnderWay,
                Once,
                asked(3),
                LONG,
                LookAtObject(seconds(3)),
            ),
            (Permanent, Repeatable, None, LONG, GiveUp(WouldFailAgain)),
            (Permanent, Once, None, seconds(0), GiveUp(WouldFailAgain)),
            (
                Permanent,
                Once,
                asked(7),
                LONG,
                GiveUp(ComeBackAfter(seconds(7))),
            ),
        ];
        for (kind, effect, retry_after, remaining, expected) in table {
            let decision = Retries::new(effect).decide(kind, retry_after, remaining, u8::MAX);
            assert_eq!(decision, expected, "{kind:?} {effect:?} {retry_after:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut retries = Retries::new(Effect::Repeatable);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let decision = retries.decide(ErrorKind::OutcomeUnknown, None, LONG, u8::MAX);
            assert_eq!(decision, Decision::TryAgain(seconds(expected)));
        }
        let shortest = retries.decide(ErrorKind::OutcomeUnknown, None, LONG, 0);
        assert_eq!(shortest, Decision::TryAgain(seconds(30)));
    }

    #[test]
    fn nonces_are_tried_two_hundred_times() {
        let mut retries = Retries::new(Effect::Once);
        for count in 1..=MAX_NONCE_TRIES {
            let pause = if count <= 5 {
                Duration::ZERO
            } else {
                NONCE_PAUSE
            };
            let decision = retries.decide(ErrorKind::BadNonce, None, LONG, 0);
            assert_eq!(decision, Decision::TryAnotherNonce(pause), "{count}");
        }
        let decision = retries.decide(ErrorKind::BadNonce, None, LONG, 0);
        assert_eq!(decision, Decision::GiveUp(Reason::WouldFailAgain));
    }
}
