//! Looking through the log for entries of one kind.

use std::ops::ControlFlow;
use std::path::Path;

use core_types::ProfileName;
use core_types::limits::AUDIT_PAGE_MAX;
use core_types::protocol::profile::{AuditLine, AuditPage, AuditSearch};
use serde::Deserialize;

use super::LogError;
use super::read::{PAGE_BYTES_MAX, entries};

/// Most entries that are looked at for one answer, so that none takes long.
const LOOKED_AT_MAX: u64 = 100_000;

/// A successful read of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadEntry {
    /// In which profile.
    pub(crate) profile: ProfileName,
    /// Which secret.
    pub(crate) name: String,
    /// When, in milliseconds of the Unix epoch.
    pub(crate) unix_ms: u64,
    /// By whom.
    pub(crate) requester: String,
}

/// What of an entry is looked at.
#[derive(Deserialize)]
struct Sought {
    operation: String,
    profile: Option<String>,
    subject: Option<String>,
    requester: SoughtRequester,
    outcome: String,
}

#[derive(Deserialize)]
struct SoughtRequester {
    name: String,
}

/// A page of the entries that a call seeks.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn search(folder: &Path, call: &AuditSearch) -> Result<AuditPage, LogError> {
    let mut page = AuditPage { lines: Vec::new(), looked_at: call.after, more: false };
    let (mut bytes, mut looked) = (0, 0);
    entries(folder, call.after.saturating_add(1), |head, line| {
        let full = page.lines.len() >= AUDIT_PAGE_MAX || bytes + line.len() > PAGE_BYTES_MAX;
        if full || looked >= LOOKED_AT_MAX {
            page.more = true;
            return ControlFlow::Break(());
        }
        (page.looked_at, looked) = (head.sequence, looked + 1);
        let young = |since| head.unix_ms().is_none_or(|unix_ms| unix_ms >= since);
        if call.since_unix_ms.is_none_or(young)
            && seeks(call, line)
            && let Ok(json) = String::from_utf8(line.to_vec())
        {
            bytes += json.len();
            page.lines.push(AuditLine { sequence: head.sequence, json });
        }
        ControlFlow::Continue(())
    })?;
    Ok(page)
}

fn seeks(call: &AuditSearch, line: &[u8]) -> bool {
    let Ok(entry) = serde_json::from_slice::<Sought>(line) else { return false };
    let is = |wanted: Option<&str>, found: Option<&str>| wanted.is_none() || wanted == found;
    is(call.profile.as_ref().map(ProfileName::as_str), entry.profile.as_deref())
        && is(call.subject.as_deref(), entry.subject.as_deref())
        && is(call.requester.as_deref(), Some(&entry.requester.name))
}

/// Gives every successful read of a secret from entry `first` on to `each`; answers the last entry there is.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn each_read(folder: &Path, first: u64, mut each: impl FnMut(ReadEntry)) -> Result<u64, LogError> {
    let mut last = first.saturating_sub(1);
    entries(folder, first, |head, line| {
        last = head.sequence;
        let entry = serde_json::from_slice::<Sought>(line).ok();
        let entry = entry.filter(|entry| entry.operation == "get" && entry.outcome == "done");
        if let Some(Sought { profile: Some(profile), subject: Some(name), requester, .. }) = entry
            && let (Ok(profile), Some(unix_ms)) = (ProfileName::parse(profile), head.unix_ms())
        {
            each(ReadEntry { profile, name, unix_ms, requester: requester.name });
        }
        ControlFlow::Continue(())
    })?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::line::samples;
    use super::*;

    fn call() -> AuditSearch {
        AuditSearch { after: 0, profile: None, subject: None, requester: None, since_unix_ms: None }
    }

    fn found(folder: &Path, call: &AuditSearch) -> Vec<u64> {
        search(folder, call).unwrap().lines.iter().map(|line| line.sequence).collect()
    }

    #[test]
    fn every_condition_narrows_and_pages_follow_each_other() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("audit");
        core_crypto::private_fs::ensure_private_dir(&folder).unwrap();
        let lines = samples::lines(2_500);
        fs::write(folder.join("000001.jsonl"), [lines.join(&b'\n'), vec![b'\n']].concat()).unwrap();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(found(&folder, &AuditSearch { subject: name("secret-7"), ..call() }), [8]);
        assert_eq!(found(&folder, &AuditSearch { subject: name("secret-7"), after: 8, ..call() }), [0; 0]);
        assert_eq!(found(&folder, &AuditSearch { requester: name("backup"), ..call() }), [0; 0]);
        assert_eq!(found(&folder, &AuditSearch { since_unix_ms: Some(u64::MAX), ..call() }), [0; 0]);
        let none = ProfileName::parse("none").unwrap();
        assert_eq!(found(&folder, &AuditSearch { profile: Some(none), ..call() }), [0; 0]);
        let (mut after, mut all) = (0, Vec::new());
        loop {
            let page = search(&folder, &AuditSearch { after, requester: name("cli"), ..call() }).unwrap();
            all.extend(page.lines.iter().map(|line| line.sequence));
            after = page.looked_at;
            if !page.more {
                break;
            }
        }
        assert_eq!(all, Vec::from_iter(1..=2_500));
    }
}
