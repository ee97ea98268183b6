//! The bus of pds, seen from its ends: the Noise IK wire as pure state machines, sealed sessions from end to end,
//! and the thin drivers that move their bytes over Unix sockets.
//!
//! `wire` and `seal` know no socket and no clock. `client` (async, for daemons) and `blocking` (for the command
//! line, without an async runtime) are two drivers of the same state machines; the bus daemon is the third.

pub mod blocking;
mod client;
pub mod enrolled;
mod error;
#[cfg(test)]
mod golden;
pub mod key_file;
pub mod namespaces;
pub mod seal;
pub mod socket;
pub mod terminal_state;
pub mod transport;
pub mod wire;

pub use client::{BusClient, Connector, Inbound, InboundRequest, RequestTicket};
pub use error::{CallError, CallOptions, ConnectError};
