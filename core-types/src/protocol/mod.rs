//! The messages: one file per service, each call naming its reply.
//!
//! On the wire a service has one request enum, in code each call is a struct of its own whose type says what
//! comes back. Messages are postcard, which carries neither names nor lengths: so a change adds a call, never a
//! field, and `tests/golden.rs` pins the bytes of every variant.

pub mod bus;
pub mod explanation;
pub mod grants;
pub mod import;
pub mod launcher;
pub mod profile;
pub mod secrets;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::BODY_BYTES_MAX;
use crate::name::{BUS, LAUNCHER, PROFILE, SECRETS, is_own};

/// What a service is to its callers.
pub trait Service {
    /// All its requests, as they travel.
    type Request: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// All the ways its policy says no, as they travel.
    type Denial: Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static;
    /// The name it registers on the bus.
    const NAME: &'static str;
    /// Whether its bodies carry secrets, so that they travel only inside a sealed session.
    const SEALED: bool;
}

/// One request of a service.
pub trait Call: Into<<Self::Service as Service>::Request> + Clone + Send + Sync + 'static {
    /// Who answers it.
    type Service: Service;
    /// What comes back when it is allowed and works.
    type Reply: Serialize + DeserializeOwned + Send;
    /// Its number at the service, as shown in logs.
    const METHOD: u16;
}

/// The denial type of a call's service.
pub type DenialOf<C> = <<C as Call>::Service as Service>::Denial;

/// The bytes were not what the sender should have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than a body may be.
    #[error("the message is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    /// Not a message of the expected type, or one with bytes after its end.
    #[error("the message is malformed")]
    Malformed,
}

/// Encodes a message into a buffer of just its size: growing one would leave pieces of secrets behind.
///
/// # Errors
/// The message is longer than a body may be.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Zeroizing<Vec<u8>>, CodecError> {
    let size = postcard::experimental::serialized_size(message).map_err(|_| CodecError::Malformed)?;
    if size > BODY_BYTES_MAX {
        return Err(CodecError::TooLong);
    }
    let mut buffer = Zeroizing::new(vec![0; size]);
    postcard::to_slice(message, &mut buffer).map_err(|_| CodecError::Malformed)?;
    Ok(buffer)
}

/// Decodes a message that fills `bytes` exactly.
///
/// # Errors
/// The bytes are not such a message, or some are left over (postcard alone would accept them).
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(CodecError::Malformed),
    }
}

/// Declares a service: its request enum, and for each call the link from the call to its reply.
macro_rules! service {
    (
        $(#[$doc:meta])*
        $service:ident = $name:expr, sealed: $sealed:literal, denial: $denial:ty, requests: $request:ident {
            $( $(#[$only:meta])* $method:literal $call:ident -> $reply:ty ),+ $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $service;

        impl $crate::protocol::Service for $service {
            type Request = $request;
            type Denial = $denial;
            const NAME: &'static str = $name;
            const SEALED: bool = $sealed;
        }

        /// All requests of the service, as they travel.
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        pub enum $request {
            $(
                $(#[$only])*
                #[doc = concat!("See [`", stringify!($call), "`].")]
                $call($call),
            )+
        }

        $(
            $(#[$only])*
            impl From<$call> for $request {
                fn from(call: $call) -> Self {
                    Self::$call(call)
                }
            }

            $(#[$only])*
            impl $crate::protocol::Call for $call {
                type Service = $service;
                type Reply = $reply;
                const METHOD: u16 = $method;
            }
        )+
    };
}
pub(crate) use service;

/// What events are published on. Who may publish and who may subscribe is fixed here, for the bus to enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Topic {
    /// A profile was unlocked or locked: [`secrets::ProfileChanged`].
    ProfileState,
    /// The bus saw a client do what no honest client does: [`bus::Incident`].
    BusIncident,
    /// Something that can be asked for may have changed: [`secrets::SecretsChanged`], which says no more.
    SecretsChanged,
    /// A daemon was enrolled or revoked: [`bus::RegistryChange`].
    BusRegistry,
}

impl Topic {
    /// The one daemon that may publish on the topic.
    #[must_use]
    pub fn publisher(self) -> &'static str {
        match self {
            Self::ProfileState | Self::SecretsChanged => SECRETS,
            Self::BusIncident | Self::BusRegistry => BUS,
        }
    }

    /// Whether a sender registered as `name` (or not registered) may subscribe.
    #[must_use]
    pub fn admits_subscriber(self, name: Option<&str>) -> bool {
        match self {
            Self::ProfileState => matches!(name, Some(PROFILE | LAUNCHER)),
            Self::BusIncident | Self::BusRegistry => name == Some(PROFILE),
            Self::SecretsChanged => name.is_some_and(|name| !is_own(name)),
        }
    }
}
