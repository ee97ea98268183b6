//! The envelope header: all that the bus reads of a frame.
//!
//! A frame is this header followed by a body. The bus decodes the header, stamps the sender over whatever
//! the client wrote there, and forwards the body without looking into it.

use serde::{Deserialize, Serialize};

use crate::name::{CLI, DaemonName};
use crate::protocol::Topic;

/// Version of header and framing; part of the Noise prologue, so two versions never get to a first frame.
pub const WIRE_VERSION: u8 = 1;

/// What a frame is. The kinds cannot stand for each other: a request goes to one service, a response is
/// accepted only from the connection that was asked, an event goes to subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Asks one service; exactly one response or refusal follows.
    Request,
    /// The service's answer to the request named by `correlation`.
    Response,
    /// Published to a topic; nothing answers it.
    Event,
    /// The bus's own answer to a request that reached no answer; the body is a [`Refusal`].
    Refusal,
}

/// Where a frame goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// The one connection that registered this service.
    Service(DaemonName),
    /// Whoever subscribed to this topic.
    Topic(Topic),
    /// The connection whose request `correlation` names.
    Asker,
}

/// Whether the body is sealed end to end, in a second Noise session that the bus has no part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seal {
    /// The body is a message in clear (towards the bus).
    None,
    /// The body is a handshake message of a new sealed session.
    Handshake,
    /// The body is sealed in the session with this number, which the responder chose.
    Session(u64),
}

/// Who sent a frame, as the bus knows it: a client's own claim is overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The registered name that belongs to the connection's Noise static key; `None` for an unregistered client.
    pub name: Option<DaemonName>,
    /// Number of the connection, never used twice by one bus.
    pub connection: u64,
    /// User of the connecting process (`SO_PEERCRED`).
    pub uid: u32,
    /// Group of the connecting process.
    pub gid: u32,
    /// The connecting process, while it could be pinned; for the audit's reader, no rule uses it.
    pub pid: Option<u32>,
    /// Its executable, where it could be read; for the audit's reader, no rule uses it.
    pub executable: Option<String>,
    /// Its systemd unit, where it could be read; for the audit's reader, no rule uses it.
    pub unit: Option<String>,
}

impl Sender {
    /// The name that rules, rate limits and the audit log use for this sender.
    #[must_use]
    pub fn requester(&self) -> &str {
        self.name.as_ref().map_or(CLI, DaemonName::as_str)
    }
}

/// The header of one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Number of the frame, chosen by its sender, not 0, rising.
    pub id: u64,
    /// For responses and refusals: the `id` of the request, else 0.
    pub correlation: u64,
    /// Where it goes.
    pub destination: Destination,
    /// Number of the method at its service, for the reader of a log; the body says it again.
    pub method: u16,
    /// Stamped by the bus on requests and events; what a client writes here is dropped. An answer has none: it comes from
    /// whom was asked.
    pub sender: Option<Sender>,
    /// Milliseconds the asker is ready to wait; 0 in anything but a request.
    pub deadline_ms: u32,
    /// How many file descriptors travel with the frame.
    pub descriptors: u8,
    /// How the body is sealed.
    pub seal: Seal,
}

/// Why the bus answered a request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No connection has registered the service: the request was not delivered and may be sent again.
    #[error("the service is not running")]
    ServiceUnknown,
    /// The service's connection ended before it answered: whether the request took effect is unknown.
    #[error("the service went away before it answered")]
    ServiceGone,
    /// The service's queue, or the asker's own allowance, is full: the request was not delivered.
    #[error("too many requests are waiting")]
    Busy,
    /// The deadline passed; a later answer is dropped.
    #[error("no answer came in time")]
    Timeout,
    /// The bus could not read what it was sent, or the asker may not do this.
    #[error("the bus refused the request")]
    Forbidden,
}
