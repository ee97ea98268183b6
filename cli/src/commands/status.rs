//! `pds status`: profiles with their lock state and factors, daemons with versions and pids, the audit log, and how
//! well secrets are protected in memory.

use std::collections::BTreeMap;
use std::time::Instant;

use core_crypto::private_fs;
use core_types::config::AuditMode;
use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use core_types::paths::Paths;
use core_types::protocol::bus::{Peer, Peers};
use core_types::protocol::profile::{
    AuditState, AuditStatus, AutoLock, AutoLocks, LockCause, SessionWatch, SessionWatchState,
};
use core_types::protocol::secrets::{
    MemoryProtection, Profiles, Protection, ProtectionLevel, Rules, RulesState,
};
use serde::Serialize;

use super::profile::Shown;
use crate::error::Failure;
use crate::output::shown;
use crate::session::Session;

/// Most bytes of what a daemon says of its sandbox.
const GAPS_BYTES_MAX: usize = 4096;

/// The daemons that make up a system.
pub(super) const DAEMONS: [&str; 4] = [BUS, SECRETS, PROFILE, LAUNCHER];

/// `pds status --json`; what could not be found out is `null`.
#[derive(Serialize)]
struct Status {
    profiles: Option<Vec<Shown>>,
    auto_locks: Option<Vec<ShownLock>>,
    daemons: Vec<Daemon>,
    audit: Option<Audit>,
    memory: Option<Memory>,
    rules: Option<ShownRules>,
    session_watch: Option<Watch>,
}

/// When an unlocked profile locks by itself in `--json`; `cause` is `idle` or `after`.
#[derive(Serialize)]
struct ShownLock {
    profile: String,
    seconds_left: u64,
    cause: LockCause,
}

impl From<AutoLock> for ShownLock {
    fn from(AutoLock { profile, seconds_left, cause }: AutoLock) -> Self {
        Self { profile: profile.into(), seconds_left, cause }
    }
}

impl ShownLock {
    /// What follows the line of the profile.
    fn words(&self) -> String {
        let time = match self.seconds_left {
            seconds @ 0..120 => format!("{seconds} s"),
            seconds @ 120..7_200 => format!("{} min", seconds / 60),
            seconds => format!("{} h", seconds / 3_600),
        };
        let unless = if self.cause == LockCause::Idle { " unless used" } else { "" };
        format!("; locks in {time}{unless}")
    }
}

/// Whether suspend, screen locks and logouts are noticed in `--json`; `state` is `complete`, `without-delay` or
/// `absent`, and `reason` says why it is not complete.
#[derive(Serialize)]
struct Watch {
    state: &'static str,
    reason: Option<String>,
}

impl From<SessionWatchState> for Watch {
    fn from(state: SessionWatchState) -> Self {
        match state {
            SessionWatchState::Complete => Self { state: "complete", reason: None },
            SessionWatchState::WithoutDelay(reason) => Self { state: "without-delay", reason: Some(reason) },
            SessionWatchState::Absent(reason) => Self { state: "absent", reason: Some(reason) },
        }
    }
}

impl Watch {
    fn line(&self) -> String {
        let reason = self.reason.as_deref().map(shown).unwrap_or_default();
        match self.state {
            "complete" => "noticed; suspend waits until profiles are locked".to_owned(),
            "without-delay" => format!("noticed; suspend does not wait until profiles are locked: {reason}"),
            _ => format!("not noticed: {reason}"),
        }
    }
}

/// The access rules in `--json`; `problem` says why they are not those of the configuration file, when they are not.
#[derive(Serialize)]
struct ShownRules {
    patterns: u64,
    problem: Option<String>,
}

impl From<RulesState> for ShownRules {
    fn from(state: RulesState) -> Self {
        Self { patterns: state.patterns, problem: state.problem }
    }
}

impl ShownRules {
    fn line(&self) -> String {
        let rules = match self.patterns {
            0 => "none".to_owned(),
            1 => "1 pattern".to_owned(),
            patterns => format!("{patterns} patterns"),
        };
        match &self.problem {
            None => rules,
            Some(problem) => {
                format!("{rules}; the configuration was changed and cannot be used: {}", shown(problem))
            }
        }
    }
}

/// A daemon in `--json`; `version` and `pid` are `null` where they are unknown.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) name: String,
    pub(super) running: bool,
    pub(super) version: Option<String>,
    pub(super) pid: Option<u32>,
    /// What its sandbox lacks.
    pub(super) sandbox_gaps: Vec<String>,
}

/// The audit log in `--json`; `failing` says why nothing can be written, when nothing can, `modes` has the profiles
/// with a mode of their own, and `missing` counts entries that there was no room for.
#[derive(Serialize)]
struct Audit {
    entries: u64,
    failing: Option<String>,
    mode: AuditMode,
    modes: BTreeMap<String, AuditMode>,
    missing: u64,
}

impl From<AuditState> for Audit {
    fn from(state: AuditState) -> Self {
        let AuditState { next_sequence, failing, mode, modes, missing } = state;
        let modes = modes.into_iter().map(|(profile, mode)| (profile.into(), mode)).collect();
        Self { entries: next_sequence.saturating_sub(1), failing, mode, modes, missing }
    }
}

impl Audit {
    fn line(&self) -> String {
        let mut line = format!("{} entries; mode {}", self.entries, self.mode.as_str());
        for (profile, mode) in &self.modes {
            line.push_str(&format!(", {} {}", shown(profile), mode.as_str()));
        }
        if self.missing > 0 {
            line.push_str(&format!("; {} entries are missing", self.missing));
        }
        if let Some(reason) = &self.failing {
            line.push_str(&format!("; failing: {}", shown(reason)));
        }
        line
    }
}

/// The memory of secrets in `--json`; `level` is `secret`, `locked` or `plain`, `lock_limit_bytes` is `null` without
/// a limit, and `swap` where it is unknown.
#[derive(Serialize)]
struct Memory {
    level: &'static str,
    bytes_in_use: u64,
    lock_limit_bytes: Option<u64>,
    swap: Option<bool>,
}

impl From<MemoryProtection> for Memory {
    fn from(memory: MemoryProtection) -> Self {
        let level = match memory.level {
            ProtectionLevel::Secret => "secret",
            ProtectionLevel::Locked => "locked",
            ProtectionLevel::Plain => "plain",
        };
        let MemoryProtection { bytes_in_use, lock_limit_bytes, swap, .. } = memory;
        Self { level, bytes_in_use, lock_limit_bytes, swap }
    }
}

impl Memory {
    fn line(&self) -> String {
        let level = match self.level {
            "secret" => "secret (memfd_secret: kept out of swap, unreadable from outside)",
            "locked" => "locked (kept out of swap)",
            _ => "plain (secrets may be swapped to disk; see `pds doctor`)",
        };
        let limit = self.lock_limit_bytes.map_or_else(|| "none".to_owned(), mebibytes);
        let swap = match self.swap {
            Some(true) => "in use",
            Some(false) => "none",
            None => "unknown",
        };
        format!("{level}; {} bytes in use; lock limit {limit}; swap {swap}", self.bytes_in_use)
    }
}

/// A number of bytes for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Whether a name is that of a daemon that belongs to every system.
pub(super) fn is_ours(name: &str) -> bool {
    DAEMONS.contains(&name)
}

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    // A part that is not answered shall leave time for the next.
    let (now, patience) = (Instant::now(), session.usual_deadline());
    let mut daemons = daemons(session.call_until(&Peers {}, now + patience / 7)?);
    note_gaps(&mut daemons, &session.paths);
    let profiles = session.call_until(&Profiles {}, now + patience * 2 / 7);
    let profiles = profiles.map(|entries| entries.into_iter().map(Shown::from).collect());
    let audit = session.call_until(&AuditStatus {}, now + patience * 3 / 7).map(Audit::from);
    let locks = session.call_until(&AutoLocks {}, now + patience * 4 / 7);
    let locks = locks.map(|locks| locks.into_iter().map(ShownLock::from).collect());
    let watch = session.call_until(&SessionWatch {}, now + patience * 5 / 7).map(Watch::from);
    let memory = session.call_until(&Protection {}, now + patience * 6 / 7).map(Memory::from);
    let rules = session.call_until(&Rules {}, now + patience).map(ShownRules::from);
    let (profiles, first) = split(profiles);
    let (audit, second) = split(audit);
    let (memory, third) = split(memory);
    let (rules, fourth) = split(rules);
    let (auto_locks, fifth) = split(locks);
    let (session_watch, sixth) = split(watch);
    write(session, &Status { profiles, auto_locks, daemons, audit, memory, rules, session_watch })?;
    first.or(second).or(third).or(fourth).or(fifth).or(sixth).map_or(Ok(()), Err)
}

fn split<T>(result: Result<T, Failure>) -> (Option<T>, Option<Failure>) {
    match result {
        Ok(part) => (Some(part), None),
        Err(failure) => (None, Some(failure)),
    }
}

/// The daemons that belong to every system, then whoever else is registered.
pub(super) fn daemons(peers: Vec<Peer>) -> Vec<Daemon> {
    let missing = DAEMONS
        .into_iter()
        .filter(|name| peers.iter().all(|peer| peer.name.as_str() != *name))
        // The bus has just answered, whether it lists itself or not.
        .map(|name| Daemon {
            name: name.to_owned(),
            running: name == BUS,
            version: None,
            pid: None,
            sandbox_gaps: Vec::new(),
        });
    let mut daemons: Vec<Daemon> = missing.collect();
    daemons.extend(peers.into_iter().map(|peer| Daemon {
        name: peer.name.into(),
        running: true,
        version: Some(peer.version),
        pid: peer.pid,
        sandbox_gaps: Vec::new(),
    }));
    let rank =
        |daemon: &Daemon| DAEMONS.iter().position(|name| *name == daemon.name).unwrap_or(DAEMONS.len());
    daemons.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
    daemons
}

/// Adds what the daemons say of their sandboxes.
pub(super) fn note_gaps(daemons: &mut [Daemon], paths: &Paths) {
    for daemon in daemons.iter_mut().filter(|daemon| daemon.running && is_ours(&daemon.name)) {
        let gaps = match private_fs::read_limited(&paths.sandbox_gaps(&daemon.name), GAPS_BYTES_MAX) {
            Ok(gaps) => String::from_utf8_lossy(gaps.as_deref().unwrap_or_default()).into_owned(),
            Err(error) => format!("unknown: {error}"),
        };
        daemon.sandbox_gaps = gaps.lines().map(str::to_owned).collect();
    }
}

/// A daemon on one line.
pub(super) fn daemon_line(daemon: &Daemon) -> String {
    if !daemon.running {
        return format!("{:<16}  not running", daemon.name);
    }
    let version = daemon.version.as_deref().map_or_else(|| "unknown".to_owned(), shown);
    let pid = daemon.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let gaps: String = daemon.sandbox_gaps.iter().map(|gap| format!("; sandbox: {}", shown(gap))).collect();
    format!("{:<16}  version {version}  pid {pid}{gaps}", daemon.name)
}

fn write(session: &mut Session, status: &Status) -> Result<(), Failure> {
    let output = &mut session.output;
    if output.wants_json() {
        return output.object(status);
    }
    output.line("profiles")?;
    match &status.profiles {
        None => output.line("  unknown")?,
        Some(profiles) if profiles.is_empty() => output.line("  none; `pds init` makes one")?,
        Some(profiles) => profiles.iter().try_for_each(|profile| {
            let lock = status.auto_locks.iter().flatten().find(|lock| lock.profile == profile.name());
            output.line(format_args!(
                "  {}{}",
                profile.line(),
                lock.map(ShownLock::words).unwrap_or_default()
            ))
        })?,
    }
    output.line("daemons")?;
    status.daemons.iter().try_for_each(|daemon| output.line(format_args!("  {}", daemon_line(daemon))))?;
    output.line("audit log")?;
    let audit = status.audit.as_ref().map_or_else(|| "unknown".to_owned(), Audit::line);
    output.line(format_args!("  {audit}"))?;
    output.line("memory of secrets")?;
    let memory = status.memory.as_ref().map_or_else(|| "unknown".to_owned(), Memory::line);
    output.line(format_args!("  {memory}"))?;
    output.line("access rules")?;
    let rules = status.rules.as_ref().map_or_else(|| "unknown".to_owned(), ShownRules::line);
    output.line(format_args!("  {rules}"))?;
    output.line("suspend, screen locks and logouts")?;
    let watch = status.session_watch.as_ref().map_or_else(|| "unknown".to_owned(), Watch::line);
    output.line(format_args!("  {watch}"))
}

#[cfg(test)]
mod tests {
    use core_types::DaemonName;

    use super::*;

    fn peer(name: &str, pid: Option<u32>) -> Peer {
        Peer { name: DaemonName::parse(name).unwrap(), version: "1.2.3".to_owned(), pid }
    }

    #[test]
    fn missing_daemons_are_shown_as_such_and_others_come_last() {
        let daemons = daemons(vec![peer("another", Some(9)), peer(SECRETS, None), peer(BUS, Some(7))]);
        let lines: Vec<String> = daemons.iter().map(daemon_line).collect();
        assert_eq!(
            lines,
            [
                "daemon-bus        version 1.2.3  pid 7",
                "daemon-secrets    version 1.2.3  pid unknown",
                "daemon-profile    not running",
                "daemon-launcher   not running",
                "another           version 1.2.3  pid 9",
            ]
        );
    }

    #[test]
    fn a_bus_that_does_not_list_itself_runs_all_the_same() {
        assert_eq!(daemon_line(&daemons(Vec::new())[0]), "daemon-bus        version unknown  pid unknown");
    }

    #[test]
    fn what_is_unknown_is_null() {
        let daemons = daemons(vec![peer(BUS, None)])[..1].to_vec();
        let (profiles, auto_locks, audit, memory, rules, session_watch) =
            (None, None, None, None, None, None);
        let status = Status { profiles, auto_locks, daemons, audit, memory, rules, session_watch };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"profiles":null,"auto_locks":null,"daemons":[{"name":"daemon-bus","running":true,"version":"1.2.3","pid":null,"sandbox_gaps":[]}],"audit":null,"memory":null,"rules":null,"session_watch":null}"#
        );
        let audit = Audit::from(AuditState {
            next_sequence: 8,
            failing: Some("full".to_owned()),
            mode: AuditMode::Written,
            modes: vec![("work".parse().unwrap(), AuditMode::Durable)],
            missing: 3,
        });
        assert_eq!(
            serde_json::to_string(&audit).unwrap(),
            r#"{"entries":7,"failing":"full","mode":"written","modes":{"work":"durable"},"missing":3}"#
        );
        assert_eq!(
            audit.line(),
            "7 entries; mode written, work durable; 3 entries are missing; failing: full"
        );
        let lock = |seconds_left, cause| ShownLock { profile: String::new(), seconds_left, cause }.words();
        assert_eq!(lock(119, LockCause::Idle), "; locks in 119 s unless used");
        assert_eq!(lock(900, LockCause::After), "; locks in 15 min");
        assert_eq!(lock(7_200, LockCause::After), "; locks in 2 h");
        let memory = Memory::from(MemoryProtection {
            level: ProtectionLevel::Locked,
            bytes_in_use: 32,
            lock_limit_bytes: Some(64 << 10),
            swap: None,
        });
        assert_eq!(
            serde_json::to_string(&memory).unwrap(),
            r#"{"level":"locked","bytes_in_use":32,"lock_limit_bytes":65536,"swap":null}"#
        );
        assert_eq!(
            memory.line(),
            "locked (kept out of swap); 32 bytes in use; lock limit 64 KiB; swap unknown"
        );
    }
}
