//! Options of `pds helper`, and the names by which other programs call it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Subcommand;

/// The programs that others look for by name, and what `pds` is asked for then; `make install` makes them links to `pds`.
const CALLED_AS: [(&str, &str); 4] = [
    ("git-credential-pds", "git"),
    ("docker-credential-pds", "docker"),
    ("cargo-credential-pds", "cargo"),
    ("pds-askpass", "askpass"),
];

/// What other programs ask for secrets with.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum HelperCommand {
    /// Git's: `git config --global credential.helper pds`; secrets `git/HOST/USER`
    Git {
        /// get, store or erase; anything else is passed over, as git wants it
        operation: String,
    },
    /// Docker's and podman's: `"credsStore": "pds"` in config.json; secrets `docker/SERVER/USER`
    Docker {
        /// get, store, erase or list
        operation: String,
    },
    /// Cargo's: `global-credential-providers = ["cargo-credential-pds"]`; secrets `cargo/REGISTRY`
    Cargo {
        /// How cargo calls it
        #[arg(long, hide = true)]
        cargo_plugin: bool,
    },
    /// That of ssh (`SSH_ASKPASS`) and sudo (`SUDO_ASKPASS`): the secret `$PDS_ASKPASS`, or `ssh/KEY` for a key's passphrase
    Askpass {
        /// The question
        #[arg(last = true)]
        question: Vec<OsString>,
    },
}

/// The command line as if `pds` had been called, where it was called by a name of a helper.
pub(crate) fn by_name(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    let Some((_, helper)) = CALLED_AS.iter().find(|(called, _)| OsStr::new(called) == name) else {
        return arguments;
    };
    let mut words = vec!["pds", "helper", helper];
    // A question begins as it likes.
    words.extend((*helper == "askpass").then_some("--"));
    arguments.splice(..1, words.into_iter().map(OsString::from));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};

    fn helper(line: &[&str]) -> Option<HelperCommand> {
        match parse(by_name(line.iter().map(OsString::from))).ok()?.command {
            Command::Helper(helper) => Some(helper),
            _ => None,
        }
    }

    #[test]
    fn the_name_of_the_program_says_which_helper_is_meant() {
        assert!(
            matches!(helper(&["/usr/bin/git-credential-pds", "get"]), Some(HelperCommand::Git { operation }) if operation == "get")
        );
        assert!(matches!(helper(&["docker-credential-pds", "list"]), Some(HelperCommand::Docker { .. })));
        let cargo = helper(&["./cargo-credential-pds", "--cargo-plugin"]);
        assert!(matches!(cargo, Some(HelperCommand::Cargo { cargo_plugin: true })));
        let asked = helper(&["pds-askpass", "--really? -p x "]);
        assert!(
            matches!(asked, Some(HelperCommand::Askpass { question }) if question == ["--really? -p x "])
        );
        assert!(matches!(helper(&["pds", "helper", "git", "erase"]), Some(HelperCommand::Git { .. })));
        assert!(helper(&["pds-askpass-not", "get"]).is_none());
        assert!(by_name([]).is_empty());
    }
}
