//! A timer by the clock that goes on while the machine sleeps.

use std::io;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A timer by `CLOCK_BOOTTIME` (timerfd_create(2)): what was due while the machine slept is due when it wakes up. It is
/// waited for and read just as a pipe is.
#[derive(Debug)]
pub struct BootTimer {
    timer: Receiver,
}

impl BootTimer {
    /// A timer that waits for nothing yet; must be called on the runtime.
    ///
    /// # Errors
    /// The process has no descriptor left for it.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// The present moment of boot time.
    #[must_use]
    pub fn now() -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// Completes at a moment of boot time, or at once if that has passed.
    ///
    /// # Errors
    /// The timer failed.
    pub async fn until(&self, moment: Duration) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn described(timer: &BootTimer) -> String {
        let number = timer.timer.as_raw_fd();
        std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap()
    }

    #[tokio::test]
    async fn it_counts_suspend_and_completes_at_once_for_what_has_passed() {
        let timer = BootTimer::new().unwrap();
        let boottime = format!("clockid: {}", TimerfdClockId::Boottime as u32);
        assert!(described(&timer).contains(&boottime), "{}", described(&timer));
        timer.until(Duration::ZERO).await.unwrap();
        timer.until(BootTimer::now()).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_off_when_its_moment_has_come() {
        let timer = BootTimer::new().unwrap();
        timer.until(BootTimer::now() + Duration::from_millis(20)).await.unwrap();
        assert!(described(&timer).contains("it_value: (0, 0)"), "{}", described(&timer));
        assert!(described(&timer).contains("it_interval: (0, 0)"), "no periodic wake-ups");
    }

    /// The variable that makes the next test the child of itself.
    const SLEPT: &str = "PDS_TEST_SLEPT";

    /// In a time namespace (time_namespaces(7)) the machine has slept for as long as one likes.
    #[test]
    fn the_present_moment_counts_suspend() {
        if std::env::var_os(SLEPT).is_some() {
            let monotonic = clock_gettime(ClockId::Monotonic).tv_sec;
            assert!(BootTimer::now().as_secs() > u64::try_from(monotonic).unwrap() + 500_000);
            return;
        }
        let as_user =
            ["--user", "--map-root-user"].into_iter().filter(|_| !rustix::process::geteuid().is_root());
        let output = std::process::Command::new("unshare")
            .args(as_user)
            .args(["--time", "--boottime", "1000000", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "boot_timer::tests::the_present_moment_counts_suspend"])
            .env(SLEPT, "")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("1 passed"));
    }
}
