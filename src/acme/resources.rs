//! The objects of RFC 8555 §7.1 as a CA sends them. Only what getcrt reads is modelled. Members of type
//! `Value` stay JSON until they are needed: some CAs put `null`, `{}` or something of their own there.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::http::Uri;

use super::problem::Problem;
use crate::error::Failure;
use crate::text::excerpt;

/// The longest URL that is accepted, in bytes. Those of real CAs are a tenth as long.
const MAX_URL_BYTES: usize = 2000;
/// How many profiles are listed to the user.
const MAX_PROFILES: usize = 20;
/// The longest token that is accepted, in characters: it becomes a file name.
const MAX_TOKEN_CHARS: usize = 255;

/// CAs can hand the same order to two runs of one account. This is why the run that is too late orders again.
pub const FINISHED_BY_ANOTHER_RUN: &str = "another run of this account may have finished the order";

/// An absolute https URL, kept as the exact string that was given (§6.1, §6.4).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct AcmeUrl(String);

impl AcmeUrl {
    /// Returns the URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AcmeUrl {
    type Error = String;

    /// Accepts an https URL without user name and password. ACME has no use for them: requests are signed. They
    /// would be shown wherever the URL is, so this error does not quote them.
    fn try_from(url: String) -> Result<AcmeUrl, String> {
        let uri = url.parse::<Uri>().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(
                "the URL has a user name or a password in it, for which ACME has no use".to_owned(),
            );
        }
        let host = uri.host().unwrap_or_default();
        // In `https://user:pass/word@host` the authority ends at the slash: the host is `user`, and the port `pass`.
        let has_bad_port = uri.port_u16().is_none() && authority != host;
        let is_short = url.len() <= MAX_URL_BYTES;
        if is_short && uri.scheme_str() == Some("https") && !host.is_empty() && !has_bad_port {
            return Ok(AcmeUrl(url));
        }
        let shown = if url.contains('@') {
            "this URL, which may contain a password,".to_owned()
        } else {
            format!("`{}`", excerpt(&url))
        };
        Err(if is_short {
            format!("{shown} is not an https URL, and ACME uses no others")
        } else {
            format!("{shown} is longer than {MAX_URL_BYTES} bytes, as no URL of a CA needs to be")
        })
    }
}

impl fmt::Display for AcmeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The CA's entry points (§7.1.1).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    /// Where a fresh nonce comes from.
    pub new_nonce: AcmeUrl,
    /// Where an account key is registered.
    pub new_account: AcmeUrl,
    /// Where a certificate is ordered.
    pub new_order: AcmeUrl,
    #[serde(default)]
    renewal_info: Value,
    #[serde(default)]
    meta: Value,
}

impl Directory {
    /// Returns where the CA's terms of service are, if it says so.
    pub fn terms_of_service(&self) -> Option<&str> {
        self.meta["termsOfService"].as_str()
    }

    /// Returns the CA's website, if it names one.
    pub fn website(&self) -> Option<&str> {
        self.meta["website"].as_str()
    }

    /// Returns the domain name by which CAA records name this CA (RFC 8659 §4.2), if the CA says which.
    pub fn caa_identity(&self) -> Option<&str> {
        let first = self.meta["caaIdentities"][0].as_str()?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        if !first.is_empty() && first.bytes().all(is_allowed) {
            Some(first)
        } else {
            None
        }
    }

    /// Whether the CA has renewal information (RFC 9773), and so knows what `replaces` means.
    pub fn has_renewal_info(&self) -> bool {
        self.renewal_info.is_string()
    }

    /// Returns the URL of a certificate's renewal information (RFC 9773 §4.1), if the CA has such.
    pub fn renewal_info_url(&self, certificate_id: &str) -> Option<AcmeUrl> {
        let base = self.renewal_info.as_str()?.trim_end_matches('/');
        AcmeUrl::try_from(format!("{base}/{certificate_id}")).ok()
    }

    /// Checks that the CA offers a profile (draft-ietf-acme-profiles).
    ///
    /// # Errors
    /// It does not. The details list the profiles that it offers.
    pub fn check_profile(&self, name: &str) -> Result<()> {
        let profiles = self.meta["profiles"]
            .as_object()
            .with_context(|| format!("--profile {name}: the CA has no profiles"))?;
        if profiles.contains_key(name) {
            return Ok(());
        }
        let mut offered = Vec::new();
        for (other, description) in profiles.iter().take(MAX_PROFILES) {
            let description = description.as_str().unwrap_or("no description");
            offered.push(format!(
                "--profile {}: {}",
                excerpt(other),
                excerpt(description)
            ));
        }
        bail!(
            Failure::new(format!(
                "--profile {name}: the CA does not offer this profile, but these"
            ))
            .with_details(offered)
        )
    }
}

/// What a certificate is for: a DNS name (§9.7.7) or an IP address (RFC 8738).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum Identifier {
    /// A host name, with A-labels for anything but ASCII. Those from a CSR or a certificate are in
    /// lower case.
    Dns(String),
    /// An address; IPv6 is written as in RFC 5952.
    Ip(IpAddr),
}

impl Identifier {
    /// Returns the host part of a URL that leads to this identifier.
    pub fn url_host(&self) -> String {
        match self {
            Identifier::Ip(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identifier::Dns(name) => f.write_str(name),
            Identifier::Ip(address) => address.fmt(f),
        }
    }
}

/// The status of an order, an authorization or a challenge (§7.1.6).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are the RFC's")]
pub enum Status {
    Pending,
    Processing,
    Ready,
    Valid,
    Invalid,
    /// Any other word.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Pending => "pending",
            Status::Processing => "processing",
            Status::Ready => "ready",
            Status::Valid => "valid",
            Status::Invalid => "invalid",
            Status::Other(word) => return f.write_str(&excerpt(word)),
        })
    }
}

/// An order for a certificate (§7.1.3).
#[derive(Debug, Deserialize)]
pub struct Order {
    /// Where it stands.
    pub status: Status,
    /// What is ordered. Some CAs leave it out of later responses.
    pub identifiers: Option<Vec<Identifier>>,
    /// The URLs of the authorizations, in no particular order.
    pub authorizations: Option<Vec<AcmeUrl>>,
    #[serde(default)]
    finalize: Value,
    #[serde(default)]
    certificate: Value,
    #[serde(default)]
    error: Problem,
}

impl Order {
    /// Returns what the user is told of an order that has failed, and whether another may succeed. For this it matters
    /// whether the order has failed although all its names are proven.
    pub fn failure(&self, are_names_proven: bool) -> Failure {
        let message = format!("Order failed, it is {}: {}", self.status, self.error);
        let mut failure = self.error.to_failure(message);
        if self.error.is("serverInternal") {
            failure.reason_to_order_again = Some("the CA had an internal error");
        } else if self.status == Status::Invalid && self.error.is_empty() && are_names_proven {
            failure.reason_to_order_again = Some(FINISHED_BY_ANOTHER_RUN);
        }
        failure
    }

    /// Returns where the CSR is sent.
    ///
    /// # Errors
    /// The order has no such URL, or it is not https.
    pub fn finalize_url(&self) -> Result<AcmeUrl> {
        AcmeUrl::deserialize(&self.finalize).context("it has no usable finalize URL")
    }

    /// Returns where the chain is, once the order is valid.
    ///
    /// # Errors
    /// The order has no such URL, or it is not https.
    pub fn certificate_url(&self) -> Result<AcmeUrl> {
        AcmeUrl::deserialize(&self.certificate).context("it has no usable certificate URL")
    }
}

/// The CA's decision on whether the account may have certificates for one identifier (§7.1.4).
#[derive(Debug, Deserialize)]
pub struct Authorization {
    /// The identifier.
    pub identifier: Identifier,
    /// Where it stands.
    pub status: Status,
    #[serde(default)]
    challenges: Value,
}

/// The state of an authorization, as far as it matters here.
pub enum Verdict {
    /// The account controls the identifier.
    Valid,
    /// The CA has not decided. It may have met a problem and be about to try again (§8.2).
    Pending(Option<Problem>),
    /// The CA will not accept this authorization any more, for this reason.
    Failed(Failure),
}

impl Authorization {
    /// Returns the http-01 challenge. The others are not read: each type has members of its own.
    ///
    /// # Errors
    /// The CA offers none, or one whose members cannot be used.
    pub fn http_01(&self) -> Result<Challenge> {
        let challenge = self
            .http_01_challenges()
            .next()
            .context("the CA offers no http-01")?;
        Challenge::deserialize(challenge).context("the CA's http-01 does not match RFC 8555")
    }

    /// Returns its state, as far as it matters here.
    pub fn verdict(&self) -> Verdict {
        match self.status {
            Status::Valid => Verdict::Valid,
            // Some CAs leave the authorization pending after its challenge has failed.
            Status::Pending if !self.has_failed_challenge() => {
                Verdict::Pending(first_problem(self.http_01_challenges()))
            }
            // Pending with a failed challenge; invalid, deactivated, expired or revoked (§7.1.6); or a status
            // that an authorization cannot have.
            _ => Verdict::Failed(self.failure()),
        }
    }

    /// Returns what the user is told of an authorization that has failed.
    fn failure(&self) -> Failure {
        // It may be another challenge's, if another client of the same account has tried that.
        let problem = first_problem(self.challenges());
        match (&self.status, problem) {
            (Status::Pending | Status::Invalid, Some(problem)) => problem.into(),
            (Status::Pending, None) => {
                Failure::new("the challenge is invalid, and the CA gives no reason")
            }
            (Status::Invalid, None) => {
                Failure::new("the authorization is invalid, and the CA gives no reason")
            }
            // A problem that a challenge has met does not explain these.
            (status, _) => Failure::new(format!("the authorization is {status}")),
        }
    }

    fn has_failed_challenge(&self) -> bool {
        self.http_01_challenges()
            .any(|challenge| challenge["status"] == "invalid")
    }

    fn http_01_challenges(&self) -> impl Iterator<Item = &Value> {
        self.challenges()
            .filter(|challenge| challenge["type"] == "http-01")
    }

    fn challenges(&self) -> impl Iterator<Item = &Value> {
        self.challenges.as_array().into_iter().flatten()
    }
}

fn first_problem<'a>(challenges: impl Iterator<Item = &'a Value>) -> Option<Problem> {
    challenges
        .filter_map(|challenge| Problem::deserialize(&challenge["error"]).ok())
        .find(|problem| !problem.is_empty())
}

/// An http-01 challenge (§8.3).
#[derive(Debug, Deserialize)]
pub struct Challenge {
    /// Where it stands.
    pub status: Status,
    /// Where the CA is told that it can validate.
    pub url: AcmeUrl,
    /// The name of the file that the CA will fetch.
    pub token: Token,
}

/// A challenge's token. It consists of base64url characters only (§8.3), so it is a safe file name.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(String);

impl Token {
    /// Returns the token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(token: String) -> Result<Token, String> {
        if is_base64url(&token) && token.len() <= MAX_TOKEN_CHARS {
            return Ok(Token(token));
        }
        Err(format!(
            "`{}` is no token, so no file is named after it",
            excerpt(&token)
        ))
    }
}

/// Whether `text` is one or more characters of base64url (RFC 4648 §5).
pub fn is_base64url(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::text::MAX_EXCERPT_CHARS;

    /// The example of RFC 8555 §7.1.3, complete.
    #[test]
    fn the_order_of_the_rfc() {
        let order: Order = serde_json::from_value(json!({
            "status": "valid",
            "expires": "2016-01-20T14:09:07.99Z",
            "identifiers": [
                {"type": "dns", "value": "www.example.org"},
                {"type": "dns", "value": "example.org"},
            ],
            "notBefore": "2016-01-01T00:00:00Z",
            "notAfter": "2016-01-08T00:00:00Z",
            "authorizations": ["https://example.com/acme/authz/PAniVnsZcis"],
            "finalize": "https://example.com/acme/order/TOlocE8rfgo/finalize",
            "certificate": "https://example.com/acme/cert/mAt3xBGaobw",
        }))
        .unwrap();
        assert_eq!(order.status, Status::Valid);
        assert_eq!(order.identifiers.as_ref().unwrap().len(), 2);
        let url = order.certificate_url().unwrap();
        assert_eq!(url.as_str(), "https://example.com/acme/cert/mAt3xBGaobw");
    }

    /// The least that is an order, and everything null.
    #[test]
    fn an_order_of_nothing() {
        let minimal: Order = serde_json::from_value(json!({"status": "pending"})).unwrap();
        assert!(minimal.error.is_empty() && minimal.finalize_url().is_err());
        let null = json!({
            "status": "unheard-of", "identifiers": null, "authorizations": null,
            "finalize": null, "certificate": {}, "error": {},
        });
        let null: Order = serde_json::from_value(null).unwrap();
        assert_eq!(null.status, Status::Other("unheard-of".to_owned()));
        assert!(null.error.is_empty() && null.authorizations.is_none());
    }

    /// Another client of the account may have tried dns-01. That tells nothing about http-01 while the CA has not
    /// decided, and is the only reason there is when it has.
    #[test]
    fn the_problem_of_another_challenge() {
        let authorization = |status: &str| -> Authorization {
            serde_json::from_value(json!({
                "identifier": {"type": "dns", "value": "a.test"},
                "status": status,
                "challenges": [
                    {"type": "dns-01", "error": {"detail": "no TXT record"}},
                    {"type": "http-01", "status": "processing"},
                ],
            }))
            .unwrap()
        };
        let pending = authorization("pending").verdict();
        assert!(matches!(pending, Verdict::Pending(None)));
        let failed = authorization("invalid").verdict();
        let is_told = |failure: &Failure| failure.to_string() == "no TXT record";
        assert!(matches!(failed, Verdict::Failed(failure) if is_told(&failure)));
    }

    /// Any JSON, with the words of the RFC more likely than others.
    fn json() -> impl Strategy<Value = Value> {
        let words = "status|valid|pending|type|http-01|token|url|error|detail|identifier|value|dns|ip|https://x.test/y|challenges|subproblems|identifiers|authorizations|[a-z]{1,3}|\\PC{0,8}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            words.prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            let object = prop::collection::btree_map(words, inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                object.prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(crate::property_tests::config())]

        /// Whatever a CA says, a resource or an error comes of it; and what is printed is bounded.
        #[test]
        fn any_json_is_read_or_refused(value in json()) {
            let _ = serde_json::from_value::<Order>(value.clone());
            let _ = serde_json::from_value::<Directory>(value.clone());
            if let Ok(authorization) = serde_json::from_value::<Authorization>(value.clone()) {
                let _ = (authorization.http_01(), authorization.verdict());
            }
            let problem = Problem::deserialize(value).unwrap();
            prop_assert!(problem.to_string().chars().count() <= 3 * (MAX_EXCERPT_CHARS + 20));
            let _ = (problem.subproblem_lines(), problem.is("badNonce"));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = serde_json::from_slice::<Order>(&bytes);
            let _ = serde_json::from_slice::<Problem>(&bytes);
        }

        /// A token is a name of one file in one directory, and nothing else.
        #[test]
        fn tokens_are_file_names(text in "[-_a-zA-Z0-9]{0,8}|[./a-z\\x00]{0,8}|\\PC{0,300}") {
            if let Ok(token) = Token::try_from(text.clone()) {
                let path = std::path::Path::new(token.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert_eq!(path.file_name().unwrap().to_str().unwrap(), &text);
                prop_assert!(!text.contains('.') && text.len() <= 255);
            }
        }

        #[test]
        fn urls_are_https(text in "(https?|file|HTTPS)?:?/{0,3}[a-z.:@\\[\\]]{0,12}/?\\PC{0,6}") {
            if let Ok(url) = AcmeUrl::try_from(text.clone()) {
                prop_assert!(text.to_ascii_lowercase().starts_with("https://"));
                prop_assert_eq!(url.as_str(), text);
            }
        }
    }
}
