//! The running bus: one loop that accepts connections, lets them prove who they are, and does what the router says.
//!
//! Everyone who has sent something gets a turn, as `turns` has it, and in a turn a stranger gets one frame through, or
//! its handshake. So what a process sends costs the others one frame, however much it is.

mod entry;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use core_crypto::private_fs;
use core_daemon::sandbox::Sandbox;
use core_daemon::{StartError, Units, Watchdog, inherited_listener};
use core_ipc::enrolled::EnrolledDaemons;
use core_ipc::socket::ReadBuffer;
use core_ipc::wire::{Frame, Identity, PublicKey, WireError};
use core_types::header::{Header, Kind, Refusal, Seal};
use core_types::limits::{DESCRIPTORS_HELD_MAX, STRANGER_BYTES_MAX, STRANGERS_BYTES_MAX};
use core_types::name::BUS;
use core_types::paths::Paths;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::newcomers::Newcomers;
use crate::peer::{Held, Peer};
use crate::poll::{Happened, Poll};
use crate::router::{ConnectionId, Effect, Refused, Released, Router, Stranger};
use crate::standby::Standby;
use crate::supervise;
use crate::turns::{Lane, Turns};
use crate::vouchers::Vouchers;

/// Turns taken before the poll is asked again who has something.
const TURNS_AT_ONCE: usize = 32;
/// Frames of a registered daemon in one turn; a stranger has one.
const FRAMES_PER_TURN: usize = 16;

/// Descriptors that the bus may have open, or on their way to a daemon that has not read them.
const DESCRIPTORS: u64 = 4_096;

/// The bus tells which executable a client is, for the audit log; in a Landlock domain it could not see that.
const SANDBOX: Sandbox = Sandbox { places: None };

/// The numbers of what is no connection, in the poll.
const LISTENER: u64 = 0;
const SIGNALS: u64 = u64::MAX;
const SUPERVISOR: u64 = u64::MAX - 1;

/// The bus and all that it knows.
pub(crate) struct Bus {
    pub(crate) paths: Paths,
    identity: Identity,
    listener: UnixListener,
    poll: Poll,
    /// Who may take the names of our own daemons, if there is a supervisor.
    pub(crate) vouchers: Option<Vouchers>,
    /// The same, if systemd started the bus.
    pub(crate) units: Option<Units>,
    watchdog: Option<(Watchdog, Instant)>,
    /// Who starts another supervisor, if there was one.
    standby: Option<Standby>,
    /// Quick deaths of supervisors in a row, and when the last one died.
    supervisors_lost: (u32, Option<Instant>),
    accept_again: Option<Instant>,
    last_connection: ConnectionId,
    newcomers: Newcomers,
    pub(crate) router: Router,
    pub(crate) enrolled: EnrolledDaemons,
    peers: BTreeMap<ConnectionId, Peer>,
    turns: Turns,
    /// Connections that are to end, because they do not read or keep too much.
    ending: Vec<ConnectionId>,
    buffer: ReadBuffer,
}

/// Runs the bus of `paths` until the process is told to end. A `supervised` one sees to it that there is a supervisor.
pub(crate) fn serve(paths: &Paths, supervised: bool) -> Result<(), StartError> {
    let failed = |error: Errno| StartError::Service(format!("nothing can be waited for: {error}"));
    let (told, teller) = UnixStream::pair().map_err(|error| StartError::Service(error.to_string()))?;
    listen_to_signals(teller).map_err(|error| StartError::Service(error.to_string()))?;
    let mut bus = Bus::new(paths)?;
    bus.poll.add(SIGNALS, &told).map_err(failed)?;
    if supervised {
        let supervisor = std::io::stdin().as_fd().try_clone_to_owned();
        let vouchers = supervisor.and_then(|supervisor| Vouchers::new(supervisor.into()));
        let vouchers = vouchers.map_err(|error| StartError::Service(format!("no supervisor: {error}")))?;
        bus.poll.add(SUPERVISOR, &vouchers).map_err(failed)?;
        bus.vouchers = Some(vouchers);
        let standby = Standby::start();
        let standby = standby.map_err(|error| StartError::Service(format!("no standby: {error}")))?;
        bus.standby = Some(standby);
    }
    allow_descriptors();
    SANDBOX.enter(BUS, paths);
    tracing::info!("{BUS} serves");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "the starter was not told");
    }
    bus.run().map_err(failed)?;
    tracing::info!("ending");
    Ok(())
}

/// Takes as many descriptors as the connections, and the frames that wait on them, can need; the usual soft limit is
/// for programs that use select(2).
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS));
    if limit.current.is_some_and(|soft| soft < wanted)
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::warn!(%error, "the bus has few descriptors");
    }
}

/// Has a byte come over the socket when the process is told to end. A terminal's hang-up is not such a word.
fn listen_to_signals(teller: UnixStream) -> std::io::Result<()> {
    signal_hook::low_level::pipe::register(SIGTERM, teller.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, teller)?;
    signal_hook::flag::register(SIGHUP, std::sync::Arc::default())?;
    Ok(())
}

/// Takes the socket that systemd listens on, or else binds it, replacing one that a bus left behind: the instance lock
/// says that no other bus lives.
fn listen(paths: &Paths) -> std::io::Result<(UnixListener, Option<Units>)> {
    let path = paths.bus_socket();
    if let Some(inherited) = inherited_listener() {
        let units = Units::of(&inherited, &path)?;
        let listener = UnixListener::from(inherited);
        listener.set_nonblocking(true)?;
        return Ok((listener, Some(units)));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok((listener, None))
}

impl Bus {
    fn new(paths: &Paths) -> Result<Self, StartError> {
        let identity = Identity::generate().map_err(|error| StartError::Service(error.to_string()))?;
        let failed = |error: std::io::Error| {
            let path = paths.bus_socket();
            StartError::Service(format!("the socket {} cannot be made: {error}", path.display()))
        };
        let enrolled = EnrolledDaemons::read(&paths.enrolled())
            .map_err(|error| StartError::Service(error.to_string()))?;
        let poll = Poll::new().map_err(|error| failed(error.into()))?;
        let (listener, units) = listen(paths).map_err(failed)?;
        poll.add(LISTENER, &listener).map_err(|error| failed(error.into()))?;
        // The key is published after the socket is ours and before anyone is accepted on it.
        private_fs::write_atomic(&paths.bus_public_key(), identity.public().to_hex().as_bytes())?;
        Ok(Self {
            paths: paths.clone(),
            identity,
            listener,
            poll,
            vouchers: None,
            units,
            watchdog: Watchdog::from_environment().map(|watchdog| (watchdog, Instant::now())),
            standby: None,
            supervisors_lost: (0, None),
            accept_again: None,
            last_connection: 0,
            newcomers: Newcomers::default(),
            router: Router::default(),
            enrolled,
            peers: BTreeMap::new(),
            turns: Turns::new(),
            ending: Vec::new(),
            buffer: ReadBuffer::default(),
        })
    }

    /// Serves until told to end.
    fn run(&mut self) -> Result<(), Errno> {
        let mut now = Instant::now();
        loop {
            let due = self.turns.next_due(now);
            self.poll.wait([due, self.next_deadline()].into_iter().flatten().min(), now)?;
            now = Instant::now();
            let mut place = 0;
            while let Some(happened) = self.poll.happened(place) {
                place += 1;
                match happened.number {
                    SIGNALS => return Ok(()),
                    LISTENER => self.accept_some(now),
                    SUPERVISOR => self.hear_supervisor(now),
                    _ => self.notice(happened, now),
                }
            }
            for _ in 0..TURNS_AT_ONCE {
                let Some(id) = self.turns.next(now) else { break };
                self.turn(id, now);
                self.follow_up(now);
            }
            self.keep_time(now);
        }
    }

    /// Takes the supervisor's word, or sees to another one when it is gone.
    fn hear_supervisor(&mut self, now: Instant) {
        let Some(vouchers) = &mut self.vouchers else { return };
        if vouchers.listen() {
            return;
        }
        self.poll.remove(&*vouchers);
        let (deaths, last) = self.supervisors_lost;
        let quick = last.is_some_and(|last| now < last + supervise::STEADY);
        self.supervisors_lost = (if quick { deaths + 1 } else { 0 }, Some(now));
        match vouchers.succeed() {
            Ok(socket) => {
                if let Err(error) = self.poll.add(SUPERVISOR, &*vouchers) {
                    tracing::error!(%error, "the next supervisor will not be heard");
                }
                let after = supervise::backoff(self.supervisors_lost.0);
                let asked = self.standby.as_ref().map(|standby| standby.replace_supervisor(&socket, after));
                if let Some(Err(error)) = asked {
                    tracing::error!(%error, "no new supervisor is started; what dies from now on stays dead");
                }
            }
            Err(error) => tracing::error!(%error, "there is no socket for another supervisor"),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let feeding = self.watchdog.map(|(_, next)| next);
        [self.router.next_deadline(), self.newcomers.next_deadline(), self.accept_again, feeding]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    fn keep_time(&mut self, now: Instant) {
        if let Some((watchdog, next)) = &mut self.watchdog
            && *next <= now
        {
            *next = now + watchdog.every();
            Watchdog::feed();
        }
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
            self.watch_listener(true);
        }
        self.newcomers.expire(now);
        if self.router.next_deadline().is_some_and(|deadline| deadline <= now) {
            let refused = self.router.expire(now);
            for refused in &refused {
                if let Some(peer) = self.peers.get_mut(&refused.to) {
                    peer.held.retain(|held| self.router.is_pending(held.header.id));
                }
            }
            self.refuse_all(refused);
        }
        self.follow_up(now);
    }

    /// Does what follows from what was done: held requests go on, connections end.
    fn follow_up(&mut self, now: Instant) {
        loop {
            self.let_held_go(now);
            match self.ending.pop() {
                Some(id) => self.end(id, now),
                None => return,
            }
        }
    }

    fn notice(&mut self, happened: Happened, now: Instant) {
        let id = happened.number;
        let Some(peer) = self.peers.get_mut(&id) else {
            return if happened.gone { self.dismiss(id) } else { self.queue_newcomer(id, now) };
        };
        if happened.gone && !self.router.is_registered(id) {
            // Nobody waits for answers to what it sent.
            return self.ending.push(id);
        }
        if happened.writable {
            if peer.flush().is_err() {
                return self.ending.push(id);
            }
            self.watch_room(id);
        }
        if happened.readable {
            self.queue(id, now);
        }
    }

    /// Where a connection waits for its turn.
    fn lane(&self, id: ConnectionId, now: Instant) -> Lane {
        let stranger = self.router.stranger(id).map(|stranger| stranger.account);
        match stranger.or_else(|| self.newcomers.account(id)) {
            None => Lane::Daemon,
            Some(account) if self.router.accounts.is_pressing(account, now) => Lane::Pressing(account),
            Some(account) => Lane::Stranger(account),
        }
    }

    fn queue(&mut self, id: ConnectionId, now: Instant) {
        let lane = self.lane(id, now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !std::mem::replace(&mut peer.queued, true) {
            self.turns.push(id, lane);
            if matches!(lane, Lane::Pressing(_)) {
                // It may take a while, in which the poll would tell of it again and again.
                self.mute(id, true);
            }
        }
    }

    /// Takes what a connection has sent, as much as one turn allows.
    fn turn(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return self.hear_newcomer(id, now) };
        peer.queued = false;
        self.mute(id, false);
        let allowance = if self.router.is_registered(id) { FRAMES_PER_TURN } else { 1 };
        for _ in 0..allowance {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            match peer.next_frame(&mut self.buffer) {
                Ok(Some(frame)) => {
                    peer.last_heard = now;
                    let more = peer.has_input();
                    self.take(id, frame, now);
                    if !more {
                        // If the socket has more, the poll will say so.
                        return self.check_weight(id);
                    }
                }
                Ok(None) => return self.check_weight(id),
                Err(end) => {
                    tracing::debug!(connection = id, %end, "a connection ended");
                    return self.ending.push(id);
                }
            }
        }
        self.queue(id, now);
    }

    /// Does with a frame what the router says.
    fn take(&mut self, from: ConnectionId, frame: Frame, now: Instant) {
        let Frame { header, body, descriptors } = frame;
        let (id, seal) = (header.id, header.seal);
        if !descriptors.is_empty() && self.descriptors_held() + descriptors.len() > DESCRIPTORS_HELD_MAX {
            return self.refuse_all([Refused { to: from, correlation: id, refusal: Refusal::Busy }]);
        }
        match self.router.route(from, header, now) {
            Effect::Deliver { to, header } => self.deliver(to, &header, &body, descriptors),
            Effect::Hold(header) => self.hold(from, Held { header, body, descriptors }),
            Effect::Publish { to, header } => self.publish(&to, &header, &body),
            Effect::Own if seal == Seal::None => self.answer_own(from, id, &body, &descriptors, now),
            Effect::Own => {
                self.refuse_all([Refused { to: from, correlation: id, refusal: Refusal::Forbidden }])
            }
            Effect::Refuse(refused) => self.refuse_all([refused]),
            Effect::Report(incident) => self.tell(&incident),
            Effect::Drop | Effect::Count => {}
        }
    }

    /// Sends an event to all of these.
    pub(crate) fn publish(&mut self, to: &[ConnectionId], header: &Header, body: &[u8]) {
        for connection in to {
            if let Some(peer) = self.peers.get_mut(connection) {
                peer.send_event(header, body);
            }
            self.watch_room(*connection);
        }
    }

    /// Descriptors of all frames that have arrived and not left.
    fn descriptors_held(&self) -> usize {
        self.peers.values().map(Peer::descriptors).sum()
    }

    fn hold(&mut self, from: ConnectionId, held: Held) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.bytes() + held.body.len() > STRANGER_BYTES_MAX {
            let refused = self.router.undelivered(held.header.id);
            return self.refuse_all(refused);
        }
        peer.held.push_back(held);
    }

    /// Delivers what was held until its asker's request before it was answered.
    fn let_held_go(&mut self, now: Instant) {
        while let Some(asker) = self.router.next_freed(now) {
            while let Some(held) = self.peers.get_mut(&asker).and_then(|peer| peer.held.pop_front()) {
                match self.router.release(held.header.id, now) {
                    Released::Deliver { to, deadline_ms } => {
                        let header = Header { deadline_ms, ..held.header };
                        self.deliver(to, &header, &held.body, held.descriptors);
                        break;
                    }
                    Released::Refuse(refused) => self.refuse_all([refused]),
                    Released::Drop => {}
                }
            }
        }
    }

    fn deliver(&mut self, to: ConnectionId, header: &Header, body: &[u8], descriptors: Vec<OwnedFd>) {
        let Err(error) = self.send(to, header, body, &descriptors) else { return };
        match header.kind {
            Kind::Request => {
                let refused = self.router.undelivered(header.id);
                self.refuse_all(refused);
            }
            // The answer is lost, and by no fault of the asker's.
            _ if error == WireError::NotPassed => {
                let (correlation, refusal) = (header.correlation, Refusal::ServiceGone);
                self.refuse_all([Refused { to, correlation, refusal }]);
            }
            // An asker that does not read its answers would wait for ever; its end tells it at once.
            _ => self.cut_off(to),
        }
    }

    fn send(
        &mut self,
        to: ConnectionId,
        header: &Header,
        body: &[u8],
        descriptors: &[OwnedFd],
    ) -> Result<(), WireError> {
        let peer = self.peers.get_mut(&to).ok_or(WireError::Full)?;
        peer.send(header, body, descriptors)?;
        self.watch_room(to);
        Ok(())
    }

    /// Has the poll tell of nothing to read, or of it again.
    fn mute(&mut self, id: ConnectionId, muted: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.muted == muted {
            return;
        }
        peer.muted = muted;
        if let Err(error) = self.poll.watch(id, peer.socket(), !muted, peer.watches_room) {
            tracing::error!(%error, "a connection cannot be watched and is closed");
            self.ending.push(id);
        }
    }

    /// Has the poll watch for room exactly while something waits for it, and ends who keeps too much waiting.
    fn watch_room(&mut self, id: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let wanted = peer.has_output();
        if peer.watches_room == wanted {
            return;
        }
        peer.watches_room = wanted;
        if let Err(error) = self.poll.watch(id, peer.socket(), !peer.muted, wanted) {
            tracing::error!(%error, "a connection cannot be watched and is closed");
            self.ending.push(id);
        } else if wanted {
            self.check_weight(id);
        }
    }

    /// Ends a stranger that makes the bus keep too much for it.
    fn check_weight(&mut self, id: ConnectionId) {
        if self.router.is_registered(id) {
            return;
        }
        let Some(bytes) = self.peers.get(&id).map(Peer::bytes).filter(|bytes| *bytes > 0) else { return };
        let all: usize = self
            .router
            .strangers()
            .filter_map(|stranger| self.peers.get(&stranger.id))
            .map(Peer::bytes)
            .sum();
        if bytes > STRANGER_BYTES_MAX || all > STRANGERS_BYTES_MAX {
            self.cut_off(id);
        }
    }

    /// Ends a connection once what is being done is done.
    pub(crate) fn cut_off(&mut self, connection: ConnectionId) {
        tracing::warn!(connection, "a connection does not read what it asked for and is closed");
        self.ending.push(connection);
    }

    fn end(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.remove(&id) else { return };
        let stranger = self.router.stranger(id);
        if let Some(Stranger { account, asks, .. }) = stranger {
            self.turns.remove(id, account);
            if asks || peer.has_unread() {
                self.router.accounts.press(account, now);
            }
        }
        let (refused, incidents) = self.router.leave(id);
        self.refuse_all(refused);
        incidents.iter().for_each(|incident| self.tell(incident));
        if let Some(next) = stranger.and_then(|stranger| self.newcomers.unpark(stranger.account)) {
            let lane = self.lane(next, now);
            self.turns.push(next, lane);
        }
    }

    pub(crate) fn refuse_all(&mut self, refused: impl IntoIterator<Item = Refused>) {
        for Refused { to, correlation, refusal } in refused {
            self.answer(to, Kind::Refusal, correlation, &refusal);
        }
    }

    /// Sends a message of the bus itself; who takes no more of them is cut off.
    pub(crate) fn send_own(&mut self, to: ConnectionId, header: &Header, body: &[u8]) {
        if self.peers.contains_key(&to) && self.send(to, header, body, &[]).is_err() {
            self.cut_off(to);
        }
    }

    /// The connections of whoever owns a key.
    pub(crate) fn connections_of(&self, key: PublicKey) -> impl Iterator<Item = ConnectionId> {
        self.peers.iter().filter(move |(_, peer)| peer.key() == key).map(|(id, _)| *id)
    }

    /// Ends the connections of whoever owns a key, once what is being done is done.
    pub(crate) fn end_all_of(&mut self, key: PublicKey) {
        let all: Vec<ConnectionId> = self.connections_of(key).collect();
        self.ending.extend(all);
    }

    /// The peer behind a connection.
    pub(crate) fn peer(&mut self, connection: ConnectionId) -> Option<&mut Peer> {
        self.peers.get_mut(&connection)
    }
}
