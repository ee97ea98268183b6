//! Whether a vault is the one that was written last, or an older one that was put back.
//!
//! What a vault says of itself (its generation and the digest over its rows), its header, its anchor and the audit log
//! are held against each other. Pure: reading them is others' work.

use core_types::SecretName;

use crate::store::Damage;

/// The state of a database: how many write transactions it has seen, and the digest over its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Raised by each write transaction.
    pub generation: u64,
    /// The hash over all rows; the same for the same rows.
    pub digest: [u8; 32],
}

/// What the anchor keeps outside the vault's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anchored {
    /// State of the database.
    pub database: Mark,
    /// State of the header: its generation, and the hash of all that it says.
    pub header: Mark,
}

/// What was found where the anchor should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Nothing.
    Missing,
    /// Nothing that this vault's key opens.
    Unreadable,
    /// The state that was written last.
    Read(Anchored),
}

/// Why a vault is not the one that was written last. No text of it holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rollback {
    /// The rows are not those that the database says it has.
    #[error("parts of it are older than others, or missing")]
    Mixed,
    /// A value that can be read in no way, though its row is the right one.
    #[error("the value of '{0}' is not what was stored")]
    Value(SecretName),
    /// A part of it cannot be read.
    #[error("{0}")]
    Damaged(Damage),
    /// The database has seen fewer changes than are known of.
    #[error("it has seen {found} changes, and {expected} were made")]
    Older {
        /// Its generation.
        found: u64,
        /// The generation it should have at least.
        expected: u64,
    },
    /// As many changes, but others.
    #[error("it is not the one that was written last")]
    Other,
    /// An older header, and with it older ways to unlock.
    #[error("its header is an older one, with which earlier passwords may unlock it")]
    HeaderOlder,
    /// Another header of the same generation.
    #[error("its header is not the one that was written last")]
    HeaderOther,
    /// No anchor.
    #[error("its anchor, by which an older vault would be noticed, is missing")]
    AnchorMissing,
    /// An anchor that nobody can read.
    #[error("its anchor, by which an older vault would be noticed, is damaged or another vault's")]
    AnchorUnreadable,
}

/// Holds a vault, whose rows are known to be those of its digest, against its anchor and against the generation that
/// the audit log knows of. Newer than they is no fault: whoever was killed between a change and its anchor leaves that.
#[must_use]
pub fn judge(vault: &Anchored, anchor: &Reading, recorded: u64) -> Option<Rollback> {
    let generation = vault.database.generation;
    if generation < recorded {
        let anchored = if let Reading::Read(anchored) = anchor { anchored.database.generation } else { 0 };
        return Some(Rollback::Older { found: generation, expected: recorded.max(anchored) });
    }
    let anchored = match anchor {
        Reading::Missing => return Some(Rollback::AnchorMissing),
        Reading::Unreadable => return Some(Rollback::AnchorUnreadable),
        Reading::Read(anchored) => anchored,
    };
    let expected = anchored.database.generation;
    if generation < expected {
        return Some(Rollback::Older { found: generation, expected });
    }
    if generation == anchored.database.generation && vault.database.digest != anchored.database.digest {
        return Some(Rollback::Other);
    }
    if vault.header.generation < anchored.header.generation {
        return Some(Rollback::HeaderOlder);
    }
    if vault.header.generation == anchored.header.generation && vault.header.digest != anchored.header.digest
    {
        return Some(Rollback::HeaderOther);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(generation: u64, digest: u8) -> Mark {
        Mark { generation, digest: [digest; 32] }
    }

    fn state(database: (u64, u8), header: (u64, u8)) -> Anchored {
        Anchored { database: mark(database.0, database.1), header: mark(header.0, header.1) }
    }

    #[test]
    fn what_is_as_anchored_or_newer_is_fresh_and_everything_else_is_named() {
        let anchored = Reading::Read(state((5, 1), (2, 1)));
        let older = |found, expected| Some(Rollback::Older { found, expected });
        let table = [
            (state((5, 1), (2, 1)), anchored, 5, None),
            (state((6, 9), (2, 1)), anchored, 5, None),
            (state((5, 1), (3, 9)), anchored, 0, None),
            (state((5, 9), (2, 1)), anchored, 0, Some(Rollback::Other)),
            (state((4, 1), (2, 1)), anchored, 0, older(4, 5)),
            (state((0, 0), (2, 1)), anchored, 0, older(0, 5)),
            (state((5, 1), (2, 1)), anchored, 6, older(5, 6)),
            (state((5, 1), (1, 1)), anchored, 0, Some(Rollback::HeaderOlder)),
            (state((5, 1), (2, 9)), anchored, 0, Some(Rollback::HeaderOther)),
            (state((5, 1), (2, 1)), Reading::Missing, 6, older(5, 6)),
            (state((4, 1), (2, 1)), anchored, 9, older(4, 9)),
            (state((5, 1), (2, 1)), Reading::Missing, 0, Some(Rollback::AnchorMissing)),
            (state((0, 0), (0, 0)), Reading::Missing, 0, Some(Rollback::AnchorMissing)),
            (state((5, 1), (2, 1)), Reading::Unreadable, 0, Some(Rollback::AnchorUnreadable)),
        ];
        for (vault, anchor, recorded, expected) in table {
            assert_eq!(judge(&vault, &anchor, recorded), expected, "{vault:?} {anchor:?} {recorded}");
        }
    }
}
