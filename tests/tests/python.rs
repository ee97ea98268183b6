//! A client in another language, written from docs/protocol.md alone.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use core_crypto::private_fs::write_atomic;
use core_ipc::socket::{self, LinkError, ReadBuffer};
use core_ipc::wire::noise::{MESSAGE_1_BYTES, Responder};
use core_ipc::wire::{Connection, Identity};
use core_types::header::{Destination, Header, Kind, Seal};
use core_types::limits::KEY_SECONDS_MAX;
use core_types::name::SECRETS;
use core_types::protocol::bus::{BusDenial, BusRequest, KeyOf};
use core_types::protocol::{Call as _, decode, encode};
use tests::process::wait_readable;
use tests::{Invocation, PATIENCE, Spec, System, programs};

const VALUE: &[u8] = b"python-canary \0\n\xff";

/// The client; its one package is Debian's, so it is run by Debian's Python.
fn client<'a>(system: &'a System, arguments: &[&str]) -> Invocation<'a> {
    let script = programs::workspace().join("tests/python/pds_client.py");
    let script = script.to_str().unwrap();
    let arguments: Vec<&str> = std::iter::once(script).chain(arguments.iter().copied()).collect();
    system.program("/usr/bin/python3", arguments)
}

#[test]
fn a_client_in_python_gets_secrets_of_every_size() {
    let large: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let system =
        System::boot(Spec::ready().secret("api-key", VALUE).secret("large", &large).secret("empty", b""));
    client(&system, &["default", "api-key"]).run().done().prints(VALUE);
    client(&system, &["default", "empty", "large", "api-key"])
        .run()
        .done()
        .prints([large.as_slice(), VALUE].concat());
}

#[test]
fn a_client_in_python_is_told_when_it_is_refused() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    client(&system, &["default", "nothing"]).run().exits(1);
    system.pds(["lock"]).run().done();
    client(&system, &["default", "api-key"]).run().exits(1);
}

/// A bus of our own, to which every answer comes an hour after the one before it: it answers each `KeyOf` with this key,
/// until its client goes; answers how many it answered.
fn serve_one_client(listener: &UnixListener, identity: &Identity, key: [u8; 32]) -> u32 {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; MESSAGE_1_BYTES];
    stream.read_exact(&mut message).unwrap();
    let responder = Responder::new(identity, &socket::prologue()).unwrap();
    let (session, reply) = responder.respond(&message).unwrap();
    stream.write_all(&reply).unwrap();
    let mut wire = Connection::new(session, &[]);
    let (mut buffer, mut now) = (ReadBuffer::default(), Instant::now());
    for answered in 0.. {
        let Some(asked) = next_frame(&stream, &mut wire, &mut buffer) else { return answered };
        assert_eq!(asked.method, KeyOf::METHOD);
        let reply: Result<[u8; 32], BusDenial> = Ok(key);
        let header = Header {
            kind: Kind::Response,
            correlation: asked.id,
            destination: Destination::Asker,
            deadline_ms: 0,
            ..asked
        };
        wire.keep_fresh(now).unwrap();
        wire.send(&header, &encode(&reply).unwrap()).unwrap();
        assert_eq!(socket::flush(&stream, &mut wire), Ok(true));
        now += Duration::from_secs(KEY_SECONDS_MAX);
    }
    unreachable!("a client that asks for ever");
}

/// The header of the next frame, which asks for the key of daemon-secrets; `None` when the client has gone.
fn next_frame(stream: &UnixStream, wire: &mut Connection, buffer: &mut ReadBuffer) -> Option<Header> {
    loop {
        if let Some(frame) = wire.next_frame().unwrap() {
            let BusRequest::KeyOf(KeyOf { name }) = decode(&frame.body).unwrap() else {
                panic!("another call")
            };
            assert_eq!((name.as_str(), frame.header.seal), (SECRETS, Seal::None));
            return Some(frame.header);
        }
        assert!(wait_readable(stream, tests::deadline()), "nothing comes");
        match socket::receive(stream, wire, buffer) {
            Err(LinkError::Closed) => return None,
            received => drop(received.unwrap()),
        }
    }
}

#[test]
fn a_client_in_python_follows_new_keys_and_seals_nothing_for_a_key_that_only_the_bus_names() {
    let system = System::boot(Spec::new().not_started());
    let identity = Identity::generate().unwrap();
    let keys = [(); 2].map(|()| Identity::generate().unwrap().public());
    let published = system.paths().public_key(SECRETS);
    std::fs::create_dir_all(published.parent().unwrap()).unwrap();
    write_atomic(&published, keys[0].to_hex().as_bytes()).unwrap();
    write_atomic(&system.paths().bus_public_key(), identity.public().to_hex().as_bytes()).unwrap();
    let listener = UnixListener::bind(system.paths().bus_socket()).unwrap();
    std::thread::scope(|scope| {
        let bus = scope.spawn(|| serve_one_client(&listener, &identity, keys[1].0));
        client(&system, &["default", "api-key"])
            .run()
            .exits(1)
            .says("the key of daemon-secrets is not the one that the bus knows");
        assert!(bus.join().unwrap() > 2, "no answer came under a later key");
    });
}
