//! The protocol: what is sent to a CA and what comes back (RFC 8555). Section numbers in the comments of this
//! folder refer to RFC 8555 unless another RFC is named.
//!
//! The main imports, which point one way:
//!
//! ```text
//! client -> account_key, nonces, retry, transport
//! transport -> response -> link, resources -> problem
//! ```
//!
//! The loops that wait for the CA are outside, in `authorize.rs`, `validation.rs` and `get_crt.rs`. They take
//! their pauses from `polling`, or from `retry` after an error.

pub mod account_key;
pub mod client;
mod link;
mod nonces;
pub mod polling;
pub mod problem;
mod purpose;
mod request_error;
pub mod resources;
pub mod response;
pub mod retry;
mod transport;

pub use purpose::Purpose;
pub use transport::{BUFFER_BYTES, MAX_CONNECTIONS, MIN_TIMEOUT, USER_AGENT};
