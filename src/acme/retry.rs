//! What to do about a request that failed. Only decisions: this file knows no network and no clock.

use std::time::Duration;

use super::request_error::ErrorKind;
use crate::error::Failure;

/// How often a request is sent again because the CA refuses its nonce (§6.5).
const MAX_NONCE_RETRIES: u32 = 200;
/// How many of these retries follow without a pause. The others wait for [`NONCE_PAUSE`].
const IMMEDIATE_NONCE_RETRIES: u32 = 2;
const NONCE_PAUSE: Duration = Duration::from_millis(250);
/// The pause after any other error. It doubles with each such error, up to [`MAX_BACKOFF`]. It is shortened at random
/// by up to half, and the CA can ask for more.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The time that must be left for another try. With less, the try would end in a timeout that hides the reason that
/// the CA has given.
pub const MIN_TRY_TIME: Duration = Duration::from_millis(250);

/// What happens if the CA acts on a request twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// No harm. If the outcome is unknown, the request is sent again.
    Repeatable,
    /// Harm. First the object must show whether the CA has acted on the request.
    Once,
    /// No harm. But the caller has another request, which is more likely to succeed if the outcome is unknown.
    Optional,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Send the request again with another nonce, after a pause that may be zero.
    TryAnotherNonce(Duration),
    /// Send the request again after a pause that may be zero.
    TryAgain(Duration),
    /// Look at the object after a pause that may be zero: it shows whether the CA has acted.
    LookAtObject(Duration),
    /// Tell the caller that the outcome is unknown.
    LeaveToCaller,
    /// Stop trying.
    GiveUp(Reason),
}

/// Why a request is not tried again.
#[derive(Debug, PartialEq)]
pub enum Reason {
    /// It would fail in the same way.
    WouldFailAgain,
    /// The pause and another try would not fit the deadline.
    NoTimeLeft,
    /// Another try in this run is pointless, but the CA says when to come back.
    ComeBackAfter(Duration),
}

/// The tries of one request so far. Pauses grow from one to the next, also if the caller looks at the object between
/// them.
pub struct Retries {
    effect: Effect,
    nonce_retries: u32,
    backoff: Duration,
    /// How long the CA asks to wait before the object is looked at again.
    pub poll_after: Duration,
    /// Whether a connection was lost. If so, the next tries get a new one.
    pub connection_was_lost: bool,
    /// The last error that the CA has answered.
    pub last_answer: Option<Failure>,
}

impl Retries {
    /// Returns the state of a request that has not been tried.
    pub fn new(effect: Effect) -> Retries {
        Retries {
            effect,
            nonce_retries: 0,
            backoff: FIRST_BACKOFF,
            poll_after: Duration::ZERO,
            connection_was_lost: false,
            last_answer: None,
        }
    }

    /// Decides what follows an error. `retry_after` is what the CA asks for, `remaining` is the time until
    /// the deadline, and `random` is any byte: it spreads the pauses of many clients.
    pub fn decide(
        &mut self,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        remaining: Duration,
        random: u8,
    ) -> Decision {
        if kind == ErrorKind::BadNonce && self.nonce_retries < MAX_NONCE_RETRIES {
            self.nonce_retries += 1;
            return Decision::TryAnotherNonce(self.nonce_pause().min(remaining));
        }
        // The decision, which only lacks the pause.
        let next_step = match (kind, self.effect) {
            (ErrorKind::BadNonce | ErrorKind::Permanent, _)
            | (ErrorKind::WrongState, Effect::Repeatable | Effect::Optional) => {
                return give_up(Reason::WouldFailAgain, retry_after);
            }
            (ErrorKind::OutcomeUnknown, Effect::Optional) => return Decision::LeaveToCaller,
            (ErrorKind::ConnectionLost, Effect::Optional) if self.connection_was_lost => {
                return Decision::LeaveToCaller;
            }
            // The CA has not acted, or acting twice does no harm.
            (ErrorKind::TooManyRequests, _)
            | (ErrorKind::OutcomeUnknown, Effect::Repeatable)
            | (ErrorKind::ConnectionLost, Effect::Repeatable | Effect::Optional) => {
                Decision::TryAgain
            }
            // The CA may have acted.
            (
                ErrorKind::WrongState | ErrorKind::OutcomeUnknown | ErrorKind::ConnectionLost,
                Effect::Once,
            ) => Decision::LookAtObject,
        };
        let pause = self
            .own_pause(kind, random)
            .max(retry_after.unwrap_or_default())
            .max(self.poll_after);
        if pause + MIN_TRY_TIME < remaining {
            next_step(pause)
        } else {
            // If the CA's own wish would fit, that is not what leaves no time.
            let too_long = retry_after.filter(|wait| *wait + MIN_TRY_TIME >= remaining);
            give_up(Reason::NoTimeLeft, too_long)
        }
    }

    /// Returns the pause before the next step, if the CA does not ask for a longer one.
    fn own_pause(&mut self, kind: ErrorKind, random: u8) -> Duration {
        if kind == ErrorKind::ConnectionLost && !self.connection_was_lost {
            self.connection_was_lost = true;
            return Duration::ZERO;
        }
        let pause = with_jitter(self.backoff, random);
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        pause
    }

    fn nonce_pause(&self) -> Duration {
        if self.nonce_retries <= IMMEDIATE_NONCE_RETRIES {
            Duration::ZERO
        } else {
            NONCE_PAUSE
        }
    }
}

/// Gives up for this reason; or, if the CA has said when another try makes sense, for that one.
fn give_up(reason: Reason, retry_after: Option<Duration>) -> Decision {
    match retry_after {
        Some(wait) if !wait.is_zero() => Decision::GiveUp(Reason::ComeBackAfter(wait)),
        _ => Decision::GiveUp(reason),
    }
}

/// Returns half of `pause` plus a random part of the other half.
fn with_jitter(pause: Duration, random: u8) -> Duration {
    let half = pause / 2;
    half + half * u32::from(random) / u32::from(u8::MAX)
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
        use Decision::{GiveUp, LeaveToCaller, LookAtObject, TryAgain, TryAnotherNonce};
        use Effect::{Once, Optional, Repeatable};
        use ErrorKind::{
            BadNonce, ConnectionLost, OutcomeUnknown, Permanent, TooManyRequests, WrongState,
        };
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
            (ConnectionLost, Repeatable, None, LONG, TryAgain(seconds(0))),
            (ConnectionLost, Once, None, LONG, LookAtObject(seconds(0))),
            (ConnectionLost, Once, None, seconds(0), GiveUp(NoTimeLeft)),
            (ConnectionLost, Optional, None, LONG, TryAgain(seconds(0))),
            (OutcomeUnknown, Optional, None, LONG, LeaveToCaller),
            (OutcomeUnknown, Optional, asked(9), LONG, LeaveToCaller),
            (TooManyRequests, Optional, None, LONG, TryAgain(seconds(1))),
            (WrongState, Optional, None, LONG, GiveUp(WouldFailAgain)),
            (WrongState, Repeatable, None, LONG, GiveUp(WouldFailAgain)),
            (WrongState, Once, asked(3), LONG, LookAtObject(seconds(3))),
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
    fn only_the_first_lost_connection_needs_no_pause() {
        let mut retries = Retries::new(Effect::Once);
        for expected in [0, 1, 2] {
            let decision = retries.decide(ErrorKind::ConnectionLost, None, LONG, u8::MAX);
            assert_eq!(decision, Decision::LookAtObject(seconds(expected)));
            assert!(retries.connection_was_lost);
        }
    }

    #[test]
    fn an_optional_request_whose_connection_is_lost_twice_is_left_to_the_caller() {
        let mut retries = Retries::new(Effect::Optional);
        for expected in [Decision::TryAgain(seconds(0)), Decision::LeaveToCaller] {
            let decision = retries.decide(ErrorKind::ConnectionLost, None, LONG, 0);
            assert_eq!(decision, expected);
        }
    }

    #[test]
    fn the_object_is_not_looked_at_sooner_than_asked() {
        let mut retries = Retries::new(Effect::Once);
        retries.poll_after = seconds(7);
        let mut decide = |remaining| {
            let kind = ErrorKind::ConnectionLost;
            retries.decide(kind, None, remaining, u8::MAX)
        };
        assert_eq!(decide(LONG), Decision::LookAtObject(seconds(7)));
        assert_eq!(decide(seconds(7)), Decision::GiveUp(Reason::NoTimeLeft));
    }

    #[test]
    fn two_hundred_more_nonces_are_tried() {
        let mut retries = Retries::new(Effect::Once);
        for count in 1..=MAX_NONCE_RETRIES {
            let pause = if count <= IMMEDIATE_NONCE_RETRIES {
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
