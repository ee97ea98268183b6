//! `pds totp`: the one-time code of now, of a secret that makes such codes.

use std::io::IsTerminal as _;
use std::time::{SystemTime, UNIX_EPOCH};

use core_types::protocol::secrets::Get;
use serde::Serialize;

use crate::error::Failure;
use crate::fields;
use crate::session::Session;
use crate::totp::Totp;

/// `pds totp --json`.
#[derive(Serialize)]
struct Code<'a> {
    profile: &'a str,
    name: &'a str,
    code: &'a str,
    seconds_left: u64,
}

pub(super) fn run(session: &mut Session, name: &str) -> Result<(), Failure> {
    let profile = session.profile()?;
    let value = session.call(&Get { profile: profile.clone(), name: name.to_owned(), version: None })?;
    let value = fields::opened(session, &profile, name, value)?;
    let totp = Totp::parse(value.expose())?;
    drop(value);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (code, seconds_left) = (totp.code(now), totp.seconds_left(now));
    if session.output.wants_json() {
        return session.output.secret_object(&Code {
            profile: profile.as_str(),
            name,
            code: &code,
            seconds_left,
        });
    }
    session.output.prepared(format!("{code}\n").as_bytes())?;
    if std::io::stdout().is_terminal() {
        session.messages.note(format!("good for {seconds_left} s more"));
    }
    Ok(())
}
