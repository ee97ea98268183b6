//! `SecureBytes`, the one type for secrets that are kept: locked, guarded, and wiped when dropped.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::memory::Block;
use crate::random::{self, EntropyError};

/// Secret bytes of a fixed length, in guarded memory (see [`crate::memory`]).
///
/// There is no `Display`, `Serialize`, `Deref` or `PartialEq`: each use of the bytes says [`Self::expose`].
/// A clone is a copy of its own in the same kind of memory; each is wiped when it is dropped.
pub struct SecureBytes(Block);

impl SecureBytes {
    /// `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self(Block::zeroed(len))
    }

    /// A copy of `bytes`; wiping the original is up to its owner.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.expose_mut().copy_from_slice(bytes);
        copy
    }

    /// `len` bytes from the kernel's random number generator (getrandom(2)).
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn random(len: usize) -> Result<Self, EntropyError> {
        let mut bytes = Self::zeroed(len);
        random::fill(bytes.expose_mut())?;
        Ok(bytes)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The bytes themselves, to be written.
    #[must_use]
    pub fn expose_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `other` has the same bytes, in a time that depends only on the lengths.
    #[must_use]
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.expose().ct_eq(other).into()
    }
}

impl Clone for SecureBytes {
    fn clone(&self) -> Self {
        Self::copy_of(self.expose())
    }
}

impl fmt::Debug for SecureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_marker_and_nothing_else() {
        assert_eq!(format!("{:?}", SecureBytes::copy_of(b"hunter2")), "[REDACTED]");
    }

    #[test]
    fn a_clone_lives_on_its_own() {
        let mut first = SecureBytes::copy_of(b"value");
        let second = first.clone();
        first.expose_mut().fill(b'x');
        assert_eq!(second.expose(), b"value");
        drop(first);
        assert_eq!(second.expose(), b"value");
    }

    #[test]
    fn no_bytes_are_bytes_too() {
        let empty = SecureBytes::copy_of(b"");
        assert!(empty.is_empty() && empty.clone().is_empty() && empty.ct_eq(b""));
        assert_eq!(SecureBytes::random(0).unwrap().len(), 0);
    }

    #[test]
    fn comparison_sees_every_byte_and_the_length() {
        let bytes = SecureBytes::copy_of(b"abc");
        assert!(bytes.ct_eq(b"abc"));
        for other in [&b"abd"[..], b"xbc", b"ab", b"abcd", b""] {
            assert!(!bytes.ct_eq(other));
        }
    }

    #[test]
    fn random_bytes_differ() {
        assert!(!SecureBytes::random(32).unwrap().ct_eq(SecureBytes::random(32).unwrap().expose()));
    }
}
