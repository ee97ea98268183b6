//! A client of the bus without an async runtime: one request at a time, for the command line.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use core_crypto::private_fs;
use core_types::header::{Destination, Header, Kind, Seal};
use core_types::name::{BUS, DaemonName};
use core_types::paths::Paths;
use core_types::protocol::bus::{BusRequest, KeyOf};
use core_types::protocol::{Call, DenialOf, Service, Topic, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zeroize::Zeroizing;

use crate::error::{CallError, CallOptions, ConnectError};
use crate::seal::{SealInitiator, SealedAsker};
use crate::socket::{self, LinkError, ReadBuffer};
use crate::wire::noise::{Initiator, MESSAGE_2_BYTES, Session};
use crate::wire::{Body, Connection, Frame, Identity, PublicKey, WireError};

/// How long a service that is being started may take to have its key known.
pub(crate) const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to the bus, unregistered.
pub struct Client {
    paths: Paths,
    socket: UnixStream,
    wire: Connection,
    buffer: ReadBuffer,
    identity: Identity,
    sealed: HashMap<&'static str, SealedAsker>,
    next_id: u64,
    /// Events that came while an answer was waited for.
    events: VecDeque<Event>,
    /// The answer to the later of two requests, if it came first.
    early: Option<Frame>,
}

/// Something that was published on a topic that was subscribed to.
#[derive(Debug)]
pub struct Event {
    /// The topic.
    pub topic: Topic,
    /// The encoded event.
    pub body: Body,
}

/// Most events that are kept for whoever takes them; the oldest goes first.
const EVENTS_MAX: usize = 64;

/// What a request is, besides its body.
struct Envelope {
    method: u16,
    seal: Seal,
    deadline: Instant,
    descriptors: Vec<OwnedFd>,
}

/// A request that was sent.
struct Asked {
    id: u64,
    deadline: Instant,
}

impl Client {
    /// Connects to the bus of `paths` with a key pair made for this connection.
    ///
    /// # Errors
    /// Nobody listens, the runtime folder is not private, or the handshake fails or takes longer than `timeout`.
    pub fn connect(paths: &Paths, timeout: Duration) -> Result<Self, ConnectError> {
        let identity = Identity::for_one_connection().map_err(|_| ConnectError::Handshake)?;
        Self::connect_as(identity, paths, timeout)
    }

    /// As [`Self::connect`], with a key pair of the caller's: an enrolled one is known by its name.
    ///
    /// # Errors
    /// As [`Self::connect`]. The key of a revoked daemon is refused after the handshake: the first call is lost.
    pub fn connect_as(identity: Identity, paths: &Paths, timeout: Duration) -> Result<Self, ConnectError> {
        let path = paths.bus_socket();
        if !paths.runtime().exists() {
            return Err(ConnectError::NoBus { path });
        }
        private_fs::check_private_dir(paths.runtime())
            .map_err(|error| ConnectError::Folder(error.to_string()))?;
        let socket = connect(&path)?;
        let key = socket::published_key(&paths.bus_public_key())?.ok_or(ConnectError::NoBus { path })?;
        let session = handshake(&socket, &identity, key, timeout)?;
        Ok(Self {
            paths: paths.clone(),
            socket,
            wire: Connection::new(session, &[]),
            buffer: ReadBuffer::default(),
            identity,
            sealed: HashMap::new(),
            next_id: 1,
            events: VecDeque::new(),
            early: None,
        })
    }

    /// Waits for the next event of the topics subscribed to (by the call [`Subscribe`]); `None` when none came in time.
    ///
    /// [`Subscribe`]: core_types::protocol::bus::Subscribe
    ///
    /// # Errors
    /// The connection has ended.
    pub fn next_event(&mut self, patience: Duration) -> Result<Option<Event>, LinkError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            while let Some(frame) = self.wire.next_frame()? {
                self.keep_event(frame);
            }
            if self.events.is_empty() {
                if !wait(&self.socket, PollFlags::IN, deadline)? {
                    return Ok(None);
                }
                socket::receive(&self.socket, &mut self.wire, &mut self.buffer)?;
            }
        }
    }

    /// Keeps a frame if it is an event.
    fn keep_event(&mut self, frame: Frame) {
        if let (Kind::Event, Destination::Topic(topic)) = (frame.header.kind, frame.header.destination) {
            if self.events.len() >= EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(Event { topic, body: frame.body });
        }
    }

    /// Asks the call's service and waits for its answer, at most until the deadline.
    ///
    /// # Errors
    /// The service denied it, the bus refused it, or no answer came.
    pub fn call<C: Call>(
        &mut self,
        call: &C,
        options: CallOptions,
    ) -> Result<C::Reply, CallError<DenialOf<C>>> {
        let deadline = Instant::now() + options.deadline;
        let request: <C::Service as Service>::Request = call.clone().into();
        let body = encode(&request).map_err(|_| WireError::TooLarge)?;
        let mut descriptors = options.descriptors;
        if !C::Service::SEALED {
            let envelope = Envelope { method: C::METHOD, seal: Seal::None, deadline, descriptors };
            let answer = self.exchange(C::Service::NAME, envelope, &body)?;
            return read_reply::<C>(&answer.body);
        }
        for last_try in [false, true] {
            self.open_session(C::Service::NAME, deadline)?;
            let session = self.sealed.get_mut(C::Service::NAME).ok_or(CallError::Lost)?;
            let (nonce, sealed) = session.seal(&body).map_err(WireError::from)?;
            let spare = if last_try { Vec::new() } else { duplicates(&descriptors)? };
            let envelope =
                Envelope { method: C::METHOD, seal: Seal::Session(session.number()), deadline, descriptors };
            let answer = self.exchange(C::Service::NAME, envelope, &sealed)?;
            match (answer.header.seal, self.sealed.get(C::Service::NAME)) {
                (Seal::Session(number), Some(session)) if number == session.number() => {
                    let plain = session.open(nonce, &answer.body).map_err(WireError::from)?;
                    return read_reply::<C>(&plain);
                }
                _ => drop(self.sealed.remove(C::Service::NAME)),
            }
            descriptors = spare;
        }
        Err(CallError::Lost)
    }

    /// Makes sure that there is a sealed session with the service.
    fn open_session<D: std::fmt::Debug>(
        &mut self,
        service: &'static str,
        deadline: Instant,
    ) -> Result<(), CallError<D>> {
        if self.sealed.get(service).is_some_and(|session| !session.is_worn(Instant::now())) {
            return Ok(());
        }
        let (initiator, answer) = self.begin_session(service, deadline)?;
        let session = initiator.finish(&answer.body, Instant::now()).map_err(|_| ConnectError::Handshake)?;
        self.sealed.insert(service, session);
        Ok(())
    }

    /// Asks the bus for the key of a service, and the service for a session, by the key that it published itself, in one
    /// go. The answer counts only if the bus says the same key: until then nothing was sent but the public key of this
    /// client.
    fn begin_session<D: std::fmt::Debug>(
        &mut self,
        service: &'static str,
        deadline: Instant,
    ) -> Result<(SealInitiator, Frame), CallError<D>> {
        let path = self.paths.public_key(service);
        let name = DaemonName::parse(service).map_err(|_| WireError::Malformed)?;
        let question = encode(&BusRequest::from(KeyOf { name })).map_err(|_| WireError::TooLarge)?;
        let end = deadline.min(Instant::now() + KEY_PATIENCE);
        loop {
            let envelope =
                Envelope { method: KeyOf::METHOD, seal: Seal::None, deadline, descriptors: Vec::new() };
            let asked = self.send(BUS, envelope, &question)?;
            let begun = match socket::published_key(&path)? {
                Some(key) => {
                    let (initiator, message) =
                        SealInitiator::start(&self.identity, service, key).map_err(WireError::from)?;
                    let envelope =
                        Envelope { method: 0, seal: Seal::Handshake, deadline, descriptors: Vec::new() };
                    Some((key, initiator, self.send(service, envelope, &message)?))
                }
                None => None,
            };
            let by_the_bus = read_reply::<KeyOf>(&self.answer(asked)?.body).map_err(CallError::of_key)?;
            match begun {
                Some((key, initiator, begun)) if key.0 == by_the_bus => {
                    return Ok((initiator, self.answer(begun)?));
                }
                // As they do while a daemon starts; the answer of whoever has the published key is not waited for.
                _ if Instant::now() < end => std::thread::sleep(socket::KEY_PAUSE),
                _ => return Err(ConnectError::keys_differ(path).into()),
            }
        }
    }

    /// Sends one request and waits for its response.
    fn exchange<D: std::fmt::Debug>(
        &mut self,
        service: &str,
        envelope: Envelope,
        body: &[u8],
    ) -> Result<Frame, CallError<D>> {
        let asked = self.send(service, envelope, body)?;
        self.answer(asked)
    }

    /// Takes one request into what is to be sent. It leaves at the latest when an answer is waited for.
    fn send<D: std::fmt::Debug>(
        &mut self,
        service: &str,
        envelope: Envelope,
        body: &[u8],
    ) -> Result<Asked, CallError<D>> {
        let id = self.next_id;
        self.next_id += 1;
        let left = envelope.deadline.saturating_duration_since(Instant::now());
        let header = Header {
            kind: Kind::Request,
            id,
            correlation: 0,
            destination: Destination::Service(DaemonName::parse(service).map_err(|_| WireError::Malformed)?),
            method: envelope.method,
            sender: None,
            deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            descriptors: socket::count_descriptors(&envelope.descriptors)?,
            seal: envelope.seal,
        };
        self.wire.keep_fresh(Instant::now())?;
        if !envelope.descriptors.is_empty() {
            self.make_room(envelope.deadline).map_err(lost)?;
        }
        socket::send(&self.socket, &mut self.wire, &header, body, &envelope.descriptors)
            .map_err(CallError::of_sending)?;
        Ok(Asked { id, deadline: envelope.deadline })
    }

    /// Waits for the response to a request. Those to requests before it are not waited for any more.
    fn answer<D: std::fmt::Debug>(&mut self, Asked { id, deadline }: Asked) -> Result<Frame, CallError<D>> {
        let mut next = self.early.take();
        loop {
            let written = socket::flush(&self.socket, &mut self.wire).map_err(lost)?;
            while let Some(frame) =
                next.take().map_or_else(|| self.wire.next_frame(), |frame| Ok(Some(frame)))?
            {
                match (frame.header.kind, frame.header.correlation) {
                    (Kind::Response, of) if of == id => return Ok(frame),
                    (Kind::Refusal, of) if of == id => {
                        let refusal =
                            core_types::protocol::decode(&frame.body).map_err(|_| WireError::Malformed)?;
                        return Err(CallError::Refused(refusal));
                    }
                    (Kind::Response | Kind::Refusal, of) if (id..self.next_id).contains(&of) => {
                        self.early = Some(frame);
                    }
                    // An event, or an answer that is not waited for any more.
                    _ => self.keep_event(frame),
                }
            }
            // The bus answers at the deadline itself; the grace lets that answer arrive.
            let end = deadline + Duration::from_millis(500);
            let wanted = if written { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            if !wait(&self.socket, wanted, end).map_err(lost)? {
                return Err(CallError::Refused(core_types::header::Refusal::Timeout));
            }
            socket::receive(&self.socket, &mut self.wire, &mut self.buffer).map_err(lost)?;
        }
    }

    /// Waits until the socket has taken all that was sent before and has room for more, or the deadline has passed:
    /// descriptors leave at once or not at all.
    fn make_room(&mut self, deadline: Instant) -> Result<(), LinkError> {
        loop {
            let written = socket::flush(&self.socket, &mut self.wire)?;
            if !wait(&self.socket, PollFlags::OUT, deadline)? || written {
                return Ok(());
            }
        }
    }
}

fn lost<D: std::fmt::Debug>(error: impl Into<LinkError>) -> CallError<D> {
    match error.into() {
        LinkError::Wire(error) => CallError::Protocol(error),
        LinkError::Closed | LinkError::Socket(_) => CallError::Lost,
    }
}

fn duplicates(descriptors: &[OwnedFd]) -> Result<Vec<OwnedFd>, WireError> {
    descriptors.iter().map(|fd| fd.try_clone().map_err(|_| WireError::Descriptors)).collect()
}

/// Reads a response's body: the reply or the denial.
pub(crate) fn read_reply<C: Call>(body: &[u8]) -> Result<C::Reply, CallError<DenialOf<C>>> {
    let reply: Result<C::Reply, DenialOf<C>> =
        core_types::protocol::decode(body).map_err(|_| CallError::Protocol(WireError::Malformed))?;
    reply.map_err(CallError::Denied)
}

/// Opens the bus's socket.
///
/// # Errors
/// Nobody listens, or it is no socket.
pub(crate) fn connect(path: &std::path::Path) -> Result<UnixStream, ConnectError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    UnixStream::connect(path).map_err(|error| match error.kind() {
        NotFound | ConnectionRefused => ConnectError::NoBus { path: path.to_owned() },
        _ => ConnectError::Socket { path: path.to_owned(), reason: error.to_string() },
    })
}

fn handshake(
    socket: &UnixStream,
    identity: &Identity,
    key: PublicKey,
    timeout: Duration,
) -> Result<Session, ConnectError> {
    let failed = |_| ConnectError::Handshake;
    let deadline = Instant::now() + timeout;
    let (initiator, message) =
        Initiator::start(identity, key, &socket::prologue()).map_err(|_| ConnectError::Handshake)?;
    // A socket to which nothing was sent yet has room for it.
    if send(socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(failed)? < message.len() {
        return Err(ConnectError::Handshake);
    }
    let mut reply = Zeroizing::new([0; MESSAGE_2_BYTES]);
    let mut missing = &mut reply[..];
    while !missing.is_empty() {
        if !wait(socket, PollFlags::IN, deadline).map_err(failed)? {
            return Err(ConnectError::TimedOut(timeout));
        }
        match recv(socket, &mut *missing, RecvFlags::DONTWAIT) {
            Ok((count, _)) if count > 0 => missing = &mut missing[count..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => return Err(ConnectError::Handshake),
        }
    }
    initiator.finish(reply.as_ref()).map_err(|_| ConnectError::Handshake)
}

/// Waits until the socket is ready or the deadline has passed; says which.
///
/// To wait in the read itself would be one system call less, and dearer: the kernel wakes whoever sleeps in a read also
/// when the other end has taken what was sent, and whoever polls only for what he polls for.
fn wait(socket: impl AsFd, wanted: PollFlags, deadline: Instant) -> Result<bool, rustix::io::Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&socket, wanted)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
