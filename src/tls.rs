//! TLS for ureq, done by OpenSSL.
//!
//! ureq asks [`TlsConnector`] for connections and moves bytes through [`TlsTransport`]. Both return errors in
//! ureq's terms, which `acme/transport.rs` and `self_check.rs` translate for the user:
//!
//! - If the handshake fails because OpenSSL and the server disagree, that is an `Other` that holds a [`Failure`].
//!   Another try would fail in the same way.
//! - If a connection is lost, or cannot be used any more after the handshake, that is an `Io`. Another try may
//!   succeed.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, HandshakeError};
use openssl::ssl::{Ssl, SslContext, SslStream, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::verify::X509CheckFlags;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers};
use ureq::unversioned::transport::{NextTimeout, Transport, TransportAdapter, time};

use crate::error::Failure;
use crate::trust::{Trust, untrusted};

// Two of OpenSSL's reasons, in the words of version 3. With other words, a hint or a retry would be missing.
const UNEXPECTED_EOF: &str = "unexpected eof while reading";
const WRONG_VERSION_NUMBER: &str = "wrong version number";

/// Connects with `tcp`, and for an https URL puts TLS over that connection.
#[derive(Debug)]
pub struct TlsConnector<C> {
    trust: Arc<Trust>,
    tcp: C,
}

impl<C: Connector> TlsConnector<C> {
    /// Creates a connector.
    pub fn new(trust: Arc<Trust>, tcp: C) -> TlsConnector<C> {
        TlsConnector { trust, tcp }
    }

    fn connect_tcp(&self, details: &ConnectionDetails) -> Result<Box<dyn Transport>, ureq::Error> {
        match self.tcp.connect(details, None)? {
            Some(connection) => Ok(connection.boxed()),
            None => Err(ureq::Error::ConnectionFailed),
        }
    }

    /// Puts TLS over a connection to `host`. If the quick context refuses the server's certificate, this connects a
    /// second time, and the complete context decides.
    fn connect_tls(
        &self,
        host: &str,
        details: &ConnectionDetails,
        mut connection: Box<dyn Transport>,
    ) -> Result<SslStream<TransportAdapter>, ureq::Error> {
        if let Some(quick) = self.trust.quick() {
            match handshake(quick, host, with_timeout(connection, details)?) {
                Err(error) if refusal(&error).is_some() => {
                    connection = self.connect_tcp(&with_time_left(details)?)?;
                }
                result => return result.map_err(handshake_error),
            }
        }
        let complete = self
            .trust
            .complete()
            .map_err(|errors| setup_error(&errors))?;
        handshake(complete, host, with_timeout(connection, details)?).map_err(handshake_error)
    }
}

impl<C: Connector> Connector for TlsConnector<C> {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        let connection = self.connect_tcp(details)?;
        // http is spoken by the self-check and with an http proxy.
        if !details.needs_tls() {
            return Ok(Some(connection));
        }
        // With an empty name, OpenSSL would not check for which host the certificate is.
        let Some(host) = details.uri.host().filter(|host| !host.is_empty()) else {
            return Err(ureq::Error::HostNotFound);
        };
        let stream = self.connect_tls(host, details, connection)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Box::new(TlsTransport { buffers, stream })))
    }
}

/// Returns the details with the time that is left. All steps on the way to a connection share one timeout, which
/// began with the first of them.
///
/// # Errors
/// No time is left.
pub fn with_time_left<'a>(
    details: &ConnectionDetails<'a>,
) -> Result<ConnectionDetails<'a>, ureq::Error> {
    let mut timeout = details.timeout;
    if let (time::Instant::Exact(begin), time::Duration::Exact(whole)) =
        (details.now, details.timeout.after)
    {
        let left = whole.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        timeout.after = time::Duration::Exact(left);
    }
    Ok(ConnectionDetails {
        uri: details.uri,
        addrs: details.addrs.clone(),
        resolver: details.resolver,
        config: details.config,
        request_level: details.request_level,
        now: (details.current_time)(),
        timeout,
        current_time: Arc::clone(&details.current_time),
        run_connector: Arc::clone(&details.run_connector),
        register_shutdown: Arc::clone(&details.register_shutdown),
    })
}

/// Returns the connection in a form for reading and writing, all of which together must end in the time that is left.
///
/// # Errors
/// No time is left.
pub fn with_timeout(
    connection: Box<dyn Transport>,
    details: &ConnectionDetails,
) -> Result<TransportAdapter, ureq::Error> {
    let mut adapter = TransportAdapter::new(connection, Arc::clone(&details.current_time));
    adapter.set_timeout(with_time_left(details)?.timeout);
    Ok(adapter)
}

/// Does the handshake. If the context verifies servers, their certificate must have `host` among its subject
/// alternative names. Its common name does not count (RFC 9525 §2): name constraints may not apply to it.
fn handshake(
    context: &SslContext,
    host: &str,
    connection: TransportAdapter,
) -> Result<SslStream<TransportAdapter>, HandshakeError<TransportAdapter>> {
    let mut ssl = Ssl::new(context)?;
    let without_brackets = host.trim_matches(['[', ']']);
    match without_brackets.parse::<IpAddr>() {
        Ok(address) => ssl.param_mut().set_ip(address)?,
        Err(_) => {
            // SNI is for names only (RFC 6066 §3).
            ssl.set_hostname(host)?;
            let parameters = ssl.param_mut();
            parameters.set_hostflags(
                X509CheckFlags::NO_PARTIAL_WILDCARDS | X509CheckFlags::NEVER_CHECK_SUBJECT,
            );
            parameters.set_host(host)?;
        }
    }
    ssl.connect(connection)
}

/// A TLS connection in the form that ureq wants. The HTTP text passes through two buffers: ureq writes the
/// output buffer and reads the input buffer, and this type moves their content to and from OpenSSL.
struct TlsTransport {
    buffers: LazyBuffers,
    stream: SslStream<TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends the first `amount` bytes of the output buffer, all of them.
    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    /// Waits for input, and appends it to the input buffer. Returns whether there was any: `false` means that
    /// the server has closed the connection.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = match self.stream.ssl_read(self.buffers.input_append_buf()) {
            Ok(amount) => amount,
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => 0,
            Err(error) => {
                return Err(match protocol_error(&error) {
                    // The server may have acted on the request before this.
                    Some(reason) => ureq::Error::Io(io::Error::other(reason)),
                    None => connection_error(error),
                });
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether the connection can be used for another request.
    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

/// Returns what is wrong with the server's certificate, if that is why the handshake failed.
fn refusal(error: &HandshakeError<TransportAdapter>) -> Option<X509VerifyResult> {
    let (HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream)) = error else {
        return None;
    };
    let ssl = stream.ssl();
    // The verdict is OK also if the handshake failed before the server had shown a certificate.
    let verdict = ssl.verify_result();
    if ssl.verify_mode() == SslVerifyMode::NONE || verdict == X509VerifyResult::OK {
        None
    } else {
        Some(verdict)
    }
}

/// Returns the error of a handshake in ureq's terms.
fn handshake_error(error: HandshakeError<TransportAdapter>) -> ureq::Error {
    if let Some(verdict) = refusal(&error) {
        return ureq::Error::Other(Box::new(untrusted(verdict)));
    }
    let cause = match error {
        HandshakeError::SetupFailure(errors) => return setup_error(&errors),
        HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => stream.into_error(),
    };
    match protocol_error(&cause) {
        Some(reason) => ureq::Error::Other(Box::new(disagreement(reason))),
        None => connection_error(cause),
    }
}

/// Returns the error of OpenSSL when it is set up.
fn setup_error(errors: &ErrorStack) -> ureq::Error {
    ureq::Error::Other(Box::new(disagreement(first_reason(errors))))
}

/// Returns what the user is told if OpenSSL and the server disagree, or OpenSSL cannot be set up.
fn disagreement(reason: &str) -> Failure {
    let failure = Failure::new(format!("the TLS handshake fails: {reason}"));
    if reason == WRONG_VERSION_NUMBER {
        failure.with_hint("check the port: the server does not speak https there")
    } else {
        failure
    }
}

/// Returns OpenSSL's reason if one side does not keep to the TLS protocol. `None` if the connection below failed or
/// ended. (An end without notice is a protocol error for OpenSSL 3, but not here.)
fn protocol_error(error: &ssl::Error) -> Option<&'static str> {
    let reason = first_reason(error.ssl_error()?);
    if reason == UNEXPECTED_EOF {
        None
    } else {
        Some(reason)
    }
}

/// Returns the error of the connection below TLS: a reset, for example, or a timeout.
fn connection_error(error: ssl::Error) -> ureq::Error {
    match error.into_io_error() {
        // ureq's adapter has put its own error, such as a timeout, into an io::Error. This takes it out.
        Ok(cause) => ureq::Error::from(cause),
        Err(_) => ureq::Error::Io(ErrorKind::UnexpectedEof.into()),
    }
}

fn first_reason(errors: &ErrorStack) -> &'static str {
    let first = errors.errors().first();
    first
        .and_then(|error| error.reason())
        .unwrap_or("no reason given")
}
