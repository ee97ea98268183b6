//! Bounded grants: an enrolled daemon may read for some time, or so often, what its rules leave it without. Only the
//! user's command line makes, lists and takes them back.

use serde::{Deserialize, Serialize};

use crate::grant::GrantId;
use crate::name::{DaemonName, ProfileName};
use crate::pattern::Pattern;

/// Lets an enrolled daemon `get` what matches, until the grant has expired or is used up. A rule that denies wins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    /// The profile, which must be unlocked: when it is locked its grants end.
    pub profile: ProfileName,
    /// The name, or a pattern over names.
    pub pattern: Pattern,
    /// The enrolled daemon.
    pub to: DaemonName,
    /// Seconds that it holds, by a clock that goes on in suspend.
    pub seconds: u64,
    /// Values that it gives away; `None` for any number.
    pub uses: Option<u64>,
}

/// Asks for all grants, those that ended a short while ago among them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grants {}

/// Takes a grant back; answered with what it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeGrant {
    /// Which.
    pub id: GrantId,
}

/// Whether a grant still lets anything through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantState {
    /// It does, for so many seconds.
    Live {
        /// Seconds that are left, rounded up.
        seconds_left: u64,
    },
    /// Its time is over.
    Expired,
    /// As many values were given away as it is for.
    UsedUp,
}

/// A grant as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantEntry {
    /// Which.
    pub id: GrantId,
    /// In which profile.
    pub profile: ProfileName,
    /// What it is for.
    pub pattern: Pattern,
    /// Whom it is for.
    pub to: DaemonName,
    /// When it was made, in milliseconds of the Unix epoch.
    pub made_unix_ms: u64,
    /// Whether it still holds.
    pub state: GrantState,
    /// Values that it was made for; `None` for any number.
    pub uses: Option<u64>,
    /// Values of them that are left.
    pub uses_left: Option<u64>,
}
