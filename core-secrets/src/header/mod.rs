//! `header.json`: how a vault is unlocked.
//!
//! It holds the wrapped master key and what is needed to unwrap it. Everything in it is checked before Argon2 runs.
//! Its checksum tells damage from a wrong password; its authentication code, made with a key that follows from the
//! master key, tells damage from tampering, since a checksum anyone can compute.

mod factor;
mod file;
mod policy;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::kdf::{Argon2Params, KdfError};
use core_crypto::private_fs::{self, PrivateFsError};
use core_crypto::{EntropyError, SecureBytes, aead, checksum, key_schedule};
use core_types::ProfileName;

pub use self::factor::{Cost, Factor};
use self::factor::{unwrap, wrap};
use self::file::{Content, File, FileFormat, canonical};
pub use self::policy::Policy;

/// Format of the header.
pub const FORMAT: u32 = 1;
/// Largest header that is read, in bytes.
const BYTES_MAX: usize = 64 << 10;
/// Most factors a vault can have.
const FACTORS_MAX: usize = 32;
const MAC_BYTES: usize = aead::NONCE_BYTES + aead::TAG_BYTES;

/// Why a header cannot be used, or does not open with this password.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Files(#[from] PrivateFsError),
    /// There is no header.
    #[error("the vault has no header")]
    Missing,
    /// Not a header; the text says where, and quotes nothing.
    #[error("the header is damaged (line {line}, column {column})")]
    Syntax {
        /// Line of the first fault.
        line: usize,
        /// Column of the first fault.
        column: usize,
    },
    /// A header that a later version made.
    #[error("the header has format {found}, and this version reads format {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// The content is not what was written.
    #[error("the header is damaged: its checksum is wrong")]
    Checksum,
    /// The header of another profile.
    #[error("the header belongs to profile '{found}'")]
    OtherProfile {
        /// Whose it is.
        found: ProfileName,
    },
    /// No way to unlock, or more than there can be.
    #[error("the header has {found} factors; 1 to {FACTORS_MAX} are possible")]
    Factors {
        /// How many there are.
        found: usize,
    },
    /// A cost of Argon2 that is out of its range, or that this machine cannot pay.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// The password unwraps nothing.
    #[error("the password is wrong")]
    WrongFactor,
    /// The password is right, and the header is not the one that was written with it.
    #[error("the header was changed by someone who does not know the password")]
    Tampered,
    /// Nothing could be encrypted.
    #[error("cannot encrypt: {0}")]
    Encrypt(#[from] aead::AeadError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl HeaderError {
    /// Whether the header itself is at fault, and not the password, the machine or the disk.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Syntax { .. }
            | Self::Format { .. }
            | Self::Checksum
            | Self::OtherProfile { .. }
            | Self::Factors { .. }
            | Self::Missing
            | Self::Tampered
            | Self::Kdf(KdfError::TooCheap { .. } | KdfError::TooDear { .. }) => true,
            Self::Files(_)
            | Self::Kdf(KdfError::Memory { .. } | KdfError::Password)
            | Self::WrongFactor
            | Self::Encrypt(_)
            | Self::Entropy(_) => false,
        }
    }
}

/// A header whose content has been checked as far as that is possible without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultHeader {
    content: Content,
    mac: [u8; MAC_BYTES],
}

impl VaultHeader {
    /// Makes a header with a new random master key and one password. Blocks for as long as Argon2 takes.
    ///
    /// # Errors
    /// A cost out of its range, no memory, or no random bytes.
    pub fn create(
        profile: &ProfileName,
        password: &[u8],
        params: Argon2Params,
    ) -> Result<(Self, SecureBytes), HeaderError> {
        let master = SecureBytes::random(key_schedule::KEY_BYTES)?;
        let content = Content {
            profile: profile.clone(),
            created_unix_ms: now_unix_ms(),
            policy: Policy::Any,
            factors: vec![wrap(profile, &master, password, params)?],
        };
        Ok((Self::authenticated(content, &master)?, master))
    }

    /// Reads and checks the header at `path`, which must be that of `profile`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path, profile: &ProfileName) -> Result<Self, HeaderError> {
        let bytes = private_fs::read_limited(path, BYTES_MAX)?.ok_or(HeaderError::Missing)?;
        Self::parse(&bytes, profile)
    }

    fn parse(bytes: &[u8], profile: &ProfileName) -> Result<Self, HeaderError> {
        let FileFormat { format } = serde_json::from_slice(bytes).map_err(syntax)?;
        if format != FORMAT {
            return Err(HeaderError::Format { found: format });
        }
        let File { content, checksum: written, mac, .. } = serde_json::from_slice(bytes).map_err(syntax)?;
        if checksum(&canonical(&content)?) != written {
            return Err(HeaderError::Checksum);
        }
        if content.profile != *profile {
            return Err(HeaderError::OtherProfile { found: content.profile });
        }
        if !(1..=FACTORS_MAX).contains(&content.factors.len()) {
            return Err(HeaderError::Factors { found: content.factors.len() });
        }
        for Factor::Password { argon2, .. } in &content.factors {
            Argon2Params::from(*argon2).check()?;
        }
        Ok(Self { content, mac })
    }

    /// Replaces the header at `path`.
    ///
    /// # Errors
    /// The old header is still there.
    pub fn save(&self, path: &Path) -> Result<(), HeaderError> {
        let file = File {
            format: FORMAT,
            content: self.content.clone(),
            checksum: checksum(&canonical(&self.content)?),
            mac: self.mac,
        };
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(syntax)?;
        bytes.push(b'\n');
        Ok(private_fs::write_atomic(path, &bytes)?)
    }

    /// The ways to unlock, in the order they were added.
    #[must_use]
    pub fn factors(&self) -> &[Factor] {
        &self.content.factors
    }

    /// When the vault was made, in milliseconds of the Unix epoch.
    #[must_use]
    pub fn created_unix_ms(&self) -> u64 {
        self.content.created_unix_ms
    }

    /// The master key, unwrapped by a password, after which the header is known to be as it was written. Blocks
    /// for as long as Argon2 takes.
    ///
    /// # Errors
    /// [`HeaderError::WrongFactor`] if the password unwraps nothing, [`HeaderError::Tampered`] if it does and the
    /// rest of the header is not what was written.
    pub fn unlock(&self, password: &[u8]) -> Result<SecureBytes, HeaderError> {
        let profile = &self.content.profile;
        let master =
            self.content.factors.iter().find_map(|factor| unwrap(profile, factor, password).transpose());
        let master = master.ok_or(HeaderError::WrongFactor)??;
        let key = key_schedule::header_key(&master, profile.as_str());
        aead::open(&key, &canonical(&self.content)?, &self.mac).map_err(|_| HeaderError::Tampered)?;
        Ok(master)
    }

    /// The same vault with another password; the salt is new, the master key is not. Blocks for as long as Argon2
    /// takes, twice.
    ///
    /// # Errors
    /// As [`Self::unlock`] for the old password.
    pub fn with_password(&self, old: &[u8], new: &[u8], params: Argon2Params) -> Result<Self, HeaderError> {
        let master = self.unlock(old)?;
        let mut content = self.content.clone();
        content.factors = vec![wrap(&content.profile, &master, new, params)?];
        Self::authenticated(content, &master)
    }

    fn authenticated(content: Content, master: &SecureBytes) -> Result<Self, HeaderError> {
        let key = key_schedule::header_key(master, content.profile.as_str());
        let sealed = aead::seal(&key, &canonical(&content)?, &[])?;
        Ok(Self { content, mac: exactly(&sealed)? })
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], HeaderError> {
    bytes.try_into().map_err(|_| HeaderError::Encrypt(aead::AeadError::TooShort))
}

/// Keeps the place and drops the text, which may quote what stands there.
fn syntax(error: serde_json::Error) -> HeaderError {
    HeaderError::Syntax { line: error.line(), column: error.column() }
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
