//! The command line.

use std::path::PathBuf;

use clap::error::ErrorKind::ArgumentConflict;
use clap::{ArgAction, CommandFactory, Parser, ValueHint};

/// Let's Encrypt's production directory, the default CA.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Let's Encrypt's staging directory: the same service with generous limits and untrusted roots.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// acme-tiny's default for `--ca`. Scripts that pass it mean the default CA, so it counts as not given.
const ACME_TINY_DEFAULT_CA: &str = "https://acme-v02.api.letsencrypt.org";

/// The longest timeout that can be given, in seconds: eleven days.
const MAX_TIMEOUT: u64 = 1_000_000;

// The headings of the help. All its lines fit 80 columns as they stand: without its `wrap_help` feature
// clap does not break them.
const REQUIRED: &str = "Required";
const OUTPUT: &str = "Output";
const CA: &str = "CA";
const RENEWAL: &str = "Renewal";
const CHECKS: &str = "Checks";
const MESSAGES: &str = "Messages";

/// Fetch a TLS certificate from an ACME (RFC 8555) CA by http-01
///
/// getcrt registers your account key with the CA, proves that you control every
/// name in the CSR by files that your web server serves, and prints the
/// certificate chain. It needs neither root nor the certificate's private key.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment, infer_long_args = true, args_override_self = true, after_help = AFTER_HELP)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Options {
    /// Private key of your account at the CA (PEM)
    ///
    /// RSA, P-256, P-384, P-521 or Ed25519. (Let's Encrypt accepts the first
    /// three.) One account key can serve many certificates, but must not be
    /// the key of any of them.
    #[arg(long, value_name = "FILE", help_heading = REQUIRED, verbatim_doc_comment)]
    pub account_key: PathBuf,

    /// Certificate signing request with all names
    ///
    /// PEM or DER. Its key is the certificate's key. Let's Encrypt accepts up
    /// to 100 names (25 with the profiles tlsserver and shortlived).
    #[arg(long, value_name = "FILE", help_heading = REQUIRED, verbatim_doc_comment)]
    pub csr: PathBuf,

    /// Directory served as /.well-known/acme-challenge/
    ///
    /// Your web server must serve it on port 80 for every name. getcrt writes
    /// the challenge files there, and removes them when it ends.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = REQUIRED, verbatim_doc_comment)]
    pub acme_dir: PathBuf,

    /// Write the chain to FILE instead of stdout
    ///
    /// FILE is replaced only by a complete chain that matches the CSR, and
    /// only if it is empty or begins with a certificate.
    #[arg(short, long, value_name = "FILE", help_heading = OUTPUT, verbatim_doc_comment)]
    pub output: Option<PathBuf>,

    /// Prefer the chain that was issued by NAME
    ///
    /// Picks the chain whose topmost certificate was issued by NAME, or else
    /// one whose topmost certificate is NAME. If the CA offers neither, its
    /// default chain is used, and a warning lists what it offers.
    #[arg(long, value_name = "NAME", help_heading = OUTPUT, verbatim_doc_comment)]
    pub preferred_chain: Option<String>,

    /// URL of the CA's directory [default: Let's Encrypt]
    #[arg(long, value_name = "URL", help_heading = CA)]
    pub directory_url: Option<String>,

    /// Use Let's Encrypt's staging directory
    ///
    /// For trying things out: its rate limits are generous, and its
    /// certificates are not trusted. It does not replace a valid certificate
    /// of another CA at -o.
    #[arg(long, conflicts_with = "directory_url", help_heading = CA, verbatim_doc_comment)]
    pub staging: bool,

    /// Deprecated; --directory-url without /directory
    #[arg(long, value_name = "URL", help_heading = CA)]
    ca: Option<String>,

    /// More root certificates to trust (PEM)
    ///
    /// For the https of a private CA. The system's roots are trusted, too.
    #[arg(long, value_name = "FILE", help_heading = CA, verbatim_doc_comment)]
    pub ca_bundle: Option<PathBuf>,

    /// Contacts for the account, e.g. you@example.org
    ///
    /// They replace the contacts that the CA has. Without a value, they are
    /// removed.
    #[arg(long, value_name = "C", num_args = 0.., overrides_with = "contact", value_parser = parse_contact, help_heading = CA, verbatim_doc_comment)]
    pub contact: Option<Vec<String>>,

    /// Key identifier for external account binding
    ///
    /// Binds the new account to an account that you already have at the CA.
    #[arg(long, value_name = "ID", requires = "eab_hmac_key", help_heading = CA, verbatim_doc_comment)]
    pub eab_kid: Option<String>,

    /// File with the HMAC key for --eab-kid
    ///
    /// In base64url, as the CA gives it. It is read only when the account is
    /// registered.
    #[arg(long, value_name = "FILE", requires = "eab_kid", help_heading = CA, verbatim_doc_comment)]
    pub eab_hmac_key: Option<PathBuf>,

    /// Certificate profile, as the CA names it
    ///
    /// For example Let's Encrypt's `shortlived`, which IP addresses need.
    #[arg(long, value_name = "NAME", help_heading = CA, verbatim_doc_comment)]
    pub profile: Option<String>,

    /// Give up after SECONDS in total
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = parse_timeout, help_heading = CA)]
    pub timeout: u64,

    /// Do nothing unless the certificate at -o is due
    ///
    /// A certificate is due if it is missing or expired, if it is for another
    /// key than the CSR's, or if it lacks one of its names. Otherwise the CA
    /// is asked when to renew. If it does not say, the certificate is due
    /// when a third of its lifetime is left, or half if it lasts less than
    /// ten days.
    #[arg(long, requires = "output", help_heading = RENEWAL, verbatim_doc_comment)]
    pub renew: bool,

    /// Only tell whether the certificate at -o is due
    ///
    /// Exit status 0 if it is due, 3 if it is not. For scripts that make a
    /// new key before each renewal, and for monitoring. Nothing is ordered,
    /// and no file is written.
    #[arg(long, requires = "output", conflicts_with_all = ["renew", "dry_run"], help_heading = RENEWAL, verbatim_doc_comment)]
    pub is_due: bool,

    /// Do everything except request the certificate
    ///
    /// All names are proven, but nothing is issued, and the file at -o is not
    /// touched.
    #[arg(long, help_heading = CHECKS, verbatim_doc_comment)]
    pub dry_run: bool,

    /// Do not fetch the challenge files before the CA does
    ///
    /// For a machine that cannot reach its own names from where it is.
    #[arg(long, help_heading = CHECKS, verbatim_doc_comment)]
    pub disable_check: bool,

    /// Port of the web server for this check
    ///
    /// The CA itself always uses port 80.
    #[arg(long, value_name = "PORT", default_value_t = 80, value_parser = parse_port, help_heading = CHECKS, verbatim_doc_comment)]
    pub check_port: u16,

    /// Print errors only
    #[arg(long, conflicts_with = "verbose", help_heading = MESSAGES)]
    pub quiet: bool,

    /// Show every exchange with the CA; -vv adds headers
    ///
    /// -v shows each request and reply. -vv adds all headers, nonces and
    /// protected headers.
    #[arg(short, long, action = ArgAction::Count, help_heading = MESSAGES, verbatim_doc_comment)]
    pub verbose: u8,

    // clap acts on these two itself. They are declared here for their place in the help.
    /// Print help, in short (-h) or in full (--help)
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = MESSAGES)]
    _help: Option<bool>,

    /// Print version
    #[arg(short = 'V', long = "version", action = ArgAction::Version, help_heading = MESSAGES)]
    _version: Option<bool>,
}

const AFTER_HELP: &str = "\
Example:
  getcrt --account-key account.key --csr domain.csr \\
    --acme-dir /var/www/acme-challenge/ > signed.crt

In a crontab, all in one line:
  17 1,7,13,19 * * * getcrt --renew --quiet --account-key account.key
    --csr domain.csr --acme-dir /var/www/acme-challenge/ -o signed.crt

Exit status:
  0  a certificate was issued, the dry run passed, or --is-due: it is due
  1  failure; the file at -o is unchanged
  2  wrong usage
  3  --renew or --is-due: the certificate is not due";

impl Options {
    /// Reads the command line of this process. If it asks for help or the version, or is wrong, this prints the
    /// text or the error and ends the process.
    pub fn from_command_line() -> Options {
        let options = Options::parse();
        // clap cannot check this conflict: scripts may pass `--ca` with acme-tiny's default beside the others.
        if options.ca_unless_default().is_some() {
            if options.staging {
                exit_with_ca_conflict("--staging");
            }
            if options.directory_url.is_some() {
                exit_with_ca_conflict("--directory-url");
            }
        }
        options
    }

    /// Returns the URL of the CA's directory.
    pub fn directory(&self) -> String {
        if let Some(url) = &self.directory_url {
            url.clone()
        } else if let Some(base) = self.ca_unless_default() {
            format!("{base}/directory")
        } else if self.staging {
            LETS_ENCRYPT_STAGING.to_owned()
        } else {
            LETS_ENCRYPT.to_owned()
        }
    }

    /// Whether the CA is Let's Encrypt's staging, whichever option names it.
    pub fn is_staging(&self) -> bool {
        self.directory() == LETS_ENCRYPT_STAGING
    }

    /// Returns the value of `--ca`, unless it is acme-tiny's default.
    fn ca_unless_default(&self) -> Option<&str> {
        match self.ca.as_deref() {
            Some(ACME_TINY_DEFAULT_CA) => None,
            other => other,
        }
    }
}

fn exit_with_ca_conflict(other_option: &str) -> ! {
    let message = format!("the argument '--ca <URL>' cannot be used with '{other_option}'");
    Options::command().error(ArgumentConflict, message).exit()
}

/// Parses the timeout, in seconds.
fn parse_timeout(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds @ 1..=MAX_TIMEOUT) => Ok(seconds),
        _ => Err(format!(
            "this must be a number of seconds from 1 to {MAX_TIMEOUT}"
        )),
    }
}

/// Parses a port.
fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(format!("this must be a port from 1 to {}", u16::MAX)),
    }
}

/// Parses a contact: a URL, or an e-mail address, which becomes a `mailto:` URL.
///
/// # Errors
/// The address is empty, or it is several addresses or has header fields (RFC 8555 §7.3).
fn parse_contact(contact: &str) -> Result<String, &'static str> {
    match contact.split_once(':').unwrap_or(("mailto", contact)) {
        ("mailto", "") => Err("the address is empty"),
        ("mailto", address) if address.contains([',', '?']) => {
            Err("one address each: write --contact a@example.org b@example.org")
        }
        (scheme, rest) => Ok(format!("{scheme}:{rest}")),
    }
}
