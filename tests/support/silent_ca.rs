//! A CA that getcrt must never ask: what is wrong has to be found before.

use std::fs;
use std::net::TcpListener;

use super::files::https;
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
        format!("{}/directory", self.base_url())
    }

    fn root(&self) -> Vec<u8> {
        fs::read(&https().root).unwrap()
    }

    fn complaints(&self) -> Vec<String> {
        if self.was_asked() {
            vec!["getcrt has connected to the CA".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn may_issue(&self) -> bool {
        false
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
}
