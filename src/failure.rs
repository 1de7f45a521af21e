//! How a failed run is told: one line, what belongs below it, and the cure where it is known.

use std::fmt;

use anyhow::Error;

use crate::resources::Problem;

/// An error with more to say than its line, which anyhow's contexts lead up to.
#[derive(Debug, Default)]
pub struct Failure {
    line: String,
    /// The problem that the CA told, if it was one.
    pub problem: Problem,
    /// A line for each failed name or subproblem.
    pub below: Vec<String>,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// A certificate that was issued and could not be delivered; it is public, so it is shown.
    pub rescued: Option<String>,
}

impl Failure {
    /// A failure of which nothing more is known.
    pub fn new(line: impl Into<String>) -> Failure {
        Failure {
            line: line.into(),
            ..Failure::default()
        }
    }

    /// Whether `error` is the CA's refusal of ACME's `kind`, such as `accountDoesNotExist`.
    pub fn is(error: &Error, kind: &str) -> bool {
        let failure = error.downcast_ref::<Failure>();
        failure.is_some_and(|failure| failure.problem.is(kind))
    }

    /// Adds the cure, where there is one.
    pub fn hint(mut self, hint: Option<impl Into<String>>) -> Failure {
        self.hint = hint.map(Into::into);
        self
    }

    /// Adds the lines that belong below.
    pub fn below(mut self, below: Vec<String>) -> Failure {
        self.below = below;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Failure {}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        let failure = Failure::new(problem.to_string()).below(problem.below());
        Failure { problem, ..failure }
    }
}
