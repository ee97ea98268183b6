//! `pds daemon start`, `stop` and `restart`.

use std::time::{Duration, Instant};

use core_types::protocol::bus::Peers;
use serde::Serialize;

use super::status::{Daemon, daemons};
use crate::error::Failure;
use crate::session::Session;
use crate::stop::Supervisor;
use crate::units::Units;

/// How long the daemons may take to end: each writes out what it holds, one after the other.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// `pds daemon start --json` and `restart --json`; `started` is false when they were running before.
#[derive(Serialize)]
struct Running {
    started: bool,
    daemons: Vec<Daemon>,
}

/// `pds daemon stop --json`; `pid` is the supervisor that ended, `null` when none was running, as where systemd ran them.
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
    let stopped = end(session)?;
    session.messages.note(if stopped.stopped {
        "the daemons have ended"
    } else {
        "the daemons are not running"
    });
    session.output.object_if_wanted(&stopped)
}

pub(super) fn restart(session: &mut Session) -> Result<(), Failure> {
    end(session)?;
    let started = session.start()?;
    show_running(session, started)
}

/// Ends what systemd runs, and the supervisor and all below it.
fn end(session: &mut Session) -> Result<Stopped, Failure> {
    let patience = session.deadline(END_PATIENCE);
    let units = Units::installed().filter(Units::are_active);
    if let Some(units) = &units {
        units.stop(Instant::now() + patience)?;
    }
    let supervisor = Supervisor::find(&session.paths)?;
    let pid = supervisor.as_ref().map(|supervisor| supervisor.pid);
    supervisor.map(|supervisor| supervisor.end(patience)).transpose()?;
    Ok(Stopped { stopped: units.is_some() || pid.is_some(), pid })
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
