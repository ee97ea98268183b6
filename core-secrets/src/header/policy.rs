//! Which factors it takes to unlock.

use serde::{Deserialize, Serialize};

/// Which factors are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Any one of them.
    Any,
}
