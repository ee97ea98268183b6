//! The bus against clients that are honest about nothing, and against many at once.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;

use core_ipc::CallOptions;
use core_ipc::wire::Identity;
use core_types::config::AuditMode;
use core_types::header::{Destination, Header, Kind, Refusal, Seal};
use core_types::limits::{IN_FLIGHT_MAX, UNAUTHENTICATED_MAX};
use core_types::name::{BUS, PROFILE, SECRETS};
use core_types::protocol::bus::{Announce, BusDenial, BusRequest, Peers};
use core_types::protocol::profile::{
    AuditState, AuditStatus, BeginUnlock, EndUnlock, Operation, Outcome, ProfileDenial, ProfileRequest,
    ProfileService, Record, Requester, SecretOperationAudit,
};
use core_types::protocol::secrets::{Get, Lock, SecretsDenial, SecretsRequest, SecretsService};
use core_types::protocol::{Topic, decode, encode};
use core_types::{DaemonName, ProfileName, WireSecret};
use rustix::process::Signal;
use tests::canary::Canary;
use tests::hostile::{Answer, Hostile, request_header};
use tests::system::wait_for;
use tests::{PATIENCE, Spec, System};

const TOPICS: [Topic; 2] = [Topic::ProfileState, Topic::BusIncident];
const VALUE: &[u8] = b"bus-canary-5d1f07b2c9";

fn profile() -> ProfileName {
    ProfileName::parse("default").unwrap()
}

fn get() -> SecretsRequest {
    SecretsRequest::Get(Get { profile: profile(), name: "api-key".to_owned(), version: None })
}

fn patient() -> CallOptions {
    CallOptions { deadline: PATIENCE, descriptors: Vec::new() }
}

/// The incidents in the audit log, by what they are about.
fn incidents(system: &System) -> Vec<serde_json::Value> {
    system.audit(1000).into_iter().filter(|entry| entry["operation"] == "incident").collect()
}

fn wait_for_incident(system: &System, subject: &str) -> serde_json::Value {
    wait_for(&format!("{subject} is in the audit log"), || {
        incidents(system).into_iter().find(|entry| entry["subject"] == subject)
    })
}

#[test]
fn a_bystander_that_listens_to_everything_hears_nothing_of_others() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    let mut bystander = Hostile::connect(&system);
    for topic in TOPICS {
        assert_eq!(bystander.subscribe(topic), Err(BusDenial::TopicForbidden), "{topic:?}");
    }
    // Everything that makes frames: a read, a write, a lock and an unlock (which publish events), a run, an incident.
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
    system.pds(["set", "other"]).stdin(VALUE).run().done();
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
    system.pds(["run", "--", "true"]).run().done();
    let mut forger = Hostile::connect(&system);
    forger.forge_response(1, Seal::None, b"x");
    forger.fence();
    wait_for_incident(&system, "forged-response");
    assert!(bystander.fence().is_empty(), "frames of others reached a bystander");
}

#[test]
fn a_forged_answer_is_ignored_and_audited() {
    let system = System::boot(Spec::ready());
    let mut forger = Hostile::connect(&system);
    let lie: Result<AuditState, ProfileDenial> = Ok(AuditState {
        next_sequence: u64::MAX,
        failing: Some("forged".to_owned()),
        mode: AuditMode::Written,
        modes: Vec::new(),
        missing: 0,
    });
    let lie = encode(&lie).unwrap();

    // A request that cannot be answered yet: its service is stopped, and the bus has taken it.
    let service = system.process(PROFILE).unwrap();
    service.signal(Signal::STOP);
    let mut asker = Hostile::connect(&system);
    let body = encode(&ProfileRequest::AuditStatus(AuditStatus {})).unwrap();
    let question = asker.send(&request_header(PROFILE, 6, Seal::None), &body);
    asker.fence();
    for id in 1..=200 {
        forger.forge_response(id, Seal::None, &lie);
    }
    assert!(forger.fence().is_empty());
    assert!(asker.fence().is_empty(), "a forged answer reached the asker");
    service.signal(Signal::CONT);

    let answer = wait_for("the real answer", || {
        asker.fence().into_iter().find(|frame| frame.header.correlation == question)
    });
    assert_eq!(answer.header.kind, Kind::Response);
    let state: Result<AuditState, ProfileDenial> = decode(&answer.body).unwrap();
    assert_eq!(state.unwrap().failing, None, "the forged answer says otherwise");

    let incident = wait_for_incident(&system, "forged-response");
    assert_eq!(incident["requester"]["pid"], u64::from(std::process::id()));
    drop(forger);
    // What was counted and not told one by one is told with the end of the connection.
    let count = |entry: &serde_json::Value| -> u64 {
        let words = entry["reason"].as_str().unwrap();
        words.split_once('(').unwrap().1.split(' ').next().unwrap().parse().unwrap()
    };
    wait_for("all 200 forged answers are accounted for", || {
        let told = incidents(&system);
        (told.iter().filter(|entry| entry["subject"] == "forged-response").map(count).sum::<u64>() == 200)
            .then_some(())
    });
}

#[test]
fn a_name_that_a_live_daemon_holds_cannot_be_taken() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    let announce =
        BusRequest::Announce(Announce { name: DaemonName::parse(SECRETS).unwrap(), version: "1".to_owned() });
    let mut stranger = Hostile::connect(&system);
    assert_eq!(stranger.ask_bus::<()>(&announce), Err(BusDenial::NameTaken));

    // The same user can publish another key under the name; it is still the live daemon's.
    let published = system.paths().public_key(SECRETS);
    let before = std::fs::read(&published).unwrap();
    let identity = Identity::generate().unwrap();
    let mut file =
        std::fs::OpenOptions::new().write(true).truncate(true).mode(0o600).open(&published).unwrap();
    file.write_all(identity.public().to_hex().as_bytes()).unwrap();
    let mut thief = Hostile::connect_as(&system, &identity);
    assert_eq!(thief.ask_bus::<()>(&announce), Err(BusDenial::NameTaken));
    wait_for_incident(&system, "name-takeover");
    std::fs::write(&published, before).unwrap();
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
    assert!(thief.fence().is_empty());
}

#[test]
fn an_event_is_taken_only_from_the_daemon_whose_topic_it_is() {
    let system = System::boot(Spec::ready());
    let mut liar = Hostile::connect(&system);
    for topic in TOPICS {
        let header = Header {
            kind: Kind::Event,
            destination: Destination::Topic(topic),
            deadline_ms: 0,
            ..request_header(BUS, 0, Seal::None)
        };
        liar.send(&header, b"not so");
    }
    assert!(liar.fence().is_empty());
    wait_for_incident(&system, "forbidden-publish");
}

#[test]
fn a_sender_is_what_the_bus_says_and_not_what_it_says_itself() {
    let system = System::boot(Spec::ready());
    let claim = core_types::header::Sender {
        name: Some(DaemonName::parse(SECRETS).unwrap()),
        connection: 1,
        uid: 0,
        gid: 0,
        pid: Some(1),
        executable: None,
        unit: None,
    };
    let entry = SecretOperationAudit::new(0, Operation::Get, Requester::from(&claim), Outcome::Done)
        .about(None, Some("invented".to_owned()));
    let requests = [
        ProfileRequest::Record(Record { origin: 1, first: 0, entries: vec![entry], missing: 0 }),
        ProfileRequest::BeginUnlock(BeginUnlock { profile: profile() }),
        ProfileRequest::EndUnlock(EndUnlock { profile: profile(), right: true }),
    ];
    let mut liar = Hostile::connect(&system);
    for request in requests {
        let header = Header { sender: Some(claim.clone()), ..request_header(PROFILE, 1, Seal::None) };
        let Answer::Response(frame) = liar.ask(&header, &encode(&request).unwrap()) else {
            panic!("no response")
        };
        let denial: Result<(), ProfileDenial> = decode(&frame.body).unwrap();
        assert_eq!(denial, Err(ProfileDenial::Identity { requester: "cli".to_owned() }));
    }
    assert!(system.audit(1000).iter().all(|entry| entry["subject"] != "invented"));
}

#[test]
fn what_carries_secrets_is_refused_unsealed() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    let canary = Canary::new(VALUE);
    let mut naive = Hostile::connect(&system);
    let lock = SecretsRequest::Lock(Lock { profile: None });
    for request in [get(), lock] {
        match naive.ask_in_clear::<SecretsService>(&request) {
            Answer::Refused(refusal) => assert_eq!(refusal, Refusal::Forbidden),
            Answer::Response(frame) => {
                assert_eq!(canary.found_in(&frame.body), None, "a value left in clear");
                let answer: Result<Result<WireSecret, SecretsDenial>, _> = decode(&frame.body);
                assert!(answer.is_err(), "an unsealed request was answered");
            }
        }
        // A session that was never opened is no seal either.
        let body = encode(&request).unwrap();
        match naive.ask(&request_header(SECRETS, 6, Seal::Session(1)), &body) {
            Answer::Refused(_) => {}
            Answer::Response(frame) => {
                assert!(decode::<Result<WireSecret, SecretsDenial>>(&frame.body).is_err())
            }
        }
    }
    let passed = |entry: &serde_json::Value| entry["operation"] == "get" || entry["operation"] == "lock";
    assert!(!system.audit(1000).iter().any(passed), "an unsealed request got as far as the gates");
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn a_request_to_nobody_is_answered_at_once() {
    let system = System::boot(Spec::new());
    let mut client = Hostile::connect(&system);
    let Answer::Refused(refusal) = client.ask(&request_header("daemon-nobody", 1, Seal::None), b"") else {
        panic!("nobody answered")
    };
    assert_eq!(refusal, Refusal::ServiceUnknown);
}

#[test]
fn strangers_that_never_speak_keep_nobody_out() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    let path = system.paths().bus_socket();
    let mut silent: Vec<UnixStream> = Vec::new();
    for _ in 0..2 * UNAUTHENTICATED_MAX {
        let mut stream = UnixStream::connect(&path).unwrap();
        // Part of a handshake, and no more.
        stream.write_all(&[0; 40]).unwrap();
        silent.push(stream);
    }
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
    // Most are cut off long before the handshake's time is up, the oldest first.
    let mut first = silent.remove(0);
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(first.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn garbage_ends_the_connection_it_comes_on_and_no_other() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    let mut good = Hostile::connect(&system);
    for junk in [vec![0xff; 96], vec![0; 96], vec![0xff; 1 << 16], b"GET / HTTP/1.0\r\n\r\n".repeat(20)] {
        let mut stream = UnixStream::connect(system.paths().bus_socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _may_be_cut_off = stream.write_all(&junk);
        let mut answer = Vec::new();
        let _reset_or_end = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "the bus answered garbage with {} bytes", answer.len());
    }
    assert!(good.fence().is_empty());
    system.pds(["get", "api-key"]).run().done().prints(VALUE);
}

#[test]
fn one_client_cannot_use_up_a_service() {
    let system = System::boot(Spec::ready().secret("api-key", VALUE));
    let service = system.process(PROFILE).unwrap();
    service.signal(Signal::STOP);
    let mut flooder = Hostile::connect(&system);
    let body = encode(&ProfileRequest::AuditStatus(AuditStatus {})).unwrap();
    for _ in 0..IN_FLIGHT_MAX + 36 {
        flooder.send(&request_header(PROFILE, 6, Seal::None), &body);
    }
    let answers = flooder.fence();
    let busy = answers.iter().filter(|frame| decode::<Refusal>(&frame.body) == Ok(Refusal::Busy)).count();
    assert_eq!((answers.len(), busy), (36, 36));
    service.signal(Signal::CONT);
    system.pds(["status"]).run().done();
    wait_for("all that was taken is answered", || {
        let body = encode(&ProfileRequest::AuditStatus(AuditStatus {})).unwrap();
        matches!(flooder.ask(&request_header(PROFILE, 6, Seal::None), &body), Answer::Response(_))
            .then_some(())
    });
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    let mut spec = Spec::ready();
    for number in 0..8 {
        spec = spec.secret(&format!("key-{number}"), format!("value-{number}"));
    }
    let system = System::boot(spec);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let system = &system;
            scope.spawn(move || {
                let mut client = system.client();
                for _ in 0..50 {
                    let name = format!("key-{number}");
                    let value =
                        client.call(&Get { profile: profile(), name, version: None }, patient()).unwrap();
                    assert_eq!(value.expose(), format!("value-{number}").as_bytes());
                }
            });
        }
    });
    let peers = system.client().call(&Peers {}, patient()).unwrap();
    assert_eq!(peers.iter().filter(|peer| peer.name.as_str() != BUS).count(), 3);
}

#[test]
fn typed_calls_know_their_services() {
    // What a hostile client of these tests sends in clear is what an honest one would seal.
    const { assert!(<SecretsService as core_types::protocol::Service>::SEALED) };
    const { assert!(!<ProfileService as core_types::protocol::Service>::SEALED) };
}
