//! `pds enroll`, `pds enrolled` and `pds revoke`: daemons of others that may use the bus under a name.

use std::path::{Path, PathBuf};

use core_crypto::private_fs;
use core_ipc::key_file;
use core_ipc::wire::PublicKey;
use core_types::DaemonName;
use core_types::protocol::bus::{Enroll, Enrolled, Revoke};
use serde::Serialize;

use crate::args::EnrollOptions;
use crate::error::Failure;
use crate::output::time;
use crate::session::Session;

/// `pds enroll --json`; `key_file` is `null` for a key that the daemon made itself.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    public_key: String,
    key_file: Option<&'a Path>,
}

/// A daemon of `pds enrolled --json`.
#[derive(Serialize)]
struct Shown {
    name: String,
    public_key: String,
    since: String,
    connections: u32,
}

/// `pds revoke --json`.
#[derive(Serialize)]
struct Revoked<'a> {
    name: &'a str,
}

/// `pds enrolled --json`.
#[derive(Serialize)]
struct All {
    enrolled: Vec<Shown>,
}

pub(super) fn enroll(session: &mut Session, options: &EnrollOptions) -> Result<(), Failure> {
    let name = &options.name;
    let (key, file) = match options.public_key {
        Some(key) => (key, None),
        None => {
            let file = place(session, name, options.key_file.as_deref())?;
            (key_file::create(&file).map_err(Failure::KeyFile)?.public(), Some(file))
        }
    };
    if let Err(failure) = session.call(&Enroll { name: name.clone(), key: key.0 }) {
        // Made just now, and nobody's. It stays only if nobody knows whether it was enrolled.
        if let (Failure::Denied(_), Some(file)) = (&failure, &file) {
            let _a_key_without_a_name_is_worth_nothing = std::fs::remove_file(file);
        }
        return Err(failure);
    }
    if let Some(file) = &file {
        session.messages.note(format!("enrolled '{name}'; its key is in {}", file.display()));
    }
    let (public_key, key_file) = (key.to_hex(), file.as_deref());
    session.output.object_if_wanted(&Made { name: name.as_str(), public_key, key_file })
}

/// Where the key goes.
fn place(session: &Session, name: &DaemonName, asked: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let folder = session.paths.enrolled_keys();
    private_fs::ensure_private_dir(&folder).map_err(|error| Failure::KeyFile(error.into()))?;
    Ok(folder.join(format!("{name}.key")))
}

pub(super) fn list(session: &mut Session) -> Result<(), Failure> {
    let enrolled = session.call(&Enrolled {})?;
    let shown = enrolled.into_iter().map(|daemon| Shown {
        name: daemon.name.into(),
        public_key: PublicKey(daemon.key).to_hex(),
        since: time(daemon.since_unix_ms),
        connections: daemon.connections,
    });
    let all = All { enrolled: shown.collect() };
    if session.output.wants_json() {
        return session.output.object(&all);
    }
    all.enrolled.iter().try_for_each(|Shown { name, public_key, since, connections }| {
        session.output.line(format_args!("{name:<24}  {since}  {connections} connections  {public_key}"))
    })
}

pub(super) fn revoke(session: &mut Session, name: &DaemonName) -> Result<(), Failure> {
    session.call(&Revoke { name: name.clone() })?;
    session.messages.detail(format!("revoked '{name}'"));
    session.output.object_if_wanted(&Revoked { name: name.as_str() })
}
