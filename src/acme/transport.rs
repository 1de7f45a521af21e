//! One request over the network, and one response or one error. Nothing is tried again here.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use ureq::http::Method;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, Proxy, ProxyProtocol};

use super::account_key::Jws;
use super::purpose::Purpose;
use super::request_error::{ErrorKind, RequestError};
use super::resources::AcmeUrl;
use super::response::Response;
use crate::deadline::Deadline;
use crate::error::Failure;
use crate::tls::{self, TlsConnector};
use crate::trace::Exchange;

/// How many connections there are to the CA, each with one request at a time: enough to hide round
/// trips, few enough for the limits of CAs.
pub const MAX_CONNECTIONS: usize = 8;
/// The longest that one request may take...
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// ...and the part of it in which the connection must be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The shortest timeout that is set: to ureq a timeout of zero is over before anything was tried.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// How long requests that are under way may go on after the run was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// The largest response body that is read.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// The buffer of a connection, in each direction.
pub const BUFFER_BYTES: usize = 16 << 10;
/// This program and its HTTP library (§6.1).
pub const USER_AGENT: &str = concat!("getcrt/", env!("CARGO_PKG_VERSION"), " ureq/3.5");

/// An HTTP client for the CA, with its pool of connections.
#[derive(Clone)]
pub struct Transport(Agent);

/// A request to the CA.
pub struct Request<'a> {
    /// What it is for.
    pub purpose: Purpose<'a>,
    /// GET or HEAD for a request that is not signed; POST for a signed one.
    pub method: Method,
    /// Where it goes.
    pub url: &'a AcmeUrl,
    /// The body.
    pub jws: Option<&'a Jws>,
}

impl Transport {
    /// Creates a client that trusts the system's roots and those in the file `ca_bundle`, and uses the
    /// proxy that the environment names.
    ///
    /// # Errors
    /// `ca_bundle` is unusable, or the proxy is of a kind that is not supported.
    pub fn new(ca_bundle: Option<&Path>) -> Result<Transport> {
        let context = tls::verifying_context(ca_bundle)?;
        let proxy = Proxy::try_from_env();
        if let Some(proxy) = &proxy {
            let is_http = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
            ensure!(
                is_http,
                "the environment asks for a SOCKS proxy; only http(s) proxies are spoken"
            );
        }
        let config = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            // §6.4: the signature covers the URL, so a redirect cannot be followed.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .accept("application/pem-certificate-chain, */*")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_idle_connections_per_host(MAX_CONNECTIONS)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .proxy(proxy)
            .build();
        let tcp = ConnectProxyConnector::default().chain(TcpConnector::default());
        let tls = TlsConnector::new(context, tcp);
        let agent = Agent::with_parts(config, tls, DefaultResolver::default());
        Ok(Transport(agent))
    }

    /// Sends a request and returns the response, whatever its status.
    ///
    /// # Errors
    /// No response arrived by the deadline, or one that cannot be read.
    pub fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, RequestError> {
        self.send_and_read(request, deadline).map_err(request_error)
    }

    fn send_and_read(
        &self,
        request: &Request,
        deadline: &Deadline,
    ) -> Result<Response, ureq::Error> {
        let mut builder = ureq::http::Request::builder()
            .method(&request.method)
            .uri(request.url.as_str())
            .header("Accept-Language", "en");
        if request.jws.is_some() {
            builder = builder.header("Content-Type", "application/jose+json");
        }
        let body = request.jws.map(Jws::to_body).unwrap_or_default();
        let http_request = builder.body(body)?;
        let exchange = Exchange::with_the_ca(request.purpose, &http_request, request.jws);

        let timeout = REQUEST_TIMEOUT.min(deadline.remaining()).max(MIN_TIMEOUT);
        let result = self.run(http_request, timeout);
        if let Some(exchange) = exchange {
            exchange.end(result.as_ref());
        }
        result
    }

    fn run(
        &self,
        request: ureq::http::Request<String>,
        timeout: Duration,
    ) -> Result<Response, ureq::Error> {
        let response = if request.body().is_empty() {
            // HTTP allows no body here, not even an empty one.
            let request = request.map(|_| ());
            let configured = self.0.configure_request(request);
            self.0
                .run(configured.timeout_global(Some(timeout)).build())?
        } else {
            let configured = self.0.configure_request(request);
            self.0
                .run(configured.timeout_global(Some(timeout)).build())?
        };
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    /// Ends the requests that are under way, after [`CANCEL_GRACE`].
    pub fn shut_down_soon(&self) {
        let agent = self.0.clone();
        thread::spawn(move || {
            thread::sleep(CANCEL_GRACE);
            agent.shutdown();
        });
    }
}

/// Translates an error below HTTP.
fn request_error(error: ureq::Error) -> RequestError {
    let kind = match error {
        // What TLS refuses it will refuse again; so it is with a flood and a proxy without CONNECT.
        ureq::Error::Other(_)
        | ureq::Error::BodyExceedsLimit(_)
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::BadUri(_) => ErrorKind::Permanent,
        _ => ErrorKind::OutcomeUnknown,
    };
    let failure = match error {
        ureq::Error::Io(cause) => Failure::new(format!("the connection failed: {cause}")),
        ureq::Error::Timeout(_) => Failure::new("no answer in time"),
        // tls.rs puts a failure of ours, hint included, into ureq's error.
        ureq::Error::Other(cause) => match cause.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(cause) => Failure::new(cause.to_string()),
        },
        other => Failure::new(other.to_string()),
    };
    RequestError {
        kind,
        failure: Box::new(failure),
        retry_after: None,
    }
}
