//! A look at a challenge file as the CA will look (RFC 8555 §8.3), so that no failed attempt is spent
//! at the CA on a file that is not served. It imitates Let's Encrypt's validator: IPv6 before IPv4,
//! up to ten redirects over http and https, no proxy, no trust needed in the certificate on the way.

use std::io::{self, Read};
use std::net::{IpAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, TcpConnector};
use ureq::{Agent, Error};

use crate::client::{BUFFER, MIN_TIMEOUT, USER_AGENT};
use crate::tls::TlsConnector;
use crate::trace::Exchange;

/// How long the look at one name may take, for all addresses and redirects.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long, and how often, a server that answers 5xx, 429 or nothing is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// Redirects that validators follow.
const MAX_REDIRECTS: usize = 10;
/// How much of a body is read, and how much of a wrong one is shown.
const MAX_BODY: u64 = 4096;
const MAX_SHOWN: usize = 60;

/// What the look found.
pub enum Finding {
    /// The key authorization.
    Right,
    /// What no validator would be content with either, and its usual cause, where there is one.
    Wrong(String, Option<&'static str>),
    /// Something else, which a validator may not meet.
    Unclear(String),
}

/// Fetches a challenge file from `url`, whose port is `port`, and compares it.
///
/// # Errors
/// OpenSSL cannot be set up. What the web server does wrong is a [`Finding`].
pub fn look(url: &str, port: u16, wanted: &str, timeout: Duration) -> Result<Finding> {
    let way = Way::default();
    let config = Agent::config_builder().proxy(None).user_agent(USER_AGENT);
    let config = config.max_redirects(0).max_redirects_will_error(false);
    let config = config.input_buffer_size(BUFFER).output_buffer_size(BUFFER);
    let config = config.http_status_as_error(false).build();
    let connector = TlsConnector::trusting_anybody(TcpConnector::default())?;
    let agent = Agent::with_parts(config, connector, way.clone());
    let (wanted, started) = (wanted.as_bytes(), Instant::now());
    loop {
        way.text().clear();
        let end = started + NAME_TIMEOUT.min(timeout);
        let answer = fetch(&agent, url, port, end, &way);
        let may_pass = match &answer {
            Ok((status, _)) => *status == 429 || *status >= 500,
            Err(error) => matches!(error.downcast_ref(), Some(Error::Io(io)) if is_closed(io)),
        };
        if may_pass && started.elapsed() + PAUSE < PATIENCE {
            sleep(PAUSE);
            continue;
        }
        let way = way.text();
        return Ok(match answer {
            Ok((200, body)) if body.trim_ascii_end() == wanted => Finding::Right,
            Ok((status, body)) => {
                let shown = String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN)]);
                let seen = format!("{way}HTTP {status} with the body `{}`", shown.trim());
                Finding::Wrong(seen, cause(status, body.starts_with(wanted)))
            }
            Err(error) => {
                let error = error.to_string();
                // ureq's own mark of an error that the system has told.
                let error = error.strip_prefix("io: ").unwrap_or(&error);
                Finding::Unclear(format!("{way}{error}"))
            }
        });
    }
}

type Answer = (u16, Vec<u8>);

/// The status and the beginning of the body that `url` leads to. `way` gets the redirects.
fn fetch(agent: &Agent, url: &str, port: u16, end: Instant, way: &Way) -> Result<Answer> {
    let mut uri: Uri = url.parse()?;
    for _ in 0..=MAX_REDIRECTS {
        let left = end.saturating_duration_since(Instant::now());
        let request = agent.get(&uri).config();
        let request = request.timeout_global(Some(left.max(MIN_TIMEOUT)));
        let exchange = Exchange::with_the_web_server(&uri);
        let reply = request.build().call().and_then(|reply| {
            let ((parts, body), mut read) = (reply.into_parts(), Vec::new());
            let most = if parts.status.is_redirection() {
                0
            } else {
                MAX_BODY
            };
            body.into_reader().take(most).read_to_end(&mut read)?;
            Ok((parts, read))
        });
        if let Some(exchange) = exchange {
            exchange.end(reply.as_ref().map(|(parts, body)| (parts, body.as_slice())));
        }
        let (parts, body) = reply?;
        let (status, location) = (parts.status.as_u16(), parts.headers.get("Location"));
        let Some(location) = location.filter(|_| parts.status.is_redirection()) else {
            return Ok((status, body));
        };
        let location = location.to_str()?;
        way.add(&format!("HTTP {status} to {location}"));
        let is_followed = [301, 302, 307, 308].contains(&status);
        ensure!(is_followed, "validators do not follow HTTP {status}");
        // `//host/path` keeps the scheme; the parser would take the host for a part of the path.
        let scheme = uri.scheme_str().filter(|_| location.starts_with("//"));
        let location = scheme.map_or(location.to_owned(), |scheme| format!("{scheme}:{location}"));
        let mut parts = location.parse::<Uri>()?.into_parts();
        parts.scheme = parts.scheme.or(uri.scheme().cloned());
        parts.authority = parts.authority.or(uri.authority().cloned());
        uri = Uri::from_parts(parts)?;
        let is_torn = uri.host().unwrap_or_default().contains(".well-known");
        ensure!(
            !is_torn,
            "the redirect has lost the `/` after the host's name"
        );
        let is_usual = [80, 443, port].contains(&uri.port_u16().unwrap_or(80));
        ensure!(is_usual, "validators go to the ports 80 and 443 only");
    }
    bail!("validators follow {MAX_REDIRECTS} redirects and no more")
}

/// Whether the server took the connection and closed it, which may pass.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// The usual cause of a wrong answer.
fn cause(status: u16, has_extra: bool) -> Option<&'static str> {
    match status {
        403 => Some("the web server may not read the file: look at its directories' permissions"),
        404 => Some("the web server serves another directory as /.well-known/acme-challenge/"),
        200 if has_extra => Some("the web server adds something to what is in the file"),
        200 => Some("something else than the web server of --acme-dir answers for this name"),
        _ => None,
    }
}

type Found = Result<ResolvedSocketAddrs, Error>;

/// A resolver that gives the first address that takes a connection, IPv6 before IPv4, and writes
/// down which way it went.
#[derive(Clone, Debug, Default)]
struct Way(Arc<Mutex<String>>);

impl Way {
    fn add(&self, step: &str) {
        *self.text() += &format!("{step}: ");
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Way {
    fn resolve(&self, uri: &Uri, config: &Config, time: NextTimeout) -> Found {
        let end = Instant::now() + *time.after;
        let mut addresses = DefaultResolver::default().resolve(uri, config, time)?;
        addresses.sort_by_key(|address| address.is_ipv4());
        let mut failure = Error::HostNotFound;
        for (index, address) in addresses.iter().enumerate() {
            let left = end
                .saturating_duration_since(Instant::now())
                .max(MIN_TIMEOUT);
            self.add(&describe(address.ip()));
            if address.is_ipv6() && addresses.iter().any(|other| other.is_ipv4()) {
                self.add("IPv6 comes before IPv4, so its AAAA record must be right");
            }
            match TcpStream::connect_timeout(address, left / (addresses.len() - index) as u32) {
                Ok(_) => {
                    let mut found = self.empty();
                    found.push(*address);
                    return Ok(found);
                }
                Err(error) => failure = Error::Io(error),
            }
            self.add("no connection");
        }
        Err(failure)
    }
}

/// An address, and what may explain that a CA elsewhere sees another server.
fn describe(address: IpAddr) -> String {
    let is_private = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    let note = if is_private {
        " (private: the CA may reach another server)"
    } else {
        ""
    };
    format!("{address}{note}")
}
