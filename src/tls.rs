//! TLS for ureq, by OpenSSL: the system's trust, and OpenSSL's own words where trust is refused.

use std::fmt;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, ensure};
use openssl::error::ErrorStack;
use openssl::ssl::SslVerifyMode;
use openssl::ssl::{self, ErrorCode, HandshakeError, SslConnector, SslMethod, SslStream};
use openssl::x509::{X509, X509VerifyResult};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers};
use ureq::unversioned::transport::{NextTimeout, Transport, TransportAdapter};

/// Puts TLS over the connection that the connector before it in ureq's chain has made.
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

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Box<dyn Transport>>, Error> {
        let Some(transport) = chained else {
            return Ok(None);
        };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Box::new(transport)));
        }
        let mut adapter = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        adapter.set_timeout(details.timeout);
        let mut tls = self.0.configure().map_err(|errors| from_openssl(&errors))?;
        tls.set_verify_hostname(self.0.context().verify_mode() != SslVerifyMode::NONE);
        let host = details.uri.host().unwrap_or_default();
        let stream = tls
            .connect(host.trim_matches(['[', ']']), adapter)
            .map_err(|error| match error {
                HandshakeError::SetupFailure(errors) => from_openssl(&errors),
                HandshakeError::Failure(middle) | HandshakeError::WouldBlock(middle) => {
                    match middle.ssl().verify_result() {
                        X509VerifyResult::OK => from_ssl(middle.into_error()),
                        reason => Error::Other(Box::new(Refused::Certificate(reason))),
                    }
                }
            })?;
        let (input, output) = (
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Box::new(TlsTransport {
            buffers: LazyBuffers::new(input, output),
            stream,
        })))
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

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

/// Why there is no TLS with a server; another try would end the same way.
#[derive(Debug)]
pub enum Refused {
    /// Its certificate is not trusted.
    Certificate(X509VerifyResult),
    /// It does not speak TLS as we do, in OpenSSL's words.
    Protocol(&'static str),
}

impl Refused {
    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Refused::Certificate(reason) if [9, 10].contains(&reason.as_raw()) => {
                "is the clock of this machine right?"
            }
            Refused::Certificate(reason) if (18..=21).contains(&reason.as_raw()) => {
                "for a private CA, name its root with --ca-bundle; else install ca-certificates"
            }
            Refused::Protocol("wrong version number") => "is this the port where it speaks https?",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Certificate(reason) => write!(f, "its TLS certificate is refused: {reason}"),
            Refused::Protocol(reason) => write!(f, "no TLS with it: {reason}"),
        }
    }
}

impl std::error::Error for Refused {}

/// The error below TLS (a timeout, a reset) where there is one, for it says more than OpenSSL can.
fn from_ssl(error: ssl::Error) -> Error {
    match error.ssl_error() {
        Some(errors) => from_openssl(errors),
        None => error
            .into_io_error()
            .unwrap_or(ErrorKind::UnexpectedEof.into())
            .into(),
    }
}

fn from_openssl(errors: &ErrorStack) -> Error {
    match errors.errors().first().and_then(|error| error.reason()) {
        Some("unexpected eof while reading") => Error::Io(ErrorKind::UnexpectedEof.into()),
        reason => Error::Other(Box::new(Refused::Protocol(
            reason.unwrap_or("no reason given"),
        ))),
    }
}
