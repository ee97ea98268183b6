//! `pds set`: stores a secret, byte for byte.

use std::io::IsTerminal;

use core_types::WireSecret;
use core_types::limits::VALUE_BYTES_MAX;
use core_types::protocol::secrets::Set;
use serde::Serialize;

use crate::args::SetOptions;
use crate::error::Failure;
use crate::fields;
use crate::generate::Recipe;
use crate::input::{InputError, Source, remove_line_feed};
use crate::output::{shown, time};
use crate::prompt::{PromptError, Terminal, Typed};
use crate::session::Session;

/// `pds set --json`; the time is RFC 3339 in UTC.
#[derive(Serialize)]
struct Stored<'a> {
    profile: &'a str,
    name: &'a str,
    bytes: usize,
    expires_at: Option<String>,
    /// Of a value that was made by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    entropy_bits: Option<f64>,
}

pub(super) fn run(session: &mut Session, options: &SetOptions) -> Result<(), Failure> {
    let profile = session.profile()?;
    let recipe = options.generated.recipe();
    let mut value = match &recipe {
        Some(recipe) => recipe.make().map_err(Failure::Entropy)?,
        None => read_value(options)?,
    };
    if options.trim {
        remove_line_feed(&mut value);
    } else if value.last() == Some(&b'\n') {
        session
            .messages
            .note("note: the value ends with a line feed, which is stored too; --trim removes one");
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(InputError::TooLarge { limit: VALUE_BYTES_MAX }.into());
    }
    let bytes = value.len();
    // Parsed as a time to come, so it is after 1970.
    let expires_unix_ms = options.expires.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let value = WireSecret::new(std::mem::take(&mut *value));
    let value = fields::sealed(session, &profile, &options.name, value)?;
    session.call(&Set {
        profile: profile.clone(),
        name: options.name.clone(),
        value,
        expires_unix_ms,
        note: options.note.clone(),
    })?;
    let entropy_bits = recipe.as_ref().map(Recipe::bits);
    if let Some(bits) = entropy_bits {
        session.messages.note(format!(
            "made '{}' of {bytes} bytes, with {bits:.1} bits of entropy",
            shown(&options.name)
        ));
    }
    session.messages.detail(format!("stored '{}' in profile '{profile}'", options.name));
    session.output.object_if_wanted(&Stored {
        profile: profile.as_str(),
        name: &options.name,
        bytes,
        expires_at: expires_unix_ms.map(time),
        entropy_bits,
    })
}

/// The file of `--file`; else standard input, or a hidden prompt when that is a terminal.
fn read_value(options: &SetOptions) -> Result<Typed, Failure> {
    let limit = VALUE_BYTES_MAX + usize::from(options.trim);
    let source = match &options.file {
        Some(path) => Source::file(path)?,
        None if std::io::stdin().is_terminal() => return prompted_value(&options.name),
        None => Source::stdin()?,
    };
    source.read(limit).map_err(|error| match error {
        InputError::TooLarge { .. } => InputError::TooLarge { limit: VALUE_BYTES_MAX }.into(),
        other => other.into(),
    })
}

fn prompted_value(name: &str) -> Result<Typed, Failure> {
    let question = format!("Value of '{}': ", crate::output::shown(name));
    match Terminal::open()?.hidden(&[&question], VALUE_BYTES_MAX) {
        Ok(mut lines) => Ok(lines.remove(0)),
        Err(PromptError::TooLong { limit }) => Err(InputError::TooLarge { limit }.into()),
        Err(error) => Err(error.into()),
    }
}
