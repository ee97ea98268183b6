//! Calls that the bus itself answers, and the event it publishes.

use serde::{Deserialize, Serialize};

use super::{Topic, service};
use crate::name::{BUS, DaemonName};

/// Says that the caller is ready to serve under a name: one of our own daemons' names if the supervisor started it,
/// another one if it owns the key published for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Announce {
    /// The name.
    pub name: DaemonName,
    /// Version of the daemon, for `pds status`.
    pub version: String,
}

/// Asks for the events of a topic, until the connection ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscribe {
    /// The topic wanted.
    pub topic: Topic,
}

/// Asks who is registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peers {}

/// Asks for the static public key of the connection that serves under a name; denied when there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyOf {
    /// The name.
    pub name: DaemonName,
}

/// A daemon on the bus.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// Its registered name.
    pub name: DaemonName,
    /// The version it announced.
    pub version: String,
    /// Its process, where known.
    pub pid: Option<u32>,
}

/// Why the bus said no to a call of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BusDenial {
    /// The name is not for the caller, by its process or by its key; or nobody serves under it.
    #[error("the connection is not that of a registered daemon")]
    NotRegistered,
    /// Another live connection serves under the name.
    #[error("another connection already serves under this name")]
    NameTaken,
    /// The caller's clearance does not reach the topic.
    #[error("the topic is not for this client")]
    TopicForbidden,
    /// A field is out of its limits.
    #[error("the request is out of its limits")]
    Invalid,
}

/// What a client did that no honest client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Misdeed {
    /// It answered a request that was not put to it.
    ForgedResponse,
    /// It published on a topic that is not its own.
    ForbiddenPublish,
    /// It tried to serve under a name that a live connection holds.
    NameTakeover,
}

/// Published by the bus on [`Topic::BusIncident`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// What was done.
    pub misdeed: Misdeed,
    /// By whom, as stamped.
    pub sender: crate::header::Sender,
    /// How many times since the last incident of this connection was published.
    pub count: u32,
}

service! {
    /// The bus as a service of its own.
    BusService = BUS, sealed: false, denial: BusDenial, requests: BusRequest {
        1 Announce -> (),
        2 Subscribe -> (),
        3 Peers -> Vec<Peer>,
        4 KeyOf -> [u8; 32],
    }
}
