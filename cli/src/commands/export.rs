//! `pds export`: values in clear, for a program that is named; what it would not read back exactly is refused.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use core_types::WireSecret;
use core_types::child::environment::split;
use core_types::protocol::launcher::Run;
use core_types::protocol::secrets::{List, NamedSecret};
use zeroize::Zeroizing;

use super::env;
use crate::args::{EnvFormat, ExportFormat, ExportOptions};
use crate::assignments;
use crate::error::Failure;
use crate::fetch;
use crate::import::{ImportError, names};
use crate::kubernetes;
use crate::new_file::NewFile;
use crate::project;
use crate::session::Session;

pub(super) fn run(session: &mut Session, options: &ExportOptions) -> Result<(), Failure> {
    check_options(options)?;
    let taken = options.out.as_deref().filter(|path| !options.force && path.symlink_metadata().is_ok());
    if let Some(path) = taken {
        return Err(Failure::FileExists { path: path.to_owned() });
    }
    let (text, count) = match options.format.as_variables() {
        Some(format) => {
            let variables = variables(session, options)?;
            let pairs: Vec<(&[u8], &[u8])> = variables.iter().map(|pair| split(pair.expose())).collect();
            (assignments::written(format, &pairs)?, pairs.len())
        }
        None if options.format == ExportFormat::Kubernetes => {
            let name = match &options.name {
                Some(name) => name.clone(),
                None => session.profile()?.as_str().to_owned(),
            };
            let variables = variables(session, options)?;
            let pairs: Vec<(&[u8], &[u8])> = variables.iter().map(|pair| split(pair.expose())).collect();
            (kubernetes::secret(&name, &pairs)?, pairs.len())
        }
        None => by_names(session, options)?,
    };
    match &options.out {
        Some(path) => write_file(path, &text, options.force)?,
        None => {
            if std::io::stdout().is_terminal() {
                session.messages.note(format!(
                    "careful: here come {count} values in clear, onto this terminal and into what it keeps"
                ));
            }
            session.output.prepared(&text)?;
        }
    }
    if let Some(path) = &options.out {
        session.messages.note(format!("careful: {} holds {count} values in clear", path.display()));
    }
    Ok(())
}

fn check_options(options: &ExportOptions) -> Result<(), ImportError> {
    let is_json = options.format == ExportFormat::Json;
    let selected = &options.selected;
    let makes_variables =
        !selected.mappings.is_empty() || selected.prefix.is_some() || !selected.env_files.is_empty();
    if is_json && makes_variables {
        return Err(ImportError::Option(
            "--format json writes secrets under their names: --env, --prefix and --env-file are about variables",
        ));
    }
    if options.original_names && !is_json {
        return Err(ImportError::Option("--original-names goes with --format json"));
    }
    if options.name.is_some() && options.format != ExportFormat::Kubernetes {
        return Err(ImportError::Option("--name goes with --format kubernetes"));
    }
    Ok(())
}

/// The variables that the command line selects; a project has no say in what leaves.
fn variables(session: &mut Session, options: &ExportOptions) -> Result<Vec<WireSecret>, Failure> {
    let wanted = project::wanted(&options.selected, None)?;
    env::variables(session, wanted, &options.selected.env_files, fetch::in_parts)
}

/// All selected secrets as one JSON object of their names, or of those that they had elsewhere.
fn by_names(session: &mut Session, options: &ExportOptions) -> Result<(Zeroizing<Vec<u8>>, usize), Failure> {
    let run = Run {
        profiles: session.profiles()?,
        selection: project::wanted(&options.selected, None)?.selection,
        ..Run::default()
    };
    let secrets = fetch::in_parts(session, &run)?;
    let originals = if options.original_names { originals(session, &run)? } else { BTreeMap::new() };
    let named = secrets.iter().map(|NamedSecret { name, value }| {
        let original = originals.get(name.as_str());
        (original.map_or(name.as_str(), String::as_str).as_bytes(), value.expose())
    });
    let named: Vec<(&[u8], &[u8])> = named.collect();
    let mut sorted: Vec<&[u8]> = named.iter().map(|(name, _)| *name).collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = String::from_utf8_lossy(twice[0]).into_owned();
        return Err(ImportError::at(
            format!("'{}'", crate::output::shown(&name)),
            "two secrets had this name where they were imported from; choose with --only",
        )
        .into());
    }
    Ok((assignments::written(EnvFormat::Json, &named)?, named.len()))
}

/// The names that secrets had where they were imported from, as far as their notes keep them.
fn originals(session: &mut Session, run: &Run) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for profile in &run.profiles {
        let mut call = List { profile: profile.clone(), pattern: None, after: None };
        loop {
            let page = session.call(&call)?;
            call.after = page.entries.last().map(|entry| entry.name.clone());
            for entry in page.entries {
                if let Some(original) = entry.note.as_ref().and_then(names::original) {
                    found.insert(entry.name.into(), original);
                }
            }
            if !page.more || call.after.is_none() {
                break;
            }
        }
    }
    Ok(found)
}

fn write_file(path: &Path, text: &[u8], force: bool) -> Result<(), Failure> {
    let mut new = NewFile::beside(path)?;
    let failed = |source| Failure::File { what: "written", path: path.to_owned(), source };
    new.file.write_all(text).map_err(failed)?;
    new.file.sync_all().map_err(failed)?;
    new.put_in_place(force)
}
