//! Locks profiles whose time is over: nothing of them was used for so long, or they were unlocked for so long. And
//! all of them at once, when something happened that they are to be locked for.
//!
//! What is used is learned from the entries of the audit log. They tell of every read and change, so that neither
//! `pds status` nor a listing nor an attempt that was denied keeps a profile open. Time is boot time: suspend counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_daemon::{BootTimer, LiveConfig};
use core_ipc::BusClient;
use core_types::ProfileName;
use core_types::config::Config;
use core_types::lock_times::{LockTime, LockTimes};
use core_types::protocol::profile::{AutoLock, LockCause, Operation, Outcome, SecretOperationAudit};
use core_types::protocol::secrets::{LockFor, ProfileChanged, ProfileState, Profiles};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a change of the configuration may go unnoticed while a profile is unlocked.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The same, where somebody waits for it.
const TRY_AGAIN_SOON: Duration = Duration::from_millis(50);

/// The profiles that are unlocked, and when each was unlocked and used, in boot time. Pure.
#[derive(Debug, Default)]
struct Watch(BTreeMap<ProfileName, Since>);

#[derive(Debug, Clone, Copy)]
struct Since {
    unlocked: Duration,
    used: Duration,
}

/// When a profile is to be locked, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    at: Duration,
    profile: ProfileName,
    cause: LockCause,
}

impl Watch {
    /// Learns from entries of `daemon-secrets`; whether a profile is watched that was not.
    fn learn(&mut self, entries: &[SecretOperationAudit], now: Duration) -> bool {
        use Operation::{Delete, Get, Init, Lock, Move, Purge, Restore, Set, Unlock};
        let before = self.0.len();
        for entry in entries.iter().filter(|entry| entry.outcome == Outcome::Done) {
            let Some(profile) = &entry.profile else { continue };
            match entry.operation {
                // Already known, unless the event of it was lost: an unlock of what is unlocked begins nothing anew.
                Init | Unlock => self.known_unlocked(profile, now),
                Lock => drop(self.0.remove(profile)),
                Get | Set | Delete | Move | Restore | Purge => {
                    if let Some(since) = self.0.get_mut(profile) {
                        since.used = now;
                    }
                }
                _ => {}
            }
        }
        self.0.len() > before
    }

    fn unlocked(&mut self, profile: ProfileName, now: Duration) {
        self.0.insert(profile, Since { unlocked: now, used: now });
    }

    fn known_unlocked(&mut self, profile: &ProfileName, now: Duration) {
        self.0.entry(profile.clone()).or_insert(Since { unlocked: now, used: now });
    }

    /// When each profile is to be locked that is to be locked at all, the first first.
    fn due(&self, times: impl Fn(&ProfileName) -> LockTimes) -> Vec<Due> {
        let mut due: Vec<Due> =
            self.0.iter().filter_map(|(name, since)| first(name, since, times(name))).collect();
        due.sort_by_key(|due| due.at);
        due
    }
}

fn first(profile: &ProfileName, since: &Since, times: LockTimes) -> Option<Due> {
    let at = |from: Duration, time: Option<LockTime>| Some(from.saturating_add(time?.duration()?));
    let idle = at(since.used, times.idle).map(|at| (at, LockCause::Idle));
    let after = at(since.unlocked, times.after).map(|at| (at, LockCause::After));
    let (at, cause) = idle.into_iter().chain(after).min_by_key(|(at, _)| *at)?;
    Some(Due { at, profile: profile.clone(), cause })
}

struct Inner {
    watch: Mutex<Watch>,
    config: Mutex<Config>,
    /// Told when another profile is to be watched.
    more: Notify,
}

/// The watch over unlocked profiles. Clones are the same one.
#[derive(Clone)]
pub(crate) struct AutoLocks(Arc<Inner>);

impl AutoLocks {
    /// Nothing is unlocked yet, as far as is known.
    pub(crate) fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            watch: Mutex::default(),
            config: Mutex::new(config.clone()),
            more: Notify::new(),
        }))
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> Vec<Due> {
        let config = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch().due(|profile| config.lock_times(profile))
    }

    /// Takes note that a profile was locked or unlocked.
    pub(crate) fn changed(&self, change: &ProfileChanged) {
        if change.unlocked {
            self.watch().unlocked(change.profile.clone(), BootTimer::now());
            self.0.more.notify_one();
        } else {
            self.watch().0.remove(&change.profile);
        }
    }

    /// Takes note of a profile that was unlocked before this daemon began, so long ago.
    pub(crate) fn take_up(&self, profile: ProfileName, ago: Duration) {
        let now = BootTimer::now();
        let since = Since { unlocked: now.saturating_sub(ago), used: now };
        self.watch().0.entry(profile).or_insert(since);
        self.0.more.notify_one();
    }

    /// Learns from entries of `daemon-secrets` that were recorded.
    pub(crate) fn learn(&self, entries: &[SecretOperationAudit]) {
        if self.watch().learn(entries, BootTimer::now()) {
            self.0.more.notify_one();
        }
    }

    /// When the unlocked profiles will be locked.
    pub(crate) fn pending(&self) -> Vec<AutoLock> {
        let now = BootTimer::now();
        let shown = |Due { at, profile, cause }| AutoLock {
            profile,
            seconds_left: at.saturating_sub(now).as_secs(),
            cause,
        };
        self.due().into_iter().map(shown).collect()
    }

    /// Locks what is due, for ever.
    pub(crate) async fn run(self, bus: BusClient, live: LiveConfig, timer: BootTimer) {
        loop {
            self.follow(&live).await;
            let now = BootTimer::now();
            let (due, later): (Vec<_>, Vec<_>) = self.due().into_iter().partition(|due| due.at <= now);
            let mut failed = false;
            for Due { profile, cause, .. } in due {
                failed |= !self.lock(&bus, profile, cause).await;
            }
            let pause = if failed { TRY_AGAIN } else { LOOK_AGAIN };
            let next = later.first().map_or(Duration::MAX, |due| due.at).min(now.saturating_add(pause));
            let watching = !self.watch().0.is_empty();
            let waited = tokio::select! {
                waited = timer.until(next), if watching => waited,
                () = self.0.more.notified() => Ok(()),
            };
            if let Err(error) = waited {
                tracing::error!(%error, "the timer by which profiles are locked failed; their times are looked at once a second");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }

    /// Locks all profiles that the configuration has locked for this cause, and returns when none of them is unlocked any
    /// more; `false` if that has not come about until then.
    pub(crate) async fn lock_all(
        &self,
        bus: &BusClient,
        live: &LiveConfig,
        cause: LockCause,
        until: Instant,
    ) -> bool {
        let locking = async {
            self.follow(live).await;
            // Again, until there is nothing: what is being unlocked meanwhile is to be locked as well.
            while !self.lock_those(bus, cause).await {}
        };
        tokio::time::timeout_at(until, locking).await.is_ok()
    }

    /// Locks what is unlocked; `true` if nothing was that is to be locked.
    async fn lock_those(&self, bus: &BusClient, cause: LockCause) -> bool {
        let profiles = match bus.call(&Profiles {}).await {
            Ok(profiles) => profiles,
            Err(error) => {
                tracing::warn!("it is not known which profiles are unlocked: {error}");
                tokio::time::sleep(TRY_AGAIN_SOON).await;
                return false;
            }
        };
        let wanted: Vec<ProfileName> = {
            let config = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
            let unlocked =
                profiles.into_iter().filter(|entry| matches!(entry.state, ProfileState::Unlocked { .. }));
            unlocked.map(|entry| entry.name).filter(|name| config.lock_times(name).locks_on(cause)).collect()
        };
        let none = wanted.is_empty();
        for profile in wanted {
            if !self.lock(bus, profile, cause).await {
                tokio::time::sleep(TRY_AGAIN_SOON).await;
            }
        }
        none
    }

    /// Takes over the configuration, where there is another one that can be used.
    async fn follow(&self, live: &LiveConfig) {
        if let Some(change) = live.changed().await {
            if let Ok(config) = &change.config {
                *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
            }
            change.seen();
        }
    }

    /// Has a profile locked; `false` if it may not be.
    async fn lock(&self, bus: &BusClient, profile: ProfileName, cause: LockCause) -> bool {
        match bus.call(&LockFor { profile: profile.clone(), cause }).await {
            Ok(_) => {
                self.watch().0.remove(&profile);
                true
            }
            Err(error) => {
                tracing::error!(%profile, ?cause, "it is to be locked, and could not be: {error}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::protocol::profile::Requester;
    use core_types::protocol::secrets::Gate;

    fn profile(name: &str) -> ProfileName {
        ProfileName::parse(name).unwrap()
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn entry(operation: Operation, name: &str, outcome: Outcome) -> SecretOperationAudit {
        let requester = Requester { name: "cli".to_owned(), uid: 0, pid: None, executable: None, unit: None };
        SecretOperationAudit::new(0, operation, requester, outcome).about(Some(profile(name)), None)
    }

    fn done(operation: Operation, name: &str) -> SecretOperationAudit {
        entry(operation, name, Outcome::Done)
    }

    fn times(idle: Option<u64>, after: Option<u64>) -> LockTimes {
        let time = |number: Option<u64>| {
            Some(number.map_or(LockTime::Never, |number| LockTime::After(seconds(number))))
        };
        LockTimes { idle: time(idle), after: time(after), ..LockTimes::default() }
    }

    fn due(watch: &Watch, times: LockTimes) -> Vec<(u64, String, LockCause)> {
        let due = watch.due(|_| times).into_iter();
        due.map(|due| (due.at.as_secs(), due.profile.to_string(), due.cause)).collect()
    }

    #[test]
    fn what_reads_or_changes_secrets_keeps_a_profile_open_and_nothing_else() {
        use Operation::{Delete, Get, Move, Purge, Restore, Set};
        let all = [
            Operation::Get,
            Operation::Set,
            Operation::Delete,
            Operation::List,
            Operation::History,
            Operation::Restore,
            Operation::Purge,
            Operation::Move,
            Operation::Unlock,
            Operation::Grant,
            Operation::CheckRecovery,
            Operation::AddFactor,
            Operation::Incident,
            Operation::ConfigChange,
        ];
        for operation in all {
            let uses = matches!(operation, Get | Set | Delete | Move | Restore | Purge);
            let mut watch = Watch::default();
            watch.unlocked(profile("work"), seconds(100));
            watch.learn(&[done(operation, "work")], seconds(150));
            let expected = if uses { 160 } else { 110 };
            let at = [(expected, "work".to_owned(), LockCause::Idle)];
            assert_eq!(due(&watch, times(Some(10), None)), at, "{operation:?}");
        }
        let mut watch = Watch::default();
        watch.unlocked(profile("work"), seconds(100));
        let denied = Outcome::Denied { gate: Gate::AccessRule, reason: String::new() };
        let failed = Outcome::Failed { reason: String::new() };
        let others = [entry(Get, "work", denied), entry(Set, "work", failed), done(Get, "home")];
        assert!(!watch.learn(&others, seconds(150)));
        assert_eq!(due(&watch, times(Some(10), None))[0].0, 110);
    }

    #[test]
    fn the_first_of_both_times_counts_and_use_moves_only_the_one() {
        let mut watch = Watch::default();
        watch.unlocked(profile("work"), seconds(0));
        watch.unlocked(profile("home"), seconds(5));
        let at = |number, name: &str, cause| (number, name.to_owned(), cause);
        let both = times(Some(10), Some(60));
        assert_eq!(due(&watch, both), [at(10, "work", LockCause::Idle), at(15, "home", LockCause::Idle)]);
        watch.learn(&[done(Operation::Get, "work")], seconds(55));
        assert_eq!(due(&watch, both), [at(15, "home", LockCause::Idle), at(60, "work", LockCause::After)]);
        assert_eq!(due(&watch, times(None, None)), []);
        assert_eq!(due(&watch, LockTimes::default()), []);
    }

    #[test]
    fn what_was_missed_is_learned_from_the_entries() {
        let mut watch = Watch::default();
        assert!(watch.learn(&[done(Operation::Unlock, "work"), done(Operation::Init, "home")], seconds(10)));
        // An unlock of what is unlocked is recorded as well.
        assert!(!watch.learn(&[done(Operation::Unlock, "work")], seconds(20)));
        assert_eq!(due(&watch, times(None, Some(30)))[1].0, 40);
        watch.learn(&[done(Operation::Lock, "work")], seconds(30));
        assert_eq!(due(&watch, times(None, Some(30))).len(), 1);
        watch.learn(&[done(Operation::Unlock, "work")], seconds(50));
        assert_eq!(due(&watch, times(None, Some(30)))[1], (80, "work".to_owned(), LockCause::After));
    }

    #[test]
    fn a_profile_that_was_unlocked_before_is_taken_up_with_its_age() {
        let config = Config::parse("[lock]\nafter = '1h'\n").unwrap();
        let locks = AutoLocks::new(&config);
        locks.take_up(profile("work"), seconds(3_000));
        let pending = locks.pending();
        assert_eq!((pending.len(), pending[0].cause), (1, LockCause::After));
        let left = pending[0].seconds_left;
        assert!((500..=600).contains(&left) || BootTimer::now() < seconds(3_000), "{left} seconds left");
        locks.changed(&ProfileChanged { profile: profile("work"), unlocked: false });
        assert_eq!(locks.pending(), []);
    }
}
