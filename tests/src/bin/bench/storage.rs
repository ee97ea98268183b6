//! Unlocking, durable writing, and reading from a large vault.

use core_crypto::SecureBytes;
use core_crypto::kdf::{Argon2Params, derive_kek};
use core_ipc::CallOptions;
use core_ipc::blocking::Client;
use core_secrets::store::SecretsStore as _;
use core_secrets::vault::VaultFolder;
use core_types::protocol::Call;
use core_types::protocol::secrets::{Get, List, Lock, Set, Unlock};
use core_types::{ProfileName, SecretName, WireSecret};
use rusqlite::Connection;
use tests::system::password_proof;
use tests::{PASSWORD, PATIENCE, Spec, System};

use crate::measure::{Rounds, Row, pair};
use crate::{RATES, cores};

const UNLOCKS: Rounds = Rounds { rounds: 25, each: 1 };
const WRITES: Rounds = Rounds { rounds: 30, each: 20 };
const READS: Rounds = Rounds { rounds: 40, each: 50 };
const LISTINGS: Rounds = Rounds { rounds: 5, each: 1 };
const VALUE_BYTES: usize = 64;
const MANY: usize = 100_000;
const MORE: usize = 10_000;
const FEW: usize = 100;

fn call<C: Call>(client: &mut Client, call: &C) -> C::Reply {
    let options = CallOptions { deadline: PATIENCE, descriptors: Vec::new() };
    client.call(call, options).unwrap_or_else(|error| panic!("call {}: {error:?}", C::METHOD))
}

fn profile(name: &str) -> ProfileName {
    ProfileName::parse(name).expect("a profile name")
}

/// What is asked of a vault with few secrets.
pub(crate) fn ordinary(system: &System) -> Vec<Row> {
    let unlock = unlock(system, "unlock", "default");
    let allowed = cores::allowed();
    let mut rows = vec![unlock];
    for pinned in [true, false] {
        cores::place(&cores::pids(system), pinned, &allowed);
        rows.push(durable_set(system, pinned));
    }
    rows
}

/// Unlocking against the key derivation it cannot do without.
fn unlock(system: &System, what: &str, name: &str) -> Row {
    let mut client = system.client();
    let lock = Lock { profile: Some(profile(name)) };
    let unlock = Unlock { profile: profile(name), factors: password_proof() };
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
    Row::times(what, figures, 1.15)
}

/// A durable `set` against one durable INSERT with the settings of a vault, on the same file system.
fn durable_set(system: &System, pinned: bool) -> Row {
    let place = system.paths().data().join(format!("floor-{pinned}.db"));
    let floor = same_settings(&place);
    let mut client = system.client();
    let (mut floor_number, mut number) = (0_u64, 0_u64);
    let name = if pinned { "one" } else { "any" };
    let figures = pair(
        WRITES,
        || {
            floor_number += 1;
            let mut insert = floor
                .prepare_cached(
                    "INSERT INTO secrets (name, version, created_at, updated_at, tag, value)
                     VALUES (?1, 1, 0, 0, ?2, ?3)",
                )
                .expect("a statement");
            // As long as a sealed value.
            let (tag, value) = ([0_u8; 16], [0_u8; VALUE_BYTES + 12]);
            insert.execute((format!("{name}-{floor_number}"), &tag[..], &value[..])).expect("a durable row");
        },
        || {
            number += 1;
            let value = WireSecret::new(vec![b'v'; VALUE_BYTES]);
            call(
                &mut client,
                &Set {
                    profile: profile("default"),
                    name: format!("{name}-{number}"),
                    value,
                    expires_unix_ms: None,
                    note: None,
                },
            );
        },
    );
    Row::times(&format!("acknowledged durable `set` ({})", cores::name(pinned)), figures, 1.3)
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
             CREATE TABLE secrets (name TEXT NOT NULL, version INTEGER NOT NULL, created_at INTEGER NOT NULL,
                 updated_at INTEGER NOT NULL, expires_at INTEGER, removed_at INTEGER, tag BLOB NOT NULL, note TEXT,
                 value BLOB NOT NULL, PRIMARY KEY (name, version)) STRICT, WITHOUT ROWID;"
        ))
        .expect("the settings of a vault");
    database
}

/// Reading one of many secrets against reading one of few, without the cache; listing and unlocking many.
pub(crate) fn large_vaults() -> Vec<Row> {
    let memory = std::path::Path::new("/dev/shm");
    let uncached = format!("{RATES}[secrets]\ncache_ttl_seconds = 0\n");
    let spec = Spec::new().config(&uncached);
    let system = System::boot(if memory.is_dir() { spec.below(memory) } else { spec });
    let mut client = system.client();
    for (name, count) in [("few", FEW), ("more", MORE), ("many", MANY)] {
        fill(&system, &profile(name), count);
        call(&mut client, &Unlock { profile: profile(name), factors: password_proof() });
    }
    let against_few = |name: &str, count: usize, what: &str| {
        let (mut client, mut others) = (system.client(), system.client());
        let (mut few, mut many) = (Scattered(FEW, 1), Scattered(count, 1));
        let figures = pair(
            READS,
            || drop(call(&mut client, &get("few", few.next_name()))),
            || drop(call(&mut others, &get(name, many.next_name()))),
        );
        Row::times(what, figures, 1.5)
    };
    vec![
        against_few("more", MORE, "`get` with 10,000 secrets, against 100 (no cache)"),
        against_few("many", MANY, "`get` with 100,000 secrets, against 100 (no cache)"),
        list(&system),
        unlock(&system, "unlock with 100,000 secrets", "many"),
    ]
}

fn get(profile_name: &str, name: String) -> Get {
    Get { profile: profile(profile_name), name, version: None }
}

/// A listing of 100,000 names, against reading as many names from a database with the settings of a vault.
fn list(system: &System) -> Row {
    let mut floor = same_settings(&system.paths().data().join("floor.db"));
    let filling = floor.transaction().expect("a transaction");
    for number in 0..MANY {
        let sql = "INSERT INTO secrets (name, version, created_at, updated_at, tag, value)
                   VALUES (?1, 1, 0, 0, zeroblob(16), zeroblob(76))";
        let mut insert = filling.prepare_cached(sql).expect("a statement");
        insert.execute([name(number)]).expect("a row");
    }
    filling.commit().expect("rows");
    let mut client = system.client();
    let figures = pair(
        LISTINGS,
        || {
            let mut names = floor.prepare_cached("SELECT name FROM secrets").expect("a statement");
            let names = names.query_map([], |row| row.get::<_, String>(0)).expect("names");
            assert_eq!(names.filter(|name| name.is_ok()).count(), MANY);
        },
        || {
            let (mut listed, mut after) = (0, None);
            loop {
                let page = call(&mut client, &List { profile: profile("many"), pattern: None, after });
                listed += page.entries.len();
                after = page.entries.last().map(|entry| entry.name.clone());
                if !page.more {
                    break;
                }
            }
            assert_eq!(listed, MANY);
        },
    );
    Row::times("list of 100,000 names, against SELECT of them", figures, f64::INFINITY)
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
