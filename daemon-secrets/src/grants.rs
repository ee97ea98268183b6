//! Bounded grants: what an enrolled daemon may read for some time, or so often, though no rule allows it.
//!
//! They are kept in memory alone: a restart ends them all, and locking a profile those of it. A use is taken when the
//! gates let a reading through and given back unless the value is delivered, so of n uses never more than n values leave,
//! however many ask at once. A grant that has ended is kept for a while, so that its denial can say so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_crypto::random;
use core_daemon::unix_ms_now;
use core_secrets::jit::{BootClock, Clock};
use core_types::grant::{GrantBounds, GrantId, GrantRecord};
use core_types::limits::{GRANT_ENDED_SECONDS, GRANT_SECONDS_MAX, GRANT_USES_MAX, GRANTS_MAX};
use core_types::name::{DaemonName, ProfileName, is_own};
use core_types::pattern::Pattern;
use core_types::protocol::grants::{Grant, GrantEntry, GrantState};
use core_types::protocol::secrets::SecretsDenial;

/// One grant.
#[derive(Debug)]
struct Held {
    id: GrantId,
    profile: ProfileName,
    pattern: Pattern,
    to: DaemonName,
    made_unix_ms: u64,
    /// In boot time.
    expires: Duration,
    /// Uses that it was made with, and those that are neither spent nor taken for a reading under way.
    uses: Option<(u64, u64)>,
    /// Whether its making has been recorded; before that it lets nothing through.
    recorded: bool,
}

impl Held {
    fn state(&self, now: Duration) -> GrantState {
        match (self.uses, self.expires.checked_sub(now).filter(|left| !left.is_zero())) {
            (Some((_, 0)), _) => GrantState::UsedUp,
            (_, None) => GrantState::Expired,
            (_, Some(left)) => {
                GrantState::Live { seconds_left: left.as_secs() + u64::from(left.subsec_nanos() > 0) }
            }
        }
    }

    fn is_live(&self, now: Duration) -> bool {
        matches!(self.state(now), GrantState::Live { .. })
    }

    fn entry(&self, now: Duration) -> GrantEntry {
        GrantEntry {
            id: self.id,
            profile: self.profile.clone(),
            pattern: self.pattern.clone(),
            to: self.to.clone(),
            made_unix_ms: self.made_unix_ms,
            state: self.state(now),
            uses: self.uses.map(|(all, _)| all),
            uses_left: self.uses.map(|(_, left)| left),
        }
    }
}

/// All grants.
#[derive(Clone)]
pub(crate) struct Grants {
    held: Arc<Mutex<Vec<Held>>>,
    clock: Arc<dyn Clock>,
}

impl Default for Grants {
    fn default() -> Self {
        Self::with_clock(Arc::new(BootClock))
    }
}

/// What a grant does for a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is none.
    None,
    /// It lets the reading through.
    Live(GrantId),
    /// It would have, and has expired.
    Expired(GrantId),
    /// It would have, and is used up.
    UsedUp(GrantId),
}

impl Standing {
    /// Which grant it is about.
    pub(crate) fn grant(self) -> Option<GrantId> {
        match self {
            Self::None => None,
            Self::Live(id) | Self::Expired(id) | Self::UsedUp(id) => Some(id),
        }
    }

    /// The denial of a reading that only this could let through.
    pub(crate) fn denial(self) -> Option<SecretsDenial> {
        match self {
            Self::None => Some(SecretsDenial::Forbidden),
            Self::Live(_) => None,
            Self::Expired(id) => Some(SecretsDenial::GrantExpired(id)),
            Self::UsedUp(id) => Some(SecretsDenial::GrantUsedUp(id)),
        }
    }
}

impl Grants {
    /// No grants, by this clock.
    pub(crate) fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { held: Arc::default(), clock }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is none at all, not even one that has ended.
    pub(crate) fn are_none(&self) -> bool {
        self.held().is_empty()
    }

    /// Makes a grant, which holds when [`Unrecorded::recorded`] has been called, and is dropped without.
    pub(crate) fn make(&self, call: &Grant) -> Result<Unrecorded, SecretsDenial> {
        if is_own(call.to.as_str()) {
            return Err(SecretsDenial::NotGrantable(call.to.clone()));
        }
        let uses_fit = call.uses.is_none_or(|uses| (1..=GRANT_USES_MAX).contains(&uses));
        if !(1..=GRANT_SECONDS_MAX).contains(&call.seconds) || !uses_fit {
            return Err(SecretsDenial::GrantBounds);
        }
        let now = self.clock.now();
        let mut held = self.held();
        sweep(&mut held, now);
        let id = new_id(&held, now)?;
        let grant = Held {
            id,
            profile: call.profile.clone(),
            pattern: call.pattern.clone(),
            to: call.to.clone(),
            made_unix_ms: unix_ms_now(),
            expires: now + Duration::from_secs(call.seconds),
            uses: call.uses.map(|uses| (uses, uses)),
            recorded: false,
        };
        let bounds = GrantBounds { to: call.to.clone(), seconds: call.seconds, uses: call.uses };
        let record = GrantRecord { id, bounds: Some(bounds) };
        let entry = grant.entry(now);
        held.push(grant);
        Ok(Unrecorded { grants: self.clone(), entry, record, holds: false })
    }

    /// All of them, in the order in which they were made.
    pub(crate) fn list(&self) -> Vec<GrantEntry> {
        let now = self.clock.now();
        let mut held = self.held();
        sweep(&mut held, now);
        held.iter().filter(|grant| grant.recorded).map(|grant| grant.entry(now)).collect()
    }

    /// Takes one back; what it was, if there is one.
    pub(crate) fn revoke(&self, id: GrantId) -> Option<GrantEntry> {
        let mut held = self.held();
        let place = held.iter().position(|grant| grant.id == id)?;
        Some(held.remove(place).entry(self.clock.now()))
    }

    /// Ends all of a profile that was locked.
    pub(crate) fn forget(&self, profile: &ProfileName) {
        self.held().retain(|grant| grant.profile != *profile);
    }

    /// One of them as it is listed.
    pub(crate) fn entry(&self, id: GrantId) -> Option<GrantEntry> {
        let now = self.clock.now();
        self.held().iter().find(|grant| grant.id == id).map(|grant| grant.entry(now))
    }

    /// What the grants do for a reading now. Nothing is spent.
    pub(crate) fn look(&self, to: &str, profile: &ProfileName, name: &str) -> Standing {
        standing(&self.held(), self.clock.now(), to, profile, name).0
    }

    /// Takes a use for a reading, if one lets it through.
    pub(crate) fn take(&self, to: &str, profile: &ProfileName, name: &str) -> Result<GrantUse, Standing> {
        let now = self.clock.now();
        let mut held = self.held();
        let (standing, place) = standing(&held, now, to, profile, name);
        match (standing, place.and_then(|place| held.get_mut(place))) {
            (Standing::Live(id), Some(grant)) => {
                if let Some((_, left)) = &mut grant.uses {
                    *left -= 1;
                }
                Ok(GrantUse { grants: self.clone(), id, spent: false })
            }
            (standing, _) => Err(standing),
        }
    }

    fn give_back(&self, id: GrantId) {
        if let Some(grant) = self.held().iter_mut().find(|grant| grant.id == id)
            && let Some((_, left)) = &mut grant.uses
        {
            *left += 1;
        }
    }
}

/// Of several that fit, the live one that expires first; else the one that was made last.
fn standing(
    held: &[Held],
    now: Duration,
    to: &str,
    profile: &ProfileName,
    name: &str,
) -> (Standing, Option<usize>) {
    let fits = |grant: &Held| {
        grant.recorded
            && grant.to.as_str() == to
            && grant.profile == *profile
            && grant.pattern.matches_text(name)
    };
    let fitting = || held.iter().enumerate().filter(|(_, grant)| fits(grant));
    let live = fitting().filter(|(_, grant)| grant.is_live(now)).min_by_key(|(_, grant)| grant.expires);
    let Some((place, grant)) = live.or_else(|| fitting().next_back()) else { return (Standing::None, None) };
    let standing = match grant.state(now) {
        GrantState::Live { .. } => Standing::Live(grant.id),
        GrantState::Expired => Standing::Expired(grant.id),
        GrantState::UsedUp => Standing::UsedUp(grant.id),
    };
    (standing, Some(place))
}

/// Forgets what ended long ago, and of what ended since then the oldest, where there is too much of it.
fn sweep(held: &mut Vec<Held>, now: Duration) {
    let keep = Duration::from_secs(GRANT_ENDED_SECONDS);
    held.retain(|grant| now < grant.expires + keep);
    let ended = held.iter().filter(|grant| !grant.is_live(now)).count();
    let mut surplus = ended.saturating_sub(GRANTS_MAX);
    held.retain(|grant| {
        let goes = surplus > 0 && !grant.is_live(now);
        surplus -= usize::from(goes);
        !goes
    });
}

/// A number that none of them has, if there is room for one more.
fn new_id(held: &[Held], now: Duration) -> Result<GrantId, SecretsDenial> {
    let live = held.iter().filter(|grant| grant.is_live(now)).count();
    if live >= GRANTS_MAX {
        return Err(SecretsDenial::TooManyGrants);
    }
    loop {
        let mut bytes = [0; 4];
        random::fill(&mut bytes).map_err(|error| SecretsDenial::Storage(error.to_string()))?;
        let id = GrantId(u32::from_ne_bytes(bytes));
        if held.iter().all(|grant| grant.id != id) {
            return Ok(id);
        }
    }
}

/// A grant that lets nothing through yet.
pub(crate) struct Unrecorded {
    grants: Grants,
    entry: GrantEntry,
    record: GrantRecord,
    holds: bool,
}

impl Unrecorded {
    /// What the audit log has of its making.
    pub(crate) fn record(&self) -> &GrantRecord {
        &self.record
    }

    /// It holds from now on.
    pub(crate) fn recorded(mut self) -> GrantEntry {
        if let Some(grant) = self.grants.held().iter_mut().find(|grant| grant.id == self.entry.id) {
            grant.recorded = true;
        }
        self.holds = true;
        self.entry.clone()
    }
}

impl Drop for Unrecorded {
    fn drop(&mut self) {
        if !self.holds {
            self.grants.revoke(self.entry.id);
        }
    }
}

/// A use of a grant, taken for one reading; given back when it is dropped before the value was delivered.
#[must_use]
pub(crate) struct GrantUse {
    grants: Grants,
    id: GrantId,
    spent: bool,
}

impl GrantUse {
    /// Which grant it is of.
    pub(crate) fn id(&self) -> GrantId {
        self.id
    }

    /// The value is on its way.
    pub(crate) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for GrantUse {
    fn drop(&mut self) {
        if !self.spent {
            self.grants.give_back(self.id);
        }
    }
}

impl std::fmt::Debug for GrantUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrantUse({})", self.id)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A clock that a test sets.
    #[derive(Default)]
    pub(crate) struct TestClock(Mutex<Duration>);

    impl TestClock {
        pub(crate) fn advance(&self, seconds: u64) {
            *self.0.lock().unwrap() += Duration::from_secs(seconds);
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    pub(crate) fn grants() -> (Grants, Arc<TestClock>) {
        let clock = Arc::new(TestClock::default());
        (Grants::with_clock(Arc::<TestClock>::clone(&clock)), clock)
    }

    pub(crate) fn work() -> ProfileName {
        ProfileName::parse("work").unwrap()
    }

    pub(crate) fn call(pattern: &str, to: &str, seconds: u64, uses: Option<u64>) -> Grant {
        let (pattern, to) = (Pattern::parse(pattern).unwrap(), to.parse().unwrap());
        Grant { profile: work(), pattern, to, seconds, uses }
    }

    /// Makes a grant that holds.
    pub(crate) fn make(grants: &Grants, pattern: &str, seconds: u64, uses: Option<u64>) -> GrantId {
        grants.make(&call(pattern, "backup", seconds, uses)).unwrap().recorded().id
    }

    fn look(grants: &Grants, name: &str) -> Standing {
        grants.look("backup", &work(), name)
    }

    #[test]
    fn a_grant_holds_for_its_time_its_profile_its_names_and_whom_it_is_for() {
        let (grants, clock) = grants();
        assert!(grants.are_none());
        let id = make(&grants, "db/*", 10, None);
        assert_eq!((look(&grants, "db/a"), look(&grants, "mail/a")), (Standing::Live(id), Standing::None));
        assert_eq!(grants.look("other", &work(), "db/a"), Standing::None);
        assert_eq!(grants.look("backup", &"home".parse().unwrap(), "db/a"), Standing::None);
        // A second that has begun counts whole.
        *clock.0.lock().unwrap() += Duration::from_millis(8_500);
        assert_eq!(grants.entry(id).unwrap().state, GrantState::Live { seconds_left: 2 });
        *clock.0.lock().unwrap() += Duration::from_millis(500);
        assert_eq!(grants.entry(id).unwrap().state, GrantState::Live { seconds_left: 1 });
        clock.advance(1);
        assert_eq!(look(&grants, "db/a"), Standing::Expired(id));
        assert_eq!(grants.take("backup", &work(), "db/a").unwrap_err(), Standing::Expired(id));
        clock.advance(GRANT_ENDED_SECONDS - 1);
        assert_eq!(grants.list().len(), 1);
        clock.advance(1);
        assert_eq!((grants.list().len(), look(&grants, "db/a")), (0, Standing::None));
    }

    #[test]
    fn a_use_is_spent_when_the_value_is_delivered_and_else_given_back() {
        let (grants, _) = grants();
        let id = make(&grants, "a", 10, Some(2));
        let first = grants.take("backup", &work(), "a").unwrap();
        let second = grants.take("backup", &work(), "a").unwrap();
        assert_eq!(grants.take("backup", &work(), "a").unwrap_err(), Standing::UsedUp(id));
        drop(second);
        assert_eq!(look(&grants, "a"), Standing::Live(id), "it was not delivered");
        first.spend();
        grants.take("backup", &work(), "a").unwrap().spend();
        assert_eq!(look(&grants, "a"), Standing::UsedUp(id));
        let entry = grants.entry(id).unwrap();
        assert_eq!((entry.state, entry.uses, entry.uses_left), (GrantState::UsedUp, Some(2), Some(0)));
    }

    #[test]
    fn of_several_the_live_one_that_ends_first_is_taken() {
        let (grants, clock) = grants();
        let long = make(&grants, "a", 100, None);
        let short = make(&grants, "*", 10, None);
        assert_eq!(look(&grants, "a"), Standing::Live(short));
        clock.advance(10);
        assert_eq!(look(&grants, "a"), Standing::Live(long));
        let used = make(&grants, "b", 100, Some(1));
        grants.take("backup", &work(), "b").unwrap().spend();
        assert_eq!(look(&grants, "b"), Standing::UsedUp(used), "the one that was made last says why");
    }

    #[test]
    fn what_is_taken_back_or_locked_away_is_gone() {
        let (grants, _) = grants();
        let id = make(&grants, "a", 10, None);
        assert_eq!(grants.revoke(id).map(|grant| grant.id), Some(id));
        assert_eq!((grants.revoke(id), look(&grants, "a")), (None, Standing::None));
        make(&grants, "a", 10, Some(1));
        let under_way = grants.take("backup", &work(), "a").unwrap();
        grants.forget(&work());
        drop(under_way);
        assert!(grants.are_none());
    }

    #[test]
    fn what_is_not_recorded_lets_nothing_through() {
        let (grants, _) = grants();
        let unrecorded = grants.make(&call("a", "backup", 10, None)).unwrap();
        assert_eq!((look(&grants, "a"), grants.list().len()), (Standing::None, 0));
        drop(unrecorded);
        assert!(grants.are_none());
    }

    #[test]
    fn bounds_and_ceilings_hold() {
        let (grants, clock) = grants();
        let refused = |call: &Grant| grants.make(call).err();
        for (seconds, uses) in
            [(0, None), (GRANT_SECONDS_MAX + 1, None), (1, Some(0)), (1, Some(GRANT_USES_MAX + 1))]
        {
            assert_eq!(refused(&call("a", "backup", seconds, uses)), Some(SecretsDenial::GrantBounds));
        }
        for own in ["cli", "daemon-launcher", "daemon-profile", "daemon-else"] {
            let denial = SecretsDenial::NotGrantable(own.parse().unwrap());
            assert_eq!(refused(&call("a", own, 1, None)), Some(denial));
        }
        for _ in 0..GRANTS_MAX {
            make(&grants, "a", 10, Some(1));
        }
        assert_eq!(refused(&call("a", "backup", 1, None)), Some(SecretsDenial::TooManyGrants));
        clock.advance(10);
        for _ in 0..GRANTS_MAX {
            make(&grants, "b", 20, None);
        }
        clock.advance(20);
        let last = make(&grants, "c", 10, None);
        let kept = grants.list();
        assert_eq!(kept.len(), GRANTS_MAX + 1, "the oldest that ended are forgotten");
        assert_eq!((kept[0].pattern.as_str(), kept[GRANTS_MAX].id), ("b", last));
    }

    /// However many ask at once and however they end, no more is delivered than the grant is for.
    #[test]
    fn no_use_is_delivered_twice() {
        let (grants, _) = grants();
        let id = make(&grants, "a", 10, Some(50));
        let delivered = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (grants, delivered) = (&grants, &delivered);
                scope.spawn(move || {
                    for attempt in 0..100 {
                        match grants.take("backup", &work(), "a") {
                            Ok(taken) if (attempt + thread) % 3 == 0 => drop(taken),
                            Ok(taken) => {
                                delivered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                taken.spend();
                            }
                            Err(standing) => assert_eq!(standing, Standing::UsedUp(id)),
                        }
                    }
                });
            }
        });
        assert_eq!(delivered.into_inner(), 50);
        assert_eq!(look(&grants, "a"), Standing::UsedUp(id));
    }
}
