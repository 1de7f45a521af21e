//! TLS for ureq, by OpenSSL: the system's trust, and OpenSSL's own words where trust is refused.

use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::{env, fmt, fs};

use anyhow::{Context, Result, ensure};
use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, HandshakeError, Ssl, SslContext, SslContextBuilder};
use openssl::ssl::{SslFiletype, SslMethod, SslMode, SslStream, SslVerifyMode, SslVersion};
use openssl::version;
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509VerifyResult};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers};
use ureq::unversioned::transport::{NextTimeout, Transport, TransportAdapter};

use crate::failure::Failure;

/// The cure where the chain leads to a root that is not known here.
const NAME_THE_ROOT: &str =
    "for a private CA, name its root with --ca-bundle; else install ca-certificates";

/// Where systems keep all their roots in one file: Debian, Fedora, openSUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Puts TLS over the connections that the connector `tcp` makes.
#[derive(Debug)]
pub struct TlsConnector<C> {
    tcp: C,
    more_roots: Vec<X509>,
    /// Trusts what is found by name in OpenSSL's directory. To read all of the system's roots, as
    /// `full` does, costs more than the rest of a run, and is hardly ever needed.
    quick: SslContext,
    /// Decides in the place of `quick`, once that has refused a certificate.
    full: OnceLock<SslContext>,
}

impl<C> TlsConnector<C> {
    /// A connector that trusts the system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR` too) and the
    /// PEM certificates in `more_roots`.
    ///
    /// # Errors
    /// `more_roots` holds no certificates, or damaged ones.
    pub fn trusting(more_roots: Option<&[u8]>, tcp: C) -> Result<TlsConnector<C>> {
        let pem = more_roots.unwrap_or_default();
        let roots = X509::stack_from_pem(pem).context("a certificate in it is damaged")?;
        let is_empty = more_roots.is_some() && roots.is_empty();
        ensure!(!is_empty, "no PEM certificate in it");
        let mut quick = context(SslVerifyMode::PEER, &roots)?;
        match roots_of_openssl() {
            None => quick.set_default_verify_paths()?,
            Some([_, folder]) => {
                let store = quick.cert_store_mut().add_lookup(X509Lookup::hash_dir())?;
                store.add_dir(&folder, SslFiletype::PEM)?;
            }
        }
        Ok(TlsConnector {
            tcp,
            more_roots: roots,
            quick: quick.build(),
            full: OnceLock::new(),
        })
    }

    /// A connector that verifies nothing, for the self-check: validators do not either, or http-01
    /// could not replace a bad certificate that a redirect to https meets.
    ///
    /// # Errors
    /// OpenSSL's own.
    pub fn trusting_anybody(tcp: C) -> Result<TlsConnector<C>, ErrorStack> {
        Ok(TlsConnector {
            tcp,
            more_roots: Vec::new(),
            quick: context(SslVerifyMode::NONE, &[])?.build(),
            full: OnceLock::new(),
        })
    }

    fn full(&self) -> Result<&SslContext, ErrorStack> {
        if self.full.get().is_none() {
            let mut full = context(SslVerifyMode::PEER, &self.more_roots)?;
            full.set_default_verify_paths()?;
            // An OpenSSL that is linked in looks where its builder had it, mostly in vain.
            let is_empty =
                |path| fs::read_dir(path).map_or(true, |mut files| files.next().is_none());
            if let Some([file, folder]) = roots_of_openssl()
                && !fs::exists(file).unwrap_or(false)
                && is_empty(folder)
            {
                BUNDLES.iter().any(|path| full.set_ca_file(path).is_ok());
            }
            let _ = self.full.set(full.build());
        }
        Ok(self.full.get().unwrap_or(&self.quick))
    }
}

/// The file and the directory of roots that OpenSSL is built for, unless the user chose others.
fn roots_of_openssl() -> Option<[String; 2]> {
    let is_chosen = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|name| env::var_os(name).is_some());
    let home = version::dir().split('"').nth(1)?;
    let roots = ["cert.pem", "certs"].map(|name| format!("{home}/{name}"));
    Some(roots).filter(|_| !is_chosen.contains(&true))
}

/// What all TLS here has in common. `SslConnector` would read the system's roots every time.
fn context(verify: SslVerifyMode, roots: &[X509]) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_cipher_list("DEFAULT:!aNULL:!eNULL:!3DES:!PSK:!SRP")?;
    context.set_mode(SslMode::AUTO_RETRY | SslMode::RELEASE_BUFFERS);
    context.set_verify(verify);
    for root in roots {
        context.cert_store_mut().add_cert(root.clone())?;
    }
    Ok(context)
}

type Connected = Result<Option<Box<dyn Transport>>, Error>;
type Handshake = Result<SslStream<TransportAdapter>, HandshakeError<TransportAdapter>>;

impl<C: Connector> Connector for TlsConnector<C> {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Connected {
        let connect = || Ok::<_, Error>(self.tcp.connect(details, None)?.map(Transport::boxed));
        let Some(transport) = connect()? else {
            return Ok(None);
        };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(transport));
        }
        let context = self.full.get().unwrap_or(&self.quick);
        let mut stream = handshake(context, details, transport);
        if let Err(error) = &stream
            && distrust(error).is_some()
            && self.full.get().is_none()
            && let Ok(Some(transport)) = connect()
        {
            let context = self.full().map_err(|errors| from_openssl(&errors))?;
            stream = handshake(context, details, transport);
        }
        let stream = stream.map_err(from_handshake)?;
        let config = details.config;
        let (input, output) = (config.input_buffer_size(), config.output_buffer_size());
        let buffers = LazyBuffers::new(input, output);
        Ok(Some(Box::new(TlsTransport { buffers, stream })))
    }
}

/// Greets the server by its name, and verifies that its certificate is for this name.
fn handshake(
    context: &SslContext,
    details: &ConnectionDetails,
    transport: Box<dyn Transport>,
) -> Handshake {
    let mut adapter = TransportAdapter::new(transport, details.current_time.clone());
    adapter.set_timeout(details.timeout);
    let host = details.uri.host().unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    let mut ssl = Ssl::new(context)?;
    match host.parse::<IpAddr>() {
        Ok(address) => ssl.param_mut().set_ip(address)?,
        Err(_) => {
            ssl.set_hostname(host)?;
            let flags = X509CheckFlags::NO_PARTIAL_WILDCARDS;
            ssl.param_mut().set_hostflags(flags);
            ssl.param_mut().set_host(host)?;
        }
    }
    ssl.connect(adapter)
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

/// Why the server's certificate was refused, if that is the error.
fn distrust<S>(error: &HandshakeError<S>) -> Option<X509VerifyResult> {
    let HandshakeError::Failure(half) = error else {
        return None;
    };
    let is_verified = half.ssl().verify_mode() != SslVerifyMode::NONE;
    let result = half.ssl().verify_result();
    Some(result).filter(|result| is_verified && *result != X509VerifyResult::OK)
}

fn from_handshake<S>(error: HandshakeError<S>) -> Error {
    match (distrust(&error), error) {
        (Some(reason), _) => distrusted(reason),
        (None, HandshakeError::SetupFailure(errors)) => from_openssl(&errors),
        (None, HandshakeError::Failure(half) | HandshakeError::WouldBlock(half)) => {
            from_ssl(half.into_error())
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
