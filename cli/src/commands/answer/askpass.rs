//! `SSH_ASKPASS` and `SUDO_ASKPASS`: writes the secret that a question asks for.
//!
//! The secret is the one that `PDS_ASKPASS` names. Without it only the passphrase of an SSH key is given, `ssh/KEY` after
//! the file in the question, which then has to be ssh's own: what a server asks comes with `(user@host)` before it, so
//! that a server cannot ask for a passphrase (sshconnect2.c). Questions for a yes are for people.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use core_types::SecretName;

use super::keep::Keep;
use super::{HelperError, place};
use crate::error::Failure;
use crate::session::Session;

/// How ssh and ssh-add begin to ask for the passphrase of a key, and what follows the file (sshconnect2.c, ssh-add.c).
const QUESTIONS: [(&str, &[&str]); 2] = [
    ("Enter passphrase for key '", &["': "]),
    ("Enter passphrase for ", &[" (will confirm each use): ", ": "]),
];

pub(super) fn run(session: &mut Session, question: &[OsString]) -> Result<(), Failure> {
    let question = question.join(&OsString::from(" ")).into_vec();
    let question = String::from_utf8(question).map_err(|_| HelperError::Question("is not UTF-8"))?;
    // ssh(1): "confirm" for yes or no, "none" for what only informs.
    let hint = std::env::var_os("SSH_ASKPASS_PROMPT").unwrap_or_default();
    if hint == "confirm" || hint == "none" || question.to_ascii_lowercase().contains("(yes/no") {
        return Err(HelperError::Question("wants a yes, and no secret").into());
    }
    let named = std::env::var("PDS_ASKPASS").ok().filter(|name| !name.is_empty());
    let name = match named {
        Some(name) => {
            SecretName::parse(name).map_err(|_| HelperError::Question("has no secret in PDS_ASKPASS"))?
        }
        None => {
            let home = std::env::var_os("HOME").unwrap_or_default();
            key_name(&question, Path::new(&home))?.ok_or(HelperError::Question("names no key of ssh"))?
        }
    };
    let mut value = Keep::open(session)?.line(&name)?.ok_or_else(|| missing(&name))?;
    value.push(b'\n');
    session.output.prepared(&value)
}

fn missing(name: &SecretName) -> Failure {
    core_types::protocol::secrets::SecretsDenial::NoSuchSecret(name.to_string()).into()
}

/// The secret of the key that a question is about: `ssh/` and its path, below `~/.ssh` that within it.
fn key_name(question: &str, home: &Path) -> Result<Option<SecretName>, HelperError> {
    let file = QUESTIONS.iter().find_map(|(before, afters)| {
        let rest = question.strip_prefix(before)?;
        afters.iter().find_map(|after| rest.strip_suffix(after))
    });
    let Some(file) = file.map(Path::new).filter(|file| file.is_absolute()) else { return Ok(None) };
    let file = file.strip_prefix(home.join(".ssh")).unwrap_or(file);
    let parts = place::parts(&file.to_string_lossy())?;
    if parts.is_empty() {
        return Ok(None);
    }
    let parts: Vec<&str> = std::iter::once("ssh").chain(parts.iter().map(String::as_str)).collect();
    place::name(&parts).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(question: &str) -> Option<String> {
        key_name(question, Path::new("/home/u")).ok().flatten().map(|name| name.to_string())
    }

    #[test]
    fn the_key_in_a_question_of_ssh_names_the_secret() {
        assert_eq!(
            named("Enter passphrase for key '/home/u/.ssh/id_ed25519': ").as_deref(),
            Some("ssh/id_ed25519")
        );
        assert_eq!(named("Enter passphrase for /srv/deploy/key: ").as_deref(), Some("ssh/srv/deploy/key"));
        assert_eq!(named("Enter passphrase for /k (will confirm each use): ").as_deref(), Some("ssh/k"));
    }

    #[test]
    fn what_a_server_asks_names_nothing() {
        for question in [
            "(me@evil) Enter passphrase for key '/home/u/.ssh/id': ",
            "me@evil's password: ",
            "[sudo] password for u: ",
            "Enter passphrase for key 'id': ",
            "Enter passphrase for key '/a\nb': ",
            "Enter passphrase for : ",
            "",
        ] {
            assert_eq!(named(question), None, "{question}");
        }
    }
}
