//! A vault that is being made or changed when `daemon-secrets` dies, at any system call: afterwards it is as before or as
//! wanted, whole, and nothing is left lying about.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use core_ipc::{CallError, CallOptions};
use core_types::WireSecret;
use core_types::factor::{FactorLabel, RECOVERY_CODE_BYTES};
use core_types::header::Refusal;
use core_types::name::SECRETS;
use core_types::protocol::Call;
use core_types::protocol::secrets::{
    AddFactor, ChangePassword, FactorProof, Factors, Lock, NewFactor, RemoveFactor, SecretsDenial,
    SecretsService, Unlock,
};
use tests::calls::{self, password, profile};
use tests::chance::{Chance, tries};
use tests::strace::{Strace, Syscall};
use tests::system::call;
use tests::{PASSWORD, Spec, System};

/// What takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
/// The calls at which a process dies: all by which it touches files.
const CALLS: &str = "openat,mkdirat,fchmod,fchmodat,flock,fcntl,write,pwrite64,ftruncate,fsync,fdatasync,\
    rename,renameat,renameat2,unlink,unlinkat,close";
const SECRETS_IN_IT: usize = 5;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Acknowledged,
    /// Nobody knows: the daemon died.
    Open,
}

/// Asks, and takes the death of the one who is asked for an answer.
fn ask<C: Call<Service = SecretsService>>(system: &System, call: &C) -> Ended {
    let began = Instant::now();
    let answer = system.client().call(call, CallOptions { deadline: HANG, descriptors: Vec::new() });
    assert!(began.elapsed() < HANG, "call {} hung", C::METHOD);
    match answer {
        Ok(_) => Ended::Acknowledged,
        Err(CallError::Refused(Refusal::ServiceGone | Refusal::ServiceUnknown) | CallError::Lost) => {
            Ended::Open
        }
        Err(error) => panic!("call {} ended with {error:?}", C::METHOD),
    }
}

/// Whether a password opens the vault, and all its secrets are in it; it is locked again afterwards.
fn opens(system: &System, factors: Vec<FactorProof>) -> bool {
    let mut client = system.client();
    let unlock = Unlock { profile: profile("work"), factors };
    match client.call(&unlock, CallOptions { deadline: HANG, descriptors: Vec::new() }) {
        Ok(_) => {}
        Err(CallError::Denied(SecretsDenial::WrongFactor(_))) => return false,
        Err(error) => panic!("unlocking ended with {error:?}"),
    }
    let listed = call(&mut client, &calls::list("work"));
    assert_eq!(listed.entries.len(), SECRETS_IN_IT, "secrets are missing");
    for number in 0..SECRETS_IN_IT {
        let name = format!("secret-{number}");
        let value = call(&mut client, &calls::get("work", &name));
        assert!(value.expose() == name.as_bytes(), "'{name}' is another value");
    }
    call(&mut client, &Lock { profile: None });
    true
}

/// The names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A system with a vault that holds some secrets and is locked.
fn system() -> System {
    let spec = (0..SECRETS_IN_IT).map(|number| format!("secret-{number}"));
    System::boot(spec.fold(Spec::new().profile("work"), |spec, name| spec.secret(&name, &name)).locked())
}

/// The moments at which a process can die while it does something.
struct Moments {
    /// Each a system call, as the how-manieth of its name in its thread.
    calls: Vec<(String, usize)>,
    /// The renamings among the vaults, by the last of which what was made takes its place.
    renamings: Vec<usize>,
}

/// The moments of something, found by letting it be done once.
fn moments(system: &System, act: impl FnOnce()) -> Moments {
    let strace = Strace::attach(system, system.pid_of(SECRETS), &["-e", &format!("trace={CALLS}")]);
    act();
    let calls = strace.end();
    let same = |one: &Syscall, other: &Syscall| one.name == other.name && one.thread == other.thread;
    let count = |place: usize| calls[..=place].iter().filter(|call| same(call, &calls[place])).count();
    let vaults = system.paths().vaults().to_str().unwrap().to_owned();
    let renaming = |call: &Syscall| call.name.starts_with("rename") && call.arguments.contains(&vaults);
    Moments {
        renamings: (0..calls.len()).filter(|place| renaming(&calls[*place])).collect(),
        calls: (0..calls.len()).map(|place| (calls[place].name.clone(), count(place))).collect(),
    }
}

/// Lets `daemon-secrets` die at a moment while it does something, and starts everything anew.
fn cut(system: &mut System, moment: &(String, usize), act: impl FnOnce(&System) -> Ended) -> Ended {
    let (name, at) = moment;
    let inject = format!("inject={name}:signal=KILL:when={at}");
    let strace =
        Strace::attach(system, system.pid_of(SECRETS), &["-e", &format!("trace={name}"), "-e", &inject]);
    let ended = act(system);
    drop(strace);
    system.kill_all();
    system.start();
    ended
}

/// The moment of a try: first each renaming itself, the last of them first, then any, and each second time one around the
/// last renaming.
fn pick<'a>(moments: &'a Moments, number: usize, chance: &mut Chance) -> &'a (String, usize) {
    const BEFORE: usize = 12;
    const AFTER: usize = 12;
    let Moments { calls, renamings } = moments;
    if let Some(renaming) = renamings.iter().rev().nth(number) {
        return &calls[*renaming];
    }
    let renaming = renamings.last().unwrap();
    let around = renaming.saturating_sub(BEFORE)..(renaming + AFTER).min(calls.len());
    let among = if number.is_multiple_of(2) { 0..calls.len() } else { around };
    &calls[among.start + chance.below(among.len())]
}

/// What may lie in the folder of a vault that is whole, whatever happened before.
fn nothing_is_left_over(system: &System, profile: &str) {
    let folder = system.paths().vaults();
    let strays = names(&folder).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
    assert!(strays.is_empty(), "left over beside the vaults: {strays:?}");
    let strays =
        names(&folder.join(profile)).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
    assert!(strays.is_empty(), "left over in the vault: {strays:?}");
}

#[test]
fn a_vault_that_was_being_made_is_there_whole_or_not_at_all() {
    if !rustix::process::geteuid().is_root() {
        // Only root can trace the daemons.
        return;
    }
    let mut system = System::boot(Spec::new());
    let mut chance = Chance::of("cut init");
    let init = |name: &str| calls::init(name, PASSWORD);
    let moments = moments(&system, || {
        call(&mut system.client(), &init("first"));
    });
    let (tried, mut whole) = (tries(6), 0);
    for number in 0..tried {
        let name = format!("try-{number}");
        let moment = pick(&moments, number, &mut chance);
        let ended = cut(&mut system, moment, |system| ask(system, &init(&name)));
        let there = system.paths().vaults().join(&name).exists();
        assert!(there || ended == Ended::Open, "a vault that was acknowledged is not there ({moment:?})");
        let mut client = system.client();
        if there {
            call(&mut client, &calls::unlock(&name, PASSWORD));
            assert!(call(&mut client, &calls::list(&name)).entries.is_empty());
            whole += 1;
        } else {
            call(&mut client, &init(&name));
        }
        nothing_is_left_over(&system, &name);
    }
    eprintln!(
        "{tried} deaths in an init of {} moments: {whole} times the vault was there, whole",
        moments.calls.len()
    );
}

#[test]
fn of_an_old_and_a_new_password_exactly_one_opens() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut system = system();
    let mut chance = Chance::of("cut passwd");
    let change = |old: &str, new: &str| ChangePassword {
        profile: profile("work"),
        factor: 1,
        present: vec![password(old)],
        new: WireSecret::new(new.into()),
    };
    let mut current = "password 0".to_owned();
    let moments = moments(&system, || {
        call(&mut system.client(), &change(PASSWORD, &current));
    });
    let (tried, mut changed) = (tries(6), 0);
    for number in 0..tried {
        let next = format!("password {}", number + 1);
        let moment = pick(&moments, number, &mut chance);
        let ended = cut(&mut system, moment, |system| ask(system, &change(&current, &next)));
        let (old, new) = (opens(&system, vec![password(&current)]), opens(&system, vec![password(&next)]));
        assert!(old != new, "old password: {old}, new password: {new} ({moment:?})");
        assert!(new || ended == Ended::Open, "a change that was acknowledged is gone ({moment:?})");
        nothing_is_left_over(&system, "work");
        if new {
            current = next;
            changed += 1;
        }
    }
    eprintln!(
        "{tried} deaths in a change of password of {} moments: {changed} times the new one opened",
        moments.calls.len()
    );
}

#[test]
fn a_factor_that_was_being_added_or_removed_opens_or_is_not_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut system = system();
    let mut chance = Chance::of("cut factors");
    let code = chance.bytes(RECOVERY_CODE_BYTES);
    let add = || AddFactor {
        profile: profile("work"),
        present: vec![password(PASSWORD)],
        label: FactorLabel::default(),
        new: NewFactor::Recovery { code: WireSecret::new(code.clone()) },
    };
    let remove =
        |factor: u32| RemoveFactor { profile: profile("work"), present: vec![password(PASSWORD)], factor };
    let second = |system: &System| {
        let sheet = call(&mut system.client(), &Factors { profile: profile("work") });
        assert!(sheet.factors.len() <= 2, "{sheet:?}");
        sheet.factors.get(1).map(|factor| factor.id)
    };
    let moments = moments(&system, || {
        call(&mut system.client(), &add());
    });
    let (tried, mut there) = (tries(6), 0);
    for number in 0..tried {
        let moment = pick(&moments, number, &mut chance);
        let before = second(&system);
        let ended = cut(&mut system, moment, |system| match before {
            None => ask(system, &add()),
            Some(factor) => ask(system, &remove(factor)),
        });
        let after = second(&system);
        assert!(
            after.is_some() != before.is_some() || ended == Ended::Open,
            "an acknowledged change is gone ({moment:?})"
        );
        assert!(opens(&system, vec![password(PASSWORD)]), "the password opens no more ({moment:?})");
        if let Some(factor) = after {
            there += 1;
            let secret = WireSecret::new(code.clone());
            assert!(
                opens(&system, vec![FactorProof { factor, secret }]),
                "a factor that opens nothing ({moment:?})"
            );
        }
        nothing_is_left_over(&system, "work");
    }
    eprintln!(
        "{tried} deaths in a change of factors of {} moments: {there} times the second was there",
        moments.calls.len()
    );
}

/// Whether a command of the user's was done; it may only fail because the daemon died.
fn by_command(system: &System, arguments: &[&str]) -> Ended {
    let began = Instant::now();
    let output = system.pds(arguments).password().run().any();
    assert!(began.elapsed() < HANG, "{arguments:?} hung");
    if output.status().success() { Ended::Acknowledged } else { Ended::Open }
}

fn generation_of_header(system: &System) -> u64 {
    let path = system.paths().vault(&profile("work")).join("header.json");
    let header: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    header["content"]["generation"].as_u64().unwrap()
}

#[test]
fn of_a_vault_and_the_one_with_new_keys_exactly_one_is_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut system = system();
    let mut chance = Chance::of("cut rekey");
    let rekey = ["rekey", "-p", "work"];
    let moments = moments(&system, || {
        system.pds(rekey).password().run().done();
    });
    let (tried, mut exchanged) = (tries(6), 0);
    for number in 0..tried {
        let moment = pick(&moments, number, &mut chance);
        let before = generation_of_header(&system);
        let ended = cut(&mut system, moment, |system| by_command(system, &rekey));
        let is_new = generation_of_header(&system) == before + 1;
        assert!(is_new || generation_of_header(&system) == before, "a third header ({moment:?})");
        assert!(is_new || ended == Ended::Open, "new keys that were acknowledged are gone ({moment:?})");
        assert!(opens(&system, vec![password(PASSWORD)]), "nothing opens ({moment:?})");
        nothing_is_left_over(&system, "work");
        exchanged += usize::from(is_new);
    }
    eprintln!(
        "{tried} deaths in a rekey of {} moments: {exchanged} times the new keys hold",
        moments.calls.len()
    );
}

#[test]
fn of_a_vault_and_its_restored_backup_exactly_one_is_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut system = system();
    let mut chance = Chance::of("cut restore");
    let unlock = |system: &System| system.pds(["unlock", "-p", "work"]).password().run();
    let set = |system: &System| {
        unlock(system).done();
        system.pds(["set", "-p", "work", "secret-0"]).stdin("of later").run().done();
    };
    unlock(&system).done();
    system.pds(["backup", "-p", "work", "file"]).run().done();
    set(&system);
    let restore = ["restore-backup", "-p", "work", "--yes", "file"];
    let moments = moments(&system, || {
        system.pds(restore).password().run().done();
    });
    let (tried, mut restored) = (tries(10), 0);
    for number in 0..tried {
        set(&system);
        let moment = pick(&moments, number, &mut chance);
        let ended = cut(&mut system, moment, |system| by_command(system, &restore));
        let unlocked = unlock(&system).any();
        let is_older = unlocked.status().code() == Some(9);
        if is_older {
            // Killed between the exchange and its acceptance: it is told, as any older vault is.
            system.pds(["unlock", "-p", "work", "--accept-rollback"]).password().run().done();
        }
        let value = system.pds(["get", "-p", "work", "secret-0"]).run().done().stdout;
        let is_backup = value == b"secret-0";
        assert!(is_backup || value == b"of later", "a value that never was ({moment:?})");
        assert!(is_backup || !is_older, "the later vault counts as an older one ({moment:?})");
        assert!(is_backup || ended == Ended::Open, "a restore that was acknowledged is gone ({moment:?})");
        assert!(!is_older || ended == Ended::Open, "an acknowledged restore has to be accepted ({moment:?})");
        system.pds(["lock"]).run().done();
        nothing_is_left_over(&system, "work");
        restored += usize::from(is_backup);
    }
    eprintln!(
        "{tried} deaths in a restore of {} moments: {restored} times the backup was in place",
        moments.calls.len()
    );
}
