//! The five operations on secrets: each makes an attempt, gets a permit for it or none, shows the permit to the
//! vault, and has the outcome recorded before it answers.

use core_daemon::Room;
use core_secrets::sqlcipher::Attributes;
use core_types::WireSecret;
use core_types::grant::GrantRecord;
use core_types::header::Sender;
use core_types::limits::{BODY_BYTES_MAX, SELECTION_MAX, VALUE_BYTES_MAX};
use core_types::name::{ProfileName, SecretName};
use core_types::protocol::profile;
use core_types::protocol::secrets::{
    Delete, Gate, Get, GetBatch, GetFor, List, NamedSecret, SecretEntry, SecretPage, SecretsDenial,
    Selection, Set,
};

use crate::acl::{AccessRules, Action, Requester};
use crate::crud::{AccessState, AskedName, Attempt, Permit, Refusal, authorize};
use crate::fields::{Fields, OVERHEAD};
use crate::grants::GrantUse;
use crate::neighbours::Neighbours;
use crate::rate_limit::Cost;
use crate::record::{About, conclude, unwritable};
use crate::selection::select;
use crate::service::SecretsDaemon;

/// Bytes that a named secret takes in an answer besides its name and value, at most.
const NAMED_SECRET_OVERHEAD: usize = 8;
/// Bytes that a batch takes besides its secrets, at most.
const BATCH_OVERHEAD: usize = 16;

impl Refusal {
    /// The vault could not, or would not.
    pub(crate) fn by_vault(denial: SecretsDenial) -> Self {
        Self { gate: Gate::Vault, denial }
    }
}

impl<N: Neighbours> SecretsDaemon<N> {
    /// Takes an attempt through the gates.
    pub(crate) async fn authorize(&self, attempt: &Attempt) -> Result<Permit, Refusal> {
        let rules = self.rules.look(&self.neighbours).await;
        authorize(attempt, &self.access_state(&rules, &attempt.profile))
    }

    /// What the gates judge by at this moment.
    pub(crate) fn access_state<'a>(
        &'a self,
        rules: &'a AccessRules,
        profile: &ProfileName,
    ) -> AccessState<'a> {
        AccessState {
            any_unlocked: self.vaults.any_unlocked(),
            profile: self.vaults.status(profile),
            rules,
            rates: self.rates.as_ref(),
            grants: &self.grants,
        }
    }

    /// Keeps room for the record of a change, before it is made.
    pub(crate) fn room(&self, profile: &ProfileName) -> Result<Room, Refusal> {
        self.room_for(profile, 1)
    }

    /// As [`Self::room`], for a change that is recorded under so many names.
    pub(crate) fn room_for(&self, profile: &ProfileName, records: usize) -> Result<Room, Refusal> {
        let room = self.neighbours.room(profile, records);
        room.map_err(|error| Refusal::by_vault(unwritable(Some(profile), error)))
    }

    /// Reads one secret.
    pub(crate) async fn get(&self, call: &Get, sender: &Sender) -> Result<WireSecret, SecretsDenial> {
        let attempt = one(Action::Get, &call.profile, &call.name, sender);
        self.read(&attempt, call, sender, None).await
    }

    /// Reads one secret for a unit.
    pub(crate) async fn get_for(&self, call: &GetFor, sender: &Sender) -> Result<WireSecret, SecretsDenial> {
        let requester = Requester::unit(&call.unit, sender);
        // Whoever may not ask for others is recorded as itself.
        let behalf = (requester.name() == call.unit.requester()).then(|| profile::Requester {
            name: call.unit.requester(),
            uid: call.uid,
            pid: Some(call.pid),
            executable: None,
            unit: Some(call.unit.as_str().to_owned()),
        });
        let attempt = Attempt { requester, ..one(Action::Get, &call.profile, &call.name, sender) };
        let get = Get { profile: call.profile.clone(), name: call.name.clone(), version: None };
        self.read(&attempt, &get, sender, behalf).await
    }

    async fn read(
        &self,
        attempt: &Attempt,
        call: &Get,
        sender: &Sender,
        behalf: Option<profile::Requester>,
    ) -> Result<WireSecret, SecretsDenial> {
        // Given back when it is dropped, unless the value leaves.
        let mut granted = None;
        let result = async {
            let mut permit = self.authorize(attempt).await?;
            granted = permit.take_grant();
            if granted.is_some() && call.version.is_some() {
                // What was replaced is not what was granted.
                return Err(Refusal { gate: Gate::AccessRule, denial: SecretsDenial::Forbidden });
            }
            let value = self.vaults.get(&permit, call.version).await.map_err(Refusal::by_vault)?;
            let fields = Fields::of(&self.vaults, &permit).map_err(Refusal::by_vault)?;
            let name = permit.name_for(Action::Get).map_err(Refusal::by_vault)?;
            fields.outgoing(name, &value).map_err(Refusal::by_vault)
        };
        let result = result.await;
        let grant = granted.as_ref().map(|taken| GrantRecord { id: taken.id(), bounds: None });
        let about = about(attempt, sender, [&call.name]).through(grant).on_behalf_of(behalf);
        let value = conclude(&self.neighbours, about, result).await?;
        granted.into_iter().for_each(GrantUse::spend);
        Ok(value)
    }

    /// Stores one secret.
    pub(crate) async fn set(&self, call: &Set, sender: &Sender) -> Result<(), SecretsDenial> {
        let attempt = one(Action::Set, &call.profile, &call.name, sender);
        let mut room = Room::none();
        let result = async {
            let permit = self.authorize(&attempt).await?;
            room = self.room(&call.profile)?;
            check_size(&call.value).map_err(Refusal::by_vault)?;
            let fields = Fields::of(&self.vaults, &permit).map_err(Refusal::by_vault)?;
            let name = permit.name_for(Action::Set).map_err(Refusal::by_vault)?;
            let value = fields.incoming(name, &call.value).map_err(Refusal::by_vault)?;
            let attributes = Attributes { expires_unix_ms: call.expires_unix_ms, note: call.note.clone() };
            self.vaults.set(&permit, value, attributes).await.map_err(Refusal::by_vault)
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            about(&attempt, sender, [&call.name]).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// Removes one secret.
    pub(crate) async fn delete(&self, call: &Delete, sender: &Sender) -> Result<(), SecretsDenial> {
        let attempt = one(Action::Delete, &call.profile, &call.name, sender);
        let mut room = Room::none();
        let result = async {
            let permit = self.authorize(&attempt).await?;
            room = self.room(&call.profile)?;
            self.vaults.delete(&permit).await.map_err(Refusal::by_vault)
        };
        let result = result.await;
        conclude(
            &self.neighbours,
            about(&attempt, sender, [&call.name]).changing(&self.vaults).holding(room),
            result,
        )
        .await
    }

    /// Lists a page of the names that the requester may read.
    pub(crate) async fn list(&self, call: &List, sender: &Sender) -> Result<SecretPage, SecretsDenial> {
        let attempt = several(Action::List, &call.profile, Vec::new(), Cost { tokens: 1, names: 1 }, sender);
        let result = async {
            let permit = self.authorize(&attempt).await?;
            let page = self.vaults.list(&permit, call.pattern.clone(), call.after.clone()).await;
            let page = page.map_err(Refusal::by_vault)?;
            let rules = self.rules.current();
            let shown = page
                .entries
                .into_iter()
                .filter(|entry| rules.show(&attempt.requester, &call.profile, entry.name.as_str()));
            let entries = shown.map(|entry| SecretEntry {
                name: entry.name,
                created_unix_ms: entry.created_unix_ms,
                updated_unix_ms: entry.updated_unix_ms,
                version: entry.version,
                versions: entry.versions,
                expires_unix_ms: entry.expires_unix_ms,
                note: entry.note,
            });
            Ok(SecretPage { entries: entries.collect(), more: page.more })
        };
        let pattern = call.pattern.as_ref().map(|pattern| pattern.as_str());
        conclude(&self.neighbours, about(&attempt, sender, pattern), result.await).await
    }

    /// Reads several secrets, all or none.
    pub(crate) async fn get_batch(
        &self,
        call: &GetBatch,
        sender: &Sender,
    ) -> Result<Vec<NamedSecret>, SecretsDenial> {
        // What the selection means is known only when the names are; until then the attempt is one without names.
        let reading = |names: Vec<SecretName>, cost| {
            let attempt = several(Action::GetBatch, &call.profile, names, cost, sender);
            Attempt { requester: attempt.requester.reading_for(call.program.as_ref()), ..attempt }
        };
        let asking = reading(Vec::new(), Cost { tokens: 1, names: 1 });
        let chosen = self.choose(&asking, &call.selection).await;
        let names = match chosen {
            Ok(names) => names,
            Err(refusal) => {
                let subject = subject_of(&refusal.denial);
                return conclude(&self.neighbours, about(&asking, sender, subject.as_deref()), Err(refusal))
                    .await;
            }
        };
        // One token has been paid for the asking.
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let cost = Cost { tokens: count.saturating_sub(1), names: count };
        let attempt = reading(names.clone(), cost);
        let result = self.read_all(&attempt, &names).await;
        let subjects = match &result {
            Ok(_) => names.iter().map(|name| name.as_str().to_owned()).collect(),
            Err(refusal) => Vec::from_iter(subject_of(&refusal.denial)),
        };
        conclude(&self.neighbours, about(&attempt, sender, subjects.iter().map(String::as_str)), result).await
    }

    /// The names that a selection means.
    async fn choose(&self, asking: &Attempt, selection: &Selection) -> Result<Vec<SecretName>, Refusal> {
        let permit = self.authorize(asking).await?;
        if matches!(selection, Selection::Only(patterns) if patterns.len() > SELECTION_MAX) {
            let limit = u64::try_from(SELECTION_MAX).unwrap_or(u64::MAX);
            return Err(Refusal::by_vault(SecretsDenial::BatchTooLarge { limit }));
        }
        let names = self.vaults.names(&permit).await.map_err(Refusal::by_vault)?;
        // As many steps as there are names times patterns, which must not hold up everyone else.
        let (rules, asking, selection) = (self.rules.current(), asking.clone(), selection.clone());
        let selecting = tokio::task::spawn_blocking(move || {
            select(&selection, &names, |name| {
                rules.may_read(&asking.requester, &asking.profile, name.as_str())
            })
        });
        selecting
            .await
            .unwrap_or_else(|error| Err(Refusal::by_vault(SecretsDenial::Storage(error.to_string()))))
    }

    /// The values of chosen names, if the gates let them through.
    async fn read_all(&self, attempt: &Attempt, names: &[SecretName]) -> Result<Vec<NamedSecret>, Refusal> {
        let permit = self.authorize(attempt).await?;
        let overhead: usize =
            names.iter().map(|name| name.as_str().len() + NAMED_SECRET_OVERHEAD + OVERHEAD).sum();
        let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
        let too_large = || Refusal::by_vault(SecretsDenial::BatchTooLarge { limit });
        let room = (BODY_BYTES_MAX - BATCH_OVERHEAD).checked_sub(overhead).ok_or_else(too_large)?;
        let values = self.vaults.get_batch(&permit, room).await.map_err(|denial| match denial {
            SecretsDenial::BatchTooLarge { .. } => too_large(),
            other => Refusal::by_vault(other),
        })?;
        let named = names.iter().zip(&values);
        let fields = Fields::of(&self.vaults, &permit).map_err(Refusal::by_vault)?;
        let outgoing = named.map(|(name, value)| {
            Ok(NamedSecret { name: name.clone(), value: fields.outgoing(name, value)? })
        });
        outgoing.collect::<Result<_, SecretsDenial>>().map_err(Refusal::by_vault)
    }
}

/// An attempt on one secret.
pub(crate) fn one(action: Action, profile: &ProfileName, name: &str, sender: &Sender) -> Attempt {
    Attempt {
        action,
        profile: profile.clone(),
        requester: Requester::from(sender),
        names: vec![AskedName::new(name)],
        cost: Cost { tokens: 1, names: 1 },
    }
}

/// An attempt on several secrets, or on none in particular.
pub(crate) fn several(
    action: Action,
    profile: &ProfileName,
    names: Vec<SecretName>,
    cost: Cost,
    sender: &Sender,
) -> Attempt {
    let names = names.into_iter().map(AskedName::from).collect();
    Attempt { action, profile: profile.clone(), requester: Requester::from(sender), names, cost }
}

/// What the record of an attempt is about.
pub(crate) fn about<'a, S: AsRef<str>>(
    attempt: &'a Attempt,
    sender: &'a Sender,
    subjects: impl IntoIterator<Item = S>,
) -> About<'a> {
    About {
        subjects: subjects.into_iter().map(|subject| subject.as_ref().to_owned()).collect(),
        ..About::of(attempt.action, Some(&attempt.profile), sender)
    }
}

/// The secret that a denial is about, where it names one.
fn subject_of(denial: &SecretsDenial) -> Option<String> {
    match denial {
        SecretsDenial::NoSuchSecret(name)
        | SecretsDenial::ForbiddenName(name)
        | SecretsDenial::Expired { name, .. } => Some(name.clone()),
        _ => None,
    }
}

pub(crate) fn check_size(value: &WireSecret) -> Result<(), SecretsDenial> {
    let bytes = value.expose().len().saturating_sub(OVERHEAD);
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let number = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    Err(SecretsDenial::ValueTooLarge { bytes: number(bytes), limit: number(VALUE_BYTES_MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::rate_limit::RateLimits;
    use crate::service::tests::{PASSWORD, World, cli, profile, wire};
    use core_types::config::{Config, Rate};
    use core_types::name::LAUNCHER;
    use core_types::name::NameError;
    use core_types::pattern::Pattern;
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::Lock;
    use governor::clock::FakeRelativeClock;
    use std::sync::atomic::Ordering;

    fn recorded(operation: Operation, subject: &str, outcome: &str) -> (Operation, Option<String>, String) {
        (operation, Some(subject.to_owned()), outcome.to_owned())
    }

    async fn batch(world: &World, patterns: Option<&[&str]>) -> Result<Vec<String>, SecretsDenial> {
        let selection = match patterns {
            None => Selection::All,
            Some(texts) => Selection::Only(texts.iter().map(|text| Pattern::parse(*text).unwrap()).collect()),
        };
        let call = GetBatch { profile: profile("work"), selection, program: None };
        let secrets = world.daemon.get_batch(&call, &cli()).await?;
        let text = |secret: &NamedSecret| {
            format!("{}={}", secret.name, String::from_utf8_lossy(secret.value.expose()))
        };
        Ok(secrets.iter().map(text).collect())
    }

    #[tokio::test]
    async fn each_operation_does_it_and_leaves_one_record() {
        let world = World::with_vault().await;
        world.set("a/b", b"one\0\n").await.unwrap();
        assert_eq!(world.get("a/b").await.unwrap(), b"one\0\n");
        let list = List { profile: profile("work"), pattern: None, after: None };
        let page = world.daemon.list(&list, &cli()).await.unwrap();
        assert_eq!((page.entries.len(), page.entries[0].name.as_str(), page.more), (1, "a/b", false));
        let delete = Delete { profile: profile("work"), name: "a/b".to_owned() };
        world.daemon.delete(&delete, &cli()).await.unwrap();
        let missing = SecretsDenial::NoSuchSecret("a/b".to_owned());
        assert_eq!(world.get("a/b").await, Err(missing.clone()));
        assert_eq!(world.daemon.delete(&delete, &cli()).await, Err(missing));
        assert_eq!(
            world.outcomes(),
            [
                recorded(Operation::Set, "a/b", "done"),
                recorded(Operation::Get, "a/b", "done"),
                (Operation::List, None, "done".to_owned()),
                recorded(Operation::Delete, "a/b", "done"),
                recorded(Operation::Get, "a/b", "failed: there is no secret 'a/b'"),
                recorded(Operation::Delete, "a/b", "failed: there is no secret 'a/b'"),
            ]
        );
    }

    #[tokio::test]
    async fn values_of_every_allowed_size_come_back_and_larger_ones_are_refused() {
        let world = World::with_vault().await;
        for size in [0, 1, VALUE_BYTES_MAX] {
            let value = vec![0xa7; size];
            world.set("v", &value).await.unwrap();
            assert_eq!(world.get("v").await.unwrap(), value);
        }
        let over = SecretsDenial::ValueTooLarge { bytes: 1_048_577, limit: 1_048_576 };
        assert_eq!(world.set("v", &vec![1; VALUE_BYTES_MAX + 1]).await, Err(over));
        assert_eq!(world.get("v").await.unwrap().len(), VALUE_BYTES_MAX);
    }

    /// Whoever keeps a value is told when it may be another, and not each time that somebody reads.
    #[tokio::test]
    async fn what_may_change_a_value_is_made_known_and_nothing_else_is() {
        let world = World::with_vault().await;
        let hints = || world.daemon.neighbours.hints.swap(0, Ordering::SeqCst);
        hints();
        world.set("a", b"x").await.unwrap();
        assert_eq!(hints(), 1);
        world.get("a").await.unwrap();
        batch(&world, None).await.unwrap();
        assert!(world.get("missing").await.is_err());
        assert_eq!(hints(), 0);
        let delete = Delete { profile: profile("work"), name: "a".to_owned() };
        world.daemon.delete(&delete, &cli()).await.unwrap();
        assert_eq!(hints(), 1);
        assert!(world.daemon.delete(&delete, &cli()).await.is_err());
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        assert!(world.set("a", b"x").await.is_err());
        assert_eq!(hints(), 0);
        world.unlock("work", PASSWORD).await.unwrap();
        assert_eq!(hints(), 1);
    }

    #[tokio::test]
    async fn a_refused_attempt_is_recorded_once_with_its_gate() {
        let world = World::with_vault().await;
        assert_eq!(world.get("../x").await, Err(SecretsDenial::InvalidName(NameError::Dots)));
        let set = Set {
            profile: profile("work"),
            name: "a".to_owned(),
            value: wire(b"x"),
            expires_unix_ms: None,
            note: None,
        };
        let refused = world.daemon.set(&set, &sender(Some("daemon-launcher"))).await;
        assert_eq!(refused, Err(SecretsDenial::Identity { requester: "daemon-launcher".to_owned() }));
        let get = Get { profile: profile("work"), name: "a".to_owned(), version: None };
        let refused = world.daemon.get(&get, &sender(Some("backup"))).await.map(|_| ());
        assert_eq!(refused, Err(SecretsDenial::Forbidden));
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        world.outcomes();
        assert_eq!(world.get("a").await, Err(SecretsDenial::Locked));
        assert_eq!(world.outcomes(), [recorded(Operation::Get, "a", "denied at Lock")]);
    }

    #[tokio::test]
    async fn refusals_name_their_gate_in_the_record() {
        let world = World::with_vault().await;
        let _ = world.get("/").await;
        let get = Get { profile: profile("work"), name: "a".to_owned(), version: None };
        let _ = world.daemon.get(&get, &sender(Some("daemon-bus"))).await;
        let _ = world.daemon.get(&get, &sender(Some("backup"))).await;
        let elsewhere = Get { profile: profile("none"), name: "a".to_owned(), version: None };
        let denied = world.daemon.get(&elsewhere, &cli()).await.map(|_| ());
        assert_eq!(denied, Err(SecretsDenial::NoSuchProfile(profile("none"))));
        assert_eq!(
            world.outcomes(),
            [
                recorded(Operation::Get, "/", "denied at Name"),
                recorded(Operation::Get, "a", "denied at Identity"),
                recorded(Operation::Get, "a", "denied at AccessRule"),
                recorded(Operation::Get, "a", "denied at ActiveProfile"),
            ]
        );
    }

    #[tokio::test]
    async fn a_batch_gives_all_or_nothing_and_records_each_name() {
        let world = World::with_vault().await;
        for name in ["db/user", "db/word", "token"] {
            world.set(name, name.as_bytes()).await.unwrap();
        }
        world.outcomes();
        assert_eq!(batch(&world, Some(&["db/*"])).await.unwrap(), ["db/user=db/user", "db/word=db/word"]);
        assert_eq!(
            world.outcomes(),
            [recorded(Operation::Get, "db/user", "done"), recorded(Operation::Get, "db/word", "done")]
        );
        assert_eq!(batch(&world, None).await.unwrap().len(), 3);
        assert_eq!(batch(&world, Some(&[])).await.unwrap().len(), 0);
        world.outcomes();
        let missing = SecretsDenial::NoSuchSecret("none".to_owned());
        assert_eq!(batch(&world, Some(&["token", "none"])).await, Err(missing));
        assert_eq!(
            world.outcomes(),
            [recorded(Operation::Get, "none", "failed: there is no secret 'none'")],
            "nothing was read"
        );
    }

    #[tokio::test]
    async fn a_batch_of_what_is_there_leaves_out_what_may_not_be_read() {
        let world = World::with_vault().await;
        for name in ["db/user", "db/word", "token"] {
            world.set(name, name.as_bytes()).await.unwrap();
        }
        world.write_config("[profiles.work.access.cli]\nget = ['*']\ndeny = ['db/word']\n");
        assert_eq!(batch(&world, None).await.unwrap(), ["db/user=db/user", "token=token"]);
        assert_eq!(batch(&world, Some(&["db/*"])).await.unwrap(), ["db/user=db/user"]);
        let named = SecretsDenial::ForbiddenName("db/word".to_owned());
        assert_eq!(batch(&world, Some(&["db/word"])).await, Err(named));
    }

    #[tokio::test]
    async fn a_unit_gets_what_rules_give_it_through_the_launcher_alone_and_is_recorded_as_itself() {
        let world = World::with_vault().await;
        world.set("web/key", b"value").await.unwrap();
        world.set("other", b"kept").await.unwrap();
        world.outcomes();
        let ask = async |unit: &str, name: &str, sender: Option<&str>| {
            let call = GetFor {
                profile: profile("work"),
                name: name.to_owned(),
                unit: core_types::unit::UnitName::parse(unit).unwrap(),
                uid: 1234,
                pid: 99,
            };
            let got = world.daemon.get_for(&call, &crate::acl::tests::sender(sender)).await;
            let entry = world.daemon.neighbours.entries.lock().unwrap().pop().unwrap();
            (got.map(|value| value.expose().to_vec()), entry.requester)
        };
        let launcher = Some(LAUNCHER);
        let (refused, _) = ask("web.service", "web/key", launcher).await;
        assert_eq!(refused, Err(SecretsDenial::Forbidden), "without a rule a unit has nothing");
        world.write_config("[profiles.work.access.'unit:web.service']\nget = ['web/*']\n");
        let (got, who) = ask("web.service", "web/key", launcher).await;
        assert_eq!(got.unwrap(), b"value");
        assert_eq!((who.name.as_str(), who.uid, who.pid), ("unit:web.service", 1234, Some(99)));
        assert_eq!(who.unit.as_deref(), Some("web.service"));
        for (unit, name) in [("web.service", "other"), ("db.service", "web/key")] {
            let (refused, who) = ask(unit, name, launcher).await;
            assert_eq!((refused, who.name), (Err(SecretsDenial::Forbidden), format!("unit:{unit}")));
        }
        for (sender, name) in [(None, "cli"), (Some("backup"), "backup")] {
            let (refused, who) = ask("web.service", "web/key", sender).await;
            assert!(refused.is_err(), "{name}");
            assert_eq!((who.name.as_str(), who.pid), (name, None), "who may not ask for others is itself");
        }
    }

    #[tokio::test]
    async fn a_batch_that_fits_no_answer_is_refused() {
        let world = World::with_vault().await;
        for name in ["a", "b"] {
            world.set(name, &vec![1; VALUE_BYTES_MAX]).await.unwrap();
        }
        let limit = u64::try_from(BODY_BYTES_MAX).unwrap();
        assert_eq!(batch(&world, None).await, Err(SecretsDenial::BatchTooLarge { limit }));
        assert_eq!(batch(&world, Some(&["a"])).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_largest_batch_that_is_given_fits_into_an_answer() {
        let world = World::with_vault().await;
        let overhead = 2 * (1 + NAMED_SECRET_OVERHEAD) + BATCH_OVERHEAD;
        world.set("a", &vec![1; VALUE_BYTES_MAX]).await.unwrap();
        world.set("b", &vec![1; BODY_BYTES_MAX - VALUE_BYTES_MAX - overhead]).await.unwrap();
        let call = GetBatch { profile: profile("work"), selection: Selection::All, program: None };
        let reply: Result<_, SecretsDenial> = Ok(world.daemon.get_batch(&call, &cli()).await.unwrap());
        assert!(core_types::protocol::encode(&reply).is_ok());
    }

    fn limited(world: &mut World, burst: u32) -> FakeRelativeClock {
        let clock = FakeRelativeClock::default();
        let config = Config { rate_known: Rate { per_second: 1, burst }, ..Config::default() };
        world.daemon.rates = Box::new(RateLimits::with_clock(&config, clock.clone()));
        clock
    }

    #[tokio::test]
    async fn a_batch_of_n_costs_n() {
        let mut world = World::with_vault().await;
        for name in ["a", "b", "c"] {
            world.set(name, b"x").await.unwrap();
        }
        let clock = limited(&mut world, 5);
        batch(&world, None).await.unwrap();
        world.get("a").await.unwrap();
        world.get("a").await.unwrap();
        assert_eq!(world.get("a").await, Err(SecretsDenial::RateLimited { retry_ms: 1_000 }));
        clock.advance(std::time::Duration::from_secs(2));
        world.outcomes();
        assert!(matches!(batch(&world, None).await, Err(SecretsDenial::RateLimited { .. })));
        assert_eq!(world.outcomes(), [(Operation::Get, None, "denied at RateLimit".to_owned())]);
        limited(&mut world, 2);
        assert_eq!(batch(&world, None).await, Err(SecretsDenial::BatchOverBurst { names: 3, burst: 2 }));
    }

    #[tokio::test]
    async fn locking_fills_no_bucket() {
        let mut world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        limited(&mut world, 1);
        world.get("a").await.unwrap();
        world.daemon.lock(&Lock { profile: None }, &cli()).await.unwrap();
        world.unlock("work", b"right").await.unwrap();
        assert!(matches!(world.get("a").await, Err(SecretsDenial::RateLimited { .. })));
    }

    #[tokio::test]
    async fn a_value_does_not_leave_unrecorded() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        let refused =
            SecretsDenial::AuditUnwritable { profile: "work".to_owned(), reason: "full".to_owned() };
        assert_eq!(world.get("a").await, Err(refused.clone()));
        assert_eq!(batch(&world, None).await, Err(refused));
    }

    /// What was done could not be refused any more.
    #[tokio::test]
    async fn nothing_is_changed_whose_record_has_no_room() {
        let world = World::with_vault().await;
        world.set("a", b"before").await.unwrap();
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        assert!(matches!(world.set("a", b"after").await, Err(SecretsDenial::AuditUnwritable { .. })));
        let delete = Delete { profile: profile("work"), name: "a".to_owned() };
        assert!(world.daemon.delete(&delete, &cli()).await.is_err());
        world.daemon.neighbours.unwritable.store(false, Ordering::SeqCst);
        assert_eq!(world.get("a").await.unwrap(), b"before");
    }

    #[tokio::test]
    async fn a_listing_comes_in_pages() {
        let world = World::with_vault().await;
        for name in ["a", "b", "c"] {
            world.set(name, b"x").await.unwrap();
        }
        let after = Some(SecretName::parse("a").unwrap());
        let list = List { profile: profile("work"), pattern: Some(Pattern::parse("*").unwrap()), after };
        let page = world.daemon.list(&list, &cli()).await.unwrap();
        let names: Vec<&str> = page.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
    }
}
