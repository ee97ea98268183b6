//! `pds rekey`: new keys for a vault.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_ipc::CallOptions;
use core_ipc::blocking::Client;
use core_types::ProfileName;
use core_types::header::Refusal;
use core_types::limits::DEADLINE_MS_MAX;
use core_types::paths::Paths;
use core_types::protocol::secrets::{Factors, Rekey, RekeyProgress, RekeyState};
use serde::Serialize;

use crate::args::ProofOptions;
use crate::error::Failure;
use crate::output::Messages;
use crate::proofs::{Presenter, Sources};
use crate::session::Session;

/// Pause between two looks at how far it is.
const GLANCE: Duration = Duration::from_millis(100);
const BAR_WIDTH: u64 = 40;

/// `pds rekey --json`.
#[derive(Serialize)]
struct Rekeyed<'a> {
    profile: &'a str,
    rekeyed: bool,
}

pub(super) fn run(session: &mut Session, options: &ProofOptions) -> Result<(), Failure> {
    let sources = Sources::open(&options.password, &options.code)?;
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    // Each factor wraps the new key, so all of them are needed, whatever the policy.
    let presenter = Presenter::new(&profile, &sheet, session.messages);
    let present = presenter.collect(sources, sheet.factors.len())?;
    let call = Rekey { profile: profile.clone(), present };
    let longest = Duration::from_millis(u64::from(DEADLINE_MS_MAX));
    let (paths, messages, ended) = (session.paths.clone(), session.messages, AtomicBool::new(false));
    let shown = std::io::stderr().is_terminal() && !session.options.quiet;
    let result = std::thread::scope(|scope| {
        if shown {
            scope.spawn(|| show_progress(&paths, &profile, messages, &ended));
        }
        let result = session.call_within(&call, longest);
        ended.store(true, Ordering::Relaxed);
        result
    });
    match result {
        // The daemon goes on all the same.
        Err(Failure::Refused { refusal: Refusal::Timeout, .. }) => wait_for_end(session, &profile)?,
        other => other?,
    }
    session.messages.note(format!("the vault of profile '{profile}' has new keys"));
    session.output.object_if_wanted(&Rekeyed { profile: profile.as_str(), rekeyed: true })
}

/// Waits for the end of what takes longer than a call may.
fn wait_for_end(session: &mut Session, profile: &ProfileName) -> Result<(), Failure> {
    loop {
        match session.call(&RekeyProgress { profile: profile.clone() })? {
            RekeyState::Running { .. } => std::thread::sleep(GLANCE),
            RekeyState::Done => return Ok(()),
            RekeyState::Idle | RekeyState::Failed => return Err(Failure::NotRekeyed),
        }
    }
}

/// Draws how far it is, over a connection of its own, until it has ended.
fn show_progress(paths: &Paths, profile: &ProfileName, messages: Messages, ended: &AtomicBool) {
    let Ok(mut client) = Client::connect(paths, Duration::from_secs(1)) else { return };
    let call = RekeyProgress { profile: profile.clone() };
    while !ended.load(Ordering::Relaxed) {
        let options = CallOptions { deadline: Duration::from_secs(1), descriptors: Vec::new() };
        if let Ok(RekeyState::Running { done, total }) = client.call(&call, options) {
            messages.raw(&bar(done, total));
        }
        std::thread::sleep(GLANCE);
    }
    messages.raw("\r\x1b[K");
}

/// A line that replaces the one that the cursor is on.
fn bar(done: u64, total: u64) -> String {
    let share = |of: u64| of.saturating_mul(done.min(total)).checked_div(total).unwrap_or(0);
    let (filled, percent) = (share(BAR_WIDTH), share(100));
    let cells: String = (0..BAR_WIDTH).map(|cell| if cell < filled { '#' } else { '.' }).collect();
    format!("\r\x1b[K[{cells}] {percent:>3} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_from_left_to_right_and_never_overflows() {
        assert_eq!(bar(0, 0), format!("\r\x1b[K[{}]   0 %", ".".repeat(40)));
        assert_eq!(bar(1, 2), format!("\r\x1b[K[{}{}]  50 %", "#".repeat(20), ".".repeat(20)));
        for done in [7, 8, u64::MAX >> 8] {
            assert_eq!(bar(done, 7), format!("\r\x1b[K[{}] 100 %", "#".repeat(40)));
        }
    }
}
