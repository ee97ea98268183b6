//! Which namespaces and which root directory a process has, as numbers that can be compared (namespaces(7)).

use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The kinds that are looked at, as proc(5) names them.
pub const NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

/// The numbers of a process's namespaces, in the order of [`NAMESPACES`], and at last of its root directory; `process` is
/// its number or `self`. 0 is what the kernel does not have or does not show.
#[must_use]
pub fn of(process: &str) -> Vec<u64> {
    let mut numbers = Vec::with_capacity(NAMESPACES.len() + 1);
    for kind in NAMESPACES {
        numbers.push(match namespace(&format!("/proc/{process}/ns/{kind}")) {
            // The same question decides about all of them: whether it may be looked into the process (proc(5)).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return vec![0; NAMESPACES.len() + 1];
            }
            found => found.unwrap_or(0),
        });
    }
    numbers.push(std::fs::metadata(format!("/proc/{process}/root")).map_or(0, |root| root.ino()));
    numbers
}

/// The number of a namespace, which is told by the text of its link, such as `mnt:[4026531841]`: to follow that takes the
/// kernel several times as long.
fn namespace(link: &str) -> io::Result<u64> {
    let text = std::fs::read_link(link)?;
    let number = text.to_str().and_then(|text| text.split_once(":[")?.1.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
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
        for (kind, number) in NAMESPACES.iter().zip(&found) {
            let followed = std::fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |place| place.ino());
            assert_eq!(*number, followed, "{kind}");
        }
        assert!(of("0").iter().all(|number| *number == 0));
    }
}
