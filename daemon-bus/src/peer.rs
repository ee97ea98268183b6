//! One connection of the bus after its handshake: its socket, its wire state, and what waits for its turn.
//!
//! Whoever has a frame for the peer seals and writes it at once; only what the socket does not take waits until there
//! is room. So reading never waits for writing.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

use core_ipc::socket::{self, LinkError, ReadBuffer, Received};
use core_ipc::wire::{Body, Connection, Frame, PublicKey, WireError};
use core_types::header::Header;
use rustix::io::ioctl_fionread;

/// A request that waits until its asker's one before it has been answered.
pub(crate) struct Held {
    pub(crate) header: Header,
    pub(crate) body: Body,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A connection after its handshake.
pub(crate) struct Peer {
    socket: OwnedFd,
    wire: Connection,
    lost_events: u64,
    /// Whether it is among those that get a turn.
    pub(crate) queued: bool,
    /// Whether the poll watches for room to write.
    pub(crate) watches_room: bool,
    /// Whether the poll tells of nothing to read, because its turn comes at another time.
    pub(crate) muted: bool,
    /// When it sent the last whole frame.
    pub(crate) last_heard: Instant,
    pub(crate) held: VecDeque<Held>,
}

impl Peer {
    pub(crate) fn new(socket: OwnedFd, wire: Connection, now: Instant) -> Self {
        Self {
            socket,
            wire,
            lost_events: 0,
            queued: false,
            watches_room: false,
            muted: false,
            last_heard: now,
            held: VecDeque::new(),
        }
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The static key that the peer proved to own.
    pub(crate) fn key(&self) -> PublicKey {
        self.wire.remote()
    }

    /// The next whole frame; reads at most once what has arrived. `None` when there is none yet: if the socket has
    /// more, the poll will say so.
    pub(crate) fn next_frame(&mut self, buffer: &mut ReadBuffer) -> Result<Option<Frame>, LinkError> {
        if let Some(frame) = self.wire.next_frame()? {
            return Ok(Some(frame));
        }
        match socket::receive(&self.socket, &mut self.wire, buffer)? {
            Received::Nothing => Ok(None),
            Received::All | Received::Part => Ok(self.wire.next_frame()?),
        }
    }

    /// Whether there may be a frame of which the poll says nothing, because it has been read.
    pub(crate) fn has_input(&self) -> bool {
        !self.wire.is_between_frames()
    }

    /// Whether it has sent something that nobody has taken.
    pub(crate) fn has_unread(&self) -> bool {
        self.has_input() || ioctl_fionread(&self.socket).is_ok_and(|bytes| bytes > 0)
    }

    /// Whether something waits until the socket has room.
    pub(crate) fn has_output(&self) -> bool {
        self.wire.pending_output() > 0
    }

    /// Sends a frame: writes what the socket takes and keeps the rest.
    pub(crate) fn send(
        &mut self,
        header: &Header,
        body: &[u8],
        descriptors: &[OwnedFd],
    ) -> Result<(), WireError> {
        self.wire.keep_fresh(Instant::now())?;
        socket::send(&self.socket, &mut self.wire, header, body, descriptors)?;
        // A broken socket shows again where it is read.
        let _ = self.flush();
        Ok(())
    }

    /// Sends an event, or counts it as lost if the peer does not read; the next one that passes tells how many were lost.
    pub(crate) fn send_event(&mut self, header: &Header, body: &[u8]) {
        let header = Header { correlation: self.lost_events, ..header.clone() };
        match self.send(&header, body, &[]) {
            Ok(()) => self.lost_events = 0,
            Err(_) => self.lost_events += 1,
        }
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<bool, LinkError> {
        socket::flush(&self.socket, &mut self.wire)
    }

    /// Bytes that the bus holds for this peer.
    pub(crate) fn bytes(&self) -> usize {
        self.wire.bytes() + self.held.iter().map(|held| held.body.len()).sum::<usize>()
    }

    /// Descriptors that the bus holds for this peer.
    pub(crate) fn descriptors(&self) -> usize {
        self.wire.descriptors() + self.held.iter().map(|held| held.descriptors.len()).sum::<usize>()
    }
}
