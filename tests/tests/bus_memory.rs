//! What the bus could tell of secrets that pass through it: nothing, because it never has them.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use core_ipc::CallOptions;
use core_types::header::Seal;
use core_types::name::{BUS, PROFILE};
use core_types::protocol::secrets::{Get, Lock, Set, Unlock};
use core_types::{ProfileName, WireSecret};
use rustix::process::Signal;
use tests::hostile::{Hostile, request_header};
use tests::scan::count_in_memory;
use tests::system::password_proof;
use tests::{PASSWORD, PATIENCE, Spec, System};

const CANARIES: usize = 1_000;
const CANARIES_PER_CALL: usize = 50;
/// No rate limit stands in the way.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

/// How each canary begins: not as a literal in the bus, nor in anything that it is told.
const MARK: &[u8] = b"bus-memory-canary-61d0-";

fn patient() -> CallOptions {
    CallOptions { deadline: PATIENCE, descriptors: Vec::new() }
}

#[test]
fn the_memory_of_the_bus_holds_nothing_of_what_passes_through_it() {
    let system = System::boot(Spec::ready().config(RATES));
    let bus = system.pid_of(BUS);
    if let Err(error) = count_in_memory(bus, MARK) {
        eprintln!("the memory of the bus is closed to us as to any other process of its user: {error}");
        return;
    }
    let profile = ProfileName::parse("default").unwrap();
    let mut client = system.client();
    client.call(&Lock { profile: None }, patient()).unwrap();
    client.call(&Unlock { profile: profile.clone(), factors: password_proof() }, patient()).unwrap();
    for call in 0..CANARIES / CANARIES_PER_CALL {
        let value: Vec<u8> = (0..CANARIES_PER_CALL)
            .flat_map(|number| [MARK, format!("{call}-{number}").as_bytes()].concat())
            .collect();
        let name = format!("key-{}", call % 10);
        let set = Set {
            profile: profile.clone(),
            name: name.clone(),
            value: WireSecret::new(value.clone()),
            expires_unix_ms: None,
            note: None,
        };
        client.call(&set, patient()).unwrap();
        let got = client.call(&Get { profile: profile.clone(), name, version: None }, patient()).unwrap();
        assert_eq!(got.expose(), value);
        assert_eq!(count_in_memory(bus, MARK).unwrap(), 0, "call {call}");
    }
    assert_eq!(count_in_memory(bus, MARK).unwrap(), 0);
    assert_eq!(count_in_memory(bus, PASSWORD.as_bytes()).unwrap(), 0);

    // The same scan, when what waits in the bus is not sealed: a request behind another one of its client.
    let service = system.process(PROFILE).unwrap();
    service.signal(Signal::STOP);
    let mut careless = Hostile::connect(&system);
    for _ in 0..2 {
        careless.send(&request_header(PROFILE, 1, Seal::None), MARK);
    }
    careless.fence();
    assert!(count_in_memory(bus, MARK).unwrap() > 0, "the scan finds nothing at all");
    service.signal(Signal::CONT);
}
