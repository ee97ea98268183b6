//! What every process of pds agrees on: names, limits, locations, configuration and messages.
//!
//! Nothing here does I/O or cryptography, and nothing here depends on another crate of the workspace,
//! so a change of this crate is a change of what the processes say to each other.

pub mod access;
pub mod child;
pub mod config;
pub mod env_name;
pub mod factor;
pub mod grant;
pub mod header;
pub mod limits;
pub mod lock_times;
pub mod name;
pub mod note;
pub mod overlap;
pub mod paths;
pub mod pattern;
pub mod pattern_set;
pub mod policy_check;
pub mod program;
pub mod project;
pub mod protocol;
pub mod reference;
pub mod rule_book;
pub mod unit;
mod wire_secret;

pub use name::{DaemonName, NameError, ProfileName, SecretName};
pub use note::{Note, NoteError};
pub use unit::{UnitName, UnitNameError};
pub use wire_secret::WireSecret;
