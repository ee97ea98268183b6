//! What any bytes from outside may meet first, as functions of bytes: each target panics when a decoder breaks its
//! promise. `make fuzz` runs them under libFuzzer (`fuzz/main.rs`), `tests/fuzz.rs` runs them over the corpus and a
//! number of mutations in every test run.

use std::time::Instant;

use core_ipc::seal::{SealInitiator, SealedSessions};
use core_ipc::wire::noise::{Identity, Initiator, Responder, Session};
use core_ipc::wire::{Connection, frame};
use core_types::config::Config;
use core_types::header::{Destination, Header, Kind, Seal};
use core_types::pattern::Pattern;
use core_types::protocol::bus::BusRequest;
use core_types::protocol::launcher::LauncherRequest;
use core_types::protocol::profile::ProfileRequest;
use core_types::protocol::secrets::SecretsRequest;
use core_types::protocol::{decode, encode};
use core_types::{ProfileName, SecretName};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Takes any bytes; panics when what it tests breaks a promise.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("frame", frame_bytes),
    ("header", message::<Header>),
    ("handshake", handshake),
    ("connection", connection),
    ("bus-request", message::<BusRequest>),
    ("secrets-request", message::<SecretsRequest>),
    ("profile-request", message::<ProfileRequest>),
    ("launcher-request", message::<LauncherRequest>),
    ("config", config),
    ("name", name),
];

const PROLOGUE: &[u8] = b"fuzz";

/// A frame's bytes without its length: refused, or a frame that goes out as it came in.
fn frame_bytes(bytes: &[u8]) {
    if let Some(length) = bytes.first_chunk() {
        let _ = frame::length(*length);
    }
    let with_length = [&[0; size_of::<u32>()], bytes].concat();
    if let Ok(found) = frame::decode(with_length.into()) {
        let again = frame::encode(&found.header, &found.body).expect("what was decoded can be encoded");
        let again = frame::decode(again).expect("what was encoded can be decoded");
        assert_eq!((&again.header, &*again.body), (&found.header, &*found.body));
    }
}

/// A message: refused, or one whose encoding is read as the same.
fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = decode::<T>(bytes) {
        let first = encode(&message).expect("what was decoded can be encoded");
        let again = decode::<T>(&first).expect("what was encoded can be decoded");
        assert_eq!(encode(&again).expect("and encoded again"), first);
    }
}

fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Config::parse(text);
    }
}

/// Names and patterns: refused, or kept as they are.
fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = SecretName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(
            !text.split('/').any(|part| part == ".." || part.is_empty()),
            "a path that leaves its folder"
        );
    }
    if let Ok(name) = ProfileName::parse(text) {
        assert!(
            !name.as_str().contains('/') && !name.as_str().starts_with('.'),
            "a path that leaves its folder"
        );
    }
    let _ = Pattern::parse(text);
}

fn identity() -> Identity {
    Identity::generate().expect("random bytes")
}

/// Changes an honest message as the input says: pairs of a place and what to change there, then how much to cut.
/// The result differs from the message, or is `None`.
fn changed(honest: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = honest.to_vec();
    let mut pairs = input.chunks_exact(2);
    for pair in pairs.by_ref() {
        match usize::from(pair[0]) {
            place if place < bytes.len() => bytes[place] ^= pair[1],
            _ => bytes.push(pair[1]),
        }
    }
    if let [cut] = pairs.remainder() {
        bytes.truncate(bytes.len().saturating_sub(usize::from(*cut)));
    }
    (bytes != honest).then_some(bytes)
}

/// Every message of a handshake that is not just what the honest end sent is refused.
fn handshake(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let (ours, theirs) = (identity(), identity());
    let start = || Initiator::start(&ours, theirs.public(), PROLOGUE).expect("a usable key");
    let answer = |message: &[u8]| Responder::new(&theirs, PROLOGUE).expect("a usable key").respond(message);
    let seal = || SealInitiator::start(&ours, "daemon-x", theirs.public()).expect("a usable key");
    let mut sessions = SealedSessions::new("daemon-x", 7);
    match which % 6 {
        0 => assert!(answer(input).is_err()),
        1 => {
            let (_, message) = start();
            assert!(changed(&message, input).is_none_or(|bytes| answer(&bytes).is_err()));
        }
        2 => {
            let (initiator, message) = start();
            let (_, reply) = answer(&message).expect("an honest message");
            assert!(changed(&reply, input).is_none_or(|bytes| initiator.finish(&bytes).is_err()));
        }
        3 => {
            let (_, message) = seal();
            let refused = |bytes: Vec<u8>| sessions.accept(&theirs, None, &bytes).is_err();
            assert!(changed(&message, input).is_none_or(refused));
        }
        4 => {
            let (initiator, message) = seal();
            let reply = sessions.accept(&theirs, None, &message).expect("an honest message");
            // The session's number before the message only says which session is meant.
            let (number, message) = reply.split_at(size_of::<u64>());
            let refused =
                |bytes: Vec<u8>| initiator.finish(&[number, &bytes].concat(), Instant::now()).is_err();
            assert!(changed(message, input).is_none_or(refused));
        }
        _ => {
            let (initiator, message) = seal();
            let reply = sessions.accept(&theirs, None, &message).expect("an honest message");
            let mut asker = initiator.finish(&reply, Instant::now()).expect("an honest reply");
            let (nonce, body) = asker.seal(b"request").expect("a short request");
            if let Some(bytes) = changed(&body, input) {
                assert!(sessions.open(asker.number(), &bytes).is_none_or(|opened| opened.is_err()));
            }
            let opened = sessions.open(asker.number(), &body).expect("the session").expect("the request");
            assert_eq!(opened.nonce, nonce, "a forgery spoils nothing");
        }
    }
}

/// Two ends of one connection.
fn sessions() -> (Session, Session) {
    let (ours, theirs) = (identity(), identity());
    let (initiator, message) = Initiator::start(&ours, theirs.public(), PROLOGUE).expect("a usable key");
    let responder = Responder::new(&theirs, PROLOGUE).expect("a usable key");
    let (theirs, reply) = responder.respond(&message).expect("an honest message");
    (initiator.finish(&reply).expect("an honest reply"), theirs)
}

fn header(id: u64) -> Header {
    Header {
        kind: Kind::Request,
        id,
        correlation: 0,
        destination: Destination::Service("daemon-x".parse().expect("a name")),
        method: 1,
        sender: None,
        deadline_ms: 1,
        descriptors: 0,
        seal: Seal::None,
    }
}

/// A stream in which bytes were changed, dropped or put in gives the frames before that and then an error, whatever
/// pieces it comes in: never another frame, and none twice.
fn connection(input: &[u8]) {
    let [frames, piece, at, what, rest @ ..] = input else { return };
    let (ours, theirs) = sessions();
    let (mut ours, mut theirs) = (Connection::new(ours, &[]), Connection::new(theirs, &[]));
    let sent = u64::from(frames % 4) + 1;
    let mut ends = Vec::new();
    let mut stream = Vec::new();
    for id in 1..=sent {
        ours.send(&header(id), rest).expect("a short frame");
        while let Some(bytes) = ours.output() {
            stream.extend_from_slice(bytes);
            let count = bytes.len();
            ours.sent(count);
        }
        ends.push(stream.len());
    }
    let honest = stream.clone();
    let place = usize::from(*at) * stream.len() / 256;
    match what % 4 {
        0 => {}
        1 => stream[place] ^= 1 << (what >> 2 & 7),
        2 => drop(stream.remove(place)),
        _ => stream.insert(place, *what),
    }
    // A byte put in or taken out beside its equal makes a difference only behind it.
    let same = honest.iter().zip(&stream).take_while(|(one, other)| one == other).count();
    let whole = ends.iter().filter(|end| **end <= same).count() as u64;
    let mut received = 0;
    'stream: for bytes in stream.chunks(usize::from(*piece) + 1) {
        theirs.take_bytes(bytes);
        loop {
            match theirs.next_frame() {
                Ok(None) => break,
                Err(_) => break 'stream,
                Ok(Some(frame)) => {
                    received += 1;
                    assert_eq!((frame.header, &*frame.body), (header(received), rest));
                }
            }
        }
    }
    assert_eq!(received, whole);
}
