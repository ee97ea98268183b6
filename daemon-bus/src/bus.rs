//! The running bus: accepts connections, lets them prove who they are, and does what the router says.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use core_crypto::private_fs;
use core_daemon::StartError;
use core_ipc::socket;
use core_ipc::wire::noise::{MESSAGE_1_BYTES, Responder, Session};
use core_ipc::wire::{Connection, Frame, Identity, WireError};
use core_types::DaemonName;
use core_types::header::{Destination, Header, Kind, Refusal, Seal, Sender};
use core_types::limits::{CONNECTIONS_MAX, CONNECTIONS_RESERVED, HANDSHAKE_MS_MAX, UNAUTHENTICATED_MAX};
use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use core_types::paths::Paths;
use core_types::protocol::bus::{Announce, BusDenial, BusRequest, Incident, Misdeed, Peer as PeerEntry};
use core_types::protocol::{Topic, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::facts;
use crate::peer::Peer;
use crate::router::{ConnectionId, Effect, Refused, Router};
use crate::supervise;

/// Pause after a failed accept(2): the usual reason is that no descriptor is left, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Bus {
    paths: Paths,
    identity: Identity,
    router: RefCell<Router>,
    peers: RefCell<HashMap<ConnectionId, Rc<Peer>>>,
    deadline_changed: Notify,
}

/// Runs the bus of `paths` until the process is told to end. A `supervised` one sees to it that there is a supervisor.
pub(crate) async fn serve(paths: &Paths, supervised: bool) -> Result<(), StartError> {
    let identity = Identity::generate().map_err(|error| StartError::Service(error.to_string()))?;
    let key = identity.public().to_hex();
    let listener = listen(paths)?;
    // The key is published after the socket is ours and before anyone is accepted on it.
    private_fs::write_atomic(&paths.bus_public_key(), key.as_bytes())?;
    let bus = Rc::new(Bus {
        paths: paths.clone(),
        identity,
        router: RefCell::default(),
        peers: RefCell::default(),
        deadline_changed: Notify::new(),
    });
    tracing::info!("{BUS} serves");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "the starter was not told");
    }
    if supervised && let Ok(stdin) = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned() {
        let paths = paths.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = supervise::replace_supervisor(stdin, &paths).await {
                tracing::error!(%error, "no new supervisor could be started; what dies from now on stays dead");
            }
        });
    }
    tokio::select! {
        () = accept_forever(&bus, &listener) => {}
        () = expire_forever(&bus) => {}
        _ = core_daemon::signals::told_to_end() => {}
    }
    tracing::info!("ending");
    Ok(())
}

/// Binds the socket, replacing one that a bus left behind: the instance lock says that no other bus lives.
fn listen(paths: &Paths) -> Result<UnixListener, StartError> {
    let path = paths.bus_socket();
    let failed = |error: std::io::Error| {
        StartError::Service(format!("the socket {} cannot be made: {error}", path.display()))
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    UnixListener::bind(&path).map_err(failed)
}

async fn accept_forever(bus: &Rc<Bus>, listener: &UnixListener) {
    let mut next: ConnectionId = 1;
    let mut waiting: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(sender) = facts::admit(&socket, next) else {
            tracing::warn!("a connection of another user was closed");
            continue;
        };
        next += 1;
        waiting.retain(|task| !task.is_finished());
        if waiting.len() >= UNAUTHENTICATED_MAX
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.abort();
        }
        let bus = Rc::clone(bus);
        let task = tokio::task::spawn_local(async move {
            if let Some((socket, session)) = bus.authenticate(socket).await {
                tokio::task::spawn_local(bus.live(socket, session, sender));
            }
        });
        waiting.push_back(task.abort_handle());
    }
}

async fn expire_forever(bus: &Rc<Bus>) {
    loop {
        let next = bus.router.borrow().next_deadline();
        let due = async {
            match next {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                let refused = bus.router.borrow_mut().expire(Instant::now());
                bus.refuse_all(refused);
            }
            () = bus.deadline_changed.notified() => {}
        }
    }
}

impl Bus {
    /// Lets a connection prove its key; at most the bytes of message 1 are read before it has.
    async fn authenticate(&self, mut socket: UnixStream) -> Option<(UnixStream, Session)> {
        let limit = Duration::from_millis(HANDSHAKE_MS_MAX);
        let handshake = async {
            let mut message = [0; MESSAGE_1_BYTES];
            socket.read_exact(&mut message).await.ok()?;
            let responder = Responder::new(&self.identity, &socket::prologue()).ok()?;
            let (session, reply) = responder.respond(&message).ok()?;
            socket.write_all(&reply).await.ok()?;
            Some(session)
        };
        let session = tokio::time::timeout(limit, handshake).await.ok().flatten()?;
        if !self.has_room_for(&session) {
            tracing::warn!("a connection was closed: too many are open");
            return None;
        }
        Some((socket, session))
    }

    /// The last places are for daemons: strangers cannot lock them out.
    fn has_room_for(&self, session: &Session) -> bool {
        if self.peers.borrow().len() >= CONNECTIONS_MAX {
            return false;
        }
        self.router.borrow().strangers() < CONNECTIONS_MAX - CONNECTIONS_RESERVED
            || [SECRETS, PROFILE, LAUNCHER].iter().any(|name| self.owns_key(name, session))
    }

    fn owns_key(&self, name: &str, session: &Session) -> bool {
        matches!(socket::published_key(&self.paths.public_key(name)), Ok(Some(key)) if key == session.remote())
    }

    /// Serves one authenticated connection until it ends.
    async fn live(self: Rc<Self>, socket: UnixStream, session: Session, sender: Sender) {
        let id = sender.connection;
        let peer = Peer::new(socket, Connection::new(session, &[]));
        self.peers.borrow_mut().insert(id, Rc::clone(&peer));
        self.router.borrow_mut().join(sender);
        let end = peer.run(|frame| self.take(id, frame)).await;
        tracing::debug!(connection = id, %end, "a connection ended");
        self.peers.borrow_mut().remove(&id);
        let (refused, incidents) = self.router.borrow_mut().leave(id);
        self.refuse_all(refused);
        incidents.iter().for_each(|incident| self.tell(incident));
    }

    /// Does with a frame what the router says.
    fn take(&self, from: ConnectionId, frame: Frame) {
        let now = Instant::now();
        let Frame { header, body, descriptors } = frame;
        let (id, seal) = (header.id, header.seal);
        let first_deadline = self.router.borrow().next_deadline();
        let effect = self.router.borrow_mut().route(from, header, now);
        match effect {
            Effect::Deliver { to, header } => self.deliver(to, &header, &body, descriptors),
            Effect::Publish { to, header } => {
                for connection in to {
                    if let Some(peer) = self.peer(connection) {
                        peer.send_event(&header, &body);
                    }
                }
            }
            Effect::Own if seal == Seal::None => self.answer_own(from, id, &body, now),
            Effect::Own => {
                self.refuse_all([Refused { to: from, correlation: id, refusal: Refusal::Forbidden }])
            }
            Effect::Refuse(refused) => self.refuse_all([refused]),
            Effect::Report(incident) => self.tell(&incident),
            Effect::Drop | Effect::Count => {}
        }
        if self.router.borrow().next_deadline() != first_deadline {
            self.deadline_changed.notify_one();
        }
    }

    fn peer(&self, connection: ConnectionId) -> Option<Rc<Peer>> {
        self.peers.borrow().get(&connection).cloned()
    }

    fn deliver(&self, to: ConnectionId, header: &Header, body: &[u8], descriptors: Vec<OwnedFd>) {
        let sent = self.peer(to).map_or(Err(WireError::Full), |peer| peer.send(header, body, descriptors));
        if sent.is_ok() {
            return;
        }
        match header.kind {
            Kind::Request => {
                let refused = self.router.borrow_mut().undelivered(header.id);
                self.refuse_all(refused);
            }
            // An asker that does not read its answers would wait for ever; its end tells it at once.
            _ => self.cut_off(to),
        }
    }

    fn cut_off(&self, connection: ConnectionId) {
        if let Some(peer) = self.peer(connection) {
            tracing::warn!(connection, "a connection does not read what it asked for and was closed");
            peer.close();
        }
    }

    fn refuse_all(&self, refused: impl IntoIterator<Item = Refused>) {
        for Refused { to, correlation, refusal } in refused {
            self.answer(to, Kind::Refusal, correlation, &refusal);
        }
    }

    fn answer<T: serde::Serialize>(&self, to: ConnectionId, kind: Kind, correlation: u64, message: &T) {
        let header = Header { correlation, ..own_header(kind, Destination::Asker) };
        let Ok(body) = encode(message) else { return };
        if self.peer(to).is_some_and(|peer| peer.send(&header, &body, Vec::new()).is_err()) {
            self.cut_off(to);
        }
    }

    /// Answers a request to the bus itself, which is served like any other peer.
    fn answer_own(&self, from: ConnectionId, id: u64, body: &[u8], now: Instant) {
        match decode::<BusRequest>(body) {
            Ok(BusRequest::Announce(call)) => {
                let result = self.announce(from, &call);
                if result == Err(BusDenial::NameTaken) {
                    let effect = self.router.borrow_mut().misdeed(from, Misdeed::NameTakeover, now);
                    if let Effect::Report(incident) = effect {
                        self.tell(&incident);
                    }
                }
                self.answer(from, Kind::Response, id, &result);
            }
            Ok(BusRequest::Subscribe(call)) => {
                let result = self.router.borrow_mut().subscribe(from, &call);
                self.answer(from, Kind::Response, id, &result);
            }
            Ok(BusRequest::Peers(_)) => {
                let mut peers = self.router.borrow().registered();
                peers.extend(own_entry());
                self.answer(from, Kind::Response, id, &Ok::<_, BusDenial>(peers));
            }
            Err(_) => self.refuse_all([Refused { to: from, correlation: id, refusal: Refusal::Forbidden }]),
        }
    }

    fn announce(&self, from: ConnectionId, call: &Announce) -> Result<(), BusDenial> {
        let key = self.peer(from).ok_or(BusDenial::NotRegistered)?.key();
        match socket::published_key(&self.paths.public_key(call.name.as_str())) {
            Ok(Some(published)) if published == key => self.router.borrow_mut().announce(from, call),
            _ => Err(BusDenial::NotRegistered),
        }
    }

    /// Publishes an incident in the bus's own name.
    fn tell(&self, incident: &Incident) {
        tracing::warn!(misdeed = ?incident.misdeed, count = incident.count, pid = incident.sender.pid, "a client misbehaved");
        let Ok(body) = encode(incident) else { return };
        let header = Header {
            sender: own_sender(),
            ..own_header(Kind::Event, Destination::Topic(Topic::BusIncident))
        };
        let subscribers = self.router.borrow().subscribers(Topic::BusIncident);
        for peer in subscribers.into_iter().filter_map(|connection| self.peer(connection)) {
            peer.send_event(&header, &body);
        }
    }
}

fn own_header(kind: Kind, destination: Destination) -> Header {
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

fn own_sender() -> Option<Sender> {
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
