//! Whether a login unlocks: what of PAM is in force (pam.d(5)); and whether its end, a locked screen and suspend lock.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use core_types::protocol::profile::SessionWatchState;

use super::{Facts, Finding, problem};
use crate::output::shown;

/// Where PAM keeps what all services share, on Debian and on Fedora.
const FILES: [&str; 4] = [
    "/etc/pam.d/common-auth",
    "/etc/pam.d/common-session",
    "/etc/pam.d/system-auth",
    "/etc/pam.d/password-auth",
];
/// The end of the path of the program that PAM runs for us.
const HOOK: &str = "/lib/pds/pam-hook";

/// What PAM is told to run for us is there, and nobody but root can exchange it.
pub(super) fn login(_: &Facts) -> Finding {
    judge(&FILES.map(Path::new), 0)
}

/// What logind tells is heard, where there is one.
pub(super) fn sessions(facts: &Facts) -> Finding {
    match &facts.sessions {
        Err(reason) => Finding::Unknown(reason.clone()),
        Ok(SessionWatchState::Complete) => {
            Finding::Good("noticed, and suspend waits until profiles are locked".to_owned())
        }
        Ok(SessionWatchState::WithoutDelay(reason)) => problem(
            format!("noticed, but suspend does not wait: {}", shown(reason)),
            "install polkit, or allow the user org.freedesktop.login1.inhibit-delay-sleep",
        ),
        Ok(SessionWatchState::Absent(reason)) => Finding::Note(format!("not noticed: {}", shown(reason))),
    }
}

fn judge(files: &[&Path], root: u32) -> Finding {
    let texts = files.iter().filter_map(|path| std::fs::read(path).ok());
    let hooks: Vec<String> = texts.flat_map(|text| hooks(&String::from_utf8_lossy(&text))).collect();
    let Some(hook) = hooks.first() else {
        return Finding::Good(
            "a login does not unlock, which nothing is wrong with; `pam-auth-update --enable pds` makes it (as root)".to_owned(),
        );
    };
    let repair = "as root, run `make install` once more, or `pam-auth-update --disable pds`";
    match Path::new(hook).metadata() {
        Err(error) => {
            problem(format!("a login is to unlock by {hook}, which cannot be run: {error}"), repair)
        }
        Ok(found) if found.mode() & 0o111 == 0 => {
            problem(format!("a login is to unlock by {hook}, which is not executable"), repair)
        }
        Ok(found) if found.uid() != root || found.mode() & 0o022 != 0 => problem(
            format!("{hook} is run as root at each login, and others than root can change it"),
            "as root: chown root and chmod 755 it, and find out who changed it",
        ),
        Ok(_) => Finding::Good("a login unlocks, where its password is that of the vault".to_owned()),
    }
}

/// The programs of ours that a file of PAM names.
fn hooks(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    words.filter(|word| word.ends_with(HOOK)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_hook_that_is_missing_or_can_be_exchanged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (file, hook) = (folder.path().join("common-auth"), folder.path().join("lib/pds/pam-hook"));
        let own = rustix::process::geteuid().as_raw();
        let judged = |owner| judge(&[&folder.path().join("absent"), &file], owner);
        let found = |owner| match judged(owner) {
            Finding::Problem { found, .. } => found,
            other => panic!("{other:?}"),
        };
        assert!(matches!(judged(own), Finding::Good(_)), "no PAM at all");
        std::fs::write(&file, format!("# pam_exec.so {}\nauth required pam_unix.so\n", hook.display()))
            .unwrap();
        assert!(matches!(judged(own), Finding::Good(_)), "only mentioned");
        std::fs::write(&file, format!("auth optional pam_exec.so quiet expose_authtok {}\n", hook.display()))
            .unwrap();
        assert!(found(own).contains("cannot be run"));
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(found(own).contains("not executable"));
        mode(0o757);
        assert!(found(own).contains("others than root"));
        mode(0o755);
        assert!(matches!(judged(own), Finding::Good(_)));
        assert!(found(own + 1).contains("others than root"));
    }
}
