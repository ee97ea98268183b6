//! What a system shall be like when a test begins.

use std::path::{Path, PathBuf};

/// A vault that the system starts with.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    pub(crate) profile: String,
    pub(crate) secrets: Vec<(String, Vec<u8>)>,
    pub(crate) locked: bool,
}

/// A system to be. Each vault has the password [`crate::PASSWORD`] and is unlocked unless [`Spec::locked`] says otherwise.
#[derive(Debug, Clone)]
pub struct Spec {
    pub(crate) vaults: Vec<Vault>,
    pub(crate) config: Option<String>,
    pub(crate) log: String,
    pub(crate) started: bool,
    pub(crate) below: Option<PathBuf>,
    pub(crate) powerless: bool,
    pub(crate) under: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
}

impl Default for Spec {
    fn default() -> Self {
        Self::new()
    }
}

impl Spec {
    /// Running daemons, no vault.
    #[must_use]
    pub fn new() -> Self {
        Self {
            vaults: Vec::new(),
            config: None,
            log: "info".to_owned(),
            started: true,
            below: None,
            powerless: false,
            under: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Running daemons and an unlocked, empty vault of the profile `default`.
    #[must_use]
    pub fn ready() -> Self {
        Self::new().profile("default")
    }

    /// Adds a vault; what is said next of secrets and locks is about it.
    #[must_use]
    pub fn profile(mut self, name: &str) -> Self {
        self.vaults.push(Vault { profile: name.to_owned(), secrets: Vec::new(), locked: false });
        self
    }

    /// Adds a secret to the vault named last.
    #[must_use]
    pub fn secret(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.last().secrets.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Locks the vault named last once its secrets are in it.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.last().locked = true;
        self
    }

    /// Writes this `config.toml` before anything starts.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Sets the level at which all processes log (`PDS_LOG`).
    #[must_use]
    pub fn log(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log);
        self
    }

    /// Starts nothing: the first command that needs the daemons does.
    #[must_use]
    pub fn not_started(mut self) -> Self {
        assert!(self.vaults.is_empty(), "vaults need running daemons");
        self.started = false;
        self
    }

    /// Puts its folder below this one, instead of where temporary folders usually are.
    #[must_use]
    pub fn below(mut self, folder: &Path) -> Self {
        self.below = Some(folder.to_owned());
        self
    }

    /// Starts the daemons without any capability, so that root's daemons are as other users' are.
    #[must_use]
    pub fn powerless(mut self) -> Self {
        self.powerless = true;
        self
    }

    /// Has the daemons started by this command, which is given theirs as further arguments.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets a variable of all processes.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn last(&mut self) -> &mut Vault {
        self.vaults.last_mut().expect("say profile(..) before what is in it")
    }
}
