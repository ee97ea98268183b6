//! When a profile locks by itself, as it stands in `config.toml`.

use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use crate::protocol::profile::LockCause;

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
#[serde(try_from = "RawLockTimes")]
pub struct LockTimes {
    /// Since a secret of it was last read or changed.
    pub idle: Option<LockTime>,
    /// Since it was unlocked, used or not.
    pub after: Option<LockTime>,
    /// Whether it locks before the machine goes to sleep.
    pub suspend: Option<bool>,
    /// Whether it locks with the screen.
    pub screen: Option<bool>,
    /// Whether it locks when the user's last session ends.
    pub logout: Option<bool>,
}

/// The table as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawLockTimes {
    idle: Option<LockTime>,
    after: Option<LockTime>,
    suspend: Option<bool>,
    screen: Option<bool>,
    logout: Option<bool>,
    until: Option<Until>,
}

/// What nothing locks a profile before, but suspend.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Until {
    Logout,
}

impl TryFrom<RawLockTimes> for LockTimes {
    type Error = &'static str;

    fn try_from(raw: RawLockTimes) -> Result<Self, Self::Error> {
        let RawLockTimes { idle, after, suspend, screen, logout, until } = raw;
        match until {
            None => Ok(Self { idle, after, suspend, screen, logout }),
            Some(Until::Logout)
                if idle.is_none() && after.is_none() && screen.is_none() && logout.is_none() =>
            {
                let never = Some(LockTime::Never);
                Ok(Self { idle: never, after: never, suspend, screen: Some(false), logout: Some(true) })
            }
            Some(Until::Logout) => {
                Err("until = \"logout\" says already what idle, after, screen and logout say")
            }
        }
    }
}

impl LockTimes {
    /// These, and where they say nothing those of `all` profiles.
    #[must_use]
    pub fn or(self, all: Self) -> Self {
        Self {
            idle: self.idle.or(all.idle),
            after: self.after.or(all.after),
            suspend: self.suspend.or(all.suspend),
            screen: self.screen.or(all.screen),
            logout: self.logout.or(all.logout),
        }
    }

    /// Whether what happened to the session or the machine locks. It does unless the configuration says otherwise:
    /// whoever unlocks at a desktop expects what a password manager does, and whoever does not says so once.
    #[must_use]
    pub fn locks_on(self, cause: LockCause) -> bool {
        match cause {
            LockCause::Suspend => self.suspend.unwrap_or(true),
            LockCause::Screen => self.screen.unwrap_or(true),
            LockCause::Logout => self.logout.unwrap_or(true),
            LockCause::User
            | LockCause::Shutdown
            | LockCause::Restore
            | LockCause::Rekey
            | LockCause::Idle
            | LockCause::After => false,
        }
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
    fn suspend_screen_and_logout_lock_unless_the_configuration_says_otherwise() {
        let text = "[lock]\nscreen = false\nidle = '1h'\n[profiles.work.lock]\nscreen = true\nsuspend = false\n\
                    [profiles.home.lock]\nuntil = 'logout'\n[profiles.play.lock]\nlogout = false\n";
        let config = Config::parse(text).unwrap();
        let locks = |config: &Config, profile: &str| {
            let times = config.lock_times(&ProfileName::parse(profile).unwrap());
            [LockCause::Suspend, LockCause::Screen, LockCause::Logout].map(|cause| times.locks_on(cause))
        };
        assert_eq!(locks(&Config::default(), "work"), [true, true, true]);
        assert_eq!(locks(&config, "work"), [false, true, true]);
        assert_eq!(locks(&config, "home"), [true, false, true]);
        assert_eq!(locks(&config, "play"), [true, false, false]);
        let home = config.lock_times(&ProfileName::parse("home").unwrap());
        assert_eq!([home.idle, home.after], [Some(LockTime::Never); 2]);
        for wrong in [
            "until = 'reboot'",
            "until = 'logout'\nidle = '1m'",
            "until = 'logout'\nscreen = true",
            "screen = 'yes'",
        ] {
            assert!(Config::parse(&format!("[lock]\n{wrong}\n")).is_err(), "{wrong}");
        }
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
