//! What a user, a shell script and a CA see of getcrt. Needs Pebble, nginx, curl, openssl and
//! libnss-wrapper; `sh tests/run.sh` installs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::shadow_unrelated,
    reason = "a test fails by a panic, and may run getcrt several times"
)]

mod accounts;
mod bench;
mod cli;
mod drop_in;
mod examples;
mod faults;
mod manual;
mod pebble;
mod readme;
mod recipes;
mod renewal;
mod scale;
mod static_build;
mod support;
mod trace;
