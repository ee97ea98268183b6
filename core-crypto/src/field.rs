//! The build feature `ipc-field-encryption`: each value on the bus encrypted once more, inside the sealed session, for
//! its profile and name.
//!
//! A value travels as 12 random nonce bytes, ciphertext and tag (AES-256-GCM), under the field key of its profile, with
//! profile and name as associated data. Whoever holds the field key is whoever may read the profile anyway; see
//! ARCHITECTURE.md for the reasons why the feature is off by default.

use crate::SecureBytes;
use crate::aead::{self, AeadError};

/// Bytes that a value has more on the wire.
pub const OVERHEAD: usize = aead::NONCE_BYTES + aead::TAG_BYTES;

/// What a value is encrypted for. No name holds a NUL, so that two places never have the same bytes.
fn place(profile: &str, name: &str) -> Vec<u8> {
    format!("pds v2 ipc field\0{profile}\0{name}").into_bytes()
}

/// Encrypts a value for the wire.
///
/// # Errors
/// A key of another length, or no random bytes.
pub fn seal(key: &SecureBytes, profile: &str, name: &str, value: &[u8]) -> Result<Vec<u8>, AeadError> {
    aead::seal(key, &place(profile, name), value)
}

/// Decrypts a value from the wire, into memory that is wiped when it is dropped.
///
/// # Errors
/// It was not encrypted with this key for this profile and name.
pub fn open(key: &SecureBytes, profile: &str, name: &str, sealed: &[u8]) -> Result<SecureBytes, AeadError> {
    aead::open(key, &place(profile, name), sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecureBytes {
        SecureBytes::copy_of(&[byte; aead::KEY_BYTES])
    }

    #[test]
    fn a_field_opens_with_its_key_for_its_profile_and_name_only() {
        let sealed = seal(&key(1), "work", "db/user", b"value").unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert!(!sealed.windows(5).any(|window| window == b"value"));
        assert_eq!(open(&key(1), "work", "db/user", &sealed).unwrap().expose(), b"value");
        for (key, profile, name) in
            [(key(2), "work", "db/user"), (key(1), "home", "db/user"), (key(1), "work", "db/word")]
        {
            assert_eq!(open(&key, profile, name, &sealed).unwrap_err(), AeadError::Mismatch);
        }
    }

    #[test]
    fn a_field_begins_with_a_nonce_of_its_own() {
        let (one, other) = (seal(&key(1), "p", "n", b"").unwrap(), seal(&key(1), "p", "n", b"").unwrap());
        assert_eq!((one.len(), other.len()), (28, 28));
        assert_ne!(one[..aead::NONCE_BYTES], other[..aead::NONCE_BYTES]);
    }
}
