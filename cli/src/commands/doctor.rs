//! `pds doctor`: checks the machine and the installation, and says what to do. One function a check.

mod daemons;
mod files;
mod kernel;
mod login;
mod memory;
mod units;
mod vaults;

use std::time::Instant;

use core_crypto::SecureBytes;
use core_crypto::memory::Protection as Level;
use core_types::paths::Paths;
use core_types::protocol::bus::{Peer, Peers};
use core_types::protocol::profile::{AuditState, AuditStatus, SessionWatch, SessionWatchState};
use core_types::protocol::secrets::{MemoryProtection, ProfileEntry, Profiles, Protection};
use serde::Serialize;

use self::files::{Openness, folder};
use crate::error::{Exit, Failure};
use crate::output::shown;
use crate::session::Session;
use crate::units::{Installation, Units};

/// What the checks judge by.
struct Facts {
    paths: Paths,
    /// Whoever is on the bus, or why that is unknown.
    peers: Result<Vec<Peer>, String>,
    /// What `daemon-secrets` says of its memory, or why that is unknown.
    memory: Result<MemoryProtection, String>,
    /// The profiles, or why they are unknown.
    profiles: Result<Vec<ProfileEntry>, String>,
    /// How the audit log is, or why that is unknown.
    audit: Result<AuditState, String>,
    /// Whether suspend, the screen and logouts are noticed, or why that is unknown.
    sessions: Result<SessionWatchState, String>,
    /// The daemons as units of systemd.
    units: Installation,
    /// The best protection that this machine gives a process of the user.
    best_level: Level,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// All is well.
    Good(String),
    /// Worth knowing, and no reason to do anything.
    Note(String),
    /// Something is to be done.
    Problem { found: String, next: String },
    /// It could not be found out, because of what another check tells.
    Unknown(String),
}

type Check = fn(&Facts) -> Finding;

/// All checks, in the order they are shown.
const CHECKS: [(&str, Check); 22] = [
    ("daemons", daemons::daemons_run),
    ("programs", daemons::programs),
    ("systemd units", units::units),
    ("sockets", files::sockets),
    ("sandbox of the daemons", daemons::sandboxes),
    ("kernel", kernel::features),
    ("memory of secrets", memory::memory_of_secrets),
    ("limit on locked memory", memory::lock_limit),
    ("secret memory of the kernel", memory::kernel_memory),
    ("configuration", files::configuration),
    ("folder of the configuration", |facts| folder(&files::config_folder(&facts.paths), Openness::Readable)),
    ("folder of the vaults", |facts| folder(&facts.paths.vaults(), Openness::Closed)),
    ("folder of the audit log", |facts| folder(facts.paths.state(), Openness::Closed)),
    ("folder of the sockets", |facts| folder(facts.paths.runtime(), Openness::Closed)),
    ("memory of that folder", files::runtime_in_memory),
    ("files", files::files),
    ("room on the disk", files::room),
    ("vaults", vaults::vaults),
    ("audit log", vaults::audit_log),
    ("clock", vaults::clock),
    ("login", login::login),
    ("suspend, screen and logout", login::sessions),
];

/// `pds doctor --json`; `state` is `ok`, `note`, `problem` or `unknown`.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    state: &'a str,
    found: &'a str,
    next: Option<&'a str>,
}

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    let facts = gather(session);
    let findings: Vec<(&str, Finding)> = CHECKS.iter().map(|(name, check)| (*name, check(&facts))).collect();
    let ok = findings.iter().all(|(_, finding)| !matches!(finding, Finding::Problem { .. }));
    write(session, ok, &findings)?;
    if ok { Ok(()) } else { Err(Failure::Reported(Exit::Failed)) }
}

/// One part after the other, each with a deadline that leaves time for the next.
fn gather(session: &mut Session) -> Facts {
    let (now, patience) = (Instant::now(), session.usual_deadline());
    let told = |failure: Failure| failure.to_string();
    let peers = session.call(&Peers {}).map_err(told);
    let (memory, profiles, audit, sessions) = match &peers {
        Ok(_) => (
            session.call_until(&Protection {}, now + patience * 2 / 5).map_err(told),
            session.call_until(&Profiles {}, now + patience * 3 / 5).map_err(told),
            session.call_until(&AuditStatus {}, now + patience * 4 / 5).map_err(told),
            session.call_until(&SessionWatch {}, now + patience).map_err(told),
        ),
        Err(reason) => (Err(reason.clone()), Err(reason.clone()), Err(reason.clone()), Err(reason.clone())),
    };
    let _probe = SecureBytes::zeroed(1);
    Facts {
        paths: session.paths.clone(),
        peers,
        memory,
        profiles,
        audit,
        sessions,
        units: Units::looked_at(),
        best_level: core_crypto::memory::protection(),
    }
}

fn problem(found: impl ToString, next: &str) -> Finding {
    Finding::Problem { found: found.to_string(), next: next.to_owned() }
}

impl Finding {
    fn shown<'a>(&'a self, name: &'a str) -> Shown<'a> {
        let (state, found, next) = match self {
            Self::Good(found) => ("ok", found, None),
            Self::Note(found) => ("note", found, None),
            Self::Problem { found, next } => ("problem", found, Some(next.as_str())),
            Self::Unknown(reason) => ("unknown", reason, None),
        };
        Shown { name, state, found, next }
    }
}

fn write(session: &mut Session, ok: bool, findings: &[(&str, Finding)]) -> Result<(), Failure> {
    let checks = findings.iter().map(|(name, finding)| finding.shown(name));
    if session.output.wants_json() {
        let report = Report { ok, checks: checks.collect() };
        return session.output.object(&report);
    }
    for Shown { name, state, found, next } in checks {
        session.output.line(format_args!("{state:<8}  {name}: {}", shown(found)))?;
        if let Some(next) = next {
            session.output.line(format_args!("          to do: {next}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use core_types::DaemonName;
    use core_types::config::AuditMode;
    use core_types::protocol::secrets::ProtectionLevel;

    use super::*;

    /// An ordinary machine, on which all is well.
    pub(super) fn facts() -> Facts {
        let peer = |name: &str| Peer {
            name: DaemonName::parse(name).unwrap(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: Some(1),
        };
        let names = ["daemon-bus", "daemon-secrets", "daemon-profile", "daemon-launcher"];
        Facts {
            paths: Paths::from_variables(|_| Some("/nonexistent".into())).unwrap(),
            peers: Ok(names.into_iter().map(peer).collect()),
            memory: Ok(MemoryProtection {
                level: ProtectionLevel::Secret,
                bytes_in_use: 64,
                lock_limit_bytes: Some(8 << 20),
                swap: Some(true),
            }),
            profiles: Ok(Vec::new()),
            audit: Ok(AuditState {
                next_sequence: 1,
                failing: None,
                mode: AuditMode::Written,
                modes: Vec::new(),
                missing: 0,
            }),
            sessions: Ok(SessionWatchState::Absent("no D-Bus".to_owned())),
            units: Installation::NoManager,
            best_level: Level::SecretMemory,
        }
    }

    #[test]
    fn without_daemons_that_alone_is_a_problem() {
        let mut facts = facts();
        facts.peers = Err("nobody".to_owned());
        facts.memory = Err("nobody".to_owned());
        facts.profiles = Err("nobody".to_owned());
        facts.audit = Err("nobody".to_owned());
        facts.sessions = Err("nobody".to_owned());
        assert!(matches!(daemons::daemons_run(&facts), Finding::Problem { .. }));
        let others: [Check; 7] = [
            daemons::sandboxes,
            files::sockets,
            memory::memory_of_secrets,
            memory::lock_limit,
            vaults::vaults,
            vaults::audit_log,
            login::sessions,
        ];
        assert!(others.iter().all(|check| matches!(check(&facts), Finding::Unknown(_))));
    }
}
