//! Files in which the service keeps a little state of its own over restarts.

use std::path::Path;

use core_crypto::private_fs::{self, PrivateFsError};

/// What such a file held.
pub(crate) enum Found<T> {
    /// There is none.
    Nothing,
    /// It cannot be read, or not understood; the log says so.
    Damaged,
    /// This.
    State(T),
}

/// Reads a file of at most `limit` bytes, as `parse` understands it.
///
/// # Errors
/// The file is a link, somebody else's, or writable by others.
pub(crate) fn read<T>(
    path: &Path,
    limit: usize,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Found<T>, PrivateFsError> {
    match private_fs::read_limited(path, limit) {
        Ok(None) => Ok(Found::Nothing),
        Ok(Some(bytes)) => Ok(parse(&bytes).map_or_else(
            || {
                tracing::error!("{} is damaged", path.display());
                Found::Damaged
            },
            Found::State,
        )),
        Err(error @ (PrivateFsError::Io { .. } | PrivateFsError::TooLarge { .. })) => {
            tracing::error!("{error}");
            Ok(Found::Damaged)
        }
        Err(error) => Err(error),
    }
}

/// The state could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// It cannot be shown as JSON.
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] PrivateFsError),
}

/// Replaces a file by this state.
///
/// # Errors
/// The old one still stands.
pub(crate) fn write(path: &Path, state: serde_json::Result<Vec<u8>>) -> Result<(), KeepError> {
    Ok(private_fs::write_atomic(path, &state?)?)
}
