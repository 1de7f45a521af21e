//! Fetches a TLS certificate from any ACME (RFC 8555) CA by http-01.
//!
//! This file holds the frame: options, the one door to stderr, exit status. The conversation with
//! the CA is in `get_crt.rs`.

#![forbid(unsafe_code)]

mod account_key;
mod authorize;
mod chain;
mod challenge;
mod client;
mod csr;
mod failure;
mod get_crt;
mod input;
mod options;
mod output;
mod pass;
mod renewal;
mod resources;
mod self_check;
mod temporary;
mod tls;
mod trace;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::{env, io};

use anyhow::{Context, Error};
use log::{Level, LevelFilter, error, info, log};

use crate::failure::Failure;
use crate::get_crt::Outcome;
use crate::options::Options;

/// Exit status of a run that found the certificate not due.
const NOT_DUE: u8 = 3;

fn main() -> ExitCode {
    let options = Options::from_command_line();
    open_stderr(&options);
    let signals = temporary::clean_up_on_signals().context("cannot watch for signals");
    match signals.and_then(|()| get_crt::get_crt(&options)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NotDue(told)) => {
            info!("{told}");
            ExitCode::from(NOT_DUE)
        }
        Err(error) => {
            if let Some((level, told)) = renewal::what_is_left(&options) {
                log!(level, "{told}");
            }
            report(&error)
        }
    }
}

/// The one door to stderr: every record of the log is one printable line. That stderr is closed or
/// full is no reason to stop, so failures to write are passed over by the logger.
fn open_stderr(options: &Options) {
    let level = match (options.quiet, options.verbose) {
        (true, _) => LevelFilter::Error,
        (_, 0) => LevelFilter::Info,
        (_, 1) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_coloured = io::stderr().is_terminal() && !is_set("NO_COLOR");
    env_logger::Builder::new()
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(move |out, record| {
            let text = record.args().to_string();
            match record.level() {
                Level::Warn => return writeln!(out, "warning: {}", printable(&text)),
                Level::Debug => {}
                _ => return writeln!(out, "{}", printable(&text)),
            }
            let mut colour = if is_coloured { colour_of(&text) } else { None };
            for line in text.lines() {
                match colour.take() {
                    Some(colour) => writeln!(out, "\x1b[{colour}m{}\x1b[0m", printable(line))?,
                    None => writeln!(out, "{}", printable(line))?,
                }
            }
            Ok(())
        })
        .init();
}

/// The colour of an exchange's first line: what is asked, what went well, and what did not.
fn colour_of(exchange: &str) -> Option<u8> {
    let mut words = exchange.split_whitespace().skip(1);
    match (words.next()?, words.next()?.as_bytes()[0]) {
        ("-->", _) => Some(36),
        (_, b'1'..=b'3') => Some(32),
        _ => Some(31),
    }
}

/// The end of a failed run: the error, what belongs below it, and the cure where it is known.
fn report(error: &Error) -> ExitCode {
    // Threads that the run has left behind have nothing to add.
    log::set_max_level(LevelFilter::Error);
    error!("error: {error:#}");
    if let Some(failure) = error.downcast_ref::<Failure>() {
        for line in &failure.below {
            error!("  {line}");
        }
        if let Some(hint) = &failure.hint {
            error!("hint: {hint}");
        }
        for line in failure.rescued.iter().flat_map(|pem| pem.lines()) {
            error!("{line}");
        }
    }
    ExitCode::FAILURE
}

/// `text` with everything made visible that could move the cursor, colour the screen, break the line
/// or turn the direction of reading: a CA's words are shown, never obeyed.
fn printable(text: &str) -> String {
    let is_hidden = |c: &char| match c {
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    };
    let shown = |c: char| {
        if is_hidden(&c) {
            c.escape_debug().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::printable;

    /// How all property tests run; an input that fails is kept, and tried first from then on.
    pub(crate) fn cases() -> ProptestConfig {
        let kept = FileFailurePersistence::Direct("tests/proptest-regressions.txt");
        ProptestConfig {
            cases: 20_000,
            failure_persistence: Some(Box::new(kept)),
            ..ProptestConfig::default()
        }
    }

    #[test]
    fn words_stay_and_commands_do_not() {
        assert_eq!(
            printable("Größe 5 \"x\" 名前 e\u{301}"),
            "Größe 5 \"x\" 名前 e\u{301}"
        );
        assert_eq!(
            printable("a\u{1b}[31m\r\nb\u{202e}\u{9b}"),
            "a\\u{1b}[31m\\r\\nb\\u{202e}\\u{9b}"
        );
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn what_is_printed_commands_nothing(text: String) {
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(char::is_control));
            let turned = ['\u{202e}', '\u{2066}', '\u{200f}', '\u{feff}', '\u{2028}'];
            prop_assert!(!shown.contains(turned));
            prop_assert!(shown.len() <= 10 * text.len());
        }
    }
}
