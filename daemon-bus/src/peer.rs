//! One connection of the bus: its socket, its wire state, and the one task that moves bytes between them.
//!
//! Whoever has a frame for the peer seals and writes it at once; only what the socket does not take waits for the
//! peer's own task. So no frame waits for a task to be scheduled, and reading never waits for writing.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use core_ipc::socket::{self, LinkError};
use core_ipc::wire::{Connection, Frame, PublicKey, WireError};
use core_types::header::Header;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Reads of one peer before others get their turn.
const READS_PER_TURN: usize = 16;

/// A connection after its handshake.
pub(crate) struct Peer {
    socket: UnixStream,
    wire: RefCell<Connection>,
    must_flush: Notify,
    must_close: Notify,
    lost_events: Cell<u64>,
}

impl Peer {
    pub(crate) fn new(socket: UnixStream, wire: Connection) -> Rc<Self> {
        Rc::new(Self {
            socket,
            wire: RefCell::new(wire),
            must_flush: Notify::new(),
            must_close: Notify::new(),
            lost_events: Cell::new(0),
        })
    }

    /// The static key that the peer proved to own.
    pub(crate) fn key(&self) -> PublicKey {
        self.wire.borrow().remote()
    }

    /// Sends a frame: writes what the socket takes and leaves the rest to the peer's task.
    pub(crate) fn send(
        &self,
        header: &Header,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), WireError> {
        self.wire.borrow_mut().send(header, body, descriptors)?;
        // A broken socket shows again where it is read.
        if !matches!(self.flush(), Ok(true)) {
            self.must_flush.notify_one();
        }
        Ok(())
    }

    /// Sends an event, or counts it as lost if the peer does not read; the next one that passes tells how many were lost.
    pub(crate) fn send_event(&self, header: &Header, body: &[u8]) {
        let header = Header { correlation: self.lost_events.get(), ..header.clone() };
        match self.send(&header, body, Vec::new()) {
            Ok(()) => self.lost_events.set(0),
            Err(_) => self.lost_events.set(self.lost_events.get() + 1),
        }
    }

    /// Makes the peer's task end.
    pub(crate) fn close(&self) {
        self.must_close.notify_one();
    }

    fn flush(&self) -> Result<bool, LinkError> {
        let mut outcome = Ok(false);
        // The inner outcome says it all; the outer one only tells the runtime whether to wait.
        let _ = self.socket.try_io(Interest::WRITABLE, || {
            outcome = socket::flush(&self.socket, &mut self.wire.borrow_mut());
            if matches!(outcome, Ok(false)) { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        outcome
    }

    fn receive(&self) -> Result<bool, LinkError> {
        let mut outcome = Ok(false);
        let _ = self.socket.try_io(Interest::READABLE, || {
            outcome = socket::receive(&self.socket, &mut self.wire.borrow_mut());
            if matches!(outcome, Ok(false)) { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        outcome
    }

    /// Moves bytes until the connection ends; gives each frame that arrives to `take`.
    pub(crate) async fn run(&self, take: impl Fn(Frame)) -> LinkError {
        loop {
            let waiting = self.wire.borrow().pending_output() > 0;
            let interest = if waiting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let turn = tokio::select! {
                ready = self.socket.ready(interest) => self.turn(ready, &take),
                // Something was left to write: the interest is another one now.
                () = self.must_flush.notified() => Ok(()),
                () = self.must_close.notified() => Err(LinkError::Closed),
            };
            if let Err(end) = turn {
                return end;
            }
        }
    }

    fn turn(&self, ready: std::io::Result<tokio::io::Ready>, take: &impl Fn(Frame)) -> Result<(), LinkError> {
        let ready = ready.map_err(|_| LinkError::Closed)?;
        if ready.is_writable() {
            self.flush()?;
        }
        if ready.is_readable() {
            self.read_turn(take)?;
        }
        Ok(())
    }

    fn read_turn(&self, take: &impl Fn(Frame)) -> Result<(), LinkError> {
        for _ in 0..READS_PER_TURN {
            if !self.receive()? {
                break;
            }
            loop {
                let frame = self.wire.borrow_mut().next_frame()?;
                match frame {
                    Some(frame) => take(frame),
                    None => break,
                }
            }
        }
        Ok(())
    }
}
