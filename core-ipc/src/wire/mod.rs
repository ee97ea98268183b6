//! The wire without sockets and clocks: bytes in, frames out.

pub mod connection;
pub mod frame;
pub mod noise;
mod suite;

pub use connection::{Connection, WireError};
pub use frame::{Body, Frame};
pub use noise::{Identity, PublicKey};
