//! `daemon-bus --standby`: a process that starts a new supervisor when its bus asks for one. The bus itself is in a
//! sandbox that starts nothing, and whatever it started would be in it too.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use core_daemon::process::{EXIT_ALREADY_RUNNING, begin, report};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::supervise::SUCCEEDING;

/// The argument that makes the executable a standby, whose standard input leads to its bus.
pub(crate) const STANDBY: &str = "--standby";
const NAME: &str = "standby";
/// A request: how long to wait before the start, in milliseconds, the lowest byte first; the socket comes with it.
const REQUEST_BYTES: usize = 8;

/// The bus's side.
#[derive(Debug)]
pub(crate) struct Standby(UnixStream);

impl Standby {
    /// Starts the standby of this bus, with which it ends.
    pub(crate) fn start() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Command::new(std::env::current_exe()?)
            .arg(STANDBY)
            .env_remove("NOTIFY_SOCKET")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self(ours))
    }

    /// Has a supervisor started after a while, with `socket` as its way to the bus.
    pub(crate) fn replace_supervisor(&self, socket: &UnixStream, after: Duration) -> io::Result<()> {
        tracing::warn!("the supervisor is gone; a new one is started");
        let request = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).to_le_bytes();
        let descriptors = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(&request)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// The whole life of a standby.
pub(crate) fn main() -> ExitCode {
    if let Err(error) = begin(NAME, false) {
        return report(NAME, &error);
    }
    let bus = std::io::stdin();
    loop {
        match next_request(&bus) {
            Ok(Some((after, socket))) => match start_supervisor(&bus, &socket, after) {
                Ok(true) => {}
                Ok(false) => return ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(%error, "no new supervisor could be started; what dies from now on stays dead");
                }
            },
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "the bus is not understood");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// What the bus asks for next, or `None` when it has ended.
fn next_request(bus: &io::Stdin) -> io::Result<Option<(Duration, OwnedFd)>> {
    let mut request = [0; REQUEST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        recvmsg(bus, &mut [IoSliceMut::new(&mut request)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let socket = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let socket = socket.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((Duration::from_millis(u64::from_le_bytes(request)), socket)))
}

/// Starts supervisors until one has begun its work and ended; `false` when the bus has ended.
fn start_supervisor(bus: &io::Stdin, socket: &OwnedFd, after: Duration) -> io::Result<bool> {
    loop {
        std::thread::sleep(after);
        let mut supervisor = Command::new(std::env::current_exe()?)
            .args(["--supervise", SUCCEEDING])
            .stdin(socket.try_clone()?)
            .stdout(Stdio::null())
            .spawn()?;
        if !ends_before(&supervisor, bus)? {
            return Ok(false);
        }
        // When it has ended, the socket ends, and the bus asks for another one. But if the one before it has not quite
        // gone, this was too early; and one that someone else has started ends this bus.
        if supervisor.wait()?.code() != Some(i32::from(EXIT_ALREADY_RUNNING)) {
            return Ok(true);
        }
    }
}

/// Whether the supervisor ends, or is about to, before the bus does.
fn ends_before(supervisor: &Child, bus: &io::Stdin) -> io::Result<bool> {
    let number =
        i32::try_from(supervisor.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let supervisor = pidfd_open(number, PidfdFlags::empty())?;
    let mut both = [PollFd::new(&supervisor, PollFlags::IN), PollFd::new(bus, PollFlags::IN)];
    retry_on_intr(|| poll(&mut both, None))?;
    let bus_says = both[1].revents();
    // A word of the bus, and not its end, is about this supervisor's having gone.
    Ok(!both[0].revents().is_empty() || !bus_says.contains(PollFlags::HUP))
}
