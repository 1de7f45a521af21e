//! Problem documents: the CA's own description of what went wrong (§6.7, RFC 7807).

use std::fmt;

use anyhow::Error;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Failure;
use crate::text::excerpt;

/// What every error type of ACME begins with (§6.7).
const ACME_ERROR: &str = "urn:ietf:params:acme:error:";

/// How many subproblems the user is told of.
const MAX_SUBPROBLEMS: usize = 20;

/// A problem document. Real CAs leave out what they like, so nothing in it is required.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem(Value);

impl Problem {
    /// Returns a member of the document, if it is a string.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0[member].as_str()
    }

    /// Whether its type is the ACME error `name`, such as `badNonce`.
    pub fn is(&self, name: &str) -> bool {
        self.text("type").is_some_and(|it| is_acme_error(it, name))
    }

    /// Whether the document has neither type nor detail nor subproblems. `{}` and `null` are empty.
    pub fn is_empty(&self) -> bool {
        let members = ["type", "detail", "subproblems"];
        members.iter().all(|member| self.0[member].is_null())
    }

    /// Returns a line for each subproblem, with its identifier (§6.7.1).
    pub fn subproblem_lines(&self) -> Vec<String> {
        let Some(subproblems) = self.0["subproblems"].as_array() else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for subproblem in subproblems.iter().take(MAX_SUBPROBLEMS) {
            let problem = Problem(subproblem.clone());
            match subproblem["identifier"]["value"].as_str() {
                Some(name) => lines.push(format!("{}: {problem}", excerpt(name))),
                None => lines.push(problem.to_string()),
            }
        }
        if subproblems.len() > MAX_SUBPROBLEMS {
            lines.push(format!("and {} more", subproblems.len() - MAX_SUBPROBLEMS));
        }
        lines
    }

    /// Returns a failure with this message, to which the problem adds its type and its subproblems.
    pub fn to_failure(&self, message: String) -> Failure {
        let mut failure = Failure::new(message).with_details(self.subproblem_lines());
        failure.problem_type = self.text("type").map(str::to_owned);
        failure
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text("detail"), self.text("type")) {
            (Some(detail), Some(kind)) => write!(f, "{} ({})", excerpt(detail), excerpt(kind))?,
            (Some(text), None) | (None, Some(text)) => f.write_str(&excerpt(text))?,
            (None, None) => f.write_str("the CA gives no reason")?,
        }
        // §6.2: with badSignatureAlgorithm the CA lists the algorithms that it accepts.
        match &self.0["algorithms"] {
            Value::Null => Ok(()),
            accepted => write!(f, "; it takes {}", excerpt(&accepted.to_string())),
        }
    }
}

impl From<Problem> for Failure {
    /// The message is the problem's own words.
    fn from(problem: Problem) -> Failure {
        problem.to_failure(problem.to_string())
    }
}

/// Whether `error` is the CA's refusal with the ACME error `name`, such as `accountDoesNotExist`.
pub fn is_refusal(error: &Error, name: &str) -> bool {
    error
        .downcast_ref::<Failure>()
        .and_then(|failure| failure.problem_type.as_deref())
        .is_some_and(|problem_type| is_acme_error(problem_type, name))
}

/// Whether `error` is an error status that the CA has answered, and not a rate limit.
pub fn is_refusal_but_no_rate_limit(error: &Error) -> bool {
    let http_status = error
        .downcast_ref::<Failure>()
        .and_then(|failure| failure.http_status);
    match http_status {
        None | Some(429) => false,
        Some(_) => !is_refusal(error, "rateLimited"),
    }
}

fn is_acme_error(problem_type: &str, name: &str) -> bool {
    problem_type.strip_prefix(ACME_ERROR) == Some(name)
}
