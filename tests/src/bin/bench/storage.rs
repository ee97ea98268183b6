//! Unlocking, durable writing, and reading from a large vault.

use core_crypto::SecureBytes;
use core_crypto::kdf::{Argon2Params, derive_kek};
use core_ipc::CallOptions;
use core_ipc::blocking::Client;
use core_secrets::store::SecretsStore as _;
use core_secrets::vault::VaultFolder;
use core_types::protocol::Call;
use core_types::protocol::secrets::{Get, Lock, Set, Unlock};
use core_types::{ProfileName, SecretName, WireSecret};
use rusqlite::Connection;
use tests::system::password_proof;
use tests::{PASSWORD, PATIENCE, Spec, System};

use crate::RATES;
use crate::measure::{Rounds, Row, pair};

const UNLOCKS: Rounds = Rounds { rounds: 25, each: 1 };
const WRITES: Rounds = Rounds { rounds: 30, each: 20 };
const READS: Rounds = Rounds { rounds: 40, each: 50 };
const VALUE_BYTES: usize = 64;
const MANY: usize = 100_000;
const FEW: usize = 100;

fn call<C: Call>(client: &mut Client, call: &C) -> C::Reply {
    let options = CallOptions { deadline: PATIENCE, descriptors: Vec::new() };
    client.call(call, options).unwrap_or_else(|error| panic!("call {}: {error:?}", C::METHOD))
}

fn profile(name: &str) -> ProfileName {
    ProfileName::parse(name).expect("a profile name")
}

/// The three rows of storage.
pub(crate) fn all(system: &System) -> Vec<Row> {
    vec![unlock(system), durable_set(system), many_secrets()]
}

/// Unlocking against the key derivation it cannot do without.
fn unlock(system: &System) -> Row {
    let mut client = system.client();
    let lock = Lock { profile: Some(profile("default")) };
    let unlock = Unlock { profile: profile("default"), factors: password_proof() };
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..UNLOCKS.rounds {
        floors.push(crate::measure::time(&mut || {
            drop(derive_kek(PASSWORD.as_bytes(), &[7; 16], &Argon2Params::DEFAULT).expect("a key"));
        }));
        call(&mut client, &lock);
        ours.push(crate::measure::time(&mut || {
            call(&mut client, &unlock);
        }));
    }
    let figures = (crate::measure::median(floors), crate::measure::median(ours));
    Row::times("unlock", figures, 1.15)
}

/// A durable `set` against one durable INSERT with the settings of a vault, on the same file system.
fn durable_set(system: &System) -> Row {
    let place = system.paths().data().join("floor.db");
    let floor = same_settings(&place);
    let mut client = system.client();
    let (mut floor_number, mut number) = (0_u64, 0_u64);
    let figures = pair(
        WRITES,
        || {
            floor_number += 1;
            let mut insert = floor
                .prepare_cached(
                    "INSERT INTO secrets (name, version, created_at, updated_at, value) VALUES (?1, 1, 0, 0, ?2)",
                )
                .expect("a statement");
            // As long as a sealed value.
            let value = [0_u8; VALUE_BYTES + 28];
            insert.execute((format!("name-{floor_number}"), &value[..])).expect("a durable row");
        },
        || {
            number += 1;
            let value = WireSecret::new(vec![b'v'; VALUE_BYTES]);
            call(
                &mut client,
                &Set {
                    profile: profile("default"),
                    name: format!("name-{number}"),
                    value,
                    expires_unix_ms: None,
                    note: None,
                },
            );
        },
    );
    Row::times("acknowledged durable `set`", figures, 1.3)
}

/// A database of its own with the settings that a vault's has.
fn same_settings(path: &std::path::Path) -> Connection {
    let database = Connection::open(path).expect("a database");
    let key = hex::encode(SecureBytes::random(32).expect("random bytes").expose());
    database
        .execute_batch(&format!(
            "PRAGMA cipher_log_level = NONE; PRAGMA cipher_memory_security = ON; PRAGMA key = \"x'{key}'\";
             PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
             PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;
             CREATE TABLE secrets (name TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL,
                 created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, value BLOB NOT NULL) STRICT;"
        ))
        .expect("the settings of a vault");
    database
}

/// Reading one of many secrets against reading one of few, without the cache.
fn many_secrets() -> Row {
    let memory = std::path::Path::new("/dev/shm");
    let uncached = format!("{RATES}[secrets]\ncache_ttl_seconds = 0\n");
    let spec = Spec::new().config(&uncached);
    let system = System::boot(if memory.is_dir() { spec.below(memory) } else { spec });
    let mut client = system.client();
    for (name, count) in [("few", FEW), ("many", MANY)] {
        fill(&system, &profile(name), count);
        call(&mut client, &Unlock { profile: profile(name), factors: password_proof() });
    }
    let mut others = system.client();
    let (mut few, mut many) = (Scattered(FEW, 1), Scattered(MANY, 1));
    let figures = pair(
        READS,
        || drop(call(&mut client, &Get { profile: profile("few"), name: few.next_name(), version: None })),
        || drop(call(&mut others, &Get { profile: profile("many"), name: many.next_name(), version: None })),
    );
    Row::times("`get` with 100,000 secrets, against 100 (no cache)", figures, 1.5)
}

/// Makes a vault with so many secrets, without the daemons: they would record each.
fn fill(system: &System, profile: &ProfileName, count: usize) {
    core_crypto::private_fs::ensure_private_dir(&system.paths().vaults()).expect("a folder of vaults");
    let folder =
        VaultFolder::new(system.paths().vault(profile), system.paths().anchor(profile), profile.clone());
    let vault = folder.create(PASSWORD.as_bytes(), Argon2Params::DEFAULT).expect("a vault");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for number in 0..count {
            let name = SecretName::parse(name(number)).expect("a secret name");
            vault.store.set(&name, SecureBytes::copy_of(&[b'v'; VALUE_BYTES])).await.expect("a secret");
        }
    });
    vault.store.close().expect("a closed vault");
}

fn name(number: usize) -> String {
    format!("group-{}/secret-{number}", number % 97)
}

/// Names in an order that jumps about, and is the same each time.
struct Scattered(usize, usize);

impl Scattered {
    fn next_name(&mut self) -> String {
        self.1 = (self.1 * 48_271) % 2_147_483_647;
        name(self.1 % self.0)
    }
}
