//! How connections come in: accepted, heard when it is their process's turn, and given a place if there is one for it.

use std::cmp::Reverse;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use core_ipc::enrolled::Standing;
use core_ipc::socket;
use core_ipc::wire::noise::Session;
use core_ipc::wire::{Connection, PublicKey};
use core_types::limits::{CONNECTIONS_MAX, CONNECTIONS_RESERVED, PROCESS_CONNECTIONS_MAX};
use core_types::name::is_own;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::{Bus, LISTENER};
use crate::facts;
use crate::newcomers::Step;
use crate::peer::Peer;
use crate::router::{ConnectionId, Stranger};
use crate::vouchers::OWN_NAMES;

/// Pause after a failed accept(2): the usual reason is that no descriptor is left, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections accepted before the others get their turns.
const ACCEPTS_PER_TURN: usize = 16;

impl Bus {
    pub(super) fn watch_listener(&self, watch: bool) {
        if let Err(error) = self.poll.watch(LISTENER, &self.listener, watch, false) {
            tracing::error!(%error, "the socket of the bus cannot be watched");
        }
    }

    pub(super) fn accept_some(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.greet(socket, now),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted for a moment");
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return self.watch_listener(false);
                }
            }
        }
    }

    fn greet(&mut self, socket: OwnedFd, now: Instant) {
        let Some(account) = facts::own_user_process(&socket) else {
            tracing::warn!("a connection of another user was closed");
            return;
        };
        self.last_connection += 1;
        let id = self.last_connection;
        if let Err(error) = self.poll.add(id, &socket) {
            tracing::error!(%error, "a connection cannot be watched and was closed");
            return;
        }
        self.newcomers.admit(id, account, socket, now);
    }

    /// Closes a newcomer that has gone.
    pub(super) fn dismiss(&mut self, id: ConnectionId) {
        if let Some(account) = self.newcomers.account(id) {
            self.newcomers.remove(id);
            self.turns.remove(id, account);
        }
    }

    /// Has a newcomer that has sent something wait for its turn.
    pub(super) fn queue_newcomer(&mut self, id: ConnectionId, now: Instant) {
        let Some(socket) = self.newcomers.queue(id) else { return };
        // Until then the poll would tell of it again and again.
        if let Err(error) = self.poll.watch(id, socket, false, false) {
            tracing::error!(%error, "a connection cannot be watched and was closed");
            return self.newcomers.remove(id);
        }
        let lane = self.lane(id, now);
        self.turns.push(id, lane);
    }

    /// Hears a newcomer, now that it is its process's turn.
    pub(super) fn hear_newcomer(&mut self, id: ConnectionId, now: Instant) {
        let Some(account) = self.newcomers.account(id) else { return };
        if self.router.accounts.connections(account) >= PROCESS_CONNECTIONS_MAX {
            return self.newcomers.park(id);
        }
        match self.newcomers.read(id, &self.identity) {
            Step::Authenticated(socket, account, session) => {
                let Some(mut sender) = facts::sender(&socket, id) else { return };
                match self.enrolled.standing(session.remote()) {
                    None => {}
                    Some(Standing::Enrolled(name)) => sender.name = Some(name),
                    Some(Standing::Revoked) => {
                        tracing::warn!(pid = sender.pid, "the key of a revoked daemon was refused");
                        return;
                    }
                }
                if !self.make_room(&socket, &session, now) {
                    tracing::warn!(pid = sender.pid, "a connection was closed: too many are open");
                    return;
                }
                if let Err(error) = self.poll.watch(id, &socket, true, false) {
                    tracing::error!(%error, "a connection cannot be watched and was closed");
                    return;
                }
                self.router.join(sender, account, now);
                self.peers.insert(id, Peer::new(socket, Connection::new(*session, &[]), now));
            }
            Step::Closed => self.router.accounts.press(account, now),
            Step::Waiting => {
                let watched =
                    self.newcomers.unqueue(id).map(|socket| self.poll.watch(id, socket, true, false));
                if let Some(Err(error)) = watched {
                    tracing::error!(%error, "a connection cannot be watched and was closed");
                    self.newcomers.remove(id);
                }
            }
        }
    }

    /// Sees to it that there is a place for a connection. The last places are for daemons; among strangers, a new one
    /// gets the place of one of the process that presses, or else has the most: of the one of which nothing has been
    /// heard for longest.
    fn make_room(&mut self, socket: &OwnedFd, session: &Session, now: Instant) -> bool {
        let strangers: Vec<Stranger> = self.router.strangers().collect();
        if strangers.len() < CONNECTIONS_MAX - CONNECTIONS_RESERVED
            || (self.peers.len() < CONNECTIONS_MAX && self.is_own_daemon(socket, session))
        {
            return true;
        }
        let accounts = &self.router.accounts;
        let order = |stranger: &Stranger| {
            let heard = self.peers.get(&stranger.id).map(|peer| peer.last_heard);
            let share = (accounts.is_pressing(stranger.account, now), accounts.connections(stranger.account));
            (Reverse(share), stranger.asks, heard)
        };
        let Some(last) = strangers.into_iter().min_by_key(order) else { return false };
        tracing::warn!(connection = last.id, "a connection was closed for a new one: too many are open");
        self.end(last.id, now);
        true
    }

    /// Whether the key, or the process at the other end, is that of a daemon for which there is room.
    fn is_own_daemon(&mut self, socket: &OwnedFd, session: &Session) -> bool {
        let key = session.remote();
        // What systemd started shows its socket later, with its name; a place on the bus is no name yet.
        let by_key = self.units.is_some();
        OWN_NAMES.iter().any(|name| {
            if by_key { self.has_published(name, key) } else { self.may_take(name, socket, key, &[]) }
        })
    }

    fn has_published(&self, name: &str, key: PublicKey) -> bool {
        matches!(socket::published_key(&self.paths.public_key(name)), Ok(Some(published)) if published == key)
    }

    /// Whether a process with this key, which `shows` these descriptors, may take a name, if nobody has it.
    pub(crate) fn may_take(
        &mut self,
        name: &str,
        socket: impl AsFd,
        key: PublicKey,
        shows: &[OwnedFd],
    ) -> bool {
        match (&mut self.vouchers, &self.units) {
            (Some(vouchers), _) if OWN_NAMES.contains(&name) => vouchers.vouches(name, socket),
            (_, Some(units)) if OWN_NAMES.contains(&name) => {
                units.vouch(&self.paths.name_socket(name), shows)
            }
            _ if is_own(name) => self.has_published(name, key),
            _ => {
                matches!(self.enrolled.standing(key), Some(Standing::Enrolled(owner)) if owner.as_str() == name)
            }
        }
    }
}
