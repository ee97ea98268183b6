//! The whole key schedule (BLAKE3 key derivation mode, BLAKE3 paper, section 2.3).
//!
//! ```text
//! password + salt --Argon2id--------------------------------> KEK
//! signature over a challenge --"pds v2 ssh-agent-kek {profile}"--> KEK
//! salt + recovery code --"pds v2 recovery-kek {profile}"---------> KEK
//! KEK --unwraps, itself or with as many others as the policy needs--> master key (random, 32 bytes)
//! master key --"pds v2 vault-key {profile}"-----------> vault key   opens SQLCipher, not kept
//! vault key  --"pds v2 entry-encryption-key"----------> entry key   seals each value
//! vault key  --"pds v2 freshness-key {profile}"-------> freshness key   keys the digest over all rows
//! master key --"pds v2 anchor-key {profile}"----------> anchor key  seals the anchor
//! master key --"pds v2 header-key {profile}"----------> header key  authenticates header.json
//! master key --"pds v2 backup-key {profile}"----------> backup key  authenticates backups
//! master key --"pds v2 audit-key {profile}"-----------> audit key
//! audit key + nonce --"pds v2 log-key"----------------> first key of a stretch of the audit log
//! key of an entry --"pds v2 next-log-key"-------------> key of the next entry
//! audit key  --"pds v2 audit-anchor-key"--------------> audit anchor key   seals where the log stood last
//! audit key  --"pds v2 audit-key-id"------------------> what tells it from the one before a rekey, in the log
//! master key --"pds v2 ipc-encryption-key {profile}"--> field key   build feature ipc-field-encryption
//! ```
//!
//! The texts are fixed: to change one is to lose every vault made before.

use zeroize::Zeroize;

use crate::SecureBytes;
use crate::stack::scrubbed;

/// Length of every key here, in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of what makes each key of the audit log another one, in bytes.
pub const LOG_NONCE_BYTES: usize = 16;
/// Length of the salt of a wrapping key, in bytes.
pub const SALT_BYTES: usize = 16;

fn derive(context: &str, key: &SecureBytes) -> SecureBytes {
    derive_from(context, &[key.expose()])
}

fn derive_from(context: &str, material: &[&[u8]]) -> SecureBytes {
    let mut derived = SecureBytes::zeroed(KEY_BYTES);
    scrubbed(|| {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in material {
            hasher.update(part);
        }
        let mut output = hasher.finalize_xof();
        output.fill(derived.expose_mut());
        output.zeroize();
        hasher.zeroize();
    });
    derived
}

/// The key that wraps for an SSH key: it follows from the key's signature over a challenge that names this profile
/// and 32 random bytes. Only whoever can sign with the key has it.
#[must_use]
pub fn ssh_agent_kek(signature: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 ssh-agent-kek {profile}"), signature)
}

/// The key that wraps for a recovery code, which is random and so needs no stretching; the salt, of a fixed length,
/// makes it another key in each vault.
#[must_use]
pub fn recovery_kek(code: &SecureBytes, salt: &[u8; SALT_BYTES], profile: &str) -> SecureBytes {
    derive_from(&format!("pds v2 recovery-kek {profile}"), &[salt, code.expose()])
}

/// The key that opens a profile's SQLCipher database.
#[must_use]
pub fn vault_key(master: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 vault-key {profile}"), master)
}

/// The key that seals the values of a vault.
#[must_use]
pub fn entry_key(vault_key: &SecureBytes) -> SecureBytes {
    derive("pds v2 entry-encryption-key", vault_key)
}

/// The key of the digest over all rows of a vault.
#[must_use]
pub fn freshness_key(vault_key: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 freshness-key {profile}"), vault_key)
}

/// The key that seals a vault's anchor.
#[must_use]
pub fn anchor_key(master: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 anchor-key {profile}"), master)
}

/// The key that authenticates a vault's header.
#[must_use]
pub fn header_key(master: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 header-key {profile}"), master)
}

/// The key that authenticates the backups of a vault.
#[must_use]
pub fn backup_key(master: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 backup-key {profile}"), master)
}

/// The key that everything follows from that a vault does for the audit log.
#[must_use]
pub fn audit_key(master: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 audit-key {profile}"), master)
}

/// The first key of a stretch of the audit log.
#[must_use]
pub fn log_key(audit_key: &SecureBytes, nonce: &[u8; LOG_NONCE_BYTES]) -> SecureBytes {
    derive_from("pds v2 log-key", &[nonce, audit_key.expose()])
}

/// The key of the entry after the one of `key`.
#[must_use]
pub fn next_log_key(key: &SecureBytes) -> SecureBytes {
    derive("pds v2 next-log-key", key)
}

/// The key that seals where the audit log stood last.
#[must_use]
pub fn audit_anchor_key(audit_key: &SecureBytes) -> SecureBytes {
    derive("pds v2 audit-anchor-key", audit_key)
}

/// What tells an audit key from another one, and may be known.
#[must_use]
pub fn audit_key_id(audit_key: &SecureBytes) -> [u8; 8] {
    let derived = derive("pds v2 audit-key-id", audit_key);
    let mut id = [0; 8];
    id.copy_from_slice(&derived.expose()[..8]);
    id
}

/// The key of the build feature `ipc-field-encryption`.
#[must_use]
pub fn ipc_field_key(master: &SecureBytes, profile: &str) -> SecureBytes {
    derive(&format!("pds v2 ipc-encryption-key {profile}"), master)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master() -> SecureBytes {
        SecureBytes::copy_of(&(0..=31).collect::<Vec<u8>>())
    }

    /// The expected values come from a second implementation, written from the BLAKE3 paper.
    #[test]
    fn known_answers() {
        let vault = vault_key(&master(), "work");
        let derived = [
            (vault.clone(), "d1a269fc9c231e9b80dfd4827c7db672626ad5149166b06a6e1d959589b7f59b"),
            (entry_key(&vault), "0091428ef7701ccfa8d22893517fcb99a7edfe4eb5f8132b3e8a397aca021311"),
            (
                header_key(&master(), "work"),
                "67278c7ab9bca82640dcb3980556850d9ef8afa9085560787db8bf18d2b71cfb",
            ),
            (
                ipc_field_key(&master(), "work"),
                "e22255ea73aceff18b164f1f97b045673f09ff8430a9efea8f3cb3316ffa6b79",
            ),
        ];
        for (key, expected) in derived {
            assert_eq!(hex::encode(key.expose()), expected);
        }
    }

    #[test]
    fn each_context_is_the_documented_text() {
        let expected = |context: &str| hex::encode(blake3::derive_key(context, master().expose()));
        let found = |key: SecureBytes| hex::encode(key.expose());
        assert_eq!(found(vault_key(&master(), "work")), expected("pds v2 vault-key work"));
        assert_eq!(found(entry_key(&master())), expected("pds v2 entry-encryption-key"));
        assert_eq!(found(freshness_key(&master(), "work")), expected("pds v2 freshness-key work"));
        assert_eq!(found(anchor_key(&master(), "work")), expected("pds v2 anchor-key work"));
        assert_eq!(found(header_key(&master(), "work")), expected("pds v2 header-key work"));
        assert_eq!(found(ipc_field_key(&master(), "work")), expected("pds v2 ipc-encryption-key work"));
        assert_eq!(found(backup_key(&master(), "work")), expected("pds v2 backup-key work"));
        assert_eq!(found(ssh_agent_kek(&master(), "work")), expected("pds v2 ssh-agent-kek work"));
        assert_eq!(found(audit_key(&master(), "work")), expected("pds v2 audit-key work"));
        assert_eq!(found(next_log_key(&master())), expected("pds v2 next-log-key"));
        assert_eq!(found(audit_anchor_key(&master())), expected("pds v2 audit-anchor-key"));
        assert!(expected("pds v2 audit-key-id").starts_with(&hex::encode(audit_key_id(&master()))));
        let nonced = [&[7; LOG_NONCE_BYTES][..], master().expose()].concat();
        let log = hex::encode(blake3::derive_key("pds v2 log-key", &nonced));
        assert_eq!(found(log_key(&master(), &[7; LOG_NONCE_BYTES])), log);
        let salted = [&[7; SALT_BYTES][..], master().expose()].concat();
        let expected = hex::encode(blake3::derive_key("pds v2 recovery-kek work", &salted));
        assert_eq!(found(recovery_kek(&master(), &[7; SALT_BYTES], "work")), expected);
    }

    #[test]
    fn profiles_have_different_keys() {
        assert!(!vault_key(&master(), "work").ct_eq(vault_key(&master(), "home").expose()));
        assert!(!header_key(&master(), "work").ct_eq(header_key(&master(), "home").expose()));
        assert!(!ssh_agent_kek(&master(), "work").ct_eq(ssh_agent_kek(&master(), "home").expose()));
        let recovery = |salt, profile| recovery_kek(&master(), &[salt; SALT_BYTES], profile);
        assert!(!recovery(0, "work").ct_eq(recovery(0, "home").expose()));
        assert!(!recovery(0, "work").ct_eq(recovery(1, "work").expose()));
    }
}
