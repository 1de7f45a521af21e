//! TLS for ureq, done by OpenSSL: which servers getcrt trusts, and what it says about the others.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fmt, fs};

use anyhow::{Context, Result, ensure};
use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, HandshakeError, MidHandshakeSslStream};
use openssl::ssl::{Ssl, SslContext, SslContextBuilder};
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

/// Creates a context with the settings that all TLS here has in common.
fn new_context(verify: SslVerifyMode, roots: &[X509]) -> Result<SslContextBuilder, ErrorStack> {
    // The crate's SslConnector is not used: it would read all of the system's roots at once.
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    // For TLS 1.2: no ciphers without authentication or encryption, no weak ones, none with shared secrets.
    context.set_cipher_list("DEFAULT:!aNULL:!eNULL:!3DES:!PSK:!SRP")?;
    // Blocking reads return data only, and idle connections keep no buffers.
    context.set_mode(SslMode::AUTO_RETRY | SslMode::RELEASE_BUFFERS);
    context.set_verify(verify);
    for root in roots {
        context.cert_store_mut().add_cert(root.clone())?;
    }
    Ok(context)
}

/// Returns the directory in which OpenSSL finds a root by the hash of its name, if the system has one and
/// the user has not chosen other roots.
fn hashed_roots() -> Option<PathBuf> {
    let directory = openssl_home().join("certs");
    if !are_roots_chosen_by_user() && has_hash_links(&directory) {
        Some(directory)
    } else {
        None
    }
}

fn are_roots_chosen_by_user() -> bool {
    env::var_os("SSL_CERT_FILE").is_some() || env::var_os("SSL_CERT_DIR").is_some()
}

/// Adds all roots of the system, or those that the user chose. (OpenSSL reads the two variables itself. For
/// one that is not set, it takes its default.)
fn add_all_roots(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    context.set_default_verify_paths()?;
    let home = openssl_home();
    let has_defaults = home.join("cert.pem").exists() || has_hash_links(&home.join("certs"));
    if !are_roots_chosen_by_user() && !has_defaults {
        // OpenSSL looks for roots where it was built to. One that is linked in statically may have been built
        // for another system, so the places of this one are tried.
        for bundle in BUNDLES {
            if context.set_ca_file(bundle).is_ok() {
                break;
            }
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

/// Connects by `tcp`, and puts TLS over the connection if the URL is https.
///
/// To read all roots of the system costs more CPU time than the rest of a run. So `context` looks up a root by
/// the hash of its name, where the system has a directory for that. That directory may lack a root which
/// somebody has added to the system's bundle only: then, and only then, the bundle is read and the server is
/// asked once more.
#[derive(Debug)]
pub struct TlsConnector<C> {
    tcp: C,
    context: SslContext,
    bundle: Option<Bundle>,
}

/// What decides after [`TlsConnector::context`] has missed a root.
#[derive(Debug)]
struct Bundle {
    more_roots: Vec<X509>,
    /// Trusts all roots. Made when it is needed.
    context: OnceLock<SslContext>,
}

impl<C> TlsConnector<C> {
    /// Creates a connector that trusts servers whose certificates lead to a root of the system's (or to one
    /// that `SSL_CERT_FILE` or `SSL_CERT_DIR` names), or to one in the PEM file `ca_bundle`.
    ///
    /// # Errors
    /// `ca_bundle` holds no certificate or a damaged one, or OpenSSL cannot be set up.
    pub fn verifying(ca_bundle: Option<&Path>, tcp: C) -> Result<TlsConnector<C>> {
        let more_roots = match ca_bundle {
            Some(path) => files::load(path, |pem, _| parse_roots(pem))?,
            None => Vec::new(),
        };
        let mut context = new_context(SslVerifyMode::PEER, &more_roots)?;
        let bundle = match hashed_roots() {
            Some(directory) => {
                let lookup = context
                    .cert_store_mut()
                    .add_lookup(X509Lookup::hash_dir())?;
                lookup.add_dir(&directory.to_string_lossy(), SslFiletype::PEM)?;
                Some(Bundle {
                    more_roots,
                    context: OnceLock::new(),
                })
            }
            None => {
                add_all_roots(&mut context)?;
                None
            }
        };
        Ok(TlsConnector {
            tcp,
            context: context.build(),
            bundle,
        })
    }

    /// Creates a connector that accepts every certificate. It is for the self-check: http-01 validators accept
    /// every certificate, too, or one that has expired behind a redirect to https could never be replaced.
    ///
    /// # Errors
    /// OpenSSL cannot be set up.
    pub fn accepting(tcp: C) -> Result<TlsConnector<C>, ErrorStack> {
        Ok(TlsConnector {
            tcp,
            context: new_context(SslVerifyMode::NONE, &[])?.build(),
            bundle: None,
        })
    }
}

impl Bundle {
    fn context(&self) -> Result<&SslContext, ErrorStack> {
        if let Some(context) = self.context.get() {
            return Ok(context);
        }
        let mut builder = new_context(SslVerifyMode::PEER, &self.more_roots)?;
        add_all_roots(&mut builder)?;
        Ok(self.context.get_or_init(|| builder.build()))
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
        // The self-check speaks http, and so does the way to an http proxy.
        if !details.needs_tls() {
            return Ok(Some(connection.boxed()));
        }
        let first_try = handshake(&self.context, details, connection.boxed());
        let handshaken = match (first_try, &self.bundle) {
            (Err(error), Some(bundle)) if misses_root(&error) => {
                let Some(second_connection) = self.tcp.connect(details, None)? else {
                    return Ok(None);
                };
                let context = bundle.context().map_err(|errors| openssl_error(&errors))?;
                handshake(context, details, second_connection.boxed())
            }
            (result, _) => result,
        };
        let stream = handshaken.map_err(handshake_error)?;
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
            match refusal(&stream) {
                Some(verdict) => certificate_error(verdict),
                None => ssl_error(stream.into_error()),
            }
        }
    }
}

/// Returns why the server's certificate was refused, if it was.
fn refusal(stream: &MidHandshakeSslStream<TransportAdapter>) -> Option<X509VerifyResult> {
    let ssl = stream.ssl();
    let must_be_trusted = ssl.verify_mode() != SslVerifyMode::NONE;
    let verdict = ssl.verify_result();
    if must_be_trusted && verdict != X509VerifyResult::OK {
        Some(verdict)
    } else {
        None
    }
}

/// Whether the handshake failed because the server's certificate leads to no root that is known.
fn misses_root(error: &HandshakeError<TransportAdapter>) -> bool {
    match error {
        HandshakeError::Failure(stream) => refusal(stream).is_some_and(is_missing_root),
        HandshakeError::SetupFailure(_) | HandshakeError::WouldBlock(_) => false,
    }
}

fn is_missing_root(verdict: X509VerifyResult) -> bool {
    matches!(
        verdict.as_raw(),
        DEPTH_ZERO_SELF_SIGNED_CERT
            | SELF_SIGNED_CERT_IN_CHAIN
            | UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | UNABLE_TO_VERIFY_LEAF_SIGNATURE
    )
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
    let is_about_time = matches!(verdict.as_raw(), CERT_NOT_YET_VALID | CERT_HAS_EXPIRED);
    if is_about_time {
        permanent(failure.with_hint("is the clock of this machine right?"))
    } else if is_missing_root(verdict) {
        permanent(failure.with_hint(
            "for a private CA, name its root with --ca-bundle; else install ca-certificates",
        ))
    } else {
        permanent(failure)
    }
}

/// Wraps a failure that would happen again at another try. `acme/transport.rs` unwraps it.
fn permanent(failure: Failure) -> Error {
    Error::Other(Box::new(failure))
}
