//! Ways to unlock, as every process names them. How they wrap a key is the vault's affair.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{AGENT_KEY_BYTES_MAX, FACTOR_LABEL_BYTES_MAX, FACTORS_MAX};
use crate::name::ProfileName;

/// Length of the random part of what an SSH key signs, in bytes.
pub const AGENT_NONCE_BYTES: usize = 32;
/// Length of a recovery code, in bytes.
pub const RECOVERY_CODE_BYTES: usize = 32;

/// A way to unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactorKind {
    /// A password, stretched by Argon2id.
    Password,
    /// An SSH key that a running ssh-agent holds.
    SshAgent,
    /// Words on paper that stand for 256 random bits.
    Recovery,
}

impl FactorKind {
    /// Its name on the command line and in `--json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::SshAgent => "ssh-agent",
            Self::Recovery => "recovery",
        }
    }

    /// What someone presents who unlocks with it, as messages call it.
    #[must_use]
    pub fn presented(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::SshAgent => "signature of the SSH key",
            Self::Recovery => "recovery code",
        }
    }
}

impl fmt::Display for FactorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of the factors are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactorPolicy {
    /// Any one of them.
    Any,
    /// All of them, of which there are at least two.
    All,
    /// Any so many of them, at least two.
    Threshold(u8),
}

impl FactorPolicy {
    /// How many of `factors` are needed; `None` if the policy makes no sense for so many.
    #[must_use]
    pub fn needed(self, factors: usize) -> Option<u8> {
        let factors = u8::try_from(factors).ok().filter(|number| usize::from(*number) <= FACTORS_MAX)?;
        match self {
            Self::Any => (factors >= 1).then_some(1),
            Self::All => (factors >= 2).then_some(factors),
            Self::Threshold(needed) => (needed >= 2 && needed <= factors).then_some(needed),
        }
    }

    /// The policy in words, for so many factors: `any`, `all`, or `2 of 3`.
    #[must_use]
    pub fn shown(self, factors: usize) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::All => "all".to_owned(),
            Self::Threshold(needed) => format!("{needed} of {factors}"),
        }
    }
}

/// What the user calls a factor: one line of text, perhaps empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FactorLabel(String);

/// A text that is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a label has at most {FACTOR_LABEL_BYTES_MAX} bytes and no control characters")]
pub struct LabelError;

impl FactorLabel {
    /// Reads a label.
    ///
    /// # Errors
    /// It is too long, or holds what steers a terminal.
    pub fn parse(text: impl Into<String>) -> Result<Self, LabelError> {
        let text = text.into();
        let usable = text.len() <= FACTOR_LABEL_BYTES_MAX && !text.chars().any(char::is_control);
        usable.then_some(Self(text)).ok_or(LabelError)
    }

    /// As much of a text as can be a label, such as the comment of a key.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut label = String::new();
        for character in text.chars().filter(|character| !character.is_control()) {
            if label.len() + character.len_utf8() > FACTOR_LABEL_BYTES_MAX {
                break;
            }
            label.push(character);
        }
        Self(label)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FactorLabel {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        Self::parse(text)
    }
}

impl From<FactorLabel> for String {
    fn from(label: FactorLabel) -> Self {
        label.0
    }
}

/// What an SSH key signs to unlock a profile. It begins with neither of the two that ssh(1) signs: a session's
/// identifier, whose length comes first, and `SSHSIG`.
#[must_use]
pub fn agent_challenge(profile: &ProfileName, nonce: &[u8; AGENT_NONCE_BYTES]) -> Vec<u8> {
    let mut challenge = format!("pds v2 ssh-agent unlock\0{profile}\0").into_bytes();
    challenge.extend_from_slice(nonce);
    challenge
}

/// An SSH key whose signatures can unlock: those that are the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentKeyKind {
    /// `ssh-ed25519` (RFC 8709).
    Ed25519,
    /// `ssh-rsa`, used with `rsa-sha2-512` (RFC 8332).
    Rsa,
}

/// Why an SSH key cannot unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum UnsupportedKey {
    /// Each ECDSA signature has a random part.
    #[error("the signatures of ECDSA keys differ each time, so no key can follow from them")]
    Ecdsa,
    /// A FIDO token counts its signatures, and the count is signed too.
    #[error("the signatures of security keys (sk-*) hold a counter, so no key can follow from them")]
    SecurityKey,
    /// Too weak, and random like ECDSA.
    #[error("DSA keys are too weak, and their signatures differ each time")]
    Dsa,
    /// A certificate says who may log in; it changes, its key does not.
    #[error("it is a certificate; use the key that it certifies")]
    Certificate,
    /// RSA with a short modulus.
    #[error("an RSA key needs at least 2048 bits")]
    ShortRsa,
    /// A kind that nobody has looked at.
    #[error("only ssh-ed25519 and ssh-rsa keys can unlock")]
    Other,
    /// No public key.
    #[error("it is not an SSH public key")]
    Malformed,
    /// Two signatures of one text were not the same.
    #[error("the agent signs the same text differently each time, so no key can follow from it")]
    NotDeterministic,
}

const RSA_MODULUS_BYTES_MIN: usize = 256;

impl AgentKeyKind {
    /// The kind of a public key in the form of RFC 4253, section 6.6.
    ///
    /// # Errors
    /// Its signatures cannot unlock, and why.
    pub fn of(public_key: &[u8]) -> Result<Self, UnsupportedKey> {
        if public_key.len() > AGENT_KEY_BYTES_MAX {
            return Err(UnsupportedKey::Malformed);
        }
        let (algorithm, rest) = ssh_string(public_key).ok_or(UnsupportedKey::Malformed)?;
        match algorithm {
            b"ssh-ed25519" => match ssh_string(rest) {
                Some((key, [])) if key.len() == 32 => Ok(Self::Ed25519),
                _ => Err(UnsupportedKey::Malformed),
            },
            b"ssh-rsa" => rsa(rest),
            b"ssh-dss" => Err(UnsupportedKey::Dsa),
            other if other.ends_with(b"-cert-v01@openssh.com") => Err(UnsupportedKey::Certificate),
            other if other.starts_with(b"sk-") => Err(UnsupportedKey::SecurityKey),
            other if other.starts_with(b"ecdsa-") => Err(UnsupportedKey::Ecdsa),
            _ => Err(UnsupportedKey::Other),
        }
    }
}

/// The rest of an RSA key: exponent and modulus.
fn rsa(rest: &[u8]) -> Result<AgentKeyKind, UnsupportedKey> {
    let parts = ssh_string(rest).and_then(|(exponent, rest)| Some((exponent, ssh_string(rest)?)));
    let Some((exponent, (modulus, []))) = parts else { return Err(UnsupportedKey::Malformed) };
    // A number whose first bit is set has a zero before it (RFC 4251, section 5).
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let long = modulus.len() > RSA_MODULUS_BYTES_MIN
        || (modulus.len() == RSA_MODULUS_BYTES_MIN && modulus[0] & 0x80 != 0);
    match exponent {
        [] => Err(UnsupportedKey::Malformed),
        _ if long => Ok(AgentKeyKind::Rsa),
        _ => Err(UnsupportedKey::ShortRsa),
    }
}

/// A string of the SSH protocols (RFC 4251, section 5) at the beginning of `bytes`, and what follows it.
#[must_use]
pub fn ssh_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(parts: &[&[u8]]) -> Vec<u8> {
        let part = |part: &&[u8]| [&u32::try_from(part.len()).unwrap().to_be_bytes(), *part].concat();
        parts.iter().flat_map(part).collect()
    }

    fn modulus(bytes: usize, first: u8) -> Vec<u8> {
        let mut modulus = vec![1; bytes];
        modulus[0] = first;
        if first & 0x80 != 0 {
            modulus.insert(0, 0);
        }
        modulus
    }

    #[test]
    fn only_keys_whose_signatures_are_the_same_each_time_are_taken() {
        let e = &[1, 0, 1][..];
        let table: [(Vec<u8>, Result<AgentKeyKind, UnsupportedKey>); 14] = [
            (blob(&[b"ssh-ed25519", &[7; 32]]), Ok(AgentKeyKind::Ed25519)),
            (blob(&[b"ssh-rsa", e, &modulus(256, 0x80)]), Ok(AgentKeyKind::Rsa)),
            (blob(&[b"ssh-rsa", e, &modulus(512, 0xff)]), Ok(AgentKeyKind::Rsa)),
            (blob(&[b"ssh-rsa", e, &modulus(256, 0x7f)]), Err(UnsupportedKey::ShortRsa)),
            (blob(&[b"ssh-rsa", e, &modulus(128, 0x80)]), Err(UnsupportedKey::ShortRsa)),
            (blob(&[b"ssh-dss", b"p"]), Err(UnsupportedKey::Dsa)),
            (blob(&[b"ecdsa-sha2-nistp256", b"nistp256", b"q"]), Err(UnsupportedKey::Ecdsa)),
            (blob(&[b"sk-ssh-ed25519@openssh.com", b"q"]), Err(UnsupportedKey::SecurityKey)),
            (blob(&[b"ssh-ed25519-cert-v01@openssh.com", b"n"]), Err(UnsupportedKey::Certificate)),
            (blob(&[b"ssh-falcon", b"q"]), Err(UnsupportedKey::Other)),
            (blob(&[b"ssh-ed25519", &[7; 31]]), Err(UnsupportedKey::Malformed)),
            (blob(&[b"ssh-ed25519", &[7; 32], b""]), Err(UnsupportedKey::Malformed)),
            (vec![0, 0, 0, 200, b's'], Err(UnsupportedKey::Malformed)),
            (Vec::new(), Err(UnsupportedKey::Malformed)),
        ];
        for (key, expected) in table {
            assert_eq!(AgentKeyKind::of(&key), expected, "{:?}", String::from_utf8_lossy(&key));
        }
        assert_eq!(AgentKeyKind::of(&vec![0; AGENT_KEY_BYTES_MAX + 1]), Err(UnsupportedKey::Malformed));
    }

    #[test]
    fn a_policy_needs_as_many_as_it_says_and_makes_sense_or_not() {
        let table = [
            (FactorPolicy::Any, [None, Some(1), Some(1), Some(1)]),
            (FactorPolicy::All, [None, None, Some(2), Some(3)]),
            (FactorPolicy::Threshold(1), [None, None, None, None]),
            (FactorPolicy::Threshold(2), [None, None, Some(2), Some(2)]),
            (FactorPolicy::Threshold(3), [None, None, None, Some(3)]),
        ];
        for (policy, expected) in table {
            for (factors, needed) in expected.into_iter().enumerate() {
                assert_eq!(policy.needed(factors), needed, "{policy:?} of {factors}");
            }
        }
        assert_eq!(FactorPolicy::Any.needed(FACTORS_MAX + 1), None);
        assert_eq!(FactorPolicy::Threshold(2).shown(3), "2 of 3");
    }

    #[test]
    fn a_label_is_one_line_of_limited_length() {
        assert_eq!(FactorLabel::parse("a key ü").unwrap().as_str(), "a key ü");
        for wrong in ["a\nb", "\x1b[31m", &"x".repeat(FACTOR_LABEL_BYTES_MAX + 1)] {
            assert_eq!(FactorLabel::parse(wrong), Err(LabelError));
        }
        assert_eq!(FactorLabel::of("a\x1b[31mb\n").as_str(), "a[31mb");
        assert_eq!(FactorLabel::of(&"ä".repeat(200)).as_str(), "ä".repeat(FACTOR_LABEL_BYTES_MAX / 2));
    }

    #[test]
    fn challenges_of_profiles_and_nonces_differ_and_none_is_what_ssh_signs() {
        let profile = |name: &str| ProfileName::parse(name).unwrap();
        let challenge = agent_challenge(&profile("work"), &[1; AGENT_NONCE_BYTES]);
        assert_ne!(challenge, agent_challenge(&profile("home"), &[1; AGENT_NONCE_BYTES]));
        assert_ne!(challenge, agent_challenge(&profile("work"), &[2; AGENT_NONCE_BYTES]));
        assert!(!challenge.starts_with(b"SSHSIG"));
        assert!(ssh_string(&challenge).is_none(), "no session identifier stands at its beginning");
    }
}
