//! How long an unlock attempt has to wait, pure: counts in, milliseconds out.
//!
//! An attempt counts as wrong from its beginning and is forgiven only when it ends right, so ending the daemon in
//! between gains nothing. The wait never exceeds ten seconds: whoever has the password is slowed down, not shut out.

use std::collections::BTreeMap;

use core_types::ProfileName;
use serde::{Deserialize, Serialize};

/// Wait per wrong attempt, in milliseconds.
const STEP_MS: u64 = 100;
/// Longest wait, in milliseconds.
pub(crate) const WAIT_MS_MAX: u64 = 10_000;
/// Wrong attempts after which the wait grows no more.
const WRONG_MAX: u32 = 100;
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
    /// Attempts begun and not ended; each is also counted as wrong. They end with the daemon, their counts do not.
    under_way: BTreeMap<ProfileName, u32>,
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
    pub(crate) fn begin(&mut self, profile: &ProfileName) -> u64 {
        let wrong = self.wrong(profile);
        self.set_wrong(profile, wrong.saturating_add(1));
        *self.under_way.entry(profile.clone()).or_default() += 1;
        wait_ms(wrong)
    }

    /// Takes note of how an attempt ended. A right one forgives all that ended, not those still under way.
    pub(crate) fn end(&mut self, profile: &ProfileName, right: bool) {
        let others = self.under_way.remove(profile).unwrap_or(0).saturating_sub(1);
        if others > 0 {
            self.under_way.insert(profile.clone(), others);
        }
        if right {
            self.set_wrong(profile, others);
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

    #[test]
    fn each_wrong_attempt_adds_a_tenth_of_a_second_up_to_ten_seconds() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        for wrong in 0..250 {
            assert_eq!(backoff.begin(&work), (wrong * 100).min(10_000));
            backoff.end(&work, false);
        }
        assert_eq!(backoff.begin(&profile("home")), 0, "profiles are counted apart");
        backoff.end(&work, true);
        assert_eq!(backoff.begin(&work), 0, "a right attempt forgives");
    }

    #[test]
    fn no_count_in_the_file_makes_the_wait_longer_than_ten_seconds() {
        let file = r#"{"version":1,"others":4294967295,"wrong":{"work":4294967295}}"#;
        let mut backoff = Backoff::from_bytes(file.as_bytes()).unwrap();
        for name in ["work", "home", "work"] {
            assert_eq!(backoff.begin(&profile(name)), 10_000);
        }
    }

    #[test]
    fn an_attempt_without_an_end_was_wrong_and_a_restart_forgives_none() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        for _ in 0..3 {
            backoff.begin(&work);
            backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
        }
        assert_eq!(backoff.begin(&work), 300);
        backoff.end(&work, true);
        backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
        assert_eq!(backoff.begin(&work), 0);
    }

    #[test]
    fn a_right_attempt_does_not_forgive_one_that_is_still_under_way() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        backoff.begin(&work);
        backoff.begin(&work);
        backoff.end(&work, true);
        assert_eq!(backoff.begin(&work), 100);
        backoff.end(&work, false);
        backoff.end(&work, false);
        assert_eq!(backoff.begin(&work), 200);
    }

    #[test]
    fn lost_counts_slow_everyone_down_until_a_right_attempt_and_shut_nobody_out() {
        let (mut backoff, work) = (Backoff::unknown(), profile("work"));
        assert_eq!(backoff.begin(&work), 10_000);
        backoff.end(&work, false);
        assert_eq!(backoff.begin(&work), 10_000);
        backoff.end(&work, true);
        backoff = Backoff::from_bytes(&backoff.to_bytes().unwrap()).unwrap();
        assert_eq!(backoff.begin(&work), 0);
        assert_eq!(backoff.begin(&profile("home")), 10_000);
    }

    #[test]
    fn the_number_of_profiles_is_bounded_and_the_most_tried_are_kept() {
        let (mut backoff, work) = (Backoff::new(), profile("work"));
        backoff.begin(&work);
        backoff.begin(&work);
        for number in 0..PROFILES_MAX + 100 {
            backoff.begin(&profile(&format!("p{number}")));
        }
        assert_eq!(backoff.counts.wrong.len(), PROFILES_MAX);
        assert!(backoff.under_way.len() <= PROFILES_MAX);
        assert_eq!(backoff.begin(&work), 200);
        assert!(Backoff::from_bytes(&backoff.to_bytes().unwrap()).is_some());
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
                        prop_assert_eq!(backoff.begin(&work), wrong * 100);
                        wrong += 1;
                        under_way += 1;
                    }
                    2 if under_way > 0 => {
                        backoff.end(&work, false);
                        under_way -= 1;
                    }
                    3 if under_way > 0 => {
                        backoff.end(&work, true);
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
