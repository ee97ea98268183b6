//! Nothing of a vault is left in memory once it is locked, and while it is unlocked nothing of it lies outside locked
//! memory: looked at from outside, in every process of the system.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use core_crypto::kdf::{Argon2Params, derive_kek};
use core_crypto::{SecureBytes, key_schedule};
use core_ipc::{CallError, CallOptions};
use core_secrets::header::{Proof, VaultHeader};
use core_types::name::SECRETS;
use core_types::protocol::secrets::{Lock, SecretsDenial};
use tests::calls;
use tests::chance::Chance;
use tests::memory::{Hit, Looked, Secrets};
use tests::process::program_of;
use tests::system::{call, wait_for};
use tests::{PASSWORD, Running, Spec, System};

/// A canary in the environment of every process of the system: what a scan that is not blind finds.
const PLANTED: &str = "planted-where-everybody-finds-it-7Qx2";
/// No limit stands in the way of a thousand reads in a row.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

/// Random letters, so that a value can also be a variable of a child.
fn letters(chance: &mut Chance, count: usize) -> Vec<u8> {
    chance.bytes(count).into_iter().map(|byte| b'a' + byte % 26).collect()
}

/// The values of a vault, and everything else about it that nobody may find.
struct Vault {
    values: Vec<(String, Vec<u8>)>,
    passwords: [Vec<u8>; 3],
    secrets: Secrets,
}

impl Vault {
    fn new(count: usize) -> Self {
        let mut chance = Chance::of("memory");
        let mut secrets = Secrets::new();
        secrets.add("planted", PLANTED.as_bytes());
        let mut values = Vec::new();
        for number in 0..count {
            let length = if number % 250 == 0 { 150_000 } else { 20 + number % 60 };
            let value = letters(&mut chance, length);
            secrets.add(format!("value {number} of {length} bytes"), &value);
            values.push((format!("group-{}/canary-{number}", number % 10), value));
        }
        let passwords = [PASSWORD.as_bytes().to_vec(), letters(&mut chance, 30), letters(&mut chance, 30)];
        for (what, password) in ["first", "second", "wrong"].iter().zip(&passwords) {
            secrets.add(format!("the {what} password"), password);
        }
        Self { values, passwords, secrets }
    }

    /// Adds the keys as they follow from a password and the header that is on the disk now.
    fn add_keys(&mut self, system: &System, password: &[u8]) {
        let path = system.paths().vault(&calls::profile("default")).join("header.json");
        let header = VaultHeader::load(&path, &calls::profile("default")).unwrap();
        let master = header.unlock(&[Proof { factor: 1, secret: SecureBytes::copy_of(password) }]).unwrap();
        let vault_key = key_schedule::vault_key(&master, "default");
        let entry_key = key_schedule::entry_key(&vault_key);
        let header_key = key_schedule::header_key(&master, "default");
        let freshness_key = key_schedule::freshness_key(&vault_key, "default");
        let anchor_key = key_schedule::anchor_key(&master, "default");
        let (salt, params) =
            stretching(&serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()).unwrap();
        let kek = derive_kek(password, &salt, &params).unwrap();
        for (what, key) in [
            ("master key", &master),
            ("vault key", &vault_key),
            ("entry key", &entry_key),
            ("header key", &header_key),
            ("freshness key", &freshness_key),
            ("anchor key", &anchor_key),
            ("Argon2 output", &kek),
        ] {
            self.secrets.add(what, key.expose());
        }
    }

    /// Uses the vault in every way there is, and leaves it unlocked with the second password.
    fn work(&mut self, system: &System) {
        let mut client = system.client();
        for (name, value) in &self.values {
            call(&mut client, &calls::set("default", name, value));
        }
        self.add_keys(system, &self.passwords[0].clone());
        for group in 0..10 {
            let batch = call(&mut client, &calls::batch("default", &format!("group-{group}/*")));
            assert_eq!(batch.len(), self.values.len() / 10);
        }
        call(&mut client, &calls::list("default"));
        let (name, value) = &self.values[0];
        system.pds(["get", name]).run().done().prints(value);
        system.pds(["set", "by-hand"]).stdin(&self.values[1].1).run().done();
        system.pds(["rm", "--yes", "by-hand"]).run().done();
        system.pds(["run", "--only", "group-1/*", "--", "true"]).run().done();
        self.change_passwords(system);
        for (name, _) in &self.values {
            call(&mut client, &calls::get("default", name));
        }
    }

    fn change_passwords(&mut self, system: &System) {
        let place = |name: &str| system.folder().join(name);
        let [first, second, wrong] = &self.passwords;
        std::fs::write(place("first"), first).unwrap();
        std::fs::write(place("second"), second).unwrap();
        system.shell("pds passwd --password-fd 3 --new-password-fd 4 3<first 4<second").run().done();
        for name in ["first", "second"] {
            std::fs::remove_file(place(name)).unwrap();
        }
        let mut client = system.client();
        call(&mut client, &Lock { profile: None });
        let attempt = calls::unlock("default", wrong);
        client.call(&attempt, CallOptions::default()).unwrap_err();
        call(&mut client, &calls::unlock("default", second));
        let second = second.clone();
        self.add_keys(system, &second);
    }
}

/// Salt and cost of the first password in a header.
fn stretching(header: &serde_json::Value) -> Option<([u8; 16], Argon2Params)> {
    match header {
        serde_json::Value::Object(fields) => {
            let found = fields.get("salt").zip(fields.get("argon2")).and_then(|(salt, cost)| {
                let number = |key: &str| u32::try_from(cost[key].as_u64()?).ok();
                let params = Argon2Params {
                    memory_kib: number("memory_kib")?,
                    passes: number("passes")?,
                    lanes: number("lanes")?,
                };
                Some((hex::decode(salt.as_str()?).ok()?.try_into().ok()?, params))
            });
            found.or_else(|| fields.values().find_map(stretching))
        }
        serde_json::Value::Array(items) => items.iter().find_map(stretching),
        _ => None,
    }
}

/// The processes of the system that run programs of pds: not the commands that `pds run` gave secrets to.
fn processes(system: &System) -> Vec<u32> {
    let is_pds = |name: &str| name == "pds" || name.starts_with("daemon-");
    let all = system.processes().into_iter();
    let found: Vec<u32> = all.filter(|pid| program_of(*pid).is_some_and(|name| is_pds(&name))).collect();
    // The daemons, the supervisor, its standby, the spawner, the witness, and a `pds run` with the monitor of its child.
    assert_eq!(found.len(), 10, "not all processes were found");
    found
}

/// What was found of the vault, if what was planted was found too.
fn checked(looked: Looked, pid: u32) -> Vec<Hit> {
    let (planted, others): (Vec<Hit>, Vec<Hit>) =
        looked.hits.into_iter().partition(|hit| hit.what == "planted");
    // The monitor is given no environment.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!planted.is_empty() || environment.is_empty(), "the scan of process {pid} is blind");
    assert!(looked.bytes > 1_000_000, "process {pid} was not read");
    others
}

/// Looks into all those processes.
fn look(system: &System, secrets: &Secrets) -> Vec<Hit> {
    processes(system).into_iter().flat_map(|pid| checked(secrets.in_process(pid), pid)).collect()
}

/// Dumps cores of processes, as a debugger does, and looks into them.
fn look_into_cores(system: &System, processes: Vec<u32>, secrets: &Secrets) -> Vec<Hit> {
    let look = |pid: u32| {
        let place = system.folder().join("core");
        let made = Command::new("gcore").arg("-o").arg(&place).arg(pid.to_string()).output().unwrap();
        let core = place.with_extension(pid.to_string());
        assert!(core.is_file(), "no core: {}", String::from_utf8_lossy(&made.stderr));
        let looked = secrets.in_file(&core);
        std::fs::remove_file(core).unwrap();
        checked(looked, pid)
    };
    processes.into_iter().flat_map(look).collect()
}

/// Locks while others read, each as often as it can: whatever is on its way at that moment goes too.
fn lock_while_others_read(system: &System, vault: &Vault) {
    let reading = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let reading = &reading;
            scope.spawn(move || {
                let mut client = system.client();
                for (name, value) in vault.values.iter().cycle().skip(reader * 97) {
                    match client.call(&calls::get("default", name), CallOptions::default()) {
                        Ok(found) => assert!(found.expose() == value, "'{name}' is another value"),
                        Err(CallError::Denied(
                            SecretsDenial::Locked | SecretsDenial::ProfileNotActive(_),
                        )) => return,
                        Err(error) => panic!("a read ended with {error:?}"),
                    }
                    reading.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_for("many reads", || (reading.load(Ordering::Relaxed) > 100).then_some(()));
        system.pds(["lock"]).run().done();
    });
}

/// What was found, each kind once.
fn summary(hits: &[Hit]) -> String {
    let lines: BTreeSet<String> = hits
        .iter()
        .map(|hit| format!("{} {} in {} (locked: {})\n", hit.what, hit.form, hit.place, hit.locked))
        .collect();
    format!("{} findings:\n{}", hits.len(), lines.into_iter().take(20).collect::<String>())
}

/// A command under `pds run` that has its secrets and goes on.
fn running(system: &System) -> Running<'_> {
    let running = system.pds(["run", "--only", "group-2/*", "--", "cat"]).stdin_stays_open().start();
    wait_for("the command runs", || {
        let all = system.processes().into_iter();
        all.into_iter().any(|pid| program_of(pid).as_deref() == Some("cat")).then_some(())
    });
    running
}

#[test]
fn after_lock_nothing_of_a_vault_is_left_in_any_process_nor_in_its_core() {
    if !rustix::process::geteuid().is_root() {
        // Only root can look into the daemons.
        return;
    }
    let system = System::boot(Spec::ready().config(RATES).variable("PLANTED", PLANTED));
    let mut vault = Vault::new(1_000);
    vault.work(&system);
    let _running = running(&system);
    let hits = look(&system, &vault.secrets);
    assert!(hits.is_empty(), "outside secret memory while unlocked: {}", summary(&hits));
    let hits = look_into_cores(&system, vec![system.pid_of(SECRETS)], &vault.secrets);
    assert!(hits.is_empty(), "in a core while unlocked: {}", summary(&hits));
    lock_while_others_read(&system, &vault);
    let hits = look(&system, &vault.secrets);
    assert!(hits.is_empty(), "after lock: {}", summary(&hits));
    let hits = look_into_cores(&system, processes(&system), &vault.secrets);
    assert!(hits.is_empty(), "in a core after lock: {}", summary(&hits));
}

/// Where the kernel has no memfd_secret(2), secrets lie in locked memory that root can look into: so the scan sees them
/// before, and sees that they are gone after.
#[test]
fn without_secret_memory_secrets_lie_in_locked_memory_alone_and_lock_wipes_them() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let refuse = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=memfd_secret"];
    let refuse = [&refuse[..], &["-e", "inject=memfd_secret:error=ENOSYS"]].concat();
    let spec = Spec::ready().config(RATES).variable("PLANTED", PLANTED).under(&refuse);
    let system = System::boot(spec);
    let mut vault = Vault::new(200);
    vault.work(&system);
    let _running = running(&system);
    let hits = look(&system, &vault.secrets);
    for what in ["master key", "entry key", "value 0 of 150000 bytes", "value 7 of 27 bytes"] {
        assert!(hits.iter().any(|hit| hit.what == what), "the {what} was not found, so this shows nothing");
    }
    let outside: Vec<Hit> = hits.into_iter().filter(|hit| !hit.locked).collect();
    assert!(outside.is_empty(), "outside locked memory while unlocked: {}", summary(&outside));
    system.pds(["lock"]).run().done();
    let hits = look(&system, &vault.secrets);
    assert!(hits.is_empty(), "after lock: {}", summary(&hits));
}
