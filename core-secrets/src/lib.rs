//! The vault: where secrets are stored, how they are opened, and how long a decrypted one is kept.
//!
//! No sockets, no policy and no users here: who may have a secret is decided before this crate is asked.

pub mod anchor;
pub mod backup;
pub mod compliance;
pub mod freshness;
pub mod header;
pub mod jit;
pub mod memory_store;
pub mod sqlcipher;
pub mod store;
pub mod vault;
