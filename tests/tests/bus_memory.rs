//! What the bus could tell of secrets that pass through it: nothing, because it never has them.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use core_ipc::{BusClient, CallOptions, Connector, Inbound};
use core_types::header::Seal;
use core_types::name::{BUS, DaemonName};
use core_types::protocol::secrets::{Get, Lock, Set, Unlock};
use core_types::{ProfileName, WireSecret};
use tests::hostile::{Answer, Hostile, request_header};
use tests::scan::count_in_memory;
use tests::system::password_proof;
use tests::{PASSWORD, PATIENCE, Spec, System};

const CANARIES: usize = 1_000;
const CANARIES_PER_CALL: usize = 50;
const CALLS: usize = CANARIES / CANARIES_PER_CALL;
/// Scans while they pass.
const SCANS: usize = 10;
/// No rate limit stands in the way.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

/// How each canary begins: not as a literal in the bus, nor in anything that it is told.
const MARK: &[u8] = b"bus-memory-canary-61d0-";

/// A service of someone else, that does not seal.
const ECHO: &str = "daemon-memory-echo";

fn value(call: usize) -> Vec<u8> {
    (0..CANARIES_PER_CALL).flat_map(|number| [MARK, format!("{call}-{number}").as_bytes()].concat()).collect()
}

/// How much each scan finds in the bus while `act` is done again and again, until the scans are enough and each call was
/// made once.
fn scans_while(bus: u32, enough: impl Fn(&[usize]) -> bool, mut act: impl FnMut(usize) + Send) -> Vec<usize> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop_it = &stop;
        let traffic = scope.spawn(move || {
            (0..).take_while(|call| *call < CALLS || !stop_it.load(Ordering::SeqCst)).for_each(&mut act);
        });
        let mut scans = Vec::new();
        while !enough(&scans) && !traffic.is_finished() {
            scans.push(count_in_memory(bus, MARK).unwrap());
        }
        stop.store(true, Ordering::SeqCst);
        traffic.join().unwrap();
        scans
    })
}

/// Serves on the bus, and answers with what it is asked, as long as this process lives; returns when it is registered.
fn echo(system: &System) {
    let connector = Connector {
        paths: system.paths().clone(),
        name: DaemonName::parse(ECHO).unwrap(),
        version: "1".to_owned(),
        topics: Vec::new(),
        sealed: false,
        service: ECHO,
        name_socket: None,
    };
    let (ready, registered) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (bus, mut inbound) = BusClient::start(connector).unwrap();
            while let Some(item) = inbound.recv().await {
                match item {
                    Inbound::Connected => ready.send(()).unwrap(),
                    Inbound::Event { .. } => {}
                    Inbound::Request(request) => {
                        let body = request.body.to_vec();
                        bus.respond(&request.ticket(), &body);
                    }
                }
            }
        });
    });
    registered.recv_timeout(PATIENCE).unwrap();
}

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
    let many = |scans: &[usize]| scans.len() >= SCANS;
    let scans = scans_while(bus, many, |call| {
        let value = value(call % CALLS);
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
    });
    assert!(scans.iter().all(|found| *found == 0), "{scans:?}");
    assert_eq!(count_in_memory(bus, MARK).unwrap(), 0);
    assert_eq!(count_in_memory(bus, PASSWORD.as_bytes()).unwrap(), 0);

    // The same scan while the same passes through the same bus unsealed, until it hits.
    echo(&system);
    let mut careless = Hostile::connect(&system);
    let end = tests::deadline();
    let hit = |scans: &[usize]| scans.last().is_some_and(|found| *found > 0);
    let scans = scans_while(
        bus,
        |scans| hit(scans) || Instant::now() > end,
        |call| {
            let value = value(call % CALLS);
            match careless.ask(&request_header(ECHO, 1, Seal::None), &value) {
                Answer::Response(frame) => assert_eq!(*frame.body, value),
                Answer::Refused(refusal) => panic!("{refusal}"),
            }
        },
    );
    assert!(hit(&scans), "{} scans found nothing at all", scans.len());
}
