//! TLS for ureq, done by OpenSSL.
//!
//! ureq calls this from inside, so an error takes this way to the user:
//!
//! ```text
//! OpenSSL's error -> TlsError -> ureq::Error -> RequestError, in acme/transport.rs
//!                                            -> Finding, in self_check.rs
//! ```

use std::fmt;
use std::io::{ErrorKind, Write};
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

// Two of OpenSSL's reasons, in the words of version 3.
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
    ) -> Result<SslStream<TransportAdapter>, TlsError> {
        if let Some(quick) = self.trust.quick() {
            match handshake(quick, details, connection) {
                Err(TlsError::Untrusted(_)) => {
                    connection = self.connect_tcp(details).map_err(TlsError::Connection)?;
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
        // http is spoken by the self-check and on the way to an http proxy.
        if !details.needs_tls() {
            return Ok(Some(connection));
        }
        let stream = self
            .connect_tls(details, connection)
            .map_err(TlsError::into_ureq)?;
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
) -> Result<SslStream<TransportAdapter>, TlsError> {
    let mut adapter = TransportAdapter::new(connection, details.current_time.clone());
    adapter.set_timeout(details.timeout);
    let mut ssl = Ssl::new(context)?;
    // With an empty name, OpenSSL would not check for which host the certificate is.
    let Some(host) = details.uri.host().filter(|host| !host.is_empty()) else {
        return Err(TlsError::Connection(ureq::Error::HostNotFound));
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
    ssl.connect(adapter).map_err(TlsError::from_handshake)
}

/// A TLS connection in the form that ureq wants: it fills and empties the buffers, and this moves their
/// content to and from OpenSSL.
struct TlsTransport {
    buffers: LazyBuffers,
    stream: SslStream<TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = match self.stream.ssl_read(self.buffers.input_append_buf()) {
            Ok(amount) => amount,
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => 0,
            Err(error) => return Err(TlsError::from_ssl(error).into_ureq()),
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

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
enum TlsError {
    /// The server's certificate is not trusted, or not for its host.
    Untrusted(X509VerifyResult),
    /// OpenSSL and the server do not agree, or OpenSSL cannot be set up.
    OpenSsl(ErrorStack),
    /// The connection below TLS failed, for example by a timeout or a reset.
    Connection(ureq::Error),
}

impl TlsError {
    fn from_handshake(error: HandshakeError<TransportAdapter>) -> TlsError {
        let stream = match error {
            HandshakeError::SetupFailure(errors) => return TlsError::OpenSsl(errors),
            HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => stream,
        };
        // The verdict is OK also if the handshake failed before the server had shown a certificate.
        let must_be_trusted = stream.ssl().verify_mode() != SslVerifyMode::NONE;
        let verdict = stream.ssl().verify_result();
        if must_be_trusted && verdict != X509VerifyResult::OK {
            TlsError::Untrusted(verdict)
        } else {
            TlsError::from_ssl(stream.into_error())
        }
    }

    fn from_ssl(error: ssl::Error) -> TlsError {
        if let Some(errors) = error.ssl_error() {
            return TlsError::OpenSsl(errors.clone());
        }
        TlsError::Connection(match error.into_io_error() {
            Ok(cause) => cause.into(),
            Err(_) => unexpected_end(),
        })
    }

    /// Returns the error in ureq's terms. What OpenSSL found wrong becomes an `Other` that holds a [`Failure`], and is
    /// not tried again. A connection that was lost becomes an `Io`, and may be.
    fn into_ureq(self) -> ureq::Error {
        match self {
            TlsError::Untrusted(verdict) => ureq::Error::Other(Box::new(untrusted(verdict))),
            TlsError::OpenSsl(errors) => {
                let first = errors.errors().first();
                let reason = first.and_then(|it| it.reason());
                if reason == Some(UNEXPECTED_EOF) {
                    unexpected_end()
                } else {
                    ureq::Error::Other(Box::new(no_agreement(reason)))
                }
            }
            TlsError::Connection(error) => error,
        }
    }
}

/// For `?`.
impl From<ErrorStack> for TlsError {
    fn from(errors: ErrorStack) -> TlsError {
        TlsError::OpenSsl(errors)
    }
}

fn unexpected_end() -> ureq::Error {
    ureq::Error::Io(ErrorKind::UnexpectedEof.into())
}

/// Returns what the user is told if OpenSSL and the server do not agree.
fn no_agreement(reason: Option<&str>) -> Failure {
    let shown = reason.unwrap_or("no reason given");
    let failure = Failure::new(format!("no TLS with it: {shown}"));
    if reason == Some(WRONG_VERSION_NUMBER) {
        failure.with_hint("is this the port where it speaks https?")
    } else {
        failure
    }
}
