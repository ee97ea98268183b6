//! Where a log goes on after a restart: compares where its key stands with where its files end.
//!
//! The key is kept after each write, so it may be behind the files by what a kill let through, and is led on over those
//! entries, which it has to prove. It is never ahead of them, unless the end of the log was cut off. Where the key of a
//! vault was being taken up, it is that one if the entry that says so was written.

use std::ops::ControlFlow;
use std::path::Path;

use core_crypto::log_key::LogKey;

use super::LogError;
use super::chain::End;
use super::key_file::Stored;
use super::line::{Mark, is_proved};
use super::read;

/// What a log goes on with.
pub(crate) struct Resumed {
    /// The place of the next entry.
    pub(crate) end: End,
    /// Its key.
    pub(crate) key: LogKey,
    /// What is wrong with what there is.
    pub(crate) found: Option<Mark>,
}

/// Decides where to go on, from what was kept of the key and where the files in `folder` end.
///
/// # Errors
/// The files cannot be read, or the kernel gives no random bytes.
pub(crate) fn resume(folder: &Path, stored: Stored, end: End) -> Result<Resumed, LogError> {
    let (kept, key) = match stored {
        Stored::Found(kept, key, promised) => match promised {
            Some((after, promised)) if read::holds(folder, &after.point())? => (after, promised),
            Some(_) | None => (kept, key),
        },
        Stored::Missing if end == End::EMPTY => return Ok(Resumed { end, key: new_key()?, found: None }),
        Stored::Missing | Stored::Damaged => {
            let reason =
                "the key of the log was lost before it, so nothing tells whether entries are missing here";
            return Ok(Resumed { end, key: new_key()?, found: Some(broken(end.next, reason)) });
        }
    };
    if kept.next > end.next {
        let reason = format!("it is missing: the log had {} entries", kept.next - 1);
        return Ok(Resumed { end: kept, key, found: Some(broken(end.next, &reason)) });
    }
    let (key, mut wrong) = led_on(folder, kept, end, key)?;
    if kept.next == end.next && kept.link != end.link {
        wrong = Some(end.next.saturating_sub(1));
    }
    let found = wrong.map(|sequence| broken(sequence, "it is not the entry that was written"));
    Ok(Resumed { end, key, found })
}

/// The key after the entries that were written since it was kept, and the first of them that it does not prove.
fn led_on(folder: &Path, kept: End, end: End, mut key: LogKey) -> Result<(LogKey, Option<u64>), LogError> {
    let (mut link, mut wrong) = (kept.link, None);
    if kept.next < end.next {
        read::entries(folder, kept.next, |head, line| {
            if wrong.is_none() && (head.previous != link || !is_proved(&key, &link, line)) {
                wrong = Some(head.sequence);
            }
            link = head.previous.next(line);
            key.advance();
            ControlFlow::Continue(())
        })?;
    }
    Ok((key, wrong))
}

fn new_key() -> Result<LogKey, LogError> {
    LogKey::random().map_err(|_| LogError::NoRandom)
}

fn broken(sequence: u64, reason: &str) -> Mark {
    Mark::Broken { sequence: sequence.max(1), reason: reason.to_owned() }
}
