//! New keys for a vault, while its secrets can be read.
//!
//! The factors are one attempt at unlocking. The copying after it is none: it holds up no other profile, and ends early
//! when its own is locked.

use std::sync::Arc;
use std::time::Instant;

use core_daemon::Room;
use core_secrets::header::Change;
use core_secrets::vault::{NewKeys, VaultLock};
use core_types::ProfileName;
use core_types::header::Sender;
use core_types::protocol::profile::LockCause;
use core_types::protocol::secrets::{Rekey, RekeyProgress, RekeyState, SecretsDenial};

use crate::acl::Action;
use crate::attempt::{Proves, blocking, failed, identified};
use crate::crud::Refusal;
use crate::neighbours::Neighbours;
use crate::proofs::proofs;
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;
use crate::vault::Held;

impl<N: Neighbours> SecretsDaemon<N> {
    /// Gives a vault new keys, locked or unlocked; it stays what it is.
    pub(crate) async fn rekey(
        &self,
        call: &Rekey,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<(), SecretsDenial> {
        let profile = &call.profile;
        let mut room = Room::none();
        let result = async {
            identified(Action::Rekey, sender)?;
            room = self.room(profile)?;
            let header = self.header(profile).await?;
            let proofs = proofs(&header, &call.present)?;
            header.check_for(Change::MasterKey, &proofs).map_err(|error| failed(profile, error.into()))?;
            let _turn = self.turn(profile, deadline).await?;
            let (folder, held) = (self.vaults.folder(profile), self.vaults.hold(profile));
            let lock = held.as_ref().map(|held| Arc::clone(&held.lock));
            let tried = self.try_factor(profile, deadline, Proves::All, move |recorded| {
                let lock = match lock {
                    Some(lock) => lock,
                    None => Arc::new(folder.lock()?),
                };
                Ok((lock, folder.new_keys(&proofs, recorded)?))
            });
            let (lock, keys) = tried.await?;
            let rekeyed = self.exchange_keys(profile, sender, lock, keys, held).await;
            self.vaults.end_rekey(profile, rekeyed.is_ok());
            rekeyed
        };
        let result = result.await;
        conclude(&self.neighbours, About::of(Action::Rekey, Some(profile), sender).holding(room), result)
            .await
    }

    async fn exchange_keys(
        &self,
        profile: &ProfileName,
        sender: &Sender,
        lock: Arc<VaultLock>,
        keys: NewKeys,
        held: Option<Held>,
    ) -> Result<(), Refusal> {
        let (folder, progress) = (self.vaults.folder(profile), self.vaults.begin_rekey(profile));
        let store = held.as_ref().map(|held| held.store.clone());
        let work = blocking(move || folder.rekey(&lock, keys, store.as_ref(), &progress));
        match (work.await, held) {
            (Ok(open), Some(held)) => {
                self.vaults.exchange(profile, open, held).await;
                tracing::info!(%profile, "has new keys");
                Ok(())
            }
            (Ok(open), None) => {
                tracing::info!(%profile, "has new keys");
                self.vaults.note_generation(profile, open.store.generation());
                let closed = blocking(move || Ok(open.store.close()?)).await;
                closed.map_err(|error| failed(profile, error))
            }
            (Err(error), held) => {
                let lost = held.is_some_and(|held| held.store.is_frozen());
                if lost {
                    // The vault in its place is another one, and it did not open.
                    self.lock_because(profile, sender, LockCause::Rekey).await;
                }
                Err(failed(profile, error))
            }
        }
    }

    /// How far the exchange of a vault's keys is.
    pub(crate) async fn rekey_progress(
        &self,
        call: &RekeyProgress,
        sender: &Sender,
    ) -> Result<RekeyState, SecretsDenial> {
        let result =
            identified(Action::RekeyProgress, sender).map(|()| self.vaults.rekey_state(&call.profile));
        conclude(&self.neighbours, About::of(Action::RekeyProgress, Some(&call.profile), sender), result)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, later, password, profile};
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::{FactorKind, Lock, Unlocked};

    async fn rekey(world: &World, secret: &[u8]) -> Result<(), SecretsDenial> {
        let call = Rekey { profile: profile("work"), present: vec![password(secret)] };
        world.daemon.rekey(&call, &cli(), later()).await
    }

    async fn state(world: &World) -> RekeyState {
        let call = RekeyProgress { profile: profile("work") };
        world.daemon.rekey_progress(&call, &cli()).await.unwrap()
    }

    fn header(world: &World) -> Vec<u8> {
        std::fs::read(world.paths.vault(&profile("work")).join("header.json")).unwrap()
    }

    #[tokio::test]
    async fn an_unlocked_profile_stays_unlocked_and_a_locked_one_locked() {
        let world = World::with_vault().await;
        world.set("a", b"value").await.unwrap();
        assert_eq!(state(&world).await, RekeyState::Idle);
        let before = header(&world);
        rekey(&world, b"right").await.unwrap();
        assert_ne!(header(&world), before);
        assert_eq!(state(&world).await, RekeyState::Done);
        assert_eq!(world.get("a").await.unwrap(), b"value");
        world.set("a", b"newer").await.unwrap();
        assert_eq!(world.get("a").await.unwrap(), b"newer");
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        let before = header(&world);
        rekey(&world, b"right").await.unwrap();
        assert_ne!(header(&world), before);
        assert!(!world.daemon.vaults.any_unlocked());
        assert_eq!(world.unlock("work", b"right").await, Ok(Unlocked::Now));
        assert_eq!(world.get("a").await.unwrap(), b"newer");
        let names: Vec<_> =
            world.paths.vaults().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["work"]);
    }

    #[tokio::test]
    async fn it_takes_all_factors_and_is_recorded() {
        let world = World::with_vault().await;
        let wrong = Err(SecretsDenial::WrongFactor(FactorKind::Password));
        assert_eq!(rekey(&world, b"wrong").await, wrong);
        let none = Rekey { profile: profile("work"), present: Vec::new() };
        let few = SecretsDenial::NotEnoughFactors { given: 0, needed: 1, of: 1 };
        assert_eq!(world.daemon.rekey(&none, &cli(), later()).await, Err(few));
        rekey(&world, b"right").await.unwrap();
        let record = |outcome: &str| (Operation::Rekey, None, outcome.to_owned());
        let few = "failed: it needs 1 of the 1 factors, and 0 of them were given";
        assert_eq!(world.outcomes(), [record("failed: the password is wrong"), record(few), record("done")]);
        let call = Rekey { profile: profile("work"), present: vec![password(b"right")] };
        let denied = world.daemon.rekey(&call, &sender(Some("daemon-launcher")), later()).await;
        assert!(matches!(denied, Err(SecretsDenial::Identity { .. })));
    }

    /// Reads go on, writes are refused, other profiles are not held up, and locking ends it early.
    #[tokio::test]
    async fn meanwhile_secrets_are_read_and_locking_ends_it() {
        let world = World::with_vault().await;
        for number in 0..40 {
            world.set(&format!("large/{number}"), &vec![number; 1 << 20]).await.unwrap();
        }
        let before = header(&world);
        let rekeying = rekey(&world, b"right");
        let meanwhile = async {
            loop {
                match state(&world).await {
                    RekeyState::Running { done: 1.., .. } => break,
                    RekeyState::Idle | RekeyState::Running { .. } => tokio::task::yield_now().await,
                    ended => panic!("nothing was seen of it: {ended:?}"),
                }
            }
            assert_eq!(world.get("large/7").await.unwrap(), vec![7; 1 << 20]);
            assert_eq!(world.set("late", b"x").await, Err(SecretsDenial::Rekeying(profile("work"))));
            world.init("other").await.unwrap();
            world.daemon.lock(&Lock { profile: Some(profile("work")) }, &cli()).await.unwrap();
        };
        let (rekeyed, ()) = tokio::join!(rekeying, meanwhile);
        assert!(rekeyed.is_err(), "{rekeyed:?}");
        assert_eq!(state(&world).await, RekeyState::Failed);
        assert_eq!(header(&world), before);
        assert_eq!(world.unlock("work", b"right").await, Ok(Unlocked::Now));
        world.set("late", b"x").await.unwrap();
    }
}
