//! `pds audit tail` and `pds audit verify`.

use std::time::Duration;

use core_types::header::Refusal;
use core_types::limits::AUDIT_PAGE_MAX;
use core_types::protocol::profile::{AuditLine, AuditReport, AuditTail, AuditVerify, Unproved};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Failure;
use crate::output::shown;
use crate::session::Session;

/// How often `-f` asks for new entries.
const FOLLOW_PAUSE: Duration = Duration::from_millis(250);
/// A check reads the whole log, which may be long.
const VERIFY_DEADLINE: Duration = Duration::from_secs(120);

/// `pds audit tail --json`: the entries as they stand in the log. With `-f`, one entry per line instead.
#[derive(Serialize)]
pub(super) struct Entries<'a> {
    pub(super) entries: Vec<&'a RawValue>,
}

/// `pds audit verify --json`.
#[derive(Serialize)]
struct Verified<'a> {
    entries: u64,
    intact: bool,
    fault: Option<Fault>,
    unproved: &'a [Stretch],
}

/// Entries of which only the hashes could be checked; `profile` vouches for them when it is unlocked.
#[derive(Serialize)]
struct Stretch {
    first: u64,
    last: u64,
    profile: Option<String>,
}

impl From<Unproved> for Stretch {
    fn from(Unproved { first, last, profile }: Unproved) -> Self {
        Self { first, last, profile: profile.map(String::from) }
    }
}

impl Stretch {
    fn line(&self) -> String {
        let Self { first, last, profile } = self;
        let why = match profile {
            Some(profile) => format!("unlock profile '{profile}' to have it prove who wrote them"),
            None => "no profile was unlocked yet, so nothing proves who wrote them".to_owned(),
        };
        format!("  of entries {first} to {last} only the hashes were checked: {why}")
    }
}

/// Where the log is not as it was written.
#[derive(Serialize)]
struct Fault {
    sequence: u64,
    reason: String,
}

/// The parts of an entry that its line of text shows; an entry may have others.
#[derive(Deserialize)]
struct Entry {
    time: String,
    operation: String,
    profile: Option<String>,
    subject: Option<String>,
    requester: Requester,
    outcome: String,
    gate: Option<String>,
    reason: Option<String>,
    cause: Option<String>,
    child: Option<Child>,
}

/// A program that was started, or has ended.
#[derive(Deserialize)]
struct Child {
    pid: u32,
    #[serde(default)]
    secrets: Vec<String>,
    exit: Option<Exit>,
}

/// How a program ended.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Exit {
    Code(i32),
    Signal(i32),
    Unknown,
}

impl Child {
    fn text(&self) -> String {
        let pid = self.pid;
        match &self.exit {
            None if self.secrets.is_empty() => format!(", as pid {pid} with no secret"),
            None => format!(", as pid {pid} with {}", self.secrets.join(", ")),
            Some(Exit::Code(code)) => format!(", pid {pid} exited with code {code}"),
            Some(Exit::Signal(signal)) => format!(", pid {pid} was ended by signal {signal}"),
            Some(Exit::Unknown) => format!(", pid {pid}"),
        }
    }
}

#[derive(Deserialize)]
struct Requester {
    name: String,
    pid: Option<u32>,
    executable: Option<String>,
}

pub(super) fn tail(session: &mut Session, count: u32, follow: bool) -> Result<(), Failure> {
    let lines = session.call(&AuditTail { count, after: None })?;
    if session.output.wants_json() && !follow {
        let entries = lines.iter().map(|line| raw(&line.json)).collect::<Result<_, _>>()?;
        return session.output.object(&Entries { entries });
    }
    let mut last = 0;
    write_lines(session, &lines, &mut last)?;
    if !follow {
        return Ok(());
    }
    if last == 0 {
        last = newest(session)?;
    }
    // Ended by a signal, as with any tail.
    loop {
        std::thread::sleep(FOLLOW_PAUSE);
        let count = u32::try_from(AUDIT_PAGE_MAX).unwrap_or(u32::MAX);
        match session.call(&AuditTail { count, after: Some(last) }) {
            Ok(lines) => write_lines(session, &lines, &mut last)?,
            // The daemon or the bus is being restarted; the same question can be put again.
            Err(Failure::Refused { refusal: Refusal::ServiceGone, .. }) => {}
            Err(Failure::Lost { .. }) => session.reconnect()?,
            Err(failure) => return Err(failure),
        }
    }
}

/// The newest entry there is, for a tail that shows none of the old ones.
fn newest(session: &mut Session) -> Result<u64, Failure> {
    Ok(session.call(&AuditTail { count: 1, after: None })?.last().map_or(0, |line| line.sequence))
}

fn write_lines(session: &mut Session, lines: &[AuditLine], last: &mut u64) -> Result<(), Failure> {
    for line in lines {
        if session.output.wants_json() {
            session.output.line(raw(&line.json)?.get())?;
        } else {
            session.output.line(text(line))?;
        }
        *last = line.sequence;
    }
    session.output.finish()
}

/// An entry as JSON that may stand in other JSON.
pub(super) fn raw(json: &str) -> Result<&RawValue, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::Protocol {
        service: core_types::name::PROFILE,
        reason: format!("an entry of the audit log is not JSON: {error}"),
    })
}

/// An entry as one line of text; one of a form that is not known is shown as it is.
pub(super) fn text(line: &AuditLine) -> String {
    let sequence = line.sequence;
    let Ok(entry) = serde_json::from_str::<Entry>(&line.json) else {
        return format!("{sequence}  {}", shown(&line.json));
    };
    let object = match (&entry.profile, &entry.subject) {
        (Some(profile), Some(subject)) => format!(" {profile}/{subject}"),
        (Some(one), None) | (None, Some(one)) => format!(" {one}"),
        (None, None) => String::new(),
    };
    let Requester { name, pid, executable } = &entry.requester;
    let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let executable = executable.as_deref().unwrap_or("unknown");
    let gate = entry.gate.map(|gate| format!(" by gate {gate}")).unwrap_or_default();
    let reason = entry.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let cause = entry.cause.map(|cause| format!(", cause {cause}")).unwrap_or_default();
    let child = entry.child.as_ref().map(Child::text).unwrap_or_default();
    let text = format!(
        "{sequence}  {}  {}{object}  {}{gate}{cause}{child}{reason}  ({name}, pid {pid}, {executable})",
        entry.time, entry.operation, entry.outcome
    );
    shown(&text)
}

pub(super) fn verify(session: &mut Session) -> Result<(), Failure> {
    let AuditReport { entries, fault, unproved } = session.call_within(&AuditVerify {}, VERIFY_DEADLINE)?;
    let shown_fault =
        fault.as_ref().map(|fault| Fault { sequence: fault.sequence, reason: fault.reason.clone() });
    let unproved: Vec<Stretch> = unproved.into_iter().map(Stretch::from).collect();
    let intact = fault.is_none();
    session.output.object_if_wanted(&Verified {
        entries,
        intact,
        fault: shown_fault,
        unproved: &unproved,
    })?;
    match fault {
        Some(fault) => Err(Failure::AuditBroken { sequence: fault.sequence, reason: fault.reason }),
        None if session.output.wants_json() => Ok(()),
        None => {
            session.output.line(format_args!("the audit log is intact: {entries} entries"))?;
            unproved.iter().try_for_each(|stretch| session.output.line(stretch.line()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> AuditLine {
        AuditLine { sequence: 7, json: json.to_owned() }
    }

    #[test]
    fn an_entry_is_one_line_and_its_unknown_parts_stay_unknown() {
        let json = r#"{"sequence":7,"previous":"00","time":"2025-01-02T03:04:05.678Z","operation":"get",
            "profile":"work","subject":"db/x","requester":{"name":"cli","uid":1,"pid":9,"executable":"/usr/bin/pds","unit":null},
            "outcome":"done","recorder":{"by":"daemon-secrets"}}"#;
        assert_eq!(
            text(&line(json)),
            "7  2025-01-02T03:04:05.678Z  get work/db/x  done  (cli, pid 9, /usr/bin/pds)"
        );
        let json = r#"{"time":"t","operation":"get","profile":"work","subject":"a\u001b[2Jb",
            "requester":{"name":"cli","uid":1,"pid":null,"executable":null},"outcome":"denied","gate":"lock","reason":"locked"}"#;
        assert_eq!(
            text(&line(json)),
            "7  t  get work/a\\u{1b}[2Jb  denied by gate lock: locked  (cli, pid unknown, unknown)"
        );
        let run = |rest: &str| {
            text(&line(&format!(
                r#"{{"time":"t","operation":"run-end","profile":"p","subject":"sh","requester":{{"name":"cli","pid":1,"executable":null}},{rest}}}"#
            )))
        };
        for (rest, expected) in [
            (
                r#""outcome":"done","child":{"pid":7,"secrets":["a","b"],"exit":null}"#,
                "done, as pid 7 with a, b  ",
            ),
            (r#""outcome":"done","child":{"pid":7,"exit":{"code":3}}"#, "done, pid 7 exited with code 3  "),
            (
                r#""outcome":"done","child":{"pid":7,"exit":{"signal":9}}"#,
                "done, pid 7 was ended by signal 9  ",
            ),
            (r#""outcome":"failed","reason":"r","child":{"pid":7,"exit":"unknown"}"#, "failed, pid 7: r  "),
            (r#""outcome":"done","cause":"user""#, "done, cause user  "),
        ] {
            assert_eq!(run(rest), format!("7  t  run-end p/sh  {expected}(cli, pid 1, unknown)"));
        }
        assert_eq!(text(&line("{\"other\":\n1}")), "7  {\"other\":\\n1}");
    }

    #[test]
    fn entries_stand_in_the_object_as_they_stand_in_the_log() {
        let entries = vec![raw(r#"{"sequence":1,"b":"\u00e4"}"#).unwrap()];
        let json = serde_json::to_string(&Entries { entries }).unwrap();
        assert_eq!(json, r#"{"entries":[{"sequence":1,"b":"\u00e4"}]}"#);
        assert!(raw("{").is_err());
    }
}
