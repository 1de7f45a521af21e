//! What a CA, a network, a disk or a neighbour can do wrong, one fault a test.

mod account;
mod attacks;
mod chain;
mod clock;
mod files_and_disk;
mod hostile_replies;
mod network;
mod nonces;
mod order;
mod proxy;
pub mod self_check;
mod signals;
mod terminal;
mod unknown;
mod validation;
