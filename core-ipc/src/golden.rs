//! The golden bytes of docs/protocol.md, played: whoever writes a client in another language can trust them.

use core_types::ProfileName;
use core_types::header::{Destination, Header, Kind, Seal};
use core_types::protocol::encode;
use core_types::protocol::secrets::{Get, SecretsRequest};

use crate::seal::seal_body;
use crate::wire::noise::tests::known_ends;
use crate::wire::{Connection, frame};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The line of this name on the page.
fn golden(name: &str) -> Vec<u8> {
    let line = PAGE.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    hex::decode(line.unwrap_or_else(|| panic!("{name} is not on the page"))).unwrap()
}

fn check(name: &str, bytes: &[u8]) {
    assert_eq!(hex::encode(golden(name)), hex::encode(bytes), "{name}");
}

fn private(name: &str) -> [u8; 32] {
    golden(name).try_into().unwrap()
}

/// The private keys of the page: of the initiator, then of the responder; static, then ephemeral.
fn keys() -> [[u8; 32]; 4] {
    ["initiator-static", "initiator-ephemeral", "responder-static", "responder-ephemeral"].map(private)
}

fn header() -> Header {
    Header {
        kind: Kind::Request,
        id: 1,
        correlation: 0,
        destination: Destination::Service("daemon-secrets".parse().unwrap()),
        method: 6,
        sender: None,
        deadline_ms: 10_000,
        descriptors: 0,
        seal: Seal::Session(7),
    }
}

#[test]
fn a_connection_has_the_bytes_of_the_page() {
    let (initiator, message_1, responder) = known_ends(&keys(), b"pds bus v1");
    check("message-1", &message_1);
    let (_, message_2) = responder.respond(&golden("message-1")).unwrap();
    check("message-2", &message_2);
    check("frame", &frame::encode(&header(), b"body").unwrap());
    let mut connection = Connection::new(initiator.finish(&golden("message-2")).unwrap(), &[]);
    connection.send(&header(), b"body").unwrap();
    check("record", connection.output().unwrap());
}

#[test]
fn a_sealed_body_has_the_bytes_of_the_page() {
    let (initiator, message_1, responder) = known_ends(&keys(), b"pds sealed v1 daemon-secrets");
    check("sealed-message-1", &message_1);
    let (theirs, _, message_2) = responder.respond_stateless(&golden("sealed-message-1")).unwrap();
    check("sealed-message-2", &message_2);
    let profile = ProfileName::parse("default").unwrap();
    let get = SecretsRequest::Get(Get { profile, name: "api-key".to_owned(), version: None });
    let get = encode(&get).unwrap();
    check("get", &get);
    let ours = initiator.finish_stateless(&golden("sealed-message-2")).unwrap();
    let (nonce, body) = seal_body(&ours, &mut 3, &[], &get).unwrap();
    assert_eq!(nonce, 3);
    check("sealed-request", &body);
    let (_, body) = seal_body(&theirs, &mut 0, &3u64.to_be_bytes(), &[0, 1, b'v']).unwrap();
    check("sealed-response", &body);
}
