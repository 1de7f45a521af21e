//! Whether a certificate is due for renewal: by what the CA suggests (ARI, RFC 9773), or else by its
//! lifetime. No state is kept beside the certificate itself.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use log::{Level, info};
use openssl::error::ErrorStack;
use openssl::sha::sha256;
use serde_json::Value;

use crate::acme::Purpose;
use crate::acme::client::Client;
use crate::chain::Chain;
use crate::csr::Csr;
use crate::options::Options;
use crate::output;
use crate::text::{excerpt, first_few};
use crate::time;

/// How long asking the CA may take in all. While a certificate is healthy, a CA that is down should not
/// hold up the run.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// A certificate with a shorter lifetime than this, in seconds, is renewed when half of its lifetime is left.
/// Others are renewed when a third is left.
const SHORT_LIFETIME: i64 = 10 * 86_400;

/// Whether to renew.
pub enum Renewal {
    /// Yes.
    Due {
        /// Why.
        reason: String,
        /// The identifier of the certificate that the new one replaces (RFC 9773 §5), if there is one.
        old_id: Option<String>,
    },
    /// No: this is what the user is told.
    NotDue(String),
}

/// Decides whether `current`, the certificate at `--output`, is due. The CA is asked about it only if it
/// is otherwise healthy.
///
/// # Errors
/// A time in the certificate is malformed. If the CA cannot be asked, that is not an error.
pub fn decide(
    client: &Client,
    options: &Options,
    csr: &Csr,
    current: Option<&Chain>,
) -> Result<Renewal> {
    let Some(chain) = current else {
        return Ok(Renewal::Due {
            reason: "there is no certificate yet".to_owned(),
            old_id: None,
        });
    };
    let certificate_id = chain.certificate_id();
    if let Some(defect) = chain.defect(csr) {
        return Ok(Renewal::Due {
            reason: defect.to_string(),
            old_id: certificate_id,
        });
    }
    if chain.is_staging() && !options.is_staging() {
        return Ok(Renewal::Due {
            reason: "the certificate is from a test CA".to_owned(),
            old_id: None,
        });
    }
    let extra = chain.extra_names(csr);
    if !extra.is_empty() {
        let names = first_few(&extra);
        info!("The certificate is for names that the CSR does not ask for: {names}");
    }

    let (due_at, rule) = match suggested_moment(client, chain) {
        Ok(moment) => (moment, "as the CA suggests"),
        Err(error) => {
            info!("Going by its lifetime: {error:#}");
            (moment_by_lifetime(chain)?, "by its lifetime")
        }
    };
    let due_text = time::to_text(due_at);
    if due_at <= time::now() {
        Ok(Renewal::Due {
            reason: format!("the certificate is due since {due_text}, {rule}"),
            old_id: certificate_id,
        })
    } else {
        Ok(Renewal::NotDue(format!(
            "Not due before {due_text}, {rule}; nothing was done"
        )))
    }
}

/// Returns what the user is told of the certificate at `--output` after a renewal has failed: the less time
/// it has left, the louder. `None` without `--renew`, or if there is no certificate.
pub fn time_left(options: &Options) -> Option<(Level, String)> {
    let path = options.output.as_ref()?;
    if !options.renew {
        return None;
    }
    let chain = output::read_chain(path)?;
    let not_after = chain.not_after().ok()?;
    let lifetime = not_after - chain.not_before().ok()?;
    let left = not_after - time::now();

    let path = path.display();
    let days = left / 86_400;
    let hours = left % 86_400 / 3600;
    let end = format!("{path} is as it was, and ends in {days} days and {hours} hours");
    // With --quiet only records of level Error are printed. Before records of level Warn the logger itself
    // writes `warning:`.
    Some(if left <= 0 {
        let message = format!("warning: {path} is as it was, and HAS ENDED");
        (Level::Error, message)
    } else if left < lifetime / 6 {
        (Level::Error, format!("warning: {end} ONLY"))
    } else if left < lifetime / 3 {
        (Level::Warn, end)
    } else {
        (Level::Info, end)
    })
}

/// Returns the Unix time at which the CA suggests to renew (RFC 9773 §4).
///
/// # Errors
/// The CA makes no suggestion, or one that makes no sense; or it cannot be reached.
fn suggested_moment(client: &Client, chain: &Chain) -> Result<i64> {
    let certificate_id = chain
        .certificate_id()
        .context("the certificate does not identify its issuer's key")?;
    let hurried = client.with_timeout(ASK_TIMEOUT);
    let url = hurried
        .directory()?
        .renewal_info_url(&certificate_id)
        .context("the CA has no renewal information")?;
    let response = hurried.get(Purpose::RenewalInfo, &url)?;
    let info: Value = response.json().with_context(|| url.to_string())?;
    let window = Window::parse(&info["suggestedWindow"])?;
    ensure!(
        window.end <= chain.not_after()?,
        "the CA suggests a window that ends after the certificate"
    );
    // RFC 9773 §4.2: the client should show where the CA explains its suggestion.
    if let Some(page) = info["explanationURL"].as_str() {
        info!("The CA explains its suggestion at {}", excerpt(page));
    }
    Ok(window.moment_for(&certificate_id))
}

/// The time in which the CA would like to see a certificate renewed (RFC 9773 §4.2), in Unix time.
struct Window {
    start: i64,
    end: i64,
}

impl Window {
    fn parse(json: &Value) -> Result<Window> {
        let read = |name: &str| {
            json[name]
                .as_str()
                .and_then(time::from_rfc3339)
                .ok_or_else(|| anyhow!("the CA's renewal information is damaged"))
        };
        let window = Window {
            start: read("start")?,
            end: read("end")?,
        };
        ensure!(
            window.start < window.end,
            "the CA suggests a window that ends before it begins"
        );
        Ok(window)
    }

    /// Returns a moment in the window. It is the same at every run for one certificate and one window, and
    /// spread evenly over many certificates.
    fn moment_for(&self, certificate_id: &str) -> i64 {
        let hash = sha256(certificate_id.as_bytes());
        let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        // The window is cut into 2^32 parts, of which the hash chooses one. (i128, so that nothing overflows.)
        let length = i128::from(self.end - self.start);
        let offset = length * i128::from(number) / (1 << 32);
        self.start + offset as i64
    }
}

fn moment_by_lifetime(chain: &Chain) -> Result<i64, ErrorStack> {
    let not_after = chain.not_after()?;
    let lifetime = not_after - chain.not_before()?;
    if lifetime < SHORT_LIFETIME {
        Ok(not_after - lifetime / 2)
    } else {
        Ok(not_after - lifetime / 3)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn the_moment_is_in_the_window(start in 0i64..4_000_000_000, length in 1i64..400_000_000, id: String) {
            let window = Window { start, end: start + length };
            prop_assert!((start..start + length).contains(&window.moment_for(&id)));
        }
    }
}
