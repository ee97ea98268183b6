//! Making, unlocking and locking vaults.

use std::sync::Arc;
use std::time::Instant;

use core_daemon::Room;
use core_secrets::vault::OpenVault;
use core_types::header::Sender;
use core_types::name::{DaemonName, ProfileName, SECRETS};
use core_types::protocol::profile::LockCause;
use core_types::protocol::secrets::{
    AcceptRollback, FactorKind, Gate, Init, Lock, LockFor, ProfileChanged, ProfileEntry, SecretsDenial,
    Unlock, Unlocked,
};

use crate::acl::{Action, Requester, Role};
use crate::attempt::{Proves, by_vault, failed, identified};
use crate::crud::{ProfileStatus, Refusal};
use crate::neighbours::Neighbours;
use crate::operations::several;
use crate::proofs::{proofs, usable};
use crate::rate_limit::Cost;
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;
use crate::vault::rolled_back;

impl<N: Neighbours> SecretsDaemon<N> {
    /// Makes a vault and leaves it unlocked.
    pub(crate) async fn init(
        &self,
        call: &Init,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<(), SecretsDenial> {
        let profile = &call.profile;
        let mut room = Room::none();
        let result = async {
            identified(Action::Init, sender)?;
            room = self.room(profile)?;
            let password = usable(FactorKind::Password, &call.password)?;
            let _turn = self.turn(profile, deadline).await?;
            let (folder, params) = (self.vaults.folder(profile), self.kdf_cost);
            let open = self.derive(move || folder.create(password.expose(), params)).await;
            self.opened(profile, open.map_err(|error| failed(profile, error))?);
            Ok(())
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            About::of(Action::Init, Some(profile), sender).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// Unlocks a profile.
    pub(crate) async fn unlock(
        &self,
        call: &Unlock,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<Unlocked, SecretsDenial> {
        let profile = &call.profile;
        let mut room = Room::none();
        let result = async {
            identified(Action::Unlock, sender)?;
            room = self.room(profile)?;
            if self.vaults.status(profile) == ProfileStatus::Unlocked {
                return self.as_it_was_left(profile, Unlocked::Already);
            }
            let header = self.header(profile).await?;
            let proofs = proofs(&header, &call.factors)?;
            header.check_enough(&proofs).map_err(|error| failed(profile, error.into()))?;
            let _turn = self.turn(profile, deadline).await?;
            if self.vaults.status(profile) == ProfileStatus::Unlocked {
                return self.as_it_was_left(profile, Unlocked::Already);
            }
            let (folder, cost) = (self.vaults.folder(profile), self.kdf_cost);
            let tried = self.try_factor(profile, deadline, Proves::All, move |recorded| {
                let open = folder.unlock_at_least(&proofs, recorded)?;
                let raised = folder.raise_cost(&open, &proofs, cost);
                Ok((open, raised))
            });
            let (open, raised) = tried.await?;
            match raised {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(%profile, "a password costs as much to try as configured from now on")
                }
                Err(error) => tracing::warn!(%profile, %error, "the cost of a password could not be raised"),
            }
            self.opened(profile, open);
            self.as_it_was_left(profile, Unlocked::Now)
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            About::of(Action::Unlock, Some(profile), sender).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// The answer for an unlocked profile, unless its vault is not the one that was written last: that is told each time
    /// until it is accepted.
    fn as_it_was_left(&self, profile: &ProfileName, unlocked: Unlocked) -> Result<Unlocked, Refusal> {
        match self.vaults.rollback(profile) {
            None => Ok(unlocked),
            Some(found) => Err(by_vault(rolled_back(profile, &found))),
        }
    }

    /// Takes a vault that is not the one that was written last for the right one; `false` if it is that one.
    pub(crate) async fn accept_rollback(
        &self,
        call: &AcceptRollback,
        sender: &Sender,
    ) -> Result<bool, SecretsDenial> {
        let cost = Cost { tokens: 1, names: 1 };
        let attempt = several(Action::AcceptRollback, &call.profile, Vec::new(), cost, sender);
        let mut room = Room::none();
        let result = async {
            let permit = self.authorize(&attempt).await?;
            room = self.room(&call.profile)?;
            self.vaults.accept_rollback(&permit, 0).await.map_err(by_vault)
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            About::of(Action::AcceptRollback, Some(&call.profile), sender)
                .changing(&self.vaults)
                .holding(room),
            result,
        )
        .await
    }

    /// Locks one profile or all. Answers when no key and no value of them is in memory.
    pub(crate) async fn lock(&self, call: &Lock, sender: &Sender) -> Result<Vec<ProfileName>, SecretsDenial> {
        let about = About::of(Action::Lock, call.profile.as_ref(), sender);
        let wanted = match self.wanted(call, sender) {
            Ok(wanted) if !wanted.is_empty() => wanted,
            nothing => return conclude(&self.neighbours, about, nothing).await,
        };
        let mut locked = Vec::new();
        for profile in wanted {
            if self.lock_because(&profile, sender, LockCause::User).await {
                locked.push(profile.clone());
            }
        }
        Ok(locked)
    }

    /// Locks a profile whose time is over, for `daemon-profile`, which watches that; `false` if it was locked, which is
    /// no attempt worth an entry.
    pub(crate) async fn lock_for(&self, call: &LockFor, sender: &Sender) -> Result<bool, SecretsDenial> {
        let requester = Requester::from(sender);
        if requester.role() != Role::Profile {
            let denial = SecretsDenial::Identity { requester: requester.name().to_owned() };
            let refusal = Refusal { gate: Gate::Identity, denial };
            let about = About::of(Action::Lock, Some(&call.profile), sender);
            return conclude(&self.neighbours, about, Err(refusal)).await;
        }
        if self.vaults.status(&call.profile) != ProfileStatus::Unlocked {
            return Ok(false);
        }
        Ok(self.lock_because(&call.profile, sender, call.cause).await)
    }

    /// The profiles that a request to lock is about.
    fn wanted(&self, call: &Lock, sender: &Sender) -> Result<Vec<ProfileName>, Refusal> {
        identified(Action::Lock, sender)?;
        match &call.profile {
            None => Ok(self.vaults.unlocked()),
            Some(profile) if self.vaults.status(profile) == ProfileStatus::Missing => {
                Err(by_vault(SecretsDenial::NoSuchProfile(profile.clone())))
            }
            Some(profile) => Ok(vec![profile.clone()]),
        }
    }

    /// All profiles and their state.
    pub(crate) async fn profiles(&self, sender: &Sender) -> Result<Vec<ProfileEntry>, SecretsDenial> {
        let result = async {
            identified(Action::Profiles, sender)?;
            let vaults = Arc::clone(&self.vaults);
            let listed = tokio::task::spawn_blocking(move || vaults.profiles()).await;
            listed.unwrap_or_else(|error| Err(SecretsDenial::Storage(error.to_string()))).map_err(by_vault)
        };
        conclude(&self.neighbours, About::of(Action::Profiles, None, sender), result.await).await
    }

    /// Locks a profile, makes that known and records it; `false` if it was locked.
    pub(crate) async fn lock_because(
        &self,
        profile: &ProfileName,
        sender: &Sender,
        cause: LockCause,
    ) -> bool {
        let locked = self.lock_one(profile).await;
        let about = About::of(Action::Lock, Some(profile), sender).changing(&self.vaults).because(cause);
        // Locked it is, whether that can be recorded or not.
        let _ = conclude(&self.neighbours, about, Ok(())).await;
        locked
    }

    /// Locks a profile and makes it known; `false` if it was locked.
    async fn lock_one(&self, profile: &ProfileName) -> bool {
        if self.vaults.status(profile) == ProfileStatus::Unlocked {
            self.anchor_before_lock(profile).await;
        }
        let locked = self.vaults.lock(profile).await;
        self.grants.forget(profile);
        if locked {
            tracing::info!(%profile, "locked");
            self.neighbours.publish(ProfileChanged { profile: profile.clone(), unlocked: false });
        }
        locked
    }

    /// Locks a profile because this daemon ends.
    pub(crate) async fn lock_at_end(&self, profile: &ProfileName) {
        self.lock_because(profile, &self_as_sender(), LockCause::Shutdown).await;
    }

    pub(crate) fn opened(&self, profile: &ProfileName, open: OpenVault) {
        self.vaults.install(profile, open);
        tracing::info!(%profile, "unlocked");
        self.neighbours.publish(ProfileChanged { profile: profile.clone(), unlocked: true });
    }
}

/// This daemon, as the one that asked for what it does by itself.
fn self_as_sender() -> Sender {
    Sender {
        name: DaemonName::parse(SECRETS).ok(),
        connection: 0,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: Some(std::process::id()),
        executable: None,
        unit: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, later, profile, unlock_call, wire};
    use core_types::limits::PASSWORD_BYTES_MAX;
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::ProfileState;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    async fn lock(world: &World, name: Option<&str>) -> Result<Vec<ProfileName>, SecretsDenial> {
        world.daemon.lock(&Lock { profile: name.map(profile) }, &cli()).await
    }

    fn ended(world: &World) -> Vec<bool> {
        std::mem::take(&mut *world.daemon.neighbours.ended.lock().unwrap())
    }

    fn record(operation: Operation, outcome: &str) -> (Operation, Option<String>, String) {
        (operation, None, outcome.to_owned())
    }

    #[tokio::test]
    async fn a_profile_goes_from_init_to_lock_to_unlock() {
        let world = World::new();
        world.init("work").await.unwrap();
        world.set("a", b"value").await.unwrap();
        assert_eq!(world.unlock("work", b"whatever").await, Ok(Unlocked::Already));
        assert_eq!(world.unlock("work", b"").await, Ok(Unlocked::Already), "no password is needed");
        assert_eq!(lock(&world, Some("work")).await.unwrap(), [profile("work")]);
        assert_eq!(lock(&world, Some("work")).await.unwrap(), []);
        assert_eq!(world.get("a").await, Err(SecretsDenial::Locked));
        assert_eq!(world.unlock("work", b"right").await, Ok(Unlocked::Now));
        assert_eq!(world.get("a").await.unwrap(), b"value");
        let changes = world.daemon.neighbours.changes.lock().unwrap().clone();
        assert_eq!(changes, [true, false, true].map(|unlocked| ("work".to_owned(), unlocked)));
        assert_eq!(world.daemon.neighbours.begun.load(Ordering::SeqCst), 1, "only one password was tried");
        assert_eq!(ended(&world), [true]);
    }

    #[tokio::test]
    async fn every_attempt_is_recorded_once() {
        let world = World::new();
        world.init("work").await.unwrap();
        world.init("work").await.unwrap_err();
        lock(&world, None).await.unwrap();
        lock(&world, None).await.unwrap();
        world.unlock("work", b"wrong").await.unwrap_err();
        world.unlock("none", b"wrong").await.unwrap_err();
        world.unlock("work", b"right").await.unwrap();
        assert_eq!(
            world.outcomes(),
            [
                record(Operation::Init, "done"),
                record(Operation::Init, "failed: profile 'work' exists already"),
                record(Operation::Lock, "done"),
                record(Operation::Lock, "done"),
                record(Operation::Unlock, "failed: the password is wrong"),
                record(Operation::Unlock, "failed: there is no profile 'none'"),
                record(Operation::Unlock, "done"),
            ]
        );
    }

    #[tokio::test]
    async fn a_wrong_password_is_told_and_counted() {
        let world = World::with_vault().await;
        lock(&world, None).await.unwrap();
        assert_eq!(
            world.unlock("work", b"wrong").await,
            Err(SecretsDenial::WrongFactor(FactorKind::Password))
        );
        assert_eq!(ended(&world), [false]);
        assert_eq!(world.unlock("work", b"right").await, Ok(Unlocked::Now));
        assert_eq!(ended(&world), [true]);
    }

    #[tokio::test]
    async fn no_password_is_tried_that_daemon_profile_does_not_count() {
        let world = World::with_vault().await;
        lock(&world, None).await.unwrap();
        world.daemon.neighbours.unreachable.store(true, Ordering::SeqCst);
        assert_eq!(world.unlock("work", b"right").await, Err(SecretsDenial::Unrecorded));
        assert!(!world.daemon.vaults.any_unlocked());
    }

    #[tokio::test(start_paused = true)]
    async fn the_imposed_wait_is_waited_while_others_go_on() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        world.init("slow").await.unwrap();
        lock(&world, Some("slow")).await.unwrap();
        *world.daemon.neighbours.wait.lock().unwrap() = Duration::from_secs(9);
        let started = tokio::time::Instant::now();
        let unlocking = async {
            assert_eq!(world.unlock("slow", b"right").await, Ok(Unlocked::Now));
            started.elapsed()
        };
        let others = async {
            while world.daemon.neighbours.begun.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            *world.daemon.neighbours.wait.lock().unwrap() = Duration::ZERO;
            world.get("a").await.unwrap();
            world.init("other").await.unwrap();
            lock(&world, Some("other")).await.unwrap();
            assert_eq!(world.unlock("other", b"right").await, Ok(Unlocked::Now));
            started.elapsed()
        };
        let (waited, meanwhile) = tokio::join!(unlocking, others);
        assert!(waited >= Duration::from_secs(9), "{waited:?}");
        assert!(meanwhile < Duration::from_secs(9), "{meanwhile:?}");
    }

    #[tokio::test]
    async fn a_wait_beyond_the_deadline_is_refused_at_once() {
        let world = World::with_vault().await;
        lock(&world, None).await.unwrap();
        *world.daemon.neighbours.wait.lock().unwrap() = Duration::from_secs(9);
        let call = unlock_call("work", b"right");
        let deadline = Instant::now() + Duration::from_secs(5);
        let refused = world.daemon.unlock(&call, &cli(), deadline).await;
        assert_eq!(refused, Err(SecretsDenial::RateLimited { retry_ms: 9_000 }));
        assert_eq!(ended(&world), [false]);
        assert!(!world.daemon.vaults.any_unlocked());
    }

    #[tokio::test]
    async fn whoever_stopped_waiting_loses_the_turn_untried() {
        let world = World::with_vault().await;
        lock(&world, None).await.unwrap();
        let call = unlock_call("work", b"right");
        let refused = world.daemon.unlock(&call, &cli(), Instant::now()).await;
        assert!(matches!(refused, Err(SecretsDenial::RateLimited { .. })));
        assert_eq!(world.daemon.neighbours.begun.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn two_right_passwords_at_once_unlock_once() {
        let world = World::with_vault().await;
        lock(&world, None).await.unwrap();
        let (one, other) = tokio::join!(world.unlock("work", b"right"), world.unlock("work", b"right"));
        let now = [&one, &other].iter().filter(|result| ***result == Ok(Unlocked::Now)).count();
        let already = [&one, &other].iter().filter(|result| ***result == Ok(Unlocked::Already)).count();
        assert_eq!((now, already), (1, 1), "{one:?} {other:?}");
        assert_eq!(world.daemon.neighbours.begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_damaged_vault_is_damage_and_no_attempt() {
        let world = World::with_vault().await;
        lock(&world, None).await.unwrap();
        let header = world.paths.vault(&profile("work")).join("header.json");
        std::fs::write(&header, b"{}").unwrap();
        assert!(matches!(world.unlock("work", b"right").await, Err(SecretsDenial::Damaged(_))));
        assert_eq!(world.daemon.neighbours.begun.load(Ordering::SeqCst), 0);
        let profiles = world.daemon.profiles(&cli()).await.unwrap();
        assert!(matches!(profiles[0].state, ProfileState::Damaged(_)));
    }

    #[tokio::test]
    async fn two_daemons_never_open_one_vault() {
        let world = World::with_vault().await;
        let other = World::another(&world.paths);
        let call = unlock_call("work", b"right");
        let refused = other.unlock(&call, &cli(), later()).await;
        assert!(matches!(refused, Err(SecretsDenial::Storage(_))), "{refused:?}");
        assert_eq!(*other.neighbours.ended.lock().unwrap(), [false], "it forgives nothing");
        lock(&world, None).await.unwrap();
        assert_eq!(other.unlock(&call, &cli(), later()).await, Ok(Unlocked::Now));
    }

    #[tokio::test]
    async fn passwords_of_no_usable_length_are_refused_untried() {
        let world = World::new();
        for password in [&b""[..], &[b'x'; PASSWORD_BYTES_MAX + 1]] {
            let call = Init { profile: profile("work"), password: wire(password) };
            assert_eq!(
                world.daemon.init(&call, &cli(), later()).await,
                Err(SecretsDenial::UnusableFactor(FactorKind::Password))
            );
        }
        assert!(world.daemon.profiles(&cli()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn only_those_who_may_make_unlock_or_lock() {
        let world = World::with_vault().await;
        for name in ["daemon-launcher", "daemon-bus", "backup"] {
            let who = sender(Some(name));
            let denied = SecretsDenial::Identity { requester: name.to_owned() };
            let init = Init { profile: profile("mine"), password: wire(b"x") };
            assert_eq!(world.daemon.init(&init, &who, later()).await, Err(denied.clone()));
            let unlock = unlock_call("work", b"right");
            assert_eq!(world.daemon.unlock(&unlock, &who, later()).await, Err(denied.clone()));
            assert_eq!(world.daemon.lock(&Lock { profile: None }, &who).await, Err(denied));
        }
        let denied = "denied at Identity";
        let three = [Operation::Init, Operation::Unlock, Operation::Lock];
        let expected: Vec<_> =
            three.iter().cycle().take(9).map(|operation| record(*operation, denied)).collect();
        assert_eq!(world.outcomes(), expected);
        assert!(world.daemon.vaults.any_unlocked());
        let lock_for = LockFor { profile: profile("work"), cause: LockCause::Idle };
        for name in [None, Some("daemon-launcher"), Some("backup")] {
            let who = sender(name);
            let denied = SecretsDenial::Identity { requester: who.requester().to_owned() };
            assert_eq!(world.daemon.lock_for(&lock_for, &who).await, Err(denied));
        }
        assert!(world.daemon.vaults.any_unlocked());
        let profile_daemon = sender(Some("daemon-profile"));
        assert_eq!(world.daemon.lock(&Lock { profile: None }, &profile_daemon).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn profiles_are_shown_with_their_state() {
        let world = World::with_vault().await;
        world.init("home").await.unwrap();
        lock(&world, Some("work")).await.unwrap();
        std::fs::create_dir(world.paths.vaults().join(".half.new")).unwrap();
        let profiles = world.daemon.profiles(&cli()).await.unwrap();
        let shown: Vec<_> = profiles
            .iter()
            .map(|entry| (entry.name.as_str(), matches!(entry.state, ProfileState::Unlocked { .. })))
            .collect();
        assert_eq!(shown, [("home", true), ("work", false)]);
        assert!(profiles.iter().all(|entry| entry.created_unix_ms > 1_700_000_000_000));
        assert_eq!(lock(&world, Some("none")).await, Err(SecretsDenial::NoSuchProfile(profile("none"))));
    }

    /// The files of a profile's vault, to be put back later.
    fn copy(world: &World) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(world.paths.vault(&profile("work"))).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .filter(|path| !path.ends_with("lock"))
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }

    fn put_back(files: &[(std::path::PathBuf, Vec<u8>)]) {
        files.iter().for_each(|(path, bytes)| core_crypto::private_fs::write_atomic(path, bytes).unwrap());
    }

    /// An unlocked profile that was put back to a time before its last write.
    async fn rolled_back_world() -> World {
        let world = World::with_vault().await;
        world.set("a", b"old").await.unwrap();
        lock(&world, None).await.unwrap();
        let files = copy(&world);
        world.unlock("work", b"right").await.unwrap();
        world.set("a", b"new").await.unwrap();
        lock(&world, None).await.unwrap();
        put_back(&files);
        world.outcomes();
        world
    }

    #[tokio::test]
    async fn a_vault_that_was_rolled_back_is_read_only_until_that_is_accepted() {
        let world = rolled_back_world().await;
        let accept = AcceptRollback { profile: profile("work") };
        let found = "it has seen 1 changes, and 2 were made".to_owned();
        let rolled_back = SecretsDenial::RolledBack { profile: profile("work"), found: found.clone() };
        assert_eq!(world.unlock("work", b"right").await, Err(rolled_back.clone()));
        assert_eq!(world.unlock("work", b"").await, Err(rolled_back), "as often as one asks");
        assert_eq!(world.get("a").await.unwrap(), b"old");
        assert_eq!(world.set("a", b"x").await, Err(SecretsDenial::ReadOnly(profile("work"))));
        let shown = world.daemon.profiles(&cli()).await.unwrap().remove(0).state;
        assert!(matches!(shown, ProfileState::Unlocked { rollback: Some(text), .. } if text == found));
        let stranger = world.daemon.accept_rollback(&accept, &sender(Some("backup"))).await;
        assert_eq!(stranger, Err(SecretsDenial::Identity { requester: "backup".to_owned() }));
        assert_eq!(world.daemon.accept_rollback(&accept, &cli()).await, Ok(true));
        assert_eq!(world.daemon.accept_rollback(&accept, &cli()).await, Ok(false));
        world.set("a", b"x").await.unwrap();
        let denial = format!("failed: the vault of profile 'work' is not as it was left: {found}");
        let read_only =
            "failed: profile 'work' can only be read, because its vault is not as it was left".to_owned();
        let expected = [
            record(Operation::Unlock, &denial),
            record(Operation::Unlock, &denial),
            (Operation::Get, Some("a".to_owned()), "done".to_owned()),
            (Operation::Set, Some("a".to_owned()), read_only),
            record(Operation::AcceptRollback, "denied at Identity"),
            record(Operation::AcceptRollback, "done"),
            record(Operation::AcceptRollback, "done"),
            (Operation::Set, Some("a".to_owned()), "done".to_owned()),
        ];
        assert_eq!(world.outcomes(), expected);
        lock(&world, None).await.unwrap();
        assert_eq!(world.unlock("work", b"right").await, Ok(Unlocked::Now));
    }

    #[tokio::test]
    async fn a_locked_profile_has_nothing_to_accept() {
        let world = rolled_back_world().await;
        let accept = AcceptRollback { profile: profile("work") };
        assert_eq!(world.daemon.accept_rollback(&accept, &cli()).await, Err(SecretsDenial::Locked));
    }

    #[tokio::test]
    async fn a_vault_put_back_with_its_anchor_is_noticed_by_what_the_audit_log_knows() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        world.set("a", b"y").await.unwrap();
        lock(&world, None).await.unwrap();
        let entries = std::mem::take(&mut *world.daemon.neighbours.entries.lock().unwrap());
        let generations: Vec<_> = entries.iter().map(|entry| (entry.operation, entry.generation)).collect();
        let expected = [(Operation::Set, 1), (Operation::Set, 2), (Operation::Lock, 2)];
        assert_eq!(generations, expected.map(|(operation, generation)| (operation, Some(generation))));
        world.daemon.neighbours.recorded.store(7, Ordering::SeqCst);
        let told = world.unlock("work", b"right").await;
        assert!(matches!(told, Err(SecretsDenial::RolledBack { .. })), "{told:?}");
        let accept = AcceptRollback { profile: profile("work") };
        assert_eq!(world.daemon.accept_rollback(&accept, &cli()).await, Ok(true));
        lock(&world, None).await.unwrap();
        assert_eq!(world.unlock("work", b"right").await, Ok(Unlocked::Now), "it is above 7 now");
    }
}
