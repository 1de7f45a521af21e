//! An error with more to it than a message: details, a hint, a certificate that was not delivered.

use std::fmt;

/// What went wrong, and what is printed below the `error:` line.
///
/// It travels inside an [`anyhow::Error`], whose contexts say which step and object it concerns. If a CA
/// refuses a request or cannot be reached, the client's error is always a `Failure`. An error of the client that holds
/// none has another cause: no time is left, the run was cancelled, a reply was not understood. Other code depends on
/// this difference (`Survey::explain` in `validation.rs`, `name_failure_or_other` in `authorize.rs`), so do not return a
/// `Failure` there merely for its hint.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    message: String,
    /// The HTTP status, if this is what the CA has answered.
    pub http_status: Option<u16>,
    /// The type of the CA's problem document, if the CA sent one (RFC 8555 §6.7).
    pub problem_type: Option<String>,
    /// Why another order may succeed, if an order has failed and another may.
    pub reason_to_order_again: Option<&'static str>,
    /// One line for each failed name, for each subproblem, or for each value that would have been accepted.
    pub details: Vec<String>,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The PEM of a chain that was issued but could not be written. It is public, so it is printed.
    pub undelivered_chain: Option<String>,
}

impl Failure {
    /// Creates a failure that has a message and nothing else.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            ..Failure::default()
        }
    }

    /// Adds a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the lines that are printed below the message.
    pub fn with_details(mut self, details: Vec<String>) -> Failure {
        self.details = details;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
