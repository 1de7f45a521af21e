//! Fetches a TLS certificate from any ACME (RFC 8555) CA by http-01.
//!
//! `README.md` in this folder says how to read the source; the story is in `get_crt.rs`.

#![forbid(unsafe_code)]

mod acme;
mod authorize;
mod chain;
mod challenge_files;
mod csr;
mod deadline;
mod der;
mod directory;
mod download;
mod error;
mod files;
mod get_crt;
mod options;
mod output;
mod panics;
mod parallel;
#[cfg(test)]
mod property_tests;
mod proxy;
mod renewal;
mod resolver;
mod self_check;
mod signals;
mod stderr;
mod temporary;
mod text;
mod time;
mod tls;
mod trace;
mod trust;
mod validation;

use std::process::ExitCode;

use anyhow::Result;
use log::{info, log, warn};

use crate::get_crt::Outcome;
use crate::options::Options;

/// The exit status of a run that found the certificate not due.
const NOT_DUE: u8 = 3;

fn main() -> ExitCode {
    let options = Options::from_command_line();
    stderr::open(&options);
    panics::silence();
    match panics::catch(|| run(&options)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NotDue(reason)) => {
            info!("{reason}");
            ExitCode::from(NOT_DUE)
        }
        Err(error) => {
            // This says how long the old certificate is still valid. The error itself comes last.
            let time_left = panics::catch(|| Ok(renewal::time_left(&options)));
            if let Ok(Some((level, message))) = time_left {
                log!(level, "{message}");
            }
            stderr::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Outcome> {
    if let Err(error) = signals::watch() {
        warn!("cannot watch for signals, so Ctrl-C leaves challenge files behind: {error}");
    }
    if let Err(error) = signals::survive_file_size_limit() {
        warn!("cannot handle SIGXFSZ, so a limit on file sizes ends the run: {error}");
    }
    get_crt::get_crt(options)
}
