//! Is the certificate due for renewal: by what the CA suggests (ARI, RFC 9773), or else by its
//! lifetime. There is no state but the certificate itself, so every run of every day agrees.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use log::{Level, info};
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::sha::sha256;
use serde_json::Value;

use crate::chain::{Chain, unix};
use crate::client::Client;
use crate::csr::Csr;
use crate::options::Options;
use crate::resources::excerpt;

/// How long asking the CA may take in all: a healthy certificate does not wait for a CA that is down.
const ASKING: Duration = Duration::from_secs(30);
/// Certificates that live shorter are renewed at half their lifetime, others at two thirds.
const SHORT_LIFE: i64 = 10 * 86_400;

/// Whether to renew.
pub enum Renewal {
    /// Yes: why, and which certificate a new order replaces (RFC 9773 §4.1), if it has an identifier.
    Due(String, Option<String>),
    /// No: until when, and by which rule.
    NotDue(String),
}

/// Looks at the certificate at `--output` and, where it is healthy, asks the CA about it.
///
/// # Errors
/// OpenSSL's own. That the CA cannot be asked is none.
pub fn look(
    client: &mut Client,
    options: &Options,
    csr: &Csr,
    current: Option<&Chain>,
) -> Result<Renewal> {
    let Some(chain) = current else {
        return Ok(Renewal::Due("there is no certificate yet".to_owned(), None));
    };
    let certificate_id = chain.certificate_id();
    if let Some(flaw) = chain.flaw(csr)? {
        return Ok(Renewal::Due(flaw, certificate_id));
    }
    if chain.is_staging() && !options.is_staging() {
        let why = "the certificate is from a test CA".to_owned();
        return Ok(Renewal::Due(why, None));
    }
    for name in chain.extra_names(csr) {
        info!("The certificate is for {name} too, which the CSR does not ask for");
    }
    let window = match &certificate_id {
        Some(id) => client.hurried(ASKING, |client| ask(client, options, id, chain)),
        None => Err(anyhow!(
            "the certificate does not identify its issuer's key"
        )),
    };
    let (since, rule) = match (&certificate_id, window) {
        (Some(id), Ok(window)) => (window.moment(id), "as the CA suggests"),
        (_, error) => {
            let reason = error.err().map(|error| format!("{error:#}"));
            info!("Going by its lifetime: {}", reason.unwrap_or_default());
            (by_lifetime(chain)?, "by its lifetime")
        }
    };
    let moment = Asn1Time::from_unix(since)?;
    if since <= now()? {
        let why = format!("the certificate is due since {}, {rule}", moment.as_ref());
        return Ok(Renewal::Due(why, certificate_id));
    }
    let moment = moment.as_ref();
    Ok(Renewal::NotDue(format!(
        "Not due before {moment}, {rule}; nothing was done"
    )))
}

/// What a run that failed has left as it was, told the louder the nearer its end is.
pub fn what_is_left(options: &Options) -> Option<(Level, String)> {
    let path = options
        .output
        .as_ref()
        .filter(|path| options.renew && path.is_file())?;
    let (from, until) = Chain::of_file(&fs::read(path).ok()?)?.validity().ok()?;
    let left = until - now().ok()?;
    let (path, days, hours) = (path.display(), left / 86_400, left / 3600 % 24);
    let good = format!("{path} is as it was, and ends in {days} days and {hours} hours");
    Some(match left {
        ..=0 => (
            Level::Error,
            format!("warning: {path} is as it was, and HAS ENDED"),
        ),
        _ if left < (until - from) / 6 => (Level::Error, format!("warning: {good} ONLY")),
        _ if left < (until - from) / 3 => (Level::Warn, good),
        _ => (Level::Info, good),
    })
}

/// When the CA would like to see a certificate renewed (§4.2), in Unix time.
struct Window {
    start: i64,
    end: i64,
}

impl Window {
    /// A moment in the window that depends on the certificate alone, so that it is always the same
    /// for one and spread evenly for many.
    fn moment(&self, certificate_id: &str) -> i64 {
        let hash = sha256(certificate_id.as_bytes());
        let share = hash
            .iter()
            .take(4)
            .fold(0, |share, byte| share << 8 | i64::from(*byte));
        self.start + ((i128::from(self.end - self.start) * i128::from(share)) >> 32) as i64
    }
}

/// Asks the CA for its suggestion (§4.1).
fn ask(client: &mut Client, options: &Options, id: &str, chain: &Chain) -> Result<Window> {
    let directory = client.directory(&options.directory())?;
    let url = directory.renewal_info_url(id);
    let url = url.context("the CA has no renewal information")?;
    let info = client.get(&url)?.json();
    let info: Value = info.with_context(|| url.to_string())?;
    let window = &info["suggestedWindow"];
    let bound = |name: &str| window[name].as_str().and_then(unix_of_rfc_3339);
    let (start, end) = (bound("start"), bound("end"));
    let (start, end) = start
        .zip(end)
        .context("the CA's renewal information is damaged")?;
    ensure!(
        start < end,
        "the CA suggests a window that ends before it begins"
    );
    let is_in_time = end <= chain.validity()?.1;
    ensure!(
        is_in_time,
        "the CA suggests a window that ends after the certificate"
    );
    if let Some(page) = info["explanationURL"].as_str() {
        info!("The CA explains its suggestion at {}", excerpt(page));
    }
    Ok(Window { start, end })
}

fn by_lifetime(chain: &Chain) -> Result<i64, ErrorStack> {
    let (from, until) = chain.validity()?;
    let life = until - from;
    Ok(until - life / if life < SHORT_LIFE { 2 } else { 3 })
}

fn now() -> Result<i64, ErrorStack> {
    unix(Asn1Time::days_from_now(0)?.as_ref())
}

/// The Unix time of such as `2025-01-02T04:00:00.5+01:00` (RFC 3339 §5.6).
fn unix_of_rfc_3339(text: &str) -> Option<i64> {
    let (local, rest) = text.split_at_checked(19)?;
    let digits: String = local.chars().filter(char::is_ascii_digit).collect();
    let local = unix(Asn1Time::from_str(&format!("{digits}Z")).ok()?.as_ref()).ok()?;
    let offset = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    if offset.eq_ignore_ascii_case("Z") {
        return Some(local);
    }
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    match sign {
        "+" => Some(local - seconds),
        "-" => Some(local + seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_rfc_3339() {
        for (text, unix) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2025-01-02T04:00:00Z", Some(1_735_790_400)),
            ("2025-01-02T04:00:00.123456z", Some(1_735_790_400)),
            ("2025-01-02T05:30:00+01:30", Some(1_735_790_400)),
            ("2025-01-01T23:00:00.5-05:00", Some(1_735_790_400)),
            ("2025-01-02T04:00:00-99999999999:00", None),
            ("2025-01-02T04:00:00+-1:00", None),
            ("2025-13-02T04:00:00Z", None),
            ("2025-01-02", None),
            ("", None),
        ] {
            assert_eq!(unix_of_rfc_3339(text), unix, "{text}");
        }
    }

    proptest! {
        #![proptest_config(crate::tests::cases())]

        #[test]
        fn any_time_is_one_or_none(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{0,8}[.0-9]{0,4}[-+zZ]?[0-9:-]{0,25}|\\PC{0,30}") {
            let _ = unix_of_rfc_3339(&text);
        }

        #[test]
        fn the_moment_is_in_the_window(start in 0i64..4_000_000_000, length in 1i64..400_000_000, id: String) {
            let window = Window { start, end: start + length };
            prop_assert!((start..start + length).contains(&window.moment(&id)));
        }
    }
}
