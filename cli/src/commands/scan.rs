//! `pds scan`: looks for values of unlocked profiles, and for well-known tokens, in files, in a repository of git and in
//! histories of shells. Whatever is found, no value and no part of a line is printed.

mod git;
mod needles;
mod places;
mod shapes;

use core_types::ProfileName;
use core_types::protocol::secrets::{GetBatch, ProfileState, Profiles, Selection};
use serde::Serialize;

use self::needles::Needles;
use self::places::{Place, Seen};
use self::shapes::Shapes;
use crate::args::ScanOptions;
use crate::error::{Exit, Failure};
use crate::fetch;
use crate::output::shown;
use crate::session::Session;
use crate::shown_forms::VALUE_BYTES_MIN;

/// Why nothing can be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// Git failed, or is missing.
    #[error("git cannot tell what is there: {0}")]
    Git(String),
    /// Nothing to look at.
    #[error("no history of bash, zsh or fish is there")]
    NoHistory,
}

impl ScanError {
    /// What to do next.
    pub(crate) fn next(&self) -> &'static str {
        match self {
            Self::Git(_) => "see `git status` there; without --staged and --history any folder does",
            Self::NoHistory => "name the file: `pds scan FILE`",
        }
    }
}

/// One place where something was found. `line` is from 1; `object` is the blob, commit or tag of git that holds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    file: String,
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    kind: Kind,
    /// `PROFILE/NAME` of a secret, or what kind of token it is.
    what: String,
    encoding: &'static str,
}

/// Whether what was found is a value that is kept, or only looks like a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Secret,
    Token,
}

/// `pds scan --json`.
#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// How many files or objects, and bytes, were looked at.
    files: u64,
    bytes: u64,
    /// Names of secrets that are too short to be looked for.
    too_short: Vec<String>,
    /// What was not looked at, and why.
    skipped: Vec<Skipped>,
}

#[derive(Serialize)]
struct Skipped {
    file: String,
    reason: String,
}

/// What looks, and what it has seen.
struct Scanner {
    needles: Needles,
    shapes: Shapes,
    report: Report,
}

pub(super) fn run(session: &mut Session, options: &ScanOptions) -> Result<(), Failure> {
    let (needles, too_short) = needles(session)?;
    let report = Report { findings: Vec::new(), files: 0, bytes: 0, too_short, skipped: Vec::new() };
    let mut scanner = Scanner { needles, shapes: Shapes::new(), report };
    let path = options.path.as_deref().unwrap_or_else(|| std::path::Path::new("."));
    let mut look = |place: Place<'_>| scanner.look(place);
    match (options.staged, options.history, options.shell_history) {
        (true, _, _) => git::staged(path, &mut look)?,
        (_, true, _) => git::history(path, &mut look)?,
        (_, _, true) => places::shell_histories(&mut look)?,
        _ => places::tree(path, &mut look)?,
    }
    tell(session, scanner.report)
}

/// The values of the profiles that `-p` names, else of all that are unlocked; with the names of those that are too short.
fn needles(session: &mut Session) -> Result<(Needles, Vec<String>), Failure> {
    let mut secrets = Vec::new();
    let mut too_short = Vec::new();
    for profile in profiles(session)? {
        let call = GetBatch { profile: profile.clone(), selection: Selection::All, program: None };
        for secret in fetch::read(session, &call)? {
            let name = format!("{profile}/{}", secret.name);
            if secret.value.expose().len() < VALUE_BYTES_MIN {
                too_short.push(name);
            } else {
                secrets.push((name, secret.value));
            }
        }
    }
    // What is not needed any more is not kept open while files are read.
    session.disconnect();
    Ok((Needles::new(secrets), too_short))
}

fn profiles(session: &mut Session) -> Result<Vec<ProfileName>, Failure> {
    if session.names_profile() {
        return session.profiles();
    }
    // Daemons that are not running hold no value, and starting them would not help.
    session.options.no_start = true;
    let entries = match session.call(&Profiles {}) {
        Err(Failure::NotRunning) => Vec::new(),
        answer => answer?,
    };
    let open = entries.into_iter().filter(|entry| matches!(entry.state, ProfileState::Unlocked { .. }));
    let open: Vec<ProfileName> = open.map(|entry| entry.name).collect();
    if open.is_empty() {
        session.messages.note("note: no profile is unlocked, so only well-known tokens are looked for");
    }
    Ok(open)
}

impl Scanner {
    fn look(&mut self, place: Place<'_>) {
        let Place { file, object, seen } = place;
        let bytes = match seen {
            Seen::Bytes(bytes) => bytes,
            Seen::Skipped(reason) => return self.report.skipped.push(Skipped { file, reason }),
        };
        self.report.files += 1;
        self.report.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let secrets = self
            .needles
            .find(bytes)
            .into_iter()
            .map(|(at, name, encoding)| (at, Kind::Secret, name, encoding));
        let tokens = self.shapes.find(bytes).into_iter().map(|(at, name)| (at, Kind::Token, name, "plain"));
        let mut found: Vec<(usize, Kind, String, &'static str)> = secrets.chain(tokens).collect();
        found.sort_unstable();
        let (mut line, mut counted) = (1, 0);
        for (at, kind, what, encoding) in found {
            line += bytes[counted..at].iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
            counted = at;
            self.report.findings.push(Finding {
                file: file.clone(),
                line,
                object: object.clone(),
                kind,
                what,
                encoding,
            });
        }
    }
}

/// Tells what was found, and what was not looked at. A value that is both kept and of a known shape is told as kept.
fn tell(session: &mut Session, mut report: Report) -> Result<(), Failure> {
    report.findings.sort();
    report.findings.dedup();
    if session.output.wants_json() {
        session.output.object(&report)?;
    } else {
        for Finding { file, line, object, what, encoding, kind } in &report.findings {
            let object = object.as_ref().map(|object| format!(" (in {object})")).unwrap_or_default();
            let what = if *kind == Kind::Secret { format!("secret {what}") } else { what.clone() };
            let how = if *encoding == "plain" { String::new() } else { format!(", as {encoding}") };
            session.output.line(format!("{}:{line}: {what}{how}{object}", shown(file)))?;
        }
    }
    if !report.too_short.is_empty() {
        let names = report.too_short.join(", ");
        session
            .messages
            .note(format!("note: values of fewer than {VALUE_BYTES_MIN} bytes are not looked for: {names}"));
    }
    for Skipped { file, reason } in &report.skipped {
        session.messages.note(format!("note: {} was not looked at: {reason}", shown(file)));
    }
    session.messages.detail(format!("looked at {} files, {} bytes", report.files, report.bytes));
    // A hook shall not pass what nobody has seen.
    let clean = report.findings.is_empty() && report.skipped.is_empty();
    if clean { Ok(()) } else { Err(Failure::Reported(Exit::Failed)) }
}
