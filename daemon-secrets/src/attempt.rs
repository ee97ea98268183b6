//! One attempt at unlocking: its turn, the wait that `daemon-profile` imposes, and how it ended.
//!
//! A factor is tried only after `daemon-profile` has said how long to wait, and after waiting that long; one at a
//! time per profile, while other profiles and all other requests go on. One derivation runs at a time in the whole
//! process, so that its memory is needed once.

use std::time::{Duration, Instant};

use core_secrets::header::{HeaderError, VaultHeader};
use core_secrets::store::StoreError;
use core_secrets::vault::VaultError;
use core_types::ProfileName;
use core_types::header::Sender;
use core_types::protocol::secrets::{Gate, SecretsDenial};
use tokio::sync::OwnedMutexGuard;

use crate::acl::{Action, Requester};
use crate::crud::{Refusal, identify};
use crate::neighbours::Neighbours;
use crate::service::SecretsDaemon;
use crate::vault::denial_of_vault;

/// How much an attempt proves that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proves {
    /// As much as unlocking.
    All,
    /// One factor where the policy needs several.
    APart,
}

/// The turn of one attempt on one profile.
type Turn = OwnedMutexGuard<()>;

impl<N: Neighbours> SecretsDaemon<N> {
    /// The header of a profile's vault; a damaged one is refused here, before any factor is tried and counted.
    pub(crate) async fn header(&self, profile: &ProfileName) -> Result<VaultHeader, Refusal> {
        let folder = self.vaults.folder(profile);
        blocking(move || folder.header()).await.map_err(|error| failed(profile, error))
    }

    /// Waits for this attempt's turn. Whoever has stopped waiting for the answer loses it.
    pub(crate) async fn turn(&self, profile: &ProfileName, deadline: Instant) -> Result<Turn, Refusal> {
        let turn = self.vaults.turn(profile).lock_owned().await;
        if Instant::now() >= deadline { Err(rate_limited(Duration::ZERO)) } else { Ok(turn) }
    }

    /// Tries factors, as `attempt` does it with the number of changes that the vault is known to have seen, after the wait that `daemon-profile` imposes, and tells it how the attempt
    /// ended. Only what proves as much as unlocking does forgives the wrong attempts before it: else whoever has one
    /// factor of two could guess the other without ever waiting.
    pub(crate) async fn try_factor<T: Send + 'static>(
        &self,
        profile: &ProfileName,
        deadline: Instant,
        proves: Proves,
        attempt: impl FnOnce(u64) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let begun = self.neighbours.begin_unlock(profile).await;
        let (wait, recorded) = begun.map_err(|_| by_vault(SecretsDenial::Unrecorded))?;
        if Instant::now() + wait >= deadline {
            self.neighbours.end_unlock(profile, false).await;
            return Err(rate_limited(wait));
        }
        tokio::time::sleep(wait).await;
        let result = self.derive(move || attempt(recorded)).await;
        self.neighbours.end_unlock(profile, proves == Proves::All && was_right(&result)).await;
        result.map_err(|error| failed(profile, error))
    }

    /// Runs what derives a key from a password: on a thread that may block, one at a time.
    pub(crate) async fn derive<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let _only_one = self.derivation.lock().await;
        blocking(work).await
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(VaultError::Store(StoreError::Io {
            action: "work on the vault",
            source: std::io::Error::other(error),
        }))
    })
}

/// Whether the factors were right: they were if the vault opened, or if they unwrapped the key and then something else
/// was wrong. What never got as far as that forgives nothing.
fn was_right<T>(result: &Result<T, VaultError>) -> bool {
    match result {
        Ok(_) | Err(VaultError::Header(HeaderError::Tampered)) => true,
        // The database is opened after the key was unwrapped; an error of the thread itself says nothing.
        Err(VaultError::Store(error)) => !matches!(error, StoreError::Io { .. }),
        Err(_) => false,
    }
}

pub(crate) fn by_vault(denial: SecretsDenial) -> Refusal {
    Refusal { gate: Gate::Vault, denial }
}

pub(crate) fn failed(profile: &ProfileName, error: VaultError) -> Refusal {
    by_vault(denial_of_vault(profile, error))
}

/// Lets someone through who may ask for this.
pub(crate) fn identified(action: Action, sender: &Sender) -> Result<(), Refusal> {
    identify(&Requester::from(sender), action).map_err(|denial| Refusal { gate: Gate::Identity, denial })
}

pub(crate) fn rate_limited(wait: Duration) -> Refusal {
    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Refusal { gate: Gate::RateLimit, denial: SecretsDenial::RateLimited { retry_ms } }
}
