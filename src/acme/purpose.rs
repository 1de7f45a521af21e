//! What a request to the CA is for.

use std::fmt;

use super::resources::Identifier;

/// What a request is for. `-v` shows it, and it decides between GET and HEAD.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// The CA's entry points (§7.1.1).
    Directory,
    /// Asking when to renew a certificate (RFC 9773).
    RenewalInfo,
    /// A fresh nonce (§7.2).
    NewNonce,
    /// Registering the account key, or finding its account (§7.3).
    NewAccount,
    /// Updating the account (§7.3.2).
    Account,
    /// Ordering a certificate (§7.4).
    NewOrder,
    /// Reading the order.
    Order,
    /// Reading an authorization (§7.5), whose identifier may not be known yet.
    Authorization(Option<&'a Identifier>),
    /// Telling the CA that it can validate this identifier's challenge (§7.5.1).
    Challenge(&'a Identifier),
    /// Sending the CSR (§7.4).
    Finalize,
    /// Downloading a chain (§7.4.2).
    Certificate,
}

impl fmt::Display for Purpose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Directory => f.write_str("directory"),
            Purpose::RenewalInfo => f.write_str("renewalInfo"),
            Purpose::NewNonce => f.write_str("newNonce"),
            Purpose::NewAccount => f.write_str("newAccount"),
            Purpose::Account => f.write_str("account"),
            Purpose::NewOrder => f.write_str("newOrder"),
            Purpose::Order => f.write_str("order"),
            Purpose::Authorization(None) => f.write_str("authorization"),
            Purpose::Authorization(Some(identifier)) => write!(f, "authorization of {identifier}"),
            Purpose::Challenge(identifier) => write!(f, "challenge of {identifier}"),
            Purpose::Finalize => f.write_str("finalize"),
            Purpose::Certificate => f.write_str("certificate"),
        }
    }
}
