//! Wipes cached values the moment they expire: it sleeps until then, and without end while nothing is cached.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use crate::vault::Vaults;

/// A timer by the clock that goes on in suspend (`CLOCK_BOOTTIME`, timerfd_create(2)): what expired while the machine
/// slept is wiped when it wakes up. It is waited for and read just as a pipe is.
pub(crate) struct BootTimer {
    timer: Receiver,
}

impl BootTimer {
    /// A timer that waits for nothing yet.
    ///
    /// # Errors
    /// The process has no descriptor left for it.
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// Completes at a moment of boot time, or at once if that has passed.
    async fn until(&self, moment: Duration) -> io::Result<()> {
        self.set(moment.max(Duration::from_nanos(1)))?;
        loop {
            self.timer.readable().await?;
            let mut expirations = [0; 8];
            match self.timer.try_read(&mut expirations) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(|_| ()),
            }
        }
    }

    /// Sets the moment; zero is none.
    fn set(&self, moment: Duration) -> io::Result<()> {
        let it_value = Timespec {
            tv_sec: i64::try_from(moment.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: moment.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

/// Wipes the cached values of all profiles as they expire, for ever.
pub(crate) async fn wipe_what_expires(vaults: Arc<Vaults>, timer: BootTimer) {
    loop {
        let Some(next) = vaults.wipe_expired() else {
            vaults.next_to_expire().await;
            continue;
        };
        let waited = tokio::select! {
            waited = timer.until(next) => waited,
            () = vaults.next_to_expire() => Ok(()),
        };
        if let Err(error) = waited {
            tracing::error!(%error, "the timer of the cache failed, so that nothing is kept in it");
            vaults.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::World;
    use core_secrets::jit::{BootClock, Clock as _};
    use std::os::fd::AsRawFd as _;

    /// Long enough for a machine that does something else.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn described(timer: &BootTimer) -> String {
        let number = timer.timer.as_raw_fd();
        std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap()
    }

    /// Completes when so many values are cached.
    async fn until_cached(vaults: &Vaults, count: usize) {
        let looking = async {
            while vaults.cached() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap();
    }

    #[tokio::test]
    async fn a_value_is_wiped_at_its_expiry_though_nobody_reads_it() {
        let world = World::with_ttl(Duration::from_millis(200)).await;
        world.set("a", b"x").await.unwrap();
        let vaults = Arc::clone(&world.daemon.vaults);
        let wiper = tokio::spawn(wipe_what_expires(Arc::clone(&vaults), BootTimer::new().unwrap()));
        for _ in 0..2 {
            let read_at = BootClock.now();
            world.get("a").await.unwrap();
            assert_eq!(vaults.cached(), 1);
            until_cached(&vaults, 0).await;
            assert!(BootClock.now() - read_at >= Duration::from_millis(200), "not before its time");
        }
        assert!(!wiper.is_finished());
    }

    #[tokio::test]
    async fn the_timer_counts_suspend_and_completes_at_once_for_what_has_passed() {
        let timer = BootTimer::new().unwrap();
        let boottime = format!("clockid: {}", TimerfdClockId::Boottime as u32);
        assert!(described(&timer).contains(&boottime), "{}", described(&timer));
        timer.until(Duration::ZERO).await.unwrap();
        timer.until(BootClock.now()).await.unwrap();
    }

    #[tokio::test]
    async fn while_nothing_is_cached_the_timer_is_off() {
        let world = World::with_ttl(Duration::from_millis(50)).await;
        world.set("a", b"x").await.unwrap();
        world.get("a").await.unwrap();
        let timer = BootTimer::new().unwrap();
        let next = world.daemon.vaults.wipe_expired().unwrap();
        timer.until(next).await.unwrap();
        assert_eq!(world.daemon.vaults.wipe_expired(), None);
        assert!(described(&timer).contains("it_value: (0, 0)"), "{}", described(&timer));
        assert!(described(&timer).contains("it_interval: (0, 0)"), "no periodic wake-ups");
    }
}
