//! An HTTP response.

use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use serde::de::DeserializeOwned;
use ureq::http::HeaderMap;

use super::link;
use super::problem::Problem;
use super::request_error::{ErrorKind, RequestError};
use super::resources::{AcmeUrl, is_base64url};
use crate::error::Failure;
use crate::text::excerpt;
use crate::time;

/// The longest Retry-After that is believed: a hundred years. It keeps absurd numbers from overflowing a date.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How much is shown of a body that is not what it should be, in bytes.
const MAX_SHOWN_BYTES: usize = 200;

/// An HTTP response.
#[derive(Default)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the body as a resource.
    ///
    /// # Errors
    /// The body is not JSON, or not of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            if error.is_data() {
                let reason = excerpt(&error.to_string());
                anyhow!("the CA's reply does not match RFC 8555: {reason}")
            } else {
                anyhow!("the CA's reply is not JSON: {}", self.describe_body())
            }
        })
    }

    /// Returns the URL of the object that the request has created or found.
    ///
    /// # Errors
    /// There is no Location header, or it holds no https URL.
    pub fn location(&self) -> Result<AcmeUrl> {
        let location = self
            .header("Location")
            .context("the CA's reply has no Location header")?;
        AcmeUrl::try_from(location.to_owned()).map_err(Error::msg)
    }

    /// Returns the nonce that the response brings. One that is not base64url is ignored (§6.5.1).
    pub fn nonce(&self) -> Option<&str> {
        let nonce = self.header("Replay-Nonce")?;
        if is_base64url(nonce) {
            Some(nonce)
        } else {
            None
        }
    }

    /// Returns how long the CA asks to wait (RFC 9110 §10.2.3), in seconds or until a date; zero if the
    /// date is past. Anything else counts as absent.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header("Retry-After")?;
        let seconds = match value.parse::<u64>() {
            Ok(seconds) => seconds,
            Err(_) => {
                let until = time::from_http_date(value)? - time::now();
                until.max(0).cast_unsigned()
            }
        };
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }

    /// Returns the Unix time by the clock of the server (RFC 9110 §6.6.1). A cache says how old the response is that it
    /// keeps (RFC 9111 §5.1).
    pub fn date(&self) -> Option<i64> {
        let date = time::from_http_date(self.header("Date")?)?;
        let age = self.header("Age").and_then(|age| age.parse::<u32>().ok());
        Some(date + i64::from(age.unwrap_or_default()))
    }

    /// Returns where the CA offers the same certificate with another chain (§7.4.2).
    pub fn alternate_urls(&self) -> Vec<AcmeUrl> {
        self.linked("alternate")
            .into_iter()
            .filter_map(|target| AcmeUrl::try_from(target).ok())
            .collect()
    }

    /// Returns the targets of the links that have this relation type.
    fn linked(&self, relation_type: &str) -> Vec<String> {
        let mut targets = Vec::new();
        for header in self.headers.get_all("Link") {
            for link in link::parse(&String::from_utf8_lossy(header.as_bytes())) {
                if link.has_type(relation_type) {
                    targets.push(link.target);
                }
            }
        }
        targets
    }

    /// Returns the response itself if its status is a success, and an error otherwise.
    pub fn into_result(self) -> Result<Response, RequestError> {
        let status = self.status;
        if status < 300 {
            return Ok(self);
        }
        let (kind, mut failure) = match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => (self.error_kind(&problem), self.failure(&problem)),
            Err(_) => {
                let message = format!("HTTP {status}, {}", self.describe_body());
                (self.error_kind(&Problem::default()), Failure::new(message))
            }
        };
        failure.http_status = Some(status);
        Err(RequestError {
            kind,
            retry_after: self.retry_after(),
            failure: Box::new(failure),
        })
    }

    /// Classifies an error status.
    fn error_kind(&self, problem: &Problem) -> ErrorKind {
        if problem.is("badNonce") {
            return ErrorKind::BadNonce;
        }
        if problem.is("rateLimited") {
            // §6.6: the CA says when the limit ends. If it does not, another try in this run is pointless.
            return match self.retry_after() {
                Some(_) => ErrorKind::TooManyRequests,
                None => ErrorKind::Permanent,
            };
        }
        match self.status {
            429 => ErrorKind::TooManyRequests,
            409 => ErrorKind::WrongState,
            _ if problem.is("orderNotReady") => ErrorKind::WrongState,
            500.. => ErrorKind::OutcomeUnknown,
            _ => ErrorKind::Permanent,
        }
    }

    /// Returns what the user is told about an error status with a problem document.
    fn failure(&self, problem: &Problem) -> Failure {
        let failure = problem.to_failure(format!("HTTP {}, {problem}", self.status));
        // §7.3.3: the user has to agree to something on the page that `instance` names, perhaps to new terms.
        if problem.is("userActionRequired")
            && let Some(page) = problem.text("instance")
        {
            let mut hint = format!("visit {}, where the CA wants you to act", excerpt(page));
            if let Some(terms) = self.linked("terms-of-service").first() {
                hint += &format!(" (its terms of service are {})", excerpt(terms));
            }
            return failure.with_hint(hint);
        }
        // §6.6: the CA can link to a page about the limit, or say with Retry-After when it ends.
        if problem.is("rateLimited") {
            if let Some(page) = self.linked("help").first() {
                let page = excerpt(page);
                return failure.with_hint(format!("see {page}, where the CA explains this limit"));
            }
            if self.retry_after().is_none() {
                return failure
                    .with_hint("wait until the limit has passed; for tests, use --staging");
            }
        }
        failure
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Describes a body that is not what it should be.
    fn describe_body(&self) -> String {
        let length = self.body.len().min(MAX_SHOWN_BYTES);
        let text = String::from_utf8_lossy(&self.body[..length]);
        match text.trim() {
            "" => "an empty reply".to_owned(),
            // It did not parse as JSON.
            text if text.starts_with(['{', '[']) => "damaged JSON".to_owned(),
            text => format!("a reply that begins `{text}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use openssl::asn1::{Asn1Time, Asn1TimeRef};
    use proptest::prelude::*;

    use super::super::resources::Directory;
    use super::*;
    use crate::property_tests;

    fn response(headers: HeaderMap) -> Response {
        Response {
            status: 503,
            headers,
            body: Vec::new(),
        }
    }

    fn asked(value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("Retry-After", value.parse().ok()?);
        let wait = response(headers).retry_after()?;
        Some(wait.as_secs())
    }

    /// A moment as HTTP writes it, by way of OpenSSL's `Nov  6 08:49:37 1994 GMT`.
    fn http_date(moment: &Asn1TimeRef) -> String {
        let text = moment.to_string();
        let parts: Vec<&str> = text.split_whitespace().collect();
        format!(
            "Sun, {:0>2} {} {} {} GMT",
            parts[1], parts[0], parts[3], parts[2]
        )
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        assert_eq!(asked("0"), Some(0));
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("3974400"), Some(46 * 86_400));
        let absurd = u64::MAX.to_string();
        assert_eq!(asked(&absurd), Some(MAX_RETRY_AFTER.as_secs()));
        for nonsense in [
            "",
            "-1",
            "soon",
            "1.5",
            "99999999999999999999999",
            "Sun, 99 Foo 2026 08:49:37 GMT",
        ] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        let tomorrow = asked(&http_date(&Asn1Time::days_from_now(1).unwrap())).unwrap();
        assert!((86_000..=86_400).contains(&tomorrow), "{tomorrow}");
        let far = asked("Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(far, Some(MAX_RETRY_AFTER.as_secs()));
    }

    /// Several links in one header, several headers, with and without quotes.
    #[test]
    fn links_to_alternate_chains() {
        let mut headers = HeaderMap::new();
        for value in [
            r#"<https://ca.test/directory>;rel="index""#,
            r#"<https://ca.test/a>; rel="alternate", <https://ca.test/up>;rel=up,<https://ca.test/b>;title="x; y, z";rel=alternate"#,
            "<http://ca.test/c>;rel=alternate",
            "rel=alternate",
        ] {
            headers.append("Link", value.parse().unwrap());
        }
        let urls = response(headers).alternate_urls();
        let urls: Vec<&str> = urls.iter().map(AcmeUrl::as_str).collect();
        assert_eq!(urls, ["https://ca.test/a", "https://ca.test/b"]);
    }

    #[test]
    fn kinds_of_errors() {
        let kind = |status, body: &str| {
            let body = body.as_bytes().to_vec();
            let headers = HeaderMap::new();
            let response = Response {
                status,
                headers,
                body,
            };
            response.into_result().err().map(|error| error.kind)
        };
        let problem = |name| format!(r#"{{"type": "urn:ietf:params:acme:error:{name}"}}"#);
        assert_eq!(kind(201, ""), None);
        assert_eq!(kind(307, ""), Some(ErrorKind::Permanent));
        assert_eq!(kind(400, &problem("badNonce")), Some(ErrorKind::BadNonce));
        assert_eq!(
            kind(400, r#"{"type": "badNonce"}"#),
            Some(ErrorKind::Permanent)
        );
        assert_eq!(
            kind(403, &problem("orderNotReady")),
            Some(ErrorKind::WrongState)
        );
        assert_eq!(kind(409, &problem("conflict")), Some(ErrorKind::WrongState));
        assert_eq!(kind(429, ""), Some(ErrorKind::TooManyRequests));
        assert_eq!(
            kind(429, &problem("rateLimited")),
            Some(ErrorKind::Permanent)
        );
        assert_eq!(kind(503, "<html>"), Some(ErrorKind::OutcomeUnknown));
    }

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn any_retry_after_is_bounded(
            value in "-?[0-9]{0,25}|[A-Z][a-z]{2}, [0-9]{1,3} (Jan|Feb|Dec|Foo|anF) [0-9]{0,6} [0-9:]{0,9} GMT|\\PC*",
        ) {
            prop_assert!(asked(&value).is_none_or(|wait| wait <= MAX_RETRY_AFTER.as_secs()));
        }

        #[test]
        fn any_link_is_https(
            links in prop::collection::vec("(<https?://[a-z]{1,5}\\.test/[a-z]{0,3}>; ?(rel=\"?(alternate|up)\"?|x=y),? ?)|\\PC{0,20}", 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for value in links.iter().filter_map(|link| link.parse().ok()) {
                headers.append("Link", value);
            }
            let urls = response(headers).alternate_urls();
            prop_assert!(urls.iter().all(|url| url.as_str().starts_with("https://")));
        }

        #[test]
        fn any_reply_can_be_told(status in 200u16..600, body: Vec<u8>) {
            let response = Response { status, headers: HeaderMap::new(), body };
            let _ = (response.json::<Directory>(), response.location());
            if let Err(error) = response.into_result() {
                prop_assert!(error.failure.to_string().len() < 5000);
            }
        }
    }
}
