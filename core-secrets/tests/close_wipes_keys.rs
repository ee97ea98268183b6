//! After a vault is closed none of its keys is left in the memory of the process, in no form.
#![allow(clippy::unwrap_used)] // clippy takes only functions marked as tests for tests

use std::fs::File;
use std::os::unix::fs::FileExt;

use core_crypto::kdf::Argon2Params;
use core_crypto::{SecureBytes, key_schedule};
use core_secrets::jit::JitDelivery;
use core_secrets::store::SecretsStore;
use core_secrets::vault::VaultFolder;
use core_types::{ProfileName, SecretName};

/// Bytes to look for, kept inverted so that the scan does not find the list itself.
struct Needle {
    what: &'static str,
    inverted: Vec<u8>,
}

impl Needle {
    fn new(what: &'static str, bytes: &[u8]) -> Self {
        Self { what, inverted: bytes.iter().map(|byte| !byte).collect() }
    }

    fn is_at(&self, window: &[u8]) -> bool {
        window.iter().zip(&self.inverted).all(|(byte, inverted)| *byte == !inverted)
    }
}

/// How often each needle stands in a readable mapping of this process. Secret memory cannot be read this way.
fn scan(needles: &[Needle]) -> Vec<(&'static str, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut hits: Vec<_> = needles.iter().map(|needle| (needle.what, 0)).collect();
    let mut bytes = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        bytes.clear();
        bytes.resize(usize::try_from(to - from).unwrap(), 0);
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        let scanned = bytes.as_ptr() as u64;
        for (needle, hits) in needles.iter().zip(&mut hits) {
            let found = bytes.windows(needle.inverted.len()).enumerate().filter(|(offset, window)| {
                // The copy that is being scanned is a part of the memory too, and not a leak.
                let address = from + *offset as u64;
                needle.is_at(window) && !(scanned..scanned + bytes.len() as u64).contains(&address)
            });
            hits.1 += found.count();
        }
    }
    hits
}

#[tokio::test]
async fn keys_and_values_are_gone_after_closing() {
    let folder = tempfile::tempdir().unwrap();
    let profile = ProfileName::parse("work").unwrap();
    let vault = VaultFolder::new(folder.path().join("work"), profile.clone());
    let mut open = vault.create(b"the password of this test", Argon2Params::FLOOR).unwrap();
    let name = SecretName::parse("canary").unwrap();
    let canary = SecureBytes::random(32).unwrap();
    let needles = {
        let vault_key = key_schedule::vault_key(&open.master_key, profile.as_str());
        [
            Needle::new("master key", open.master_key.expose()),
            Needle::new("vault key", vault_key.expose()),
            Needle::new("vault key in hex", hex::encode(vault_key.expose()).as_bytes()),
            Needle::new("entry key", key_schedule::entry_key(&vault_key).expose()),
            Needle::new("cached value", canary.expose()),
        ]
    };
    let cache = JitDelivery::new(open.store.clone(), std::time::Duration::from_secs(300));
    cache.set(&name, canary).await.unwrap();
    cache.resolve(&name).await.unwrap();

    let planted = Vec::from(open.master_key.expose());
    assert_ne!(scan(&needles)[0].1, 0, "the scan is blind");
    drop(zeroize::Zeroizing::new(planted));

    cache.shut();
    open.store.close().unwrap();
    open.master_key = SecureBytes::zeroed(0);
    for (what, hits) in scan(&needles) {
        assert_eq!(hits, 0, "{what} is still in memory");
    }
    cache.store().list_keys().await.unwrap_err();
}
