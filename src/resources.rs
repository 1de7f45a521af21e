//! What a CA says (RFC 8555 §7.1), as types. Only what getcrt reads is modelled; members that are
//! optional count as absent when they have a shape that we do not know.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

/// Longest token that is accepted: it becomes a file name.
const MAX_TOKEN: usize = 255;
/// Longest text of a CA's that a line of ours repeats, in characters.
const MAX_TEXT: usize = 1000;

/// An absolute https URL, kept as the exact string that the CA gave (§6.1, §6.4).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct AcmeUrl(String);

impl AcmeUrl {
    /// The URL as the CA wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AcmeUrl {
    type Error = String;

    fn try_from(url: String) -> Result<AcmeUrl, String> {
        let uri: Option<ureq::http::Uri> = url.parse().ok();
        if uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host() != Some("")) {
            return Ok(AcmeUrl(url));
        }
        let url = excerpt(&url);
        let told = format!("`{url}` is no https URL, and ACME is spoken over https only");
        Err(told)
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
    /// Where the CA's terms of service are, if it says so.
    pub fn terms_of_service(&self) -> Option<&str> {
        self.meta["termsOfService"].as_str()
    }

    /// Where the CA suggests when to renew a certificate (RFC 9773 §4.1), if it does.
    pub fn renewal_info_url(&self, certificate_id: &str) -> Option<AcmeUrl> {
        let base = self.renewal_info.as_str()?.trim_end_matches('/');
        AcmeUrl::try_from(format!("{base}/{certificate_id}")).ok()
    }

    /// The CA's own page, where it may explain how to get an external account.
    pub fn website(&self) -> Option<&str> {
        self.meta["website"].as_str()
    }

    /// Whether the CA offers this profile (draft-ietf-acme-profiles).
    ///
    /// # Errors
    /// It does not; what it offers is told below.
    pub fn check_profile(&self, name: &str) -> Result<()> {
        let profiles = self.meta["profiles"].as_object();
        let profiles =
            profiles.with_context(|| format!("--profile {name}: the CA has no profiles"))?;
        let line = |(name, about): (&String, &Value)| {
            let about = about.as_str().unwrap_or("no description");
            format!("--profile {}: {}", excerpt(name), excerpt(about))
        };
        let failure = Failure::new(format!("--profile {name}: the CA has others"));
        let failure = failure.below(profiles.iter().map(line).collect());
        ensure!(profiles.contains_key(name), failure);
        Ok(())
    }
}

/// What a certificate is asked for: a DNS name (§9.7.7) or an IP address (RFC 8738).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum Identifier {
    /// A host name in lower case, as A-labels.
    Dns(String),
    /// An address; its text is RFC 5952's for IPv6.
    Ip(IpAddr),
}

impl Identifier {
    /// The host part of a URL that reaches this identifier.
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

/// The state of an order, an authorization or a challenge (§7.1.6).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are the RFC's")]
pub enum Status {
    Pending,
    Processing,
    Ready,
    Valid,
    Invalid,
    /// One that this program does not know.
    #[serde(untagged)]
    Other(String),
}

/// A request for a certificate and where it stands (§7.1.3).
#[derive(Debug, Deserialize)]
pub struct Order {
    /// Where it stands.
    pub status: Status,
    /// What is ordered; later replies of some CAs lack it.
    pub identifiers: Option<Vec<Identifier>>,
    /// One for each identifier, in no particular order.
    pub authorizations: Option<Vec<AcmeUrl>>,
    #[serde(default)]
    finalize: Value,
    #[serde(default)]
    certificate: Value,
    /// Why the order failed.
    #[serde(default)]
    pub error: Problem,
}

impl Order {
    /// What is told of an order that the CA has given up.
    pub fn failed(&self) -> Failure {
        let line = format!("Order failed, it is {:?}: {}", self.status, self.error);
        Failure::new(line).below(self.error.below())
    }

    /// Where the CSR goes.
    ///
    /// # Errors
    /// There is none, or it is no https URL.
    pub fn finalize_url(&self) -> Result<AcmeUrl> {
        AcmeUrl::deserialize(&self.finalize).context("it has no usable finalize URL")
    }

    /// Where the chain is, once the order is valid.
    ///
    /// # Errors
    /// There is none, or it is no https URL.
    pub fn certificate_url(&self) -> Result<AcmeUrl> {
        AcmeUrl::deserialize(&self.certificate).context("it has no usable certificate URL")
    }
}

/// The CA's view of whether the account may have certificates for one identifier (§7.1.4).
#[derive(Debug, Deserialize)]
pub struct Authorization {
    /// Whose authorization this is.
    pub identifier: Identifier,
    /// Where it stands.
    pub status: Status,
    #[serde(default)]
    challenges: Value,
}

impl Authorization {
    /// The http-01 challenge. Others are not looked at: their members differ.
    ///
    /// # Errors
    /// The CA offers none, or one that lacks something or has a token that no file may bear.
    pub fn http_01(&self) -> Result<Challenge> {
        let challenge = self.challenges().find(|c| c["type"] == "http-01");
        let challenge = challenge.context("the CA offers no http-01")?;
        Challenge::deserialize(challenge).context("the CA's http-01 is not as RFC 8555 has it")
    }

    /// What has come of it. An error may stand at any of the challenges (§8.2).
    pub fn verdict(&self) -> Verdict {
        let mut problems = self.challenges().map(|c| Problem(c["error"].clone()));
        let problem = problems.find(|problem| !problem.is_empty());
        // Some CAs leave the authorization pending when its challenge has failed.
        let has_failed = |c: &Value| c["type"] == "http-01" && c["status"] == "invalid";
        match self.status {
            Status::Valid => Verdict::Valid,
            Status::Pending if !self.challenges().any(has_failed) => Verdict::Open(problem),
            _ => Verdict::Failed(problem.unwrap_or_default()),
        }
    }

    fn challenges(&self) -> impl Iterator<Item = &Value> {
        self.challenges.as_array().into_iter().flatten()
    }
}

/// What has come of an authorization.
pub enum Verdict {
    /// The name is proven.
    Valid,
    /// The CA has not decided; it may have seen a problem and be about to try again.
    Open(Option<Problem>),
    /// The name is not proven, and will not be by this authorization.
    Failed(Problem),
}

/// An http-01 challenge (§8.3).
#[derive(Debug, Deserialize)]
pub struct Challenge {
    /// Where it stands.
    pub status: Status,
    /// Where the CA is told to look.
    pub url: AcmeUrl,
    /// Names the file that the CA will fetch.
    pub token: Token,
}

/// A challenge's token, of base64url characters only (§8.3): a safe file name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Token(String);

impl Token {
    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(token: String) -> Result<Token, String> {
        if is_base64url(&token) && token.len() <= MAX_TOKEN {
            return Ok(Token(token));
        }
        let token = excerpt(&token);
        Err(format!("`{token}` is no token; no file is named after it"))
    }
}

/// A problem document (§6.7, RFC 7807): the CA's account of what is wrong, or nothing.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem(Value);

impl Problem {
    /// A member of the document, where it is a text.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0[member].as_str()
    }

    /// Whether this is ACME's error `kind`, such as `badNonce`.
    pub fn is(&self, kind: &str) -> bool {
        let ours = self.text("type").unwrap_or_default();
        ours.strip_prefix("urn:ietf:params:acme:error:") == Some(kind)
    }

    /// Whether nothing is said; `{}` is no problem document.
    pub fn is_empty(&self) -> bool {
        let members = ["type", "detail", "subproblems"];
        members.iter().all(|member| self.0[member].is_null())
    }

    /// A line for each subproblem, with its identifier (§6.7.1).
    pub fn below(&self) -> Vec<String> {
        let line = |subproblem: &Value| {
            let problem = Problem(subproblem.clone());
            match subproblem["identifier"]["value"].as_str() {
                Some(name) => format!("{}: {problem}", excerpt(name)),
                None => problem.to_string(),
            }
        };
        let subproblems = self.0["subproblems"].as_array();
        subproblems.into_iter().flatten().map(line).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text("detail"), self.text("type")) {
            (Some(detail), Some(kind)) => write!(f, "{} ({})", excerpt(detail), excerpt(kind))?,
            (Some(text), None) | (None, Some(text)) => f.write_str(&excerpt(text))?,
            (None, None) => f.write_str("the CA gives no reason")?,
        }
        match &self.0["algorithms"] {
            Value::Null => Ok(()),
            // §6.2: with badSignatureAlgorithm the CA says what it takes.
            offered => write!(f, "; it takes {}", excerpt(&offered.to_string())),
        }
    }
}

/// Whether `text` is of base64url's characters (RFC 4648 §5), of which there is at least one.
pub fn is_base64url(text: &str) -> bool {
    let is_one = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.bytes().all(is_one)
}

/// At most [`MAX_TEXT`] characters of `text`, and a sign where something was left out.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Identifiers in one line.
pub fn list<'a>(identifiers: impl IntoIterator<Item = &'a Identifier>) -> String {
    let names: Vec<String> = identifiers.into_iter().map(Identifier::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

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
        #![proptest_config(crate::tests::cases())]

        /// Whatever a CA says, a resource or an error comes of it; and what is printed is bounded.
        #[test]
        fn any_json_is_read_or_refused(value in json()) {
            let _ = serde_json::from_value::<Order>(value.clone());
            let _ = serde_json::from_value::<Directory>(value.clone());
            if let Ok(authorization) = serde_json::from_value::<Authorization>(value.clone()) {
                let _ = (authorization.http_01(), authorization.verdict());
            }
            let problem = Problem(value);
            prop_assert!(problem.to_string().chars().count() <= 3 * (MAX_TEXT + 20));
            let _ = (problem.below(), problem.is("badNonce"));
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
