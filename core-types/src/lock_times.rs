//! When a profile locks by itself, as it stands in `config.toml`.

use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

/// Longest time that can be configured: a year.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a profile stays unlocked at most, by one way of counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockTime {
    /// Until something else locks it.
    Never,
    /// So long.
    After(Duration),
}

impl LockTime {
    /// The time, if there is one.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(time) => Some(time),
        }
    }
}

/// A table `[lock]`, of all profiles or of one. What it does not say, the table above it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LockTimes {
    /// Since a secret of it was last read or changed.
    pub idle: Option<LockTime>,
    /// Since it was unlocked, used or not.
    pub after: Option<LockTime>,
}

impl LockTimes {
    /// These, and where they say nothing those of `all` profiles.
    #[must_use]
    pub fn or(self, all: Self) -> Self {
        Self { idle: self.idle.or(all.idle), after: self.after.or(all.after) }
    }
}

impl<'de> Deserialize<'de> for LockTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "'{text}' is neither \"never\" nor a length of time from 1s to 8760h, such as \"15m\" or \"1h 30m\""
            ))
        })
    }
}

fn parse(text: &str) -> Option<LockTime> {
    if text == "never" {
        return Some(LockTime::Never);
    }
    let time: SignedDuration = text.parse().ok()?;
    let time = Duration::try_from(time).ok()?;
    (Duration::from_secs(1)..=TIME_MAX).contains(&time).then_some(LockTime::After(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProfileName;
    use crate::config::Config;

    #[test]
    fn a_profile_has_its_own_times_or_those_of_all() {
        let text = "[lock]\nidle = '15m'\nafter = '8h'\n\
                    [profiles.work.lock]\nidle = '90s'\n[profiles.home.lock]\nafter = 'never'\n[profiles.play]\n";
        let config = Config::parse(text).unwrap();
        let seconds = |profile: &str| {
            let times = config.lock_times(&ProfileName::parse(profile).unwrap());
            [times.idle, times.after].map(|time| time.and_then(LockTime::duration).map(|time| time.as_secs()))
        };
        assert_eq!(seconds("work"), [Some(90), Some(28_800)]);
        assert_eq!(seconds("home"), [Some(900), None]);
        assert_eq!(seconds("play"), [Some(900), Some(28_800)]);
        assert_eq!(seconds("other"), [Some(900), Some(28_800)]);
        assert_eq!(Config::default().lock_times(&ProfileName::parse("work").unwrap()), LockTimes::default());
    }

    #[test]
    fn what_is_no_time_is_refused_by_name() {
        for good in ["1s", "15m", "1h 30m", "8760h", "PT15M"] {
            assert!(matches!(parse(good), Some(LockTime::After(_))), "{good}");
        }
        for bad in ["", "15", "0s", "500ms", "-1m", "8761h", "Never", "soon", "1d", "99999999999999999999h"] {
            let error = Config::parse(&format!("[lock]\nidle = '{bad}'\n")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(&format!("'{bad}'")), "{error}");
        }
        for unknown in ["[lock]\nidel = '1m'", "[profiles.work.lock]\nidel = '1m'", "[lock]\nidle = 15"] {
            assert!(Config::parse(unknown).is_err(), "{unknown}");
        }
    }
}
