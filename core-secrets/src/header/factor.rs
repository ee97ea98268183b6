//! One way to unlock: what of it is kept, the key that follows from it, and what that key seals.

use core_crypto::kdf::{Argon2Params, SALT_BYTES, derive_kek};
use core_crypto::{SecureBytes, aead, key_schedule};
use core_types::ProfileName;
use core_types::factor::{AGENT_NONCE_BYTES, AgentKeyKind, FactorKind, FactorLabel};
use serde::{Deserialize, Serialize};

use super::file::{any_hex, fixed_hex};
use super::{HeaderError, exactly, now_unix_ms};

/// What a factor seals: the master key, or its share of the key that seals the master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealed {
    MasterKey,
    Share,
}

impl Sealed {
    /// How many bytes it has when it is sealed; a share has one more, its number.
    pub(super) fn bytes(self) -> usize {
        let own = match self {
            Self::MasterKey => key_schedule::KEY_BYTES,
            Self::Share => key_schedule::KEY_BYTES + 1,
        };
        aead::NONCE_BYTES + own + aead::TAG_BYTES
    }

    fn name(self) -> &'static str {
        match self {
            Self::MasterKey => "master-key",
            Self::Share => "share",
        }
    }
}

/// A way to unlock, as the header keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// Its number, which no other factor of the vault ever has.
    pub id: u32,
    /// What the user calls it.
    pub label: FactorLabel,
    /// When it was added, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
    /// What it is.
    pub way: Way,
    #[serde(with = "any_hex")]
    pub(super) sealed: Vec<u8>,
}

/// What a factor is, and what is needed besides its secret to derive its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Way {
    /// A password, stretched by Argon2id.
    Password {
        /// Salt of the stretching.
        #[serde(with = "fixed_hex")]
        salt: [u8; SALT_BYTES],
        /// Cost of the stretching.
        argon2: Cost,
    },
    /// An SSH key that signs a challenge.
    SshAgent {
        /// The public key (RFC 4253, section 6.6).
        #[serde(with = "any_hex")]
        public_key: Vec<u8>,
        /// The random part of the challenge.
        #[serde(with = "fixed_hex")]
        nonce: [u8; AGENT_NONCE_BYTES],
    },
    /// A recovery code.
    Recovery {
        /// Makes its key another one in each vault.
        #[serde(with = "fixed_hex")]
        salt: [u8; SALT_BYTES],
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

/// A factor to be enrolled, with its secret.
#[derive(Debug)]
pub enum NewFactor {
    /// A password.
    Password(SecureBytes),
    /// An SSH key.
    SshAgent {
        /// The public key.
        public_key: Vec<u8>,
        /// The random part of the challenge.
        nonce: [u8; AGENT_NONCE_BYTES],
        /// Its signature over the challenge.
        signature: SecureBytes,
    },
    /// A recovery code.
    Recovery(SecureBytes),
}

impl NewFactor {
    /// What is kept of it, and its key. Blocks for as long as Argon2 takes where it is a password.
    pub(super) fn enroll(
        self,
        profile: &ProfileName,
        params: Argon2Params,
    ) -> Result<(Way, SecureBytes), HeaderError> {
        let (way, secret) = match self {
            Self::Password(password) => {
                (Way::Password { salt: random_salt()?, argon2: params.into() }, password)
            }
            Self::SshAgent { public_key, nonce, signature } => {
                (Way::SshAgent { public_key, nonce }, signature)
            }
            Self::Recovery(code) => (Way::Recovery { salt: random_salt()? }, code),
        };
        way.check()?;
        let kek = way.kek(profile, &secret)?;
        Ok((way, kek))
    }
}

fn random_salt() -> Result<[u8; SALT_BYTES], HeaderError> {
    exactly(SecureBytes::random(SALT_BYTES)?.expose())
}

impl Way {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FactorKind {
        match self {
            Self::Password { .. } => FactorKind::Password,
            Self::SshAgent { .. } => FactorKind::SshAgent,
            Self::Recovery { .. } => FactorKind::Recovery,
        }
    }

    /// Refuses a cost that is out of its range and a key that cannot unlock. Allocates nothing.
    pub(super) fn check(&self) -> Result<(), HeaderError> {
        match self {
            Self::Password { argon2, .. } => Ok(Argon2Params::from(*argon2).check()?),
            Self::SshAgent { public_key, .. } => Ok(AgentKeyKind::of(public_key).map(|_| ())?),
            Self::Recovery { .. } => Ok(()),
        }
    }

    /// The key that follows from the factor's secret. Blocks for as long as Argon2 takes where that is a password.
    pub(super) fn kek(
        &self,
        profile: &ProfileName,
        secret: &SecureBytes,
    ) -> Result<SecureBytes, HeaderError> {
        Ok(match self {
            Self::Password { salt, argon2 } => derive_kek(secret.expose(), salt, &(*argon2).into())?,
            Self::SshAgent { .. } => key_schedule::ssh_agent_kek(secret, profile.as_str()),
            Self::Recovery { salt } => key_schedule::recovery_kek(secret, salt, profile.as_str()),
        })
    }
}

impl Factor {
    /// A factor that seals nothing yet.
    pub(super) fn new(id: u32, label: FactorLabel, way: Way) -> Self {
        Self { id, label, created_unix_ms: now_unix_ms(), way, sealed: Vec::new() }
    }

    /// Seals `key` with the factor's own.
    pub(super) fn seal(
        &mut self,
        profile: &ProfileName,
        kek: &SecureBytes,
        what: Sealed,
        key: &SecureBytes,
    ) -> Result<(), HeaderError> {
        self.sealed = aead::seal(kek, &self.place(profile, what), key.expose())?;
        Ok(())
    }

    /// What it has sealed.
    ///
    /// # Errors
    /// [`HeaderError::WrongFactor`]: this is not the factor's key.
    pub(super) fn open(
        &self,
        profile: &ProfileName,
        kek: &SecureBytes,
        what: Sealed,
    ) -> Result<SecureBytes, HeaderError> {
        aead::open(kek, &self.place(profile, what), &self.sealed)
            .map_err(|_| HeaderError::WrongFactor(self.way.kind()))
    }

    /// Associated data of what it seals: whose it is, which factor's, and what.
    fn place(&self, profile: &ProfileName, what: Sealed) -> Vec<u8> {
        let (kind, what, id) = (self.way.kind(), what.name(), self.id);
        format!("pds v2 factor\0{kind}\0{what}\0{id}\0{profile}").into_bytes()
    }
}
