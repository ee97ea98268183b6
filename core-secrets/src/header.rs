//! `header.json`: how a vault is unlocked.
//!
//! It holds the wrapped master key and what is needed to unwrap it. Everything in it is checked before Argon2 runs.
//! Its checksum tells damage from a wrong password; its authentication code, made with a key that follows from the
//! master key, tells damage from tampering, since a checksum anyone can compute.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::kdf::{Argon2Params, KdfError, SALT_BYTES, derive_kek};
use core_crypto::private_fs::{self, PrivateFsError};
use core_crypto::{EntropyError, SecureBytes, aead, checksum, key_schedule};
use core_types::ProfileName;
use serde::{Deserialize, Serialize};

/// Format of the header.
pub const FORMAT: u32 = 1;
/// Largest header that is read, in bytes.
const BYTES_MAX: usize = 64 << 10;
/// Most factors a vault can have.
const FACTORS_MAX: usize = 32;
const WRAPPED_BYTES: usize = aead::NONCE_BYTES + key_schedule::KEY_BYTES + aead::TAG_BYTES;
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

/// Which factors are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Any one of them.
    Any,
}

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

/// What the checksum and the authentication code are made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    profile: ProfileName,
    created_unix_ms: u64,
    policy: Policy,
    factors: Vec<Factor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    content: Content,
    checksum: String,
    #[serde(with = "fixed_hex")]
    mac: [u8; MAC_BYTES],
}

/// Read first and alone, so that a header of a later format is called that and not damaged.
#[derive(Deserialize)]
struct FileFormat {
    format: u32,
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

fn wrap(
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
fn unwrap(
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

/// The one text that stands for a content: compact JSON in the order of the fields.
fn canonical(content: &Content) -> Result<Vec<u8>, HeaderError> {
    let mut bytes = format!("pds v2 header {FORMAT}\0").into_bytes();
    serde_json::to_writer(&mut bytes, content).map_err(syntax)?;
    Ok(bytes)
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

/// Byte arrays as lower-case hex digits of exactly their length.
mod fixed_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| D::Error::custom("not hex of the right length"))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Params = Argon2Params::FLOOR;

    fn profile() -> ProfileName {
        ProfileName::parse("work").unwrap()
    }

    fn header() -> (VaultHeader, SecureBytes) {
        VaultHeader::create(&profile(), b"right", CHEAP).unwrap()
    }

    /// The text of a header after `change`, with a checksum that fits, as someone who tampers would make it.
    fn tampered(header: &VaultHeader, change: impl FnOnce(&mut Content)) -> Vec<u8> {
        let mut content = header.content.clone();
        change(&mut content);
        let checksum = checksum(&canonical(&content).unwrap());
        serde_json::to_vec(&File { format: FORMAT, content, checksum, mac: header.mac }).unwrap()
    }

    fn parse(bytes: &[u8]) -> Result<VaultHeader, HeaderError> {
        VaultHeader::parse(bytes, &profile())
    }

    fn set_cost(content: &mut Content, cost: Argon2Params) {
        let Factor::Password { argon2, .. } = &mut content.factors[0];
        *argon2 = cost.into();
    }

    #[test]
    fn the_password_unwraps_the_master_key_and_another_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("header.json");
        let (header, master) = header();
        header.save(&path).unwrap();
        let loaded = VaultHeader::load(&path, &profile()).unwrap();
        assert_eq!(loaded, header);
        assert!(loaded.unlock(b"right").unwrap().ct_eq(master.expose()));
        for wrong in [&b"wrong"[..], b"", b"right\n", b"RIGHT"] {
            assert!(matches!(loaded.unlock(wrong), Err(HeaderError::WrongFactor)));
        }
    }

    #[test]
    fn two_vaults_with_one_password_share_nothing() {
        let (first, first_master) = header();
        let (second, second_master) = header();
        assert!(!first_master.ct_eq(second_master.expose()));
        assert_ne!(first.content.factors, second.content.factors);
    }

    #[test]
    fn a_new_password_opens_the_same_master_key_and_the_old_one_nothing() {
        let (header, master) = header();
        let changed = header.with_password(b"right", b"new", CHEAP).unwrap();
        assert!(changed.unlock(b"new").unwrap().ct_eq(master.expose()));
        assert!(matches!(changed.unlock(b"right"), Err(HeaderError::WrongFactor)));
        assert!(matches!(header.with_password(b"wrong", b"new", CHEAP), Err(HeaderError::WrongFactor)));
        let salt = |header: &VaultHeader| match &header.factors()[0] {
            Factor::Password { salt, .. } => *salt,
        };
        assert_ne!(salt(&header), salt(&changed));
    }

    #[test]
    fn a_changed_header_is_not_a_wrong_password() {
        let (header, _) = header();
        let changed = parse(&tampered(&header, |content| content.created_unix_ms += 1)).unwrap();
        let error = changed.unlock(b"right").unwrap_err();
        assert!(matches!(error, HeaderError::Tampered) && error.is_damage());
        assert!(matches!(changed.unlock(b"wrong"), Err(HeaderError::WrongFactor)));
    }

    #[test]
    fn costs_out_of_range_are_refused_before_a_password_is_needed() {
        let (header, _) = header();
        let costs = [
            Argon2Params { memory_kib: 8 << 20, ..CHEAP },
            Argon2Params { memory_kib: 19 * 1024 - 1, ..CHEAP },
            Argon2Params { passes: 1, ..CHEAP },
            Argon2Params { passes: u32::MAX, ..CHEAP },
            Argon2Params { lanes: 0, ..CHEAP },
        ];
        for cost in costs {
            let error = parse(&tampered(&header, |content| set_cost(content, cost))).unwrap_err();
            assert!(matches!(error, HeaderError::Kdf(_)) && error.is_damage(), "{cost:?}: {error}");
        }
    }

    #[test]
    fn another_format_another_profile_and_no_factor_are_named() {
        let (header, _) = header();
        let text = String::from_utf8(tampered(&header, |_| {})).unwrap();
        let later = text.replacen("\"format\":1", "\"format\":2,\"more\":[]", 1);
        assert!(matches!(parse(later.as_bytes()), Err(HeaderError::Format { found: 2 })));
        let other = ProfileName::parse("home").unwrap();
        assert!(matches!(VaultHeader::parse(text.as_bytes(), &other), Err(HeaderError::OtherProfile { .. })));
        let none = tampered(&header, |content| content.factors.clear());
        assert!(matches!(parse(&none), Err(HeaderError::Factors { found: 0 })));
        let many = tampered(&header, |content| content.factors = vec![content.factors[0].clone(); 33]);
        assert!(matches!(parse(&many), Err(HeaderError::Factors { found: 33 })));
    }

    #[test]
    fn a_cut_salt_and_an_unknown_field_are_refused() {
        let (header, _) = header();
        let text = String::from_utf8(tampered(&header, |_| {})).unwrap();
        let Factor::Password { salt, .. } = &header.factors()[0];
        let salt = hex::encode(salt);
        for (from, to) in [
            (salt.as_str(), &salt[2..]),
            (salt.as_str(), ""),
            ("\"policy\":\"any\"", "\"policy\":\"none\""),
            ("\"policy\":", "\"also\":1,\"policy\":"),
            ("\"checksum\":", "\"also\":1,\"checksum\":"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(matches!(parse(changed.as_bytes()), Err(HeaderError::Syntax { .. })), "{from}");
        }
    }

    /// Each bit of the file in turn: never a panic, never taken for a wrong password, never unnoticed.
    #[test]
    fn every_flipped_bit_is_found_without_a_password() {
        let (header, _) = header();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("header.json");
        header.save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mac_at = good.windows(5).position(|window| window == b"\"mac\"").unwrap();
        for bit in 0..mac_at * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match parse(&bytes) {
                Err(error) => assert!(error.is_damage(), "bit {bit}: {error}"),
                // White space, or a digit in the other case, means the same.
                Ok(same) => assert_eq!(same, header, "bit {bit}"),
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_the_authentication_code_is_found_when_unlocking() {
        let (mut header, _) = header();
        header.mac[3] ^= 1;
        assert!(matches!(header.unlock(b"right"), Err(HeaderError::Tampered)));
    }

    #[test]
    fn errors_quote_nothing_of_the_file() {
        let error = parse(br#"{"format":1,"content":"hunter2"}"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
