//! The names of our own daemons belong to the processes that the supervisor started, whatever dies and restarts.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};

use core_crypto::private_fs::write_atomic;
use core_ipc::CallOptions;
use core_ipc::wire::Identity;
use core_types::DaemonName;
use core_types::header::Kind;
use core_types::name::{BUS, PROFILE, SECRETS};
use core_types::protocol::bus::{Announce, BusRequest};
use core_types::protocol::secrets::Profiles;
use rustix::process::Signal;
use tests::hostile::Hostile;
use tests::system::{SUPERVISOR, wait_for};
use tests::{Spec, System};

const VALUE: &[u8] = b"names-canary-0c55";
const KILLS: usize = 5;
const TRIES: usize = 100;

fn booted() -> System {
    System::boot(Spec::ready().secret("api-key", VALUE))
}

/// Whether another process than the `old` one serves under the name.
fn is_back(system: &System, name: &str, old: u32) -> bool {
    system.process(name).is_some_and(|process| process.pid() != old) && system.all_serve()
}

#[test]
fn the_name_of_a_daemon_is_nobody_elses_while_it_restarts() {
    let system = booted();
    let identity = Identity::generate().unwrap();
    let published = system.paths().public_key(SECRETS);
    let announce =
        BusRequest::Announce(Announce { name: DaemonName::parse(SECRETS).unwrap(), version: "1".to_owned() });
    let mut thief = Hostile::connect_as(&system, &identity);
    let (mut kills, mut tries, mut taken, mut requests) = (0, 0, 0, 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                // Whether it is answered is not the question here.
                drop(system.client().call(&Profiles {}, CallOptions::default()));
            }
        });
        while taken == 0 && (kills < KILLS || tries < TRIES) {
            let old = system.kill(SECRETS);
            kills += 1;
            loop {
                // The same user can write there, and so tell every client of the name that this is the key.
                write_atomic(&published, identity.public().to_hex().as_bytes()).unwrap();
                taken += usize::from(thief.ask_bus::<()>(&announce).is_ok());
                requests += thief.fence().iter().filter(|frame| frame.header.kind == Kind::Request).count();
                tries += 1;
                if taken > 0 || is_back(&system, SECRETS, old) {
                    break;
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!((taken, requests), (0, 0), "in {tries} tries at {kills} restarts");
    // The next start publishes the right key again.
    let old = system.kill(SECRETS);
    system.wait_until_back(SECRETS, old);
    system.pds(["unlock"]).password().run().done();
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn a_key_that_only_one_of_bus_and_service_names_is_not_trusted() {
    let system = booted();
    let published = system.paths().public_key(SECRETS);
    let right = std::fs::read(&published).unwrap();
    let wrong = Identity::generate().unwrap().public().to_hex();
    write_atomic(&published, wrong.as_bytes()).unwrap();
    let failed = system.pds(["get", "api-key"]).run().any();
    assert!(!failed.status().success());
    failed.says("it is not the key that the bus knows");
    write_atomic(&published, &right).unwrap();
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn losing_the_supervisor_and_the_bus_at_once_leaves_the_vault_unlocked() {
    let system = booted();
    let secrets = system.pid_of(SECRETS);
    let supervisor = system.process(SUPERVISOR).unwrap();
    supervisor.stop();
    system.kill(BUS);
    supervisor.signal(Signal::KILL);
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
    assert_eq!(system.pid_of(SECRETS), secrets);
    // What the new supervisor starts from now on gets its name as well.
    let old = system.kill(PROFILE);
    system.wait_until_back(PROFILE, old);
}

#[test]
fn each_supervisor_knows_what_the_one_before_it_started() {
    let system = booted();
    for _ in 0..2 {
        let old = system.kill(SUPERVISOR);
        wait_for("another supervisor", || {
            system.process(SUPERVISOR).filter(|process| process.pid() != old).map(drop)
        });
    }
    let secrets = system.pid_of(SECRETS);
    let old = system.kill(BUS);
    wait_for("another bus", || is_back(&system, BUS, old).then_some(()));
    assert_eq!(system.pid_of(SECRETS), secrets);
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}
