//! Which servers getcrt trusts in TLS, and what the user is told of others.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode};
use openssl::ssl::{SslVerifyMode, SslVersion};
use openssl::version;
use openssl::x509::store::X509Lookup;
use openssl::x509::{X509, X509VerifyResult};

use crate::deadline::Deadline;
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

/// Whom to trust.
#[derive(Debug)]
pub enum Trust {
    /// Servers whose certificate leads to one of these roots.
    Roots(Roots),
    /// Every server. This is for the self-check: validators of http-01 do so, too. Otherwise an expired
    /// certificate could never be replaced where the web server redirects them to https.
    Anybody(OnceLock<SslContext>),
}

/// Roots, in two OpenSSL contexts.
///
/// Reading all roots of the system costs more CPU time than the rest of a run. So the quick context reads none, but
/// looks up the one that it needs in OpenSSL's directory of roots. That directory may be missing, or may not have
/// every root: an administrator may have added one to the system's bundle only. So what the quick context refuses
/// is decided by the complete one, which has read all roots.
#[derive(Debug)]
pub struct Roots {
    /// `None` if the user has chosen the roots, or OpenSSL does not say where its directory is.
    quick: Option<SslContext>,
    /// Built when it is needed. From then on it is used alone.
    complete: OnceLock<SslContext>,
    /// The roots of `--ca-bundle`. Both contexts have them.
    more_roots: Vec<X509>,
}

impl Trust {
    /// Trusts the system's roots and the PEM certificates in the file `ca_bundle`. `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// replace the system's bundle and the system's directory of roots. If only one is set, the other stays in force,
    /// as in every program that uses OpenSSL.
    ///
    /// # Errors
    /// `ca_bundle` holds no certificate or a damaged one, or OpenSSL cannot be set up.
    pub fn roots(ca_bundle: Option<&Path>, deadline: &Deadline) -> Result<Trust> {
        let more_roots = match ca_bundle {
            Some(path) => files::load("--ca-bundle", path, deadline, |pem, _| parse_roots(pem))?,
            None => Vec::new(),
        };
        let quick = match openssl_home() {
            Some(home) if !are_roots_chosen_by_user() => {
                let mut builder = new_context(SslVerifyMode::PEER, &more_roots)?;
                let lookup = builder
                    .cert_store_mut()
                    .add_lookup(X509Lookup::hash_dir())?;
                let directory = home.join("certs");
                lookup.add_dir(&directory.to_string_lossy(), SslFiletype::PEM)?;
                Some(builder.build())
            }
            _ => None,
        };
        Ok(Trust::Roots(Roots {
            quick,
            complete: OnceLock::new(),
            more_roots,
        }))
    }

    /// Trusts every server.
    pub fn without_verification() -> Trust {
        Trust::Anybody(OnceLock::new())
    }

    /// Returns the context to try first, if it is another one than the [`complete`](Trust::complete) one.
    pub fn quick(&self) -> Option<&SslContext> {
        match self {
            Trust::Roots(roots) if roots.complete.get().is_none() => roots.quick.as_ref(),
            Trust::Roots(_) | Trust::Anybody(_) => None,
        }
    }

    /// Returns the context that decides in the end. It is built when it is needed first.
    ///
    /// # Errors
    /// OpenSSL cannot be set up.
    pub fn complete(&self) -> Result<&SslContext, ErrorStack> {
        let complete = match self {
            Trust::Roots(roots) => &roots.complete,
            Trust::Anybody(complete) => complete,
        };
        if let Some(context) = complete.get() {
            return Ok(context);
        }
        let builder = match self {
            Trust::Roots(roots) => {
                let mut builder = new_context(SslVerifyMode::PEER, &roots.more_roots)?;
                add_all_roots(&mut builder)?;
                builder
            }
            Trust::Anybody(_) => new_context(SslVerifyMode::NONE, &[])?,
        };
        Ok(complete.get_or_init(|| builder.build()))
    }
}

/// Creates a context with the settings that all TLS here has in common.
fn new_context(verify: SslVerifyMode, roots: &[X509]) -> Result<SslContextBuilder, ErrorStack> {
    // The crate's SslConnector is not used: it would read all of the system's roots at once.
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    // For TLS 1.2: OpenSSL's defaults without 3DES, pre-shared keys (PSK) and passwords (SRP).
    context.set_cipher_list("DEFAULT:!aNULL:!eNULL:!3DES:!PSK:!SRP")?;
    // AUTO_RETRY: a read returns only when it has data for us. RELEASE_BUFFERS: idle connections keep none.
    context.set_mode(SslMode::AUTO_RETRY | SslMode::RELEASE_BUFFERS);
    context.set_verify(verify);
    for root in roots {
        context.cert_store_mut().add_cert(root.clone())?;
    }
    Ok(context)
}

/// Adds the roots that the user has chosen, or all roots of the system.
fn add_all_roots(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR itself. For one that is not set, it takes its own default.
    context.set_default_verify_paths()?;
    let has_default_bundle = openssl_home().is_some_and(|home| home.join("cert.pem").exists());
    if !are_roots_chosen_by_user() && !has_default_bundle {
        // OpenSSL's default path was fixed when it was built. One that is linked in statically may come from a
        // system with other paths.
        for bundle in BUNDLES {
            if context.set_ca_file(bundle).is_ok() {
                break;
            }
        }
    }
    Ok(())
}

fn are_roots_chosen_by_user() -> bool {
    env::var_os("SSL_CERT_FILE").is_some() || env::var_os("SSL_CERT_DIR").is_some()
}

/// Returns OpenSSL's own directory, if it has one. The version string is `OPENSSLDIR: "/usr/lib/ssl"`.
fn openssl_home() -> Option<PathBuf> {
    let quoted = version::dir().split('"').nth(1)?;
    let home = PathBuf::from(quoted);
    if home.is_absolute() { Some(home) } else { None }
}

fn parse_roots(pem: &[u8]) -> Result<Vec<X509>> {
    files::check_not_encrypted(pem)?;
    let roots = X509::stack_from_pem(pem)
        .ok()
        .context("a certificate in it is damaged")?;
    ensure!(!roots.is_empty(), "no PEM certificate in it");
    Ok(roots)
}

/// Returns what the user is told of a server whose certificate is refused.
pub fn untrusted(verdict: X509VerifyResult) -> Failure {
    let failure = Failure::new(format!("its TLS certificate is refused: {verdict}"));
    match verdict.as_raw() {
        CERT_NOT_YET_VALID | CERT_HAS_EXPIRED => {
            failure.with_hint("check the clock of this machine")
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
