//! Which servers getcrt trusts in TLS.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode};
use openssl::ssl::{SslVerifyMode, SslVersion};
use openssl::version;
use openssl::x509::X509;
use openssl::x509::store::X509Lookup;

use crate::files;

/// The files in which Debian, Fedora, openSUSE and Alpine keep all their roots.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to trust, as OpenSSL contexts.
///
/// Reading all roots of the system costs more CPU time than the rest of a run. So there is a quick context, which
/// looks up roots in OpenSSL's directory of roots, by the hash of their names. That directory may lack a root,
/// or have an older one: some systems have no such directory, and somebody may have added a root to the
/// system's bundle only. So what the quick context refuses is decided by a complete one, which has read all roots.
#[derive(Debug)]
pub enum Trust {
    /// Certificates that lead to one of these roots are trusted.
    Roots {
        /// `None` if the user chose the roots.
        quick: Option<SslContext>,
        /// Made when it is needed. From then on the quick one is not used any more.
        complete: OnceLock<SslContext>,
        /// The roots that the user has added. Both contexts have them.
        more_roots: Vec<X509>,
    },
    /// Every certificate is trusted.
    Anybody(SslContext),
}

impl Trust {
    /// Trusts the system's roots (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name) and the PEM
    /// certificates in the file `ca_bundle`.
    ///
    /// # Errors
    /// `ca_bundle` holds no certificate or a damaged one, or OpenSSL cannot be set up.
    pub fn in_roots(ca_bundle: Option<&Path>) -> Result<Trust> {
        let more_roots = match ca_bundle {
            Some(path) => files::load(path, |pem, _| parse_roots(pem))?,
            None => Vec::new(),
        };
        let quick = if are_roots_chosen_by_user() {
            None
        } else {
            let mut builder = new_context(SslVerifyMode::PEER, &more_roots)?;
            let lookup = builder
                .cert_store_mut()
                .add_lookup(X509Lookup::hash_dir())?;
            let directory = openssl_home().join("certs");
            lookup.add_dir(&directory.to_string_lossy(), SslFiletype::PEM)?;
            Some(builder.build())
        };
        Ok(Trust::Roots {
            quick,
            complete: OnceLock::new(),
            more_roots,
        })
    }

    /// Trusts every certificate. This is for the self-check: validators of http-01 do so, too. Otherwise an
    /// expired certificate could never be replaced where the web server redirects them to https.
    ///
    /// # Errors
    /// OpenSSL cannot be set up.
    pub fn in_anybody() -> Result<Trust, ErrorStack> {
        let context = new_context(SslVerifyMode::NONE, &[])?.build();
        Ok(Trust::Anybody(context))
    }

    /// Returns the context to try first. `None` if there is no quick one, or the complete one is at hand.
    pub fn quick(&self) -> Option<&SslContext> {
        match self {
            Trust::Roots {
                quick, complete, ..
            } if complete.get().is_none() => quick.as_ref(),
            Trust::Roots { .. } | Trust::Anybody(_) => None,
        }
    }

    /// Returns the context that decides in the end.
    ///
    /// # Errors
    /// OpenSSL cannot be set up.
    pub fn complete(&self) -> Result<&SslContext, ErrorStack> {
        match self {
            Trust::Anybody(context) => Ok(context),
            Trust::Roots {
                complete,
                more_roots,
                ..
            } => {
                if let Some(context) = complete.get() {
                    return Ok(context);
                }
                let mut builder = new_context(SslVerifyMode::PEER, more_roots)?;
                add_all_roots(&mut builder)?;
                Ok(complete.get_or_init(|| builder.build()))
            }
        }
    }
}

/// Creates a context with the settings that all TLS here has in common.
fn new_context(verify: SslVerifyMode, roots: &[X509]) -> Result<SslContextBuilder, ErrorStack> {
    // The crate's SslConnector is not used: it would read all of the system's roots at once.
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    // For TLS 1.2: OpenSSL's own choice, without 3DES and without pre-shared keys and passwords.
    context.set_cipher_list("DEFAULT:!aNULL:!eNULL:!3DES:!PSK:!SRP")?;
    // OpenSSL reads on until there is data for us, and idle connections keep no buffers.
    context.set_mode(SslMode::AUTO_RETRY | SslMode::RELEASE_BUFFERS);
    context.set_verify(verify);
    for root in roots {
        context.cert_store_mut().add_cert(root.clone())?;
    }
    Ok(context)
}

/// Adds the roots that the user chose, or all roots of the system.
fn add_all_roots(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR itself. For one that is not set, it takes its own default.
    context.set_default_verify_paths()?;
    let default_bundle = openssl_home().join("cert.pem");
    if !are_roots_chosen_by_user() && !default_bundle.exists() {
        // OpenSSL's default is the place that its builder gave it. One that is linked in statically may have
        // been built on another system.
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

/// Returns OpenSSL's own directory. The version string is `OPENSSLDIR: "/usr/lib/ssl"`.
fn openssl_home() -> PathBuf {
    let quoted = version::dir().split('"').nth(1);
    PathBuf::from(quoted.unwrap_or_default())
}

fn parse_roots(pem: &[u8]) -> Result<Vec<X509>> {
    let roots = X509::stack_from_pem(pem).context("a certificate in it is damaged")?;
    ensure!(!roots.is_empty(), "no PEM certificate in it");
    Ok(roots)
}
