//! TLS for ureq, by OpenSSL: the system's trust, and OpenSSL's own words where trust is refused.

use std::fmt;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, ensure};
use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, HandshakeError};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::{X509, X509VerifyResult};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers};
use ureq::unversioned::transport::{NextTimeout, Transport, TransportAdapter};

use crate::failure::Failure;

/// The cure where the chain leads to a root that is not known here.
const NAME_THE_ROOT: &str =
    "for a private CA, name its root with --ca-bundle; else install ca-certificates";

/// Puts TLS over the connection that the connector before it in ureq's chain has made.
#[derive(Debug)]
pub struct TlsConnector(SslConnector);

impl TlsConnector {
    /// A connector that trusts the system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR` too) and the
    /// PEM certificates in `more_roots`.
    ///
    /// # Errors
    /// `more_roots` holds no certificates, or damaged ones.
    pub fn trusting(more_roots: Option<&[u8]>) -> Result<TlsConnector> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        if let Some(pem) = more_roots {
            let roots = X509::stack_from_pem(pem).context("a certificate in it is damaged")?;
            ensure!(!roots.is_empty(), "no PEM certificate in it");
            for root in roots {
                builder.cert_store_mut().add_cert(root)?;
            }
        }
        Ok(TlsConnector(builder.build()))
    }

    /// A connector that verifies nothing, for the self-check: validators do not either, or http-01
    /// could not replace a bad certificate that a redirect to https meets.
    ///
    /// # Errors
    /// OpenSSL's own.
    pub fn trusting_anybody() -> Result<TlsConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_verify(SslVerifyMode::NONE);
        Ok(TlsConnector(builder.build()))
    }
}

type Connected = Result<Option<Box<dyn Transport>>, Error>;

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Connected {
        let Some(transport) = chained.map(Transport::boxed) else {
            return Ok(None);
        };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(transport));
        }
        let mut adapter = TransportAdapter::new(transport, details.current_time.clone());
        adapter.set_timeout(details.timeout);
        let mut tls = self.0.configure().map_err(|errors| from_openssl(&errors))?;
        let is_verifying = self.0.context().verify_mode() != SslVerifyMode::NONE;
        tls.set_verify_hostname(is_verifying);
        let host = details.uri.host().unwrap_or_default();
        let stream = tls.connect(host.trim_matches(['[', ']']), adapter);
        let stream = stream.map_err(|error| from_handshake(error, is_verifying))?;
        let config = details.config;
        let (input, output) = (config.input_buffer_size(), config.output_buffer_size());
        let buffers = LazyBuffers::new(input, output);
        Ok(Some(Box::new(TlsTransport { buffers, stream })))
    }
}

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
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = match self.stream.ssl_read(self.buffers.input_append_buf()) {
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => 0,
            result => result.map_err(from_ssl)?,
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

fn from_handshake<S>(error: HandshakeError<S>, is_verifying: bool) -> Error {
    match error {
        HandshakeError::SetupFailure(errors) => from_openssl(&errors),
        HandshakeError::Failure(half) | HandshakeError::WouldBlock(half) => {
            match half.ssl().verify_result() {
                reason if is_verifying && reason != X509VerifyResult::OK => distrusted(reason),
                _ => from_ssl(half.into_error()),
            }
        }
    }
}

/// The error below TLS (a timeout, a reset) where there is one, for it says more than OpenSSL can.
fn from_ssl(error: ssl::Error) -> Error {
    match error.ssl_error() {
        Some(errors) => from_openssl(errors),
        None => {
            let lower = error.into_io_error();
            lower.unwrap_or(ErrorKind::UnexpectedEof.into()).into()
        }
    }
}

fn from_openssl(errors: &ErrorStack) -> Error {
    let reason = errors.errors().first().and_then(|error| error.reason());
    let hint = match reason {
        Some("unexpected eof while reading") => return Error::Io(ErrorKind::UnexpectedEof.into()),
        Some("wrong version number") => Some("is this the port where it speaks https?"),
        _ => None,
    };
    let reason = reason.unwrap_or("no reason given");
    refused(format!("no TLS with it: {reason}"), hint)
}

fn distrusted(reason: X509VerifyResult) -> Error {
    let hint = match reason.as_raw() {
        9 | 10 => Some("is the clock of this machine right?"),
        18..=21 => Some(NAME_THE_ROOT),
        _ => None,
    };
    refused(format!("its TLS certificate is refused: {reason}"), hint)
}

/// Why there is no TLS with a server; another try would end the same way.
fn refused(line: String, hint: Option<&str>) -> Error {
    Error::Other(Box::new(Failure::new(line).hint(hint)))
}
