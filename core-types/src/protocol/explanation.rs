//! `pds explain`: what the gates of `daemon-secrets` would say of an attempt that nobody makes.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::grants::GrantEntry;
use super::secrets::{Gate, SecretsDenial};
use crate::access::AccessOperation;
use crate::name::{DaemonName, NameError, ProfileName};
use crate::rule_book::CitedRule;
use crate::unit::{UNIT_PREFIX, UnitName, UnitNameError};

/// Asks what each gate would say. Nothing is read and no token is spent. The user may ask about anyone, a daemon of
/// someone else about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explain {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
    /// Who would ask; `None` for the one who asks for the explanation.
    pub requester: Option<Asker>,
    /// For what.
    pub operation: AccessOperation,
}

/// Who would ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asker {
    /// Whoever has this name on the bus; the user is `cli`.
    Daemon(DaemonName),
    /// A unit of systemd, for whose credential the launcher asks.
    Unit(UnitName),
}

/// Why a text names nobody who could ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskerError {
    /// `unit:`, and then no unit.
    #[error(transparent)]
    Unit(#[from] UnitNameError),
    /// No name.
    #[error(transparent)]
    Daemon(#[from] NameError),
}

impl FromStr for Asker {
    type Err = AskerError;
    fn from_str(text: &str) -> Result<Self, AskerError> {
        match text.strip_prefix(UNIT_PREFIX) {
            Some(unit) => Ok(Self::Unit(UnitName::parse(unit)?)),
            None => Ok(Self::Daemon(DaemonName::parse(text)?)),
        }
    }
}

/// What a gate would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It lets the attempt pass.
    Passes,
    /// It denies the attempt.
    Denies(SecretsDenial),
    /// It was not asked, because one before it denies.
    NotAsked,
    /// It is not said to one who cannot list the name.
    NotTold,
}

/// A gate and what it would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateVerdict {
    /// The gate.
    pub gate: Gate,
    /// What it would say.
    pub verdict: Verdict,
}

/// What would come of the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It would be done.
    Allowed,
    /// This gate would deny it, as the first.
    Denied(Gate),
    /// A listing would be made, and the name would not be in it.
    Hidden,
}

/// Answer to [`Explain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who would ask the gates: for `run` at the command line it is `daemon-launcher`.
    pub requester: String,
    /// The gates, in their order.
    pub gates: Vec<GateVerdict>,
    /// The rule that decides at the rules' gate; of its pattern only the user is told.
    pub rule: Option<CitedRule>,
    /// The grant that would let the attempt through, or that has ended and would have.
    pub grant: Option<GrantEntry>,
    /// What would come of it.
    pub decision: Decision,
}
