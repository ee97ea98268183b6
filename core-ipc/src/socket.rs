//! Moving bytes and descriptors between a `wire::Connection` and a Unix stream socket, without ever blocking,
//! and what both ends of the bus know about sockets and published keys.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use core_crypto::private_fs;
use core_types::header::Header;
use core_types::limits::DESCRIPTORS_MAX;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::error::ConnectError;
use crate::wire::{Connection, PublicKey, WireError};

/// Prologue of every connection to the bus: a client of another version fails in the handshake.
#[must_use]
pub fn prologue() -> Vec<u8> {
    format!("pds bus v{}", core_types::header::WIRE_VERSION).into_bytes()
}

/// Most bytes read by one system call.
const READ_BYTES: usize = 65_536;
/// As long as no read was filled: what most answers fit into.
const FIRST_READ_BYTES: usize = 4_096;
/// Nothing waits for room, and a closed socket is an error and not a signal.
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// The kernel passes at most 253 descriptors at once (`SCM_MAX_FD`); room for more than we take, so that none is lost unseen.
const RECEIVED_DESCRIPTORS_MAX: usize = 253;

/// A connection that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other side ended it.
    #[error("the connection was closed")]
    Closed,
    /// The other side broke the protocol.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] Errno),
}

/// Room for what one system call reads; one is enough for all connections of a thread. It has its full size from the
/// first read on that needed more: most commands get one short answer, and to touch the pages would take longer.
pub struct ReadBuffer(Box<[u8]>);

impl ReadBuffer {
    fn with(bytes: usize) -> Self {
        Self(vec![0; bytes].into_boxed_slice())
    }
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self::with(FIRST_READ_BYTES)
    }
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Nothing had arrived.
    Nothing,
    /// All that had arrived: a stream socket fills less than the buffer only when it has no more (epoll(7)).
    All,
    /// Something, and there may be more.
    Part,
}

/// Reads once what has arrived and gives it to `wire`.
///
/// # Errors
/// The connection is closed or broken.
pub fn receive(
    socket: impl AsFd,
    wire: &mut Connection,
    buffer: &mut ReadBuffer,
) -> Result<Received, LinkError> {
    let bytes = &mut *buffer.0;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RECEIVED_DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let count = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Ok(received) => break received.bytes,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    let mut with_descriptors = false;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // What was read ends where the descriptors were attached, however much follows.
            with_descriptors = true;
            wire.take_descriptors(descriptors)?;
        }
    }
    if count == 0 {
        return Err(LinkError::Closed);
    }
    wire.take_bytes(&bytes[..count]);
    let full = count == bytes.len();
    if full && count < READ_BYTES {
        *buffer = ReadBuffer::with(READ_BYTES);
    }
    Ok(if with_descriptors || full { Received::Part } else { Received::All })
}

/// Sends a frame: seals it into the pending output of `wire`, its descriptors before it. [`flush`] writes it.
///
/// The kernel refuses to pass descriptors while those of this user that are on their way, in whatever sockets, are more
/// than this process may have open (unix(7), `ETOOMANYREFS`). Any process of the user can bring that about, so it is
/// found out while the frame can still be refused.
///
/// # Errors
/// As [`Connection::send`] and [`Connection::send_behind_descriptors`]: nothing of the frame was sent.
pub fn send(
    socket: impl AsFd,
    wire: &mut Connection,
    header: &Header,
    body: &[u8],
    descriptors: &[OwnedFd],
) -> Result<(), WireError> {
    if usize::from(header.descriptors) != descriptors.len() {
        return Err(WireError::Descriptors);
    }
    if descriptors.is_empty() {
        return wire.send(header, body);
    }
    if !matches!(flush(&socket, wire), Ok(true)) {
        return Err(WireError::NotPassed);
    }
    wire.send_behind_descriptors(header, body, |byte| pass(socket, byte, descriptors))
}

/// Sends descriptors with one byte; says whether they have left.
fn pass(socket: impl AsFd, byte: u8, descriptors: &[OwnedFd]) -> bool {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return false;
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&[byte])], &mut control, SEND_FLAGS) {
            Ok(count) => return count == 1,
            Err(Errno::INTR) => {}
            // A broken socket shows again where it is read.
            Err(_) => return false,
        }
    }
}

/// Writes as much of the pending output as the socket takes; says whether all of it is gone.
///
/// # Errors
/// The connection is closed or broken.
pub fn flush(socket: impl AsFd, wire: &mut Connection) -> Result<bool, LinkError> {
    while let Some(bytes) = wire.output() {
        match rustix::net::send(&socket, bytes, SEND_FLAGS) {
            Ok(count) => wire.sent(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Reads a published public key; `None` when nobody has published it.
///
/// # Errors
/// The file is not ours, or holds no key.
pub fn published_key(path: &Path) -> Result<Option<PublicKey>, ConnectError> {
    let refuse = |reason: String| ConnectError::Key { path: path.to_owned(), reason };
    let Some(bytes) = private_fs::read_limited(path, 128).map_err(|error| refuse(error.to_string()))? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is not text".to_owned()))?;
    PublicKey::from_hex(text).map(Some).ok_or_else(|| refuse("it is not 64 hex digits".to_owned()))
}

/// The key of a service: what the bus says, if the service has published the same. So whoever lies about it has to be
/// the bus, and to write where the service writes. `None` when they differ, as they do while a daemon starts.
///
/// # Errors
/// The published key cannot be read.
pub(crate) fn agreed_key(path: &Path, by_the_bus: [u8; 32]) -> Result<Option<PublicKey>, ConnectError> {
    Ok(published_key(path)?.filter(|published| published.0 == by_the_bus))
}

/// The pause before asking again for a key that was not agreed on.
pub(crate) const KEY_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Descriptors to send with a header that names their number.
///
/// # Errors
/// There are more than a frame may carry.
pub(crate) fn count_descriptors(descriptors: &[OwnedFd]) -> Result<u8, WireError> {
    u8::try_from(descriptors.len())
        .ok()
        .filter(|n| usize::from(*n) <= DESCRIPTORS_MAX)
        .ok_or(WireError::TooLarge)
}
