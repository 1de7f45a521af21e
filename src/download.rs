//! Downloads the chain of an issued certificate. Section numbers in the comments refer to RFC 8555.
//!
//! A CA can offer several chains for one certificate, which lead to different roots. It sends one of them, and links to
//! the others.

use std::time::Duration;

use anyhow::Result;
use log::warn;

use crate::acme::Purpose;
use crate::acme::client::Client;
use crate::acme::resources::AcmeUrl;
use crate::acme::response::Response;
use crate::chain::{self, Chain};
use crate::csr::Csr;
use crate::panics;
use crate::text::excerpt;

/// The least time that the download of an issued certificate is given, even if the deadline is over.
const DOWNLOAD_GRACE: Duration = Duration::from_secs(4);
/// How many alternate chains are downloaded, at most, while the issued certificate waits.
const MAX_ALTERNATES: usize = 10;
/// How long the downloads of all alternate chains together may take.
const ALTERNATES_TIMEOUT: Duration = Duration::from_secs(15);

/// Downloads the chain (§7.4.2), or the one that leads to `preferred` if the CA offers it, and checks it.
///
/// # Errors
/// The CA refuses, cannot be reached, or sends something that is no chain or not fit for the CSR.
pub fn download_chain(
    client: &Client,
    url: &AcmeUrl,
    csr: &Csr,
    preferred: Option<&str>,
) -> Result<Chain> {
    let patient = client.with_grace(DOWNLOAD_GRACE);
    let response = patient.post_as_get(Purpose::Certificate, url)?;
    let default_chain = Chain::from_ca(&response.body)?;
    if let Some(defect) = default_chain.defect(csr) {
        // The alternates have it, too: they are chains for the same certificate.
        return Err(defect.into());
    }
    let chosen = match preferred {
        Some(name) if default_chain.top_issuer() != name => {
            let mut chains = vec![default_chain];
            chains.extend(download_alternates(&patient, &response, csr));
            choose(chains, name)
        }
        _ => default_chain,
    };
    chosen.check(csr)?;
    chosen.warn_of_oddities(csr);
    Ok(chosen)
}

/// Returns the chain that leads to `preferred`. If there is none, that is a warning, and this returns the first chain, which
/// is the CA's own choice.
fn choose(mut chains: Vec<Chain>, preferred: &str) -> Chain {
    let index = chain::find_preferred(&chains, preferred).unwrap_or_else(|| {
        let mut roots: Vec<String> = Vec::new();
        for chain in &chains {
            let root = format!("`{}`", excerpt(&chain.top_issuer()));
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        let roots = roots.join(", ");
        warn!("the CA offers no chain that leads to `{preferred}`, but to {roots}");
        0
    });
    chains.swap_remove(index)
}

/// Returns the alternate chains that are fit for the CSR, of the first [`MAX_ALTERNATES`] and as many as can be downloaded
/// within [`ALTERNATES_TIMEOUT`].
fn download_alternates(client: &Client, default_response: &Response, csr: &Csr) -> Vec<Chain> {
    let urls = default_response.alternate_urls();
    let hurried = client.with_timeout(ALTERNATES_TIMEOUT);
    let mut chains = Vec::new();
    for (index, url) in urls.iter().enumerate() {
        if index == MAX_ALTERNATES || hurried.deadline().remaining().is_zero() {
            let left = urls.len() - index;
            let count = urls.len();
            let seconds = ALTERNATES_TIMEOUT.as_secs();
            warn!(
                "{left} of {count} alternate chains were not looked at (at most {MAX_ALTERNATES} are, within {seconds} s)"
            );
            break;
        }
        // A fault in this is no reason to lose the chain that is there.
        let downloaded = panics::catch(|| {
            let response = hurried.post_as_get(Purpose::Certificate, url)?;
            let chain = Chain::from_ca(&response.body)?;
            chain.check(csr)?;
            Ok(chain)
        });
        match downloaded {
            Ok(chain) => chains.push(chain),
            Err(error) => warn!("an alternate chain cannot be used: {error:#}"),
        }
    }
    chains
}
