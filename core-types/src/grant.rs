//! What tells one bounded grant from the others, and what the audit log says of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::DaemonName;

/// Which grant: a number that no other grant of the same daemon has, shown as eight hex digits. It is chosen at random,
/// so that a number of before a restart means no other grant after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrantId(pub u32);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A text that is not the number of a grant; it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the eight hex digits of a grant")]
pub struct NotAGrantId;

impl FromStr for GrantId {
    type Err = NotAGrantId;
    fn from_str(text: &str) -> Result<Self, NotAGrantId> {
        let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u32::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(NotAGrantId)
    }
}

/// The grant that an entry of the audit log is about, or that let a reading through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// Which.
    pub id: GrantId,
    /// Its bounds, in the entry of its making.
    pub bounds: Option<GrantBounds>,
}

/// Whom a grant is for, and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantBounds {
    /// The enrolled daemon.
    pub to: DaemonName,
    /// Seconds from its making on.
    pub seconds: u64,
    /// Readings, where they are counted.
    pub uses: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_grant_is_eight_hex_digits() {
        for number in [0, 7, 0x3fa9_1c02, u32::MAX] {
            let text = GrantId(number).to_string();
            assert_eq!((text.len(), text.parse()), (8, Ok(GrantId(number))));
        }
        for wrong in ["", "7", "3fa91c0", "3fa91c022", "+fa91c02", "3fa91c0g", "ä234567"] {
            assert_eq!(wrong.parse::<GrantId>(), Err(NotAGrantId), "{wrong}");
        }
    }
}
