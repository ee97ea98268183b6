//! `pds daemon start`, `stop` and `restart`.

use std::time::Duration;

use core_types::protocol::bus::Peers;
use serde::Serialize;

use super::status::{Daemon, daemons};
use crate::error::Failure;
use crate::session::Session;
use crate::stop::Supervisor;

/// How long the daemons may take to end: each writes out what it holds, one after the other.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// `pds daemon start --json` and `restart --json`; `started` is false when they were running before.
#[derive(Serialize)]
struct Running {
    started: bool,
    daemons: Vec<Daemon>,
}

/// `pds daemon stop --json`; `pid` is the supervisor that ended, `null` when none was running.
#[derive(Serialize)]
struct Stopped {
    stopped: bool,
    pid: Option<i32>,
}

pub(super) fn start(session: &mut Session) -> Result<(), Failure> {
    let started = session.start()?;
    show_running(session, started)
}

pub(super) fn stop(session: &mut Session) -> Result<(), Failure> {
    let pid = end(session)?;
    session.messages.note(match pid {
        Some(_) => "the daemons have ended",
        None => "the daemons are not running",
    });
    session.output.object_if_wanted(&Stopped { stopped: pid.is_some(), pid })
}

pub(super) fn restart(session: &mut Session) -> Result<(), Failure> {
    end(session)?;
    let started = session.start()?;
    show_running(session, started)
}

/// Ends the supervisor and all below it; answers which process it was.
fn end(session: &mut Session) -> Result<Option<i32>, Failure> {
    let Some(supervisor) = Supervisor::find(&session.paths)? else { return Ok(None) };
    let pid = supervisor.pid;
    supervisor.end(session.deadline(END_PATIENCE))?;
    Ok(Some(pid))
}

fn show_running(session: &mut Session, started: bool) -> Result<(), Failure> {
    session.messages.note(if started {
        "the daemons are running"
    } else {
        "the daemons are running already"
    });
    if !session.output.wants_json() {
        return Ok(());
    }
    let daemons = daemons(session.call(&Peers {})?);
    session.output.object(&Running { started, daemons })
}
