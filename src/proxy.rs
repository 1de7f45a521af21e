//! The proxy to the CA: which one the environment names, and the tunnel through it.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv6Addr;

use anyhow::{Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use ureq::http::Uri;
use ureq::unversioned::transport::{ConnectionDetails, Connector, TcpConnector, Transport};
use ureq::{Proxy, ProxyProtocol};

use crate::error::Failure;
use crate::tls::{TlsConnector, with_time_left, with_timeout};

/// The variables that may name the proxy. As for curl, the first one that is not empty counts. `HTTP_PROXY` is not
/// for https.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables that may list the hosts which are reached directly.
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// The longest answer to a request for a tunnel that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// A proxy that the environment names. It is shown as its host, its port and the variable, without user name and
/// password.
#[derive(Clone, Debug)]
pub struct EnvironmentProxy {
    variable: &'static str,
    settings: Proxy,
}

impl EnvironmentProxy {
    /// Returns the proxy for https that the environment names, if it names one.
    ///
    /// # Errors
    /// It is not an http or https proxy.
    pub fn find() -> Result<Option<EnvironmentProxy>> {
        let Some((variable, value)) = first_that_is_set(&PROXY_VARIABLES) else {
            return Ok(None);
        };
        let Some(proxy) = value.to_str().and_then(parse) else {
            let message = "this does not name an http or https proxy, and getcrt can use no others";
            let hint = "set it to http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; \
                in a password, write %2F for a slash, and so on";
            bail!(Failure::new(format!("{variable}: {message}")).with_hint(hint));
        };
        Ok(Some(EnvironmentProxy {
            variable,
            settings: with_direct_hosts(&proxy)?,
        }))
    }

    /// Returns the proxy in the form that ureq wants.
    pub fn settings(&self) -> &Proxy {
        &self.settings
    }

    /// Adds to an error that it happened on the way to the proxy, or at the proxy.
    fn name_in(&self, error: ureq::Error) -> ureq::Error {
        match error {
            ureq::Error::Io(cause) => {
                io::Error::new(cause.kind(), format!("{self}: {cause}")).into()
            }
            ureq::Error::Timeout(_) => {
                io::Error::new(ErrorKind::TimedOut, format!("{self}: no answer in time")).into()
            }
            ureq::Error::Other(cause) => {
                let mut named = Failure::new(format!("{self}: {cause}"));
                if let Some(failure) = cause.downcast_ref::<Failure>() {
                    named.hint = failure.hint.clone();
                }
                ureq::Error::Other(Box::new(named))
            }
            other => io::Error::other(format!("{self}: {other}")).into(),
        }
    }
}

impl fmt::Display for EnvironmentProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.settings.host();
        let port = self.settings.port();
        write!(f, "the proxy {host}:{port} ({})", self.variable)
    }
}

/// Returns the first of these variables that is set, with its value. An empty one counts as not set.
fn first_that_is_set(variables: &[&'static str]) -> Option<(&'static str, OsString)> {
    for variable in variables {
        match env::var_os(variable) {
            Some(value) if !value.is_empty() => return Some((variable, value)),
            _ => {}
        }
    }
    None
}

/// Parses the URL of an http or https proxy. Without a scheme it is http.
fn parse(url: &str) -> Option<Proxy> {
    let after_scheme = match url.split_once("://") {
        Some((_, rest)) => rest,
        None => url,
    };
    // In a password these must be percent-encoded. As they stand, they would make its beginning a host or a port.
    let authority = after_scheme.strip_suffix('/').unwrap_or(after_scheme);
    if authority.contains(['/', '?', '#']) {
        return None;
    }
    let proxy = Proxy::new(url).ok()?;
    // ureq takes the default port for one that is not a number up to 65535.
    let has_bad_port = proxy.uri().port_u16().is_none() && !authority.ends_with(proxy.host());
    let is_spoken = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    if has_bad_port || proxy.host().is_empty() || !is_spoken {
        return None;
    }
    Some(proxy)
}

/// Returns the proxy with the hosts for which the environment says not to use it.
fn with_direct_hosts(proxy: &Proxy) -> Result<Proxy> {
    let mut builder = Proxy::builder(proxy.protocol())
        .host(proxy.host())
        .port(proxy.port());
    if let Some(username) = proxy.username() {
        builder = builder.username(username);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    if let Some((_, list)) = first_that_is_set(&NO_PROXY_VARIABLES) {
        for pattern in direct_hosts(&list.to_string_lossy()) {
            builder = builder.no_proxy(&pattern);
        }
    }
    Ok(builder.build()?)
}

/// Returns ureq's patterns for a list in `NO_PROXY`. A name stands for itself and, as for curl, all names below it,
/// with or without a dot at its beginning.
fn direct_hosts(list: &str) -> Vec<String> {
    let mut patterns = Vec::new();
    for entry in list.split([',', ' ', '\t']) {
        let host = entry.trim_matches('.');
        if host.is_empty() {
            continue;
        }
        match host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            Ok(address) => patterns.push(format!("[{address}]")),
            Err(_) => {
                patterns.push(host.to_owned());
                patterns.push(format!(".{host}"));
            }
        }
    }
    patterns
}

/// Connects to the CA: through a tunnel of the proxy if there is one for it, else directly.
///
/// ureq's own connector for proxies is not used, because a proxy that sends a byte now and then could hold it up
/// for any time.
#[derive(Debug)]
pub struct ProxyConnector {
    proxy: Option<EnvironmentProxy>,
    user_agent: &'static str,
    /// Connects to the proxy. TLS is for a proxy that is called with https.
    to_proxy: TlsConnector<TcpConnector>,
    directly: TcpConnector,
}

impl ProxyConnector {
    /// Creates a connector. The proxy is told `user_agent`.
    pub fn new(
        proxy: Option<EnvironmentProxy>,
        user_agent: &'static str,
        to_proxy: TlsConnector<TcpConnector>,
    ) -> ProxyConnector {
        ProxyConnector {
            proxy,
            user_agent,
            to_proxy,
            directly: TcpConnector::default(),
        }
    }

    /// Connects to the proxy and asks it for a tunnel to the host of `details` (RFC 9110 §9.3.6).
    fn open_tunnel(
        &self,
        proxy: &Proxy,
        details: &ConnectionDetails,
    ) -> Result<Box<dyn Transport>, ureq::Error> {
        let mut proxy_details = with_time_left(details)?;
        proxy_details.uri = proxy.uri();
        proxy_details.addrs =
            details
                .resolver
                .resolve(proxy.uri(), details.config, proxy_details.timeout)?;
        let connection = self
            .to_proxy
            .connect(&with_time_left(&proxy_details)?, None)?;
        let Some(connection) = connection else {
            return Err(ureq::Error::ConnectionFailed);
        };

        let mut stream = with_timeout(connection, details)?;
        stream.write_all(self.tunnel_request(proxy, details.uri).as_bytes())?;
        let answer = read_head(&mut stream)?;
        match status(&answer) {
            Some(200..=299) => Ok(stream.into_inner()),
            Some(status) => Err(refusal(status)),
            None => Err(not_a_proxy("its answer is not HTTP")),
        }
    }

    fn tunnel_request(&self, proxy: &Proxy, target: &Uri) -> String {
        let host = target.host().unwrap_or_default();
        let port = target.port_u16().unwrap_or(443);
        let mut request = format!(
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {}\r\n",
            self.user_agent
        );
        if proxy.username().is_some() || proxy.password().is_some() {
            let user = proxy.username().unwrap_or_default();
            let password = proxy.password().unwrap_or_default();
            let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
            request += &format!("Proxy-Authorization: Basic {credentials}\r\n");
        }
        request + "\r\n"
    }
}

impl Connector for ProxyConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        match &self.proxy {
            Some(proxy) if !proxy.settings.is_no_proxy(details.uri) => {
                match self.open_tunnel(&proxy.settings, details) {
                    Ok(tunnel) => Ok(Some(tunnel)),
                    Err(error) => Err(proxy.name_in(error)),
                }
            }
            _ => {
                let connection = self.directly.connect(details, None::<()>)?;
                Ok(connection.map(Transport::boxed))
            }
        }
    }
}

/// Reads up to the empty line that ends the head of a response, and not a byte further: what follows belongs to TLS.
///
/// # Errors
/// The connection ends before, or the head is longer than [`MAX_ANSWER_BYTES`].
fn read_head(connection: &mut impl Read) -> Result<Vec<u8>, ureq::Error> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_ANSWER_BYTES {
            return Err(not_a_proxy("its answer has no end"));
        }
        if connection.read(&mut byte)? == 0 {
            let kind = ErrorKind::UnexpectedEof;
            return Err(io::Error::new(kind, "it has closed the connection").into());
        }
        head.extend(byte);
    }
    Ok(head)
}

/// Returns the status in the head of a response. `None` if it is not HTTP.
fn status(head: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(head);
    let (version, rest) = text.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    rest.get(..3)?.parse().ok()
}

/// Returns the error for a server that does not answer as a proxy does. Another try would fail in the same way.
fn not_a_proxy(reason: &str) -> ureq::Error {
    let failure = Failure::new(format!("it does not answer as a proxy does: {reason}"));
    ureq::Error::Other(Box::new(failure))
}

/// Returns the error for a proxy that answers with this status.
fn refusal(status: u16) -> ureq::Error {
    let message = format!("it refuses to connect to the CA (HTTP {status})");
    // The proxy or the way to the CA may work again in a moment.
    if status >= 500 {
        return io::Error::other(message).into();
    }
    let mut failure = Failure::new(message);
    if status == 407 {
        failure = failure.with_hint(
            "put user name and password into the variable: http://USER:PASSWORD@HOST:PORT",
        );
    }
    ureq::Error::Other(Box::new(failure))
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
    use ureq::http::Uri;

    use super::{direct_hosts, parse, status};

    #[test]
    fn proxies_are_parsed() {
        let host_and_port = |url: &str| {
            let proxy = parse(url)?;
            Some((proxy.host().to_owned(), proxy.port()))
        };
        for url in [
            "http://proxy.test:3128",
            "HTTP://proxy.test:3128/",
            "proxy.test:3128",
            "https://user:p%2Fass@proxy.test:3128",
            "user@proxy.test:3128",
        ] {
            let expected = Some(("proxy.test".to_owned(), 3128));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
        assert_eq!(
            host_and_port("http://proxy.test"),
            Some(("proxy.test".to_owned(), 80))
        );
        assert_eq!(
            host_and_port("http://[::1]:3128"),
            Some(("[::1]".to_owned(), 3128))
        );
        for url in [
            "",
            "http://",
            "http://:3128",
            "http://proxy.test:",
            "http://a b",
        ] {
            assert_eq!(host_and_port(url), None, "{url}");
        }
    }

    #[test]
    fn hosts_without_proxy_are_those_of_the_list_and_below() -> Result<()> {
        let patterns = direct_hosts("a.test, .b.test\t*.c.test,[::1],::2,192.0.2.1,,.");
        let mut builder = ureq::Proxy::builder(ureq::ProxyProtocol::Http);
        for pattern in &patterns {
            builder = builder.no_proxy(pattern);
        }
        let proxy = builder.build()?;
        let is_direct = |host: &str| {
            let uri: Uri = format!("https://{host}/").parse()?;
            anyhow::Ok(proxy.is_no_proxy(&uri))
        };
        for host in [
            "a.test",
            "x.A.test",
            "b.test",
            "x.b.test",
            "x.c.test",
            "[::1]",
            "[::2]",
            "192.0.2.1",
        ] {
            assert!(is_direct(host)?, "{host}");
        }
        for host in ["xa.test", "a.test.org", "c.test", "[::3]", "192.0.2.11"] {
            assert!(!is_direct(host)?, "{host}");
        }
        Ok(())
    }

    #[test]
    fn answers_have_a_status() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for head in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 2\u{e4}0",
            "ICY 200 OK",
            "220 mail",
        ] {
            assert_eq!(status(head.as_bytes()), None, "{head}");
        }
    }
}
