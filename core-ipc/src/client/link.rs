//! The connection of a daemon: made, kept, read, and made again when the bus went away.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use core_types::header::Kind;
use core_types::limits::HANDSHAKE_MS_MAX;
use core_types::protocol::bus::{Announce, BusDenial, Subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::{BusClient, Inbound};
use crate::error::{CallError, CallOptions, ConnectError};
use crate::seal::SealedAsker;
use crate::socket::{self, LinkError, ReadBuffer, Received};
use crate::transport::Transport;
use crate::wire::noise::{Initiator, MESSAGE_2_BYTES};
use crate::wire::{Connection, Frame, WireError};

/// Shortest and longest wait between two attempts to connect.
const BACKOFF_MS: (u64, u64) = (20, 2_000);
/// The connection, while there is one.
pub(super) enum Link {
    Down,
    Up(Box<UpLink>),
}

/// A standing connection and who waits for what on it.
pub(super) struct UpLink {
    pub(super) transport: Arc<Transport>,
    pub(super) wire: Connection,
    /// Whether the bus knows this daemon by its name.
    pub(super) registered: bool,
    pub(super) next_id: u64,
    pub(super) pending: HashMap<u64, oneshot::Sender<Frame>>,
    pub(super) sealed: HashMap<&'static str, SealedAsker>,
}

impl UpLink {
    /// Writes what the socket takes; says whether that was all.
    pub(super) fn flush(&mut self) -> Result<bool, LinkError> {
        self.transport.flush(&mut self.wire)
    }
}

impl BusClient {
    /// Keeps a connection to the bus until nobody takes what comes in.
    pub(super) async fn keep_connected(self, inbound: mpsc::Sender<Inbound>) {
        let mut backoff_ms = BACKOFF_MS.0;
        while !inbound.is_closed() {
            match self.connect().await {
                Ok(()) => {
                    backoff_ms = BACKOFF_MS.0;
                    let this = self.clone();
                    let inbound_now = inbound.clone();
                    let registering = tokio::spawn(async move { this.register(&inbound_now).await });
                    let end = self.read_until_end(&inbound).await;
                    registering.abort();
                    *self.shared.lock() = Link::Down;
                    tracing::info!(%end, "the connection to the bus ended");
                }
                Err(error) => tracing::debug!(%error, "no connection to the bus yet"),
            }
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        }
    }

    async fn connect(&self) -> Result<(), ConnectError> {
        let paths = &self.shared.connector.paths;
        let key = socket::published_key(&paths.bus_public_key())?
            .ok_or_else(|| ConnectError::NoBus { path: paths.bus_socket() })?;
        let socket = crate::blocking::connect(&paths.bus_socket())?;
        let failed = |_| ConnectError::Handshake;
        socket.set_nonblocking(true).map_err(failed)?;
        let mut socket = UnixStream::from_std(socket).map_err(failed)?;
        let limit = Duration::from_millis(HANDSHAKE_MS_MAX);
        let session = tokio::time::timeout(limit, async {
            let (initiator, message) = Initiator::start(&self.shared.identity, key, &socket::prologue())
                .map_err(|_| ConnectError::Handshake)?;
            socket.write_all(&message).await.map_err(failed)?;
            let mut reply = [0; MESSAGE_2_BYTES];
            socket.read_exact(&mut reply).await.map_err(failed)?;
            initiator.finish(&reply).map_err(|_| ConnectError::Handshake)
        })
        .await
        .map_err(|_| ConnectError::TimedOut(limit))??;
        let transport = Transport::new(socket).map_err(failed)?;
        *self.shared.lock() = Link::Up(Box::new(UpLink {
            transport: Arc::new(transport),
            wire: Connection::new(session, &[]),
            registered: false,
            next_id: 1,
            pending: HashMap::new(),
            sealed: HashMap::new(),
        }));
        self.shared.came_up.notify_waiters();
        Ok(())
    }

    /// Takes up the name and the topics on a fresh connection.
    async fn register(&self, inbound: &mpsc::Sender<Inbound>) {
        let connector = &self.shared.connector;
        let announce = Announce { name: connector.name.clone(), version: connector.version.clone() };
        // The name may still belong to a connection whose end the bus has not seen yet, or the bus may not have been
        // told yet that this is the process that may take it.
        let mut backoff_ms = BACKOFF_MS.0;
        while let Err(error) = self.announce(&announce).await {
            tracing::warn!(%error, "the bus does not register this daemon");
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        }
        if let Link::Up(link) = &mut *self.shared.lock() {
            link.registered = true;
        }
        self.shared.came_up.notify_waiters();
        for topic in &connector.topics {
            if let Err(error) = self.call(&Subscribe { topic: *topic }).await {
                tracing::error!(%error, ?topic, "the bus refused a subscription");
            }
        }
        // A full queue means the daemon is busy with requests, so it is connected and knows it.
        drop(inbound.try_send(Inbound::Connected));
    }

    async fn announce(&self, announce: &Announce) -> Result<(), CallError<BusDenial>> {
        let shown = self.shared.connector.name_socket.as_ref().map(OwnedFd::try_clone).transpose();
        let descriptors = shown.map_err(|_| WireError::Descriptors)?.into_iter().collect();
        self.call_with(announce, CallOptions { descriptors, ..CallOptions::default() }).await
    }

    async fn read_until_end(&self, inbound: &mpsc::Sender<Inbound>) -> LinkError {
        let transport = match &*self.shared.lock() {
            Link::Up(link) => Arc::clone(&link.transport),
            Link::Down => return LinkError::Closed,
        };
        let mut buffer = ReadBuffer::default();
        loop {
            let waiting = matches!(&*self.shared.lock(), Link::Up(link) if link.wire.pending_output() > 0);
            let result = tokio::select! {
                ready = transport.readable() => ready.and_then(|()| self.read_some(&mut buffer, inbound)),
                ready = transport.writable(), if waiting => ready.and_then(|()| self.flush_some()),
                // Something was left to write, so that has to be waited for now.
                () = self.shared.must_flush.notified() => Ok(()),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn flush_some(&self) -> Result<(), LinkError> {
        let Link::Up(link) = &mut *self.shared.lock() else { return Err(LinkError::Closed) };
        link.flush().map(|_| ())
    }

    fn read_some(&self, buffer: &mut ReadBuffer, inbound: &mpsc::Sender<Inbound>) -> Result<(), LinkError> {
        loop {
            let mut frames = Vec::new();
            let received = {
                let Link::Up(link) = &mut *self.shared.lock() else { return Err(LinkError::Closed) };
                let received = link.transport.receive(&mut link.wire, buffer)?;
                while let Some(frame) = link.wire.next_frame()? {
                    match frame.header.kind {
                        Kind::Response | Kind::Refusal => {
                            if let Some(asker) = link.pending.remove(&frame.header.correlation) {
                                drop(asker.send(frame));
                            }
                        }
                        Kind::Request | Kind::Event => frames.push(frame),
                    }
                }
                received
            };
            for frame in frames {
                self.take_inbound(frame, inbound);
            }
            if received != Received::Part {
                return Ok(());
            }
        }
    }
}
