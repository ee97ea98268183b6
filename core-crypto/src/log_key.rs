//! The key that proves who wrote the entries of a log: another one for each entry, made from the one before, which is
//! wiped. Whoever gets hold of it can forge what is still to come, and nothing that has been written.

use crate::SecureBytes;
use crate::hash_chain::Link;
use crate::key_schedule::{self, KEY_BYTES};
use crate::keyed_hash::KeyedHash;
use crate::random::EntropyError;

/// Length of a proof, in bytes.
pub const PROOF_BYTES: usize = 16;
/// Length of what makes each key from a vault another one, in bytes.
pub const NONCE_BYTES: usize = key_schedule::LOG_NONCE_BYTES;

/// The key of the entry to come.
#[derive(Clone)]
pub struct LogKey(SecureBytes);

impl LogKey {
    /// A key that nobody can make again.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> Result<Self, EntropyError> {
        Ok(Self(SecureBytes::random(KEY_BYTES)?))
    }

    /// A key of 32 bytes; `None` if there are more or fewer.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == KEY_BYTES).then(|| Self(SecureBytes::copy_of(bytes)))
    }

    /// The key that follows from a vault's audit key, and can be made again with it.
    #[must_use]
    pub fn from_vault(audit_key: &SecureBytes, nonce: &[u8; NONCE_BYTES]) -> Self {
        Self(key_schedule::log_key(audit_key, nonce))
    }

    /// What proves that an entry was written by who had this key: depends on it and on all before it.
    #[must_use]
    pub fn proof(&self, previous: &Link, entry: &[u8]) -> [u8; PROOF_BYTES] {
        let mut proof = [0; PROOF_BYTES];
        if let Ok(mut hash) = KeyedHash::new(&self.0) {
            hash.update(previous.as_bytes());
            hash.update(entry);
            proof.copy_from_slice(&hash.finish()[..PROOF_BYTES]);
        }
        proof
    }

    /// Replaces the key by the one of the next entry.
    pub fn advance(&mut self) {
        self.0 = key_schedule::next_log_key(&self.0);
    }

    /// The bytes of the key, to be kept.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_depends_on_the_key_the_chain_and_the_entry() {
        let key = LogKey::of(&[7; 32]).unwrap();
        let proof = key.proof(&Link::GENESIS, b"entry");
        assert_eq!(proof, key.clone().proof(&Link::GENESIS, b"entry"));
        assert_ne!(proof, key.proof(&Link::GENESIS.next(b"x"), b"entry"));
        assert_ne!(proof, key.proof(&Link::GENESIS, b"entrz"));
        let mut next = key.clone();
        next.advance();
        assert_ne!(proof, next.proof(&Link::GENESIS, b"entry"));
        assert_ne!(key.expose(), next.expose());
        assert!(LogKey::of(&[7; 31]).is_none());
    }

    #[test]
    fn a_vault_makes_the_same_key_again_for_the_same_nonce_only() {
        let vault = SecureBytes::copy_of(&[1; 32]);
        let key = |nonce: u8| LogKey::from_vault(&vault, &[nonce; NONCE_BYTES]);
        assert_eq!(key(1).expose(), key(1).expose());
        assert_ne!(key(1).expose(), key(2).expose());
    }
}
