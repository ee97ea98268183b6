//! The bus under floods: many clients that ask as much as they can, more connections than there are places, and two
//! daemons that send each other large frames at the same moment.
//!
//! `make flood` makes the flood of twenty seconds with two hundred clients.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use core_ipc::CallOptions;
use core_ipc::wire::{Frame, Identity};
use core_types::header::{Kind, Refusal, Seal};
use core_types::limits::{
    CONNECTIONS_MAX, CONNECTIONS_RESERVED, HANDSHAKE_MS_MAX, PROCESS_CONNECTIONS_MAX, UNAUTHENTICATED_MAX,
};
use core_types::name::{BUS, PROFILE, SECRETS};
use core_types::protocol::bus::{Announce, BusRequest};
use core_types::protocol::decode;
use core_types::protocol::secrets::Get;
use core_types::{DaemonName, ProfileName};
use tests::crowd::{Crowd, Doing};
use tests::hostile::{Hostile, request_header};
use tests::system::wait_for;
use tests::{PATIENCE, Spec, System};

const VALUE: &[u8] = b"flood-canary-8f1c";
/// How much a flood is.
struct Flood {
    /// How long it lasts at least.
    seconds: u64,
    /// Reads of the client that is not to notice.
    reads: usize,
    /// What a read of it may take, at the 99th percentile.
    p99_ms_max: u128,
}

/// Clients that flood.
const FLOODERS: usize = 200;

/// As part of all tests, which run several at once: short, and with room for what the machine does besides.
const SHORT: Flood = Flood { seconds: 2, reads: 40, p99_ms_max: 1_000 };

/// The flood that was asked for: with `PDS_FLOOD_SECONDS`, on a machine that has nothing else to do.
fn wanted() -> Flood {
    match std::env::var("PDS_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok()) {
        Some(seconds) => Flood { seconds, reads: 1_000, p99_ms_max: 50 },
        None => SHORT,
    }
}

/// No rate limit stands in the way.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n\
    [rate_limit.unknown]\nper_second = 1000000\nburst = 1000000\n";

fn get() -> Get {
    Get { profile: ProfileName::parse("default").unwrap(), name: "api-key".to_owned(), version: None }
}

fn patient() -> CallOptions {
    CallOptions { deadline: PATIENCE, descriptors: Vec::new() }
}

fn booted() -> System {
    System::boot(Spec::ready().config(RATES).secret("api-key", VALUE))
}

/// Open descriptors and resident kilobytes of a daemon.
fn holdings(system: &System, name: &str) -> (usize, usize) {
    let pid = system.pid_of(name);
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    (descriptors, line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Reads while so many processes flood with so many clients each, half of the reads on new connections.
fn read_under_flood(processes: usize, clients: usize) {
    let wanted = wanted();
    let system = booted();
    let mut client = system.client();
    client.call(&get(), patient()).unwrap();
    let idle = [BUS, SECRETS].map(|name| holdings(&system, name));
    let crowd = Crowd::start(&system, processes, clients, Doing::Flood);
    let end = Instant::now() + Duration::from_secs(wanted.seconds);
    let mut times = Vec::new();
    while times.len() < wanted.reads || Instant::now() < end {
        let began = Instant::now();
        let value = if times.len() % 2 == 0 {
            client.call(&get(), CallOptions::default())
        } else {
            // A new connection, as each command makes one.
            system.client().call(&get(), CallOptions::default())
        };
        let value = value.unwrap_or_else(|error| panic!("read {}: {error}", times.len()));
        assert_eq!(value.expose(), VALUE);
        times.push(began.elapsed());
    }
    drop(crowd);
    let ended = Instant::now();
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100];
    let longest = times[times.len() - 1];
    eprintln!("{} reads under flood: p50 {:?}, p99 {:?}, longest {longest:?}", times.len(), at(50), at(99));
    for (name, idle) in [BUS, SECRETS].into_iter().zip(idle) {
        let back = wait_for("the daemon is as it was", || {
            let (descriptors, kilobytes) = holdings(&system, name);
            (descriptors <= idle.0 + 2 && kilobytes <= 2 * idle.1 + 8_192).then_some((descriptors, kilobytes))
        });
        eprintln!("{name}: {idle:?} before, {back:?} {:?} after", ended.elapsed());
    }
    assert!(ended.elapsed() < Duration::from_secs(2), "{:?}", ended.elapsed());
    assert!(at(99).as_millis() <= wanted.p99_ms_max, "p99 {:?}", at(99));
    client.call(&get(), patient()).unwrap();
}

#[test]
fn a_flood_of_many_clients_of_one_process_is_not_noticed_by_another_one() {
    read_under_flood(1, FLOODERS);
}

#[test]
fn a_flood_of_many_processes_is_not_noticed_by_another_one() {
    read_under_flood(FLOODERS, 1);
}

#[test]
fn strangers_that_stay_give_their_places_to_new_ones_and_never_the_daemons() {
    let system = booted();
    let places = CONNECTIONS_MAX - CONNECTIONS_RESERVED;
    let mut own: Vec<Hostile> = (0..3).map(|_| Hostile::connect(&system)).collect();
    let _others = Crowd::start(&system, 10, places / 10, Doing::Hold);
    for _ in 0..20 {
        system.pds(["get", "api-key"]).run().done().prints(VALUE);
    }
    assert!(!own.iter_mut().any(Hostile::has_ended), "the processes with the most connections give places");
    assert!(system.all_serve());
    // A daemon that dies finds its place again.
    let old = system.kill(PROFILE);
    system.wait_until_back(PROFILE, old);
}

#[test]
fn a_process_has_a_share_of_the_places_and_a_further_connection_waits_for_one() {
    let system = booted();
    let mut own: Vec<Hostile> = (0..PROCESS_CONNECTIONS_MAX).map(|_| Hostile::connect(&system)).collect();
    let full = holdings(&system, BUS).0;
    let (began, paths) = (Instant::now(), system.paths().clone());
    assert!(Hostile::try_connect(&paths).is_none(), "one more than the share got a place");
    assert!(began.elapsed() >= Duration::from_millis(HANDSHAKE_MS_MAX), "{:?}", began.elapsed());
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
    let waiting = std::thread::spawn(move || Hostile::try_connect(&paths).is_some());
    wait_for("it waits", || (holdings(&system, BUS).0 > full).then_some(()));
    own[0].fence();
    own.pop();
    assert!(waiting.join().unwrap(), "the place that became free was not given away");
}

#[test]
fn five_thousand_connections_at_once_leave_the_bus_working() {
    let system = booted();
    let mut client = system.client();
    let idle = holdings(&system, BUS);
    let path = system.paths().bus_socket();
    let mut open = Vec::new();
    for number in 0..5_000 {
        open.extend(UnixStream::connect(&path));
        if number % 500 == 0 {
            client.call(&get(), patient()).unwrap();
        }
    }
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
    assert!(holdings(&system, BUS).0 < idle.0 + UNAUTHENTICATED_MAX + 50);
    drop(open);
    let began = Instant::now();
    wait_for("the descriptors are free again", || (holdings(&system, BUS).0 <= idle.0 + 1).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(2));
    client.call(&get(), patient()).unwrap();
}

/// Publishes a key under a name and serves under it.
fn daemon(system: &System, name: &str) -> Hostile {
    let identity = Identity::generate().unwrap();
    let path = system.paths().public_key(name);
    core_crypto::private_fs::write_atomic(&path, identity.public().to_hex().as_bytes()).unwrap();
    let mut daemon = Hostile::connect_as(system, &identity);
    let announce = Announce { name: DaemonName::parse(name).unwrap(), version: "1".to_owned() };
    daemon.ask_bus::<()>(&BusRequest::Announce(announce)).unwrap();
    daemon
}

/// What came to one of two daemons.
#[derive(Default, Debug)]
struct Heard {
    last: Option<u64>,
    arrived: u64,
    refused: u64,
}

impl Heard {
    fn take(&mut self, frame: &Frame, bytes: usize) {
        match frame.header.kind {
            Kind::Request => {
                let number = u64::from_be_bytes(*frame.body.first_chunk().unwrap());
                assert!(self.last < Some(number), "{number} after {:?}", self.last);
                assert_eq!(frame.body.len(), bytes);
                self.last = Some(number);
                self.arrived += 1;
            }
            // What the other does not take, its sender is told.
            Kind::Refusal => {
                assert_eq!(decode::<Refusal>(&frame.body), Ok(Refusal::Busy));
                self.refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_daemons_that_send_each_other_large_frames_at_once_get_all_of_them_in_order() {
    const FRAMES: u64 = 100;
    const BYTES: usize = 600_000;
    let system = booted();
    let (one, other) = (daemon(&system, "daemon-one"), daemon(&system, "daemon-other"));
    // Each asks the other, and answers nothing before it has asked everything that the bus took.
    let send = |mut from: Hostile, to: &'static str| {
        std::thread::spawn(move || {
            for number in 0..FRAMES {
                let mut body = vec![0; BYTES];
                body[..8].copy_from_slice(&number.to_be_bytes());
                from.send(&request_header(to, 1, Seal::None), &body);
            }
            from
        })
    };
    let (one, other) = (send(one, "daemon-other"), send(other, "daemon-one"));
    let mut daemons = [one.join().unwrap(), other.join().unwrap()];
    let mut heard = [Heard::default(), Heard::default()];
    wait_for("every frame has arrived or was refused", || {
        for (daemon, heard) in daemons.iter_mut().zip(&mut heard) {
            daemon.fence().into_iter().for_each(|frame| heard.take(&frame, BYTES));
        }
        let settled = |asked: usize, asker: usize| heard[asked].arrived + heard[asker].refused == FRAMES;
        (settled(0, 1) && settled(1, 0)).then_some(())
    });
    eprintln!("{heard:?}");
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}
