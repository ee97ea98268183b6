//! Calls that the bus itself answers, and the event it publishes.

use serde::{Deserialize, Serialize};

use super::{Topic, service};
use crate::name::{BUS, DaemonName};

/// Says that the caller is ready to serve under a name: one of our own daemons' names if the supervisor or systemd
/// started it, another one if it owns the key published for it. What systemd started shows, as the call's one
/// descriptor, the listening socket that systemd made for that name.
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

/// Gives a name to a key: whoever owns the key is the daemon of that name from then on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enroll {
    /// The name.
    pub name: DaemonName,
    /// The public key.
    pub key: [u8; 32],
}

/// Takes the name of an enrolled daemon back, and ends its connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revoke {
    /// The name.
    pub name: DaemonName,
}

/// Asks who is enrolled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {}

/// An enrolled daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledDaemon {
    /// Its name.
    pub name: DaemonName,
    /// Its public key.
    pub key: [u8; 32],
    /// Since when, in milliseconds of the Unix epoch.
    pub since_unix_ms: u64,
    /// How many connections it has.
    pub connections: u32,
}

/// Published by the bus on [`Topic::BusRegistry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryChange {
    /// The name that was given or taken back.
    pub name: DaemonName,
    /// Whether it was given.
    pub enrolled: bool,
    /// Who asked for it.
    pub sender: crate::header::Sender,
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
    /// Only the user may ask for this, at the command line.
    #[error("only the user may do this, at the command line")]
    NotForDaemons,
    /// The name is one of our own.
    #[error("the name '{0}' belongs to pds itself")]
    ReservedName(DaemonName),
    /// The name is given already.
    #[error("a daemon is enrolled as '{0}' already")]
    AlreadyEnrolled(DaemonName),
    /// The key is or was that of an enrolled daemon.
    #[error("the key is, or was, that of an enrolled daemon; each needs a new one")]
    KeyUsed,
    /// There is no room for another.
    #[error("no more daemons can be enrolled")]
    TooManyEnrolled,
    /// Nobody has the name.
    #[error("no daemon is enrolled as '{0}'")]
    NotEnrolled(DaemonName),
    /// Nobody is there to record it.
    #[error("daemon-profile is not there to record it, so nothing was changed")]
    Unrecorded,
    /// The file of enrolled daemons could not be written.
    #[error("nothing was changed: {0}")]
    Storage(String),
}

/// What a client did that no honest client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, PartialOrd, Ord)]
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
        5 Enroll -> (),
        6 Revoke -> (),
        7 Enrolled -> Vec<EnrolledDaemon>,
    }
}
