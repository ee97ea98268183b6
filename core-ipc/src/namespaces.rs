//! Which namespaces and which root directory a process has, as numbers that can be compared (namespaces(7)).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

/// The kinds that are looked at, as proc(5) names them.
pub const NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

/// The numbers of a process's namespaces, in the order of [`NAMESPACES`], and at last of its root directory; `process` is
/// its number or `self`. 0 is what the kernel does not have or does not show.
#[must_use]
pub fn of(process: &str) -> Vec<u64> {
    let places = NAMESPACES.iter().map(|kind| format!("ns/{kind}")).chain(["root".to_owned()]);
    let mut hidden = false;
    let number = |place| {
        // The same question decides about all of them: whether it may be looked into the process (proc(5)).
        if hidden {
            return 0;
        }
        let found = std::fs::metadata(format!("/proc/{process}/{place}"));
        hidden = found.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        found.map_or(0, |found| found.ino())
    };
    places.map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_namespace_of_each_kind_and_a_root_and_keeps_them() {
        let found = of("self");
        assert_eq!(found.len(), NAMESPACES.len() + 1);
        assert!(found[..7].iter().all(|number| *number != 0));
        assert_eq!(found, of(&std::process::id().to_string()));
        assert!(of("0").iter().all(|number| *number == 0));
    }
}
