//! What this daemon missed before it began: the profiles that were unlocked already.

use std::time::Duration;

use core_daemon::unix_ms_now;
use core_ipc::BusClient;
use core_types::protocol::secrets::{ProfileState, Profiles};

use crate::auto_lock::AutoLocks;
use crate::keeper::Keeper;

/// How often it is asked which profiles are unlocked, and how long it is waited in between.
const ASKING_MAX: usize = 20;
const ASKING_PAUSE: Duration = Duration::from_millis(500);

/// Asks which profiles are unlocked, and has them watched and the log kept with them.
pub(crate) async fn take_up(bus: BusClient, keeper: Keeper, auto_locks: AutoLocks) {
    for _ in 0..ASKING_MAX {
        match bus.call(&Profiles {}).await {
            Ok(profiles) => {
                for profile in profiles {
                    if let ProfileState::Unlocked { since_unix_ms, .. } = profile.state {
                        let ago = Duration::from_millis(unix_ms_now().saturating_sub(since_unix_ms));
                        auto_locks.take_up(profile.name.clone(), ago);
                        keeper.begin(profile.name).await;
                    }
                }
                return;
            }
            // It is starting as well; what it unlocks later it says.
            Err(_) => tokio::time::sleep(ASKING_PAUSE).await,
        }
    }
}
