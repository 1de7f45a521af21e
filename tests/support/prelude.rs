//! What nearly every test file needs.

pub use std::fs;
pub use std::path::{Path, PathBuf};
pub use std::process::{Command, Stdio};
pub use std::time::{Duration, Instant};

pub use serde_json::{Value, json};
pub use snapbox::str;

pub use super::fake_ca::{FakeCa, FakeCaBuilder, Issuer, Reply, Wire, token};
pub use super::files::{csr, directory, https, key, listing, openssl, self_signed, set_mode, text};
pub use super::pebble::Pebble;
pub use super::run::{GETCRT, Outcome, Run, getcrt_for_a_shell};
pub use super::setup::{Ca, Setup};
pub use super::web::{Request, Web, response};
pub use super::{PATIENCE, Server, await_port, await_that, free_port};
