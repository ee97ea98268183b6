//! A socket in an async runtime, for the daemons and the bus.
//!
//! Only its readability is watched all the time. The kernel tells a watcher of writability each time the other end has
//! read something, which would wake this process once for every frame; so that is watched only while something waits
//! to be written.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use core_types::header::Header;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::socket::{self, LinkError, ReadBuffer, Received};
use crate::wire::{Connection, WireError};

/// The socket of one connection.
pub struct Transport {
    /// Not a pipe, but watched as the reading end of one: the one kind of tokio's that is watched for reading alone.
    /// Nothing is ever read through it.
    socket: pipe::Receiver,
}

impl Transport {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        let socket = pipe::Receiver::from_owned_fd_unchecked(socket.into_std()?.into())?;
        Ok(Self { socket })
    }

    /// Waits until [`Self::receive`] may have something.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn readable(&self) -> Result<(), LinkError> {
        self.socket.readable().await.map_err(|_| LinkError::Closed)
    }

    /// Reads once what has arrived and gives it to `wire`.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub fn receive(&self, wire: &mut Connection, buffer: &mut ReadBuffer) -> Result<Received, LinkError> {
        let mut outcome = Ok(Received::Nothing);
        // The inner outcome says it all; the outer one only tells the runtime whether to wait.
        let _ = self.socket.try_io(|| {
            outcome = socket::receive(&self.socket, wire, buffer);
            match outcome {
                Ok(Received::Nothing | Received::All) => Err(io::ErrorKind::WouldBlock.into()),
                Ok(Received::Part) | Err(_) => Ok(()),
            }
        });
        outcome
    }

    /// Sends a frame: seals it into the pending output, its descriptors before it.
    ///
    /// # Errors
    /// As [`socket::send`].
    pub fn send(
        &self,
        wire: &mut Connection,
        header: &Header,
        body: &[u8],
        descriptors: &[OwnedFd],
    ) -> Result<(), WireError> {
        socket::send(&self.socket, wire, header, body, descriptors)
    }

    /// Writes as much of the pending output as the socket takes; says whether all of it is gone.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub fn flush(&self, wire: &mut Connection) -> Result<bool, LinkError> {
        socket::flush(&self.socket, wire)
    }

    /// Waits until [`Self::flush`] may get on.
    ///
    /// # Errors
    /// No descriptor is left, or the runtime is ending.
    pub async fn writable(&self) -> Result<(), LinkError> {
        // One descriptor is watched for one thing, so this is watched through another one.
        let again = self.socket.as_fd().try_clone_to_owned().map_err(|_| LinkError::Closed)?;
        let again = pipe::Sender::from_owned_fd_unchecked(again).map_err(|_| LinkError::Closed)?;
        again.writable().await.map_err(|_| LinkError::Closed)
    }
}
