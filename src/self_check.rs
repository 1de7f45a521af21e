//! A look at a challenge file as the CA will look (RFC 8555 §8.3), so that no failed attempt is spent
//! at the CA on a file that is not served. It imitates Let's Encrypt's validator: IPv6 before IPv4,
//! up to ten redirects over http and https, no proxy, no trust needed in the certificate on the way.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, TcpConnector};
use ureq::{Agent, Error};

use crate::client::USER_AGENT;
use crate::tls::TlsConnector;

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

/// What the look found, where it is not the key authorization.
pub struct Finding {
    /// Whether a validator would certainly be content with it no more than we are.
    pub is_wrong: bool,
    /// What was seen, and where.
    pub seen: String,
    /// The usual cause, where there is one.
    pub cause: Option<&'static str>,
}

/// Fetches a challenge file from `url`, whose port is `port`, and compares it.
///
/// # Errors
/// OpenSSL cannot be set up. What the web server does wrong is a [`Finding`].
pub fn look(url: &str, port: u16, key_authorization: &str) -> Result<Option<Finding>> {
    let asked = Asked::default();
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .user_agent(USER_AGENT);
    let config = config
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .build();
    let connector = TcpConnector::default().chain(TlsConnector::trusting_anybody()?);
    let agent = Agent::with_parts(config, connector, asked.clone());
    let started = Instant::now();
    loop {
        let mut way = Vec::new();
        let answer = fetch(&agent, url.parse()?, port, started + NAME_TIMEOUT, &mut way);
        let may_pass = match &answer {
            Ok((status, _)) => *status == 429 || *status >= 500,
            Err(error) => matches!(error.downcast_ref(), Some(Error::Io(io)) if is_closed(io)),
        };
        if may_pass && started.elapsed() + PAUSE < PATIENCE {
            sleep(PAUSE);
            continue;
        }
        let way = format!("{}{}", asked.describe(), way.concat());
        return Ok(match answer {
            Ok((200, body)) if body.trim_ascii_end() == key_authorization.as_bytes() => None,
            Ok((status, body)) => {
                let shown = String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN)]);
                let seen = format!("{way}HTTP {status} with the body `{}`", shown.trim());
                let has_extra = body.starts_with(key_authorization.as_bytes());
                Some(Finding {
                    is_wrong: true,
                    seen,
                    cause: cause(status, has_extra),
                })
            }
            Err(error) => Some(Finding {
                is_wrong: false,
                seen: format!("{way}{error}"),
                cause: None,
            }),
        });
    }
}

/// The status and the beginning of the body that `uri` leads to. `way` gets the redirects.
fn fetch(
    agent: &Agent,
    mut uri: Uri,
    port: u16,
    end: Instant,
    way: &mut Vec<String>,
) -> Result<(u16, Vec<u8>)> {
    for _ in 0..=MAX_REDIRECTS {
        let left = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let response = agent
            .get(&uri)
            .config()
            .timeout_global(Some(left))
            .build()
            .call()?;
        let status = response.status().as_u16();
        let location = response
            .headers()
            .get("Location")
            .filter(|_| (300..400).contains(&status));
        let Some(location) = location else {
            let mut body = Vec::new();
            response
                .into_body()
                .into_reader()
                .take(MAX_BODY)
                .read_to_end(&mut body)?;
            return Ok((status, body));
        };
        let location = location.to_str()?;
        way.push(format!("HTTP {status} to {location}: "));
        ensure!(
            [301, 302, 307, 308].contains(&status),
            "validators do not follow HTTP {status}"
        );
        let mut parts = location.parse::<Uri>()?.into_parts();
        parts.scheme = parts.scheme.or(uri.scheme().cloned());
        parts.authority = parts.authority.or(uri.authority().cloned());
        uri = Uri::from_parts(parts)?;
        let default = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let to = uri.port_u16().unwrap_or(default);
        ensure!(
            [80, 443, port].contains(&to),
            "validators go to the ports 80 and 443 only"
        );
    }
    bail!("validators follow {MAX_REDIRECTS} redirects and no more")
}

/// Whether the server took the connection and closed it, which may pass.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        UnexpectedEof,
    ]
    .contains(&error.kind())
}

/// The usual cause of a wrong answer.
fn cause(status: u16, has_extra: bool) -> Option<&'static str> {
    match status {
        403 => {
            Some("the web server may not read the file: look at the permissions of its directories")
        }
        404 => Some("the web server serves another directory as /.well-known/acme-challenge/"),
        200 if has_extra => Some("the web server adds something to what is in the file"),
        200 => Some("something else than the web server of --acme-dir answers for this name"),
        _ => None,
    }
}

/// A resolver that puts IPv6 first, and remembers what it found.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<Mutex<Vec<IpAddr>>>);

impl Asked {
    /// The addresses that were tried, and what may explain that a CA elsewhere sees another server.
    fn describe(&self) -> String {
        let mut text = String::new();
        for address in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let is_private = match address {
                IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
            };
            let note = if is_private {
                " (private: the CA may reach another server)"
            } else {
                ""
            };
            text += &format!("{address}{note}: ");
        }
        text
    }
}

impl Resolver for Asked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = DefaultResolver::default().resolve(uri, config, timeout)?;
        addresses.sort_by_key(|address| address.is_ipv4());
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = addresses.iter().map(|address| address.ip()).collect();
        Ok(addresses)
    }
}
