//! One way to unlock: what of it is kept, and how it wraps the master key.

use core_crypto::kdf::{Argon2Params, SALT_BYTES, derive_kek};
use core_crypto::{SecureBytes, aead, key_schedule};
use core_types::ProfileName;
use serde::{Deserialize, Serialize};

use super::file::fixed_hex;
use super::{HeaderError, exactly};

const WRAPPED_BYTES: usize = aead::NONCE_BYTES + key_schedule::KEY_BYTES + aead::TAG_BYTES;

/// A way to unlock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Factor {
    /// A password, stretched by Argon2id.
    Password {
        /// Salt of the stretching.
        #[serde(with = "fixed_hex")]
        salt: [u8; SALT_BYTES],
        /// Cost of the stretching.
        argon2: Cost,
        /// The master key, sealed with the stretched password.
        #[serde(with = "fixed_hex")]
        wrapped_master_key: [u8; WRAPPED_BYTES],
    },
}

/// [`Argon2Params`] as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl From<Argon2Params> for Cost {
    fn from(params: Argon2Params) -> Self {
        Self { memory_kib: params.memory_kib, passes: params.passes, lanes: params.lanes }
    }
}

impl From<Cost> for Argon2Params {
    fn from(cost: Cost) -> Self {
        Self { memory_kib: cost.memory_kib, passes: cost.passes, lanes: cost.lanes }
    }
}

pub(super) fn wrap(
    profile: &ProfileName,
    master: &SecureBytes,
    password: &[u8],
    params: Argon2Params,
) -> Result<Factor, HeaderError> {
    let salt = exactly(SecureBytes::random(SALT_BYTES)?.expose())?;
    let kek = derive_kek(password, &salt, &params)?;
    let wrapped = aead::seal(&kek, &wrapped_for(profile), master.expose())?;
    Ok(Factor::Password { salt, argon2: params.into(), wrapped_master_key: exactly(&wrapped)? })
}

/// The master key if this is the factor's password, `None` if it is not.
pub(super) fn unwrap(
    profile: &ProfileName,
    factor: &Factor,
    password: &[u8],
) -> Result<Option<SecureBytes>, HeaderError> {
    let Factor::Password { salt, argon2, wrapped_master_key } = factor;
    let kek = derive_kek(password, salt, &(*argon2).into())?;
    Ok(aead::open(&kek, &wrapped_for(profile), wrapped_master_key).ok())
}

/// Associated data of a wrapped key: whose it is and how it was wrapped.
fn wrapped_for(profile: &ProfileName) -> Vec<u8> {
    format!("pds v2 factor\0password\0{profile}").into_bytes()
}
