//! `pds helper`: what other programs ask for secrets with, each in its own protocol.
//!
//! None of them starts the daemons: a profile whose daemons do not run is locked. Nothing they are told becomes part of a
//! name of a secret but by [`place`].

mod askpass;
mod cargo;
mod docker;
mod git;
mod keep;
mod place;

use std::io::Read as _;

use zeroize::Zeroizing;

use crate::args::HelperCommand;
use crate::error::Failure;
use crate::session::Session;

/// Longest request that is read, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Why a helper gives no answer. No text of a request is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// The request is none.
    #[error("the request is not one of its protocol: {0}")]
    Request(&'static str),
    /// A value that the protocol would take for something else.
    #[error("'{name}' holds {what}, which the protocol cannot carry")]
    Value { name: String, what: &'static str },
    /// A place whose name is too long, or holds what no place does.
    #[error("no secret can be named after it: {0}")]
    Place(&'static str),
    /// A user that would have to be chosen.
    #[error("there are several users: {}", users.join(", "))]
    Users { users: Vec<String> },
    /// A question that is not answered from a vault.
    #[error("the question {0}")]
    Question(&'static str),
    /// Docker's words, by which it knows that there is nothing.
    #[error("credentials not found in native keychain")]
    DockerNothing,
}

impl HelperError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Self::Value { .. } => Some("store it without: `pds set --trim` removes a line feed".to_owned()),
            Self::Users { .. } => {
                Some("name one: in the address, or with credential.URL.username".to_owned())
            }
            Self::Question(_) => {
                Some("answer it yourself, or name a secret in the variable PDS_ASKPASS".to_owned())
            }
            Self::Request(_) | Self::Place(_) | Self::DockerNothing => None,
        }
    }
}

pub(super) fn run(session: &mut Session, helper: &HelperCommand) -> Result<(), Failure> {
    session.options.no_start = true;
    match helper {
        HelperCommand::Git { operation } => git::run(session, operation),
        HelperCommand::Docker { operation } => docker::run(session, operation),
        HelperCommand::Cargo { .. } => cargo::run(session),
        HelperCommand::Askpass { question } => askpass::run(session, question),
    }
}

/// All of standard input.
fn request() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES_MAX + 1));
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.map_err(|source| Failure::Child { what: "the request cannot be read", source })?;
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(HelperError::Request("it is too long").into());
    }
    Ok(bytes)
}
