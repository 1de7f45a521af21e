//! One request over the network, and one response or one error. Nothing is tried again here.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use ureq::http::{self, Method};
use ureq::unversioned::transport::TcpConnector;
use ureq::{Agent, AsSendBody};

use super::account_key::Jws;
use super::purpose::Purpose;
use super::request_error::{ErrorKind, RequestError};
use super::resources::AcmeUrl;
use super::response::Response;
use crate::deadline::Deadline;
use crate::error::Failure;
use crate::proxy::{EnvironmentProxy, ProxyConnector};
use crate::resolver::ThreadedResolver;
use crate::tls::TlsConnector;
use crate::trace::Exchange;
use crate::trust::Trust;

/// How many connections there are to the CA, each with one request at a time: enough to hide round
/// trips, few enough for the limits of CAs.
pub const MAX_CONNECTIONS: usize = 8;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The shortest timeout that is set. ureq treats a timeout of zero as already expired.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// How long requests that are under way may go on after the run was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// The largest response body that is read.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// The buffer of a connection, in each direction.
pub const BUFFER_BYTES: usize = 16 << 10;
/// This program and its HTTP library (§6.1).
pub const USER_AGENT: &str = concat!("getcrt/", env!("CARGO_PKG_VERSION"), " ureq/3.5");

/// An HTTP client for the CA, with its pool of connections. Clones share the pool.
#[derive(Clone)]
pub struct Transport(Agent);

/// A request to the CA.
pub struct Request<'a> {
    /// What it is for.
    pub purpose: Purpose<'a>,
    /// Where it goes.
    pub url: &'a AcmeUrl,
    /// The body of a signed request.
    pub jws: Option<&'a Jws>,
    /// Whether it gets a new connection: idle ones may be dead.
    pub needs_new_connection: bool,
}

impl Request<'_> {
    fn method(&self) -> Method {
        match (self.jws, self.purpose) {
            (Some(_), _) => Method::POST,
            // §7.2: there is nothing to read but a header.
            (None, Purpose::NewNonce) => Method::HEAD,
            (None, _) => Method::GET,
        }
    }
}

impl Transport {
    /// Creates a client that trusts the system's roots and those in the file `ca_bundle`, and uses the
    /// proxy that the environment names.
    ///
    /// # Errors
    /// `ca_bundle` or the proxy is unusable, or OpenSSL cannot be set up.
    pub fn new(ca_bundle: Option<&Path>, deadline: &Deadline) -> Result<Transport> {
        let proxy = EnvironmentProxy::find()?;
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
            .proxy(proxy.as_ref().map(EnvironmentProxy::settings).cloned())
            .build();
        let trust = Arc::new(Trust::roots(ca_bundle, deadline)?);
        let to_proxy = TlsConnector::new(Arc::clone(&trust), TcpConnector::default());
        let to_ca = ProxyConnector::new(proxy, USER_AGENT, to_proxy);
        let tls = TlsConnector::new(trust, to_ca);
        let agent = Agent::with_parts(config, tls, ThreadedResolver);
        Ok(Transport(agent))
    }

    /// Sends a request and returns the response, whatever its status.
    ///
    /// # Errors
    /// There is no response that can be read: no connection, no trust, a timeout, a body that is too large.
    pub fn send(&self, request: &Request, deadline: &Deadline) -> Result<Response, RequestError> {
        self.build_and_run(request, deadline).map_err(request_error)
    }

    /// Builds the HTTP request and runs it. (The body's type differs, so there are two calls of `run`.)
    fn build_and_run(
        &self,
        request: &Request,
        deadline: &Deadline,
    ) -> Result<Response, ureq::Error> {
        let builder = http::Request::builder()
            .method(request.method())
            .uri(request.url.as_str())
            .header("Accept-Language", "en");
        match request.jws {
            Some(jws) => {
                let signed = builder.header("Content-Type", "application/jose+json");
                self.run(request, signed.body(jws.to_body())?, deadline)
            }
            // ureq refuses any body for GET and HEAD, even an empty string.
            None => self.run(request, builder.body(())?, deadline),
        }
    }

    /// Runs `http_request`, which was built from `request`, and shows it and the response if the user wants to
    /// see them.
    fn run(
        &self,
        request: &Request,
        http_request: http::Request<impl AsSendBody>,
        deadline: &Deadline,
    ) -> Result<Response, ureq::Error> {
        let exchange = Exchange::with_the_ca(request.purpose, &http_request, request.jws);
        let timeout = REQUEST_TIMEOUT.min(deadline.remaining()).max(MIN_TIMEOUT);
        let mut config = self
            .0
            .configure_request(http_request)
            .timeout_global(Some(timeout));
        if request.needs_new_connection {
            // Any idle connection is too old.
            config = config.max_idle_age(Duration::ZERO);
        }
        let configured = config.build();
        let result = self.0.run(configured).and_then(read_response);
        if let Some(exchange) = exchange {
            exchange.end(result.as_ref());
        }
        result
    }

    /// Ends the requests that are under way, after [`CANCEL_GRACE`].
    pub fn shut_down_soon(&self) {
        let agent = self.0.clone();
        let shut_down = move || {
            thread::sleep(CANCEL_GRACE);
            agent.shutdown();
        };
        // If no thread can be started, the requests go on until their own timeouts.
        let _ = thread::Builder::new().spawn(shut_down);
    }
}

fn read_response(response: http::Response<ureq::Body>) -> Result<Response, ureq::Error> {
    let (parts, mut body) = response.into_parts();
    let content = body.with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
    Ok(Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: content,
    })
}

/// Translates a ureq error.
fn request_error(error: ureq::Error) -> RequestError {
    let (kind, failure) = match error {
        // tls.rs or proxy.rs has put a failure of ours into ureq's error.
        ureq::Error::Other(cause) => match cause.downcast::<Failure>() {
            Ok(failure) => (ErrorKind::Permanent, *failure),
            Err(cause) => (ErrorKind::Permanent, Failure::new(cause.to_string())),
        },
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::BadUri(_) => {
            (ErrorKind::Permanent, Failure::new(error.to_string()))
        }
        ureq::Error::Io(cause) => {
            let kind = match cause.raw_os_error() {
                // This process or the machine may open no more files.
                Some(libc::EMFILE | libc::ENFILE) => ErrorKind::Permanent,
                _ if is_end_of_connection(&cause) => ErrorKind::ConnectionLost,
                _ => ErrorKind::OutcomeUnknown,
            };
            (
                kind,
                Failure::new(format!("the connection failed: {cause}")),
            )
        }
        ureq::Error::Timeout(_) => (ErrorKind::OutcomeUnknown, Failure::new("no answer in time")),
        // An unknown host, a response that is not HTTP, and whatever else ureq may meet.
        other => (ErrorKind::OutcomeUnknown, Failure::new(other.to_string())),
    };
    RequestError {
        kind,
        failure: Box::new(failure),
        retry_after: None,
    }
}

/// Whether a connection that was open has ended.
fn is_end_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}
