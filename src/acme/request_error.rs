//! How a request to the CA fails.

use std::time::Duration;

use crate::error::Failure;

/// A request that did not succeed: what that means for another try, and the words for the user.
#[derive(Debug)]
pub struct RequestError {
    /// What another try can be expected to do.
    pub kind: ErrorKind,
    /// What the user is told.
    pub failure: Box<Failure>,
    /// How long the CA asks to wait before the next try.
    pub retry_after: Option<Duration>,
}

/// What a failed request means for another try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ErrorKind {
    /// The CA refused the nonce, and nothing else; with another nonce it may succeed (§6.5).
    BadNonce,
    /// The CA did nothing, because it is asked too often (429, or rateLimited until a time that it tells).
    TooManyRequests,
    /// The object's state does not allow the request (409, orderNotReady), perhaps because an earlier try succeeded
    /// and its response was lost.
    WrongState,
    /// The connection ended before there was a response. The CA may have acted on the request; more likely it had
    /// closed a connection that was idle.
    ConnectionLost,
    /// The CA had an internal error (5xx), did not answer in time, or cannot be reached. It may have acted on the
    /// request, or not.
    OutcomeUnknown,
    /// The same request would fail again in the same way.
    Permanent,
}
