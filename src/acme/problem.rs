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

    /// Returns what a document says that is no problem document: `message: maintenance`, for example.
    fn other_words(&self) -> Option<String> {
        let members = self.0.as_object()?;
        let words: Vec<String> = members
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}: {}", value.as_str()?)))
            .collect();
        if words.is_empty() {
            None
        } else {
            Some(excerpt(&words.join(", ")))
        }
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

    /// Returns a failure with this message, to which the problem adds its type, its subproblems and a hint.
    pub fn to_failure(&self, message: String) -> Failure {
        let mut failure = Failure::new(message).with_details(self.subproblem_lines());
        failure.problem_type = self.text("type").map(str::to_owned);
        failure.hint = self.hint().map(str::to_owned);
        failure
    }

    /// Returns what the user can do about a problem of this type, or about the first subproblem of a known type.
    fn hint(&self) -> Option<&'static str> {
        let own_type = self.text("type").unwrap_or_default();
        let own_hint = own_type.strip_prefix(ACME_ERROR).and_then(hint_for);
        if own_hint.is_some() {
            return own_hint;
        }
        let subproblems = self.0["subproblems"].as_array().into_iter().flatten();
        let types = subproblems.filter_map(|subproblem| subproblem["type"].as_str());
        types
            .filter_map(|it| it.strip_prefix(ACME_ERROR))
            .find_map(hint_for)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text("detail"), self.text("type")) {
            (Some(detail), Some(kind)) => write!(f, "{} ({})", excerpt(detail), excerpt(kind))?,
            (Some(text), None) | (None, Some(text)) => f.write_str(&excerpt(text))?,
            (None, None) => match self.other_words() {
                Some(words) => f.write_str(&words)?,
                None => f.write_str("the CA gives no reason")?,
            },
        }
        // §6.2: with badSignatureAlgorithm the CA lists the algorithms that it accepts.
        match &self.0["algorithms"] {
            Value::Null => Ok(()),
            accepted => write!(f, "; it takes {}", excerpt(&accepted.to_string())),
        }
    }
}

impl From<Problem> for Failure {
    /// Returns the failure of a name that the CA has tried to validate. The message is the problem's own words.
    fn from(problem: Problem) -> Failure {
        let mut failure = problem.to_failure(problem.to_string());
        // Elsewhere this type means that the account may not do something.
        if problem.is("unauthorized") || problem.is("incorrectResponse") {
            failure.hint = Some(WRONG_FILE_HINT.to_owned());
        }
        failure
    }
}

/// The hint on a validation that has found something else than the challenge file.
const WRONG_FILE_HINT: &str = "make /.well-known/acme-challenge/ lead to the directory of --acme-dir on every server to which the name's A and AAAA records point";

/// Returns what the user can do about an ACME error of this type (§6.7 and the documents that add to its table).
fn hint_for(error_type: &str) -> Option<&'static str> {
    match error_type {
        "accountDoesNotExist" => {
            Some("check that --account-key and --directory-url belong together")
        }
        "badCSR" => Some(
            "make another CSR, for a key that this CA takes (RSA with 2048 bits and P-256 are taken everywhere)",
        ),
        "badPublicKey" => {
            Some("make another key: RSA with 2048 bits and P-256 are taken everywhere")
        }
        "badSignatureAlgorithm" => Some(
            "make another account key: RSA with 2048 bits and P-256 are taken everywhere, P-521 and Ed25519 by few CAs",
        ),
        "caa" => Some(
            "change the name's CAA record in the DNS, which does not let this CA issue for this account by http-01",
        ),
        "connection" => Some(
            "open port 80 of the web server to the whole internet, at every address in the name's A and AAAA records",
        ),
        "dns" => Some(
            "repair the name's DNS: each of its name servers must answer for A, AAAA and CAA and, where the domain is signed, with valid DNSSEC signatures",
        ),
        "invalidProfile" => Some("choose one of the CA's profiles with --profile, or leave it out"),
        "orderNotReady" => Some("run getcrt again; it makes a new order"),
        "rejectedIdentifier" => Some(
            "leave out the names for which this CA does not issue (for IP addresses, Let's Encrypt wants --profile shortlived)",
        ),
        "tls" => {
            Some("serve the challenge files by plain http on port 80, without a redirect to https")
        }
        "unsupportedIdentifier" => {
            Some("leave out the kinds of names that this CA does not know, such as IP addresses")
        }
        _ => None,
    }
}

/// Whether `error` is the CA's refusal with the ACME error `name`, such as `accountDoesNotExist`.
pub fn is_refusal(error: &Error, name: &str) -> bool {
    error
        .downcast_ref::<Failure>()
        .is_some_and(|failure| failure.has_type(name))
}

impl Failure {
    /// Whether it is the ACME error `name`, such as `connection`.
    pub fn has_type(&self, name: &str) -> bool {
        let problem_type = self.problem_type.as_deref();
        problem_type.is_some_and(|it| is_acme_error(it, name))
    }
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
