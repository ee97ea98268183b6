//! What can go wrong between two ends of the bus, apart from what the service itself denies.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use core_types::header::Refusal;
use core_types::limits::DEADLINE_MS_DEFAULT;
use core_types::protocol::bus::BusDenial;

use crate::wire::WireError;

/// No connection to the bus.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens on the socket.
    #[error("no bus listens on {path}")]
    NoBus {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be used.
    #[error("the bus socket {path} cannot be used: {reason}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A public key is missing or unreadable.
    #[error("the public key {path} cannot be used: {reason}")]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The other side does not own the key it published, speaks another version, or refused us.
    #[error("the handshake with the bus failed")]
    Handshake,
    /// The handshake did not end in time.
    #[error("the bus did not answer within {0:?}")]
    TimedOut(Duration),
    /// The folder of the socket is not private.
    #[error("{0}")]
    Folder(String),
}

impl ConnectError {
    /// What the service has published, under this path, is not what the bus says.
    pub(crate) fn keys_differ(path: PathBuf) -> Self {
        Self::Key { path, reason: "it is not the key that the bus knows; restart the daemons".to_owned() }
    }

    /// Whether starting the daemons would help: nobody is there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoBus { .. })
    }
}

/// A call that brought no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError<D: std::fmt::Debug> {
    /// The service answered: no.
    #[error("{0:?}")]
    Denied(D),
    /// The bus answered for it.
    #[error("{0}")]
    Refused(Refusal),
    /// There was no connection, or it ended before the answer.
    #[error("{0}")]
    Unreachable(#[from] ConnectError),
    /// The connection ended before the answer: whether the call took effect is unknown.
    #[error("the connection to the bus ended before the answer")]
    Lost,
    /// An answer that is not one, or a request that fits no frame.
    #[error("the message does not fit the protocol: {0}")]
    Protocol(#[from] WireError),
}

impl<D: std::fmt::Debug> CallError<D> {
    /// What it means for a call that its request was not sent.
    pub(crate) fn of_sending(error: WireError) -> Self {
        match error {
            // As when the bus cannot pass them on.
            WireError::NotPassed => Self::Refused(Refusal::Busy),
            error => Self::Protocol(error),
        }
    }

    /// What it means for a call that the key of its service could not be learnt.
    pub(crate) fn of_key(error: CallError<BusDenial>) -> Self {
        match error {
            // Nobody serves under the name.
            CallError::Denied(_) => Self::Refused(Refusal::ServiceUnknown),
            CallError::Refused(refusal) => Self::Refused(refusal),
            CallError::Unreachable(error) => Self::Unreachable(error),
            CallError::Lost => Self::Lost,
            CallError::Protocol(error) => Self::Protocol(error),
        }
    }
}

/// What a call may need besides itself.
#[derive(Debug)]
pub struct CallOptions {
    /// How long to wait for the answer.
    pub deadline: Duration,
    /// Descriptors that travel with the request.
    pub descriptors: Vec<OwnedFd>,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_millis(u64::from(DEADLINE_MS_DEFAULT)), descriptors: Vec::new() }
    }
}
