//! How long an unlock attempt has to wait, pure: attempts and the time in, milliseconds out.
//!
//! An attempt counts as wrong from its beginning and is forgiven only when it ends right, so ending the daemon in
//! between gains nothing. The wait never exceeds ten seconds: whoever has the password is slowed down, not shut out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use core_types::ProfileName;
use core_types::limits::DEADLINE_MS_MAX;
use serde::{Deserialize, Serialize};

/// Wait per wrong attempt, in milliseconds.
const STEP_MS: u64 = 100;
/// Longest wait, in milliseconds.
pub(crate) const WAIT_MS_MAX: u64 = 10_000;
/// Wrong attempts after which the wait grows no more.
const WRONG_MAX: u32 = 100;
/// After this an attempt without an end is not under way any more: who made it died, and nobody waits for it.
const UNDER_WAY_MAX: Duration = Duration::from_millis(DEADLINE_MS_MAX as u64);
/// Most profiles with wrong attempts that are remembered.
const PROFILES_MAX: usize = 1_024;

/// The counts as they are kept in a file. A profile without a count of its own has `others`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    version: u32,
    others: u32,
    wrong: BTreeMap<ProfileName, u32>,
}

const VERSION: u32 = 1;

/// Wrong attempts of every profile, and the attempts under way.
#[derive(Debug)]
pub(crate) struct Backoff {
    counts: Counts,
    /// When each attempt that has not ended began; it is also counted as wrong, which outlasts a restart.
    under_way: BTreeMap<ProfileName, VecDeque<Instant>>,
}

impl Backoff {
    /// No attempt was ever wrong.
    pub(crate) fn new() -> Self {
        Self::with_others(0)
    }

    /// The counts were lost: every profile waits longest until its next right attempt, since nobody can tell which
    /// of them had been tried. That is ten seconds for whoever has the password, and no gain for whoever guesses.
    pub(crate) fn unknown() -> Self {
        Self::with_others(WRONG_MAX)
    }

    fn with_others(others: u32) -> Self {
        let counts = Counts { version: VERSION, others, wrong: BTreeMap::new() };
        Self { counts, under_way: BTreeMap::new() }
    }

    /// Reads what [`Self::to_bytes`] gave; `None` if it is anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let counts: Counts = serde_json::from_slice(bytes).ok()?;
        let usable = counts.version == VERSION && counts.wrong.len() <= PROFILES_MAX;
        usable.then(|| Self { counts, under_way: BTreeMap::new() })
    }

    /// The counts, to be kept.
    ///
    /// # Errors
    /// They cannot be written as JSON (which cannot happen for counts and names).
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.counts)
    }

    /// Takes note of an attempt that begins. Gives how many milliseconds it has to wait.
    pub(crate) fn begin(&mut self, profile: &ProfileName, now: Instant) -> u64 {
        let wrong = self.wrong(profile);
        let begun = self.under_way.entry(profile.clone()).or_default();
        begun.push_back(now);
        if begun.len() > WRONG_MAX as usize {
            begun.pop_front();
        }
        self.set_wrong(profile, wrong.saturating_add(1));
        if self.under_way.len() > PROFILES_MAX {
            // It stays counted as wrong; only a right attempt beside it would forgive it too early.
            self.under_way.pop_first();
        }
        wait_ms(wrong)
    }

    /// Takes note of how an attempt ended. A right one forgives all that ended, not those still under way.
    pub(crate) fn end(&mut self, profile: &ProfileName, right: bool, now: Instant) {
        let mut begun = self.under_way.remove(profile).unwrap_or_default();
        begun.retain(|begin| now.saturating_duration_since(*begin) < UNDER_WAY_MAX);
        begun.pop_front();
        if right {
            self.set_wrong(profile, u32::try_from(begun.len()).unwrap_or(WRONG_MAX));
        }
        if !begun.is_empty() {
            self.under_way.insert(profile.clone(), begun);
        }
    }

    fn wrong(&self, profile: &ProfileName) -> u32 {
        self.counts.wrong.get(profile).copied().unwrap_or(self.counts.others)
    }

    fn set_wrong(&mut self, profile: &ProfileName, wrong: u32) {
        let wrong = wrong.min(WRONG_MAX);
        if wrong == self.counts.others {
            self.counts.wrong.remove(profile);
            return;
        }
        self.counts.wrong.insert(profile.clone(), wrong);
        if self.counts.wrong.len() > PROFILES_MAX {
            self.forget_one(profile);
        }
    }

    /// Drops the profile with the fewest wrong attempts, but not `kept`: whoever wants a count forgotten has to
    /// make more wrong attempts at a thousand other profiles first.
    fn forget_one(&mut self, kept: &ProfileName) {
        let others = self.counts.wrong.iter().filter(|(profile, _)| *profile != kept);
        let fewest = others.min_by_key(|(_, wrong)| **wrong).map(|(profile, _)| profile.clone());
        if let Some(profile) = fewest {
            self.counts.wrong.remove(&profile);
            self.under_way.remove(&profile);
        }
    }
}

/// The wait after this many wrong attempts, in milliseconds.
fn wait_ms(wrong: u32) -> u64 {
    (u64::from(wrong) * STEP_MS).min(WAIT_MS_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn profile(name: &str) -> ProfileName {
        ProfileName::parse(name).unwrap()
    }

    /// A time for tests in which time does not matter.
    fn now() -> Instant {
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    #[test]
    fn each_wrong_attempt_adds_a_tenth_of_a_second_up_to_ten_seconds() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        for wrong in 0..250 {
            assert_eq!(backoff.begin(&work, now()), (wrong * 100).min(10_000));
            backoff.end(&work, false, now());
        }
        assert_eq!(backoff.begin(&profile("home"), now()), 0, "profiles are counted apart");
        backoff.end(&work, true, now());
        assert_eq!(backoff.begin(&work, now()), 0, "a right attempt forgives");
    }

    #[test]
    fn no_count_in_the_file_makes_the_wait_longer_than_ten_seconds() {
        let file = r#"{"version":1,"others":4294967295,"wrong":{"work":4294967295}}"#;
        let mut backoff = Backoff::from_bytes(file.as_bytes()).unwrap();
        for name in ["work", "home", "work"] {
            assert_eq!(backoff.begin(&profile(name), now()), 10_000);
        }
    }

    #[test]
    fn an_attempt_without_an_end_was_wrong_and_a_restart_forgives_none() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        for _ in 0..3 {
            backoff.begin(&work, now());
            backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
        }
        assert_eq!(backoff.begin(&work, now()), 300);
        backoff.end(&work, true, now());
        backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
        assert_eq!(backoff.begin(&work, now()), 0);
    }

    #[test]
    fn a_right_attempt_does_not_forgive_one_that_is_still_under_way() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        backoff.begin(&work, now());
        backoff.begin(&work, now());
        backoff.end(&work, true, now());
        assert_eq!(backoff.begin(&work, now()), 100);
        backoff.end(&work, false, now());
        backoff.end(&work, false, now());
        assert_eq!(backoff.begin(&work, now()), 200);
    }

    /// Else every death of `daemon-secrets` in the middle of an attempt would slow the user down for good.
    #[test]
    fn an_attempt_whose_end_can_no_longer_come_is_forgiven_with_the_others() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        backoff.begin(&work, now());
        let just_before = now() + UNDER_WAY_MAX - Duration::from_millis(1);
        backoff.begin(&work, just_before);
        backoff.end(&work, true, just_before);
        assert_eq!(backoff.begin(&work, just_before), 100, "the first may still be under way");
        backoff.end(&work, true, just_before + UNDER_WAY_MAX);
        assert_eq!(backoff.begin(&work, just_before + UNDER_WAY_MAX), 0);
    }

    #[test]
    fn lost_counts_slow_everyone_down_until_a_right_attempt_and_shut_nobody_out() {
        let (mut backoff, work) = (Backoff::unknown(), profile("work"));
        assert_eq!(backoff.begin(&work, now()), 10_000);
        backoff.end(&work, false, now());
        assert_eq!(backoff.begin(&work, now()), 10_000);
        backoff.end(&work, true, now());
        backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
        assert_eq!(backoff.begin(&work, now()), 0);
        assert_eq!(backoff.begin(&profile("home"), now()), 10_000);
    }

    #[test]
    fn the_number_of_profiles_is_bounded_and_the_most_tried_are_kept() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        backoff.begin(&work, now());
        backoff.begin(&work, now());
        for number in 0..PROFILES_MAX + 100 {
            backoff.begin(&profile(&format!("p{number}")), now());
        }
        assert_eq!(backoff.counts.wrong.len(), PROFILES_MAX);
        assert_eq!(backoff.begin(&work, now()), 200);
        assert!(Backoff::from_bytes(&backoff.to_bytes().unwrap()).is_some());
    }

    #[test]
    fn the_number_of_attempts_under_way_is_bounded() {
        let mut backoff = Backoff::unknown();
        for number in 0..PROFILES_MAX + 100 {
            backoff.begin(&profile(&format!("p{number}")), now());
        }
        assert_eq!(backoff.under_way.len(), PROFILES_MAX);
        let work = profile("work");
        for _ in 0..WRONG_MAX + 10 {
            backoff.begin(&work, now());
        }
        assert_eq!(backoff.under_way[&work].len(), WRONG_MAX as usize);
    }

    #[test]
    fn a_file_that_is_not_ours_is_not_taken_for_one() {
        let good = Backoff::new().to_bytes().unwrap();
        let good = String::from_utf8(good).unwrap();
        assert_eq!(good, r#"{"version":1,"others":0,"wrong":{}}"#);
        for bad in [
            "",
            "{}",
            r#"{"version":2,"others":0,"wrong":{}}"#,
            r#"{"version":1,"others":0,"wrong":{"../x":1}}"#,
            r#"{"version":1,"others":0,"wrong":{},"more":1}"#,
            r#"{"version":1,"others":0,"wrong":{}}x"#,
        ] {
            assert!(Backoff::from_bytes(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the order of beginnings, ends and restarts: no more attempts are forgiven than ended before or
        /// with a right one.
        #[test]
        fn wrong_attempts_since_the_last_right_one_are_all_counted(steps in proptest::collection::vec(0_u8..4, 0..60)) {
            let (mut backoff, work) = (Backoff::new(), profile("work"));
            let (mut wrong, mut under_way) = (0_u64, 0_u64);
            for step in steps {
                match step {
                    0 | 1 => {
                        prop_assert_eq!(backoff.begin(&work, now()), wrong * 100);
                        wrong += 1;
                        under_way += 1;
                    }
                    2 if under_way > 0 => {
                        backoff.end(&work, false, now());
                        under_way -= 1;
                    }
                    3 if under_way > 0 => {
                        backoff.end(&work, true, now());
                        under_way -= 1;
                        wrong = under_way;
                    }
                    _ => {
                        backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
                        under_way = 0;
                    }
                }
            }
        }
    }
}
