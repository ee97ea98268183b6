//! A daemon's end of the bus: asks, answers, publishes, and connects again by itself when the bus goes away.
//!
//! One task owns the connection's reading; whoever sends does so under a lock that is never held across an await,
//! and writes at once what the socket takes. So neither direction waits for the other.

mod inbound;
mod link;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use core_types::header::{Destination, Header, Kind, Refusal, Seal};
use core_types::name::{BUS, DaemonName};
use core_types::paths::Paths;
use core_types::protocol::bus::{BusRequest, KeyOf};
use core_types::protocol::{Call, DenialOf, Service, Topic, encode};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};

pub use inbound::{Inbound, InboundRequest, RequestTicket};
use link::{Link, UpLink};

use crate::blocking::{KEY_PATIENCE, read_reply};
use crate::error::{CallError, CallOptions, ConnectError};
use crate::seal::{SealInitiator, SealedSessions};
use crate::socket;
use crate::wire::{Frame, Identity, PublicKey, WireError};

/// Requests and events that wait for the daemon; the bus allows fewer in flight, so this never fills by honest use.
const INBOUND_MAX: usize = 1_024;
/// Pause before a request that was not delivered is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

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
    /// The socket that systemd made for the name, if systemd started the daemon; shown to the bus with the name.
    pub name_socket: Option<OwnedFd>,
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
        queue(link, header, body, &fds)?;
        // An error shows again where the connection is read, and is dealt with there.
        if !matches!(link.flush(), Ok(true)) {
            self.must_flush.notify_one();
        }
        Ok(())
    }
}

/// Puts a frame after those that are to be written.
fn queue(link: &mut UpLink, header: &Header, body: &[u8], fds: &[OwnedFd]) -> Result<(), WireError> {
    link.wire.keep_fresh(Instant::now())?;
    link.transport.send(&mut link.wire, header, body, fds)
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

    /// Asks a service; while the bus or the service is away, waits for it until the deadline (for the service only
    /// when no descriptors go along).
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
        let mut descriptors = options.descriptors;
        let asking = async {
            loop {
                let again = descriptors.is_empty();
                match self.call_once::<C>(&body, deadline, std::mem::take(&mut descriptors)).await {
                    // Nothing was delivered: a daemon that is being restarted is back in a moment.
                    Err(CallError::Refused(Refusal::ServiceUnknown))
                        if again && Instant::now() < deadline =>
                    {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        // The bus answers at the deadline itself; the grace lets that answer arrive.
        let grace = tokio::time::Instant::from_std(deadline + Duration::from_millis(250));
        tokio::time::timeout_at(grace, asking).await.unwrap_or(Err(CallError::Refused(Refusal::Timeout)))
    }

    async fn call_once<C: Call>(
        &self,
        body: &[u8],
        deadline: Instant,
        descriptors: Vec<OwnedFd>,
    ) -> Result<C::Reply, CallError<DenialOf<C>>> {
        if C::Service::SEALED {
            return self.call_sealed::<C>(body, deadline, descriptors).await;
        }
        let envelope = Envelope { method: C::METHOD, deadline, descriptors };
        let answer = self.exchange(C::Service::NAME, envelope, |_| Ok((Seal::None, body.to_vec()))).await?;
        read_reply::<C>(&answer.body)
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
            && link.sealed.get(service).is_some_and(|session| !session.is_worn(Instant::now()))
        {
            return Ok(());
        }
        let key = self.key_of(service, deadline).await?;
        let (initiator, message) =
            SealInitiator::start(&self.shared.identity, service, key).map_err(WireError::from)?;
        let envelope = Envelope { method: 0, deadline, descriptors: Vec::new() };
        let answer = self.exchange(service, envelope, |_| Ok((Seal::Handshake, message.to_vec()))).await?;
        let session = initiator.finish(&answer.body, Instant::now()).map_err(|_| ConnectError::Handshake)?;
        if let Link::Up(link) = &mut *self.shared.lock() {
            link.sealed.insert(service, session);
        }
        Ok(())
    }

    /// The key of a service, as the bus and the service itself say.
    async fn key_of<D: std::fmt::Debug>(
        &self,
        service: &'static str,
        deadline: Instant,
    ) -> Result<PublicKey, CallError<D>> {
        let path = self.shared.connector.paths.public_key(service);
        let name = DaemonName::parse(service).map_err(|_| WireError::Malformed)?;
        let body = encode(&BusRequest::from(KeyOf { name })).map_err(|_| WireError::TooLarge)?;
        let end = deadline.min(Instant::now() + KEY_PATIENCE);
        loop {
            let envelope = Envelope { method: KeyOf::METHOD, deadline, descriptors: Vec::new() };
            let answer = self.exchange(BUS, envelope, |_| Ok((Seal::None, body.to_vec()))).await?;
            let by_the_bus = read_reply::<KeyOf>(&answer.body).map_err(CallError::of_key)?;
            match socket::agreed_key(&path, by_the_bus)? {
                Some(key) => return Ok(key),
                None if Instant::now() < end => tokio::time::sleep(socket::KEY_PAUSE).await,
                None => return Err(ConnectError::keys_differ(path).into()),
            }
        }
    }

    /// Sends one request, whose seal and body `seal` makes under the lock of the link, and waits for its response.
    async fn exchange<D: std::fmt::Debug>(
        &self,
        service: &str,
        envelope: Envelope,
        seal: impl FnOnce(&mut UpLink) -> Result<(Seal, Vec<u8>), WireError>,
    ) -> Result<Frame, CallError<D>> {
        self.connected(service).await;
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
            self.shared.send(link, &header, &body, envelope.descriptors).map_err(CallError::of_sending)?;
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

    /// Waits until there is a connection and, for any service but the bus, until this daemon has its name on it: what
    /// is asked without it is asked by a stranger.
    async fn connected(&self, service: &str) {
        loop {
            let notified = self.shared.came_up.notified();
            if matches!(&*self.shared.lock(), Link::Up(link) if link.registered || service == BUS) {
                return;
            }
            notified.await;
        }
    }

    /// Publishes an event, if the bus is there; events are news, so nobody waits for them.
    pub fn publish<E: Serialize>(&self, topic: Topic, event: &E) {
        let Ok(body) = encode(event) else { return };
        if let Link::Up(link) = &mut *self.shared.lock()
            && link.registered
        {
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
            match queue(link, &header, &body, &[]) {
                // With the next frame or at the next turn: whoever made news has mostly something to answer, too.
                Ok(()) => self.shared.must_flush.notify_one(),
                Err(error) => tracing::warn!(%error, "an event was not published"),
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
}

struct Envelope {
    method: u16,
    deadline: Instant,
    descriptors: Vec<OwnedFd>,
}
