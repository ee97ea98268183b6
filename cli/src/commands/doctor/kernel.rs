//! What the kernel has of what pds makes use of; nothing of it is needed for pds to work.

use std::path::Path;

use super::{Facts, Finding};

/// What a kernel has since which version, and what is less good without it.
const SINCE: [((u32, u32), &str); 3] = [
    ((6, 5), "the process that asks for a program to be run is known by its number alone"),
    (
        (6, 4),
        "files of `pds run --files` are in a ramfs, which has no limit of its own, for want of a tmpfs that is not swapped",
    ),
    ((5, 13), "there is no Landlock, so files are not out of the daemons' reach"),
];
/// Settings that keep ordinary users from making namespaces, with the value that does.
const NO_NAMESPACES: [(&str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// Which of it there is.
pub(super) fn features(_: &Facts) -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let root = rustix::process::geteuid().is_root();
    let closed = NO_NAMESPACES.iter().find(|(path, value)| {
        std::fs::read_to_string(Path::new(path)).is_ok_and(|found| found.trim() == *value)
    });
    judge(&release, closed.filter(|_| !root).map(|(path, _)| *path))
}

fn judge(release: &str, no_namespaces: Option<&str>) -> Finding {
    let Some(version) = version(release) else {
        return Finding::Unknown(format!("'{release}' is no version of Linux that is known"));
    };
    let mut lacks: Vec<String> =
        SINCE.iter().filter(|(since, _)| version < *since).map(|(_, lack)| (*lack).to_owned()).collect();
    lacks.extend(no_namespaces.map(|setting| {
        format!("users may make no namespaces here ({setting}), which `pds run --files` needs")
    }));
    match lacks.is_empty() {
        true => Finding::Good(format!("Linux {release} has all that is made use of")),
        false => Finding::Note(format!("Linux {release}: {}", lacks.join("; "))),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_is_no_problem_and_what_it_lacks_is_told() {
        assert!(matches!(judge("6.12.5-generic", None), Finding::Good(_)));
        assert!(matches!(judge("6.5.0", None), Finding::Good(_)));
        let Finding::Note(told) = judge("6.4.9", None) else { panic!("no note") };
        assert!(told.contains("by its number alone") && !told.contains("Landlock"), "{told}");
        assert!(matches!(judge("6.12", Some("/proc/sys/user/max_user_namespaces")), Finding::Note(_)));
        assert!(matches!(judge("strange", None), Finding::Unknown(_)));
    }
}
