//! Whether the daemons run, as they should, and from where.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::status::{self, Daemon, daemons};
use super::{Facts, Finding, problem};
use crate::output::shown;
use crate::start;

/// All four run, and are of the version of this `pds`.
pub(super) fn daemons_run(facts: &Facts) -> Finding {
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
        status::is_ours(&daemon.name) && daemon.version.as_deref().is_some_and(|found| found != version)
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
pub(super) fn sandboxes(facts: &Facts) -> Finding {
    let mut all = match &facts.peers {
        Ok(peers) => daemons(peers.clone()),
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    status::note_gaps(&mut all, &facts.paths);
    let gaps: Vec<String> = all
        .iter()
        .flat_map(|daemon| daemon.sandbox_gaps.iter().map(|gap| format!("{}: {}", daemon.name, shown(gap))))
        .collect();
    match gaps.is_empty() {
        true => Finding::Good("files and system calls that they have no use for are out of reach".to_owned()),
        false => Finding::Note(gaps.join("; ")),
    }
}

/// Nobody else can exchange the programs, and they are those of one installation.
pub(super) fn programs(_: &Facts) -> Finding {
    let found = std::env::current_exe().and_then(|ourselves| ourselves.canonicalize());
    let ourselves = match found {
        Ok(path) => path,
        Err(error) => return Finding::Unknown(format!("the path of pds itself is unknown: {error}")),
    };
    let supervisor = match start::supervisor_program(&ourselves) {
        Ok(path) => path,
        Err(error) => return problem(error, "install pds with its daemons beside it or in ../lib/pds"),
    };
    let folder = supervisor.parent().unwrap_or(Path::new("/"));
    let daemons = status::DAEMONS.iter().map(|name| folder.join(name));
    let all = [ourselves.clone(), ourselves.parent().unwrap_or(Path::new("/")).to_owned(), folder.to_owned()];
    for path in all.into_iter().chain(daemons) {
        if let Some(wrong) = wrong_with_program(&path) {
            return problem(
                format!("{} {wrong}", path.display()),
                "install pds anew, where only you or root can write",
            );
        }
    }
    let first = in_path(std::env::var_os("PATH").unwrap_or_default().as_os_str());
    match first {
        Some(first) if first != ourselves => Finding::Note(format!(
            "`pds` is {} by PATH, and this one is {}",
            first.display(),
            ourselves.display()
        )),
        _ => Finding::Good(format!("{}, daemons in {}", ourselves.display(), folder.display())),
    }
}

/// Why a program, or the folder it lies in, cannot be trusted.
fn wrong_with_program(path: &Path) -> Option<String> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Some(format!("cannot be found: {error}")),
    };
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let others = metadata.mode() & 0o002 != 0;
    // Where each user has a group of his own, it is nobody else's.
    let a_group = metadata.mode() & 0o020 != 0 && metadata.gid() != group && metadata.gid() != 0;
    if metadata.uid() != user && metadata.uid() != 0 {
        Some(format!("belongs to the user {}", metadata.uid()))
    } else if others || a_group {
        Some(format!("can be changed by others (mode {:04o})", metadata.mode() & 0o7777))
    } else {
        None
    }
}

/// The `pds` that a shell finds.
fn in_path(path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join("pds"))
        .find_map(|program| program.canonicalize().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use core_types::DaemonName;
    use core_types::protocol::bus::Peer;

    use super::super::tests::facts;
    use super::*;

    #[test]
    fn a_program_that_others_can_exchange_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pds");
        assert!(wrong_with_program(&path).unwrap().contains("cannot be found"));
        std::fs::write(&path, "").unwrap();
        for (mode, wrong) in [(0o755, false), (0o711, false), (0o775, false), (0o757, true), (0o777, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(wrong_with_program(&path).is_some(), wrong, "{mode:o}");
        }
        let empty = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([empty.path(), folder.path()]).unwrap();
        assert_eq!(in_path(&path), folder.path().join("pds").canonicalize().ok());
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
    }
}
