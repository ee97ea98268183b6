//! What this daemon needs from others: unlock attempts judged, audit entries taken, and changes made known.

use std::sync::Arc;
use std::time::Duration;

use core_daemon::{AuditQueue, NotDurable, Room};
use core_ipc::{BusClient, CallError, CallOptions};
use core_types::ProfileName;
use core_types::config::Config;
use core_types::header::Refusal;
use core_types::protocol::Topic;
use core_types::protocol::profile::{AuditHead, AuditPoint, BeginUnlock, EndUnlock, SecretOperationAudit};
use core_types::protocol::secrets::{ProfileChanged, SecretsChanged};

/// How long a lock waits to hear where the audit log stands.
const AUDIT_HEAD_WAIT: Duration = Duration::from_millis(300);

/// `daemon-profile` could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreachable;

/// The other daemons, as far as this one needs them.
pub(crate) trait Neighbours: Send + Sync + 'static {
    /// Begins an unlock attempt, which counts as wrong from now on: how long it has to wait, and how many changes the
    /// vault is known to have seen.
    fn begin_unlock(
        &self,
        profile: &ProfileName,
    ) -> impl Future<Output = Result<(Duration, u64), Unreachable>> + Send;
    /// Says how an attempt ended.
    fn end_unlock(&self, profile: &ProfileName, right: bool) -> impl Future<Output = ()> + Send;
    /// Where the audit log stands; `None` if `daemon-profile` does not say so at once.
    fn audit_head(&self) -> impl Future<Output = Option<AuditPoint>> + Send;
    /// Keeps room for so many records of a change that is about to be made.
    fn room(&self, profile: &ProfileName, records: usize) -> Result<Room, NotDurable>;
    /// Hands over entries for the audit log, which are about one attempt; answered when they are as safe as the
    /// profile's mode asks for.
    fn record(
        &self,
        entries: Vec<SecretOperationAudit>,
        room: Room,
    ) -> impl Future<Output = Result<(), NotDurable>> + Send;
    /// Completes when what was handed over before is in the audit log, or when that takes too long.
    fn recorded(&self) -> impl Future<Output = ()> + Send;
    /// Has entries kept as the modes of this configuration ask for, from now on.
    fn audit_by(&self, config: &Config);
    /// Makes known that a profile was unlocked or locked.
    fn publish(&self, change: ProfileChanged);
    /// Makes known that something that can be asked for may have changed.
    fn hint(&self);
}

/// The neighbours as they are reached over the bus.
pub(crate) struct OverTheBus {
    pub(crate) bus: BusClient,
    pub(crate) audit: AuditQueue,
}

impl Neighbours for OverTheBus {
    async fn begin_unlock(&self, profile: &ProfileName) -> Result<(Duration, u64), Unreachable> {
        let call = BeginUnlock { profile: profile.clone() };
        let delay = match self.bus.call(&call).await {
            // It died over the question. To ask again costs at most a little wait, should it have counted before.
            Err(CallError::Refused(Refusal::ServiceGone) | CallError::Lost) => self.bus.call(&call).await,
            other => other,
        };
        let delay = delay.map_err(|error| {
            tracing::error!(%error, "daemon-profile did not judge an unlock attempt");
            Unreachable
        })?;
        Ok((Duration::from_millis(delay.wait_ms), delay.generation))
    }

    async fn end_unlock(&self, profile: &ProfileName, right: bool) {
        if let Err(error) = self.bus.call(&EndUnlock { profile: profile.clone(), right }).await {
            // The attempt counts as wrong there, which costs the next one a short wait.
            tracing::warn!(%error, "daemon-profile was not told how an unlock attempt ended");
        }
    }

    async fn audit_head(&self) -> Option<AuditPoint> {
        let options = CallOptions { deadline: AUDIT_HEAD_WAIT, descriptors: Vec::new() };
        self.bus.call_with(&AuditHead {}, options).await.ok()
    }

    fn room(&self, profile: &ProfileName, records: usize) -> Result<Room, NotDurable> {
        self.audit.reserve(Some(profile), records)
    }

    async fn record(&self, entries: Vec<SecretOperationAudit>, room: Room) -> Result<(), NotDurable> {
        self.audit.record(entries, room).await
    }

    async fn recorded(&self) {
        self.audit.delivered().await;
    }

    fn audit_by(&self, config: &Config) {
        self.audit.configure(Arc::new(config.clone()));
    }

    fn publish(&self, change: ProfileChanged) {
        self.bus.publish(Topic::ProfileState, &change);
    }

    fn hint(&self) {
        self.bus.publish(Topic::SecretsChanged, &SecretsChanged {});
    }
}
