//! `pds explain`: what the gates would say of an attempt that nobody makes. It walks their one list, and gets no permit
//! to read anything.

use core_types::access::AccessOperation;
use core_types::header::Sender;
use core_types::protocol::explanation::{Asker, Decision, Explain, Explanation, GateVerdict, Verdict};
use core_types::protocol::secrets::{Gate, SecretsDenial};

use crate::acl::{AccessRules, Action, Requester, Role};
use crate::attempt::identified;
use crate::crud::{AccessState, AskedName, Attempt, Refusal, look_through, may_be_told, standing};
use crate::grants::Standing;
use crate::neighbours::Neighbours;
use crate::rate_limit::Cost;
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;

impl<N: Neighbours> SecretsDaemon<N> {
    /// What would come of an attempt, and why. It is no attempt, so no record is made of it.
    pub(crate) async fn explain(
        &self,
        call: &Explain,
        sender: &Sender,
    ) -> Result<Explanation, SecretsDenial> {
        let result = async {
            identified(Action::Explain, sender)?;
            let asker = Requester::from(sender);
            let about = asked_about(call, &asker)?;
            let rules = self.rules.look(&self.neighbours).await;
            let state = self.access_state(&rules, &call.profile);
            let mut explanation = judged(&attempt(call, about), call, &state);
            self.ask_the_vault(call, &asker, &state, &mut explanation).await;
            if asker.role() != Role::Cli {
                withhold_patterns(&mut explanation);
            }
            Ok(explanation)
        };
        conclude(&self.neighbours, About::of(Action::Explain, Some(&call.profile), sender), result.await)
            .await
    }

    /// Adds what the last gate would say, where the others let it be asked and the asker may know.
    async fn ask_the_vault(
        &self,
        call: &Explain,
        asker: &Requester,
        state: &AccessState<'_>,
        explanation: &mut Explanation,
    ) {
        let denied = matches!(explanation.decision, Decision::Denied(_));
        let verdict = match may_be_told(&listing(call, asker.clone()), &AskedName::new(&call.name), state) {
            _ if denied => Verdict::NotAsked,
            None => Verdict::NotTold,
            Some(permit) => match self.vaults.look(&permit, call.operation).await {
                Ok(()) => Verdict::Passes,
                Err(denial) => {
                    explanation.decision = Decision::Denied(Gate::Vault);
                    Verdict::Denies(denial)
                }
            },
        };
        explanation.gates.push(GateVerdict { gate: Gate::Vault, verdict });
    }
}

/// Whom the question is about. Of others only the user is told.
fn asked_about(call: &Explain, asker: &Requester) -> Result<Requester, Refusal> {
    match &call.requester {
        None => Ok(asker.clone()),
        Some(name) if asker.role() == Role::Cli => Ok(Requester::known_as(name)),
        Some(Asker::Daemon(name)) if name.as_str() == asker.name() => Ok(asker.clone()),
        Some(_) => {
            let denial = SecretsDenial::Identity { requester: asker.name().to_owned() };
            Err(Refusal { gate: Gate::Identity, denial })
        }
    }
}

/// The attempt that would be made.
fn attempt(call: &Explain, about: Requester) -> Attempt {
    let is_unit = matches!(call.requester, Some(Asker::Unit(_)));
    let (action, requester) = match (call.operation, about.role()) {
        // Nothing but credentials is asked for units.
        (AccessOperation::Set, _) if is_unit => (Action::Set, about.out_of_place()),
        (AccessOperation::Delete, _) if is_unit => (Action::Delete, about.out_of_place()),
        (AccessOperation::List, _) if is_unit => return listing(call, about.out_of_place()),
        (AccessOperation::List, _) => return listing(call, about),
        // What `pds run` gives to a program is read by the launcher, which starts none for daemons of others.
        (AccessOperation::Run, Role::Cli) => (Action::GetBatch, Requester::launcher()),
        (AccessOperation::Run, Role::Enrolled) => (Action::GetBatch, about.out_of_place()),
        (AccessOperation::Run, _) => (Action::GetBatch, about),
        (AccessOperation::Get, _) => (Action::Get, about),
        (AccessOperation::Set, _) => (Action::Set, about),
        (AccessOperation::Delete, _) => (Action::Delete, about),
    };
    let names = vec![AskedName::new(&call.name)];
    Attempt { action, profile: call.profile.clone(), requester, names, cost: Cost { tokens: 1, names: 1 } }
}

/// An attempt to list.
fn listing(call: &Explain, requester: Requester) -> Attempt {
    let cost = Cost { tokens: 1, names: 1 };
    Attempt { action: Action::List, profile: call.profile.clone(), requester, names: Vec::new(), cost }
}

/// What the gates before the vault would say.
fn judged(attempt: &Attempt, call: &Explain, state: &AccessState<'_>) -> Explanation {
    let verdicts = look_through(attempt, state);
    let first = verdicts.iter().find(|(_, verdict)| verdict.is_err());
    let decision = match first {
        Some((gate, _)) => Decision::Denied(*gate),
        None if attempt.action == Action::List && !shown(attempt, call, state.rules) => Decision::Hidden,
        None => Decision::Allowed,
    };
    let gates = verdicts.into_iter().map(|(gate, verdict)| {
        let verdict = verdict.map_or_else(Verdict::Denies, |()| Verdict::Passes);
        GateVerdict { gate, verdict }
    });
    let ruling = match attempt.action {
        Action::List => Some(state.rules.showing(&attempt.requester, &call.profile, &call.name)),
        action => state.rules.ruling(&attempt.requester, &call.profile, action, (0, &call.name)),
    };
    Explanation {
        requester: attempt.requester.name().to_owned(),
        gates: gates.collect(),
        rule: ruling.map(|ruling| ruling.cited()),
        grant: standing(attempt, state).and_then(Standing::grant).and_then(|id| state.grants.entry(id)),
        decision,
    }
}

fn shown(attempt: &Attempt, call: &Explain, rules: &AccessRules) -> bool {
    rules.show(&attempt.requester, &call.profile, &call.name)
}

/// A pattern tells of names that its reader may not know.
fn withhold_patterns(explanation: &mut Explanation) {
    explanation.grant = None;
    if let Some(rule) = &mut explanation.rule {
        rule.pattern = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_table::policies;
    use crate::acl::tests::sender;
    use crate::crud::{ProfileStatus, authorize};
    use crate::grants::tests::{grants, make};
    use crate::grants::{GrantUse, Grants};
    use crate::operations::{one, several};
    use crate::rate_limit::{RateLimits, Rates};
    use crate::service::tests::{World, cli, profile};
    use core_types::config::{Config, Rate};
    use core_types::name::{CLI, LAUNCHER};
    use core_types::protocol::secrets::{Get, Lock};
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Buckets that count what is done to them.
    struct Counted {
        buckets: RateLimits<FakeRelativeClock>,
        touched: AtomicU32,
    }

    impl Rates for Counted {
        fn spend(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
            self.touched.fetch_add(1, Ordering::Relaxed);
            self.buckets.spend(requester, cost)
        }
        fn look(&self, requester: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
            self.buckets.look(requester, cost)
        }
        fn note(&self, requester: &Requester, denied: bool) {
            self.touched.fetch_add(1, Ordering::Relaxed);
            self.buckets.note(requester, denied);
        }
    }

    /// Buckets of two tokens, of which some were spent, and perhaps of one who was just denied.
    fn buckets(who: &Requester, spent: u32, denied: bool) -> Counted {
        let small = Rate { per_second: 1, burst: 2 };
        let config = Config { rate_known: small, rate_unknown: small, ..Config::default() };
        let buckets = RateLimits::with_clock(&config, FakeRelativeClock::default());
        for _ in 0..spent {
            buckets.spend(who, Cost { tokens: 1, names: 1 }).unwrap();
        }
        buckets.note(who, denied);
        Counted { buckets, touched: AtomicU32::new(0) }
    }

    fn call(name: &str, requester: Option<&str>, operation: AccessOperation) -> Explain {
        let requester = requester.map(|name| name.parse().unwrap());
        Explain { profile: profile("work"), name: name.to_owned(), requester, operation }
    }

    /// The attempt that is made when a requester asks for this: by the operations, and for `run` by the launcher.
    fn real(who: &str, operation: AccessOperation, name: &str) -> Attempt {
        let sender = sender(Some(who).filter(|who| *who != CLI));
        let cost = Cost { tokens: 1, names: 1 };
        match operation {
            AccessOperation::Get => one(Action::Get, &profile("work"), name, &sender),
            AccessOperation::Set => one(Action::Set, &profile("work"), name, &sender),
            AccessOperation::Delete => one(Action::Delete, &profile("work"), name, &sender),
            AccessOperation::List => several(Action::List, &profile("work"), Vec::new(), cost, &sender),
            AccessOperation::Run => one(Action::GetBatch, &profile("work"), name, &sender_of_run()),
        }
    }

    fn sender_of_run() -> Sender {
        sender(Some(LAUNCHER))
    }

    /// Grants to `backup`: each for a pattern, of so much time left, so many uses, and used so often.
    fn granted_some(granted: &[(String, u64, Option<u64>, usize)]) -> Grants {
        let (grants, clock) = grants();
        for (pattern, seconds_left, uses, used) in granted {
            make(&grants, pattern, seconds_left + 1, *uses);
            for _ in 0..*used {
                let name = pattern.replace('*', "a");
                grants.take("backup", &profile("work"), &name).into_iter().for_each(GrantUse::spend);
            }
        }
        clock.advance(1);
        grants
    }

    proptest! {
        #[test]
        fn the_decision_is_that_of_the_gates_and_takes_nothing(
            config in policies(),
            who in prop::sample::select(vec![CLI, LAUNCHER, "backup", "other", "daemon-profile", "daemon-bus"]),
            operation in prop::sample::select(AccessOperation::ALL.to_vec()),
            name in "[ab]{1,3}/?",
            (any_unlocked, status) in prop::sample::select(vec![
                (false, ProfileStatus::Locked),
                (false, ProfileStatus::Missing),
                (true, ProfileStatus::Locked),
                (true, ProfileStatus::Missing),
                (true, ProfileStatus::Unlocked),
                (true, ProfileStatus::Unlocked),
                (true, ProfileStatus::Unlocked),
            ]),
            spent in 0_u32..3,
            denied: bool,
            granted in prop::collection::vec(("[ab]\\*|\\*|[ab]{1,2}", 0_u64..3, prop::option::of(1_u64..3), 0_usize..3), 0..3),
        ) {
            // Nobody but the user has programs run: the launcher denies it to others by itself.
            prop_assume!(operation != AccessOperation::Run || [CLI, LAUNCHER].contains(&who));
            let rules = AccessRules::new(&Config::parse(&config).unwrap().access);
            let real = real(who, operation, &name);
            let rates = buckets(&real.requester, spent, denied);
            let grants = granted_some(&granted);
            let before = grants.list();
            let state = AccessState { any_unlocked, profile: status, rules: &rules, rates: &rates, grants: &grants };
            let call = call(&name, Some(who), operation);
            let explain = || judged(&attempt(&call, Requester::known_as(call.requester.as_ref().unwrap())), &call, &state);
            let explained = explain();
            prop_assert_eq!(explain(), explained.clone(), "asking changes nothing");
            prop_assert_eq!(rates.touched.load(Ordering::Relaxed), 0, "no token is spent, nobody is slowed down");
            prop_assert_eq!(grants.list(), before, "no use is taken");
            let decided = match authorize(&real, &state) {
                Err(refusal) => Decision::Denied(refusal.gate),
                Ok(_) if operation == AccessOperation::List
                    && !rules.show(&real.requester, &profile("work"), &name) => Decision::Hidden,
                Ok(_) => Decision::Allowed,
            };
            prop_assert_eq!(explained.decision, decided);
            prop_assert_eq!(explained.gates.len(), 6);
        }
    }

    async fn explained(world: &World, call: &Explain, who: Option<&str>) -> Explanation {
        world.daemon.explain(call, &sender(who)).await.unwrap()
    }

    fn verdict(explanation: &Explanation, gate: Gate) -> &Verdict {
        &explanation.gates.iter().find(|verdict| verdict.gate == gate).unwrap().verdict
    }

    #[tokio::test]
    async fn a_unit_may_what_its_rule_says_and_nothing_but_read() {
        let world = World::with_vault().await;
        world.set("web/key", b"x").await.unwrap();
        world.write_config("[profiles.work.access.'unit:web.service']\nget = ['web/*']\nset = ['*']\n");
        for (name, unit, operation, expected) in [
            ("web/key", "unit:web.service", AccessOperation::Get, Decision::Allowed),
            ("other", "unit:web.service", AccessOperation::Get, Decision::Denied(Gate::AccessRule)),
            ("web/key", "unit:db.service", AccessOperation::Get, Decision::Denied(Gate::AccessRule)),
            ("web/key", "unit:web.service", AccessOperation::Set, Decision::Denied(Gate::Identity)),
            ("web/key", "unit:web.service", AccessOperation::List, Decision::Denied(Gate::Identity)),
            ("web/key", "unit:web.service", AccessOperation::Run, Decision::Denied(Gate::Identity)),
        ] {
            let explanation = explained(&world, &call(name, Some(unit), operation), None).await;
            assert_eq!(explanation.decision, expected, "{name} {unit} {operation:?}");
            assert_eq!(explanation.requester, unit);
        }
    }

    #[tokio::test]
    async fn explaining_reads_nothing_and_is_recorded_nowhere() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        world.outcomes();
        for operation in AccessOperation::ALL {
            let explanation = explained(&world, &call("a", None, operation), None).await;
            assert_eq!(explanation.decision, Decision::Allowed, "{operation:?}");
            assert_eq!(verdict(&explanation, Gate::Vault), &Verdict::Passes);
            assert_eq!(explanation.gates.len(), 7);
        }
        assert_eq!(world.outcomes(), []);
        assert_eq!(world.daemon.vaults.readings.load(Ordering::Relaxed), 0);
        assert_eq!(world.daemon.vaults.cached(), 0);
        let missing = explained(&world, &call("b", None, AccessOperation::Get), None).await;
        assert_eq!(missing.decision, Decision::Denied(Gate::Vault));
        let set = explained(&world, &call("b", None, AccessOperation::Set), None).await;
        assert_eq!(set.decision, Decision::Allowed);
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        let locked = explained(&world, &call("a", None, AccessOperation::Get), None).await;
        assert_eq!(locked.decision, Decision::Denied(Gate::Lock));
        assert_eq!(verdict(&locked, Gate::Vault), &Verdict::NotAsked);
        let all = explained(&world, &call("/", Some("backup"), AccessOperation::Get), None).await;
        for gate in [Gate::Lock, Gate::ActiveProfile, Gate::AccessRule, Gate::Name] {
            assert!(
                matches!(verdict(&all, gate), Verdict::Denies(_)),
                "{gate:?} is asked whoever denies before"
            );
        }
    }

    #[tokio::test]
    async fn what_the_vault_would_say_is_what_it_says() {
        let world = World::with_vault().await;
        for name in ["kept", "removed", "old"] {
            world.set(name, b"x").await.unwrap();
        }
        let delete =
            core_types::protocol::secrets::Delete { profile: profile("work"), name: "removed".to_owned() };
        world.daemon.delete(&delete, &cli()).await.unwrap();
        let set = core_types::protocol::secrets::Set {
            profile: profile("work"),
            name: "old".to_owned(),
            value: crate::service::tests::wire(b"x"),
            expires_unix_ms: Some(1),
            note: None,
        };
        world.daemon.set(&set, &cli()).await.unwrap();
        for name in ["kept", "removed", "old", "never"] {
            let explanation = explained(&world, &call(name, None, AccessOperation::Get), None).await;
            let said = match verdict(&explanation, Gate::Vault) {
                Verdict::Denies(denial) => Err(denial.clone()),
                _ => Ok(()),
            };
            assert_eq!(world.get(name).await.map(|_| ()), said, "{name}");
        }
    }

    /// It is allowed to read a name that it cannot list: whether there is one it learns by reading, which is recorded.
    #[tokio::test]
    async fn whoever_cannot_list_a_name_is_not_told_whether_it_is_there() {
        let world = World::with_vault().await;
        world.set("a1", b"x").await.unwrap();
        world.write_config("[profiles.work.access.backup]\nget = ['a*']\nlist = ['a2']\n");
        let told = async |name: &str| {
            let explanation =
                explained(&world, &call(name, None, AccessOperation::Get), Some("backup")).await;
            assert_eq!(
                explanation.decision,
                if name == "a2" { Decision::Denied(Gate::Vault) } else { Decision::Allowed }
            );
            assert_eq!(explanation.rule.clone().unwrap().pattern, None, "a pattern may tell of other names");
            verdict(&explanation, Gate::Vault).clone()
        };
        assert_eq!((told("a1").await, told("a3").await), (Verdict::NotTold, Verdict::NotTold));
        assert_eq!(told("a2").await, Verdict::Denies(SecretsDenial::NoSuchSecret("a2".to_owned())));
        let owners = explained(&world, &call("a1", Some("backup"), AccessOperation::Get), None).await;
        assert_eq!(verdict(&owners, Gate::Vault), &Verdict::Passes);
        assert_eq!(owners.rule.unwrap().pattern.unwrap().as_str(), "a*");
        world.write_config("[profiles.work.access.cli]\nget = ['*']\n");
        let owners = explained(&world, &call("a1", None, AccessOperation::Get), None).await;
        assert_eq!(verdict(&owners, Gate::Vault), &Verdict::NotTold);
    }

    #[tokio::test]
    async fn the_grant_that_lets_someone_through_is_named() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        let about = call("a", Some("backup"), AccessOperation::Get);
        let before = explained(&world, &about, None).await;
        assert_eq!((before.decision, before.grant), (Decision::Denied(Gate::AccessRule), None));
        let id = crate::grants::tests::make(&world.daemon.grants, "a", 600, Some(1));
        let granted = explained(&world, &about, None).await;
        assert_eq!((granted.decision, granted.grant.map(|grant| grant.id)), (Decision::Allowed, Some(id)));
    }

    #[tokio::test]
    async fn only_the_user_asks_about_others() {
        let world = World::with_vault().await;
        let identity = |name: &str| Err(SecretsDenial::Identity { requester: name.to_owned() });
        let ask = async |who: &str, about: Option<&str>| {
            let call = call("a", about, AccessOperation::Get);
            world.daemon.explain(&call, &sender(Some(who))).await.map(|explanation| explanation.requester)
        };
        assert_eq!(ask("backup", None).await, Ok("backup".to_owned()));
        assert_eq!(ask("backup", Some("backup")).await, Ok("backup".to_owned()));
        for other in [CLI, LAUNCHER, "other"] {
            assert_eq!(ask("backup", Some(other)).await, identity("backup"), "{other}");
        }
        for who in [LAUNCHER, "daemon-profile", "daemon-bus"] {
            assert_eq!(ask(who, None).await, identity(who));
        }
        for about in [CLI, LAUNCHER, "backup", "other"] {
            let explanation = explained(&world, &call("a", Some(about), AccessOperation::Get), None).await;
            assert_eq!(explanation.requester, about);
        }
        let run = explained(&world, &call("a", Some("backup"), AccessOperation::Run), None).await;
        assert_eq!(run.decision, Decision::Denied(Gate::Identity));
    }

    #[tokio::test]
    async fn an_explanation_does_not_wear_out_the_one_it_is_about() {
        let mut world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        let config = Config { rate_known: Rate { per_second: 1, burst: 1 }, ..Config::default() };
        world.daemon.rates = Box::new(RateLimits::with_clock(&config, FakeRelativeClock::default()));
        for _ in 0..10 {
            let allowed = explained(&world, &call("a", None, AccessOperation::Get), None).await;
            assert_eq!(allowed.decision, Decision::Allowed);
        }
        let get = Get { profile: profile("work"), name: "a".to_owned(), version: None };
        world.daemon.get(&get, &cli()).await.unwrap();
        let limited = explained(&world, &call("a", None, AccessOperation::Get), None).await;
        assert_eq!(limited.decision, Decision::Denied(Gate::RateLimit));
        assert_eq!(verdict(&limited, Gate::AccessRule), &Verdict::Passes, "the gates behind are asked too");
    }
}
