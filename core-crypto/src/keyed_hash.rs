//! A keyed BLAKE3 hash over bytes as they pass by (BLAKE3 paper, section 2.3 "keyed_hash"): authenticates what is too
//! large to be held in memory.

use zeroize::Zeroize;

use crate::SecureBytes;
use crate::stack::scrubbed;

/// Length of a hash, in bytes.
pub const HASH_BYTES: usize = 32;
/// Length of a key, in bytes.
const KEY_BYTES: usize = 32;

/// A key of another length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key has not {KEY_BYTES} bytes")]
pub struct KeyLengthError;

/// A hash that is being made; wiped when dropped.
pub struct KeyedHash(blake3::Hasher);

impl KeyedHash {
    /// Begins a hash with a key of 32 bytes.
    ///
    /// # Errors
    /// The key has another length.
    pub fn new(key: &SecureBytes) -> Result<Self, KeyLengthError> {
        scrubbed(|| {
            let key: &[u8; KEY_BYTES] = key.expose().try_into().map_err(|_| KeyLengthError)?;
            Ok(Self(blake3::Hasher::new_keyed(key)))
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash over all bytes so far.
    #[must_use]
    pub fn finish(&self) -> [u8; HASH_BYTES] {
        scrubbed(|| *self.0.finalize().as_bytes())
    }

    /// Whether the hash over all bytes so far is this one, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, expected: &[u8; HASH_BYTES]) -> bool {
        scrubbed(|| self.0.finalize() == *expected)
    }
}

impl Drop for KeyedHash {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u8, pieces: &[&[u8]]) -> KeyedHash {
        let mut hash = KeyedHash::new(&SecureBytes::copy_of(&[key; KEY_BYTES])).unwrap();
        pieces.iter().for_each(|piece| hash.update(piece));
        hash
    }

    #[test]
    fn it_is_blake3s_keyed_hash_however_the_bytes_come() {
        let expected = blake3::keyed_hash(&[7; KEY_BYTES], b"all the bytes");
        assert_eq!(hash(7, &[b"all the bytes"]).finish(), *expected.as_bytes());
        assert!(hash(7, &[b"all ", b"", b"the bytes"]).matches(expected.as_bytes()));
    }

    #[test]
    fn another_key_and_other_bytes_do_not_match() {
        let expected = hash(7, &[b"bytes"]).finish();
        assert!(!hash(8, &[b"bytes"]).matches(&expected));
        assert!(!hash(7, &[b"byte"]).matches(&expected));
        assert!(KeyedHash::new(&SecureBytes::zeroed(31)).is_err());
    }
}
