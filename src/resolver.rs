//! Looks up the addresses of a host.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, time::Duration};

/// Resolves as ureq's resolver does. If no thread can be started for the timeout, ureq's panics, and this one resolves
/// without a timeout.
#[derive(Debug)]
pub struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    /// Returns the addresses of the host.
    ///
    /// # Errors
    /// The host is unknown, the lookup fails, or the timeout is over.
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (sender, receiver) = mpsc::channel();
        let owned_uri = uri.clone();
        let owned_config = config.clone();
        let work = move || {
            let _ = sender.send(resolve_without_timeout(&owned_uri, &owned_config));
        };
        if thread::Builder::new().spawn(work).is_err() {
            return resolve_without_timeout(uri, config);
        }
        match receiver.recv_timeout(*timeout.after) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(ureq::Error::Timeout(timeout.reason)),
            // The thread has panicked.
            Err(RecvTimeoutError::Disconnected) => Err(ureq::Error::HostNotFound),
        }
    }
}

fn resolve_without_timeout(uri: &Uri, config: &Config) -> Result<ResolvedSocketAddrs, ureq::Error> {
    let timeout = NextTimeout {
        after: Duration::NotHappening,
        ..NextTimeout::default()
    };
    DefaultResolver::default().resolve(uri, config, timeout)
}
