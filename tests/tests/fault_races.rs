//! Sixteen clients at once see one order of everything, cache or no cache.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions};
use core_types::protocol::secrets::SecretsDenial;
use tests::calls;
use tests::chance::{Chance, tries};
use tests::linear::{Deed, Operation, is_linearizable};
use tests::{Spec, System};

const CLIENTS: usize = 16;
const NAMES: usize = 3;
/// No limit stands in the way of the load.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

fn name(number: usize) -> String {
    format!("register-{number}")
}

fn number_in(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Choices of [`act`] that only read, and all of them.
const READS: usize = 5;
const DEEDS: usize = 9;

/// Does one thing of chance to one register; answers what was done.
fn act(client: &mut Client, name: &str, choice: usize, fresh: u64) -> Deed {
    let options = || CallOptions { deadline: tests::PATIENCE, descriptors: Vec::new() };
    match choice {
        0..=3 => match client.call(&calls::get("default", name), options()) {
            Ok(value) => Deed::Read(number_in(value.expose())),
            Err(CallError::Denied(SecretsDenial::NoSuchSecret(_))) => Deed::Read(0),
            Err(error) => panic!("a read ended with {error:?}"),
        },
        4 => match client.call(&calls::batch("default", name), options()) {
            Ok(values) => Deed::Read(number_in(values[0].value.expose())),
            Err(CallError::Denied(SecretsDenial::NoSuchSecret(_))) => Deed::Read(0),
            Err(error) => panic!("a batch ended with {error:?}"),
        },
        5 => match client.call(&calls::delete("default", name), options()) {
            Ok(()) => Deed::Remove(true),
            Err(CallError::Denied(SecretsDenial::NoSuchSecret(_))) => Deed::Remove(false),
            Err(error) => panic!("a removal ended with {error:?}"),
        },
        _ => {
            client.call(&calls::set("default", name, fresh.to_string()), options()).unwrap();
            Deed::Write(fresh)
        }
    }
}

/// What all clients saw of all registers, where so many of them write.
fn histories(
    system: &System,
    writers: usize,
    each: usize,
    chance: &mut Chance,
) -> BTreeMap<usize, Vec<Operation>> {
    let fresh = AtomicU64::new(1);
    let client = |number: usize, mut chance: Chance| {
        let choices = if number < writers { DEEDS } else { READS };
        let mut client = system.client();
        let mut seen = Vec::new();
        for _ in 0..each {
            let register = chance.below(NAMES);
            let value = fresh.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            let deed = act(&mut client, &name(register), chance.below(choices), value);
            seen.push((register, Operation { deed, began, ended: Instant::now() }));
        }
        seen
    };
    let mut histories: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..CLIENTS)
            .map(|number| (number, chance.split()))
            .map(|(number, chance)| scope.spawn(move || client(number, chance)))
            .collect();
        for (register, operation) in running.into_iter().flat_map(|thread| thread.join().unwrap()) {
            histories.entry(register).or_default().push(operation);
        }
    });
    histories
}

/// Where all write, hardly a read comes to keep anything in the cache; where few do, the cache answers most of them.
#[test]
fn sixteen_clients_see_one_order_of_everything() {
    const FEW: usize = 2;
    let mut chance = Chance::of("races");
    let each = tries(60);
    for (writers, cache) in [CLIENTS, FEW]
        .into_iter()
        .flat_map(|writers| ["", "[secrets]\ncache_ttl_seconds = 0\n"].map(|cache| (writers, cache)))
    {
        let system = System::boot(Spec::ready().config(&format!("{RATES}{cache}")));
        let histories = histories(&system, writers, each, &mut chance);
        assert_eq!(histories.len(), NAMES);
        for (register, operations) in histories {
            let count = operations.len();
            let load = format!("{writers} of {CLIENTS} clients writing, {cache:?}");
            assert!(is_linearizable(operations), "{} has no order ({load})", name(register));
            eprintln!("register {register}: {count} operations have one order ({load})");
        }
    }
}
