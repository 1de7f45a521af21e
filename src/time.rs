//! Unix time (seconds since 1970, UTC) from and to the notations that certificates, CAs and people use.

use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;

const SECONDS_PER_DAY: i64 = 86_400;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// The form of a date and a time of day in RFC 3339. Each `0` stands for a digit.
const DATE_AND_TIME: &str = "0000-00-00T00:00:00";

/// Returns the time by this machine's clock; 0 if the clock is set to before 1970.
pub fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default().as_secs().cast_signed()
}

/// Returns the time that a certificate states.
///
/// # Errors
/// The certificate's time is malformed.
pub fn from_asn1(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since_1970 = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since_1970.days) * SECONDS_PER_DAY + i64::from(since_1970.secs))
}

/// Reads an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7). Its two obsolete forms are not
/// read, and the day of the week is not checked.
pub fn from_http_date(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [_weekday, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let month_number = MONTHS.iter().position(|name| *name == month)? + 1;
    from_date_and_time(&format!("{year}-{month_number:02}-{day}T{time}"))
}

/// Reads a time such as `2025-01-02T04:00:00.5+01:00` (RFC 3339 §5.6). Fractions of a second are dropped.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    let (date_and_time, fraction_and_offset) = text.split_at_checked(DATE_AND_TIME.len())?;
    let local_time = from_date_and_time(date_and_time)?;
    let offset = match fraction_and_offset.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => fraction_and_offset,
    };
    Some(local_time - utc_offset(offset)?)
}

/// Reads `Z`, `+01:30` or `-05:00`. Returns the seconds by which local time is ahead of UTC.
fn utc_offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("Z") {
        return Some(0);
    }
    let (sign, hours_and_minutes) = text.split_at_checked(1)?;
    let (hours, minutes) = hours_and_minutes.split_once(':')?;
    let seconds = two_digits(hours)? * 3600 + two_digits(minutes)? * 60;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

fn two_digits(text: &str) -> Option<i64> {
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// Reads a time of the form [`DATE_AND_TIME`], in UTC.
fn from_date_and_time(text: &str) -> Option<i64> {
    if text.len() != DATE_AND_TIME.len() {
        return None;
    }
    let mut digits = String::new();
    for (found, expected) in text.chars().zip(DATE_AND_TIME.chars()) {
        match expected {
            '0' if found.is_ascii_digit() => digits.push(found),
            '0' => return None,
            separator if found.eq_ignore_ascii_case(&separator) => {}
            _ => return None,
        }
    }
    // OpenSSL knows the calendar. It reads `20250102040000Z`.
    let time = Asn1Time::from_str(&format!("{digits}Z")).ok()?;
    from_asn1(&time).ok()
}

/// Returns the time as OpenSSL prints it: `Feb 21 14:28:10 2027 GMT`. A time that OpenSSL cannot represent is
/// returned as a number.
pub fn to_text(unix: i64) -> String {
    match Asn1Time::from_unix(unix) {
        Ok(time) => time.to_string(),
        Err(_) => unix.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

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
            ("2025-01-02 04:00:00Z", None),
            ("20250102040000     Z", None),
            ("2025-01-02T04:00:00", None),
            ("", None),
        ] {
            assert_eq!(from_rfc3339(text), unix, "{text}");
        }
    }

    #[test]
    fn dates_of_http() {
        for (text, unix) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sun, 06 anF 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 31 Feb 2026 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ] {
            assert_eq!(from_http_date(text), unix, "{text}");
        }
    }

    proptest! {
        #![proptest_config(property_tests::config())]

        #[test]
        fn any_time_is_one_or_none(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{0,8}[.0-9]{0,4}[-+zZ]?[0-9:-]{0,25}|\\PC{0,30}") {
            let _ = from_rfc3339(&text);
        }
    }
}
