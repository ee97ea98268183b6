//! What the launcher, the monitor and the stage of one child say to each other, and how descriptors travel with it.
//!
//! All three are the same executable, so the messages need no versions. A message is its length (4 bytes, little
//! endian) and its postcard bytes; descriptors travel with the length.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use core_types::WireSecret;
use core_types::limits::SECRET_DESCRIPTORS_MAX;
use core_types::protocol::launcher::{Inherited, OsBytes, ResourceLimit};
use core_types::protocol::profile::ChildExit;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Largest message, in bytes: what a request and a batch of secrets together can be, twice.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Most descriptors with one message: those of a stage.
const DESCRIPTORS_MAX: usize = 5 + SECRET_DESCRIPTORS_MAX;

/// From the spawner to the launcher, once: the processes that it is and has made, and its namespaces, which it alone can tell.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Beginning {
    pub(crate) spawner: u32,
    pub(crate) witness: u32,
    pub(crate) namespaces: Vec<u64>,
    /// Whether files can be laid over a folder for one program alone.
    pub(crate) lays_over: bool,
}

/// From the launcher to a monitor. Descriptors: the stage's socket, the control socket and, with `terminal`, the
/// pseudo-terminal's slave.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MonitorPlan {
    pub(crate) terminal: bool,
    /// A folder of files that is to go with the child.
    pub(crate) folder: Option<String>,
}

/// From a monitor to the launcher: the stage exists and its plan can be sent, or why not, and at last how the child ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum MonitorReport {
    Ready {
        pid: u32,
    },
    Failed(StepError),
    /// After `Ready`, the last: how the child ended.
    Ended(ChildExit),
}

/// From the launcher to a stage. Descriptors: standard input, output and error, the working directory, the secrets that the
/// program gets as open files, and the program's own file if it is executed from there.
#[derive(Debug, Serialize, Deserialize)]
pub struct StagePlan {
    /// The program and its arguments.
    pub arguments: Vec<OsBytes>,
    /// Its environment, as `NAME=value`.
    pub environment: Vec<OsBytes>,
    /// Its umask.
    pub umask: u32,
    /// Its resource limits.
    pub limits: Vec<ResourceLimit>,
    /// What else it takes over from the caller.
    pub inherited: Inherited,
    /// The files that it alone sees.
    pub files: Option<SecretFiles>,
    /// Whether it is executed from a descriptor, which is the last one, and not from where its first argument leads.
    pub has_image: bool,
}

/// Files that a child alone sees.
#[derive(Debug, Serialize, Deserialize)]
pub struct SecretFiles {
    /// The folder over which they are laid.
    pub folder: String,
    /// Whether the folder is made instead, where other processes of the user can see it: nothing can be laid over any.
    pub exposed: bool,
    /// The user and group they belong to, if not the child's.
    pub owner: Option<(u32, u32)>,
    /// Their names, relative to the folder, and values.
    pub files: Vec<(String, WireSecret)>,
}

/// From a stage to the launcher. After `Executing` the socket's end says that the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum StageReport {
    Executing,
    Failed(StepError),
}

/// What a monitor or a stage was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Step {
    /// Reading its plan.
    #[error("reading the plan")]
    Plan,
    /// Getting rid of what it inherited.
    #[error("preparing the process")]
    Prepare,
    /// Becoming leader of a session.
    #[error("opening a session")]
    Session,
    /// Making the pseudo-terminal the session's.
    #[error("taking the terminal")]
    Terminal,
    /// Starting the stage.
    #[error("starting the child's process")]
    Stage,
    /// Changing to the caller's directory.
    #[error("changing to the working directory")]
    Directory,
    /// Laying secrets over a folder as files.
    #[error("making the files of secrets that only the child sees")]
    Files,
    /// Setting a resource limit.
    #[error("setting the resource limits")]
    Limits,
    /// Executing the program.
    #[error("executing the command")]
    Execute,
}

/// A step and the error of the operating system it ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {}", io::Error::from_raw_os_error(*.errno))]
pub struct StepError {
    /// What was being done.
    pub step: Step,
    /// How it failed (errno(3)).
    pub errno: i32,
}

impl StepError {
    pub(crate) fn new(step: Step, error: impl Into<io::Error>) -> Self {
        Self { step, errno: error.into().raw_os_error().unwrap_or(Errno::IO.raw_os_error()) }
    }

    /// Names the step of an error.
    pub(crate) fn at<E: Into<io::Error>>(step: Step) -> impl FnOnce(E) -> Self {
        move |error| Self::new(step, error)
    }
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Sends one message with its descriptors. The encoded bytes are wiped afterwards.
pub(crate) fn send<T: Serialize>(
    mut socket: &UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let size = postcard::experimental::serialized_size(message).map_err(|_| malformed())?;
    if size > MESSAGE_BYTES_MAX {
        return Err(Errno::TOOBIG.into());
    }
    let mut body = Zeroizing::new(vec![0; size]);
    postcard::to_slice(message, &mut body).map_err(|_| malformed())?;
    let length = u32::try_from(size).map_err(|_| malformed())?.to_le_bytes();

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(malformed());
    }
    let length_slice = [IoSlice::new(&length)];
    let sent = retry_on_intr(|| sendmsg(socket, &length_slice, &mut ancillary, SendFlags::NOSIGNAL))?;
    socket.write_all(&length[sent..])?;
    socket.write_all(&body)
}

/// How a child ended, from all that its monitor said after it was ready.
pub(crate) fn last_word(said: &[u8]) -> Option<ChildExit> {
    let (length, body) = said.split_first_chunk()?;
    let is_whole = usize::try_from(u32::from_le_bytes(*length)).is_ok_and(|length| length == body.len());
    match postcard::take_from_bytes(body) {
        Ok((MonitorReport::Ended(exit), [])) if is_whole => Some(exit),
        _ => None,
    }
}

/// Receives one message and its descriptors, all close-on-exec.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // A socket with a timeout is interrupted by any signal, whatever its handler says (signal(7)).
    let first = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if first.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptors = descriptors_of(&mut ancillary);

    socket.read_exact(&mut length[first.bytes..])?;
    let size = usize::try_from(u32::from_le_bytes(length)).map_err(|_| malformed())?;
    if size > MESSAGE_BYTES_MAX {
        return Err(malformed());
    }
    let mut body = Zeroizing::new(vec![0; size]);
    socket.read_exact(&mut body)?;
    match postcard::take_from_bytes(&body) {
        Ok((message, [])) => Ok((message, descriptors)),
        _ => Err(malformed()),
    }
}

/// The descriptors that came with a message.
pub(crate) fn descriptors_of(ancillary: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    rights.flatten().collect()
}
