//! Wipes cached values the moment they expire: it sleeps until then, and without end while nothing is cached.

use std::sync::Arc;

use core_daemon::BootTimer;

use crate::vault::Vaults;

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
    use std::time::Duration;

    /// Long enough for a machine that does something else.
    const PATIENCE: Duration = Duration::from_secs(30);

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
    async fn while_nothing_is_cached_nothing_is_waited_for() {
        let world = World::with_ttl(Duration::from_millis(50)).await;
        world.set("a", b"x").await.unwrap();
        world.get("a").await.unwrap();
        let next = world.daemon.vaults.wipe_expired().unwrap();
        BootTimer::new().unwrap().until(next).await.unwrap();
        assert_eq!(world.daemon.vaults.wipe_expired(), None);
    }
}
