//! What the kernel tells about the process at the other end of a socket.

use std::os::fd::AsFd;

use core_daemon::lives;
use core_types::header::Sender;
use nix::sys::socket::{getsockopt, sockopt};

use crate::turns::Account;

/// The process that opened the connection, if it is of our own user; to others the bus does not speak. The number is
/// 0 for a process that has none in our namespace.
pub(crate) fn own_user_process(socket: impl AsFd) -> Option<Account> {
    let credentials = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    (credentials.uid() == rustix::process::geteuid().as_raw()).then(|| credentials.pid())
}

/// Who opened the connection, as far as the kernel vouches for it: user, group and, through a pidfd, the process.
pub(crate) fn sender(socket: impl AsFd, connection: u64) -> Option<Sender> {
    let credentials = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    let mut sender = Sender {
        name: None,
        connection,
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: None,
        executable: None,
        unit: None,
    };
    let pid = credentials.pid();
    if pid > 0
        && let Ok(pidfd) = getsockopt(&socket, sockopt::PeerPidfd)
    {
        let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let unit =
            std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().and_then(|text| unit_of(&text));
        // What was read by number belongs to the peer if the peer still lived afterwards.
        if lives(&pidfd) {
            sender.pid = u32::try_from(pid).ok();
            sender.executable = executable.map(|path| path.to_string_lossy().into_owned());
            sender.unit = unit;
        }
    }
    Some(sender)
}

/// Whether the process of this number opened the connection, and lives.
pub(crate) fn is_process(socket: impl AsFd, pid: u32) -> bool {
    let number = getsockopt(&socket, sockopt::PeerCredentials).map(|credentials| credentials.pid());
    // Without a pidfd from the socket, its number has to do.
    let gone = getsockopt(&socket, sockopt::PeerPidfd).is_ok_and(|pidfd| !lives(&pidfd));
    number.is_ok_and(|number| u32::try_from(number) == Ok(pid)) && !gone
}

/// The systemd unit in the text of `/proc/PID/cgroup`: the last part of the path that names one.
fn unit_of(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.rsplit('/').find(is_unit).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_end_of_a_socket_pair_is_our_process() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(own_user_process(&a), i32::try_from(std::process::id()).ok());
        let sender = sender(&a, 4).unwrap();
        assert_eq!((sender.connection, sender.pid), (4, Some(std::process::id())));
        assert_eq!(sender.name, None);
    }

    #[test]
    fn the_innermost_unit_is_taken() {
        let text = "1:name=x:/y\n0::/user.slice/user-1.slice/user@1.service/app.slice/foo.service\n";
        assert_eq!(unit_of(text).as_deref(), Some("foo.service"));
        assert_eq!(unit_of("0::/\n"), None);
    }
}
