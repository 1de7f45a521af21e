//! What getcrt prints on stderr: a line for each record of the log, the exchanges that `-v` shows, and
//! the error at the end, all of it printable. The only exceptions are usage errors, which clap prints.

use std::io::{self, IsTerminal, Write};
use std::{env, iter};

use anyhow::Error;
use env_logger::fmt::Formatter;
use log::{Level, LevelFilter, Record, debug, error};

use crate::directory::our_uid;
use crate::error::Failure;
use crate::options::Options;
use crate::text::printable;

/// How many lines of details are printed below an error.
const MAX_DETAIL_LINES: usize = 100;

/// What the first line of an exchange announces. It decides the colour of that line.
#[derive(Clone, Copy)]
pub enum Heading {
    /// A request.
    Request,
    /// A response whose status is no error.
    Response,
    /// A response whose status is an error, or no response.
    ErrorResponse,
}

impl Heading {
    const ALL: [Heading; 3] = [Heading::Request, Heading::Response, Heading::ErrorResponse];

    /// Returns the target of its log records. [`write_record`] recognises them by it: a record has no other
    /// place for such data.
    fn target(self) -> &'static str {
        match self {
            Heading::Request => concat!(env!("CARGO_CRATE_NAME"), "::request"),
            Heading::Response => concat!(env!("CARGO_CRATE_NAME"), "::response"),
            Heading::ErrorResponse => concat!(env!("CARGO_CRATE_NAME"), "::error_response"),
        }
    }

    /// Returns its colour at a terminal, as the number that the escape sequence takes.
    fn colour(self) -> u8 {
        match self {
            Heading::Request => 36,       // cyan
            Heading::Response => 32,      // green
            Heading::ErrorResponse => 31, // red
        }
    }
}

/// Installs the logger. It ignores errors, so a closed or full stderr does not stop the run.
pub fn open(options: &Options) {
    let level = if options.quiet {
        LevelFilter::Error
    } else {
        match options.verbose {
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        }
    };
    // https://no-color.org
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_coloured = io::stderr().is_terminal() && !no_color;
    env_logger::Builder::new()
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(move |out, record| write_record(out, record, is_coloured))
        .init();
}

fn write_record(out: &mut Formatter, record: &Record, is_coloured: bool) -> io::Result<()> {
    let text = record.args().to_string();
    // The record of an exchange has the target of its heading.
    let heading = Heading::ALL
        .into_iter()
        .find(|heading| heading.target() == record.target());
    match heading {
        Some(heading) => {
            let colour = heading.colour();
            for (index, line) in text.lines().enumerate() {
                let line = printable(line);
                if index == 0 && is_coloured {
                    writeln!(out, "\x1b[{colour}m{line}\x1b[0m")?;
                } else {
                    writeln!(out, "{line}")?;
                }
            }
            Ok(())
        }
        None if record.level() == Level::Warn => writeln!(out, "warning: {}", printable(&text)),
        None => writeln!(out, "{}", printable(&text)),
    }
}

/// Prints an exchange for `-v`: a heading, and the lines below it. They are one record, so that other
/// threads cannot come between them.
pub fn show_exchange(heading: Heading, first_line: String, lines: Vec<String>) {
    let all: Vec<String> = iter::once(first_line).chain(lines).collect();
    debug!(target: heading.target(), "{}", all.join("\n"));
}

/// Says as which user getcrt runs, if the error is that it may not do something with a file.
fn permission_hint(error: &Error) -> Option<String> {
    let cause = error.root_cause().downcast_ref::<io::Error>()?;
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    let uid = our_uid()?;
    Some(format!(
        "getcrt runs as the user with the id {uid}: run it as another one, or change the permissions"
    ))
}

/// Prints the error that ended the run, with its details and its hint. If there is a chain that could not be
/// delivered, that comes first, so that the error is not overlooked.
pub fn report(error: &Error) {
    let failure = error.downcast_ref::<Failure>().cloned().unwrap_or_default();
    if let Some(pem) = &failure.undelivered_chain {
        for line in pem.lines() {
            error!("{line}");
        }
    }
    error!("error: {error:#}");
    for line in failure.details.iter().take(MAX_DETAIL_LINES) {
        error!("  {line}");
    }
    if failure.details.len() > MAX_DETAIL_LINES {
        let more = failure.details.len() - MAX_DETAIL_LINES;
        error!("  and {more} lines more");
    }
    if let Some(hint) = failure.hint.or_else(|| permission_hint(error)) {
        error!("hint: {hint}");
    }
}
