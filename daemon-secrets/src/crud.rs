//! The six gates, as one list. Each takes only its arguments and says yes or why not; none logs, sends or waits.
//!
//! The sixth is the vault itself: it opens for a [`Permit`], and only [`authorize`] makes one.

use core_types::name::{NameError, ProfileName, SecretName};
use core_types::protocol::secrets::{Gate, SecretsDenial};

use core_types::rule_book::Rule;

use crate::acl::{AccessRules, Action, Requester, Role};
use crate::grants::{GrantUse, Grants, Standing};
use crate::rate_limit::{Cost, OnlyLooking, Rates};

/// Someone asks for something.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) action: Action,
    pub(crate) profile: ProfileName,
    pub(crate) requester: Requester,
    pub(crate) names: Vec<AskedName>,
    pub(crate) cost: Cost,
}

/// A name as it was asked for, and what came of reading it.
#[derive(Debug, Clone)]
pub(crate) struct AskedName {
    text: String,
    parsed: Result<SecretName, NameError>,
}

impl AskedName {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), parsed: SecretName::parse(text) }
    }

    /// The name as it was asked for.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<SecretName> for AskedName {
    fn from(name: SecretName) -> Self {
        Self { text: name.as_str().to_owned(), parsed: Ok(name) }
    }
}

/// What the gates judge by.
pub(crate) struct AccessState<'a> {
    /// Whether any profile is unlocked.
    pub(crate) any_unlocked: bool,
    /// State of the profile that is asked for.
    pub(crate) profile: ProfileStatus,
    pub(crate) rules: &'a AccessRules,
    pub(crate) rates: &'a dyn Rates,
    pub(crate) grants: &'a Grants,
}

#[cfg(test)]
impl<'a> AccessState<'a> {
    /// With the profile unlocked.
    pub(crate) fn open(rules: &'a AccessRules, rates: &'a dyn Rates, grants: &'a Grants) -> Self {
        Self { any_unlocked: true, profile: ProfileStatus::Unlocked, rules, rates, grants }
    }
}

/// State of a profile, as far as the gates have to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProfileStatus {
    Unlocked,
    Locked,
    Missing,
}

/// A gate said no.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) struct Refusal {
    pub(crate) gate: Gate,
    pub(crate) denial: SecretsDenial,
}

/// Proof that an attempt passed every gate: what was allowed, to be shown to the vault.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    action: Action,
    profile: ProfileName,
    names: Vec<SecretName>,
    /// The use that was taken for it, where only a grant allows it.
    grant: Option<GrantUse>,
}

impl Permit {
    /// Takes the use out that was taken for it, to be spent when the value is on its way.
    pub(crate) fn take_grant(&mut self) -> Option<GrantUse> {
        self.grant.take()
    }

    /// The profile it is for.
    pub(crate) fn profile(&self) -> &ProfileName {
        &self.profile
    }

    /// The names it is for, if it is for this action.
    pub(crate) fn names_for(&self, action: Action) -> Result<&[SecretName], SecretsDenial> {
        if self.action == action { Ok(&self.names) } else { Err(SecretsDenial::Forbidden) }
    }

    /// The one name it is for, if it is for this action.
    pub(crate) fn name_for(&self, action: Action) -> Result<&SecretName, SecretsDenial> {
        self.names_for(action)?.first().ok_or(SecretsDenial::Forbidden)
    }
}

type Check = fn(&Attempt, &AccessState<'_>) -> Result<(), SecretsDenial>;

/// The gates before the vault, cheapest first.
const GATES: [(Gate, Check); 6] = [
    (Gate::Lock, lock),
    (Gate::ActiveProfile, active_profile),
    (Gate::Identity, identity),
    (Gate::RateLimit, rate_limit),
    (Gate::AccessRule, access_rule),
    (Gate::Name, name),
];

/// Takes an attempt through the gates, in order, up to the first that says no.
pub(crate) fn authorize(attempt: &Attempt, state: &AccessState<'_>) -> Result<Permit, Refusal> {
    let judged = judge(&GATES, attempt, state).and_then(|()| take_grant(attempt, state));
    note_for_the_rate(&judged, attempt, state);
    let grant = judged?;
    let names = attempt.names.iter().map(|asked| asked.parsed.clone());
    let names: Result<Vec<SecretName>, NameError> = names.collect();
    let names = names.map_err(|error| refuse(Gate::Name, SecretsDenial::InvalidName(error)))?;
    Ok(Permit { action: attempt.action, profile: attempt.profile.clone(), names, grant })
}

/// What each gate says of an attempt, in their order: the gates of [`authorize`], but none is passed over after the first
/// that denies, no token is taken, and nobody is slowed down for it.
pub(crate) fn look_through(
    attempt: &Attempt,
    state: &AccessState<'_>,
) -> Vec<(Gate, Result<(), SecretsDenial>)> {
    let rates = OnlyLooking(state.rates);
    let state = AccessState { rates: &rates, ..*state };
    GATES.iter().map(|(gate, check)| (*gate, check(attempt, &state))).collect()
}

/// Leave to be told whether there is a secret of that name, for whoever could find it in a listing now. Nothing can be
/// read with it.
pub(crate) fn may_be_told(listing: &Attempt, name: &AskedName, state: &AccessState<'_>) -> Option<Permit> {
    let name = name.parsed.clone().ok()?;
    let Attempt { requester, profile, .. } = listing;
    let passes = look_through(listing, state).into_iter().all(|(_, verdict)| verdict.is_ok());
    let shown = state.rules.show(requester, profile, name.as_str());
    (passes && shown).then(|| Permit {
        action: Action::Explain,
        profile: profile.clone(),
        names: vec![name],
        grant: None,
    })
}

fn judge(gates: &[(Gate, Check)], attempt: &Attempt, state: &AccessState<'_>) -> Result<(), Refusal> {
    gates.iter().try_for_each(|(gate, check)| check(attempt, state).map_err(|denial| refuse(*gate, denial)))
}

fn refuse(gate: Gate, denial: SecretsDenial) -> Refusal {
    Refusal { gate, denial }
}

/// A requester who was denied for who it is or what it wants is slowed down until it is allowed something again.
fn note_for_the_rate<T>(judged: &Result<T, Refusal>, attempt: &Attempt, state: &AccessState<'_>) {
    match judged {
        Ok(_) => state.rates.note(&attempt.requester, false),
        Err(Refusal { gate: Gate::Identity | Gate::AccessRule, .. }) => {
            state.rates.note(&attempt.requester, true);
        }
        Err(_) => {}
    }
}

/// Gate 1: some profile is unlocked.
fn lock(attempt: &Attempt, state: &AccessState<'_>) -> Result<(), SecretsDenial> {
    match state.profile {
        _ if state.any_unlocked => Ok(()),
        ProfileStatus::Missing => Err(SecretsDenial::NoSuchProfile(attempt.profile.clone())),
        ProfileStatus::Unlocked | ProfileStatus::Locked => Err(SecretsDenial::Locked),
    }
}

/// Gate 2: the profile asked for is unlocked.
fn active_profile(attempt: &Attempt, state: &AccessState<'_>) -> Result<(), SecretsDenial> {
    match state.profile {
        ProfileStatus::Unlocked => Ok(()),
        ProfileStatus::Locked => Err(SecretsDenial::ProfileNotActive(attempt.profile.clone())),
        ProfileStatus::Missing => Err(SecretsDenial::NoSuchProfile(attempt.profile.clone())),
    }
}

/// Gate 3: the requester is one that may ask for this. Also the only gate of what is not about one secret.
fn identity(attempt: &Attempt, _: &AccessState<'_>) -> Result<(), SecretsDenial> {
    identify(&attempt.requester, attempt.action)
}

/// Whether the requester may ask for such an action at all.
pub(crate) fn identify(requester: &Requester, action: Action) -> Result<(), SecretsDenial> {
    if requester.may_ask(action) {
        Ok(())
    } else {
        Err(SecretsDenial::Identity { requester: requester.name().to_owned() })
    }
}

/// Gate 4: the requester has tokens left.
fn rate_limit(attempt: &Attempt, state: &AccessState<'_>) -> Result<(), SecretsDenial> {
    state.rates.spend(&attempt.requester, attempt.cost)
}

/// What the grants do for a reading that no rule allows and none denies; `None` where they have no say.
pub(crate) fn standing(attempt: &Attempt, state: &AccessState<'_>) -> Option<Standing> {
    let Attempt { requester, profile, action, names, .. } = attempt;
    let ([asked], Action::Get, Role::Enrolled) = (&names[..], action, requester.role()) else { return None };
    let ruling = state.rules.ruling(requester, profile, *action, (0, &asked.text))?;
    let undecided = matches!(ruling.rule, Rule::NoTable | Rule::NotListed(_));
    undecided.then(|| state.grants.look(requester.name(), profile, &asked.text))
}

/// Takes the use of a grant for a reading that nothing else allows: when every gate has let it pass, since a gate takes
/// nothing that would have to be given back. Someone else may have taken the last one meanwhile.
fn take_grant(attempt: &Attempt, state: &AccessState<'_>) -> Result<Option<GrantUse>, Refusal> {
    if state.grants.are_none() || standing(attempt, state).is_none() {
        return Ok(None);
    }
    let Attempt { requester, profile, names, .. } = attempt;
    let name = names.first().map_or("", |asked| &asked.text);
    let taken = state.grants.take(requester.name(), profile, name);
    let denied = |standing: Standing| standing.denial().unwrap_or(SecretsDenial::Forbidden);
    taken.map(Some).map_err(|standing| refuse(Gate::AccessRule, denied(standing)))
}

/// Gate 5: the rules allow the action, on every name, or a grant does that no rule denies.
fn access_rule(attempt: &Attempt, state: &AccessState<'_>) -> Result<(), SecretsDenial> {
    let Attempt { requester, profile, action, names, .. } = attempt;
    let by_name = |name| state.rules.allow(requester, profile, *action, name);
    let mut places = names.iter().map(|asked| asked.text.as_str()).enumerate();
    let allowed = if names.is_empty() {
        state.rules.allow_some(requester, profile, *action)
    } else {
        places.all(by_name)
    };
    match allowed {
        true => Ok(()),
        false => standing(attempt, state).unwrap_or(Standing::None).denial().map_or(Ok(()), Err),
    }
}

/// Gate 5.5: every name is a name.
fn name(attempt: &Attempt, _: &AccessState<'_>) -> Result<(), SecretsDenial> {
    let wrong = attempt.names.iter().find_map(|asked| asked.parsed.as_ref().err());
    wrong.map_or(Ok(()), |error| Err(SecretsDenial::InvalidName(error.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::requester;
    use std::cell::Cell;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Counts what is asked of it, and is empty or full.
    struct TestRates {
        empty: bool,
        spent: AtomicU32,
        noted: Mutex<Vec<bool>>,
    }

    impl Rates for TestRates {
        fn spend(&self, _: &Requester, cost: Cost) -> Result<(), SecretsDenial> {
            self.spent.fetch_add(cost.tokens, Ordering::Relaxed);
            if self.empty { Err(SecretsDenial::RateLimited { retry_ms: 7 }) } else { Ok(()) }
        }
        fn look(&self, _: &Requester, _: Cost) -> Result<(), SecretsDenial> {
            if self.empty { Err(SecretsDenial::RateLimited { retry_ms: 7 }) } else { Ok(()) }
        }
        fn note(&self, _: &Requester, denied: bool) {
            self.noted.lock().unwrap().push(denied);
        }
    }

    fn rates(empty: bool) -> TestRates {
        TestRates { empty, spent: AtomicU32::default(), noted: Mutex::default() }
    }

    fn profile() -> ProfileName {
        ProfileName::parse("work").unwrap()
    }

    fn attempt(requester_name: Option<&str>, action: Action, name: &str) -> Attempt {
        Attempt {
            action,
            profile: profile(),
            requester: requester(requester_name),
            names: vec![AskedName::new(name)],
            cost: Cost { tokens: 1, names: 1 },
        }
    }

    const ALL_ON_SECRETS: [Action; 9] = [
        Action::Get,
        Action::Set,
        Action::Delete,
        Action::List,
        Action::GetBatch,
        Action::History,
        Action::Restore,
        Action::Purge,
        Action::Move,
    ];

    struct World {
        any_unlocked: bool,
        profile: ProfileStatus,
        empty: bool,
    }

    const OPEN: World = World { any_unlocked: true, profile: ProfileStatus::Unlocked, empty: false };

    /// The gate and the denial of an attempt, and how many tokens it cost.
    fn outcome(attempt: &Attempt, world: &World) -> (Result<Vec<String>, (Gate, SecretsDenial)>, u32) {
        let rates = rates(world.empty);
        let rules = AccessRules::default();
        let state = AccessState {
            any_unlocked: world.any_unlocked,
            profile: world.profile,
            rules: &rules,
            rates: &rates,
            grants: &Grants::default(),
        };
        let outcome = match authorize(attempt, &state) {
            Ok(permit) => {
                let names = permit.names_for(attempt.action).unwrap();
                Ok(names.iter().map(|name| name.as_str().to_owned()).collect())
            }
            Err(refusal) => Err((refusal.gate, refusal.denial)),
        };
        (outcome, rates.spent.into_inner())
    }

    #[test]
    fn the_gates_stand_in_their_order() {
        let order: Vec<Gate> = GATES.iter().map(|(gate, _)| *gate).collect();
        let documented =
            [Gate::Lock, Gate::ActiveProfile, Gate::Identity, Gate::RateLimit, Gate::AccessRule, Gate::Name];
        assert_eq!(order, documented);
    }

    /// The world, who asks, for which name; the gate, its denial, and the tokens it cost.
    type Row<'a> = (&'a World, Option<&'a str>, &'a str, Gate, SecretsDenial, u32);

    /// Each line fails at one gate and at every later one that can fail at the same time; the first one answers.
    #[test]
    fn every_gate_denies_with_its_own_denial_before_the_later_ones() {
        let locked = World { any_unlocked: false, profile: ProfileStatus::Locked, empty: true };
        let nothing = World { any_unlocked: false, profile: ProfileStatus::Missing, empty: true };
        let other_open = World { any_unlocked: true, profile: ProfileStatus::Locked, empty: true };
        let missing = World { any_unlocked: true, profile: ProfileStatus::Missing, empty: true };
        let empty = World { empty: true, ..OPEN };
        let identity = SecretsDenial::Identity { requester: "daemon-bus".to_owned() };
        let invalid = SecretsDenial::InvalidName(NameError::Slash);
        let table: [Row<'_>; 8] = [
            (&locked, Some("daemon-bus"), "/", Gate::Lock, SecretsDenial::Locked, 0),
            (&nothing, Some("daemon-bus"), "/", Gate::Lock, SecretsDenial::NoSuchProfile(profile()), 0),
            (
                &other_open,
                Some("daemon-bus"),
                "/",
                Gate::ActiveProfile,
                SecretsDenial::ProfileNotActive(profile()),
                0,
            ),
            (
                &missing,
                Some("daemon-bus"),
                "/",
                Gate::ActiveProfile,
                SecretsDenial::NoSuchProfile(profile()),
                0,
            ),
            (&empty, Some("daemon-bus"), "/", Gate::Identity, identity, 0),
            (&empty, Some("backup"), "/", Gate::RateLimit, SecretsDenial::RateLimited { retry_ms: 7 }, 1),
            (&OPEN, Some("backup"), "/", Gate::AccessRule, SecretsDenial::Forbidden, 1),
            (&OPEN, None, "a/", Gate::Name, invalid, 1),
        ];
        for (world, who, name, gate, denial, tokens) in table {
            for action in ALL_ON_SECRETS {
                let found = outcome(&attempt(who, action, name), world);
                assert_eq!(found, (Err((gate, denial.clone())), tokens), "{gate:?} {action:?}");
            }
        }
    }

    #[test]
    fn nothing_runs_after_the_first_denial() {
        thread_local! {
            static RUN: Cell<u32> = const { Cell::new(0) };
        }
        fn yes(_: &Attempt, _: &AccessState<'_>) -> Result<(), SecretsDenial> {
            RUN.set(RUN.get() + 1);
            Ok(())
        }
        fn no(_: &Attempt, _: &AccessState<'_>) -> Result<(), SecretsDenial> {
            RUN.set(RUN.get() + 1);
            Err(SecretsDenial::Forbidden)
        }
        let gates: [(Gate, Check); 4] =
            [(Gate::Lock, yes), (Gate::Identity, no), (Gate::RateLimit, yes), (Gate::Name, no)];
        let rates = rates(false);
        let rules = AccessRules::default();
        let grants = Grants::default();
        let state = AccessState::open(&rules, &rates, &grants);
        let refusal = judge(&gates, &attempt(None, Action::Get, "a"), &state).unwrap_err();
        assert_eq!((refusal.gate, RUN.get()), (Gate::Identity, 2));
    }

    #[test]
    fn the_permit_names_what_was_allowed_and_for_what() {
        assert_eq!(outcome(&attempt(None, Action::Get, "a/b"), &OPEN), (Ok(vec!["a/b".to_owned()]), 1));
        let rates = rates(false);
        let rules = AccessRules::default();
        let grants = Grants::default();
        let state = AccessState::open(&rules, &rates, &grants);
        let permit = authorize(&attempt(None, Action::Get, "a"), &state).unwrap();
        assert_eq!(permit.profile(), &profile());
        assert_eq!(permit.name_for(Action::Get).unwrap().as_str(), "a");
        for other in ALL_ON_SECRETS.into_iter().filter(|other| *other != Action::Get) {
            assert_eq!(permit.name_for(other), Err(SecretsDenial::Forbidden), "{other:?}");
        }
    }

    #[test]
    fn one_bad_name_of_many_denies_all() {
        let mut many = attempt(None, Action::GetBatch, "good");
        many.names.push(AskedName::new("also/good"));
        many.names.push(AskedName::new("../bad"));
        let (outcome, _) = outcome(&many, &OPEN);
        assert_eq!(outcome, Err((Gate::Name, SecretsDenial::InvalidName(NameError::Dots))));
    }

    #[test]
    fn only_denials_for_who_or_what_slow_a_requester_down() {
        let noted = |who: Option<&str>, name: &str, world: &World| {
            let rates = rates(world.empty);
            let rules = AccessRules::default();
            let state = AccessState {
                any_unlocked: world.any_unlocked,
                profile: world.profile,
                rules: &rules,
                rates: &rates,
                grants: &Grants::default(),
            };
            let _ = authorize(&attempt(who, Action::Get, name), &state);
            rates.noted.into_inner().unwrap()
        };
        let locked = World { any_unlocked: false, profile: ProfileStatus::Locked, empty: false };
        assert_eq!(noted(None, "a", &OPEN), [false]);
        assert_eq!(noted(Some("daemon-bus"), "a", &OPEN), [true]);
        assert_eq!(noted(Some("backup"), "a", &OPEN), [true]);
        assert!(noted(None, "a", &locked).is_empty());
        assert!(noted(None, "/", &OPEN).is_empty());
        assert!(noted(None, "a", &World { empty: true, ..OPEN }).is_empty());
    }
}
