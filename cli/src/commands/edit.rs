//! `pds edit`: a value in the user's editor, on a file in memory that is gone afterwards.

use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use core_crypto::FrameWriter;
use core_types::limits::VALUE_BYTES_MAX;
use core_types::pattern::Pattern;
use core_types::protocol::encode;
use core_types::protocol::import::{IMPORT_FILE, Import, ImportedSecret};
use core_types::protocol::secrets::{Get, List, SecretEntry, SecretsDenial};
use core_types::{ProfileName, SecretName, WireSecret};
use serde::Serialize;

use crate::desk::{Desk, DeskError};
use crate::editor::{Editor, EditorError, Held};
use crate::error::{Denial, Failure};
use crate::fields;
use crate::input::{InputError, Source};
use crate::output::shown;
use crate::prompt::{Terminal, Typed};
use crate::session::{LONG_DEADLINE, Session};

/// Why nothing was edited or stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    /// There is no place for the file.
    #[error("{0}")]
    Desk(#[from] DeskError),
    /// The editor did not end well.
    #[error("{0}, so nothing is stored")]
    Editor(#[from] EditorError),
    /// What it left is no file.
    #[error("the editor left no file, so nothing is stored")]
    NoFile,
    /// Another value stands there now.
    #[error("somebody else stored or removed it meanwhile, so nothing is stored")]
    Changed,
    /// The value could not be packed for its way.
    #[error("the value cannot be handed over: {0}")]
    HandOver(String),
}

impl EditError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Self::Desk(error) => error.next().map(str::to_owned),
            Self::Editor(EditorError::ToldToEnd) | Self::HandOver(_) => None,
            Self::Editor(_) => Some("VISUAL or EDITOR says which editor is used".to_owned()),
            Self::NoFile => Some("have the editor save the file under the name that it was given".to_owned()),
            Self::Changed => Some("edit it again: `pds history NAME` shows the versions".to_owned()),
        }
    }
}

/// `pds edit --json`.
#[derive(Serialize)]
struct Edited<'a> {
    profile: &'a str,
    name: &'a str,
    changed: bool,
    bytes: usize,
}

/// What there was before.
struct Before {
    entry: SecretEntry,
    value: WireSecret,
}

pub(super) fn run(session: &mut Session, name: &str) -> Result<(), Failure> {
    let profile = session.profile()?;
    let name = SecretName::parse(name).map_err(|error| Failure::from(SecretsDenial::InvalidName(error)))?;
    let before = before(session, &profile, &name)?;
    // An editor is open for hours.
    session.disconnect();
    let old = before.as_ref().map(|before| before.value.expose());
    let mut edited = edited(session, &name, old)?;
    let removed = without_added_line_feed(old, &mut edited);
    let changed = old.map_or(!edited.is_empty(), |old| old != edited.as_slice());
    let bytes = edited.len();
    if changed {
        if removed {
            session.messages.note("the line feed that the editor put at the end is left out");
        }
        store(session, &profile, &name, before.as_ref(), &edited)?;
        session.messages.note(format!("stored '{name}' in profile '{profile}'"));
    } else {
        session.messages.note(format!("'{name}' is unchanged, so nothing is stored"));
    }
    session.output.object_if_wanted(&Edited {
        profile: profile.as_str(),
        name: name.as_str(),
        changed,
        bytes,
    })
}

/// The value that is read now, with its version; none where there is no such secret.
fn before(
    session: &mut Session,
    profile: &ProfileName,
    name: &SecretName,
) -> Result<Option<Before>, Failure> {
    let pattern =
        Pattern::parse(name.as_str()).map_err(|error| Failure::from(SecretsDenial::InvalidName(error)))?;
    let page = session.call(&List { profile: profile.clone(), pattern: Some(pattern), after: None })?;
    let Some(entry) = page.entries.into_iter().find(|entry| entry.name == *name) else { return Ok(None) };
    let version = Some(entry.version);
    let get = Get { profile: profile.clone(), name: name.as_str().to_owned(), version };
    let value = session.call(&get)?;
    let value = fields::opened(session, profile, name.as_str(), value)?;
    Ok(Some(Before { entry, value }))
}

/// What the user made of it. Whatever becomes of the editor and of us, nothing of it stays behind in a file.
fn edited(session: &Session, name: &SecretName, old: Option<&[u8]>) -> Result<Typed, Failure> {
    // Dropped in the other order: the folder goes before the signals act that came meanwhile.
    let held = Held::begin().map_err(EditorError::NotRun).map_err(EditError::from)?;
    let desk = Desk::make(&session.paths).map_err(EditError::from)?;
    let file_name = name.as_str().rsplit('/').next().unwrap_or_default();
    let path = desk.put(file_name, old.unwrap_or_default()).map_err(EditError::from)?;
    Editor::of_the_user().edit(&path, &held).map_err(EditError::from)?;
    read(&path)
}

fn read(path: &Path) -> Result<Typed, Failure> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|_| EditError::NoFile)?;
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(EditError::NoFile.into());
    }
    let value = Source::opened("what the editor left".to_owned(), opened).read(VALUE_BYTES_MAX);
    value.map_err(|error: InputError| error.into())
}

/// Editors end a file with a line feed. It is no part of a value that had none at its end, or of a new one of one line.
fn without_added_line_feed(old: Option<&[u8]>, edited: &mut Typed) -> bool {
    let Some((b'\n', text)) = edited.split_last() else { return false };
    let added = match old {
        Some(old) => old.last() != Some(&b'\n'),
        None => !text.contains(&b'\n'),
    };
    if added {
        edited.pop();
    }
    added
}

/// Stores it, if it is still what was edited. On a terminal, what was typed is not lost to a profile that was locked
/// meanwhile.
fn store(
    session: &mut Session,
    profile: &ProfileName,
    name: &SecretName,
    before: Option<&Before>,
    edited: &[u8],
) -> Result<(), Failure> {
    loop {
        let failure = match store_once(session, profile, name, before, edited) {
            Err(failure) if is_passing(&failure) => failure,
            other => return other,
        };
        if !std::io::stdin().is_terminal() {
            return Err(failure);
        }
        session.disconnect();
        session.messages.note(format!("it is not stored yet: {failure}"));
        let question = format!("Store '{}' once more, when that is put right? [y/N] ", shown(name.as_str()));
        if !Terminal::open()?.confirm(&question)? {
            return Err(failure);
        }
    }
}

/// Whether the user can do something about it, in another terminal.
fn is_passing(failure: &Failure) -> bool {
    let locked = |denial: &SecretsDenial| {
        matches!(
            denial,
            SecretsDenial::Locked | SecretsDenial::ProfileNotActive(_) | SecretsDenial::RateLimited { .. }
        )
    };
    failure.is_passing() || matches!(failure, Failure::Denied(Denial::Secrets(denial)) if locked(denial))
}

fn store_once(
    session: &mut Session,
    profile: &ProfileName,
    name: &SecretName,
    before: Option<&Before>,
    edited: &[u8],
) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| EditError::HandOver(error.to_string());
    let value = fields::sealed(session, profile, name.as_str(), WireSecret::new(edited.to_vec()))?;
    let entry = before.map(|before| &before.entry);
    let secret = ImportedSecret {
        name: name.as_str().to_owned(),
        value,
        expires_unix_ms: entry.and_then(|entry| entry.expires_unix_ms),
        note: entry.and_then(|entry| entry.note.clone()),
        replaces: entry.map(|entry| entry.version),
    };
    let mut writer = FrameWriter::new(IMPORT_FILE).map_err(|error| failed(&error))?;
    let encoded = encode(&secret).map_err(|error| failed(&error))?;
    writer.add(&encoded).map_err(|error| failed(&error))?;
    let (file, key) = writer.finish().map_err(|error| failed(&error))?;
    let key = WireSecret::new(key.expose().to_vec());
    // An import of one: it alone takes the version that is to be replaced.
    let call = Import { profile: profile.clone(), key, count: 1 };
    match session.call_with_file(&call, &file.into(), LONG_DEADLINE) {
        Err(Failure::Denied(Denial::Secrets(
            SecretsDenial::ChangedMeanwhile(_) | SecretsDenial::SecretExists { removed: false, .. },
        ))) => Err(EditError::Changed.into()),
        other => other.map(|_stored| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_feed_that_the_editor_added_is_left_out() {
        for (old, edited, kept) in [
            (Some(&b"old"[..]), &b"new\n"[..], &b"new"[..]),
            (Some(b"old"), b"old\n", b"old"),
            (Some(b"old"), b"new\n\n", b"new\n"),
            (Some(b"old\n"), b"new\n", b"new\n"),
            (Some(b"old\n"), b"new", b"new"),
            (Some(b""), b"\n", b""),
            (None, b"new\n", b"new"),
            (None, b"-----BEGIN\nEND-----\n", b"-----BEGIN\nEND-----\n"),
            (None, b"", b""),
            (Some(b"a\0\xff"), b"b\0\xff", b"b\0\xff"),
        ] {
            let mut left = Typed::new(edited.to_vec());
            let removed = without_added_line_feed(old, &mut left);
            assert_eq!(*left, kept);
            assert_eq!(removed, left.len() < edited.len());
        }
    }
}
