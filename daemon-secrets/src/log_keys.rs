//! What a vault does for the audit log: the keys that its entries are proved with, and where it stood last.
//!
//! The log belongs to `daemon-profile`, which has no vault, so it could be written anew by whoever can write its files.
//! Keys that follow from a master key, and an anchor that is sealed with one, are what such a one does not have.

use std::path::PathBuf;

use core_crypto::log_key::{LogKey, NONCE_BYTES};
use core_crypto::{SecureBytes, aead, key_schedule, private_fs};
use core_daemon::{Room, unix_ms_now};
use core_types::WireSecret;
use core_types::header::Sender;
use core_types::name::{PROFILE, ProfileName};
use core_types::protocol::profile::{AuditPoint, Operation, Outcome, Requester, SecretOperationAudit};
use core_types::protocol::secrets::{AuditAnchor, AuditKey, AuditKeys, Gate, SecretsDenial};

use crate::neighbours::Neighbours;
use crate::service::SecretsDaemon;

const POINT_BYTES: usize = 8 + 32;
const SEALED_BYTES: usize = aead::NONCE_BYTES + POINT_BYTES + aead::TAG_BYTES;

/// The anchor of the audit log to one vault; its methods block.
struct LogAnchor {
    path: PathBuf,
    key: SecureBytes,
    place: Vec<u8>,
}

impl LogAnchor {
    /// What is there and this vault has sealed.
    fn read(&self) -> Option<AuditPoint> {
        let sealed = match private_fs::read_limited(&self.path, SEALED_BYTES) {
            Ok(sealed) => sealed?,
            Err(error) => {
                tracing::error!("the anchor of the audit log cannot be read: {error}");
                return None;
            }
        };
        let body = aead::open(&self.key, &self.place, &sealed).ok()?;
        let (sequence, link) = body.expose().split_at_checked(8)?;
        let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
        Some(AuditPoint { sequence, link: link.try_into().ok()? })
    }

    fn write(&self, point: &AuditPoint) -> Result<(), String> {
        let body = [&point.sequence.to_be_bytes()[..], &point.link].concat();
        let sealed = aead::seal(&self.key, &self.place, &body).map_err(|error| error.to_string())?;
        if let Some(folder) = self.path.parent() {
            private_fs::ensure_private_dir(folder).map_err(|error| error.to_string())?;
        }
        private_fs::write_atomic(&self.path, &sealed).map_err(|error| error.to_string())
    }
}

impl<N: Neighbours> SecretsDaemon<N> {
    /// The key of the audit log for a nonce, and where it was anchored to this vault last.
    pub(crate) async fn audit_key(
        &self,
        call: &AuditKey,
        sender: &Sender,
    ) -> Result<AuditKeys, SecretsDenial> {
        self.only_the_log(&call.profile, sender).await?;
        let (audit_key, anchor) = self.log_anchor(&call.profile)?;
        let nonce: &[u8; NONCE_BYTES] = &call.nonce;
        let key = LogKey::from_vault(&audit_key, nonce);
        let id = key_schedule::audit_key_id(&audit_key);
        let read = tokio::task::spawn_blocking(move || anchor.read()).await;
        let anchor = read.map_err(|error| SecretsDenial::Storage(error.to_string()))?;
        Ok(AuditKeys { key: WireSecret::new(key.expose().to_vec()), id, anchor })
    }

    /// Anchors the audit log to an unlocked vault.
    pub(crate) async fn audit_anchor(
        &self,
        call: &AuditAnchor,
        sender: &Sender,
    ) -> Result<(), SecretsDenial> {
        self.only_the_log(&call.profile, sender).await?;
        self.anchor_log(&call.profile, call.point).await
    }

    /// Anchors the audit log where it stands now, before the vault is closed. Not being able to is no reason not to lock.
    pub(crate) async fn anchor_before_lock(&self, profile: &ProfileName) {
        let Some(point) = self.neighbours.audit_head().await else { return };
        if let Err(error) = self.anchor_log(profile, point).await {
            tracing::warn!(%profile, %error, "the audit log could not be anchored");
        }
    }

    async fn anchor_log(&self, profile: &ProfileName, point: AuditPoint) -> Result<(), SecretsDenial> {
        let (_, anchor) = self.log_anchor(profile)?;
        let written = tokio::task::spawn_blocking(move || anchor.write(&point)).await;
        written.map_err(|error| SecretsDenial::Storage(error.to_string()))?.map_err(SecretsDenial::Storage)
    }

    /// The audit key of an unlocked vault, and its anchor.
    fn log_anchor(&self, profile: &ProfileName) -> Result<(SecureBytes, LogAnchor), SecretsDenial> {
        let held = self.vaults.hold(profile);
        let held = held.ok_or_else(|| SecretsDenial::ProfileNotActive(profile.clone()))?;
        let audit_key = key_schedule::audit_key(&held.master_key, profile.as_str());
        let key = key_schedule::audit_anchor_key(&audit_key);
        let place = format!("pds v2 audit anchor\0{profile}").into_bytes();
        Ok((audit_key, LogAnchor { path: self.audit_anchors.join(profile.as_str()), key, place }))
    }

    /// Refuses everyone but `daemon-profile`: who has such a key could write entries that prove to be genuine.
    async fn only_the_log(&self, profile: &ProfileName, sender: &Sender) -> Result<(), SecretsDenial> {
        if sender.name.as_ref().is_some_and(|name| name.as_str() == PROFILE) {
            return Ok(());
        }
        let denial = SecretsDenial::Identity { requester: sender.requester().to_owned() };
        let outcome = Outcome::Denied { gate: Gate::Identity, reason: denial.to_string() };
        let entry =
            SecretOperationAudit::new(unix_ms_now(), Operation::Incident, Requester::from(sender), outcome)
                .about(Some(profile.clone()), Some("audit-key".to_owned()));
        tracing::warn!(requester = sender.requester(), "a key of the audit log was asked for");
        // Refused it is either way.
        let _ = self.neighbours.record(vec![entry], Room::none()).await;
        Err(denial)
    }
}

#[cfg(test)]
mod tests {
    use core_crypto::hash_chain::Link;

    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, profile};
    use core_types::protocol::secrets::Lock;

    fn point(sequence: u64) -> AuditPoint {
        AuditPoint { sequence, link: *Link::GENESIS.as_bytes() }
    }

    async fn key(world: &World, nonce: u8) -> Result<AuditKeys, SecretsDenial> {
        let call = AuditKey { profile: profile("work"), nonce: [nonce; NONCE_BYTES] };
        world.daemon.audit_key(&call, &sender(Some(PROFILE))).await
    }

    #[tokio::test]
    async fn an_unlocked_vault_makes_the_same_key_again_and_remembers_the_anchor() {
        let world = World::with_vault().await;
        let first = key(&world, 1).await.unwrap();
        assert_eq!(first.anchor, None);
        let call = AuditAnchor { profile: profile("work"), point: point(7) };
        world.daemon.audit_anchor(&call, &sender(Some(PROFILE))).await.unwrap();
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        assert!(matches!(key(&world, 1).await, Err(SecretsDenial::ProfileNotActive(_))));
        world.unlock("work", b"right").await.unwrap();
        let again = key(&world, 1).await.unwrap();
        assert_eq!((again.key.expose(), again.id), (first.key.expose(), first.id));
        assert_eq!(again.anchor, Some(point(7)));
        assert_ne!(key(&world, 2).await.unwrap().key.expose(), first.key.expose());
    }

    #[tokio::test]
    async fn nobody_but_daemon_profile_gets_a_key_or_sets_the_anchor() {
        let world = World::with_vault().await;
        for name in [None, Some("daemon-launcher"), Some("daemon-bus"), Some("cli"), Some("backup")] {
            let call = AuditKey { profile: profile("work"), nonce: [1; NONCE_BYTES] };
            let refused = world.daemon.audit_key(&call, &sender(name)).await.map(|_| ());
            assert!(matches!(refused, Err(SecretsDenial::Identity { .. })), "{name:?}");
            let call = AuditAnchor { profile: profile("work"), point: point(7) };
            assert!(world.daemon.audit_anchor(&call, &sender(name)).await.is_err(), "{name:?}");
        }
        let outcomes = world.outcomes();
        assert_eq!(outcomes.len(), 10);
        assert!(outcomes.iter().all(|(operation, ..)| *operation == Operation::Incident));
        assert_eq!(key(&world, 1).await.unwrap().anchor, None);
    }

    #[tokio::test]
    async fn an_anchor_that_another_vault_sealed_is_none() {
        let world = World::with_vault().await;
        let call = AuditAnchor { profile: profile("work"), point: point(7) };
        world.daemon.audit_anchor(&call, &sender(Some(PROFILE))).await.unwrap();
        world.init("home").await.unwrap();
        let (work, home) =
            (world.paths.audit_anchor(&profile("work")), world.paths.audit_anchor(&profile("home")));
        std::fs::copy(work, home).unwrap();
        let call = AuditKey { profile: profile("home"), nonce: [1; NONCE_BYTES] };
        assert_eq!(world.daemon.audit_key(&call, &sender(Some(PROFILE))).await.unwrap().anchor, None);
    }
}
