//! The bus against clients that break the wire: each ends its own connection and nothing else.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use core_ipc::socket;
use core_ipc::wire::noise::Initiator;
use core_ipc::wire::{Identity, PublicKey};
use core_types::header::Seal;
use core_types::limits::HANDSHAKE_MS_MAX;
use core_types::name::{BUS, LAUNCHER, PROFILE};
use core_types::protocol::bus::{BusRequest, Peers};
use core_types::protocol::encode;
use core_types::protocol::profile::{AuditStatus, ProfileRequest};
use rustix::fs::{Gid, Uid};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use tests::hostile::{Hostile, request_header};
use tests::system::wait_for;
use tests::{PATIENCE, Spec, System};

const VALUE: &[u8] = b"attack-canary-77aa";

fn booted() -> System {
    System::boot(Spec::ready().secret("api-key", VALUE))
}

fn peers() -> Vec<u8> {
    encode(&BusRequest::Peers(Peers {})).unwrap().to_vec()
}

fn descriptors_of_the_bus(system: &System) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", system.pid_of(BUS))).unwrap().count()
}

fn is_closed(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(stream.read(&mut [0]), Ok(0) | Err(_))
}

#[test]
fn a_handshake_that_takes_too_long_is_ended_however_busy_it_looks() {
    let system = booted();
    let began = Instant::now();
    let mut slow = UnixStream::connect(system.paths().bus_socket()).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // A byte every half second: each of them is a sign of life, and none of them buys time.
    let ended = loop {
        if slow.write_all(&[1]).is_err() {
            break began.elapsed();
        }
        match slow.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => break began.elapsed(),
        }
    };
    let limit = Duration::from_millis(HANDSHAKE_MS_MAX);
    assert!(ended >= limit && ended < limit + Duration::from_secs(3), "{ended:?}");
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

/// Connects as another user, sends message 1, and says how that ended.
fn as_another_user(path: &std::path::Path, message: &[u8]) -> std::io::ErrorKind {
    let (user, group) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.write_all(message).and_then(|()| stream.read(&mut [0])) {
        Ok(count) => panic!("{count} bytes were read, after all that was sent had been"),
        Err(error) => error.kind(),
    }
}

#[test]
fn another_user_is_sent_away_before_a_byte_of_it_is_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can be another user");
        return;
    }
    let system = booted();
    let key = socket::published_key(&system.paths().bus_public_key()).unwrap().unwrap();
    let (_, message) = Initiator::start(&Identity::generate().unwrap(), key, &socket::prologue()).unwrap();
    let (path, runtime) = (system.paths().bus_socket(), system.paths().runtime().to_owned());
    let set_mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // As careless as it gets: everyone may reach the socket.
    set_mode(system.folder(), 0o711);
    set_mode(&runtime, 0o711);
    set_mode(&path, 0o666);
    for _ in 0..100 {
        // In a thread of its own, whose user is its own as well.
        let (path, message) = (path.clone(), message);
        let ended = std::thread::spawn(move || as_another_user(&path, &message)).join().unwrap();
        // A socket that is closed with something unread in it resets the other end (unix(7)).
        assert!(matches!(ended, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended:?}");
    }
    set_mode(system.folder(), 0o700);
    set_mode(&runtime, 0o700);
    set_mode(&path, 0o600);
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

/// What is done to the records of three frames on their way.
type Tamper = fn(&mut Vec<Vec<u8>>);

#[test]
fn a_record_that_was_changed_dropped_repeated_or_made_up_ends_its_connection() {
    let system = booted();
    let mut good = Hostile::connect(&system);
    let tampers: [(&str, Tamper); 7] = [
        ("flipped", |records| records[1][7] ^= 1),
        ("dropped", |records| drop(records.remove(0))),
        ("swapped", |records| records.swap(0, 1)),
        ("repeated", |records| records.insert(1, records[0].clone())),
        ("of no bytes", |records| records.insert(0, vec![0, 0])),
        ("shorter than its tag", |records| {
            records.insert(0, vec![0, 15, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
        }),
        ("of the largest length", |records| records.insert(0, vec![0xff; 2 + 65_535])),
    ];
    for (what, tamper) in tampers {
        let mut liar = Hostile::connect(&system);
        let header = request_header(BUS, 0, Seal::None);
        let mut records: Vec<Vec<u8>> = (0..3).map(|_| liar.sealed(&header, &peers())).collect();
        tamper(&mut records);
        let _may_be_cut_off = liar.try_write(&records.concat());
        liar.wait_end();
        assert!(good.fence().is_empty(), "{what}");
    }
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn a_handshake_with_a_wrong_or_low_order_key_leads_nowhere() {
    let system = booted();
    let key = socket::published_key(&system.paths().bus_public_key()).unwrap().unwrap();
    let shake = |message: &[u8]| {
        let mut stream = UnixStream::connect(system.paths().bus_socket()).unwrap();
        stream.write_all(message).unwrap();
        is_closed(&mut stream)
    };
    let identity = Identity::generate().unwrap();
    let another = Identity::generate().unwrap().public();
    let (_, for_another) = Initiator::start(&identity, another, &socket::prologue()).unwrap();
    assert!(shake(&for_another), "for the owner of another key");
    let (_, other_version) = Initiator::start(&identity, key, b"pds bus v0").unwrap();
    assert!(shake(&other_version), "of another version");
    // Keys with which everyone shares the same secret (RFC 7748, section 6.1), as ephemeral key of a message 1.
    let (_, valid) = Initiator::start(&identity, key, &socket::prologue()).unwrap();
    for low in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let mut message = valid;
        message[..32].copy_from_slice(&low);
        assert!(shake(&message), "{low:?}");
        assert!(Initiator::start(&identity, PublicKey(low), &socket::prologue()).is_err());
    }
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn a_message_1_that_was_recorded_lets_nobody_speak() {
    let system = booted();
    let key = socket::published_key(&system.paths().bus_public_key()).unwrap().unwrap();
    let identity = Identity::generate().unwrap();
    let (_, message) = Initiator::start(&identity, key, &socket::prologue()).unwrap();
    for _ in 0..2 {
        let mut replayer = UnixStream::connect(system.paths().bus_socket()).unwrap();
        replayer.write_all(&message).unwrap();
        let mut reply = [0; 48];
        replayer.read_exact(&mut reply).unwrap();
        // Without the ephemeral key there is no record that opens.
        replayer.write_all(&[&[0, 32][..], &[9; 32]].concat()).unwrap();
        assert!(is_closed(&mut replayer));
    }
}

#[test]
fn who_does_not_read_its_answers_is_cut_off_and_holds_nobody_up() {
    let system = booted();
    let idle = descriptors_of_the_bus(&system);
    let mut deaf = Hostile::connect(&system);
    let header = request_header(BUS, 0, Seal::None);
    let question = deaf.sealed(&header, &peers());
    // Answers of some 150 bytes each; it never reads one.
    let mut asked = 0;
    let mut bytes = question;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && asked < 200_000 && deaf.try_write(&bytes) {
        bytes = deaf.sealed(&header, &peers());
        asked += 1;
    }
    assert!(Instant::now() < end && asked < 200_000, "{asked} answers were kept for it");
    wait_for("its descriptor is closed", || (descriptors_of_the_bus(&system) <= idle).then_some(()));
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

/// Sends bytes and descriptors that belong to no frame.
fn send_with_descriptors(stream: &UnixStream, bytes: &[u8], count: usize) {
    let pipes: Vec<OwnedFd> = (0..count).map(|_| rustix::pipe::pipe().unwrap().0).collect();
    let borrowed: Vec<_> = pipes.iter().map(|pipe| pipe.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    let _may_be_cut_off = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
}

#[test]
fn descriptors_that_no_frame_announced_are_closed_and_so_is_the_connection() {
    let system = booted();
    let idle = descriptors_of_the_bus(&system);
    for count in [17, 253] {
        let mut smuggler = Hostile::connect(&system);
        let bytes = smuggler.sealed(&request_header(BUS, 0, Seal::None), &peers());
        send_with_descriptors(smuggler.socket(), &bytes, count);
        smuggler.wait_end();
    }
    // Before the handshake none is taken at all.
    let mut early = UnixStream::connect(system.paths().bus_socket()).unwrap();
    send_with_descriptors(&early, &[7; 96], 253);
    assert!(is_closed(&mut early));
    wait_for("all descriptors are closed", || (descriptors_of_the_bus(&system) <= idle).then_some(()));
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn requests_with_descriptors_are_refused_before_they_are_too_many() {
    let system = booted();
    let idle = descriptors_of_the_bus(&system);
    let service = system.process(PROFILE).unwrap();
    service.signal(rustix::process::Signal::STOP);
    let body = encode(&ProfileRequest::AuditStatus(AuditStatus {})).unwrap();
    let mut clients: Vec<Hostile> = (0..20).map(|_| Hostile::connect(&system)).collect();
    for client in &mut clients {
        for _ in 0..10 {
            let pipes = (0..8).map(|_| rustix::pipe::pipe().unwrap().0).collect();
            client.send_descriptors(&request_header(PROFILE, 6, Seal::None), &body, pipes);
        }
        client.fence();
    }
    // 20 times 10 times 8 were sent.
    let held = descriptors_of_the_bus(&system) - idle - clients.len();
    assert!(held <= 256, "{held} descriptors are held");
    drop(clients);
    service.signal(rustix::process::Signal::CONT);
    wait_for("all descriptors are closed", || (descriptors_of_the_bus(&system) <= idle).then_some(()));
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

/// Descriptors that nobody reads, on their way from one end of each pair to the other.
fn in_flight(count: usize) -> Vec<(UnixStream, UnixStream)> {
    const AT_ONCE: usize = 200;
    let pairs: Vec<_> = (0..count.div_ceil(AT_ONCE)).map(|_| UnixStream::pair().unwrap()).collect();
    for (from, _) in &pairs {
        send_with_descriptors(from, b"-", AT_ONCE);
    }
    pairs
}

#[test]
fn who_keeps_descriptors_on_their_way_breaks_no_connection() {
    // Root is above the limit; few open files make it near.
    let limits = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", "prlimit", "--nofile=400:400"];
    let system = System::boot(Spec::ready().secret("api-key", VALUE).under(&limits));
    let idle = descriptors_of_the_bus(&system);
    let (bus, launcher) = (system.pid_of(BUS), system.pid_of(LAUNCHER));
    let ended = |system: &System| {
        let log = String::from_utf8(system.log()).unwrap();
        log.lines().filter(|line| line.contains("the connection to the bus ended")).count()
    };
    system.pds(["run", "--", "true"]).run().done();
    let before = ended(&system);
    let attack = in_flight(1_000);
    for _ in 0..3 {
        system.pds(["run", "--", "true"]).run().exits(125).says("try again in a moment");
        system.pds(["get", "api-key"]).run().done().prints(VALUE);
    }
    drop(attack);
    system.pds(["run", "--", "true"]).run().done();
    assert_eq!((system.pid_of(BUS), system.pid_of(LAUNCHER)), (bus, launcher));
    assert_eq!(ended(&system), before, "a daemon lost its connection");
    wait_for("all descriptors are closed", || (descriptors_of_the_bus(&system) <= idle).then_some(()));
}
