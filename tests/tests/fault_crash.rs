//! Daemons that are killed while many write: what was acknowledged is there afterwards, and nothing else is.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions};
use core_types::name::SECRETS;
use core_types::protocol::Call;
use core_types::protocol::secrets::{SecretsDenial, SecretsService};
use tests::calls;
use tests::chance::{Chance, tries};
use tests::oracle::{Oracle, State};
use tests::system::{call, wait_for};
use tests::{PASSWORD, Spec, System};

const WRITERS: usize = 6;
const NAMES_OF_EACH: usize = 5;
/// What takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
/// No limit stands in the way of the load.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

/// Asks once, and sees to it that an answer or an error comes in time.
fn ask<C: Call<Service = SecretsService>>(
    client: &mut Client,
    call: &C,
) -> Result<C::Reply, CallError<SecretsDenial>> {
    let began = Instant::now();
    let answer = client.call(call, CallOptions { deadline: HANG, descriptors: Vec::new() });
    assert!(began.elapsed() < HANG, "call {} hung", C::METHOD);
    answer
}

/// What is under a name, or why nobody can tell.
fn read(client: &mut Client, name: &str) -> Result<State, CallError<SecretsDenial>> {
    match ask(client, &calls::get("default", name)) {
        Ok(value) => Ok(Some(value.expose().to_vec())),
        Err(CallError::Denied(SecretsDenial::NoSuchSecret(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One who writes under names of its own, one operation after the other.
struct Writer {
    number: usize,
    chance: Chance,
    oracle: Oracle,
    written: usize,
}

impl Writer {
    fn new(number: usize, chance: Chance) -> Self {
        Self { number, chance, oracle: Oracle::default(), written: 0 }
    }

    /// Values begin with the name and say that they are of this test, so that any other is known.
    fn is_ours(name: &str, value: &[u8]) -> bool {
        value.starts_with(format!("{name} #").as_bytes())
    }

    /// Does one operation; an error says that its outcome is unknown.
    fn step(&mut self, client: &mut Client) -> Result<(), CallError<SecretsDenial>> {
        let name = format!("writer-{}/{}", self.number, self.chance.below(NAMES_OF_EACH));
        let outcome = match self.chance.below(10) {
            0 | 1 => {
                let found = read(client, &name)?;
                let right = self.oracle.finds(&name, found, |value| Self::is_ours(&name, value));
                assert_eq!(right, Ok(()), "'{name}' before any death");
                return Ok(());
            }
            2 => {
                self.oracle.begins(&name, None);
                ask(client, &calls::delete("default", &name))
            }
            _ => {
                self.written += 1;
                let length = self.chance.below(3_000);
                let value =
                    [format!("{name} #{} ", self.written).into_bytes(), self.chance.bytes(length)].concat();
                self.oracle.begins(&name, Some(value.clone()));
                ask(client, &calls::set("default", &name, &value))
            }
        };
        match outcome {
            Ok(()) => self.oracle.acknowledged(&name),
            // To remove what is not there is refused, and then it is not there.
            Err(CallError::Denied(SecretsDenial::NoSuchSecret(_))) => self.oracle.acknowledged(&name),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes until a death is noticed.
    fn write(&mut self, system: &System, acknowledged: &AtomicUsize, dead: &AtomicBool) {
        let mut client = system.client();
        while !dead.load(Ordering::Relaxed) {
            match self.step(&mut client) {
                Ok(()) => {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                // What the death of a daemon may lead to, and nothing else.
                Err(CallError::Lost | CallError::Unreachable(_) | CallError::Refused(_)) => return,
                Err(CallError::Denied(
                    SecretsDenial::Locked | SecretsDenial::ProfileNotActive(_) | SecretsDenial::Unrecorded,
                )) => return,
                Err(error) => panic!("a write ended with {error:?}"),
            }
        }
    }

    /// Reads all its names back.
    fn check(&mut self, client: &mut Client) -> Vec<String> {
        let names: Vec<String> = self.oracle.names().map(str::to_owned).collect();
        let mut there = Vec::new();
        for name in names {
            let found =
                read(client, &name).unwrap_or_else(|error| panic!("'{name}' after a death: {error:?}"));
            there.extend(found.is_some().then(|| name.clone()));
            let right = self.oracle.finds(&name, found, |value| Self::is_ours(&name, value));
            assert_eq!(right, Ok(()), "'{name}' after a death");
        }
        there
    }
}

/// Lets all writers write, does `kill` at a moment of chance, and answers how many operations were acknowledged.
fn under_load(system: &System, writers: &mut [Writer], moment: usize, kill: impl FnOnce()) -> usize {
    let (acknowledged, dead) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| writer.write(system, &acknowledged, &dead));
        }
        wait_for("so many operations", || (acknowledged.load(Ordering::Relaxed) >= moment).then_some(()));
        kill();
        dead.store(true, Ordering::Relaxed);
    });
    acknowledged.load(Ordering::Relaxed)
}

fn unlock_and_check(system: &System, writers: &mut [Writer]) {
    let mut client = system.client();
    call(&mut client, &calls::unlock("default", PASSWORD));
    let mut expected: Vec<String> = writers.iter_mut().flat_map(|writer| writer.check(&mut client)).collect();
    expected.sort();
    let listed = call(&mut client, &calls::list("default"));
    let listed: Vec<&str> = listed.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(listed, expected, "the list after a death");
}

fn writers(chance: &mut Chance) -> Vec<Writer> {
    (0..WRITERS).map(|number| Writer::new(number, chance.split())).collect()
}

#[test]
fn a_killed_daemon_secrets_loses_nothing_that_was_acknowledged() {
    let mut chance = Chance::of("crash of daemon-secrets");
    let mut writers = writers(&mut chance);
    let (rounds, mut acknowledged) = (tries(4), 0);
    let mut system = System::boot(Spec::ready().config(RATES));
    for round in 0..rounds {
        let old = system.pid_of(SECRETS);
        let moment = chance.below(150);
        acknowledged += under_load(&system, &mut writers, moment, || {
            system.kill(SECRETS);
        });
        system.wait_until_back(SECRETS, old);
        unlock_and_check(&system, &mut writers);
        if round % 4 == 3 {
            // A supervisor that saw many deaths waits longer and longer before it starts anything again.
            system.kill_all();
            system.start();
            unlock_and_check(&system, &mut writers);
        }
    }
    eprintln!("{rounds} deaths of daemon-secrets, {acknowledged} operations acknowledged, none lost");
}

#[test]
fn killing_everything_loses_nothing_that_was_acknowledged() {
    let mut chance = Chance::of("crash of everything");
    let mut writers = writers(&mut chance);
    let (rounds, mut acknowledged) = (tries(4), 0);
    let mut system = System::boot(Spec::ready().config(RATES));
    for _ in 0..rounds {
        let moment = chance.below(150);
        acknowledged += under_load(&system, &mut writers, moment, || system.kill_all());
        system.start();
        unlock_and_check(&system, &mut writers);
    }
    system.pds(["audit", "verify"]).run().done();
    eprintln!("{rounds} deaths of everything, {acknowledged} operations acknowledged, none lost");
}
