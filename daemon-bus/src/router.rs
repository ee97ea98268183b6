//! Who is on the bus, who asked whom, and where a frame goes: plain data, without sockets and without a clock.
//!
//! Each method takes what happened and returns what is to be done about it; `bus` does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use core_types::DaemonName;
use core_types::header::{Destination, Header, Kind, Refusal, Sender};
use core_types::limits::{DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, IN_FLIGHT_MAX};
use core_types::name::BUS;
use core_types::protocol::Topic;
use core_types::protocol::bus::{Announce, BusDenial, Incident, Misdeed, Peer, Subscribe};

use crate::accounts::{Accounts, Delivered};
use crate::turns::Account;

/// Most requests that one service may have unanswered, over all its askers.
const SERVICE_QUEUE_MAX: usize = 512;
/// Registered daemons serve many askers with calls of their own.
const IN_FLIGHT_REGISTERED_MAX: usize = 4 * IN_FLIGHT_MAX;
/// The same misdeed of one connection is told at most this often; between, it is counted.
const INCIDENT_INTERVAL: Duration = Duration::from_secs(1);
const VERSION_BYTES_MAX: usize = 64;

/// Number of a connection, never used twice.
pub(crate) type ConnectionId = u64;

/// What is to be done with a frame that came in.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Forward it with this header; if the connection takes nothing more, call [`Router::undelivered`].
    Deliver { to: ConnectionId, header: Header },
    /// Keep it, with this header, until [`Router::release`] is to be called for it.
    Hold(Header),
    /// Forward it to all of these, each with this header.
    Publish { to: Vec<ConnectionId>, header: Header },
    /// The bus itself is asked.
    Own,
    /// Tell the asker that its request reached no answer.
    Refuse(Refused),
    /// Drop it; nobody waits for it.
    Drop,
    /// Drop it and tell the audit log.
    Report(Incident),
    /// Drop it; it is a misdeed that was told lately, and has been counted.
    Count,
}

/// A refusal on its way to an asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) to: ConnectionId,
    pub(crate) correlation: u64,
    pub(crate) refusal: Refusal,
}

/// What is to be done with a request that was held.
#[derive(Debug, PartialEq)]
pub(crate) enum Released {
    /// Forward it, with so many milliseconds left.
    Deliver { to: ConnectionId, deadline_ms: u32 },
    /// Drop it and tell the asker.
    Refuse(Refused),
    /// Drop it: the asker has been told that its time is up.
    Drop,
}

/// A connection that is not a registered daemon's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stranger {
    pub(crate) id: ConnectionId,
    /// The process that opened it.
    pub(crate) account: Account,
    /// Whether a request of it is under way.
    pub(crate) asks: bool,
}

struct PeerState {
    sender: Sender,
    account: Account,
    /// Requests of this peer that are not answered.
    in_flight: usize,
    /// Those of them that have been delivered; the others are held.
    delivered: usize,
    topics: BTreeSet<Topic>,
    untold: BTreeMap<Misdeed, u32>,
    told: Option<Instant>,
    /// Whether it has its name because the user enrolled its key.
    enrolled: bool,
}

impl PeerState {
    /// Whether it has no more of the bus than any client: no daemon of ours is behind it.
    fn is_stranger(&self) -> bool {
        self.sender.name.is_none() || self.enrolled
    }
}

struct Registration {
    connection: ConnectionId,
    version: String,
    waiting: usize,
}

struct Pending {
    asker: ConnectionId,
    asker_id: u64,
    service: DaemonName,
    /// The connection it was delivered to; `None` while it is held.
    answerer: Option<ConnectionId>,
    /// What it takes of its process's share, if a stranger's was delivered.
    delivered: Option<Delivered>,
    deadline: Instant,
}

/// The state of the bus.
#[derive(Default)]
pub(crate) struct Router {
    peers: BTreeMap<ConnectionId, PeerState>,
    services: BTreeMap<DaemonName, Registration>,
    pending: BTreeMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
    pub(crate) accounts: Accounts,
    last_id: u64,
}

impl Router {
    /// A connection of a process has ended its handshake.
    ///
    /// One that has a name already is an enrolled daemon's: it may be asked for by that name, and is a stranger in all
    /// that concerns its share of the bus.
    pub(crate) fn join(&mut self, sender: Sender, account: Account, now: Instant) {
        self.accounts.join(account, now);
        let state = PeerState {
            account,
            in_flight: 0,
            delivered: 0,
            topics: BTreeSet::new(),
            untold: BTreeMap::new(),
            told: None,
            enrolled: sender.name.is_some(),
            sender,
        };
        self.peers.insert(state.sender.connection, state);
    }

    /// A connection has ended: its requests are forgotten, those put to it are refused, its last misdeeds are told.
    pub(crate) fn leave(&mut self, connection: ConnectionId) -> (Vec<Refused>, Vec<Incident>) {
        let Some(peer) = self.peers.remove(&connection) else { return (Vec::new(), Vec::new()) };
        if peer.is_stranger() {
            self.accounts.leave(peer.account);
        }
        self.services.retain(|_, registration| registration.connection != connection);
        let ended: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.asker == connection || pending.answerer == Some(connection))
            .map(|(id, _)| *id)
            .collect();
        let refused = ended
            .into_iter()
            .filter_map(|id| self.settle(id))
            .filter(|pending| pending.asker != connection)
            .map(|pending| pending.refused(Refusal::ServiceGone))
            .collect();
        let incidents = peer
            .untold
            .into_iter()
            .map(|(misdeed, count)| Incident { misdeed, sender: peer.sender.clone(), count })
            .collect();
        (refused, incidents)
    }

    /// A frame came from `from`.
    pub(crate) fn route(&mut self, from: ConnectionId, header: Header, now: Instant) -> Effect {
        match (header.kind, header.destination.clone()) {
            (Kind::Request, Destination::Service(name)) if name.as_str() == BUS => Effect::Own,
            (Kind::Request, Destination::Service(name)) => self.request(from, header, name, now),
            (Kind::Response, Destination::Asker) => self.response(from, header, now),
            (Kind::Event, Destination::Topic(topic)) => self.event(from, header, topic, now),
            (Kind::Request, _) => {
                Effect::Refuse(Refused { to: from, correlation: header.id, refusal: Refusal::Forbidden })
            }
            _ => self.misdeed(from, Misdeed::ForgedResponse, now),
        }
    }

    fn request(
        &mut self,
        from: ConnectionId,
        mut header: Header,
        service: DaemonName,
        now: Instant,
    ) -> Effect {
        let refuse = |refusal| Effect::Refuse(Refused { to: from, correlation: header.id, refusal });
        let Some(peer) = self.peers.get_mut(&from) else { return Effect::Drop };
        let Some(registration) = self.services.get_mut(&service) else {
            return refuse(Refusal::ServiceUnknown);
        };
        let (registered, account) = (!peer.is_stranger(), peer.account);
        let allowance = if registered { IN_FLIGHT_REGISTERED_MAX } else { IN_FLIGHT_MAX };
        if peer.in_flight >= allowance {
            if !registered {
                self.accounts.press(account, now);
            }
            return refuse(Refusal::Busy);
        }
        if registration.waiting >= SERVICE_QUEUE_MAX {
            return refuse(Refusal::Busy);
        }
        // What one stranger asks reaches the services one after the other, and what one process asks a few at a time,
        // so that many that ask much fill no service's queue, and everyone's next request is as near as any other's.
        let hold = !registered && (peer.delivered > 0 || !self.accounts.has_room(account, now));
        peer.in_flight += 1;
        let (mut answerer, mut delivered) = (None, None);
        if !hold {
            peer.delivered += 1;
            registration.waiting += 1;
            answerer = Some(registration.connection);
            delivered = (!registered).then(|| self.accounts.deliver(account, now));
        } else if peer.delivered == 0 && peer.in_flight == 1 {
            self.accounts.ready(account, from);
        }
        let wanted = if header.deadline_ms == 0 {
            DEADLINE_MS_DEFAULT
        } else {
            header.deadline_ms.min(DEADLINE_MS_MAX)
        };
        let deadline = now + Duration::from_millis(wanted.into());
        self.last_id += 1;
        let id = self.last_id;
        self.deadlines.insert((deadline, id));
        let pending = Pending { asker: from, asker_id: header.id, service, answerer, delivered, deadline };
        self.pending.insert(id, pending);
        header.id = id;
        header.correlation = 0;
        header.deadline_ms = wanted;
        header.sender = Some(peer.sender.clone());
        match answerer {
            Some(to) => Effect::Deliver { to, header },
            None => Effect::Hold(header),
        }
    }

    /// An asker whose held requests may go on: call [`Self::release`] for them, the oldest first, until one of them
    /// is to be delivered.
    pub(crate) fn next_freed(&mut self, now: Instant) -> Option<ConnectionId> {
        while let Some(connection) = self.accounts.next_ready(now) {
            if self.peers.get(&connection).is_some_and(|peer| peer.delivered == 0 && peer.in_flight > 0) {
                return Some(connection);
            }
        }
        None
    }

    /// Lets go of a held request.
    pub(crate) fn release(&mut self, id: u64, now: Instant) -> Released {
        let Some(pending) = self.pending.get_mut(&id) else { return Released::Drop };
        let Some(registration) =
            self.services.get_mut(&pending.service).filter(|service| service.waiting < SERVICE_QUEUE_MAX)
        else {
            let refusal = if self.services.contains_key(&pending.service) {
                Refusal::Busy
            } else {
                Refusal::ServiceUnknown
            };
            let refused = pending.refused(refusal);
            self.settle(id);
            return Released::Refuse(refused);
        };
        registration.waiting += 1;
        pending.answerer = Some(registration.connection);
        if let Some(peer) = self.peers.get_mut(&pending.asker) {
            peer.delivered += 1;
            pending.delivered = Some(self.accounts.deliver(peer.account, now));
        }
        let left = pending.deadline.saturating_duration_since(now).as_millis();
        let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        Released::Deliver { to: registration.connection, deadline_ms }
    }

    fn response(&mut self, from: ConnectionId, mut header: Header, now: Instant) -> Effect {
        match self.pending.get(&header.correlation) {
            Some(pending) if pending.answerer == Some(from) => {}
            // Who serves may be late with an answer; who serves nothing has been asked nothing.
            None if header.correlation <= self.last_id && self.serves(from) => return Effect::Drop,
            _ => return self.misdeed(from, Misdeed::ForgedResponse, now),
        }
        let Some(pending) = self.settle(header.correlation) else { return Effect::Drop };
        header.id = 0;
        header.correlation = pending.asker_id;
        // It comes from whom was asked.
        header.sender = None;
        Effect::Deliver { to: pending.asker, header }
    }

    fn event(&mut self, from: ConnectionId, mut header: Header, topic: Topic, now: Instant) -> Effect {
        let Some(peer) = self.peers.get(&from) else { return Effect::Drop };
        if peer.sender.name.as_ref().map(DaemonName::as_str) != Some(topic.publisher()) {
            return self.misdeed(from, Misdeed::ForbiddenPublish, now);
        }
        header.sender = Some(peer.sender.clone());
        Effect::Publish { to: self.subscribers(topic), header }
    }

    /// The connection that serves under a name.
    pub(crate) fn server(&self, name: &DaemonName) -> Option<ConnectionId> {
        self.services.get(name).map(|registration| registration.connection)
    }

    fn serves(&self, connection: ConnectionId) -> bool {
        self.services.values().any(|registration| registration.connection == connection)
    }

    /// The connections that subscribed to a topic.
    pub(crate) fn subscribers(&self, topic: Topic) -> Vec<ConnectionId> {
        self.peers.iter().filter(|(_, peer)| peer.topics.contains(&topic)).map(|(id, _)| *id).collect()
    }

    /// Ends a pending request, however it ended.
    fn settle(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        if let Some(delivered) = pending.delivered {
            self.accounts.settle(delivered);
        }
        if let Some(asker) = self.peers.get_mut(&pending.asker) {
            asker.in_flight -= 1;
            if pending.answerer.is_some() {
                asker.delivered -= 1;
                if asker.delivered == 0 && asker.in_flight > 0 {
                    self.accounts.ready(asker.account, pending.asker);
                }
            }
        }
        if let Some(registration) = self.services.get_mut(&pending.service)
            && Some(registration.connection) == pending.answerer
        {
            registration.waiting -= 1;
        }
        Some(pending)
    }

    /// The service's connection took the request no more.
    pub(crate) fn undelivered(&mut self, id: u64) -> Option<Refused> {
        self.settle(id).map(|pending| pending.refused(Refusal::Busy))
    }

    /// Whether the request still waits for its answer.
    pub(crate) fn is_pending(&self, id: u64) -> bool {
        self.pending.contains_key(&id)
    }

    /// When [`Self::expire`] is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Refuses what nobody answered in time.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Refused> {
        let due: Vec<u64> =
            self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id).collect();
        due.into_iter()
            .filter_map(|id| self.settle(id))
            .map(|pending| pending.refused(Refusal::Timeout))
            .collect()
    }

    /// Registers the connection under the name; the caller has checked that it owns the key published for it.
    pub(crate) fn announce(&mut self, from: ConnectionId, call: &Announce) -> Result<(), BusDenial> {
        if call.version.len() > VERSION_BYTES_MAX || call.version.chars().any(char::is_control) {
            return Err(BusDenial::Invalid);
        }
        let peer = self.peers.get_mut(&from).ok_or(BusDenial::NotRegistered)?;
        if call.name.as_str() == BUS || peer.sender.name.as_ref().is_some_and(|name| *name != call.name) {
            return Err(BusDenial::Invalid);
        }
        match self.services.get(&call.name) {
            Some(held) if held.connection != from => Err(BusDenial::NameTaken),
            Some(_) => Ok(()),
            None => {
                if peer.sender.name.is_none() {
                    peer.sender.name = Some(call.name.clone());
                    self.accounts.leave(peer.account);
                }
                let registration =
                    Registration { connection: from, version: call.version.clone(), waiting: 0 };
                self.services.insert(call.name.clone(), registration);
                Ok(())
            }
        }
    }

    /// Subscribes the connection, if the topic is for it.
    pub(crate) fn subscribe(&mut self, from: ConnectionId, call: &Subscribe) -> Result<(), BusDenial> {
        let peer = self.peers.get_mut(&from).ok_or(BusDenial::NotRegistered)?;
        if !call.topic.admits_subscriber(peer.sender.name.as_ref().map(DaemonName::as_str)) {
            return Err(BusDenial::TopicForbidden);
        }
        peer.topics.insert(call.topic);
        Ok(())
    }

    /// Who is registered, in order of names.
    pub(crate) fn registered(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self
            .services
            .iter()
            .map(|(name, registration)| Peer {
                name: name.clone(),
                version: registration.version.clone(),
                pid: self.peers.get(&registration.connection).and_then(|peer| peer.sender.pid),
            })
            .collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// Counts a misdeed, and says what is to be told now.
    pub(crate) fn misdeed(&mut self, from: ConnectionId, misdeed: Misdeed, now: Instant) -> Effect {
        let Some(peer) = self.peers.get_mut(&from) else { return Effect::Drop };
        let count = peer.untold.entry(misdeed).or_insert(0);
        *count = count.saturating_add(1);
        if peer.told.is_some_and(|told| now < told + INCIDENT_INTERVAL) {
            return Effect::Count;
        }
        peer.told = Some(now);
        let count = peer.untold.remove(&misdeed).unwrap_or(1);
        Effect::Report(Incident { misdeed, sender: peer.sender.clone(), count })
    }

    /// The connections that are not registered daemons'.
    pub(crate) fn strangers(&self) -> impl Iterator<Item = Stranger> {
        let strangers = self.peers.iter().filter(|(_, peer)| peer.is_stranger());
        strangers.map(|(id, peer)| Stranger { id: *id, account: peer.account, asks: peer.in_flight > 0 })
    }

    /// The connection, if it is not a registered daemon's.
    pub(crate) fn stranger(&self, connection: ConnectionId) -> Option<Stranger> {
        let peer = self.peers.get(&connection).filter(|peer| peer.is_stranger())?;
        Some(Stranger { id: connection, account: peer.account, asks: peer.in_flight > 0 })
    }

    /// Who is behind the connection.
    pub(crate) fn sender(&self, connection: ConnectionId) -> Option<&Sender> {
        self.peers.get(&connection).map(|peer| &peer.sender)
    }

    /// Whether the connection is a registered daemon's.
    pub(crate) fn is_registered(&self, connection: ConnectionId) -> bool {
        self.peers.get(&connection).is_some_and(|peer| !peer.is_stranger())
    }
}

impl Pending {
    fn refused(&self, refusal: Refusal) -> Refused {
        Refused { to: self.asker, correlation: self.asker_id, refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::header::Seal;

    const SERVICE: ConnectionId = 1;
    const ASKER: ConnectionId = 2;
    const STRANGER: ConnectionId = 3;

    fn name(text: &str) -> DaemonName {
        DaemonName::parse(text).unwrap()
    }

    fn router() -> Router {
        let mut router = Router::default();
        for connection in [SERVICE, ASKER, STRANGER] {
            let sender =
                Sender { name: None, connection, uid: 0, gid: 0, pid: None, executable: None, unit: None };
            router.join(sender, i32::try_from(connection).unwrap(), Instant::now());
        }
        let announce = Announce { name: name("daemon-secrets"), version: "1".into() };
        router.announce(SERVICE, &announce).unwrap();
        router
    }

    fn header(kind: Kind, id: u64, correlation: u64, destination: Destination) -> Header {
        Header {
            kind,
            id,
            correlation,
            destination,
            method: 1,
            sender: None,
            deadline_ms: 1000,
            descriptors: 0,
            seal: Seal::None,
        }
    }

    fn request(id: u64) -> Header {
        header(Kind::Request, id, 0, Destination::Service(name("daemon-secrets")))
    }

    fn ask(router: &mut Router, id: u64, now: Instant) -> u64 {
        match router.route(ASKER, request(id), now) {
            Effect::Deliver { to: SERVICE, header } | Effect::Hold(header) => header.id,
            other => panic!("{other:?}"),
        }
    }

    fn response(to: u64) -> Header {
        header(Kind::Response, 9, to, Destination::Asker)
    }

    fn sender_of(daemon: &str) -> Sender {
        let name = Some(name(daemon));
        Sender { name, connection: 9, uid: 1, gid: 1, pid: None, executable: None, unit: None }
    }

    #[test]
    fn a_request_goes_to_its_service_and_the_answer_back_to_the_asker() {
        let (mut router, now) = (router(), Instant::now());
        let mut claimed = request(77);
        claimed.sender = Some(sender_of("daemon-launcher"));
        let Effect::Deliver { to: SERVICE, header } = router.route(ASKER, claimed, now) else { panic!() };
        let sender = header.sender.unwrap();
        assert_eq!((sender.name, sender.connection), (None, ASKER), "a client's own claim is overwritten");
        let mut answer = response(header.id);
        answer.sender = Some(sender_of("daemon-launcher"));
        match router.route(SERVICE, answer, now) {
            Effect::Deliver { to: ASKER, header } => {
                assert_eq!((header.correlation, header.sender), (77, None))
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(router.route(SERVICE, response(header.id), now), Effect::Drop, "an answer is taken once");
    }

    #[test]
    fn an_answer_from_anyone_but_the_one_asked_is_reported_and_changes_nothing() {
        let (mut router, now) = (router(), Instant::now());
        let id = ask(&mut router, 5, now);
        for forger in [STRANGER, ASKER] {
            let Effect::Report(incident) = router.route(forger, response(id), now) else { panic!() };
            assert_eq!((incident.misdeed, incident.sender.connection), (Misdeed::ForgedResponse, forger));
        }
        assert!(matches!(router.route(STRANGER, response(999), now), Effect::Count));
        assert!(matches!(router.route(SERVICE, response(id), now), Effect::Deliver { to: ASKER, .. }));
    }

    #[test]
    fn misdeeds_between_two_reports_are_counted_and_told_at_the_latest_when_the_connection_ends() {
        let (mut router, now) = (router(), Instant::now());
        assert!(matches!(
            router.route(STRANGER, response(1), now),
            Effect::Report(Incident { count: 1, .. })
        ));
        for _ in 0..5 {
            assert_eq!(router.route(STRANGER, response(1), now), Effect::Count);
        }
        let later = now + INCIDENT_INTERVAL;
        assert!(matches!(
            router.route(STRANGER, response(1), later),
            Effect::Report(Incident { count: 6, .. })
        ));
        assert_eq!(router.route(STRANGER, response(1), later), Effect::Count);
        let (_, incidents) = router.leave(STRANGER);
        assert_eq!(incidents.iter().map(|incident| incident.count).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_request_past_its_deadline_is_refused_and_its_late_answer_dropped() {
        let (mut router, now) = (router(), Instant::now());
        let id = ask(&mut router, 5, now);
        let deadline = router.next_deadline().unwrap();
        assert!(router.expire(deadline - Duration::from_millis(1)).is_empty());
        assert_eq!(
            router.expire(deadline),
            [Refused { to: ASKER, correlation: 5, refusal: Refusal::Timeout }]
        );
        assert_eq!(router.route(SERVICE, response(id), deadline), Effect::Drop);
        assert_eq!(router.next_deadline(), None);
    }

    #[test]
    fn when_the_service_goes_its_askers_are_told_and_when_the_asker_goes_nobody_is() {
        let (mut router, now) = (router(), Instant::now());
        ask(&mut router, 5, now);
        let (refused, _) = router.leave(SERVICE);
        assert_eq!(refused, [Refused { to: ASKER, correlation: 5, refusal: Refusal::ServiceGone }]);
        assert!(matches!(
            router.route(ASKER, request(6), now),
            Effect::Refuse(Refused { refusal: Refusal::ServiceUnknown, .. })
        ));
        let mut router = self::router();
        let id = ask(&mut router, 5, now);
        assert!(router.leave(ASKER).0.is_empty());
        assert_eq!(router.route(SERVICE, response(id), now), Effect::Drop);
    }

    #[test]
    fn requests_in_flight_are_bounded_per_asker_and_room_comes_back() {
        let (mut router, now) = (router(), Instant::now());
        let ids: Vec<u64> = (1..=IN_FLIGHT_MAX as u64).map(|id| ask(&mut router, id, now)).collect();
        assert!(matches!(
            router.route(ASKER, request(99), now),
            Effect::Refuse(Refused { refusal: Refusal::Busy, .. })
        ));
        assert!(
            matches!(router.route(STRANGER, request(1), now), Effect::Deliver { .. }),
            "others are not affected"
        );
        router.undelivered(ids[0]).unwrap();
        ask(&mut router, 100, now);
    }

    #[test]
    fn a_strangers_requests_are_delivered_one_after_the_other() {
        let (mut router, now) = (router(), Instant::now());
        let Effect::Deliver { header: first, .. } = router.route(ASKER, request(1), now) else { panic!() };
        let Effect::Hold(second) = router.route(ASKER, request(2), now) else { panic!("not held") };
        let Effect::Hold(third) = router.route(ASKER, request(3), now) else { panic!("not held") };
        assert!(matches!(router.route(STRANGER, request(1), now), Effect::Deliver { .. }), "others go on");
        assert_eq!(router.next_freed(now), None);
        assert!(
            matches!(router.route(SERVICE, response(second.id), now), Effect::Report(_)),
            "not asked yet"
        );
        router.route(SERVICE, response(first.id), now);
        assert_eq!((router.next_freed(now), router.next_freed(now)), (Some(ASKER), None));
        let later = now + Duration::from_millis(400);
        assert_eq!(router.release(second.id, later), Released::Deliver { to: SERVICE, deadline_ms: 600 });
        let mut gone = router.leave(SERVICE).0;
        gone.sort_by_key(|refused| refused.to);
        assert_eq!(
            gone.iter().map(|refused| (refused.to, refused.correlation, refused.refusal)).collect::<Vec<_>>(),
            [(ASKER, 2, Refusal::ServiceGone), (STRANGER, 1, Refusal::ServiceGone)]
        );
        assert_eq!(router.next_freed(now), Some(ASKER));
        let unknown = Refused { to: ASKER, correlation: 3, refusal: Refusal::ServiceUnknown };
        assert_eq!(router.release(third.id, later), Released::Refuse(unknown));
        assert_eq!(router.release(third.id, later), Released::Drop);
    }

    #[test]
    fn a_held_request_keeps_its_deadline() {
        let (mut router, now) = (router(), Instant::now());
        ask(&mut router, 1, now);
        let held = ask(&mut router, 2, now);
        let refused = router.expire(now + Duration::from_secs(1));
        assert_eq!(refused.len(), 2);
        assert!(!router.is_pending(held));
        assert_eq!(router.release(held, now), Released::Drop);
    }

    #[test]
    fn a_daemon_asks_as_much_at_once_as_it_likes() {
        let (mut router, now) = (router(), Instant::now());
        router.announce(ASKER, &Announce { name: name("daemon-launcher"), version: "1".into() }).unwrap();
        for id in 1..=IN_FLIGHT_REGISTERED_MAX as u64 {
            assert!(matches!(router.route(ASKER, request(id), now), Effect::Deliver { .. }));
        }
        assert!(matches!(router.route(ASKER, request(999), now), Effect::Refuse(_)));
    }

    #[test]
    fn a_live_name_is_not_taken_over() {
        let mut router = router();
        let announce = Announce { name: name("daemon-secrets"), version: "2".into() };
        assert_eq!(router.announce(STRANGER, &announce), Err(BusDenial::NameTaken));
        assert_eq!(router.announce(SERVICE, &announce), Ok(()), "announcing twice changes nothing");
        assert_eq!(router.registered()[0].version, "1");
        router.leave(SERVICE);
        assert_eq!(router.announce(STRANGER, &announce), Ok(()));
        let bus = Announce { name: name(BUS), version: "1".into() };
        assert_eq!(router.announce(ASKER, &bus), Err(BusDenial::Invalid));
    }

    #[test]
    fn topics_admit_whom_they_are_for_and_are_published_by_their_owner_only() {
        let (mut router, now) = (router(), Instant::now());
        let subscribe = Subscribe { topic: Topic::ProfileState };
        assert_eq!(router.subscribe(STRANGER, &subscribe), Err(BusDenial::TopicForbidden));
        router.announce(ASKER, &Announce { name: name("daemon-launcher"), version: "1".into() }).unwrap();
        router.subscribe(ASKER, &subscribe).unwrap();
        let event = || header(Kind::Event, 1, 0, Destination::Topic(Topic::ProfileState));
        assert!(matches!(router.route(STRANGER, event(), now), Effect::Report(_)));
        assert!(matches!(router.route(SERVICE, event(), now), Effect::Publish { to, .. } if to == [ASKER]));
    }
}
