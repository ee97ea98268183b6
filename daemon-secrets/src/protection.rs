//! How well the memory of this process is protected, as the user is shown it.

use core_crypto::memory;
use core_types::header::Sender;
use core_types::protocol::secrets::{MemoryProtection, ProtectionLevel, SecretsDenial};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::acl::Action;
use crate::attempt::identified;
use crate::neighbours::Neighbours;
use crate::record::{About, conclude};
use crate::service::SecretsDaemon;

/// Where the kernel lists what it swaps to (proc(5)): a line of headings, then one a device or file.
const SWAPS: &str = "/proc/swaps";

impl<N: Neighbours> SecretsDaemon<N> {
    /// The protection of keys and values in this process.
    pub(crate) async fn protection(&self, sender: &Sender) -> Result<MemoryProtection, SecretsDenial> {
        let result = identified(Action::Protection, sender).map(|()| measured());
        conclude(&self.neighbours, About::of(Action::Protection, None, sender), result).await
    }
}

fn measured() -> MemoryProtection {
    MemoryProtection {
        level: match memory::protection() {
            memory::Protection::SecretMemory => ProtectionLevel::Secret,
            memory::Protection::Locked => ProtectionLevel::Locked,
            memory::Protection::Plain => ProtectionLevel::Plain,
        },
        bytes_in_use: u64::try_from(memory::bytes_in_use()).unwrap_or(u64::MAX),
        lock_limit_bytes: lock_limit(),
        swap: std::fs::read_to_string(SWAPS).ok().map(|text| swaps(&text)),
    }
}

/// The limit, for a process to which it applies (`CAP_IPC_LOCK`, capabilities(7)).
fn lock_limit() -> Option<u64> {
    let exempt = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if exempt { None } else { getrlimit(Resource::Memlock).current }
}

fn swaps(text: &str) -> bool {
    text.lines().nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli};

    #[tokio::test]
    async fn the_answer_follows_what_is_in_memory() {
        let world = World::with_vault().await;
        let before = world.daemon.protection(&cli()).await.unwrap();
        world.set("a", &[7; 5_000]).await.unwrap();
        world.get("a").await.unwrap();
        let after = world.daemon.protection(&cli()).await.unwrap();
        assert!(after.bytes_in_use >= before.bytes_in_use + 5_000, "{before:?} {after:?}");
        let stranger = world.daemon.protection(&sender(Some("backup"))).await;
        assert!(matches!(stranger, Err(SecretsDenial::Identity { .. })));
    }

    #[test]
    fn a_machine_swaps_when_there_is_more_than_the_headings() {
        let headings = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!swaps(headings) && !swaps(""));
        assert!(swaps(&format!("{headings}/swapfile file 1024 0 -2\n")));
    }
}
