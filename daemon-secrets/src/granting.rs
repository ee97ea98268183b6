//! Making, listing and taking back bounded grants, which is the user's alone.

use core_daemon::Room;
use core_types::grant::{GrantId, GrantRecord};
use core_types::header::Sender;
use core_types::protocol::grants::{Grant, GrantEntry, RevokeGrant};
use core_types::protocol::secrets::{Gate, SecretsDenial};

use crate::acl::Action;
use crate::attempt::{by_vault, identified};
use crate::crud::{ProfileStatus, Refusal};
use crate::neighbours::Neighbours;
use crate::operations::{about, several};
use crate::rate_limit::Cost;
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;

impl<N: Neighbours> SecretsDaemon<N> {
    /// Makes a grant. It holds when its record is as safe as the profile's mode asks for.
    pub(crate) async fn grant(&self, call: &Grant, sender: &Sender) -> Result<GrantEntry, SecretsDenial> {
        let profile = &call.profile;
        let cost = Cost { tokens: 1, names: 1 };
        let attempt = several(Action::Grant, profile, Vec::new(), cost, sender);
        let mut room = Room::none();
        let result = async {
            let _allowed = self.authorize(&attempt).await?;
            room = self.room(profile)?;
            self.grants.make(call).map_err(by_vault)
        };
        let result = result.await;
        let made = result.as_ref().ok().map(|made| made.record().clone());
        let about = about(&attempt, sender, [call.pattern.as_str()]).holding(room).through(made);
        let made = conclude(&self.neighbours, about, result).await?;
        let entry = made.recorded();
        // Locking ends the grants that there are when nobody can read any more: not one that came later.
        if self.vaults.status(profile) != ProfileStatus::Unlocked {
            self.grants.forget(profile);
            return Err(SecretsDenial::ProfileNotActive(profile.clone()));
        }
        Ok(entry)
    }

    /// All grants of all profiles.
    pub(crate) async fn list_grants(&self, sender: &Sender) -> Result<Vec<GrantEntry>, SecretsDenial> {
        let result = identified(Action::Grants, sender).map(|()| self.grants.list());
        conclude(&self.neighbours, About::of(Action::Grants, None, sender), result).await
    }

    /// Takes a grant back, whether that can be recorded or not.
    pub(crate) async fn revoke_grant(
        &self,
        call: &RevokeGrant,
        sender: &Sender,
    ) -> Result<GrantEntry, SecretsDenial> {
        let result = identified(Action::RevokeGrant, sender).and_then(|()| self.take_back(call.id));
        let grant = Some(GrantRecord { id: call.id, bounds: None });
        let entry = result.as_ref().ok().cloned();
        let about = About::of(Action::RevokeGrant, entry.as_ref().map(|entry| &entry.profile), sender);
        let subjects = entry.iter().map(|entry| entry.pattern.as_str().to_owned()).collect();
        conclude(&self.neighbours, About { subjects, ..about }.through(grant), result).await
    }

    fn take_back(&self, id: GrantId) -> Result<GrantEntry, Refusal> {
        let no_such = || Refusal { gate: Gate::Vault, denial: SecretsDenial::NoSuchGrant(id) };
        self.grants.revoke(id).ok_or_else(no_such)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::grants::tests::{TestClock, call, grants};
    use crate::service::tests::{PASSWORD, World, cli, profile};
    use core_types::name::LAUNCHER;
    use core_types::protocol::grants::GrantState;
    use core_types::protocol::profile::{Operation, Outcome};
    use core_types::protocol::secrets::{Get, GetBatch, History, List, Lock, Selection};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    /// A vault with `a`, and a clock for its grants.
    async fn world() -> (World, Arc<TestClock>) {
        let mut world = World::with_vault().await;
        let (grants, clock) = grants();
        world.daemon.grants = grants;
        world.set("a", b"x").await.unwrap();
        world.outcomes();
        (world, clock)
    }

    async fn make(world: &World, pattern: &str, uses: Option<u64>) -> GrantId {
        world.daemon.grant(&call(pattern, "backup", 10, uses), &cli()).await.unwrap().id
    }

    async fn backup_gets(world: &World, name: &str) -> Result<(), SecretsDenial> {
        let call = Get { profile: profile("work"), name: name.to_owned(), version: None };
        world.daemon.get(&call, &sender(Some("backup"))).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_grant_lets_a_reading_through_until_it_expires_and_its_uses_are_recorded() {
        let (world, clock) = world().await;
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        let id = make(&world, "a*", None).await;
        assert_eq!(backup_gets(&world, "a").await, Ok(()));
        assert_eq!(backup_gets(&world, "b").await, Err(SecretsDenial::Forbidden));
        clock.advance(10);
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::GrantExpired(id)));
        let entries = std::mem::take(&mut *world.daemon.neighbours.entries.lock().unwrap());
        let told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.operation, entry.grant.as_ref().map(|grant| grant.id)))
            .collect();
        let expected = [
            (Operation::Get, None),
            (Operation::Grant, Some(id)),
            (Operation::Get, Some(id)),
            (Operation::Get, None),
            (Operation::Get, Some(id)),
        ];
        assert_eq!(told, expected);
        let bounds = entries[1].grant.as_ref().unwrap().bounds.as_ref().unwrap();
        assert_eq!((bounds.to.as_str(), bounds.seconds, bounds.uses), ("backup", 10, None));
        assert_eq!(entries[1].subject.as_deref(), Some("a*"));
        assert!(matches!(&entries[4].outcome, Outcome::Denied { gate: Gate::AccessRule, .. }));
    }

    #[tokio::test]
    async fn a_grant_is_for_getting_and_nothing_else() {
        let (world, _) = world().await;
        make(&world, "*", None).await;
        let (daemon, backup) = (&world.daemon, sender(Some("backup")));
        let list = List { profile: profile("work"), pattern: None, after: None };
        assert!(matches!(daemon.list(&list, &backup).await, Err(SecretsDenial::Forbidden)));
        let history = History { profile: profile("work"), name: "a".to_owned() };
        assert!(matches!(daemon.history(&history, &backup).await, Err(SecretsDenial::Forbidden)));
        let batch = GetBatch { profile: profile("work"), selection: Selection::All, program: None };
        assert!(matches!(daemon.get_batch(&batch, &backup).await, Err(SecretsDenial::Forbidden)));
        assert_eq!(backup_gets(&world, "a").await, Ok(()));
        let old = Get { profile: profile("work"), name: "a".to_owned(), version: Some(1) };
        assert!(matches!(daemon.get(&old, &backup).await, Err(SecretsDenial::Forbidden)));
    }

    #[tokio::test]
    async fn a_rule_that_denies_wins_over_a_grant() {
        let (world, _) = world().await;
        make(&world, "*", None).await;
        world.write_config("[profiles.work.access.backup]\nget = ['b']\n");
        assert_eq!(backup_gets(&world, "a").await, Ok(()), "it is not listed, and not denied");
        world.write_config("[profiles.work.access.backup]\ndeny = ['a']\n");
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
    }

    #[tokio::test]
    async fn no_more_values_are_delivered_than_a_grant_is_for() {
        let (world, _) = world().await;
        let id = make(&world, "a", Some(5)).await;
        let world = Arc::new(world);
        let gets = (0..40).map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { backup_gets(&world, "a").await })
        });
        let (mut had, mut denied) = (0, 0);
        for get in gets.collect::<Vec<_>>() {
            match get.await.unwrap() {
                Ok(()) => had += 1,
                Err(SecretsDenial::GrantUsedUp(used)) if used == id => denied += 1,
                // Whoever was denied is slowed down.
                Err(SecretsDenial::RateLimited { .. }) => denied += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((had, denied), (5, 35));
        assert_eq!(world.daemon.list_grants(&cli()).await.unwrap()[0].state, GrantState::UsedUp);
    }

    #[tokio::test]
    async fn a_use_is_not_spent_on_a_value_that_is_not_delivered() {
        let (world, _) = world().await;
        make(&world, "*", Some(1)).await;
        assert!(matches!(backup_gets(&world, "none").await, Err(SecretsDenial::NoSuchSecret(_))));
        assert!(matches!(backup_gets(&world, "../x").await, Err(SecretsDenial::InvalidName(_))));
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        assert!(matches!(backup_gets(&world, "a").await, Err(SecretsDenial::AuditUnwritable { .. })));
        world.daemon.neighbours.unwritable.store(false, Ordering::SeqCst);
        assert_eq!(backup_gets(&world, "a").await, Ok(()));
        assert!(matches!(backup_gets(&world, "a").await, Err(SecretsDenial::GrantUsedUp(_))));
    }

    #[tokio::test]
    async fn only_the_user_grants_and_for_an_unlocked_profile() {
        let (world, _) = world().await;
        let daemon = &world.daemon;
        let id = make(&world, "a", None).await;
        for who in ["backup", LAUNCHER, "daemon-profile", "daemon-bus"] {
            let who = sender(Some(who));
            let made = daemon.grant(&call("a", "backup", 10, None), &who).await;
            assert!(matches!(made, Err(SecretsDenial::Identity { .. })));
            assert!(matches!(daemon.list_grants(&who).await, Err(SecretsDenial::Identity { .. })));
            let revoked = daemon.revoke_grant(&RevokeGrant { id }, &who).await;
            assert!(matches!(revoked, Err(SecretsDenial::Identity { .. })));
        }
        assert_eq!(daemon.list_grants(&cli()).await.unwrap().len(), 1);
        daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        assert_eq!(daemon.list_grants(&cli()).await.unwrap().len(), 0);
        assert_eq!(daemon.grant(&call("a", "backup", 10, None), &cli()).await, Err(SecretsDenial::Locked));
        world.unlock("work", PASSWORD).await.unwrap();
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden), "locking ended it");
    }

    #[tokio::test]
    async fn a_grant_that_cannot_be_recorded_does_not_hold_and_one_is_taken_back_in_any_case() {
        let (world, _) = world().await;
        let unwritable = |yes| world.daemon.neighbours.unwritable.store(yes, Ordering::SeqCst);
        let full_at_last = |yes| world.daemon.neighbours.full_at_last.store(yes, Ordering::SeqCst);
        for fails in [&unwritable as &dyn Fn(bool), &full_at_last] {
            fails(true);
            let made = world.daemon.grant(&call("a", "backup", 10, None), &cli()).await;
            assert!(matches!(made, Err(SecretsDenial::AuditUnwritable { .. })));
            fails(false);
            assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
            assert_eq!(world.daemon.list_grants(&cli()).await, Ok(Vec::new()));
        }
        let id = make(&world, "a", None).await;
        unwritable(true);
        assert!(world.daemon.revoke_grant(&RevokeGrant { id }, &cli()).await.is_err());
        unwritable(false);
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        let again = world.daemon.revoke_grant(&RevokeGrant { id }, &cli()).await;
        assert_eq!(again, Err(SecretsDenial::NoSuchGrant(id)));
    }
}
