//! TLS for ureq, done by OpenSSL.
//!
//! ureq asks [`TlsConnector`] for connections and moves bytes through [`TlsTransport`]. Both return errors in
//! ureq's terms, which `acme/transport.rs` and `self_check.rs` translate for the user:
//!
//! - If there is no TLS connection because OpenSSL and the server disagree, that is an `Other` that holds a
//!   [`Failure`]. Another try would fail in the same way.
//! - If a connection is lost, before or after the handshake, that is an `Io`. Another try may succeed.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;

use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, HandshakeError};
use openssl::ssl::{Ssl, SslContext, SslStream, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::verify::X509CheckFlags;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers};
use ureq::unversioned::transport::{NextTimeout, Transport, TransportAdapter};

use crate::error::Failure;
use crate::trust::{Trust, untrusted};

// Two of OpenSSL's reasons, in the words of version 3. With other words, a hint or a retry would be missing.
const UNEXPECTED_EOF: &str = "unexpected eof while reading";
const WRONG_VERSION_NUMBER: &str = "wrong version number";

/// Connects with `tcp`, and for an https URL puts TLS over that connection.
#[derive(Debug)]
pub struct TlsConnector<C> {
    trust: Trust,
    tcp: C,
}

impl<C: Connector> TlsConnector<C> {
    /// Creates a connector.
    pub fn new(trust: Trust, tcp: C) -> TlsConnector<C> {
        TlsConnector { trust, tcp }
    }

    fn connect_tcp(&self, details: &ConnectionDetails) -> Result<Box<dyn Transport>, ureq::Error> {
        match self.tcp.connect(details, None)? {
            Some(connection) => Ok(connection.boxed()),
            None => Err(ureq::Error::ConnectionFailed),
        }
    }

    /// Puts TLS over a connection. If the quick context refuses the server's certificate, this connects a second
    /// time, and the complete context decides.
    fn connect_tls(
        &self,
        details: &ConnectionDetails,
        mut connection: Box<dyn Transport>,
    ) -> Result<SslStream<TransportAdapter>, ConnectError> {
        if let Some(quick) = self.trust.quick() {
            match handshake(quick, details, connection) {
                Err(ConnectError::Untrusted(_)) => {
                    connection = self
                        .connect_tcp(details)
                        .map_err(ConnectError::Connection)?;
                }
                result => return result,
            }
        }
        handshake(self.trust.complete()?, details, connection)
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
        // http is spoken by the self-check and with an http proxy, whose connector calls this one for the
        // connection to the proxy.
        if !details.needs_tls() {
            return Ok(Some(connection));
        }
        let stream = self
            .connect_tls(details, connection)
            .map_err(ConnectError::into_ureq)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Box::new(TlsTransport { buffers, stream })))
    }
}

/// Connects. If the context verifies servers, their certificate must be for the host of the URL.
fn handshake(
    context: &SslContext,
    details: &ConnectionDetails,
    connection: Box<dyn Transport>,
) -> Result<SslStream<TransportAdapter>, ConnectError> {
    let mut adapter = TransportAdapter::new(connection, details.current_time.clone());
    adapter.set_timeout(details.timeout);
    let mut ssl = Ssl::new(context)?;
    // With an empty name, OpenSSL would not check for which host the certificate is.
    let Some(host) = details.uri.host().filter(|host| !host.is_empty()) else {
        return Err(ConnectError::Connection(ureq::Error::HostNotFound));
    };
    let without_brackets = host.trim_matches(['[', ']']);
    match without_brackets.parse::<IpAddr>() {
        Ok(address) => ssl.param_mut().set_ip(address)?,
        Err(_) => {
            // SNI is for names only (RFC 6066 §3).
            ssl.set_hostname(host)?;
            let parameters = ssl.param_mut();
            parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
            parameters.set_host(host)?;
        }
    }
    ssl.connect(adapter).map_err(ConnectError::from_handshake)
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
            Err(error) => return Err(lost_connection(error)),
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

/// Why there is no TLS connection.
enum ConnectError {
    /// The server's certificate is not trusted, or not for its host.
    Untrusted(X509VerifyResult),
    /// OpenSSL and the server disagree, or OpenSSL cannot be set up.
    OpenSsl(ErrorStack),
    /// The connection below TLS failed, for example by a timeout or a reset.
    Connection(ureq::Error),
}

impl ConnectError {
    fn from_handshake(error: HandshakeError<TransportAdapter>) -> ConnectError {
        let stream = match error {
            HandshakeError::SetupFailure(errors) => return ConnectError::OpenSsl(errors),
            HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => stream,
        };
        // The verdict is OK also if the handshake failed before the server had shown a certificate.
        let must_be_trusted = stream.ssl().verify_mode() != SslVerifyMode::NONE;
        let verdict = stream.ssl().verify_result();
        if must_be_trusted && verdict != X509VerifyResult::OK {
            return ConnectError::Untrusted(verdict);
        }
        let ssl_error = stream.into_error();
        match protocol_errors(&ssl_error) {
            Some(errors) => ConnectError::OpenSsl(errors.clone()),
            None => ConnectError::Connection(lost_connection(ssl_error)),
        }
    }

    fn into_ureq(self) -> ureq::Error {
        match self {
            ConnectError::Untrusted(verdict) => ureq::Error::Other(Box::new(untrusted(verdict))),
            ConnectError::OpenSsl(errors) => ureq::Error::Other(Box::new(disagreement(&errors))),
            ConnectError::Connection(error) => error,
        }
    }
}

/// For `?`.
impl From<ErrorStack> for ConnectError {
    fn from(errors: ErrorStack) -> ConnectError {
        ConnectError::OpenSsl(errors)
    }
}

/// Returns OpenSSL's errors if the peer does not keep to the protocol, or reports an error itself. `None` if the
/// connection below TLS failed or ended: OpenSSL 3 takes an end without notice for a protocol error as well.
fn protocol_errors(error: &ssl::Error) -> Option<&ErrorStack> {
    error
        .ssl_error()
        .filter(|errors| reason(errors) != UNEXPECTED_EOF)
}

/// Returns the error of a connection that has ended too early, or cannot be used further. The server may have
/// acted on the request.
fn lost_connection(error: ssl::Error) -> ureq::Error {
    if let Some(errors) = protocol_errors(&error) {
        return ureq::Error::Io(io::Error::other(reason(errors)));
    }
    match error.into_io_error() {
        // Finds ureq's own error, such as a timeout, inside the io::Error in which its adapter has put it.
        Ok(cause) => ureq::Error::from(cause),
        Err(_) => ureq::Error::Io(ErrorKind::UnexpectedEof.into()),
    }
}

/// Returns what the user is told if OpenSSL and the server disagree.
fn disagreement(errors: &ErrorStack) -> Failure {
    let reason = reason(errors);
    let failure = Failure::new(format!("no TLS with it: {reason}"));
    if reason == WRONG_VERSION_NUMBER {
        failure.with_hint("is this the port where it speaks https?")
    } else {
        failure
    }
}

/// Returns the first reason that OpenSSL gives.
fn reason(errors: &ErrorStack) -> &'static str {
    let first = errors.errors().first();
    first
        .and_then(|error| error.reason())
        .unwrap_or("no reason given")
}
