//! The command line: what can be asked of getcrt, and nothing else.

use std::path::PathBuf;

use clap::error::ErrorKind::ArgumentConflict;
use clap::{CommandFactory, Parser};

/// Let's Encrypt's production directory, the default CA.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Let's Encrypt's staging directory: the same service with generous limits and untrusted roots.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// acme-tiny's default for `--ca`; scripts that pass it mean "the default directory".
const ACME_TINY_DEFAULT_CA: &str = "https://acme-v02.api.letsencrypt.org";

/// Fetch a TLS certificate from an ACME (RFC 8555) CA by http-01.
///
/// getcrt registers your account key, proves control of every name in the CSR by files
/// that your web server serves from the acme-dir, and prints the certificate chain.
#[derive(Debug, Parser)]
#[command(version, infer_long_args = true, args_override_self = true, after_help = AFTER_HELP)]
pub struct Options {
    /// Private key of your account at the CA (PEM; RSA, P-256, P-384, P-521 or Ed25519)
    #[arg(long, value_name = "FILE")]
    pub account_key: PathBuf,

    /// Certificate signing request (PEM or DER), made with a key of its own
    #[arg(long, value_name = "FILE")]
    pub csr: PathBuf,

    /// Directory served as http://NAME/.well-known/acme-challenge/
    #[arg(long, value_name = "DIR")]
    pub acme_dir: PathBuf,

    /// Write the chain to FILE instead of stdout; replaced only by a complete, checked chain
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Do nothing unless the certificate at --output is due (or missing, or not for the CSR)
    #[arg(long, requires = "output")]
    pub renew: bool,

    /// ACME directory of the CA [default: Let's Encrypt]
    #[arg(long, value_name = "URL")]
    pub directory_url: Option<String>,

    /// Use Let's Encrypt's staging directory
    #[arg(long, conflicts_with = "directory_url")]
    pub staging: bool,

    /// Deprecated: base URL of the CA, to which /directory is appended
    #[arg(long, value_name = "URL")]
    ca: Option<String>,

    /// More roots to trust for the CA's https (PEM), for a private CA
    #[arg(long, value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,

    /// Contact details for the account, e.g. you@example.org; alone, it removes them
    #[arg(long, value_name = "C", num_args = 0.., overrides_with = "contact", value_parser = contact)]
    pub contact: Option<Vec<String>>,

    /// Key identifier of an account elsewhere that the CA wants yours bound to (EAB)
    #[arg(long, value_name = "ID", requires = "eab_hmac_key")]
    pub eab_kid: Option<String>,

    /// File with the HMAC key that belongs to --eab-kid (base64url), read only to register
    #[arg(long, value_name = "FILE", requires = "eab_kid")]
    pub eab_hmac_key: Option<PathBuf>,

    /// Profile of the certificate, one of those that the CA offers
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Of the CA's chains, the one whose topmost certificate was issued by, or is, NAME
    #[arg(long, value_name = "NAME")]
    pub preferred_chain: Option<String>,

    /// Do not fetch the challenge files before the CA does
    #[arg(long)]
    pub disable_check: bool,

    /// Port at which the challenge files are fetched for the check
    #[arg(long, value_name = "PORT", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    pub check_port: u16,

    /// Go through everything but the last request, so that no certificate is issued
    #[arg(long)]
    pub dry_run: bool,

    /// Give up after SECONDS in all
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub timeout: u64,

    /// Print errors only
    #[arg(long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show each request to the CA and its reply
    #[arg(short, long)]
    pub verbose: bool,
}

const AFTER_HELP: &str = "\
Example:
  getcrt --account-key account.key --csr domain.csr --acme-dir /var/www/acme-challenge/ > signed.crt

Exit status: 0 issued (or the dry run passed), 1 not issued, 2 wrong usage, 3 not due for renewal.";

impl Options {
    /// Reads the process's command line; prints help, version or a usage error and exits there.
    pub fn from_command_line() -> Options {
        let options = Options::parse();
        if options.ca().is_some() && (options.staging || options.directory_url.is_some()) {
            let other = match options.staging {
                true => "--staging",
                false => "--directory-url",
            };
            let message = format!("the argument '--ca <URL>' cannot be used with '{other}'");
            Options::command().error(ArgumentConflict, message).exit();
        }
        options
    }

    /// The directory of the CA that was asked for.
    pub fn directory(&self) -> String {
        match (&self.directory_url, self.ca()) {
            (Some(url), _) => url.clone(),
            (None, Some(base)) => format!("{base}/directory"),
            (None, None) if self.staging => LETS_ENCRYPT_STAGING.to_owned(),
            (None, None) => LETS_ENCRYPT.to_owned(),
        }
    }

    /// Whether it is Let's Encrypt's staging that is asked, by whatever option.
    pub fn is_staging(&self) -> bool {
        self.directory() == LETS_ENCRYPT_STAGING
    }

    /// `--ca` where it says something.
    fn ca(&self) -> Option<&str> {
        let ca = self.ca.as_deref();
        ca.filter(|url| *url != ACME_TINY_DEFAULT_CA)
    }
}

/// A contact as the CA wants it (RFC 8555 §7.3): a URL, and a `mailto:` of one plain address.
fn contact(contact: &str) -> Result<String, &'static str> {
    match contact.split_once(':').unwrap_or(("mailto", contact)) {
        ("mailto", "") => Err("the address is empty"),
        ("mailto", address) if address.contains([',', '?']) => {
            Err("one address each: write --contact a@example.org b@example.org")
        }
        (scheme, rest) => Ok(format!("{scheme}:{rest}")),
    }
}
