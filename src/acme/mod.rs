//! The protocol: what is sent to a CA and what comes back (RFC 8555). Sections in the comments of
//! this folder are RFC 8555's unless another RFC is named.
//!
//! Imports point one way: `client` puts `account_key`, `nonces`, `transport` and `retry` together;
//! `transport` returns a `response`, which holds one of the `resources` or a `problem`. The loops that wait
//! for the CA are outside, where the reader looks for them; `polling` has their pauses.

pub mod account_key;
pub mod client;
mod nonces;
pub mod polling;
pub mod problem;
mod purpose;
mod request_error;
pub mod resources;
pub mod response;
mod retry;
mod transport;

pub use purpose::Purpose;
pub use transport::{BUFFER_BYTES, MAX_CONNECTIONS, MIN_TIMEOUT, USER_AGENT};
