//! Signals that end the run. They remove its files, and tell the user, before the process dies.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fs, io, process, thread};

use log::error;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, exit, signal_name};

use crate::temporary::{self, Removed};

/// The signals by which users, shells and service managers end a process.
const SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// How long printing the last line may take. Nobody may be reading stderr any more.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether an issued certificate may have been written.
static MAY_BE_WRITTEN: AtomicBool = AtomicBool::new(false);

/// Notes that a certificate may have been written, so that the message of a signal does not deny it.
pub fn certificate_is_being_written() {
    MAY_BE_WRITTEN.store(true, Relaxed);
}

/// From now on a signal removes all temporary files before it ends the process. A signal that is ignored, such as
/// SIGHUP under nohup, stays ignored (but not without /proc).
///
/// # Errors
/// The operating system refuses a signal handler or a thread.
pub fn watch() -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    // The thread comes first: with handlers and no thread, signals would be swallowed.
    thread::Builder::new().spawn(move || {
        let watched = SIGNALS.into_iter().filter(|signal| !is_ignored(*signal));
        match Signals::new(watched) {
            Ok(mut signals) => {
                let _ = sender.send(Ok(()));
                for signal in signals.forever() {
                    end_by(signal);
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    })?;
    let gone = |_| Err(io::Error::other("the thread has ended"));
    receiver.recv().unwrap_or_else(gone)
}

/// From now on a write beyond the limit of a file's size (`ulimit -f`) is an error, and not the end of the process.
///
/// # Errors
/// The operating system refuses a signal handler.
pub fn survive_file_size_limit() -> io::Result<()> {
    // Nobody reads the flag. What counts is that there is a handler.
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// Cleans up, and ends the process as the signal would have.
fn end_by(signal: i32) {
    // This is held until the process ends, so no file is created after this.
    let removed = temporary::remove_all();
    print_in_time(describe(signal, &removed), &removed.left);
    // The kernel does not let a signal of its own kill the first process of a container.
    if process::id() == 1 {
        exit(128 + signal);
    }
    let _ = emulate_default_handler(signal);
}

fn describe(signal: i32, removed: &Removed) -> String {
    let name = signal_name(signal).unwrap_or("a signal");
    let mut message = format!("error: stopped by {name}");
    if !MAY_BE_WRITTEN.load(Relaxed) {
        message += "; no certificate was written";
    }
    match removed.count {
        0 => {}
        1 => message += ", 1 temporary file was removed",
        count => message += &format!(", {count} temporary files were removed"),
    }
    message
}

/// Prints the message and the files that are left, but does not wait for ever until somebody reads them. (Another
/// thread may be blocked while it prints, and hold the lock of stderr.)
fn print_in_time(message: String, left: &[String]) {
    let (sender, receiver) = mpsc::channel();
    let lines: Vec<String> = left
        .iter()
        .map(|file| format!("  cannot remove {file}"))
        .collect();
    let print = move || {
        error!("{message}");
        for line in lines {
            error!("{line}");
        }
        let _ = sender.send(());
    };
    // If no thread can be started, nothing is printed.
    if thread::Builder::new().spawn(print).is_ok() {
        let _ = receiver.recv_timeout(PRINT_TIMEOUT);
    }
}

/// Whether this process was started with a signal ignored. Linux shows a bit mask, in which signal 1 is the
/// lowest bit.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.unwrap_or_default().trim(), 16).unwrap_or(0);
    let bit = 1 << (signal - 1);
    mask & bit != 0
}
