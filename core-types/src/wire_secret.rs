//! A secret value while it is part of a message.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a secret inside a message: wiped when dropped, never shown, serializable only because each
/// message that carries one says so by using this type.
///
/// It lives for the length of one call. What is kept longer is kept in `core_crypto::SecureBytes`.
#[derive(Clone, Default, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct WireSecret(#[serde(with = "serde_bytes")] Vec<u8>);

impl WireSecret {
    /// Takes over the bytes; the vector is wiped with the message.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WireSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_marker_and_nothing_else() {
        assert_eq!(format!("{:?}", WireSecret::new(b"hunter2".to_vec())), "[REDACTED]");
    }
}
