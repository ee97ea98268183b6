//! The ways to unlock: listing, adding and removing them, changing a password and the policy, trying a recovery code.
//!
//! Whoever changes how a vault is unlocked presents factors of it, whether it is unlocked or not: an open vault must
//! not be enough to add a way in. Each such attempt is an attempt at unlocking, with its wait.

use std::time::Instant;

use core_daemon::Room;
use core_secrets::header::{Change, Changed, HeaderError, Proof, VaultHeader, Way};
use core_secrets::vault::VaultError;
use core_types::ProfileName;
use core_types::header::Sender;
use core_types::protocol::secrets::{
    self, AddFactor, AgentKey, ChangePassword, CheckRecovery, FactorEntry, FactorKind, FactorPolicy,
    FactorProof, FactorSheet, Factors, RemoveFactor, SecretsDenial, SetPolicy,
};

use crate::acl::Action;
use crate::attempt::{Proves, failed, identified};
use crate::crud::Refusal;
use crate::neighbours::Neighbours;
use crate::proofs::{new_factor, proofs, usable};
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;
use crate::vault::Held;

/// An attempt to change how a profile is unlocked.
struct Attempted<'a> {
    profile: &'a ProfileName,
    deadline: Instant,
    change: Change,
    present: &'a [FactorProof],
}

impl<N: Neighbours> SecretsDaemon<N> {
    /// How a profile is unlocked.
    pub(crate) async fn factors(
        &self,
        call: &Factors,
        sender: &Sender,
    ) -> Result<FactorSheet, SecretsDenial> {
        let result = async {
            identified(Action::Factors, sender)?;
            Ok(sheet(&self.header(&call.profile).await?))
        };
        conclude(&self.neighbours, About::of(Action::Factors, Some(&call.profile), sender), result.await)
            .await
    }

    /// Changes a password. Guessing the old one is an unlock attempt like any other.
    pub(crate) async fn change_password(
        &self,
        call: &ChangePassword,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<(), SecretsDenial> {
        let (profile, factor) = (&call.profile, call.factor);
        let mut room = Room::none();
        let result = async {
            identified(Action::ChangePassword, sender)?;
            room = self.room(profile)?;
            let new = usable(FactorKind::Password, &call.new)?;
            let cost = self.kdf_cost;
            // An open vault's master key is known, so this one password is enough.
            let unlocked = self.vaults.hold(profile).is_some();
            let change = Change::Password { factor, unlocked };
            let attempted = Attempted { profile, deadline, change, present: &call.present };
            self.change_header(attempted, move |header, proofs, held| {
                let master = held.map(|held| &held.master_key);
                Ok(header.with_password(factor, proofs, master, new, cost)?.into())
            })
            .await
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            About::of(Action::ChangePassword, Some(profile), sender).holding(room),
            result,
        )
        .await
    }

    /// Adds a way to unlock.
    pub(crate) async fn add_factor(
        &self,
        call: &AddFactor,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<u32, SecretsDenial> {
        let profile = &call.profile;
        let mut room = Room::none();
        let result = async {
            identified(Action::AddFactor, sender)?;
            room = self.room(profile)?;
            let (new, label, cost) = (new_factor(&call.new)?, call.label.clone(), self.kdf_cost);
            if let secrets::NewFactor::SshAgent { key, .. } = &call.new {
                let header = self.header(profile).await?;
                header.check_new_key(&key.public_key).map_err(|error| failed(profile, error.into()))?;
            }
            let attempted = Attempted { profile, deadline, change: Change::Add, present: &call.present };
            self.change_header(attempted, move |header, proofs, _| {
                header.with_factor(proofs, label, new, cost)
            })
            .await
        };
        let result = result.await;
        let kind = match &call.new {
            secrets::NewFactor::Password { .. } => FactorKind::Password,
            secrets::NewFactor::SshAgent { .. } => FactorKind::SshAgent,
            secrets::NewFactor::Recovery { .. } => FactorKind::Recovery,
        };
        conclude(
            &self.neighbours,
            about(Action::AddFactor, profile, sender, kind.to_string()).holding(room),
            result,
        )
        .await
    }

    /// Removes a way to unlock.
    pub(crate) async fn remove_factor(
        &self,
        call: &RemoveFactor,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<(), SecretsDenial> {
        let (profile, factor) = (&call.profile, call.factor);
        let mut room = Room::none();
        let result = async {
            identified(Action::RemoveFactor, sender)?;
            room = self.room(profile)?;
            let change = Change::Remove { factor };
            let attempted = Attempted { profile, deadline, change, present: &call.present };
            self.change_header(attempted, move |header, proofs, _| {
                Ok(header.without_factor(proofs, factor)?.into())
            })
            .await
        };
        let result = result.await;
        let about = about(Action::RemoveFactor, profile, sender, format!("factor {factor}"));
        conclude(&self.neighbours, about.holding(room), result).await
    }

    /// Changes which factors are needed.
    pub(crate) async fn set_policy(
        &self,
        call: &SetPolicy,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<(), SecretsDenial> {
        let (profile, policy) = (&call.profile, call.policy);
        let mut room = Room::none();
        let result = async {
            identified(Action::SetPolicy, sender)?;
            room = self.room(profile)?;
            let attempted =
                Attempted { profile, deadline, change: Change::Policy(policy), present: &call.present };
            self.change_header(attempted, move |header, proofs, _| {
                Ok(header.with_policy(proofs, policy)?.into())
            })
            .await
        };
        let result = result.await;
        let about = about(Action::SetPolicy, profile, sender, policy.shown(call.present.len()));
        conclude(&self.neighbours, about.holding(room), result).await
    }

    /// Whether a recovery code is the profile's. Unlocks nothing.
    pub(crate) async fn check_recovery(
        &self,
        call: &CheckRecovery,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<bool, SecretsDenial> {
        let profile = &call.profile;
        let result = async {
            identified(Action::CheckRecovery, sender)?;
            let code = usable(FactorKind::Recovery, &call.code)?;
            let proves = proves(&self.header(profile).await?);
            let _turn = self.turn(profile, deadline).await?;
            let folder = self.vaults.folder(profile);
            let tried = self.try_factor(profile, deadline, proves, move |_| {
                match folder.header()?.has_recovery_code(&code)? {
                    true => Ok(()),
                    false => Err(HeaderError::WrongFactor(FactorKind::Recovery).into()),
                }
            });
            tried.await
        };
        let result =
            conclude(&self.neighbours, About::of(Action::CheckRecovery, Some(profile), sender), result.await)
                .await;
        match result {
            Ok(()) => Ok(true),
            Err(SecretsDenial::WrongFactor(_)) => Ok(false),
            Err(denial) => Err(denial),
        }
    }

    /// Replaces a profile's header by what `work` makes of it, in one attempt at unlocking.
    async fn change_header<T: Send + 'static>(
        &self,
        attempted: Attempted<'_>,
        work: impl FnOnce(&VaultHeader, &[Proof], Option<&Held>) -> Result<Changed<T>, HeaderError>
        + Send
        + 'static,
    ) -> Result<T, Refusal> {
        let Attempted { profile, deadline, change, present } = attempted;
        let header = self.header(profile).await?;
        let proofs = proofs(&header, present)?;
        header.check_for(change, &proofs).map_err(|error| failed(profile, error.into()))?;
        let proves = match header.check_enough(&proofs) {
            Ok(()) => Proves::All,
            Err(_) => Proves::APart,
        };
        let _turn = self.turn(profile, deadline).await?;
        let (folder, held) = (self.vaults.folder(profile), self.vaults.hold(profile));
        self.try_factor(profile, deadline, proves, move |_| {
            let own = match &held {
                Some(_) => None,
                None => Some(folder.lock()?),
            };
            let lock = held.as_ref().map(|held| held.lock.as_ref()).or(own.as_ref());
            let lock = lock.ok_or(VaultError::InUse)?;
            folder.change(lock, |header| work(header, &proofs, held.as_ref()))
        })
        .await
    }
}

fn about<'a>(action: Action, profile: &'a ProfileName, sender: &'a Sender, subject: String) -> About<'a> {
    About { subjects: vec![subject], ..About::of(action, Some(profile), sender) }
}

/// What one factor of a vault proves.
fn proves(header: &VaultHeader) -> Proves {
    if header.policy() == FactorPolicy::Any { Proves::All } else { Proves::APart }
}

pub(crate) fn sheet(header: &VaultHeader) -> FactorSheet {
    let entry = |factor: &core_secrets::header::Factor| FactorEntry {
        id: factor.id,
        kind: factor.way.kind(),
        label: factor.label.clone(),
        created_unix_ms: factor.created_unix_ms,
        agent: match &factor.way {
            Way::SshAgent { public_key, nonce } => {
                Some(AgentKey { public_key: public_key.clone(), nonce: *nonce })
            }
            Way::Password { .. } | Way::Recovery { .. } => None,
        },
    };
    FactorSheet { policy: header.policy(), factors: header.factors().iter().map(entry).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, later, password, profile, unlock_call, wire};
    use core_types::factor::AGENT_NONCE_BYTES;
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::{FactorLabel, Lock, NewFactor, Unlock, Unlocked, UnsupportedKey};
    use std::sync::atomic::Ordering;

    const CODE: [u8; 32] = [7; 32];
    const SIGNATURE: [u8; 64] = [1; 64];

    fn agent_key() -> AgentKey {
        let public_key = [b"\0\0\0\x0bssh-ed25519\0\0\0\x20".as_slice(), &[9; 32]].concat();
        AgentKey { public_key, nonce: [4; AGENT_NONCE_BYTES] }
    }

    fn agent() -> NewFactor {
        NewFactor::SshAgent { key: agent_key(), signature: wire(&SIGNATURE) }
    }

    fn recovery() -> NewFactor {
        NewFactor::Recovery { code: wire(&CODE) }
    }

    /// The right secrets of the password, the SSH key and the recovery code of [`three`].
    fn right(factors: &[u32]) -> Vec<FactorProof> {
        let secret = |factor: u32| match factor {
            1 => wire(b"right"),
            2 => wire(&SIGNATURE),
            _ => wire(&CODE),
        };
        factors.iter().map(|factor| FactorProof { factor: *factor, secret: secret(*factor) }).collect()
    }

    async fn add(world: &World, present: Vec<FactorProof>, new: NewFactor) -> Result<u32, SecretsDenial> {
        let call = AddFactor { profile: profile("work"), present, label: FactorLabel::of("mine"), new };
        world.daemon.add_factor(&call, &cli(), later()).await
    }

    async fn remove(world: &World, present: Vec<FactorProof>, factor: u32) -> Result<(), SecretsDenial> {
        let call = RemoveFactor { profile: profile("work"), present, factor };
        world.daemon.remove_factor(&call, &cli(), later()).await
    }

    async fn set_policy(
        world: &World,
        present: Vec<FactorProof>,
        policy: FactorPolicy,
    ) -> Result<(), SecretsDenial> {
        let call = SetPolicy { profile: profile("work"), present, policy };
        world.daemon.set_policy(&call, &cli(), later()).await
    }

    async fn change(world: &World, present: Vec<FactorProof>, new: &[u8]) -> Result<(), SecretsDenial> {
        let call = ChangePassword { profile: profile("work"), factor: 1, present, new: wire(new) };
        world.daemon.change_password(&call, &cli(), later()).await
    }

    async fn check(world: &World, code: &[u8]) -> Result<bool, SecretsDenial> {
        let call = CheckRecovery { profile: profile("work"), code: wire(code) };
        world.daemon.check_recovery(&call, &cli(), later()).await
    }

    async fn unlock(world: &World, factors: Vec<FactorProof>) -> Result<Unlocked, SecretsDenial> {
        world.daemon.unlock(&Unlock { profile: profile("work"), factors }, &cli(), later()).await
    }

    async fn lock(world: &World) {
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
    }

    fn ended(world: &World) -> Vec<bool> {
        std::mem::take(&mut *world.daemon.neighbours.ended.lock().unwrap())
    }

    /// An unlocked vault with a password, an SSH key and a recovery code.
    async fn three(policy: FactorPolicy) -> World {
        let world = World::with_vault().await;
        assert_eq!(add(&world, right(&[1]), agent()).await, Ok(2));
        assert_eq!(add(&world, right(&[2]), recovery()).await, Ok(3));
        if policy != FactorPolicy::Any {
            set_policy(&world, right(&[1, 2, 3]), policy).await.unwrap();
        }
        world.outcomes();
        ended(&world);
        world
    }

    #[tokio::test]
    async fn a_policy_of_two_of_three_unlocks_with_each_pair_and_with_no_single_one() {
        let world = three(FactorPolicy::Threshold(2)).await;
        world.set("a", b"value").await.unwrap();
        for pair in [[1, 2], [2, 3], [3, 1]] {
            lock(&world).await;
            for one in pair {
                let few = SecretsDenial::NotEnoughFactors { given: 1, needed: 2, of: 3 };
                assert_eq!(unlock(&world, right(&[one])).await, Err(few));
            }
            assert_eq!(ended(&world), [] as [bool; 0], "what is too little is no attempt");
            assert_eq!(unlock(&world, right(&pair)).await, Ok(Unlocked::Now));
            assert_eq!(ended(&world), [true]);
            assert_eq!(world.get("a").await.unwrap(), b"value");
        }
    }

    #[tokio::test]
    async fn every_kind_of_wrong_factor_is_named_and_counted() {
        let world = three(FactorPolicy::Any).await;
        lock(&world).await;
        for (factor, wrong, kind) in [
            (1, wire(b"wrong"), FactorKind::Password),
            (2, wire(&[2; 64]), FactorKind::SshAgent),
            (3, wire(&[2; 32]), FactorKind::Recovery),
        ] {
            let refused = unlock(&world, vec![FactorProof { factor, secret: wrong }]).await;
            assert_eq!(refused, Err(SecretsDenial::WrongFactor(kind)));
            assert_eq!(ended(&world), [false]);
            assert_eq!(unlock(&world, right(&[factor])).await, Ok(Unlocked::Now));
            assert_eq!(ended(&world), [true]);
            lock(&world).await;
        }
        assert_eq!(unlock(&world, right(&[4])).await, Err(SecretsDenial::NoSuchFactor(4)));
        let short = vec![FactorProof { factor: 3, secret: wire(&[7; 31]) }];
        assert_eq!(unlock(&world, short).await, Err(SecretsDenial::UnusableFactor(FactorKind::Recovery)));
        assert_eq!(ended(&world), [] as [bool; 0]);
    }

    #[tokio::test]
    async fn an_unlocked_profile_is_not_enough_to_change_how_it_is_unlocked() {
        let world = three(FactorPolicy::Any).await;
        let none = SecretsDenial::NotEnoughFactors { given: 0, needed: 1, of: 3 };
        let second = || NewFactor::Password { password: wire(b"second") };
        assert_eq!(add(&world, Vec::new(), second()).await, Err(none.clone()));
        assert_eq!(remove(&world, Vec::new(), 1).await, Err(none));
        let all = SecretsDenial::NotEnoughFactors { given: 1, needed: 3, of: 3 };
        assert_eq!(set_policy(&world, right(&[1]), FactorPolicy::All).await, Err(all));
        let wrong = Err(SecretsDenial::WrongFactor(FactorKind::Password));
        assert_eq!(add(&world, vec![password(b"wrong")], second()).await, wrong.clone().map(|()| 0));
        assert_eq!(remove(&world, vec![password(b"wrong")], 2).await, wrong);
        assert_eq!(ended(&world), [false, false]);
    }

    #[tokio::test]
    async fn the_last_way_in_cannot_be_removed_and_none_that_the_policy_needs() {
        let world = three(FactorPolicy::Any).await;
        remove(&world, right(&[1]), 1).await.unwrap();
        remove(&world, right(&[2]), 3).await.unwrap();
        assert_eq!(remove(&world, right(&[2]), 2).await, Err(SecretsDenial::LastFactor));
        let world = three(FactorPolicy::Threshold(2)).await;
        remove(&world, right(&[1, 2]), 3).await.unwrap();
        let impossible = SecretsDenial::PolicyImpossible { policy: FactorPolicy::Threshold(2), factors: 1 };
        assert_eq!(remove(&world, right(&[1, 2]), 2).await, Err(impossible));
        lock(&world).await;
        assert_eq!(unlock(&world, right(&[1, 2])).await, Ok(Unlocked::Now));
    }

    #[tokio::test]
    async fn a_recovery_code_is_checked_without_unlocking_and_counts_as_an_attempt() {
        for (policy, forgiven) in [(FactorPolicy::Any, true), (FactorPolicy::All, false)] {
            let world = three(policy).await;
            lock(&world).await;
            let begun = world.daemon.neighbours.begun.load(Ordering::SeqCst);
            assert_eq!(check(&world, &[8; 32]).await, Ok(false));
            assert_eq!(check(&world, &CODE).await, Ok(true));
            assert_eq!(world.daemon.neighbours.begun.load(Ordering::SeqCst), begun + 2);
            // One factor of several forgives no wrong attempts at the others.
            assert_eq!(ended(&world), [false, forgiven], "{policy:?}");
            assert!(!world.daemon.vaults.any_unlocked());
            assert_eq!(
                check(&world, b"short").await,
                Err(SecretsDenial::UnusableFactor(FactorKind::Recovery))
            );
        }
    }

    #[tokio::test]
    async fn a_password_is_changed_under_every_policy_locked_or_unlocked() {
        for (policy, needed) in
            [(FactorPolicy::Any, 1), (FactorPolicy::Threshold(2), 2), (FactorPolicy::All, 3)]
        {
            let world = three(policy).await;
            let others = &right(&[2, 3])[..needed - 1];
            let with = |secret: &[u8]| [vec![password(secret)], others.to_vec()].concat();
            assert_eq!(
                change(&world, vec![password(b"wrong")], b"x").await,
                Err(SecretsDenial::WrongFactor(FactorKind::Password))
            );
            assert_eq!(
                change(&world, right(&[1]), b"").await,
                Err(SecretsDenial::UnusableFactor(FactorKind::Password))
            );
            change(&world, right(&[1]), b"second").await.unwrap();
            assert_eq!(ended(&world), [false, needed == 1], "{policy:?}");
            lock(&world).await;
            if needed > 1 {
                let few = change(&world, vec![password(b"second")], b"third").await;
                assert!(matches!(few, Err(SecretsDenial::NotEnoughFactors { given: 1, .. })), "{few:?}");
            }
            change(&world, with(b"second"), b"third").await.unwrap();
            assert_eq!(
                unlock(&world, with(b"second")).await,
                Err(SecretsDenial::WrongFactor(FactorKind::Password))
            );
            assert_eq!(unlock(&world, with(b"third")).await, Ok(Unlocked::Now));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_added_is_refused_untried() {
        let world = three(FactorPolicy::Any).await;
        assert_eq!(add(&world, right(&[1]), agent()).await, Err(SecretsDenial::FactorExists(2)));
        let ecdsa = AgentKey { public_key: b"\0\0\0\x13ecdsa-sha2-nistp256".to_vec(), ..agent_key() };
        let ecdsa = NewFactor::SshAgent { key: ecdsa, signature: wire(b"x") };
        let refused = SecretsDenial::UnsupportedKey(UnsupportedKey::Ecdsa);
        assert_eq!(add(&world, right(&[1]), ecdsa).await, Err(refused));
        let long = NewFactor::Password { password: wire(&[b'x'; 4097]) };
        let unusable = SecretsDenial::UnusableFactor(FactorKind::Password);
        assert_eq!(add(&world, right(&[1]), long).await, Err(unusable));
        let policy = FactorPolicy::Threshold(4);
        let impossible = SecretsDenial::PolicyImpossible { policy, factors: 3 };
        assert_eq!(set_policy(&world, right(&[1, 2, 3]), policy).await, Err(impossible));
        let other =
            ChangePassword { profile: profile("work"), factor: 2, present: right(&[2]), new: wire(b"x") };
        let other = world.daemon.change_password(&other, &cli(), later()).await;
        assert_eq!(other, Err(SecretsDenial::NotAPassword(2)));
        assert_eq!(ended(&world), [] as [bool; 0]);
    }

    #[tokio::test]
    async fn the_sheet_and_the_profile_show_what_there_is_and_nothing_secret() {
        let world = three(FactorPolicy::Threshold(2)).await;
        lock(&world).await;
        let call = Factors { profile: profile("work") };
        let sheet = world.daemon.factors(&call, &cli()).await.unwrap();
        let kinds = [FactorKind::Password, FactorKind::SshAgent, FactorKind::Recovery];
        assert_eq!(sheet.policy, FactorPolicy::Threshold(2));
        assert_eq!(sheet.factors.iter().map(|factor| factor.kind).collect::<Vec<_>>(), kinds);
        assert_eq!(sheet.factors.iter().map(|factor| factor.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(sheet.factors[1].agent, Some(agent_key()));
        assert_eq!((&sheet.factors[0].agent, sheet.factors[1].label.as_str()), (&None, "mine"));
        let entry = &world.daemon.profiles(&cli()).await.unwrap()[0];
        assert_eq!((entry.factors.as_slice(), entry.policy), (&kinds[..], FactorPolicy::Threshold(2)));
        assert_eq!(ended(&world), [] as [bool; 0]);
        let none = Factors { profile: profile("none") };
        let none = world.daemon.factors(&none, &cli()).await;
        assert_eq!(none, Err(SecretsDenial::NoSuchProfile(profile("none"))));
    }

    #[tokio::test]
    async fn every_change_is_recorded_with_what_it_was_about() {
        let world = World::with_vault().await;
        add(&world, right(&[1]), recovery()).await.unwrap();
        set_policy(
            &world,
            vec![password(b"right"), FactorProof { factor: 2, secret: wire(&CODE) }],
            FactorPolicy::All,
        )
        .await
        .unwrap();
        check(&world, &[1; 32]).await.unwrap();
        remove(&world, right(&[1]), 2).await.unwrap_err();
        let about = |subject: &str| Some(subject.to_owned());
        assert_eq!(
            world.outcomes(),
            [
                (Operation::AddFactor, about("recovery"), "done".to_owned()),
                (Operation::SetPolicy, about("all"), "done".to_owned()),
                (Operation::CheckRecovery, None, "failed: the recovery code is wrong".to_owned()),
                (
                    Operation::RemoveFactor,
                    about("factor 2"),
                    "failed: the policy 'all' does not go with 1 ways to unlock".to_owned()
                ),
            ]
        );
    }

    #[tokio::test]
    async fn only_the_command_line_may_see_or_change_the_ways_to_unlock() {
        let world = World::with_vault().await;
        for name in ["daemon-launcher", "daemon-profile", "backup"] {
            let (who, work) = (sender(Some(name)), profile("work"));
            let denied = SecretsDenial::Identity { requester: name.to_owned() };
            let factors = Factors { profile: work.clone() };
            assert_eq!(world.daemon.factors(&factors, &who).await, Err(denied.clone()));
            let label = FactorLabel::default();
            let add = AddFactor { profile: work.clone(), present: right(&[1]), label, new: recovery() };
            assert_eq!(world.daemon.add_factor(&add, &who, later()).await, Err(denied.clone()));
            let remove = RemoveFactor { profile: work.clone(), present: right(&[1]), factor: 1 };
            assert_eq!(world.daemon.remove_factor(&remove, &who, later()).await, Err(denied.clone()));
            let policy = SetPolicy { profile: work.clone(), present: right(&[1]), policy: FactorPolicy::All };
            assert_eq!(world.daemon.set_policy(&policy, &who, later()).await, Err(denied.clone()));
            let check = CheckRecovery { profile: work.clone(), code: wire(&CODE) };
            assert_eq!(world.daemon.check_recovery(&check, &who, later()).await, Err(denied.clone()));
            let change = ChangePassword { profile: work, factor: 1, present: right(&[1]), new: wire(b"x") };
            assert_eq!(world.daemon.change_password(&change, &who, later()).await, Err(denied));
        }
        lock(&world).await;
        assert_eq!(
            world.daemon.unlock(&unlock_call("work", b"right"), &cli(), later()).await,
            Ok(Unlocked::Now)
        );
    }

    /// Else whoever opens many connections would have each attempt wait only as long as the first.
    #[tokio::test]
    async fn attempts_of_every_kind_at_once_are_made_one_by_one() {
        let world = three(FactorPolicy::Any).await;
        lock(&world).await;
        let wrong = |factor: u32| {
            let secret = if factor == 3 { wire(&[2; 32]) } else { wire(&[2; 64]) };
            vec![FactorProof { factor, secret }]
        };
        let (a, b, c, d, e) = tokio::join!(
            unlock(&world, wrong(1)),
            unlock(&world, wrong(2)),
            unlock(&world, wrong(3)),
            check(&world, &[2; 32]),
            change(&world, wrong(1), b"new"),
        );
        assert!(a.is_err() && b.is_err() && c.is_err() && d == Ok(false) && e.is_err());
        assert_eq!(ended(&world), [false; 5]);
        assert_eq!(world.daemon.neighbours.most_under_way.load(Ordering::SeqCst), 1);
    }

    /// The daemons are two, so one of them may end in the middle: what was begun stays begun.
    #[tokio::test]
    async fn a_change_that_daemon_profile_does_not_count_is_not_tried() {
        let world = three(FactorPolicy::Any).await;
        world.daemon.neighbours.unreachable.store(true, Ordering::SeqCst);
        let second = NewFactor::Password { password: wire(b"second") };
        assert_eq!(add(&world, right(&[1]), second).await, Err(SecretsDenial::Unrecorded));
        assert_eq!(check(&world, &CODE).await, Err(SecretsDenial::Unrecorded));
        assert_eq!(change(&world, right(&[1]), b"x").await, Err(SecretsDenial::Unrecorded));
        let sheet = world.daemon.factors(&Factors { profile: profile("work") }, &cli()).await.unwrap();
        assert_eq!(sheet.factors.len(), 3);
    }
}
