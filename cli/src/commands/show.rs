//! `pds audit show`: the entries of one secret, one requester, or since a time.

use core_types::protocol::profile::{AuditPage, AuditSearch};
use jiff::Timestamp;

use super::audit::{Entries, raw, text};
use crate::error::Failure;
use crate::session::Session;

/// What is sought.
pub(super) struct Sought<'a> {
    pub(super) secret: Option<&'a str>,
    pub(super) requester: Option<&'a str>,
    pub(super) since: Option<Timestamp>,
    /// Only the profile that was named, if one was.
    pub(super) of_profile: bool,
}

pub(super) fn run(session: &mut Session, sought: &Sought<'_>) -> Result<(), Failure> {
    let profile = if sought.of_profile || sought.secret.is_some() { Some(session.profile()?) } else { None };
    let mut call = AuditSearch {
        after: 0,
        profile,
        subject: sought.secret.map(ToOwned::to_owned),
        requester: sought.requester.map(ToOwned::to_owned),
        since_unix_ms: sought.since.map(|since| u64::try_from(since.as_millisecond()).unwrap_or(0)),
    };
    let mut found = Vec::new();
    loop {
        let AuditPage { lines, looked_at, more } = session.call(&call)?;
        if session.output.wants_json() {
            found.extend(lines);
        } else {
            lines.iter().try_for_each(|line| session.output.line(text(line)))?;
        }
        if !more || looked_at <= call.after {
            break;
        }
        call.after = looked_at;
    }
    if session.output.wants_json() {
        let entries = found.iter().map(|line| raw(&line.json)).collect::<Result<_, _>>()?;
        return session.output.object(&Entries { entries });
    }
    Ok(())
}
