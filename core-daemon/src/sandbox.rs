//! What a daemon takes away from itself before it serves: files outside of its places, and system calls it has no use
//! for. Whoever gets it to run something else finds little to do that with.
//!
//! Files are Landlock's part (landlock(7)), where each daemon has a [`Sandbox`] of its own. Calls are seccomp's (seccomp(2),
//! an allow-list; anything else ends the process), the same for all: they share the runtime and the C library. What the kernel has not is left out, and told: once in
//! the log, and by `pds status`.

mod calls;

use std::path::PathBuf;

use core_crypto::private_fs;
use core_types::paths::Paths;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The newest Landlock whose every restriction is wanted: that of Linux 6.12.
const LANDLOCK: ABI = ABI::V6;

/// A place where a daemon may read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The folder of sockets and public keys.
    Runtime,
    /// The folder of the audit log, of anchors and of what is kept between starts.
    State,
    /// The folder of vaults.
    Data,
    /// The folder that says which keys are those of enrolled daemons.
    Enrolled,
    /// The folder of `config.toml`.
    Configuration,
    /// What the kernel tells of processes (proc(5)).
    Processes,
    /// Devices that hold nothing: `/dev/null` and `/dev/urandom`.
    Devices,
}

/// What a daemon keeps.
#[derive(Debug, Clone, Copy)]
pub struct Sandbox {
    /// Where it reads and where it writes, or `None` for one that may not be in a Landlock domain: from within one, no
    /// process outside of it can be looked into (ptrace(2)), be it only for its executable.
    pub places: Option<Places>,
}

/// Where a daemon may read and write.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Where it reads.
    pub reads: &'static [Place],
    /// Where it reads, writes, makes and removes.
    pub writes: &'static [Place],
}

impl Place {
    fn paths(self, paths: &Paths) -> Vec<PathBuf> {
        match self {
            Self::Runtime => vec![paths.runtime().to_owned()],
            Self::State => vec![paths.state().to_owned()],
            Self::Data => vec![paths.data().to_owned()],
            Self::Enrolled => vec![paths.enrolled_folder()],
            Self::Configuration => paths.config_file().parent().map(PathBuf::from).into_iter().collect(),
            Self::Processes => vec![PathBuf::from("/proc")],
            Self::Devices => vec![PathBuf::from("/dev/null"), PathBuf::from("/dev/urandom")],
        }
    }
}

impl Sandbox {
    /// Takes everything else away, for this thread and all that it starts; there may be no other yet. What could not be
    /// taken away is logged, and written where `pds status` looks, a line each.
    pub fn enter(&self, daemon: &str, paths: &Paths) {
        let file = paths.sandbox_gaps(daemon);
        let mut gaps = Vec::new();
        if let Some(places) = &self.places {
            places.make(paths);
            match places.keep(paths) {
                Ok(RulesetStatus::FullyEnforced) => {}
                Ok(RulesetStatus::PartiallyEnforced) => {
                    gaps.push(
                        "files: this kernel's Landlock is older than Linux 6.12 and misses restrictions"
                            .to_owned(),
                    );
                }
                Ok(RulesetStatus::NotEnforced) => {
                    gaps.push("files: this kernel has no Landlock, or it is turned off".to_owned());
                }
                Err(error) => gaps.push(format!("files: {error}")),
            }
        }
        if let Err(reason) = calls::keep() {
            gaps.push(format!("system calls: {reason}"));
        }
        for gap in &gaps {
            tracing::warn!("the sandbox has a gap: {gap}");
        }
        let told = match gaps.is_empty() {
            true => private_fs::remove_if_present(&file),
            false => private_fs::write_atomic(&file, gaps.join("\n").as_bytes()),
        };
        told.unwrap_or_else(|error| tracing::warn!(%error, "the gaps of the sandbox cannot be told"));
    }
}

impl Places {
    /// Makes the folders that are missing: a rule is about a folder that is there. What cannot be made cannot be used.
    fn make(&self, paths: &Paths) {
        let wanted = self.reads.iter().chain(self.writes);
        let ours = wanted.filter(|place| !matches!(place, Place::Processes | Place::Devices));
        for folder in ours.flat_map(|place| place.paths(paths)).filter(|folder| !folder.exists()) {
            let made = private_fs::ensure_private_dir(&folder);
            made.unwrap_or_else(|error| tracing::warn!(%error, "a folder cannot be made"));
        }
    }

    fn keep(&self, paths: &Paths) -> Result<RulesetStatus, RulesetError> {
        let below = |places: &[Place], access: BitFlags<AccessFs>| {
            let paths: Vec<PathBuf> = places.iter().flat_map(|place| place.paths(paths)).collect();
            path_beneath_rules(paths, access)
        };
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        // Neither executing nor devices are among it.
        let writing = reading
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::MakeSock
            | AccessFs::MakeSym
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer;
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rules(below(self.reads, reading))?
            .add_rules(below(self.writes, writing))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}
