//! Where everything lies: the only reader of `XDG_*` and of the `PDS_*` variables that move a folder.

use std::path::{Path, PathBuf};

use crate::name::ProfileName;

/// The folders cannot be told from the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// Neither the specific variable nor `HOME` says where the folder is.
    #[error("neither {variable} nor HOME is set, so there is no place for {purpose}")]
    NoHome {
        /// The variable that would say it.
        variable: &'static str,
        /// What the folder is for.
        purpose: &'static str,
    },
    /// There is no folder for sockets.
    #[error("XDG_RUNTIME_DIR is not set, so there is no place for sockets that only you can reach")]
    NoRuntime,
    /// A variable with a path that is not absolute (the XDG base directory specification says to refuse it).
    #[error("{variable} is not an absolute path")]
    Relative {
        /// The variable.
        variable: &'static str,
    },
}

/// All folders of one user's pds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    config: PathBuf,
    data: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    user_manager: Option<PathBuf>,
}

impl Paths {
    /// Takes the folders from the process's environment.
    ///
    /// # Errors
    /// A folder cannot be told, or a variable holds a relative path.
    pub fn from_environment() -> Result<Self, PathsError> {
        Self::from_variables(|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// Takes the folders from `variable`, which answers the value of an environment variable.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, PathsError> {
        let absolute = |name: &'static str| match variable(name).filter(|path| !path.as_os_str().is_empty()) {
            Some(path) if path.is_absolute() => Ok(Some(path)),
            Some(_) => Err(PathsError::Relative { variable: name }),
            None => Ok(None),
        };
        let folder = |own: &'static str, xdg: &'static str, below_home: &str, purpose: &'static str| {
            if let Some(path) = absolute(own)? {
                return Ok(path);
            }
            if let Some(path) = absolute(xdg)? {
                return Ok(path.join("pds"));
            }
            match absolute("HOME")? {
                Some(home) => Ok(home.join(below_home).join("pds")),
                None => Err(PathsError::NoHome { variable: xdg, purpose }),
            }
        };
        let runtime = match absolute("PDS_RUNTIME_DIR")? {
            Some(path) => path,
            None => absolute("XDG_RUNTIME_DIR")?.ok_or(PathsError::NoRuntime)?.join("pds"),
        };
        Ok(Self {
            config: folder("PDS_CONFIG_DIR", "XDG_CONFIG_HOME", ".config", "the configuration")?,
            data: folder("PDS_DATA_DIR", "XDG_DATA_HOME", ".local/share", "the vaults")?,
            state: folder("PDS_STATE_DIR", "XDG_STATE_HOME", ".local/state", "the audit log")?,
            runtime,
            user_manager: absolute("XDG_RUNTIME_DIR")
                .ok()
                .flatten()
                .map(|folder| folder.join("systemd/private")),
        })
    }

    /// Folder of sockets and public keys.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Folder of the audit log and the daemons' logs.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Folder of the vaults and nothing else.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the user's own systemd listens, if there is one; `None` where there is no place for it.
    #[must_use]
    pub fn user_manager(&self) -> Option<PathBuf> {
        self.user_manager.clone()
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The socket of the bus.
    #[must_use]
    pub fn bus_socket(&self) -> PathBuf {
        self.runtime.join("bus.sock")
    }

    /// The socket that systemd makes for a daemon, and by which the bus knows that it started the daemon.
    #[must_use]
    pub fn name_socket(&self, daemon: &str) -> PathBuf {
        self.runtime.join(format!("{daemon}.name"))
    }

    /// The socket that systemd makes for the launcher's spawner.
    #[must_use]
    pub fn spawner_socket(&self) -> PathBuf {
        self.runtime.join("spawner.sock")
    }

    /// The socket on which systemd asks for the credentials of units.
    #[must_use]
    pub fn credentials_socket(&self) -> PathBuf {
        self.runtime.join("credentials.sock")
    }

    /// The bus's public key, in hex.
    #[must_use]
    pub fn bus_public_key(&self) -> PathBuf {
        self.runtime.join("bus.pub")
    }

    /// Folder of the daemons' public keys.
    #[must_use]
    pub fn public_keys(&self) -> PathBuf {
        self.runtime.join("keys")
    }

    /// Public key of one daemon, in hex.
    #[must_use]
    pub fn public_key(&self, daemon: &str) -> PathBuf {
        self.public_keys().join(format!("{daemon}.pub"))
    }

    /// Where a daemon says what its sandbox lacks, if it lacks something.
    #[must_use]
    pub fn sandbox_gaps(&self, daemon: &str) -> PathBuf {
        self.runtime.join(format!("{daemon}.gaps"))
    }

    /// The file that the one running instance of a daemon (or of the supervisor) holds locked.
    #[must_use]
    pub fn instance_lock(&self, daemon: &str) -> PathBuf {
        self.runtime.join(format!("{daemon}.lock"))
    }

    /// Folder of all vaults.
    #[must_use]
    pub fn vaults(&self) -> PathBuf {
        self.data.join("vaults")
    }

    /// Folder of one vault.
    #[must_use]
    pub fn vault(&self, profile: &ProfileName) -> PathBuf {
        self.vaults().join(profile.as_str())
    }

    /// Folder of the audit log's segments.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.state.join("audit")
    }

    /// Folder of the entries that daemons keep until they are in the audit log.
    #[must_use]
    pub fn audit_waiting(&self) -> PathBuf {
        self.state.join("audit-waiting")
    }

    /// Where the audit log stood when it was anchored to a vault last.
    #[must_use]
    pub fn audit_anchor(&self, profile: &ProfileName) -> PathBuf {
        self.audit_anchors().join(profile.as_str())
    }

    /// Folder of what each vault remembers of the audit log.
    #[must_use]
    pub fn audit_anchors(&self) -> PathBuf {
        self.state.join("audit-anchors")
    }

    /// The file in which it is remembered when each secret was read last.
    #[must_use]
    pub fn last_reads(&self) -> PathBuf {
        self.state.join("last-reads.json")
    }

    /// The anchor of one vault: outside the vault's folder, and in another than whatever is copied with it.
    #[must_use]
    pub fn anchor(&self, profile: &ProfileName) -> PathBuf {
        self.anchors().join(profile.as_str())
    }

    /// Folder of the anchors of all vaults.
    #[must_use]
    pub fn anchors(&self) -> PathBuf {
        self.state.join("anchors")
    }

    /// The folder over which programs get their secrets as files; it stays empty for all others.
    #[must_use]
    pub fn secret_files(&self) -> PathBuf {
        self.runtime.join("secrets")
    }

    /// Folder of the folders of files of programs for which nothing can be laid over another.
    #[must_use]
    pub fn exposed_files(&self) -> PathBuf {
        self.runtime.join("files")
    }

    /// The link to what the launcher's witness shows.
    #[must_use]
    pub fn witness(&self) -> PathBuf {
        self.runtime.join("witness")
    }

    /// Folder of the notes of programs that run.
    #[must_use]
    pub fn children(&self) -> PathBuf {
        self.state.join("children")
    }

    /// The file in which wrong unlock attempts are counted, so that a restart forgives none.
    #[must_use]
    pub fn unlock_attempts(&self) -> PathBuf {
        self.state.join("unlock-attempts.json")
    }

    /// The file in which it is remembered how many changes each vault has seen.
    #[must_use]
    pub fn generations(&self) -> PathBuf {
        self.state.join("generations.json")
    }

    /// The folder of the file of enrolled daemons: apart from the vaults, because all daemons read it.
    #[must_use]
    pub fn enrolled_folder(&self) -> PathBuf {
        self.data.join("enrolled")
    }

    /// The file of enrolled daemons.
    #[must_use]
    pub fn enrolled(&self) -> PathBuf {
        self.enrolled_folder().join("daemons")
    }

    /// Folder of the keys that `pds enroll` makes, where it is told no other place.
    #[must_use]
    pub fn enrolled_keys(&self) -> PathBuf {
        self.data.join("enrolled-keys")
    }

    /// The log of the daemons, where systemd keeps none.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.state.join("daemons.log")
    }

    /// What was in that log when it became too large.
    #[must_use]
    pub fn older_log_file(&self) -> PathBuf {
        self.state.join("daemons.log.1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(variables: &[(&str, &str)]) -> Result<Paths, PathsError> {
        Paths::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn xdg_folders_get_a_folder_of_our_own_and_overrides_do_not() {
        let found = paths(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1"), ("PDS_DATA_DIR", "/d")])
            .unwrap();
        assert_eq!(found.bus_socket(), Path::new("/run/user/1/pds/bus.sock"));
        assert_eq!(found.vaults(), Path::new("/d/vaults"));
        assert_eq!(found.config_file(), Path::new("/home/u/.config/pds/config.toml"));
        assert_eq!(found.audit(), Path::new("/home/u/.local/state/pds/audit"));
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        assert_eq!(paths(&[("HOME", "/home/u")]), Err(PathsError::NoRuntime));
        assert!(matches!(paths(&[("XDG_RUNTIME_DIR", "/r")]), Err(PathsError::NoHome { .. })));
        assert_eq!(
            paths(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "run")]),
            Err(PathsError::Relative { variable: "XDG_RUNTIME_DIR" })
        );
        assert_eq!(paths(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "")]), Err(PathsError::NoRuntime));
    }
}
