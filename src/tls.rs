//! TLS for ureq, done by OpenSSL, and what getcrt says about servers that it does not trust.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;

use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, HandshakeError};
use openssl::ssl::{Ssl, SslContext, SslStream, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::verify::X509CheckFlags;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers};
use ureq::unversioned::transport::{NextTimeout, Transport, TransportAdapter};

use crate::error::Failure;
use crate::trust::Trust;

// OpenSSL's numbers for what is wrong with a certificate (x509_vfy.h).
const CERT_NOT_YET_VALID: i32 = 9;
const CERT_HAS_EXPIRED: i32 = 10;
const DEPTH_ZERO_SELF_SIGNED_CERT: i32 = 18;
const SELF_SIGNED_CERT_IN_CHAIN: i32 = 19;
const UNABLE_TO_GET_ISSUER_CERT_LOCALLY: i32 = 20;
const UNABLE_TO_VERIFY_LEAF_SIGNATURE: i32 = 21;

/// Connects by `tcp`, and puts TLS over the connection if the URL is https.
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

    /// Puts TLS over a connection. If the quick context refuses the server's certificate, this connects a second
    /// time, and the complete context decides.
    fn connect_tls(
        &self,
        details: &ConnectionDetails,
        connection: Box<dyn Transport>,
    ) -> Result<SslStream<TransportAdapter>, TlsError> {
        let Some(quick) = self.trust.quick() else {
            return handshake(self.trust.complete()?, details, connection);
        };
        match handshake(quick, details, connection) {
            Err(TlsError::Untrusted(_)) => {
                let second = self.tcp.connect(details, None)?;
                let second = second.ok_or(Error::ConnectionFailed)?;
                handshake(self.trust.complete()?, details, second.boxed())
            }
            result => result,
        }
    }
}

impl<C: Connector> Connector for TlsConnector<C> {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, Error> {
        let Some(connection) = self.tcp.connect(details, None)? else {
            return Ok(None);
        };
        // http is spoken by the self-check and on the way to an http proxy.
        if !details.needs_tls() {
            return Ok(Some(connection.boxed()));
        }
        let stream = self.connect_tls(details, connection.boxed())?;
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
    let host = details.uri.host().unwrap_or_default();
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
    ssl.connect(adapter).map_err(TlsError::from)
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

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = match self.stream.ssl_read(self.buffers.input_append_buf()) {
            Ok(amount) => amount,
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => 0,
            Err(error) => return Err(TlsError::from(error).into()),
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
    Connection(Error),
}

impl From<HandshakeError<TransportAdapter>> for TlsError {
    fn from(error: HandshakeError<TransportAdapter>) -> TlsError {
        let stream = match error {
            HandshakeError::SetupFailure(errors) => return TlsError::OpenSsl(errors),
            HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => stream,
        };
        let must_be_trusted = stream.ssl().verify_mode() != SslVerifyMode::NONE;
        let verdict = stream.ssl().verify_result();
        if must_be_trusted && verdict != X509VerifyResult::OK {
            TlsError::Untrusted(verdict)
        } else {
            TlsError::from(stream.into_error())
        }
    }
}

impl From<ssl::Error> for TlsError {
    fn from(error: ssl::Error) -> TlsError {
        if let Some(errors) = error.ssl_error() {
            return TlsError::OpenSsl(errors.clone());
        }
        match error.into_io_error() {
            Ok(cause) => TlsError::Connection(cause.into()),
            Err(_) => TlsError::Connection(Error::Io(ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl From<ErrorStack> for TlsError {
    fn from(errors: ErrorStack) -> TlsError {
        TlsError::OpenSsl(errors)
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        TlsError::Connection(error)
    }
}

impl From<TlsError> for Error {
    /// What would happen again at another try becomes an `Error::Other` that holds a [`Failure`], which
    /// `acme/transport.rs` takes out again.
    fn from(error: TlsError) -> Error {
        match error {
            TlsError::Untrusted(verdict) => Error::Other(Box::new(untrusted(verdict))),
            TlsError::OpenSsl(errors) => openssl_error(&errors),
            TlsError::Connection(error) => error,
        }
    }
}

fn openssl_error(errors: &ErrorStack) -> Error {
    let first = errors.errors().first();
    let reason = first
        .and_then(|it| it.reason())
        .unwrap_or("no reason given");
    let failure = Failure::new(format!("no TLS with it: {reason}"));
    match reason {
        // The server has closed the connection.
        "unexpected eof while reading" => Error::Io(ErrorKind::UnexpectedEof.into()),
        "wrong version number" => Error::Other(Box::new(
            failure.with_hint("is this the port where it speaks https?"),
        )),
        _ => Error::Other(Box::new(failure)),
    }
}

/// Returns what the user is told of a server whose certificate is refused.
fn untrusted(verdict: X509VerifyResult) -> Failure {
    let failure = Failure::new(format!("its TLS certificate is refused: {verdict}"));
    match verdict.as_raw() {
        CERT_NOT_YET_VALID | CERT_HAS_EXPIRED => {
            failure.with_hint("is the clock of this machine right?")
        }
        DEPTH_ZERO_SELF_SIGNED_CERT
        | SELF_SIGNED_CERT_IN_CHAIN
        | UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        | UNABLE_TO_VERIFY_LEAF_SIGNATURE => failure.with_hint(
            "for a private CA, name its root with --ca-bundle; else install ca-certificates",
        ),
        _ => failure,
    }
}
