//! Behaviour of the command line as data: one file per behaviour, each holding what is typed and what comes out.

use std::path::Path;

use serde::Deserialize;

use crate::System;

/// One case file. `before` are commands whose success is taken for granted; then `args` is run and looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// In which system: `unlocked` and `locked` have an empty profile `default`, `none` has daemons and no vault.
    #[serde(default)]
    pub system: World,
    /// Commands before, as [`Case::args`].
    #[serde(default)]
    pub before: Vec<Step>,
    /// Arguments of `pds`.
    pub args: Vec<String>,
    /// Its input.
    #[serde(default)]
    pub stdin: String,
    /// Variables it gets besides.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// All that it prints, if that is to be compared.
    pub stdout: Option<String>,
    /// Texts that stand in what it says.
    #[serde(default)]
    pub stderr: Vec<String>,
    /// Texts that do not stand in what it says or prints.
    #[serde(default)]
    pub absent: Vec<String>,
    /// Its exit code.
    #[serde(default)]
    pub status: i32,
}

/// A command of [`Case::before`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Arguments of `pds`.
    pub args: Vec<String>,
    /// Its input.
    #[serde(default)]
    pub stdin: String,
}

/// The system that a case runs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// An unlocked, empty profile `default`.
    #[default]
    Unlocked,
    /// A locked, empty profile `default`.
    Locked,
    /// No vault.
    None,
}

/// Reads all cases of a folder, in order of their names.
///
/// # Panics
/// A file is no case.
#[must_use]
pub fn read(folder: &Path) -> Vec<(String, Case)> {
    let entries = std::fs::read_dir(folder).expect("the folder of the cases");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("a readable case");
            let case = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name, case)
        })
        .collect()
}

impl Case {
    /// Runs the case.
    ///
    /// # Panics
    /// What comes out is not what the file says.
    pub fn check(&self, system: &System) {
        for step in &self.before {
            system.pds(&step.args).stdin(&step.stdin).run().done();
        }
        let mut command = system.pds(&self.args).stdin(&self.stdin);
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        let ended = command.run().exits(self.status);
        if let Some(stdout) = &self.stdout {
            ended.prints(stdout);
        }
        for text in &self.stderr {
            ended.says(text);
        }
        for text in &self.absent {
            let both = [ended.stdout.as_slice(), &ended.stderr].concat();
            assert!(!String::from_utf8_lossy(&both).contains(text), "a text that must be absent is there");
        }
    }
}
