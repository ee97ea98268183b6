//! What comes in from the bus: requests are opened here, before the daemon sees them.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use core_types::header::{Destination, Kind, Seal, Sender};
use core_types::name::{DaemonName, is_own};
use core_types::protocol::Topic;
use tokio::sync::mpsc;

use super::{BusClient, ignore_poison};
use crate::enrolled::EnrolledDaemons;
use crate::socket;
use crate::wire::{Body, Frame, PublicKey};

/// What comes in from the bus.
pub enum Inbound {
    /// The daemon is asked.
    Request(InboundRequest),
    /// Something was published.
    Event {
        /// On which topic.
        topic: Topic,
        /// By whom.
        sender: Sender,
        /// What.
        body: Body,
    },
    /// The connection stands and the daemon is registered: after the start, and after each restart of the bus.
    Connected,
}

/// A request as it reached the daemon, opened if it was sealed.
pub struct InboundRequest {
    /// Who asks, as stamped by the bus, and for sealed requests as proved by its key.
    pub sender: Sender,
    /// The encoded request.
    pub body: Body,
    /// Descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    /// When the asker stops waiting.
    pub deadline: Instant,
    id: u64,
    sealed: Option<(u64, u64)>,
}

/// What is left of a request when its content has been taken out: enough to answer it.
#[derive(Debug)]
pub struct RequestTicket {
    pub(super) id: u64,
    pub(super) sealed: Option<(u64, u64)>,
}

impl InboundRequest {
    /// The ticket to answer it by.
    #[must_use]
    pub fn ticket(&self) -> RequestTicket {
        RequestTicket { id: self.id, sealed: self.sealed }
    }
}

impl BusClient {
    pub(super) fn take_inbound(&self, mut frame: Frame, inbound: &mpsc::Sender<Inbound>) {
        let Some(sender) = frame.header.sender.take() else { return };
        let item = match (&frame.header.kind, &frame.header.destination) {
            (Kind::Event, Destination::Topic(topic)) => {
                Some(Inbound::Event { topic: *topic, sender, body: frame.body })
            }
            (Kind::Request, _) => self.open_request(frame, sender).map(Inbound::Request),
            _ => None,
        };
        if let Some(item) = item
            && inbound.try_send(item).is_err()
        {
            tracing::warn!(
                "more requests are waiting than this daemon keeps; one was dropped and will time out"
            );
        }
    }

    /// Opens a request's seal, or answers at once what is not for the daemon behind it.
    fn open_request(&self, frame: Frame, sender: Sender) -> Option<InboundRequest> {
        let id = frame.header.id;
        let mut sessions = ignore_poison(self.shared.answering.lock());
        let (body, sealed) = match frame.header.seal {
            Seal::None if !self.shared.connector.sealed => (frame.body, None),
            Seal::Handshake => {
                let answer: Option<Vec<u8>> = self
                    .claimed_key(&sender)
                    .and_then(|claimed| sessions.accept(&self.shared.identity, claimed, &frame.body).ok());
                self.send_response(id, Seal::Handshake, &answer.unwrap_or_default());
                return None;
            }
            Seal::Session(number) => match sessions.open(number, &frame.body) {
                Some(Ok(request)) if request.name == sender.name => {
                    (request.plaintext, Some((number, request.nonce)))
                }
                _ => {
                    self.send_response(id, Seal::None, &[]);
                    return None;
                }
            },
            Seal::None => {
                self.send_response(id, Seal::None, &[]);
                return None;
            }
        };
        let deadline = Instant::now() + Duration::from_millis(frame.header.deadline_ms.into());
        Some(InboundRequest { sender, body, descriptors: frame.descriptors, deadline, id, sealed })
    }

    /// The name the bus stamped, with the key that the name belongs to: the one that a daemon of ours has published, or
    /// the one that the user enrolled. `None` when a name was stamped that has no key.
    fn claimed_key(&self, sender: &Sender) -> Option<Option<(DaemonName, PublicKey)>> {
        let Some(name) = &sender.name else { return Some(None) };
        let paths = &self.shared.connector.paths;
        let key = match is_own(name.as_str()) {
            true => socket::published_key(&paths.public_key(name.as_str())).ok()??,
            false => EnrolledDaemons::read(&paths.enrolled()).ok()?.key_of(name)?,
        };
        Some(Some((name.clone(), key)))
    }
}
