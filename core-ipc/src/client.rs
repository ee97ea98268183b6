//! A daemon's end of the bus: asks, answers, publishes, and connects again by itself when the bus goes away.
//!
//! One task owns the connection's reading; whoever sends does so under a lock that is never held across an await,
//! and writes at once what the socket takes. So neither direction waits for the other.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use core_types::header::{Destination, Header, Kind, Refusal, Seal, Sender};
use core_types::limits::HANDSHAKE_MS_MAX;
use core_types::name::DaemonName;
use core_types::paths::Paths;
use core_types::protocol::bus::{Announce, Subscribe};
use core_types::protocol::{Call, DenialOf, Service, Topic, encode};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use zeroize::Zeroizing;

use crate::blocking::read_reply;
use crate::error::{CallError, CallOptions, ConnectError};
use crate::seal::{SealInitiator, SealedAsker, SealedSessions};
use crate::socket::{self, LinkError};
use crate::wire::noise::{Initiator, MESSAGE_2_BYTES};
use crate::wire::{Connection, Frame, Identity, PublicKey, WireError};

/// Shortest and longest wait between two attempts to connect.
const BACKOFF_MS: (u64, u64) = (20, 2_000);
/// Requests and events that wait for the daemon; the bus allows fewer in flight, so this never fills by honest use.
const INBOUND_MAX: usize = 1_024;

/// What a daemon is on the bus.
pub struct Connector {
    /// Where the bus is, and where keys are published.
    pub paths: Paths,
    /// The name it serves under.
    pub name: DaemonName,
    /// The version it announces.
    pub version: String,
    /// The topics it wants.
    pub topics: Vec<Topic>,
    /// Whether requests to it must be sealed.
    pub sealed: bool,
    /// Its service's name again, as a constant.
    pub service: &'static str,
}

/// What comes in from the bus.
pub enum Inbound {
    /// The daemon is asked.
    Request(InboundRequest),
    /// Something was published.
    Event {
        /// On which topic.
        topic: Topic,
        /// By whom.
        sender: Sender,
        /// What.
        body: Zeroizing<Vec<u8>>,
    },
    /// The connection stands and the daemon is registered: after the start, and after each restart of the bus.
    Connected,
}

/// A request as it reached the daemon, opened if it was sealed.
pub struct InboundRequest {
    /// Who asks, as stamped by the bus, and for sealed requests as proved by its key.
    pub sender: Sender,
    /// The encoded request.
    pub body: Zeroizing<Vec<u8>>,
    /// Descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    /// When the asker stops waiting.
    pub deadline: Instant,
    id: u64,
    sealed: Option<(u64, u64)>,
}

enum Link {
    Down,
    Up(Box<UpLink>),
}

struct UpLink {
    socket: Arc<UnixStream>,
    wire: Connection,
    next_id: u64,
    pending: HashMap<u64, oneshot::Sender<Frame>>,
    sealed: HashMap<&'static str, SealedAsker>,
}

impl UpLink {
    /// Writes what the socket takes; says whether that was all.
    fn flush(&mut self) -> Result<bool, LinkError> {
        let mut outcome = Ok(false);
        // The inner outcome says it all; the outer one only tells the runtime whether to wait.
        let _ = self.socket.try_io(Interest::WRITABLE, || {
            outcome = socket::flush(&*self.socket, &mut self.wire);
            if matches!(outcome, Ok(false)) { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        outcome
    }
}

struct Shared {
    connector: Connector,
    identity: Identity,
    link: Mutex<Link>,
    came_up: Notify,
    must_flush: Notify,
    answering: Mutex<SealedSessions>,
}

/// A handle on the daemon's end of the bus; clones share the connection.
#[derive(Clone)]
pub struct BusClient {
    shared: Arc<Shared>,
}

/// Removes a request from the pending ones when its asker stops waiting.
struct PendingGuard<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        if let Link::Up(link) = &mut *self.shared.lock() {
            link.pending.remove(&self.id);
        }
    }
}

fn ignore_poison<'a, T>(
    guard: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>,
) -> MutexGuard<'a, T> {
    guard.unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Link> {
        ignore_poison(self.link.lock())
    }

    /// Sends on a link, writing at once what the socket takes.
    fn send(
        &self,
        link: &mut UpLink,
        header: &Header,
        body: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<(), WireError> {
        link.wire.send(header, body, fds)?;
        // An error shows again where the connection is read, and is dealt with there.
        if !matches!(link.flush(), Ok(true)) {
            self.must_flush.notify_one();
        }
        Ok(())
    }
}

impl BusClient {
    /// Makes the daemon's key pair, publishes its public half, and keeps a connection to the bus from now on.
    /// What comes in is to be taken from the receiver.
    ///
    /// # Errors
    /// There is no randomness, or the key cannot be published.
    pub fn start(connector: Connector) -> Result<(Self, mpsc::Receiver<Inbound>), ConnectError> {
        let identity = Identity::generate().map_err(|_| ConnectError::Handshake)?;
        let path = connector.paths.public_key(connector.name.as_str());
        core_crypto::private_fs::write_atomic(&path, identity.public().to_hex().as_bytes())
            .map_err(|error| ConnectError::Key { path, reason: error.to_string() })?;
        let mut seed = [0; 8];
        let random = core_crypto::SecureBytes::random(8).map_err(|_| ConnectError::Handshake)?;
        seed.copy_from_slice(random.expose());
        let answering = SealedSessions::new(connector.service, u64::from_be_bytes(seed));
        let shared = Arc::new(Shared {
            connector,
            identity,
            link: Mutex::new(Link::Down),
            came_up: Notify::new(),
            must_flush: Notify::new(),
            answering: Mutex::new(answering),
        });
        let client = Self { shared };
        let (sender, receiver) = mpsc::channel(INBOUND_MAX);
        tokio::spawn(client.clone().keep_connected(sender));
        Ok((client, receiver))
    }

    /// Asks a service with the default deadline and no descriptors.
    ///
    /// # Errors
    /// As [`Self::call_with`].
    pub async fn call<C: Call>(&self, call: &C) -> Result<C::Reply, CallError<DenialOf<C>>> {
        self.call_with(call, CallOptions::default()).await
    }

    /// Asks a service; while the bus is away, waits for it until the deadline.
    ///
    /// # Errors
    /// The service denied it, the bus refused it, or no answer came.
    pub async fn call_with<C: Call>(
        &self,
        call: &C,
        options: CallOptions,
    ) -> Result<C::Reply, CallError<DenialOf<C>>> {
        let request: <C::Service as Service>::Request = call.clone().into();
        let body = encode(&request).map_err(|_| WireError::TooLarge)?;
        let deadline = Instant::now() + options.deadline;
        let asking = async {
            if C::Service::SEALED {
                self.call_sealed::<C>(&body, deadline, options.descriptors).await
            } else {
                let envelope = Envelope { method: C::METHOD, deadline, descriptors: options.descriptors };
                let answer =
                    self.exchange(C::Service::NAME, envelope, |_| Ok((Seal::None, body.to_vec()))).await?;
                read_reply::<C>(&answer.body)
            }
        };
        // The bus answers at the deadline itself; the grace lets that answer arrive.
        let grace = tokio::time::Instant::from_std(deadline + Duration::from_millis(250));
        tokio::time::timeout_at(grace, asking).await.unwrap_or(Err(CallError::Refused(Refusal::Timeout)))
    }

    async fn call_sealed<C: Call>(
        &self,
        body: &[u8],
        deadline: Instant,
        descriptors: Vec<OwnedFd>,
    ) -> Result<C::Reply, CallError<DenialOf<C>>> {
        let service = C::Service::NAME;
        let mut descriptors = Some(descriptors);
        for _ in 0..2 {
            self.open_session(service, deadline).await?;
            let mut nonce = 0;
            let envelope =
                Envelope { method: C::METHOD, deadline, descriptors: descriptors.take().unwrap_or_default() };
            let answer = self
                .exchange(service, envelope, |link| {
                    let session = link.sealed.get_mut(service).ok_or(WireError::Malformed)?;
                    let (first, sealed) = session.seal(body)?;
                    nonce = first;
                    Ok((Seal::Session(session.number()), sealed))
                })
                .await?;
            let Link::Up(link) = &mut *self.shared.lock() else { return Err(CallError::Lost) };
            match (answer.header.seal, link.sealed.get(service)) {
                (Seal::Session(number), Some(session)) if number == session.number() => {
                    let plain = session.open(nonce, &answer.body).map_err(WireError::from)?;
                    return read_reply::<C>(&plain);
                }
                _ => drop(link.sealed.remove(service)),
            }
        }
        Err(CallError::Lost)
    }

    async fn open_session<D: std::fmt::Debug>(
        &self,
        service: &'static str,
        deadline: Instant,
    ) -> Result<(), CallError<D>> {
        if let Link::Up(link) = &*self.shared.lock()
            && link.sealed.get(service).is_some_and(|session| !session.is_worn())
        {
            return Ok(());
        }
        let unknown = CallError::Refused(Refusal::ServiceUnknown);
        let key = socket::published_key(&self.shared.connector.paths.public_key(service))?.ok_or(unknown)?;
        let (initiator, message) =
            SealInitiator::start(&self.shared.identity, service, key).map_err(WireError::from)?;
        let envelope = Envelope { method: 0, deadline, descriptors: Vec::new() };
        let answer = self.exchange(service, envelope, |_| Ok((Seal::Handshake, message.to_vec()))).await?;
        let session = initiator.finish(&answer.body).map_err(|_| ConnectError::Handshake)?;
        if let Link::Up(link) = &mut *self.shared.lock() {
            link.sealed.insert(service, session);
        }
        Ok(())
    }

    /// Sends one request, whose seal and body `seal` makes under the lock of the link, and waits for its response.
    async fn exchange<D: std::fmt::Debug>(
        &self,
        service: &str,
        envelope: Envelope,
        seal: impl FnOnce(&mut UpLink) -> Result<(Seal, Vec<u8>), WireError>,
    ) -> Result<Frame, CallError<D>> {
        self.connected().await;
        let (answer, guard) = {
            let mut link = self.shared.lock();
            let Link::Up(link) = &mut *link else { return Err(CallError::Lost) };
            let id = link.next_id;
            link.next_id += 1;
            let (seal, body) = seal(link)?;
            let left = envelope.deadline.saturating_duration_since(Instant::now());
            let header = Header {
                kind: Kind::Request,
                id,
                correlation: 0,
                destination: Destination::Service(
                    DaemonName::parse(service).map_err(|_| WireError::Malformed)?,
                ),
                method: envelope.method,
                sender: None,
                deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
                descriptors: socket::count_descriptors(&envelope.descriptors)?,
                seal,
            };
            self.shared.send(link, &header, &body, envelope.descriptors)?;
            let (sender, answer) = oneshot::channel();
            link.pending.insert(id, sender);
            (answer, PendingGuard { shared: &self.shared, id })
        };
        let frame = answer.await.map_err(|_| CallError::Lost)?;
        drop(guard);
        match frame.header.kind {
            Kind::Response => Ok(frame),
            _ => {
                let refusal = core_types::protocol::decode(&frame.body).map_err(|_| WireError::Malformed)?;
                Err(CallError::Refused(refusal))
            }
        }
    }

    /// Waits until there is a connection.
    async fn connected(&self) {
        loop {
            let notified = self.shared.came_up.notified();
            if matches!(&*self.shared.lock(), Link::Up(_)) {
                return;
            }
            notified.await;
        }
    }

    /// Publishes an event, if the bus is there; events are news, so nobody waits for them.
    pub fn publish<E: Serialize>(&self, topic: Topic, event: &E) {
        let Ok(body) = encode(event) else { return };
        if let Link::Up(link) = &mut *self.shared.lock() {
            let header = Header {
                kind: Kind::Event,
                id: link.next_id,
                correlation: 0,
                destination: Destination::Topic(topic),
                method: 0,
                sender: None,
                deadline_ms: 0,
                descriptors: 0,
                seal: Seal::None,
            };
            link.next_id += 1;
            if let Err(error) = self.shared.send(link, &header, &body, Vec::new()) {
                tracing::warn!(%error, "an event was not published");
            }
        }
    }

    /// Answers a request with the encoded reply or denial; silently nothing when its asker's connection has gone.
    pub fn respond(&self, request: &RequestTicket, body: &[u8]) {
        let sealed = match request.sealed {
            None => (Seal::None, body.to_vec()),
            Some((number, nonce)) => {
                match ignore_poison(self.shared.answering.lock()).seal(number, nonce, body) {
                    Some(Ok(sealed)) => (Seal::Session(number), sealed),
                    _ => (Seal::None, Vec::new()),
                }
            }
        };
        self.send_response(request.id, sealed.0, &sealed.1);
    }

    fn send_response(&self, correlation: u64, seal: Seal, body: &[u8]) {
        if let Link::Up(link) = &mut *self.shared.lock() {
            let header = Header {
                kind: Kind::Response,
                id: link.next_id,
                correlation,
                destination: Destination::Asker,
                method: 0,
                sender: None,
                deadline_ms: 0,
                descriptors: 0,
                seal,
            };
            link.next_id += 1;
            if let Err(error) = self.shared.send(link, &header, body, Vec::new()) {
                tracing::warn!(%error, "a response was not sent");
            }
        }
    }

    async fn keep_connected(self, inbound: mpsc::Sender<Inbound>) {
        let mut backoff_ms = BACKOFF_MS.0;
        while !inbound.is_closed() {
            match self.connect().await {
                Ok(()) => {
                    backoff_ms = BACKOFF_MS.0;
                    let this = self.clone();
                    let inbound_now = inbound.clone();
                    let registering = tokio::spawn(async move { this.register(&inbound_now).await });
                    let end = self.read_until_end(&inbound).await;
                    registering.abort();
                    *self.shared.lock() = Link::Down;
                    tracing::info!(%end, "the connection to the bus ended");
                }
                Err(error) => tracing::debug!(%error, "no connection to the bus yet"),
            }
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        }
    }

    async fn connect(&self) -> Result<(), ConnectError> {
        let paths = &self.shared.connector.paths;
        let key = socket::published_key(&paths.bus_public_key())?
            .ok_or_else(|| ConnectError::NoBus { path: paths.bus_socket() })?;
        let socket = crate::blocking::connect(&paths.bus_socket())?;
        let failed = |_| ConnectError::Handshake;
        socket.set_nonblocking(true).map_err(failed)?;
        let mut socket = UnixStream::from_std(socket).map_err(failed)?;
        let limit = Duration::from_millis(HANDSHAKE_MS_MAX);
        let session = tokio::time::timeout(limit, async {
            let (initiator, message) = Initiator::start(&self.shared.identity, key, &socket::prologue())
                .map_err(|_| ConnectError::Handshake)?;
            socket.write_all(&message).await.map_err(failed)?;
            let mut reply = [0; MESSAGE_2_BYTES];
            socket.read_exact(&mut reply).await.map_err(failed)?;
            initiator.finish(&reply).map_err(|_| ConnectError::Handshake)
        })
        .await
        .map_err(|_| ConnectError::TimedOut(limit))??;
        *self.shared.lock() = Link::Up(Box::new(UpLink {
            socket: Arc::new(socket),
            wire: Connection::new(session, &[]),
            next_id: 1,
            pending: HashMap::new(),
            sealed: HashMap::new(),
        }));
        self.shared.came_up.notify_waiters();
        Ok(())
    }

    /// Takes up the name and the topics on a fresh connection.
    async fn register(&self, inbound: &mpsc::Sender<Inbound>) {
        let connector = &self.shared.connector;
        let announce = Announce { name: connector.name.clone(), version: connector.version.clone() };
        // The name may still belong to a connection whose end the bus has not seen yet.
        while let Err(error) = self.call(&announce).await {
            tracing::warn!(%error, "the bus does not register this daemon");
            tokio::time::sleep(Duration::from_millis(BACKOFF_MS.1)).await;
        }
        for topic in &connector.topics {
            if let Err(error) = self.call(&Subscribe { topic: *topic }).await {
                tracing::error!(%error, ?topic, "the bus refused a subscription");
            }
        }
        // A full queue means the daemon is busy with requests, so it is connected and knows it.
        drop(inbound.try_send(Inbound::Connected));
    }

    async fn read_until_end(&self, inbound: &mpsc::Sender<Inbound>) -> LinkError {
        let socket = match &*self.shared.lock() {
            Link::Up(link) => Arc::clone(&link.socket),
            Link::Down => return LinkError::Closed,
        };
        loop {
            let waiting = matches!(&*self.shared.lock(), Link::Up(link) if link.wire.pending_output() > 0);
            let interest = if waiting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let result = tokio::select! {
                ready = socket.ready(interest) => match ready {
                    Ok(ready) if ready.is_writable() && waiting => self.flush_some(),
                    Ok(_) => self.read_some(inbound),
                    Err(_) => Err(LinkError::Closed),
                },
                // Something was left to write: the interest is another one now.
                () = self.shared.must_flush.notified() => Ok(()),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn flush_some(&self) -> Result<(), LinkError> {
        let Link::Up(link) = &mut *self.shared.lock() else { return Err(LinkError::Closed) };
        link.flush().map(|_| ())
    }

    fn read_some(&self, inbound: &mpsc::Sender<Inbound>) -> Result<(), LinkError> {
        loop {
            let mut frames = Vec::new();
            let more = {
                let Link::Up(link) = &mut *self.shared.lock() else { return Err(LinkError::Closed) };
                let mut outcome = Ok(false);
                let _ = link.socket.try_io(Interest::READABLE, || {
                    outcome = socket::receive(&*link.socket, &mut link.wire);
                    if matches!(outcome, Ok(false)) {
                        Err(std::io::ErrorKind::WouldBlock.into())
                    } else {
                        Ok(())
                    }
                });
                let more = outcome?;
                while let Some(frame) = link.wire.next_frame()? {
                    match frame.header.kind {
                        Kind::Response | Kind::Refusal => {
                            if let Some(asker) = link.pending.remove(&frame.header.correlation) {
                                drop(asker.send(frame));
                            }
                        }
                        Kind::Request | Kind::Event => frames.push(frame),
                    }
                }
                more
            };
            for frame in frames {
                self.take_inbound(frame, inbound);
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn take_inbound(&self, frame: Frame, inbound: &mpsc::Sender<Inbound>) {
        let Some(sender) = frame.header.sender.clone() else { return };
        let item = match (&frame.header.kind, &frame.header.destination) {
            (Kind::Event, Destination::Topic(topic)) => {
                Some(Inbound::Event { topic: *topic, sender, body: frame.body })
            }
            (Kind::Request, _) => self.open_request(frame, sender).map(Inbound::Request),
            _ => None,
        };
        if let Some(item) = item
            && inbound.try_send(item).is_err()
        {
            tracing::warn!(
                "more requests are waiting than this daemon keeps; one was dropped and will time out"
            );
        }
    }

    /// Opens a request's seal, or answers at once what is not for the daemon behind it.
    fn open_request(&self, frame: Frame, sender: Sender) -> Option<InboundRequest> {
        let id = frame.header.id;
        let mut sessions = ignore_poison(self.shared.answering.lock());
        let (body, sealed) = match frame.header.seal {
            Seal::None if !self.shared.connector.sealed => (frame.body, None),
            Seal::Handshake => {
                let answer: Option<Vec<u8>> = self
                    .claimed_key(&sender)
                    .and_then(|claimed| sessions.accept(&self.shared.identity, claimed, &frame.body).ok());
                self.send_response(id, Seal::Handshake, &answer.unwrap_or_default());
                return None;
            }
            Seal::Session(number) => match sessions.open(number, &frame.body) {
                Some(Ok(request)) if request.name == sender.name => {
                    (request.plaintext, Some((number, request.nonce)))
                }
                _ => {
                    self.send_response(id, Seal::None, &[]);
                    return None;
                }
            },
            Seal::None => {
                self.send_response(id, Seal::None, &[]);
                return None;
            }
        };
        let deadline = Instant::now() + Duration::from_millis(frame.header.deadline_ms.into());
        Some(InboundRequest { sender, body, descriptors: frame.descriptors, deadline, id, sealed })
    }

    /// The name the bus stamped, with the key published under it; `None` when a name was stamped that has no key.
    fn claimed_key(&self, sender: &Sender) -> Option<Option<(DaemonName, PublicKey)>> {
        let Some(name) = &sender.name else { return Some(None) };
        let key = socket::published_key(&self.shared.connector.paths.public_key(name.as_str())).ok()??;
        Some(Some((name.clone(), key)))
    }
}

/// What is left of a request when its content has been taken out: enough to answer it.
#[derive(Debug)]
pub struct RequestTicket {
    id: u64,
    sealed: Option<(u64, u64)>,
}

impl InboundRequest {
    /// The ticket to answer it by.
    #[must_use]
    pub fn ticket(&self) -> RequestTicket {
        RequestTicket { id: self.id, sealed: self.sealed }
    }
}

struct Envelope {
    method: u16,
    deadline: Instant,
    descriptors: Vec<OwnedFd>,
}
