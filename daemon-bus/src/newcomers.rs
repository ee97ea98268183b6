//! Connections whose handshake has not ended: few, for a short time, and with no more read from them than message 1.
//! A process that has all the connections it may have waits here for a place, unheard.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use core_ipc::socket;
use core_ipc::wire::Identity;
use core_ipc::wire::noise::{MESSAGE_1_BYTES, Responder, Session};
use core_types::limits::{HANDSHAKE_MS_MAX, UNAUTHENTICATED_MAX};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::router::ConnectionId;
use crate::turns::Account;

struct Newcomer {
    id: ConnectionId,
    account: Account,
    /// Whether it waits for its turn, and the poll tells nothing of it.
    queued: bool,
    /// Whether it waits for a place of its process.
    parked: bool,
    socket: OwnedFd,
    message: [u8; MESSAGE_1_BYTES],
    received: usize,
    deadline: Instant,
}

/// How far a newcomer has got.
pub(crate) enum Step {
    /// It is not among them, or message 1 is not complete.
    Waiting,
    /// It has gone, or what it sent is no message 1, and it was closed.
    Closed,
    /// The process proved to own a key.
    Authenticated(OwnedFd, Account, Box<Session>),
}

/// All newcomers, in the order in which they came, which is that of their deadlines.
#[derive(Default)]
pub(crate) struct Newcomers(VecDeque<Newcomer>);

impl Newcomers {
    /// Takes a newcomer in. Where there are too many, the one is closed that has waited for longest among those of the
    /// process with the most.
    pub(crate) fn admit(&mut self, id: ConnectionId, account: Account, socket: OwnedFd, now: Instant) {
        if self.0.len() >= UNAUTHENTICATED_MAX {
            let mut counts: HashMap<Account, usize> = HashMap::new();
            self.0.iter().for_each(|newcomer| *counts.entry(newcomer.account).or_default() += 1);
            let most = counts.values().copied().max();
            let oldest = self.0.iter().position(|newcomer| counts.get(&newcomer.account).copied() == most);
            oldest.map(|place| self.0.remove(place));
        }
        let deadline = now + Duration::from_millis(HANDSHAKE_MS_MAX);
        let message = [0; MESSAGE_1_BYTES];
        let newcomer =
            Newcomer { id, account, queued: false, parked: false, socket, message, received: 0, deadline };
        self.0.push_back(newcomer);
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Newcomer> {
        self.0.iter_mut().find(|newcomer| newcomer.id == id)
    }

    /// The process of a newcomer.
    pub(crate) fn account(&self, id: ConnectionId) -> Option<Account> {
        self.0.iter().find(|newcomer| newcomer.id == id).map(|newcomer| newcomer.account)
    }

    /// Has a newcomer wait for its turn; answers its socket if it did not yet.
    pub(crate) fn queue(&mut self, id: ConnectionId) -> Option<&OwnedFd> {
        let newcomer = self.find(id).filter(|newcomer| !newcomer.queued)?;
        newcomer.queued = true;
        Some(&newcomer.socket)
    }

    /// Has a newcomer whose turn came wait for a place of its process.
    pub(crate) fn park(&mut self, id: ConnectionId) {
        if let Some(newcomer) = self.find(id) {
            newcomer.parked = true;
        }
    }

    /// The newcomer that has waited for longest for a place of this process; it waits no longer.
    pub(crate) fn unpark(&mut self, account: Account) -> Option<ConnectionId> {
        let newcomer = self.0.iter_mut().find(|newcomer| newcomer.parked && newcomer.account == account)?;
        newcomer.parked = false;
        Some(newcomer.id)
    }

    /// Has the poll tell of a newcomer again; answers its socket.
    pub(crate) fn unqueue(&mut self, id: ConnectionId) -> Option<&OwnedFd> {
        let newcomer = self.find(id)?;
        newcomer.queued = false;
        Some(&newcomer.socket)
    }

    /// Closes a newcomer.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        self.0.retain(|newcomer| newcomer.id != id);
    }

    /// Reads what a newcomer has sent, up to the end of message 1; answers it when it is whole.
    pub(crate) fn read(&mut self, id: ConnectionId, identity: &Identity) -> Step {
        let Some(place) = self.0.iter().position(|newcomer| newcomer.id == id) else { return Step::Waiting };
        let newcomer = &mut self.0[place];
        match recv(&newcomer.socket, &mut newcomer.message[newcomer.received..], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => return Step::Waiting,
            Ok((count, _)) if count > 0 => newcomer.received += count,
            _ => {
                self.0.remove(place);
                return Step::Closed;
            }
        }
        if newcomer.received < MESSAGE_1_BYTES {
            return Step::Waiting;
        }
        let Some(Newcomer { socket, account, message, .. }) = self.0.remove(place) else {
            return Step::Closed;
        };
        match respond(&socket, identity, &message) {
            Some(session) => Step::Authenticated(socket, account, Box::new(session)),
            None => Step::Closed,
        }
    }

    /// When [`Self::expire`] is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.front().map(|newcomer| newcomer.deadline)
    }

    /// Closes those whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.0.front().is_some_and(|newcomer| newcomer.deadline <= now) {
            self.0.pop_front();
        }
    }
}

fn respond(newcomer: &OwnedFd, identity: &Identity, message: &[u8]) -> Option<Session> {
    let (session, reply) = Responder::new(identity, &socket::prologue()).ok()?.respond(message).ok()?;
    // The first bytes on a socket always find room; a socket that takes only some of them is no socket of ours.
    let sent = send(newcomer, &reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).ok()?;
    (sent == reply.len()).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_ipc::wire::noise::Initiator;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn arrive(newcomers: &mut Newcomers, id: ConnectionId, now: Instant) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        newcomers.admit(id, 1, ours.into(), now);
        theirs
    }

    #[test]
    fn a_newcomer_that_proves_its_key_in_pieces_is_let_in() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        let (bus, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut stream = arrive(&mut newcomers, 1, now);
        let (initiator, message) = Initiator::start(&client, bus.public(), &socket::prologue()).unwrap();
        for byte in &message[..MESSAGE_1_BYTES - 1] {
            stream.write_all(&[*byte]).unwrap();
            assert!(matches!(newcomers.read(1, &bus), Step::Waiting));
            assert!(matches!(newcomers.read(1, &bus), Step::Waiting), "nothing more has come");
        }
        stream.write_all(&message[MESSAGE_1_BYTES - 1..]).unwrap();
        let Step::Authenticated(_, 1, session) = newcomers.read(1, &bus) else { panic!("not let in") };
        assert_eq!(session.remote(), client.public());
        let mut reply = [0; 48];
        stream.read_exact(&mut reply).unwrap();
        assert!(initiator.finish(&reply).is_ok());
    }

    #[test]
    fn garbage_and_a_hang_up_end_it_without_a_word() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        let bus = Identity::generate().unwrap();
        let mut stream = arrive(&mut newcomers, 1, now);
        stream.write_all(&[7; MESSAGE_1_BYTES + 50]).unwrap();
        assert!(matches!(newcomers.read(1, &bus), Step::Closed));
        let mut answer = Vec::new();
        let _reset_or_end = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
        drop(arrive(&mut newcomers, 2, now));
        assert!(matches!(newcomers.read(2, &bus), Step::Closed));
        assert_eq!(newcomers.next_deadline(), None);
    }

    #[test]
    fn who_waits_too_long_or_for_longest_is_closed() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        let mut streams: Vec<UnixStream> =
            (0..=UNAUTHENTICATED_MAX as u64).map(|id| arrive(&mut newcomers, id, now)).collect();
        assert_eq!(streams[0].read(&mut [0]).unwrap(), 0, "the first went for the last");
        streams[1].set_nonblocking(true).unwrap();
        assert!(streams[1].read(&mut [0]).is_err(), "the second waits");
        let deadline = newcomers.next_deadline().unwrap();
        newcomers.expire(deadline - Duration::from_millis(1));
        assert!(streams[1].read(&mut [0]).is_err());
        newcomers.expire(deadline);
        assert_eq!(streams[1].read(&mut [0]).unwrap(), 0);
        assert_eq!(newcomers.next_deadline(), None);
    }
    #[test]
    fn the_process_with_the_most_of_them_makes_room() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        let (ours, mut first) = UnixStream::pair().unwrap();
        newcomers.admit(1, 7, ours.into(), now);
        let mut streams: Vec<UnixStream> =
            (2..=2 * UNAUTHENTICATED_MAX as u64).map(|id| arrive(&mut newcomers, id, now)).collect();
        assert_eq!(streams[0].read(&mut [0]).unwrap(), 0, "the oldest of the process with the most");
        first.set_nonblocking(true).unwrap();
        assert!(first.read(&mut [0]).is_err(), "the oldest of all stays");
        assert_eq!(newcomers.account(1), Some(7));
    }

    #[test]
    fn one_that_waits_for_a_place_gets_the_next_of_its_process() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        let _streams = [1, 2].map(|id| arrive(&mut newcomers, id, now));
        assert!(newcomers.queue(1).is_some() && newcomers.queue(1).is_none());
        newcomers.park(2);
        newcomers.park(1);
        assert_eq!(newcomers.unpark(9), None);
        assert_eq!([newcomers.unpark(1), newcomers.unpark(1), newcomers.unpark(1)], [Some(1), Some(2), None]);
    }
}
