//! Whether a caller is confined: then nothing is started for it, because what the launcher starts would not be.
//!
//! Three looks. What the kernel shows of the caller to everyone is read by its number, which is that of the process that
//! made the control socket and lives. What it shows only to some (most namespaces of a process that is not dumpable, as
//! `pds` is not) the caller says itself. And what no file shows, a Landlock domain above all, the caller disproves: it
//! says what only a process can read that may look into others of its user, the witness among them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use core_crypto::digest;
use core_daemon::lives;
use core_ipc::namespaces::{self, NAMESPACES};
use core_types::header::Sender;
use core_types::protocol::launcher::{LauncherDenial, Standing};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What a process is like that is not confined: the spawner, from which all children come.
#[derive(Debug)]
pub(crate) struct Free {
    /// What the kernel shows of it.
    pub(crate) facts: Facts,
    /// Its namespaces and its root directory, as numbers.
    pub(crate) namespaces: Vec<u64>,
    /// What the witness shows to it.
    pub(crate) word: String,
}

/// Refuses a caller that is more confined than `free`; `control` is the socket that the caller made for the child.
///
/// # Errors
/// The caller is confined, or it cannot be told whether it is.
pub(crate) fn refuse_confined(
    standing: &Standing,
    sender: &Sender,
    control: &OwnedFd,
    free: &Free,
) -> Result<(), LauncherDenial> {
    let confined = |reason: &str| Err(LauncherDenial::Confined(reason.to_owned()));
    let Some((number, process)) = caller(sender, control) else {
        return confined("its process cannot be told");
    };
    let caller = Facts::of(&number);
    let seen = namespaces::of(&number);
    // What was read by number is the caller's if it still lives.
    let (Ok(caller), true) = (caller, lives(&process)) else {
        return confined("its process cannot be looked at");
    };
    if let Some(reason) = caller.beyond(&free.facts) {
        return confined(reason);
    }
    if let Some(kind) = foreign(&seen, &standing.namespaces, &free.namespaces) {
        return confined(&format!("its {kind} is another one"));
    }
    // By their hashes, whose comparison tells nothing of the word.
    if digest(standing.witness.expose()) != digest(free.word.as_bytes()) {
        return confined("it may not look at other processes of its user, as in a Landlock domain");
    }
    Ok(())
}

/// The process that made the control socket, by number and descriptor, if the bus had the request from it.
fn caller(sender: &Sender, control: impl AsFd) -> Option<(String, OwnedFd)> {
    let number = getsockopt(&control, sockopt::PeerCredentials).ok()?.pid();
    let pid = Pid::from_raw(number)?;
    let process = match getsockopt(&control, sockopt::PeerPidfd) {
        Err(nix::Error::ENOPROTOOPT) => {
            // Before Linux 6.5 the number has to do, for the bus as well.
            return pidfd_open(pid, PidfdFlags::empty()).ok().map(|process| (number.to_string(), process));
        }
        process => process.ok()?,
    };
    (sender.pid == u32::try_from(number).ok()).then(|| (number.to_string(), process))
}

/// What the kernel shows of a process to everyone (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    no_new_privs: bool,
    /// Mode of seccomp(2), and the number of filters.
    seccomp: (u32, u32),
    /// The groups it is in.
    groups: BTreeSet<u32>,
    /// What it may at most, by itself and through what it executes: the permitted and the bounding set of
    /// capabilities(7).
    capabilities: [u64; 2],
    /// How many pid namespaces it is in, counted from ours.
    depth: usize,
    user_map: String,
    /// A number that every network namespace has for itself.
    network: u64,
}

impl Facts {
    /// Those of a process, by its number or `self`.
    pub(crate) fn of(process: &str) -> io::Result<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}"));
        let status = read("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let numbers =
            |name: &str| field(name).unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>);
        let set = |name: &str| u64::from_str_radix(field(name).unwrap_or_default(), 16).unwrap_or(0);
        Ok(Self {
            no_new_privs: number("NoNewPrivs") != 0,
            seccomp: (number("Seccomp"), number("Seccomp_filters")),
            groups: numbers("Groups").chain(numbers("Gid")).collect(),
            capabilities: [set("CapPrm"), set("CapBnd")],
            depth: field("NSpid").map_or(1, |numbers| numbers.split_whitespace().count()),
            user_map: read("uid_map")?,
            network: std::fs::metadata(format!("/proc/{process}/net/dev"))?.ino(),
        })
    }

    /// What holds this process back and not the other.
    fn beyond(&self, other: &Self) -> Option<&'static str> {
        if self.no_new_privs && !other.no_new_privs {
            return Some("it runs with no_new_privs");
        }
        if self.seccomp > other.seccomp {
            return Some("it runs under a seccomp filter");
        }
        if !other.groups.is_subset(&self.groups) {
            return Some(
                "it is not in all groups that its program would get (pds daemon restart gives those of this shell)",
            );
        }
        if self.capabilities.iter().zip(other.capabilities).any(|(own, others)| others & !own != 0) {
            return Some("it lacks capabilities that it would get");
        }
        let namespace = [
            (self.user_map != other.user_map, "its user namespace is another one"),
            (self.depth != other.depth, "its pid namespace is another one"),
            (self.network != other.network, "its net namespace is another one"),
        ];
        namespace.into_iter().find_map(|(differs, reason)| differs.then_some(reason))
    }
}

/// The first namespace that is not the spawner's, or the root directory: as seen from here, and where nothing is, as shown.
fn foreign(seen: &[u64], shown: &[u64], free: &[u64]) -> Option<String> {
    let kinds = NAMESPACES.iter().map(|kind| format!("{kind} namespace"));
    kinds.chain(["root directory".to_owned()]).enumerate().find_map(|(place, kind)| {
        let at = |numbers: &[u64]| numbers.get(place).copied().unwrap_or(0);
        let caller = if at(seen) == 0 { at(shown) } else { at(seen) };
        (caller != at(free)).then_some(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::WireSecret;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn sender(pid: Option<u32>) -> Sender {
        Sender { name: None, connection: 1, uid: 0, gid: 0, pid, executable: None, unit: None }
    }

    fn control() -> OwnedFd {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap().0
    }

    fn standing(word: &str) -> Standing {
        let witness = WireSecret::new(word.as_bytes().to_vec());
        Standing { witness, namespaces: namespaces::of("self") }
    }

    #[test]
    fn our_own_process_is_not_confined_and_another_word_number_or_socket_is_refused() {
        let own = Some(std::process::id());
        let facts = Facts::of("self").unwrap();
        let free = Free { facts, namespaces: namespaces::of("self"), word: "word".to_owned() };
        let refused =
            |shown: &Standing, pid| refuse_confined(shown, &sender(pid), &control(), &free).is_err();
        assert!(!refused(&standing("word"), own));
        assert!(refused(&standing("other"), own));
        assert!(refused(&standing(""), own));
        assert!(refused(&standing("word"), Some(1)));
        assert!(refused(&standing("word"), None));
        let no_socket = std::fs::File::open("/dev/null").unwrap().into();
        assert!(refuse_confined(&standing("word"), &sender(own), &no_socket, &free).is_err());
    }

    #[test]
    fn what_holds_the_caller_back_and_not_the_launcher_is_named() {
        let own = Facts::of("self").unwrap();
        assert_eq!(own.beyond(&own), None);
        let free = Facts { no_new_privs: false, seccomp: (0, 0), ..own };
        for (confined, word) in [
            (Facts { no_new_privs: true, ..free.clone() }, "no_new_privs"),
            (Facts { seccomp: (2, 1), ..free.clone() }, "seccomp"),
            (Facts { depth: 2, ..free.clone() }, "pid"),
            (Facts { user_map: "0 1000 1".to_owned(), ..free.clone() }, "user"),
            (Facts { network: 1, ..free.clone() }, "net"),
            (Facts { groups: BTreeSet::new(), ..free.clone() }, "groups"),
            (Facts { capabilities: [free.capabilities[0], 0], ..free.clone() }, "capabilities"),
        ] {
            assert!(confined.beyond(&free).is_some_and(|reason| reason.contains(word)), "{word}");
        }
        let both = Facts { no_new_privs: true, seccomp: (2, 1), ..free.clone() };
        assert_eq!(both.beyond(&both), None);
        let mut more = free.clone();
        more.groups.insert(u32::MAX);
        assert_eq!(more.beyond(&free), None, "it would have less and not more");
        assert!(free.beyond(&more).is_some());
        assert!(Facts { seccomp: (2, 2), ..both.clone() }.beyond(&both).is_some());
    }

    #[test]
    fn a_namespace_is_taken_as_seen_and_where_it_is_not_as_shown() {
        let own = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let unseen = [0; 9];
        assert_eq!(foreign(&own, &own, &own), None);
        assert_eq!(foreign(&unseen, &own, &own), None);
        assert_eq!(foreign(&own, &unseen, &own), None);
        let other = [1, 9, 3, 4, 5, 6, 7, 8, 9];
        for (seen, shown) in [(other, own), (unseen, other)] {
            assert_eq!(foreign(&seen, &shown, &own).as_deref(), Some("mnt namespace"));
        }
        let root = [1, 2, 3, 4, 5, 6, 7, 8, 10];
        assert_eq!(foreign(&unseen, &root, &own).as_deref(), Some("root directory"));
        assert!(foreign(&unseen, &[], &own).is_some());
    }
}
