//! `pds import`: secrets of other programs become secrets here, all at once or none.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;

use core_crypto::{FrameWriter, FramesError};
use core_types::limits::COMPARE_MAX;
use core_types::protocol::encode;
use core_types::protocol::import::{Compare, Comparison, IMPORT_FILE, Import, ImportedSecret, Supposed};
use core_types::protocol::secrets::{List, SecretPage, SecretsDenial};
use core_types::{ProfileName, WireSecret};
use serde::Serialize;

use crate::args::{ImportFormat, ImportOptions, Policy};
use crate::error::{Denial, Failure};
use crate::fetch::RATE_WAIT_MS_MAX;
use crate::fields;
use crate::import::leftovers::{self, Leftovers};
use crate::import::plan::{Deed, Plan, Planned, State};
use crate::import::{Helper, ImportError, format_of};
use crate::output::shown;
use crate::progress::{Counter, Progress};
use crate::prompt::{PasswordSource, PromptError, Terminal, Typed};
use crate::session::{LONG_DEADLINE, Session};

/// Bytes of values that are compared in one call.
const COMPARED_BYTES: usize = 1 << 20;

/// `pds import --json`, with or without `--dry-run`.
#[derive(Serialize)]
struct Report<'a> {
    profile: &'a str,
    dry_run: bool,
    /// How many secrets were stored, or would be.
    stored: usize,
    secrets: Vec<Line<'a>>,
    /// What is in the source and is not imported.
    left_out: &'a [String],
    source: Option<SourceReport>,
}

/// A secret of it.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    from: &'a str,
    at: &'a str,
    state: &'static str,
    action: &'static str,
    why: Option<&'a str>,
}

/// What still holds the values in clear.
#[derive(Serialize)]
struct SourceReport {
    removed: bool,
    copies: Vec<String>,
    in_git: bool,
}

/// Asks for the password of an export, and shows how far reading is.
struct Assistant<'a> {
    session: &'a Session,
    password: Option<PasswordSource>,
    counter: Option<Counter>,
}

impl Helper for Assistant<'_> {
    fn password(&mut self) -> Result<Typed, PromptError> {
        let source = self.password.take().unwrap_or(PasswordSource::Terminal);
        source.existing("Password of the export: ")
    }

    fn progress(&mut self, done: usize, total: usize) {
        let messages = &self.session.messages;
        let counter = self.counter.get_or_insert_with(|| Counter::show(messages, "reading", total));
        counter.set(done);
    }
}

pub(super) fn run(session: &mut Session, options: &ImportOptions) -> Result<(), Failure> {
    let password = PasswordSource::open(&options.password)?;
    let profile = session.profile()?;
    check_options(options)?;
    let mut assistant = Assistant { session, password: Some(password), counter: None };
    let contents = format_of(options.format).read(&options.source, &mut assistant)?;
    drop(assistant);
    let existing = existing(session, &profile)?;
    let mut plan = Plan::new(contents.found, &options.prefix, existing);
    compare(session, &profile, &mut plan)?;
    plan.decide(options.on_conflict.unwrap_or(Policy::Fail), options.skip_invalid);
    if options.dry_run {
        return report(session, &profile, &plan, &contents.left_out, options, None);
    }
    if options.on_conflict.is_none() {
        ask(session, &mut plan, options.skip_invalid)?;
    }
    plan.check()?;
    let stored = store(session, &profile, &plan)?;
    tell(session, &profile, &plan, &contents.left_out, stored);
    let source = look_after_source(session, options, &plan, &contents.left_out)?;
    if session.output.wants_json() {
        return report(session, &profile, &plan, &contents.left_out, options, source);
    }
    Ok(())
}

fn check_options(options: &ImportOptions) -> Result<(), ImportError> {
    if !options.remove_source {
        return Ok(());
    }
    if options.source == Path::new("-") {
        return Err(ImportError::Option("--remove-source needs a file, and not standard input"));
    }
    if options.format == ImportFormat::Pass {
        return Err(ImportError::Option(
            "--remove-source removes files and no stores of pass, which are encrypted",
        ));
    }
    Ok(())
}

/// All names that there are, with the versions that are read.
fn existing(session: &mut Session, profile: &ProfileName) -> Result<BTreeMap<String, u64>, Failure> {
    let mut call = List { profile: profile.clone(), pattern: None, after: None };
    let mut names = BTreeMap::new();
    loop {
        let SecretPage { entries, more } = patiently(session, |session| session.call(&call))?;
        call.after = entries.last().map(|entry| entry.name.clone());
        names.extend(entries.into_iter().map(|entry| (String::from(entry.name), entry.version)));
        if !more || call.after.is_none() {
            return Ok(names);
        }
    }
}

/// Makes a call again when the rate limit lets it.
fn patiently<T>(
    session: &mut Session,
    mut call: impl FnMut(&mut Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    loop {
        match call(session) {
            Err(Failure::Denied(Denial::Secrets(SecretsDenial::RateLimited { retry_ms })))
                if retry_ms <= RATE_WAIT_MS_MAX =>
            {
                std::thread::sleep(std::time::Duration::from_millis(retry_ms));
            }
            other => return other,
        }
    }
}

/// Finds out which values are those that are there already.
fn compare(session: &mut Session, profile: &ProfileName, plan: &mut Plan) -> Result<(), Failure> {
    let wanted = plan.to_compare();
    let counter = Counter::show(&session.messages, "comparing", wanted.len());
    let (mut done, mut most) = (0, COMPARE_MAX);
    while done < wanted.len() {
        let mut bytes = 0;
        let fitting = wanted[done..].iter().take(most).take_while(|index| {
            let before = bytes;
            bytes += plan.secrets[**index].found.value.len() + plan.secrets[**index].name.len();
            before == 0 || bytes <= COMPARED_BYTES
        });
        let chunk: Vec<usize> = fitting.copied().collect();
        match compared(session, profile, plan, &chunk) {
            Ok(found) => {
                chunk.iter().zip(found).for_each(|(index, found)| plan.compared(*index, Some(found)));
            }
            Err(Failure::Denied(Denial::Secrets(SecretsDenial::BatchOverBurst { burst, .. })))
                if most > 1 =>
            {
                most = usize::try_from(burst).unwrap_or(1).clamp(1, most / 2);
                continue;
            }
            // Only whoever may read a value is told whether it is the same; what may not be read is there all the same.
            Err(failure) if failure.is_forbidden() && chunk.len() > 1 => {
                most = 1;
                continue;
            }
            Err(failure) if failure.is_forbidden() => plan.compared(chunk[0], None),
            Err(failure) => return Err(failure),
        }
        done += chunk.len();
        counter.set(done);
    }
    Ok(())
}

fn compared(
    session: &mut Session,
    profile: &ProfileName,
    plan: &Plan,
    chunk: &[usize],
) -> Result<Vec<Comparison>, Failure> {
    let mut secrets = Vec::with_capacity(chunk.len());
    for index in chunk {
        let Planned { name, found, .. } = &plan.secrets[*index];
        let value = fields::sealed(session, profile, name, WireSecret::new(found.value.to_vec()))?;
        secrets.push(Supposed { name: name.clone(), value });
    }
    let call = Compare { profile: profile.clone(), secrets };
    patiently(session, |session| session.call(&call))
}

/// Asks on a terminal whether what is there shall be replaced.
fn ask(session: &Session, plan: &mut Plan, skip_invalid: bool) -> Result<(), Failure> {
    let Err(ImportError::Conflicts { names }) = plan.check() else { return Ok(()) };
    if !std::io::stdin().is_terminal() || session.messages.is_quiet() {
        return Ok(());
    }
    show_table(session, plan);
    let question = format!("Replace {} values by those of the import? [y/N] ", names.len());
    if !Terminal::open()?.confirm(&question)? {
        return Err(Failure::NotConfirmed);
    }
    plan.decide(Policy::Replace, skip_invalid);
    Ok(())
}

fn show_table(session: &Session, plan: &Plan) {
    let conflicts = plan.secrets.iter().filter(|secret| secret.deed == Deed::Refuse);
    conflicts.for_each(|secret| session.messages.note(line(secret)));
}

/// Hands everything over, to be stored in one step; how many.
fn store(session: &mut Session, profile: &ProfileName, plan: &Plan) -> Result<u64, Failure> {
    let failed = |error: FramesError| ImportError::HandOver(error.to_string());
    let mut writer = FrameWriter::new(IMPORT_FILE).map_err(failed)?;
    let (mut count, mut bytes) = (0_u32, 0_u64);
    for secret in plan.secrets.iter().filter(|secret| secret.is_stored()) {
        let imported = ImportedSecret {
            name: secret.stored_as().to_owned(),
            value: WireSecret::new(secret.found.value.to_vec()),
            expires_unix_ms: None,
            note: secret.note.clone(),
            replaces: secret.version.filter(|_| !matches!(secret.deed, Deed::Rename(_))),
        };
        let encoded = encode(&imported).map_err(|error| ImportError::HandOver(error.to_string()))?;
        writer.add(&encoded).map_err(failed)?;
        count += 1;
        bytes += encoded.len() as u64;
    }
    if count == 0 {
        return Ok(0);
    }
    let (file, key) = writer.finish().map_err(failed)?;
    let file = std::fs::File::from(file);
    let call = Import { profile: profile.clone(), key: WireSecret::new(key.expose().to_vec()), count };
    // The daemon reads the file that we wrote, so its place is how far it is.
    let progress = Progress::watch(&session.messages, "storing", &file, Some(bytes));
    let stored = patiently(session, |session| session.call_with_file(&call, &file, LONG_DEADLINE));
    drop(progress);
    stored
}

fn tell(session: &Session, profile: &ProfileName, plan: &Plan, left_out: &[String], stored: u64) {
    let mut text = format!("imported {stored} secrets into profile '{profile}'");
    for (count, what) in [
        (plan.count(|deed| *deed == Deed::Replace), "replaced"),
        (plan.count(|deed| matches!(deed, Deed::Rename(_))), "under another name"),
        (plan.count(|deed| *deed == Deed::Nothing), "there already"),
        (plan.count(|deed| *deed == Deed::Skip), "left out"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    session.messages.note(text);
    if !left_out.is_empty() {
        session.messages.note(format!("not imported: {}", left_out.join(", ")));
    }
}

/// Says what still holds the values in clear, and removes the source where that is wanted.
fn look_after_source(
    session: &Session,
    options: &ImportOptions,
    plan: &Plan,
    left_out: &[String],
) -> Result<Option<SourceReport>, Failure> {
    let path = &options.source;
    if path == Path::new("-") || options.format == ImportFormat::Pass {
        return Ok(None);
    }
    let leftovers = leftovers::look(path);
    let is_whole = left_out.is_empty() && plan.count(|deed| *deed == Deed::Skip) == 0;
    let wanted = match (options.remove_source, is_whole) {
        (true, false) => {
            session.messages.note(format!(
                "{} is kept, because not everything in it is in the vault; remove it yourself",
                path.display()
            ));
            false
        }
        (true, true) => true,
        (false, true)
            if std::io::stdin().is_terminal()
                && !session.messages.is_quiet()
                && !session.output.wants_json() =>
        {
            let question = format!("Remove {}, which holds the values in clear? [y/N] ", path.display());
            Terminal::open().and_then(|terminal| terminal.confirm(&question)).unwrap_or(false)
        }
        (false, _) => false,
    };
    if wanted {
        let failed = |source| Failure::File { what: "removed", path: path.clone(), source };
        leftovers::remove(path).map_err(failed)?;
    }
    warn(session, path, &leftovers, wanted);
    let copies = leftovers.copies.iter().map(|copy| copy.display().to_string()).collect();
    Ok(Some(SourceReport { removed: wanted, copies, in_git: leftovers.in_git }))
}

fn warn(session: &Session, path: &Path, leftovers: &Leftovers, removed: bool) {
    let path = path.display();
    let messages = &session.messages;
    if removed {
        messages.note(format!(
            "removed {path}; what an SSD, a file system with a journal or snapshots, or a backup keeps of it is out of reach"
        ));
    } else {
        messages.note(format!("careful: {path} still holds the values in clear; --remove-source removes it"));
    }
    if leftovers.linked {
        messages.note("careful: the file has other names (hard links), which still lead to the values");
    }
    for copy in &leftovers.copies {
        messages.note(format!("careful: {} may hold them too", copy.display()));
    }
    if leftovers.in_git {
        messages
            .note("careful: git keeps the file in its history; what was ever committed should be replaced");
    }
}

/// Shows what becomes of each secret.
fn report(
    session: &mut Session,
    profile: &ProfileName,
    plan: &Plan,
    left_out: &[String],
    options: &ImportOptions,
    source: Option<SourceReport>,
) -> Result<(), Failure> {
    if !session.output.wants_json() {
        for secret in &plan.secrets {
            session.output.line(line(secret))?;
        }
        if !left_out.is_empty() {
            session.messages.note(format!("not imported: {}", left_out.join(", ")));
        }
        return Ok(());
    }
    let secrets = plan.secrets.iter().map(|secret| Line {
        name: secret.stored_as(),
        from: &secret.found.original,
        at: &secret.found.place,
        state: secret.state.as_str(),
        action: secret.deed.as_str(),
        why: secret.why.as_deref(),
    });
    let stored = plan.secrets.iter().filter(|secret| secret.is_stored()).count();
    let dry_run = options.dry_run;
    let report =
        Report { profile: profile.as_str(), dry_run, stored, secrets: secrets.collect(), left_out, source };
    session.output.object(&report)
}

/// A secret as a line of the preview.
fn line(secret: &Planned) -> String {
    let mut line =
        format!("{:<9}  {:<7}  {}", secret.state.as_str(), secret.deed.as_str(), shown(secret.stored_as()));
    if secret.found.original != secret.stored_as() && secret.state != State::Invalid {
        line.push_str(&format!("  from '{}'", shown(&secret.found.original)));
    }
    if let Some(why) = &secret.why {
        line.push_str(&format!("  ({}: {})", shown(&secret.found.place), shown(why)));
    }
    line
}
