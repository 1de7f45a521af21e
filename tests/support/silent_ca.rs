//! A CA that getcrt must never ask: what is wrong has to be found before.

use std::fs;
use std::net::TcpListener;

use snapbox::data::Inline;

use super::files::https;
use super::run::Run;
use super::setup::{Ca, Setup, user_directory};
use super::web::Web;
use super::{free_port, listen};

/// It notices when somebody connects, and does not answer.
pub struct SilentCa {
    listener: TcpListener,
    port: u16,
}

impl Ca for SilentCa {
    fn directory_url(&self) -> String {
        format!("https://127.0.0.1:{}/directory", self.port)
    }

    fn root(&self) -> Vec<u8> {
        fs::read(&https().root).unwrap()
    }
}

impl SilentCa {
    pub fn was_asked(&self) -> bool {
        self.listener.accept().is_ok()
    }

    /// Its https URL, without a path.
    pub fn base_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Setup<SilentCa> {
    /// A user with a CSR for `a.test`, and a CA that must not be asked.
    pub fn with_silent_ca() -> Setup<SilentCa> {
        let directory = user_directory();
        let web = Web::serving(&directory.path().join("acme"));
        let port = free_port();
        let listener = listen("127.0.0.1", port);
        listener.set_nonblocking(true).unwrap();
        Setup::new(directory, web, SilentCa { listener, port }, &["a.test"])
    }

    /// getcrt must fail with this stderr, without asking the CA or leaving a file.
    #[track_caller]
    pub fn is_refused(&self, stderr: Inline) {
        self.run_is_refused(self.getcrt(), stderr);
    }

    /// `run` must fail with this stderr, without asking the CA or leaving a file.
    #[track_caller]
    pub fn run_is_refused(&self, run: Run, stderr: Inline) {
        let outcome = run.outcome();
        outcome.failed("").stderr_is(stderr);
        assert!(!self.ca.was_asked(), "the CA was asked\n{outcome}");
        self.nothing_is_left_in_the_directories(&outcome);
    }
}
