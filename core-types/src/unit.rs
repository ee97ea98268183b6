//! Names of systemd units, as requesters.

use serde::{Deserialize, Serialize};

use crate::limits::UNIT_NAME_BYTES_MAX;

/// What stands before the name of a unit where requesters are named: no daemon can have such a name.
pub const UNIT_PREFIX: &str = "unit:";
/// The kinds of units that start programs, and so can be given credentials (systemd.exec(5)).
const KINDS: [&str; 4] = [".service", ".socket", ".mount", ".swap"];

/// Why a text is not the name of such a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error(
    "it is not the whole name of a unit that starts programs, such as web.service: up to {UNIT_NAME_BYTES_MAX} bytes of \
     A-Z a-z 0-9 : - _ . \\ @"
)]
pub struct UnitNameError;

/// The name of a systemd unit that starts programs, with its kind: `web.service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

impl UnitName {
    /// Takes a text that is such a name (systemd.unit(5)).
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: impl Into<String>) -> Result<Self, UnitNameError> {
        let text = text.into();
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let stem = KINDS.iter().find_map(|kind| text.strip_suffix(kind));
        let good = stem.is_some_and(|stem| !stem.is_empty())
            && text.len() <= UNIT_NAME_BYTES_MAX
            && text.bytes().all(may_stand);
        if good { Ok(Self(text)) } else { Err(UnitNameError) }
    }

    /// The name as systemd has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as that of a requester: `unit:web.service`.
    #[must_use]
    pub fn requester(&self) -> String {
        format!("{UNIT_PREFIX}{}", self.0)
    }
}

impl TryFrom<String> for UnitName {
    type Error = UnitNameError;
    fn try_from(text: String) -> Result<Self, UnitNameError> {
        Self::parse(text)
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_of_units_that_start_programs_are_taken_and_nothing_else() {
        for good in ["web.service", "a@b.service", r"x\x2dy.socket", "home.mount", "a:b_c-d.service"] {
            assert_eq!(UnitName::parse(good).unwrap().requester(), format!("unit:{good}"));
        }
        let long = format!("{}.service", "x".repeat(UNIT_NAME_BYTES_MAX));
        for bad in
            ["", "web", ".service", "web.target", "a b.service", "a/b.service", "\u{e9}.service", &long]
        {
            assert_eq!(UnitName::parse(bad), Err(UnitNameError), "{bad}");
        }
    }
}
