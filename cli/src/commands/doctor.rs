//! `pds doctor`: checks the machine and the installation, and says what to do. One function a check.

use std::path::Path;

use core_crypto::SecureBytes;
use core_crypto::memory::{self, Protection as Level};
use core_crypto::private_fs::{self, PrivateFsError};
use core_types::paths::Paths;
use core_types::protocol::bus::{Peer, Peers};
use core_types::protocol::secrets::{MemoryProtection, Protection, ProtectionLevel};
use serde::Serialize;

use super::status::{Daemon, daemons, mebibytes};
use crate::error::{Exit, Failure};
use crate::output::shown;
use crate::session::Session;

/// Least locked memory that everyday use needs, in bytes; what Linux gives an ordinary user since 5.16.
const LOCK_LIMIT_MIN: u64 = 8 << 20;
/// The three ways to raise the limit on locked memory.
const RAISE_LOCK_LIMIT: &str = "raise the limit on locked memory, then `pds daemon restart`: with `ulimit -l 65536` in \
the shell that starts the daemons; or with `* soft memlock 65536` and `* hard memlock 65536` in \
/etc/security/limits.conf, and a new login; or, for a service, with LimitMEMLOCK=infinity in its unit";

/// What the checks judge by.
struct Facts {
    paths: Paths,
    /// Whoever is on the bus, or why that is unknown.
    peers: Result<Vec<Peer>, String>,
    /// What `daemon-secrets` says of its memory, or why that is unknown.
    memory: Result<MemoryProtection, String>,
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
const CHECKS: [(&str, Check); 9] = [
    ("daemons", daemons_run),
    ("sandbox of the daemons", sandboxes),
    ("memory of secrets", memory_of_secrets),
    ("limit on locked memory", lock_limit),
    ("secret memory of the kernel", kernel_memory),
    ("folder of the configuration", |facts| folder(&config_folder(&facts.paths), Openness::Readable)),
    ("folder of the vaults", |facts| folder(&facts.paths.vaults(), Openness::Closed)),
    ("folder of the audit log", |facts| folder(facts.paths.state(), Openness::Closed)),
    ("folder of the sockets", |facts| folder(facts.paths.runtime(), Openness::Closed)),
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

fn gather(session: &mut Session) -> Facts {
    let peers = session.call(&Peers {}).map_err(|failure| failure.to_string());
    let memory = match &peers {
        Ok(_) => session.call(&Protection {}).map_err(|failure| failure.to_string()),
        Err(reason) => Err(reason.clone()),
    };
    let _probe = SecureBytes::zeroed(1);
    Facts { paths: session.paths.clone(), peers, memory, best_level: memory::protection() }
}

/// All four run, and are of the version of this `pds`.
fn daemons_run(facts: &Facts) -> Finding {
    let version = env!("CARGO_PKG_VERSION");
    let peers = match &facts.peers {
        Ok(peers) => peers.clone(),
        Err(reason) => {
            return problem(format!("the bus does not answer: {reason}"), "run `pds daemon start`");
        }
    };
    let all = daemons(peers);
    let named = |wanted: &dyn Fn(&Daemon) -> bool| {
        let found: Vec<&str> = all.iter().filter(|one| wanted(one)).map(|one| one.name.as_str()).collect();
        found.join(", ")
    };
    let missing = named(&|daemon| !daemon.running);
    let other = named(&|daemon| {
        super::status::is_ours(&daemon.name)
            && daemon.version.as_deref().is_some_and(|found| found != version)
    });
    match (missing.is_empty(), other.is_empty()) {
        (false, _) => {
            problem(format!("not running: {missing}"), "see `pds daemon logs`, or run `pds daemon restart`")
        }
        (true, false) => problem(
            format!("of another version than this pds ({version}): {other}"),
            "run `pds daemon restart`, which locks all profiles",
        ),
        (true, true) => Finding::Good(format!("all run, version {version}")),
    }
}

/// The daemons could take away from themselves what they have no use for.
fn sandboxes(facts: &Facts) -> Finding {
    let mut all = match &facts.peers {
        Ok(peers) => daemons(peers.clone()),
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    super::status::note_gaps(&mut all, &facts.paths);
    let gaps: Vec<String> = all
        .iter()
        .flat_map(|daemon| daemon.sandbox_gaps.iter().map(|gap| format!("{}: {}", daemon.name, shown(gap))))
        .collect();
    match gaps.is_empty() {
        true => Finding::Good("files and system calls that they have no use for are out of reach".to_owned()),
        false => Finding::Note(gaps.join("; ")),
    }
}

/// The secrets that are in memory now, and those that were, are kept out of swap.
fn memory_of_secrets(facts: &Facts) -> Finding {
    let memory = match &facts.memory {
        Ok(memory) => memory,
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    let bytes = memory.bytes_in_use;
    match (memory.level, memory.swap) {
        (ProtectionLevel::Secret, _) => {
            Finding::Good(format!("kept out of swap and unreadable from outside; {bytes} bytes in use"))
        }
        (ProtectionLevel::Locked, _) => Finding::Good(format!("kept out of swap; {bytes} bytes in use")),
        (ProtectionLevel::Plain, Some(false)) => problem(
            "some could not be locked; this machine does not swap now, but may hibernate",
            RAISE_LOCK_LIMIT,
        ),
        (ProtectionLevel::Plain, _) => {
            problem("some could not be locked, so they may be swapped to disk", RAISE_LOCK_LIMIT)
        }
    }
}

/// The daemon may lock as much memory as everyday use needs.
fn lock_limit(facts: &Facts) -> Finding {
    let memory = match &facts.memory {
        Ok(memory) => memory,
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    match memory.lock_limit_bytes {
        None => Finding::Good("none".to_owned()),
        Some(limit) if limit < LOCK_LIMIT_MIN => problem(
            format!("{}, and everyday use needs {}", mebibytes(limit), mebibytes(LOCK_LIMIT_MIN)),
            RAISE_LOCK_LIMIT,
        ),
        Some(limit) => Finding::Good(format!(
            "{}; a server that uses many secrets at once should have {}",
            mebibytes(limit),
            mebibytes(64 << 20)
        )),
    }
}

/// The kernel has memory that nobody but its process can read.
fn kernel_memory(facts: &Facts) -> Finding {
    match facts.best_level {
        Level::SecretMemory => Finding::Good("there is memfd_secret".to_owned()),
        Level::Locked | Level::Plain => Finding::Note(
            "memfd_secret is not to be had here, so secrets are locked in ordinary memory: Linux has it since 5.14 \
             (before 6.5 with the boot option secretmem.enable=1), and a container may forbid it"
                .to_owned(),
        ),
    }
}

/// How open to others a folder may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Openness {
    /// Others may look into it, and change nothing.
    Readable,
    /// Others may do nothing.
    Closed,
}

fn config_folder(paths: &Paths) -> std::path::PathBuf {
    paths.config_file().parent().unwrap_or(Path::new("/")).to_owned()
}

/// A folder is the user's alone, or does not exist yet.
fn folder(path: &Path, openness: Openness) -> Finding {
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Finding::Good(format!("{} does not exist yet", path.display()));
    }
    match private_fs::check_private_dir(path) {
        Ok(()) => Finding::Good(path.display().to_string()),
        Err(PrivateFsError::NotPrivate { .. }) if openness == Openness::Readable => {
            Finding::Good(path.display().to_string())
        }
        Err(error) => problem(error, "put it right, then run `pds doctor` again"),
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
    use std::os::unix::fs::PermissionsExt as _;

    use core_types::DaemonName;

    use super::*;

    fn facts() -> Facts {
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
            best_level: Level::SecretMemory,
        }
    }

    fn problems(facts: &Facts) -> Vec<&'static str> {
        let found = CHECKS.iter().filter(|(_, check)| matches!(check(facts), Finding::Problem { .. }));
        found.map(|(name, _)| *name).collect()
    }

    #[test]
    fn nothing_is_wrong_on_an_ordinary_machine_with_or_without_secret_memory() {
        assert_eq!(problems(&facts()), [""; 0]);
        let mut older = facts();
        older.best_level = Level::Locked;
        older.memory.as_mut().unwrap().level = ProtectionLevel::Locked;
        assert_eq!(problems(&older), [""; 0]);
        assert!(matches!(kernel_memory(&older), Finding::Note(_)));
    }

    #[test]
    fn daemons_that_are_missing_or_of_another_version_are_named() {
        let mut facts = facts();
        facts.peers.as_mut().unwrap()[1].version = "0.0.1".to_owned();
        assert!(
            matches!(daemons_run(&facts), Finding::Problem { found, .. } if found.contains("daemon-secrets"))
        );
        let mut other =
            Peer { name: DaemonName::parse("backup").unwrap(), version: "9".to_owned(), pid: None };
        facts.peers.as_mut().unwrap()[1].version = env!("CARGO_PKG_VERSION").to_owned();
        facts.peers.as_mut().unwrap().push(other.clone());
        assert!(
            matches!(daemons_run(&facts), Finding::Good(_)),
            "an enrolled daemon has a version of its own"
        );
        other.version.clear();
        facts.peers.as_mut().unwrap().remove(3);
        assert!(
            matches!(daemons_run(&facts), Finding::Problem { found, .. } if found.contains("daemon-launcher"))
        );
        facts.peers = Err("nobody".to_owned());
        facts.memory = Err("nobody".to_owned());
        assert_eq!(problems(&facts), ["daemons"]);
    }

    #[test]
    fn unlocked_memory_and_a_low_limit_come_with_the_three_ways_to_raise_it() {
        let mut facts = facts();
        *facts.memory.as_mut().unwrap() = MemoryProtection {
            level: ProtectionLevel::Plain,
            bytes_in_use: 64,
            lock_limit_bytes: Some(64 << 10),
            swap: None,
        };
        assert_eq!(problems(&facts), ["memory of secrets", "limit on locked memory"]);
        let Finding::Problem { next, .. } = lock_limit(&facts) else { panic!("no problem") };
        for way in ["ulimit -l 65536", "soft memlock 65536", "hard memlock 65536", "LimitMEMLOCK=infinity"] {
            assert!(next.contains(way), "{next}");
        }
    }

    #[test]
    fn folders_that_others_can_use_are_named_and_a_readable_configuration_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("vaults");
        assert!(matches!(folder(&path, Openness::Closed), Finding::Good(_)), "not made yet");
        std::fs::create_dir(&path).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for (bits, closed, readable) in
            [(0o700, true, true), (0o755, false, true), (0o770, false, false), (0o777, false, false)]
        {
            mode(bits);
            assert_eq!(matches!(folder(&path, Openness::Closed), Finding::Good(_)), closed, "{bits:o}");
            assert_eq!(matches!(folder(&path, Openness::Readable), Finding::Good(_)), readable, "{bits:o}");
        }
    }
}
