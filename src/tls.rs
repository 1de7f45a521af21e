//! TLS for ureq, done by OpenSSL: which servers getcrt trusts, and what it says of those that it does not.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
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

use crate::error::Failure;
use crate::files;

/// The files in which Debian, Fedora, openSUSE and Alpine keep all their roots.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

// OpenSSL's numbers for what is wrong with a certificate (x509_vfy.h).
const CERT_NOT_YET_VALID: i32 = 9;
const CERT_HAS_EXPIRED: i32 = 10;
const DEPTH_ZERO_SELF_SIGNED_CERT: i32 = 18;
const SELF_SIGNED_CERT_IN_CHAIN: i32 = 19;
const UNABLE_TO_GET_ISSUER_CERT_LOCALLY: i32 = 20;
const UNABLE_TO_VERIFY_LEAF_SIGNATURE: i32 = 21;

/// Creates a context that trusts servers whose certificates lead to a root of the system's (or to one that
/// `SSL_CERT_FILE` or `SSL_CERT_DIR` names), or to one in the PEM file `ca_bundle`.
///
/// # Errors
/// `ca_bundle` holds no certificate or a damaged one, or OpenSSL cannot be set up.
pub fn verifying_context(ca_bundle: Option<&Path>) -> Result<SslContext> {
    let mut context = new_context(SslVerifyMode::PEER)?;
    trust_the_system(&mut context)?;
    if let Some(path) = ca_bundle {
        for root in files::load(path, |pem, _| parse_roots(pem))? {
            context.cert_store_mut().add_cert(root)?;
        }
    }
    Ok(context.build())
}

/// Creates a context that accepts every certificate. It is for the self-check: http-01 validators accept
/// them too, or a bad certificate behind a redirect to https could never be replaced.
///
/// # Errors
/// OpenSSL cannot be set up.
pub fn accepting_context() -> Result<SslContext, ErrorStack> {
    Ok(new_context(SslVerifyMode::NONE)?.build())
}

fn new_context(verify: SslVerifyMode) -> Result<SslContextBuilder, ErrorStack> {
    // The crate's SslConnector is not used: it would read all of the system's roots at once.
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    // For TLS 1.2: no ciphers without authentication or encryption, no weak ones, none with shared secrets.
    context.set_cipher_list("DEFAULT:!aNULL:!eNULL:!3DES:!PSK:!SRP")?;
    // Blocking reads return data only, and idle connections keep no buffers.
    context.set_mode(SslMode::AUTO_RETRY | SslMode::RELEASE_BUFFERS);
    context.set_verify(verify);
    Ok(context)
}

/// Adds the roots of the system, or those that the user chose.
fn trust_the_system(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    let is_chosen_by_user =
        env::var_os("SSL_CERT_FILE").is_some() || env::var_os("SSL_CERT_DIR").is_some();
    if is_chosen_by_user {
        // OpenSSL reads the two variables itself. For one that is not set, it takes its default.
        return context.set_default_verify_paths();
    }
    let home = openssl_home();
    let hashed_roots = home.join("certs");
    if has_hash_links(&hashed_roots) {
        // OpenSSL will look up a root by the hash of its name when it needs it. To read all roots from a
        // bundle now would cost more CPU time than the rest of the run.
        let lookup = context
            .cert_store_mut()
            .add_lookup(X509Lookup::hash_dir())?;
        return lookup.add_dir(&hashed_roots.to_string_lossy(), SslFiletype::PEM);
    }
    if home.join("cert.pem").exists() {
        // This reads that bundle.
        return context.set_default_verify_paths();
    }
    // OpenSSL's own directory is empty. It is if OpenSSL is linked in statically and was built elsewhere.
    for bundle in BUNDLES {
        if context.set_ca_file(bundle).is_ok() {
            break;
        }
    }
    Ok(())
}

/// Returns the directory for which OpenSSL was built. It says `OPENSSLDIR: "/usr/lib/ssl"`.
fn openssl_home() -> PathBuf {
    let quoted = version::dir().split('"').nth(1);
    PathBuf::from(quoted.unwrap_or_default())
}

/// Whether `directory` holds certificates under the hash of their name, such as `5f15c80c.0`.
fn has_hash_links(directory: &Path) -> bool {
    let is_hash_link = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.split_once('.').is_some_and(|(hash, number)| {
            hash.len() == 8
                && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                && number.parse::<u32>().is_ok()
        })
    };
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .flatten()
            .any(|entry| is_hash_link(&entry.file_name())),
        Err(_) => false,
    }
}

fn parse_roots(pem: &[u8]) -> Result<Vec<X509>> {
    let roots = X509::stack_from_pem(pem).context("a certificate in it is damaged")?;
    ensure!(!roots.is_empty(), "no PEM certificate in it");
    Ok(roots)
}

/// Makes connections by `tcp` and puts TLS over them if the URL is https.
#[derive(Debug)]
pub struct TlsConnector<C> {
    context: SslContext,
    tcp: C,
}

impl<C> TlsConnector<C> {
    /// Creates a connector.
    pub fn new(context: SslContext, tcp: C) -> TlsConnector<C> {
        TlsConnector { context, tcp }
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
        // Only the self-check speaks http.
        if !details.needs_tls() {
            return Ok(Some(connection.boxed()));
        }
        let stream =
            handshake(&self.context, details, connection.boxed()).map_err(handshake_error)?;
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
) -> Result<SslStream<TransportAdapter>, HandshakeError<TransportAdapter>> {
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
    ssl.connect(adapter)
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
            Err(error) => return Err(ssl_error(error)),
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

/// Says why there is no TLS connection. What OpenSSL has found wrong with the server, first of all with its
/// certificate, is an `Error::Other` and is not tried again; what has happened to the connection below is an
/// `Error::Io`, which is.
fn handshake_error(error: HandshakeError<TransportAdapter>) -> Error {
    match error {
        HandshakeError::SetupFailure(errors) => openssl_error(&errors),
        HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => {
            let must_be_trusted = stream.ssl().verify_mode() != SslVerifyMode::NONE;
            let verdict = stream.ssl().verify_result();
            if must_be_trusted && verdict != X509VerifyResult::OK {
                certificate_error(verdict)
            } else {
                ssl_error(stream.into_error())
            }
        }
    }
}

/// Returns OpenSSL's own error, or else that of the connection below TLS, such as a timeout or a reset.
fn ssl_error(error: ssl::Error) -> Error {
    if let Some(errors) = error.ssl_error() {
        return openssl_error(errors);
    }
    match error.into_io_error() {
        Ok(cause) => cause.into(),
        Err(_) => Error::Io(ErrorKind::UnexpectedEof.into()),
    }
}

fn openssl_error(errors: &ErrorStack) -> Error {
    let first_reason = errors.errors().first().and_then(|error| error.reason());
    let reason = first_reason.unwrap_or("no reason given");
    let failure = Failure::new(format!("no TLS with it: {reason}"));
    match reason {
        "unexpected eof while reading" => Error::Io(ErrorKind::UnexpectedEof.into()),
        "wrong version number" => {
            permanent(failure.with_hint("is this the port where it speaks https?"))
        }
        _ => permanent(failure),
    }
}

/// Returns the error for a server whose certificate is refused.
fn certificate_error(verdict: X509VerifyResult) -> Error {
    let failure = Failure::new(format!("its TLS certificate is refused: {verdict}"));
    permanent(match verdict.as_raw() {
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
    })
}

/// Wraps a failure that would happen again at another try. `acme/transport.rs` unwraps it.
fn permanent(failure: Failure) -> Error {
    Error::Other(Box::new(failure))
}
