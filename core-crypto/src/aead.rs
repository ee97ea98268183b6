//! AES-256-GCM with a random 96-bit nonce and associated data (NIST SP 800-38D).
//!
//! Sealed form: 12 nonce bytes, ciphertext, 16 tag bytes. With random nonces one key may seal 2^32 messages
//! (SP 800-38D, section 8.3).

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};

use crate::stack::scrubbed;
use crate::{SecureBytes, random};

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 12;
/// Length of a tag, in bytes.
pub const TAG_BYTES: usize = 16;

/// Why nothing was sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AeadError {
    /// The key has not 32 bytes.
    #[error("the key has not {KEY_BYTES} bytes")]
    KeyLength,
    /// The kernel gave no random nonce.
    #[error("the kernel gave no random bytes")]
    Entropy,
    /// More than AES-GCM can take (64 GiB).
    #[error("the plaintext is too long")]
    TooLong,
    /// Too short to be anything sealed.
    #[error("the sealed bytes are too short")]
    TooShort,
    /// Another key, other associated data, or changed bytes: which of them cannot be told.
    #[error("the sealed bytes do not belong to this key and place")]
    Mismatch,
}

fn cipher(key: &SecureBytes) -> Result<Aes256Gcm, AeadError> {
    if key.len() != KEY_BYTES {
        return Err(AeadError::KeyLength);
    }
    Ok(Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key.expose())))
}

/// Encrypts `plaintext` for this key and these associated data, under a fresh random nonce.
///
/// # Errors
/// A key of another length, no random bytes, or a plaintext over 64 GiB.
pub fn seal(key: &SecureBytes, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, AeadError> {
    scrubbed(|| {
        let cipher = cipher(key)?;
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plaintext.len() + TAG_BYTES);
        sealed.resize(NONCE_BYTES, 0);
        random::fill(&mut sealed).map_err(|_| AeadError::Entropy)?;
        sealed.extend_from_slice(plaintext);
        let (nonce, body) = sealed.split_at_mut(NONCE_BYTES);
        let tag = cipher
            .encrypt_in_place_detached(Nonce::from_slice(nonce), associated, body)
            .map_err(|_| AeadError::TooLong)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    })
}

/// Decrypts what [`seal`] made with the same key and associated data, straight into guarded memory.
///
/// # Errors
/// Anything but exactly that.
pub fn open(key: &SecureBytes, associated: &[u8], sealed: &[u8]) -> Result<SecureBytes, AeadError> {
    let (sealed, tag) = sealed.split_last_chunk().ok_or(AeadError::TooShort)?;
    open_detached(key, associated, sealed, tag)
}

/// As [`open`], for sealed bytes that are kept apart from their tag, the last [`TAG_BYTES`] of them.
///
/// # Errors
/// Anything but exactly what [`seal`] made.
pub fn open_detached(
    key: &SecureBytes,
    associated: &[u8],
    sealed: &[u8],
    tag: &[u8; TAG_BYTES],
) -> Result<SecureBytes, AeadError> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(AeadError::TooShort)?;
    scrubbed(|| {
        let cipher = cipher(key)?;
        let mut plaintext = SecureBytes::copy_of(body);
        cipher
            .decrypt_in_place_detached(
                Nonce::from_slice(nonce),
                associated,
                plaintext.expose_mut(),
                Tag::from_slice(tag),
            )
            .map_err(|_| AeadError::Mismatch)?;
        Ok(plaintext)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(byte: u8) -> SecureBytes {
        SecureBytes::copy_of(&[byte; KEY_BYTES])
    }

    /// Test case 16 of "The Galois/Counter Mode of Operation" (McGrew, Viega), as NIST took it over.
    #[test]
    fn opens_the_published_vector() {
        let hex = |text: &str| hex::decode(text).unwrap();
        let key =
            SecureBytes::copy_of(&hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"));
        let sealed = hex(concat!(
            "cafebabefacedbaddecaf888",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b"
        ));
        let plaintext = open(&key, &hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"), &sealed).unwrap();
        let expected = concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        );
        assert_eq!(hex::encode(plaintext.expose()), expected);
    }

    #[test]
    fn only_the_same_key_and_place_open_it() {
        let sealed = seal(&key(1), b"here", b"value").unwrap();
        assert_eq!(open(&key(1), b"here", &sealed).unwrap().expose(), b"value");
        assert_eq!(open(&key(2), b"here", &sealed).unwrap_err(), AeadError::Mismatch);
        assert_eq!(open(&key(1), b"there", &sealed).unwrap_err(), AeadError::Mismatch);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let sealed = seal(&key(1), b"", b"value").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key(1), b"", &changed).unwrap_err(), AeadError::Mismatch, "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(open(&key(1), b"", &sealed[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn nothing_is_a_value_too() {
        let sealed = seal(&key(1), b"here", b"").unwrap();
        assert_eq!(sealed.len(), NONCE_BYTES + TAG_BYTES);
        assert!(open(&key(1), b"here", &sealed).unwrap().is_empty());
    }

    #[test]
    fn nonces_do_not_repeat() {
        let nonces: HashSet<Vec<u8>> =
            (0..10_000).map(|_| seal(&key(1), b"", b"").unwrap()[..NONCE_BYTES].to_vec()).collect();
        assert_eq!(nonces.len(), 10_000);
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for len in [0, 16, 31, 33] {
            let short = SecureBytes::zeroed(len);
            assert_eq!(seal(&short, b"", b"").unwrap_err(), AeadError::KeyLength);
            assert_eq!(open(&short, b"", &[0; 28]).unwrap_err(), AeadError::KeyLength);
        }
    }
}
