//! Whether a certificate is due for renewal: by what the CA suggests (ARI, RFC 9773), or else by its
//! lifetime. No state is kept beside the certificate itself.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use log::{Level, info};
use openssl::error::ErrorStack;
use openssl::sha::sha256;
use serde_json::Value;

use crate::acme::Purpose;
use crate::acme::client::{Client, WrongClock};
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
/// Whatever the CA suggests, a certificate is renewed when this part of its lifetime is left: a tenth.
const LAST_RESORT_DIVISOR: i64 = 10;

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
/// is otherwise healthy. If the CA cannot be asked, the lifetime decides.
///
/// # Errors
/// The clock of this machine is wrong, so nobody can tell.
pub fn decide(
    client: &Client,
    options: &Options,
    csr: &Csr,
    current: Option<&Chain>,
) -> Result<Renewal> {
    let Some(chain) = current else {
        return Ok(Renewal::Due {
            reason: "there is no usable certificate yet".to_owned(),
            old_id: None,
        });
    };
    if chain.is_staging() && !options.is_staging() {
        return Ok(Renewal::Due {
            reason: "the certificate is from Let's Encrypt's staging".to_owned(),
            old_id: None,
        });
    }
    let certificate_id = chain.certificate_id();
    if let Some(defect) = chain.defect(csr) {
        return Ok(Renewal::Due {
            reason: defect.to_string(),
            old_id: certificate_id,
        });
    }
    let lifetime = Lifetime::of(chain)?;
    let extra = chain.extra_names(csr);
    if !extra.is_empty() {
        let names = first_few(&extra);
        info!("The certificate is for names that the CSR does not ask for: {names}");
    }

    let (due_at, rule) = match suggested_window(client, certificate_id.as_deref()) {
        Ok(window) if window.moment() > lifetime.last_moment() => {
            (lifetime.last_moment(), "by the last tenth of its lifetime")
        }
        Ok(window) => (window.moment(), "as the CA suggests"),
        Err(error) if error.is::<WrongClock>() => return Err(error),
        Err(error) => {
            info!("No usable suggestion from the CA, so the lifetime decides: {error:#}");
            (lifetime.moment_by_default(), "by its lifetime")
        }
    };
    let due_text = time::to_text(due_at);
    let renewal = if due_at <= time::now() {
        Renewal::Due {
            reason: format!("the certificate has been due since {due_text}, {rule}"),
            old_id: certificate_id,
        }
    } else {
        Renewal::NotDue(format!(
            "Not due before {due_text}, {rule}; nothing was done"
        ))
    };
    Ok(renewal)
}

/// Returns what the user is told of the certificate at `--output` after a renewal has failed: the less time
/// it has left, the louder. `None` without `--renew`, or if there is no certificate.
pub fn time_left(options: &Options) -> Option<(Level, String)> {
    let path = options.output.as_ref()?;
    if !options.renew {
        return None;
    }
    let chain = output::read_chain(path).ok()??;
    let lifetime = Lifetime::of(&chain).ok()?;
    let left = lifetime.end - time::now();

    let path = path.display();
    let days = left / 86_400;
    let hours = left % 86_400 / 3600;
    let valid = format!("{path} is unchanged, and valid for {days} days and {hours} hours more");
    // With --quiet only records of level Error are printed. Before records of level Warn the logger itself
    // writes `warning:`.
    Some(if left <= 0 {
        let message = format!("warning: {path} is unchanged, and has expired");
        (Level::Error, message)
    } else if left < lifetime.length() / 6 {
        (Level::Error, format!("warning: {valid}"))
    } else if left < lifetime.length() / 3 {
        (Level::Warn, valid)
    } else {
        (Level::Info, valid)
    })
}

/// Returns the window in which the CA suggests to renew (RFC 9773 §4).
///
/// # Errors
/// The CA makes no suggestion, or one that makes no sense; or it cannot be reached.
fn suggested_window(client: &Client, certificate_id: Option<&str>) -> Result<Window> {
    let certificate_id =
        certificate_id.context("the certificate does not identify its issuer's key")?;
    let hurried = client.with_timeout(ASK_TIMEOUT);
    let url = hurried
        .directory()?
        .renewal_info_url(certificate_id)
        .context("the CA has no renewal information")?;
    let response = hurried.get(Purpose::RenewalInfo, &url)?;
    let info: Value = response.json().with_context(|| url.to_string())?;
    let window = Window::parse(&info["suggestedWindow"], certificate_id)?;
    // RFC 9773 §4.2: the client should show where the CA explains its suggestion.
    if let Some(page) = info["explanationURL"].as_str() {
        info!("The CA explains its suggestion at {}", excerpt(page));
    }
    Ok(window)
}

/// The time in which the CA would like to see a certificate renewed (RFC 9773 §4.2), in Unix time.
struct Window {
    start: i64,
    end: i64,
    /// Where in the window this certificate is renewed: at `start` plus this many 2^32ths of its length. It is the same at
    /// every run, and spread evenly over many certificates.
    place: u32,
}

impl Window {
    fn parse(json: &Value, certificate_id: &str) -> Result<Window> {
        let read = |name: &str| {
            json[name]
                .as_str()
                .and_then(time::from_rfc3339)
                .ok_or_else(|| anyhow!("the CA's renewal information is damaged"))
        };
        let hash = sha256(certificate_id.as_bytes());
        let window = Window {
            start: read("start")?,
            end: read("end")?,
            place: u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]),
        };
        ensure!(
            window.start < window.end,
            "the CA suggests a window that ends before it begins"
        );
        Ok(window)
    }

    /// Returns the moment in the window at which this certificate is renewed.
    fn moment(&self) -> i64 {
        // i128, so that nothing overflows.
        let length = i128::from(self.end - self.start);
        let offset = length * i128::from(self.place) / (1 << 32);
        self.start + offset as i64
    }
}

/// From when to when a certificate is valid, in Unix time.
struct Lifetime {
    start: i64,
    end: i64,
}

impl Lifetime {
    fn of(chain: &Chain) -> Result<Lifetime, ErrorStack> {
        Ok(Lifetime {
            start: chain.not_before()?,
            end: chain.not_after()?,
        })
    }

    fn length(&self) -> i64 {
        self.end - self.start
    }

    /// Returns when to renew, whatever the CA suggests. Its window may reach beyond the end of the certificate.
    fn last_moment(&self) -> i64 {
        self.end - self.length() / LAST_RESORT_DIVISOR
    }

    /// Returns when to renew if the CA suggests nothing.
    fn moment_by_default(&self) -> i64 {
        if self.length() < SHORT_LIFETIME {
            self.end - self.length() / 2
        } else {
            self.end - self.length() / 3
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;

    /// The window that Boulder suggests: a fiftieth of the lifetime before and after the moment when a third of it is left,
    /// or half for a short one.
    fn window_of_boulder(lifetime: &Lifetime, place: u32) -> Window {
        let margin = lifetime.length() / 50;
        let middle = lifetime.moment_by_default();
        Window {
            start: middle - margin,
            end: middle + margin,
            place,
        }
    }

    /// Lets a timer start getcrt every `interval` seconds for a year, and returns the certificates that were issued.
    fn certificates_of_a_year(length: i64, interval: i64, place: Option<u32>) -> Vec<Lifetime> {
        // Let's Encrypt's certificates are valid from an hour before they are issued.
        let issue = |now| Lifetime {
            start: now - HOUR,
            end: now - HOUR + length,
        };
        let mut certificates = vec![issue(0)];
        let mut now = 0;
        while now < YEAR {
            now += interval;
            let current = &certificates[certificates.len() - 1];
            let due_at = match place {
                Some(place) => window_of_boulder(current, place).moment(),
                None => current.moment_by_default(),
            };
            if due_at <= now {
                certificates.push(issue(now));
            }
        }
        certificates
    }

    /// Of each lifetime: the orders of a year at most, and the part that is left at every renewal at least, with runs
    /// daily, twice and four times a day.
    #[test]
    fn a_year_of_renewals() {
        for (length, most_orders, least_left) in [
            (90 * DAY, 7, 0.31),
            (64 * DAY, 9, 0.31),
            (47 * DAY, 12, 0.29),
            (45 * DAY, 13, 0.31),
            (160 * HOUR, 113, 0.39),
        ] {
            for interval in [DAY, DAY / 2, DAY / 4] {
                for place in [None, Some(0), Some(u32::MAX / 2), Some(u32::MAX)] {
                    let certificates = certificates_of_a_year(length, interval, place);
                    let shown = format!("{} hours, {interval} s, {place:?}", length / HOUR);
                    assert!(
                        certificates.len() <= most_orders,
                        "{shown}: {} orders",
                        certificates.len()
                    );
                    for pair in certificates.windows(2) {
                        let renewed_at = pair[1].start + HOUR;
                        let left = (pair[0].end - renewed_at) as f64 / length as f64;
                        assert!(left >= least_left, "{shown}: {left} is left");
                        // Not before the window, and not again in the same one.
                        let window = window_of_boulder(&pair[0], 0);
                        let next_window = window_of_boulder(&pair[1], 0);
                        assert!(renewed_at >= window.start, "{shown}");
                        assert!(next_window.start > window.end, "{shown}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_beyond_the_end_is_cut() {
        let lifetime = Lifetime {
            start: 0,
            end: 100 * DAY,
        };
        let moment = |start, end, place| {
            let window = Window {
                start: start * DAY,
                end: end * DAY,
                place,
            };
            window.moment().min(lifetime.last_moment()) / DAY
        };
        assert_eq!(moment(60, 70, 0), 60);
        assert_eq!(moment(60, 200, u32::MAX / 14), 70 - 1);
        assert_eq!(moment(60, 200, u32::MAX), 90);
        assert_eq!(moment(150, 200, 0), 90);
    }

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn the_moment_is_in_the_window(start in 0i64..4_000_000_000, length in 1i64..400_000_000, place: u32) {
            let window = Window { start, end: start + length, place };
            prop_assert!((start..start + length).contains(&window.moment()));
        }
    }
}
