//! Looks up the addresses of a host.

use std::sync::mpsc;
use std::thread;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, time::Duration};

/// ureq's resolver, which panics where it cannot start a thread for its timeout. This one does without the timeout
/// then.
#[derive(Debug)]
pub struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    /// Returns the addresses of the host.
    ///
    /// # Errors
    /// The host is unknown, or the timeout is over.
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
            Err(_) => Err(ureq::Error::Timeout(timeout.reason)),
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
