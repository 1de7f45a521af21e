//! Nonces for requests to come (§6.5): each is used once, and most replies bring the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::response::Response;

/// The nonces at hand, shared by all threads of a run.
#[derive(Default)]
pub struct NoncePool(Mutex<Vec<String>>);

impl NoncePool {
    /// Takes the newest nonce, which is the one least likely to have expired.
    pub fn take(&self) -> Option<String> {
        self.lock().pop()
    }

    /// Adds the nonce that a response brings, if it brings one.
    pub fn add_from_response(&self, response: &Response) {
        if let Some(nonce) = response.nonce() {
            self.lock().push(nonce.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
