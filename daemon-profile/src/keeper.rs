//! Has the vaults vouch for the log: each that is unlocked gives a key for what follows, and remembers where it stood.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_crypto::SecureBytes;
use core_crypto::log_key::{LogKey, NONCE_BYTES};
use core_ipc::BusClient;
use core_types::ProfileName;
use core_types::protocol::profile::{AuditFault, AuditPoint, AuditReport};
use core_types::protocol::secrets::{AuditAnchor, AuditKey, AuditKeys, ProfileChanged};
use tokio::sync::Mutex as FairMutex;

use crate::audit::{Audit, LogError, ProofKeys, Stretch};

/// How many entries may be written before the log is anchored again.
const ANCHOR_EVERY: u64 = 1_000;
/// Most stretches whose keys are asked for in one check; older ones count as unproved.
const STRETCHES_MAX: usize = 10_000;

/// The log's relation to the vaults.
#[derive(Clone)]
pub(crate) struct Keeper {
    audit: Audit,
    bus: BusClient,
    unlocked: Arc<Mutex<BTreeSet<ProfileName>>>,
    anchored: Arc<AtomicU64>,
    /// One stretch is begun at a time, so that each is anchored where it begins.
    turn: Arc<FairMutex<()>>,
}

impl Keeper {
    /// A keeper of `audit` that knows of no unlocked profile yet.
    pub(crate) fn new(audit: Audit, bus: BusClient) -> Self {
        let (unlocked, anchored, turn) = Default::default();
        Self { audit, bus, unlocked, anchored, turn }
    }

    /// The way to those whose log it is.
    pub(crate) fn bus(&self) -> &BusClient {
        &self.bus
    }

    fn unlocked(&self) -> MutexGuard<'_, BTreeSet<ProfileName>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that a profile was locked or unlocked.
    pub(crate) fn changed(&self, change: ProfileChanged) {
        if change.unlocked {
            let keeper = self.clone();
            tokio::spawn(async move { keeper.begin(change.profile).await });
        } else {
            self.unlocked().remove(&change.profile);
        }
    }

    /// Compares the log with what a vault remembers of it, and goes on with a key of that vault.
    pub(crate) async fn begin(&self, profile: ProfileName) {
        let _turn = self.turn.lock().await;
        if let Err(error) = self.try_begin(&profile).await {
            tracing::error!(%profile, "the audit log goes on without a key of this profile: {error}");
        }
    }

    async fn try_begin(&self, profile: &ProfileName) -> Result<(), String> {
        let random = SecureBytes::random(NONCE_BYTES).map_err(|error| error.to_string())?;
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(random.expose());
        let call = AuditKey { profile: profile.clone(), nonce };
        let AuditKeys { key, id, anchor } = self.bus.call(&call).await.map_err(|error| error.to_string())?;
        let key = LogKey::of(key.expose()).ok_or("a key of another length")?;
        if let Some(fault) = self.missed(profile, &id, anchor).await {
            let told = self.audit.tell_broken(fault.sequence, fault.reason).await;
            told.map_err(|error| error.to_string())?;
        }
        if anchor.is_none() {
            // Before the log says that this vault proves it: from then on a missing anchor is one that was removed.
            self.try_anchor(profile).await?;
        }
        let begun = self.audit.begin_stretch(profile.clone(), &nonce, &id, key).await;
        begun.map_err(|error| error.to_string())?;
        self.unlocked().insert(profile.clone());
        self.anchor(profile).await;
        Ok(())
    }

    /// What is wrong with the log, going by where a vault remembers it to have stood.
    async fn missed(
        &self,
        profile: &ProfileName,
        id: &[u8],
        anchor: Option<AuditPoint>,
    ) -> Option<AuditFault> {
        let Some(point) = anchor else {
            let known = self.audit.knows(profile, id).await;
            let known =
                known.inspect_err(|error| tracing::error!("the audit log could not be searched: {error}"));
            return known.ok().flatten().map(|sequence| AuditFault {
                sequence,
                reason: format!(
                    "what profile '{profile}' remembered of the log since then was removed or replaced"
                ),
            });
        };
        match self.audit.holds(point).await {
            Ok(true) => None,
            Ok(false) => Some(AuditFault {
                sequence: point.sequence,
                reason: format!("it is not the entry that profile '{profile}' remembers, or is missing"),
            }),
            Err(error) => {
                tracing::error!("the audit log could not be compared with its anchor: {error}");
                None
            }
        }
    }

    /// Has a vault remember where the log stands, when that is on the disk.
    async fn anchor(&self, profile: &ProfileName) {
        if let Err(error) = self.try_anchor(profile).await {
            tracing::warn!(%profile, %error, "the audit log could not be anchored");
        }
    }

    async fn try_anchor(&self, profile: &ProfileName) -> Result<(), String> {
        let point = self.audit.head();
        self.audit.sync().await.map_err(|error| error.to_string())?;
        let anchored = self.bus.call(&AuditAnchor { profile: profile.clone(), point }).await;
        anchored.map_err(|error| error.to_string())?;
        self.anchored.store(point.sequence, Ordering::Relaxed);
        Ok(())
    }

    /// Anchors the log to all unlocked vaults if enough has been written since the last time.
    pub(crate) fn written(&self) {
        let head = self.audit.head().sequence;
        let anchored = self.anchored.load(Ordering::Relaxed);
        if head < anchored.saturating_add(ANCHOR_EVERY) {
            return;
        }
        self.anchored.store(head, Ordering::Relaxed);
        let (keeper, profiles) = (self.clone(), self.unlocked().clone());
        tokio::spawn(async move {
            let _turn = keeper.turn.lock().await;
            for profile in &profiles {
                keeper.anchor(profile).await;
            }
        });
    }

    /// Checks the log with all that the unlocked vaults know.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn verify(&self) -> Result<AuditReport, LogError> {
        let stretches = self.audit.stretches().await?;
        let newest = stretches.iter().skip(stretches.len().saturating_sub(STRETCHES_MAX));
        let (mut keys, mut anchors) = (ProofKeys::new(), BTreeMap::new());
        for stretch in newest {
            if !anchors.get(&stretch.profile).is_some_and(Option::is_none) {
                let vault = self.key_of(stretch, &mut keys).await;
                anchors.insert(stretch.profile.clone(), vault);
            }
        }
        let mut report = self.audit.verify(keys).await?;
        for (profile, vault) in anchors {
            if let Some((id, anchor)) = vault
                && report.fault.is_none()
            {
                report.fault = self.missed(&profile, &id, anchor).await;
            }
        }
        Ok(report)
    }

    /// Adds the key of a stretch, if its vault is unlocked and still has it; gives the id of the vault's keys
    /// and its anchor if it is unlocked.
    async fn key_of(&self, stretch: &Stretch, keys: &mut ProofKeys) -> Option<([u8; 8], Option<AuditPoint>)> {
        let mut nonce = [0; NONCE_BYTES];
        hex::decode_to_slice(&stretch.key.nonce, &mut nonce).ok()?;
        let call = AuditKey { profile: stretch.profile.clone(), nonce };
        let AuditKeys { key, id, anchor } = self.bus.call(&call).await.ok()?;
        if hex::encode(id) == stretch.key.id {
            keys.insert(stretch.sequence, LogKey::of(key.expose())?);
        }
        Some((id, anchor))
    }
}
