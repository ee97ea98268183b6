//! New keys of a daemon under the requests of its clients: each start of daemon-secrets makes some.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions, ConnectError};
use core_types::header::Refusal;
use core_types::name::SECRETS;
use core_types::protocol::secrets::{Get, SecretsDenial, Unlock};
use core_types::{ProfileName, WireSecret};
use tests::system::{call, password_proof, wait_for};
use tests::{PATIENCE, Spec, System};

const CLIENTS: usize = 4;
const RESTARTS: usize = 5;
/// Answers between two restarts, at least: so each is in the middle of requests.
const ANSWERS_BETWEEN: usize = 40;
const DEADLINE: Duration = Duration::from_secs(5);
/// What a client may take above its deadline: the bus answers at the deadline itself.
const GRACE: Duration = Duration::from_secs(1);

fn value(client: usize) -> Vec<u8> {
    format!("rotation-canary-{client}").into_bytes()
}

fn get(
    client: &mut Client,
    number: usize,
    deadline: Duration,
) -> Result<WireSecret, CallError<SecretsDenial>> {
    let call =
        Get { profile: ProfileName::parse("default").unwrap(), name: format!("key-{number}"), version: None };
    client.call(&call, CallOptions { deadline, descriptors: Vec::new() })
}

/// Asks until told to stop; counts the right answers. An error must be one that says what is the matter.
fn ask_on(client: &mut Client, number: usize, stop: &AtomicBool, right: &AtomicUsize) {
    while !stop.load(Ordering::SeqCst) {
        let start = Instant::now();
        let outcome = get(client, number, DEADLINE);
        let took = start.elapsed();
        assert!(took < DEADLINE + GRACE, "an answer took {took:?}");
        match outcome {
            Ok(found) => {
                assert!(found.expose() == value(number), "the answer to another request");
                right.fetch_add(1, Ordering::SeqCst);
            }
            Err(
                CallError::Denied(SecretsDenial::Locked | SecretsDenial::ProfileNotActive(_))
                | CallError::Refused(Refusal::ServiceGone | Refusal::ServiceUnknown)
                | CallError::Unreachable(ConnectError::Handshake | ConnectError::Key { .. }),
            ) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Has the clients stop however the test goes on.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn unlock(system: &System) {
    let profile = ProfileName::parse("default").unwrap();
    call(&mut system.client(), &Unlock { profile, factors: password_proof() });
}

#[test]
fn daemon_secrets_gets_new_keys_under_requests_and_every_client_goes_on() {
    let spec = (0..=CLIENTS)
        .fold(Spec::ready(), |spec, number| spec.secret(&format!("key-{number}"), value(number)))
        .config("[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n");
    let system = System::boot(spec);
    let mut clients: Vec<Client> = (0..=CLIENTS).map(|_| system.client()).collect();
    // The last one has a session from before all restarts, and is silent meanwhile.
    let mut old = clients.pop().unwrap();
    get(&mut old, CLIENTS, PATIENCE).unwrap();
    let (stop, right) = (AtomicBool::new(false), AtomicUsize::new(0));
    let published = || std::fs::read(system.paths().public_key(SECRETS)).unwrap();
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for (number, client) in clients.iter_mut().enumerate() {
            let (stop, right) = (&stop, &right);
            scope.spawn(move || ask_on(client, number, stop, right));
        }
        for _ in 0..RESTARTS {
            let wanted = right.load(Ordering::SeqCst) + ANSWERS_BETWEEN;
            wait_for("requests are answered", || (right.load(Ordering::SeqCst) >= wanted).then_some(()));
            let key = published();
            let pid = system.kill(SECRETS);
            system.wait_until_back(SECRETS, pid);
            assert_ne!(published(), key, "the key is still the old one");
            unlock(&system);
        }
    });
    clients.push(old);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(get(client, number, PATIENCE).unwrap().expose(), value(number), "client {number}");
    }
}
