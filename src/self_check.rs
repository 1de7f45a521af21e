//! The self-check: fetches a challenge file as the CA will (RFC 8555 §8.3), so that no validation attempt is
//! used up for a file that is not served. It imitates Let's Encrypt's validator: up to ten redirects over http and
//! https, no proxy, and any certificate is accepted on the way. A validator may choose any address of the name, and
//! there may be several at several places. So every address is asked.
//!
//! ```text
//! fetch_and_compare     asks all addresses of the name
//! └─ fetch_patiently    tries again while the web server may be starting
//!    └─ fetch           follows redirects
//!       └─ get          chooses the address of another host, and sends one request
//! ```

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, TcpConnector, time as ureq_time};

use crate::acme::response::Response;
use crate::acme::{BUFFER_BYTES, MIN_TIMEOUT, USER_AGENT};
use crate::deadline::Deadline;
use crate::resolver::ThreadedResolver;
use crate::text::{beginning, first_few, without_credentials};
use crate::tls::TlsConnector;
use crate::trace::{Exchange, MAX_LOCATION_CHARS, MAX_WEB_BODY_CHARS, Server};
use crate::trust::Trust;

/// How long the check of one name may take, with all its addresses and redirects.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long the request is repeated if the server answers 5xx or 429 or closes the connection: it may
/// be starting.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How many redirects validators follow.
const MAX_REDIRECTS: usize = 10;
/// How much of a body is read, in bytes.
const MAX_BODY_BYTES: u64 = 4096;

/// For how many addresses of a name the user is told what was seen there.
const MAX_SHOWN_ADDRESSES: usize = 3;

/// What the check found, at one address or at all of them.
pub enum Finding {
    /// The key authorization.
    Served,
    /// An HTTP response that is not the key authorization.
    Wrong {
        /// The route to the response, and the response.
        seen: String,
        /// The usual cause of such a response.
        hint: Option<&'static str>,
    },
    /// No response, or a redirect that validators do not follow. This is the route and the reason. The CA
    /// may see something else.
    Unclear(String),
}

/// The hint on a name of which some addresses are right and others are wrong.
const SOME_ADDRESSES_HINT: &str = "the CA may ask at any address of the name: let all of them serve the challenge files, or remove the wrong ones from the DNS";

/// Fetches `url`, whose port is `port`, from every address of its host, and compares what is there with the key
/// authorization.
///
/// # Errors
/// The run was cancelled. Everything else that can happen is a [`Finding`].
pub fn fetch_and_compare(
    url: &str,
    port: u16,
    key_authorization: &str,
    deadline: &Deadline,
) -> Result<Finding> {
    let name_deadline = deadline.at_most(NAME_TIMEOUT);
    let uri: Uri = url.parse()?;
    let addresses = match resolve(&uri, &name_deadline) {
        Ok(addresses) => addresses,
        Err(error) => {
            return Ok(judge(
                Err(error.into()),
                key_authorization,
                &Route::default(),
            ));
        }
    };
    let mut findings = Findings::default();
    for (index, address) in addresses.iter().enumerate() {
        // Each address gets its share of the time, so that there is some left for the last one.
        let untried = u32::try_from(addresses.len() - index).unwrap_or(1);
        let share = name_deadline.at_most(name_deadline.remaining() / untried);
        let mut route = Route::default();
        let answer = fetch_patiently(&uri, *address, port, &mut route, &share)?;
        let is_unreachable = is_unreachable_from_here(&answer);
        match judge(answer, key_authorization, &route) {
            Finding::Served => findings.serving.push(address.ip()),
            Finding::Wrong { seen, hint } => {
                findings.wrong.push(seen);
                findings.first_hint = findings.first_hint.or(hint);
            }
            Finding::Unclear(reason) if is_unreachable => findings.unreachable.push(reason),
            Finding::Unclear(reason) => findings.unclear.push(reason),
        }
    }
    Ok(findings.combine())
}

/// What was found at the addresses of one name.
#[derive(Default)]
struct Findings {
    serving: Vec<IpAddr>,
    wrong: Vec<String>,
    unclear: Vec<String>,
    /// Those to which this machine has no route. It may have no IPv6, for example, which says nothing about the name.
    unreachable: Vec<String>,
    first_hint: Option<&'static str>,
}

impl Findings {
    /// Returns what this means for the name: one address that is wrong is enough to be wrong, because the CA may ask
    /// there.
    fn combine(self) -> Finding {
        let served_elsewhere = if self.serving.is_empty() {
            String::new()
        } else {
            format!(" (it is served at {})", first_few(&self.serving))
        };
        if !self.wrong.is_empty() {
            let hint = if self.serving.is_empty() {
                self.first_hint
            } else {
                Some(SOME_ADDRESSES_HINT)
            };
            let seen = in_one_line(&self.wrong) + &served_elsewhere;
            return Finding::Wrong { seen, hint };
        }
        if !self.unclear.is_empty() {
            return Finding::Unclear(in_one_line(&self.unclear) + &served_elsewhere);
        }
        if self.serving.is_empty() {
            Finding::Unclear(in_one_line(&self.unreachable))
        } else {
            Finding::Served
        }
    }
}

/// Lists what was seen at some addresses, but not at too many.
fn in_one_line(seen: &[String]) -> String {
    let mut line = seen[..seen.len().min(MAX_SHOWN_ADDRESSES)].join("; ");
    if seen.len() > MAX_SHOWN_ADDRESSES {
        line += &format!("; and {} more", seen.len() - MAX_SHOWN_ADDRESSES);
    }
    line
}

/// Returns the response to which `uri` leads if its host is at `address`. While the web server may be starting, this tries
/// again.
///
/// # Errors
/// The run was cancelled. That there is no response is the inner error, as for [`fetch`].
fn fetch_patiently(
    uri: &Uri,
    address: SocketAddr,
    port: u16,
    route: &mut Route,
    deadline: &Deadline,
) -> Result<Result<Response>> {
    let started = Instant::now();
    loop {
        *route = Route::default();
        route.add(describe(address.ip()));
        let answer = fetch(uri, address, port, route, deadline);
        let has_patience = started.elapsed() + RETRY_PAUSE < PATIENCE;
        // For the pause and one more try. A timeout would hide this answer.
        let has_time = deadline.remaining() > 2 * RETRY_PAUSE;
        if !(is_worth_a_retry(&answer) && has_patience && has_time) {
            return Ok(answer);
        }
        deadline.sleep(RETRY_PAUSE)?;
    }
}

/// Returns the response to which `uri` leads if its host is at `address`, and notes on `route` how it got there.
///
/// # Errors
/// There is no response: a [`ureq::Error`]. Or a redirect leads where validators do not go: another error.
fn fetch(
    first_uri: &Uri,
    address: SocketAddr,
    port: u16,
    route: &mut Route,
    deadline: &Deadline,
) -> Result<Response> {
    let mut uri = first_uri.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = get(&uri, first_uri, address, route, deadline)?;
        let status = response.status;
        let location = match response.headers.get("Location") {
            Some(location) if (300..400).contains(&status) => location.to_str()?,
            _ => return Ok(response),
        };
        let shown_location = beginning(&without_credentials(location), MAX_LOCATION_CHARS);
        route.add(format!("HTTP {status} to {shown_location}"));
        ensure!(
            [301, 302, 307, 308].contains(&status),
            "validators do not follow HTTP {status}"
        );
        let target = redirect_target(&uri, location)?;
        if !is_same_host(first_uri, &target) {
            route.leads_to_another_host = true;
        }
        uri = target;
        // A URL without a port goes to 80 or 443.
        if let Some(other_port) = uri.port_u16() {
            ensure!(
                [80, 443, port].contains(&other_port),
                "validators go to the ports 80 and 443 only"
            );
        }
    }
    bail!("validators follow {MAX_REDIRECTS} redirects and no more")
}

/// Sends one request, and shows it and the response if the user wants to see them. The host of `first_uri` is at
/// `address`. For another host this chooses an address.
fn get(
    uri: &Uri,
    first_uri: &Uri,
    address: SocketAddr,
    route: &mut Route,
    deadline: &Deadline,
) -> Result<Response> {
    let server = if route.leads_to_another_host {
        Server::OtherHost
    } else {
        Server::Web
    };
    let chosen = if is_same_host(uri, first_uri) {
        let port = port_of(uri).unwrap_or(address.port());
        SocketAddr::new(address.ip(), port)
    } else {
        choose_address(uri, route, deadline)?
    };
    let exchange = Exchange::of_the_self_check(server, uri, chosen);
    let result = get_from(chosen, uri, deadline);
    if let Some(exchange) = exchange {
        exchange.end(result.as_ref());
    }
    Ok(result?)
}

/// Returns the port of a URL, which may follow from the scheme.
fn port_of(uri: &Uri) -> Option<u16> {
    match (uri.port_u16(), uri.scheme_str()) {
        (Some(port), _) => Some(port),
        (None, Some("http")) => Some(80),
        (None, Some("https")) => Some(443),
        _ => None,
    }
}

/// Returns all addresses of a URL's host, IPv6 before IPv4.
fn resolve(uri: &Uri, deadline: &Deadline) -> Result<ResolvedSocketAddrs, ureq::Error> {
    let timeout = NextTimeout {
        after: ureq_time::Duration::Exact(deadline.remaining()),
        ..NextTimeout::default()
    };
    let mut addresses = ThreadedResolver.resolve(uri, &Config::default(), timeout)?;
    addresses.sort_by_key(|address| address.is_ipv4());
    Ok(addresses)
}

/// Returns the address of the host that a validator would choose: IPv6 before IPv4, and one that can be reached.
/// ureq would try the addresses in the order of the system's resolver, and would not tell which one has answered.
fn choose_address(
    uri: &Uri,
    route: &mut Route,
    deadline: &Deadline,
) -> Result<SocketAddr, ureq::Error> {
    let addresses = resolve(uri, deadline)?;
    first_reachable(&addresses, route, deadline)
}

/// Returns the first address that accepts a connection, which is closed again at once.
///
/// # Errors
/// No address accepts one. The error is that of the last address.
fn first_reachable(
    addresses: &[SocketAddr],
    route: &mut Route,
    deadline: &Deadline,
) -> Result<SocketAddr, ureq::Error> {
    let mut last_error = ureq::Error::HostNotFound;
    for (index, address) in addresses.iter().enumerate() {
        route.add(describe(address.ip()));
        // Each address gets its share of the time, so that there is some left for the last one.
        let untried = u32::try_from(addresses.len() - index).unwrap_or(1);
        let share = deadline.remaining() / untried;
        match TcpStream::connect_timeout(address, share.max(MIN_TIMEOUT)) {
            Ok(_) => return Ok(*address),
            Err(error) => last_error = ureq::Error::Io(error),
        }
        route.add("no connection");
    }
    Err(last_error)
}

/// Returns the address, with a note if it is one that only this network knows.
fn describe(address: IpAddr) -> String {
    let is_private = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    if is_private {
        format!("{address} (private: the CA may reach another server)")
    } else {
        address.to_string()
    }
}

/// Sends one request to this address, and reads the response.
fn get_from(address: SocketAddr, uri: &Uri, deadline: &Deadline) -> Result<Response, ureq::Error> {
    let config = Agent::config_builder()
        .proxy(None)
        .user_agent(USER_AGENT)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .timeout_global(Some(deadline.remaining().max(MIN_TIMEOUT)))
        .build();
    let trust = Arc::new(Trust::without_verification());
    let connector = TlsConnector::new(trust, TcpConnector::default());
    let agent = Agent::with_parts(config, connector, OneAddress(address));

    let (parts, body) = agent.get(uri).call()?.into_parts();
    let mut content = Vec::new();
    // Nobody needs the body of a redirect.
    if !parts.status.is_redirection() {
        body.into_reader()
            .take(MAX_BODY_BYTES)
            .read_to_end(&mut content)?;
    }
    Ok(Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: content,
    })
}

/// Tells ureq that every host has this one address.
#[derive(Debug)]
struct OneAddress(SocketAddr);

impl Resolver for OneAddress {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// Returns where a redirect from `base` leads. What is missing in the location is taken from `base`:
///
/// ```text
/// https://example.org/x    nothing
/// //example.org/x          the scheme
/// /x                       the scheme and the host
/// ```
///
/// # Errors
/// The location is none of these, or has lost the `/` after the host: `http://example.org.well-known/x`.
fn redirect_target(base: &Uri, location: &str) -> Result<Uri> {
    // `Uri` would take all of the second form for a path.
    let with_scheme = match base.scheme_str() {
        Some(scheme) if location.starts_with("//") => format!("{scheme}:{location}"),
        _ => location.to_owned(),
    };
    let mut parts = with_scheme.parse::<Uri>()?.into_parts();
    parts.scheme = parts.scheme.or(base.scheme().cloned());
    parts.authority = parts.authority.or(base.authority().cloned());
    let uri = Uri::from_parts(parts)?;
    let host = uri.host().unwrap_or_default();
    ensure!(
        !host.contains(".well-known"),
        "the redirect has lost the `/` after the host's name"
    );
    Ok(uri)
}

fn is_same_host(one: &Uri, other: &Uri) -> bool {
    let name = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    name(one) == name(other)
}

/// Whether there is no answer because this machine has no route to the address.
fn is_unreachable_from_here(answer: &Result<Response>) -> bool {
    let error = answer.as_ref().err();
    match error.and_then(|error| error.downcast_ref::<ureq::Error>()) {
        Some(ureq::Error::Io(cause)) => matches!(
            cause.kind(),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable
        ),
        _ => false,
    }
}

/// Whether the same request may succeed in a moment.
fn is_worth_a_retry(answer: &Result<Response>) -> bool {
    match answer {
        Ok(response) => response.status == 429 || response.status >= 500,
        Err(error) => match error.downcast_ref::<ureq::Error>() {
            Some(ureq::Error::Io(cause)) => matches!(
                cause.kind(),
                io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        },
    }
}

/// Compares an answer with what it should be.
fn judge(answer: Result<Response>, key_authorization: &str, route: &Route) -> Finding {
    let expected = key_authorization.as_bytes();
    match answer {
        // §8.3: white space at the end is ignored.
        Ok(response) if response.status == 200 && response.body.trim_ascii_end() == expected => {
            Finding::Served
        }
        Ok(response) => {
            let status = response.status;
            let body = &response.body;
            let seen = if (300..400).contains(&status) {
                format!("HTTP {status} without a Location")
            } else if route.leads_to_another_host {
                // It may be one that only this machine can reach.
                format!("HTTP {status} from another host; its body is not shown")
            } else {
                let text = String::from_utf8_lossy(body);
                let shown_body = beginning(text.trim(), MAX_WEB_BODY_CHARS);
                format!("HTTP {status} with the body `{shown_body}`")
            };
            Finding::Wrong {
                seen: route.leading_to(&seen),
                hint: usual_cause(status, body.starts_with(expected)),
            }
        }
        Err(error) => {
            // The cause alone: ureq puts a word of its own before it.
            let reason = match error.downcast_ref::<ureq::Error>() {
                Some(ureq::Error::Io(cause))
                    if cause.kind() == io::ErrorKind::ConnectionRefused =>
                {
                    "no web server listens there (connection refused)".to_owned()
                }
                Some(ureq::Error::Io(cause)) => cause.to_string(),
                Some(ureq::Error::Timeout(_)) => "no answer in time".to_owned(),
                Some(ureq::Error::Other(cause)) => cause.to_string(),
                _ => error.to_string(),
            };
            // It may quote a URL.
            let shown_reason = beginning(&reason, MAX_LOCATION_CHARS);
            Finding::Unclear(route.leading_to(&shown_reason))
        }
    }
}

fn usual_cause(status: u16, has_more: bool) -> Option<&'static str> {
    match status {
        403 => Some(
            "let the web server read the files in --acme-dir, and enter all directories above it",
        ),
        404 => Some("make /.well-known/acme-challenge/ lead to the directory of --acme-dir"),
        200 if has_more => {
            Some("let the web server send the file as it is: something is added to it")
        }
        200 => Some(
            "make the name lead to the web server that serves --acme-dir: something else answers",
        ),
        _ => None,
    }
}

/// The addresses and redirects on the way to an answer, and remarks on them. The user sees them in one line with it:
///
/// ```text
/// 192.0.2.1: HTTP 301 to http://www.example.org/x: 192.0.2.7: no connection: 192.0.2.8: HTTP 404 with the body `no such file`
/// ```
#[derive(Default)]
struct Route {
    steps: Vec<String>,
    /// Whether a redirect has left the host of the name.
    leads_to_another_host: bool,
}

impl Route {
    fn add(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    /// Returns the steps, and what was found at the end of them, in one line.
    fn leading_to(&self, end: &str) -> String {
        let mut line = String::new();
        for step in &self.steps {
            line += &format!("{step}: ");
        }
        line + end
    }
}
