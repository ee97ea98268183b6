//! `header.json`: how a vault is unlocked.
//!
//! It holds the wrapped master key and what is needed to unwrap it. Everything in it is checked before Argon2 runs.
//! Its checksum tells damage from a wrong factor; its authentication code, made with a key that follows from the
//! master key, tells damage from tampering, since a checksum anyone can compute.

mod change;
mod factor;
mod file;
mod policy;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::kdf::{Argon2Params, KdfError};
use core_crypto::private_fs::{self, PrivateFsError};
use core_crypto::sharing::SharingError;
use core_crypto::{EntropyError, SecureBytes, aead, checksum, digest, key_schedule};
use core_types::ProfileName;
use core_types::factor::{FactorKind, FactorLabel, FactorPolicy, UnsupportedKey};
use core_types::limits::FACTORS_MAX;

pub use self::change::{Change, Changed};
pub use self::factor::{Cost, Factor, NewFactor, Way};
use crate::freshness::Mark;

use self::file::{Content, File, FileFormat, canonical};
use self::policy::{Key, sealed_by};

/// Format of the header.
pub const FORMAT: u32 = 2;
/// Largest header that is read, in bytes.
pub(crate) const BYTES_MAX: usize = 256 << 10;
/// Length of the sealed master key where the factors hold shares, in bytes.
const SHARED_BYTES: usize = aead::NONCE_BYTES + key_schedule::KEY_BYTES + aead::TAG_BYTES;
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
    /// A policy that so many factors cannot fulfil.
    #[error("the policy '{}' does not go with {factors} ways to unlock", policy.shown(*factors))]
    Policy {
        /// The policy.
        policy: FactorPolicy,
        /// How many factors there are, or would be.
        factors: usize,
    },
    /// Parts that do not belong together.
    #[error("the header contradicts itself")]
    Inconsistent,
    /// An SSH key that cannot unlock.
    #[error("the SSH key cannot unlock: {0}")]
    UnsupportedKey(#[from] UnsupportedKey),
    /// A cost of Argon2 that is out of its range, or that this machine cannot pay.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// A factor's secret unwraps nothing.
    #[error("the {} is wrong", .0.presented())]
    WrongFactor(FactorKind),
    /// There is no factor of that number.
    #[error("there is no factor {0}")]
    NoSuchFactor(u32),
    /// Fewer factors than are needed.
    #[error("it needs {needed} of the {of} factors, and {given} of them were given")]
    NotEnough {
        /// How many were given.
        given: u8,
        /// How many are needed.
        needed: u8,
        /// How many there are.
        of: u8,
    },
    /// Nobody could unlock the vault any more.
    #[error("the last way to unlock cannot be removed")]
    LastFactor,
    /// As many factors as there can be.
    #[error("a vault has at most {FACTORS_MAX} ways to unlock")]
    TooManyFactors,
    /// The SSH key unlocks already.
    #[error("this SSH key is factor {0} already")]
    FactorExists(u32),
    /// The factor is not a password.
    #[error("factor {0} is not a password")]
    NotAPassword(u32),
    /// The factors are right, and the header is not the one that was written with them.
    #[error("the header was changed by someone who cannot unlock the vault")]
    Tampered,
    /// The key could not be split.
    #[error(transparent)]
    Sharing(#[from] SharingError),
    /// Nothing could be encrypted.
    #[error("cannot encrypt: {0}")]
    Encrypt(#[from] aead::AeadError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl HeaderError {
    /// Whether the header itself is at fault, and not what was asked, the machine or the disk. To be asked about
    /// errors of reading and unlocking, not of changing.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Syntax { .. }
            | Self::Format { .. }
            | Self::Checksum
            | Self::OtherProfile { .. }
            | Self::Factors { .. }
            | Self::Inconsistent
            | Self::Missing
            | Self::Tampered
            | Self::Kdf(KdfError::TooCheap { .. } | KdfError::TooDear { .. }) => true,
            Self::Files(_)
            | Self::Kdf(KdfError::Memory { .. } | KdfError::Password)
            | Self::Policy { .. }
            | Self::UnsupportedKey(_)
            | Self::WrongFactor(_)
            | Self::NoSuchFactor(_)
            | Self::NotEnough { .. }
            | Self::LastFactor
            | Self::TooManyFactors
            | Self::FactorExists(_)
            | Self::NotAPassword(_)
            | Self::Encrypt(_)
            | Self::Sharing(_)
            | Self::Entropy(_) => false,
        }
    }
}

/// A factor and the secret that is claimed to be its.
#[derive(Debug)]
pub struct Proof {
    /// Its number; of a password, the number of any.
    pub factor: u32,
    /// The password, the signature, or the bytes of the recovery code.
    pub secret: SecureBytes,
}

/// A header whose content has been checked as far as that is possible without a password.
#[derive(Debug, Clone)]
pub struct VaultHeader {
    content: Content,
    mac: [u8; MAC_BYTES],
    /// The key of the vault's anchor, of a header that was made here and not read.
    anchor_key: Option<SecureBytes>,
}

/// Two headers are the same if they say the same.
impl PartialEq for VaultHeader {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content && self.mac == other.mac
    }
}

impl Eq for VaultHeader {}

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
        let (way, kek) = NewFactor::Password(SecureBytes::copy_of(password)).enroll(profile, params)?;
        let mut content = Content {
            profile: profile.clone(),
            created_unix_ms: now_unix_ms(),
            generation: 0,
            policy: FactorPolicy::Any,
            shared_master_key: None,
            next_factor: 2,
            factors: vec![Factor::new(1, FactorLabel::default(), way)],
        };
        content.wrap(&master, &[Key { factor: 1, kek }])?;
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
        let header = Self::parse_any(bytes)?;
        if header.content.profile != *profile {
            return Err(HeaderError::OtherProfile { found: header.content.profile });
        }
        Ok(header)
    }

    /// Reads and checks a header of whatever profile.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse_any(bytes: &[u8]) -> Result<Self, HeaderError> {
        let FileFormat { format } = serde_json::from_slice(bytes).map_err(syntax)?;
        if format != FORMAT {
            return Err(HeaderError::Format { found: format });
        }
        let File { content, checksum: written, mac, .. } = serde_json::from_slice(bytes).map_err(syntax)?;
        if checksum(&canonical(&content)?) != written {
            return Err(HeaderError::Checksum);
        }
        content.check()?;
        Ok(Self { content, mac, anchor_key: None })
    }

    /// Replaces the header at `path`.
    ///
    /// # Errors
    /// The old header is still there.
    pub fn save(&self, path: &Path) -> Result<(), HeaderError> {
        Ok(private_fs::write_atomic(path, &self.to_bytes()?)?)
    }

    /// The header as it stands in its file.
    ///
    /// # Errors
    /// It cannot be written as JSON (which cannot happen for what was read or made here).
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, HeaderError> {
        let file = File {
            format: FORMAT,
            content: self.content.clone(),
            checksum: checksum(&canonical(&self.content)?),
            mac: self.mac,
        };
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(syntax)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The profile whose vault it unlocks.
    #[must_use]
    pub fn profile(&self) -> &ProfileName {
        &self.content.profile
    }

    /// The ways to unlock, in the order they were added.
    #[must_use]
    pub fn factors(&self) -> &[Factor] {
        &self.content.factors
    }

    /// Which of them are needed.
    #[must_use]
    pub fn policy(&self) -> FactorPolicy {
        self.content.policy
    }

    /// When the vault was made, in milliseconds of the Unix epoch.
    #[must_use]
    pub fn created_unix_ms(&self) -> u64 {
        self.content.created_unix_ms
    }

    /// A number that each change of the header raises.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.content.generation
    }

    /// A hash of all that the header says, its authentication code included.
    ///
    /// # Errors
    /// It cannot be written as JSON (which cannot happen for what was read or made here).
    pub fn digest(&self) -> Result<[u8; 32], HeaderError> {
        let mut bytes = canonical(&self.content)?;
        bytes.extend_from_slice(&self.mac);
        Ok(digest(&bytes))
    }

    /// The state of the header, as an anchor keeps it.
    ///
    /// # Errors
    /// As [`Self::digest`].
    pub fn mark(&self) -> Result<Mark, HeaderError> {
        Ok(Mark { generation: self.generation(), digest: self.digest()? })
    }

    /// The key of the vault's anchor; `None` of a header that was read.
    pub(crate) fn anchor_key(&self) -> Option<&SecureBytes> {
        self.anchor_key.as_ref()
    }

    /// The master key, unwrapped by as many factors as the policy needs, after which the header is known to be as it
    /// was written. Blocks for as long as Argon2 takes for each password.
    ///
    /// # Errors
    /// [`HeaderError::NotEnough`], found before anything is derived; [`HeaderError::WrongFactor`] for the first that
    /// unwraps nothing; [`HeaderError::Tampered`] if they are right and the rest of the header is not what was written.
    pub fn unlock(&self, proofs: &[Proof]) -> Result<SecureBytes, HeaderError> {
        Ok(self.unwrap(proofs)?.0)
    }

    /// Refuses factors that are too few to unlock, before anything is derived.
    ///
    /// # Errors
    /// [`HeaderError::NotEnough`], or there is no such factor.
    pub fn check_enough(&self, proofs: &[Proof]) -> Result<(), HeaderError> {
        self.content.check_enough(proofs, self.content.needed()?)
    }

    /// As [`Self::unlock`], with the key of each factor that was presented.
    fn unwrap(&self, proofs: &[Proof]) -> Result<(SecureBytes, Vec<Key>), HeaderError> {
        self.check_enough(proofs)?;
        let keys = self.content.keys(proofs)?;
        let master = self.content.unwrap(&keys)?;
        self.check_authentic(&master)?;
        Ok((master, keys))
    }

    /// Whether the header is the one that was written with this master key.
    fn check_authentic(&self, master: &SecureBytes) -> Result<(), HeaderError> {
        let key = key_schedule::header_key(master, self.content.profile.as_str());
        aead::open(&key, &canonical(&self.content)?, &self.mac).map_err(|_| HeaderError::Tampered)?;
        Ok(())
    }

    /// Whether these bytes are a recovery code of the vault. Unwraps no more than that factor's own part.
    ///
    /// # Errors
    /// The key could not be derived.
    pub fn has_recovery_code(&self, code: &SecureBytes) -> Result<bool, HeaderError> {
        let what = sealed_by(self.content.policy);
        for factor in self.factors().iter().filter(|factor| factor.way.kind() == FactorKind::Recovery) {
            let kek = factor.way.kek(&self.content.profile, code)?;
            if factor.open(&self.content.profile, &kek, what).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn authenticated(content: Content, master: &SecureBytes) -> Result<Self, HeaderError> {
        let key = key_schedule::header_key(master, content.profile.as_str());
        let sealed = aead::seal(&key, &canonical(&content)?, &[])?;
        let anchor_key = Some(key_schedule::anchor_key(master, content.profile.as_str()));
        Ok(Self { content, mac: exactly(&sealed)?, anchor_key })
    }
}

impl Content {
    /// Refuses what no header says that was made here, before any secret is looked at.
    fn check(&self) -> Result<(), HeaderError> {
        if !(1..=FACTORS_MAX).contains(&self.factors.len()) {
            return Err(HeaderError::Factors { found: self.factors.len() });
        }
        let sealed = sealed_by(self.policy);
        let shared = self.shared_master_key.as_ref().map(Vec::len);
        let ascending = self.factors.windows(2).all(|pair| pair[0].id < pair[1].id);
        let consistent = self.needed().is_ok()
            && shared == (sealed == factor::Sealed::Share).then_some(SHARED_BYTES)
            && ascending
            && self.factors.iter().all(|factor| {
                (1..self.next_factor).contains(&factor.id) && factor.sealed.len() == sealed.bytes()
            });
        if !consistent {
            return Err(HeaderError::Inconsistent);
        }
        self.factors.iter().try_for_each(|factor| match factor.way.check() {
            Err(HeaderError::UnsupportedKey(_)) => Err(HeaderError::Inconsistent),
            other => other,
        })
    }

    fn factor(&self, id: u32) -> Result<&Factor, HeaderError> {
        self.factors.iter().find(|factor| factor.id == id).ok_or(HeaderError::NoSuchFactor(id))
    }

    /// Whether these are at least `needed` factors of the vault, none of them twice.
    fn check_enough(&self, proofs: &[Proof], needed: u8) -> Result<(), HeaderError> {
        proofs.iter().try_for_each(|proof| self.factor(proof.factor).map(|_| ()))?;
        let presented = |factor: &&Factor| proofs.iter().any(|proof| proof.factor == factor.id);
        let different = self.factors.iter().filter(presented).count();
        let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        match count(different) {
            given if given < needed || different < proofs.len() => {
                Err(HeaderError::NotEnough { given, needed, of: count(self.factors.len()) })
            }
            _ => Ok(()),
        }
    }

    /// The keys that follow from factors which are presented, in their order. Each is tried at once, so that after a
    /// wrong one nothing more is derived.
    fn keys(&self, proofs: &[Proof]) -> Result<Vec<Key>, HeaderError> {
        let mut keys: Vec<Key> = Vec::with_capacity(proofs.len());
        for proof in proofs {
            keys.push(self.key(proof, &keys)?);
        }
        Ok(keys)
    }

    /// The key of the factor that is presented; a password may be that of any password of the vault that is not
    /// among `others`, since whoever types one does not know its number.
    fn key(&self, proof: &Proof, others: &[Key]) -> Result<Key, HeaderError> {
        let named = self.factor(proof.factor)?;
        let is_password = |factor: &&Factor| factor.way.kind() == FactorKind::Password;
        let also = self.factors.iter().filter(|factor| is_password(&named) && is_password(factor));
        let also = also.filter(|factor| factor.id != named.id);
        let what = sealed_by(self.policy);
        for factor in std::iter::once(named).chain(also) {
            if others.iter().any(|key| key.factor == factor.id) {
                continue;
            }
            let kek = factor.way.kek(&self.profile, &proof.secret)?;
            if factor.open(&self.profile, &kek, what).is_ok() {
                return Ok(Key { factor: factor.id, kek });
            }
        }
        Err(HeaderError::WrongFactor(named.way.kind()))
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
