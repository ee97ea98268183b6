//! The bus as a service: it answers calls of its own and publishes incidents like any other peer.

use std::os::fd::OwnedFd;
use std::time::Instant;

use core_types::DaemonName;
use core_types::header::{Destination, Header, Kind, Refusal, Seal, Sender};
use core_types::name::BUS;
use core_types::protocol::bus::{Announce, BusDenial, BusRequest, Incident, Misdeed, Peer as PeerEntry};
use core_types::protocol::{Topic, decode, encode};

use crate::bus::Bus;
use crate::router::{ConnectionId, Effect, Refused};

impl Bus {
    /// Answers a request to the bus itself.
    pub(crate) fn answer_own(
        &mut self,
        from: ConnectionId,
        id: u64,
        body: &[u8],
        shows: &[OwnedFd],
        now: Instant,
    ) {
        match decode::<BusRequest>(body) {
            Ok(BusRequest::Announce(call)) => {
                let result = self.announce(from, &call, shows);
                if result == Err(BusDenial::NameTaken)
                    && let Effect::Report(incident) = self.router.misdeed(from, Misdeed::NameTakeover, now)
                {
                    self.tell(&incident);
                }
                self.answer(from, Kind::Response, id, &result);
            }
            Ok(BusRequest::Subscribe(call)) => {
                let result = self.router.subscribe(from, &call);
                self.answer(from, Kind::Response, id, &result);
            }
            Ok(BusRequest::Peers(_)) => {
                let mut peers = self.router.registered();
                peers.extend(own_entry());
                self.answer(from, Kind::Response, id, &Ok::<_, BusDenial>(peers));
            }
            Ok(BusRequest::KeyOf(call)) => {
                let key = self.key_of(&call.name);
                self.answer(from, Kind::Response, id, &key);
            }
            Ok(BusRequest::Enroll(call)) => {
                let result = self.enroll(from, &call);
                self.answer(from, Kind::Response, id, &result);
            }
            Ok(BusRequest::Revoke(call)) => {
                let result = self.revoke(from, &call);
                self.answer(from, Kind::Response, id, &result);
            }
            Ok(BusRequest::Enrolled(_)) => {
                let result = self.list_enrolled(from);
                self.answer(from, Kind::Response, id, &result);
            }
            Err(_) => self.refuse_all([Refused { to: from, correlation: id, refusal: Refusal::Forbidden }]),
        }
    }

    /// Sends a response or refusal of the bus itself.
    pub(crate) fn answer<T: serde::Serialize>(
        &mut self,
        to: ConnectionId,
        kind: Kind,
        correlation: u64,
        message: &T,
    ) {
        let header = Header { correlation, ..own_header(kind, Destination::Asker) };
        if let Ok(body) = encode(message) {
            self.send_own(to, &header, &body);
        }
    }

    fn announce(&mut self, from: ConnectionId, call: &Announce, shows: &[OwnedFd]) -> Result<(), BusDenial> {
        let peer = self.peer(from).ok_or(BusDenial::NotRegistered)?;
        let (key, socket) = (peer.key(), peer.socket().try_clone().map_err(|_| BusDenial::NotRegistered)?);
        if !self.may_take(call.name.as_str(), &socket, key, shows) {
            let taken = self.router.server(&call.name).is_some_and(|server| server != from);
            return Err(if taken { BusDenial::NameTaken } else { BusDenial::NotRegistered });
        }
        self.router.announce(from, call)
    }

    /// The key of the connection that serves under a name.
    fn key_of(&mut self, name: &DaemonName) -> Result<[u8; 32], BusDenial> {
        let connection = self.router.server(name).ok_or(BusDenial::NotRegistered)?;
        Ok(self.peer(connection).ok_or(BusDenial::NotRegistered)?.key().0)
    }

    /// Publishes an incident in the bus's own name.
    pub(crate) fn tell(&mut self, incident: &Incident) {
        tracing::warn!(misdeed = ?incident.misdeed, count = incident.count, pid = incident.sender.pid, "a client misbehaved");
        let Ok(body) = encode(incident) else { return };
        let header = Header {
            sender: own_sender(),
            ..own_header(Kind::Event, Destination::Topic(Topic::BusIncident))
        };
        let subscribers = self.router.subscribers(Topic::BusIncident);
        self.publish(&subscribers, &header, &body);
    }
}

pub(crate) fn own_header(kind: Kind, destination: Destination) -> Header {
    Header {
        kind,
        id: 0,
        correlation: 0,
        destination,
        method: 0,
        sender: None,
        deadline_ms: 0,
        descriptors: 0,
        seal: Seal::None,
    }
}

/// The bus in its own list of daemons.
fn own_entry() -> Option<PeerEntry> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Some(PeerEntry { name: DaemonName::parse(BUS).ok()?, version, pid: Some(std::process::id()) })
}

pub(crate) fn own_sender() -> Option<Sender> {
    Some(Sender {
        name: Some(DaemonName::parse(BUS).ok()?),
        connection: 0,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: Some(std::process::id()),
        executable: None,
        unit: None,
    })
}
