//! `pds wait`: waits until a profile is unlocked, and with `--hold` until it is locked again.

use std::time::{Duration, Instant};

use core_types::ProfileName;
use core_types::protocol::secrets::{ProfileState, Profiles};
use serde::Serialize;

use crate::error::Failure;
use crate::session::Session;

/// How often it is asked. Asking keeps nothing open.
const PAUSE: Duration = Duration::from_millis(500);

/// `pds wait --json`.
#[derive(Serialize)]
struct Waited {
    profile: String,
    unlocked: bool,
}

pub(super) fn run(session: &mut Session, hold: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    let end = session.options.timeout.map(|timeout| Instant::now() + timeout);
    wait_for(session, &profile, true, end)?;
    if hold {
        // A service of systemd says it when it has started (sd_notify(3)); elsewhere nobody listens.
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            session.messages.detail(format!("systemd was not told: {error}"));
        }
        wait_for(session, &profile, false, None)?;
    }
    session.output.object_if_wanted(&Waited { profile: profile.into(), unlocked: !hold })
}

/// Asks until the profile is unlocked, or is not; also while daemons are restarted.
fn wait_for(
    session: &mut Session,
    profile: &ProfileName,
    unlocked: bool,
    end: Option<Instant>,
) -> Result<(), Failure> {
    let mut reached = false;
    loop {
        match session.call(&Profiles {}) {
            Ok(profiles) => {
                reached = true;
                let state =
                    profiles.into_iter().find(|entry| entry.name == *profile).map(|entry| entry.state);
                if matches!(state, Some(ProfileState::Unlocked { .. })) == unlocked {
                    return Ok(());
                }
            }
            // What was there once is being restarted: connected to again, and not started by us.
            Err(failure) if reached && failure.is_passing() => session.disconnect(),
            Err(failure) => return Err(failure),
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(Failure::StillLocked { profile: profile.clone() });
        }
        std::thread::sleep(PAUSE);
    }
}
