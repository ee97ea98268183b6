//! A client of the bus that is honest about nothing: it speaks the wire, but sends whatever a test likes.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use core_ipc::socket::{self, LinkError, ReadBuffer, Received};
use core_ipc::wire::noise::{Initiator, MESSAGE_2_BYTES};
use core_ipc::wire::{Connection, Frame, Identity};
use core_types::DaemonName;
use core_types::header::{Destination, Header, Kind, Refusal, Seal};
use core_types::name::BUS;
use core_types::paths::Paths;
use core_types::protocol::bus::{BusDenial, BusRequest, Peers, Subscribe};
use core_types::protocol::{Service, Topic, decode, encode};

use crate::process::wait_readable;
use crate::{PATIENCE, System, deadline};

/// How long a full socket is left alone.
const GLANCE: Duration = Duration::from_millis(10);

/// A connection to a bus with a key that nobody has published.
pub struct Hostile {
    socket: UnixStream,
    wire: Connection,
    buffer: ReadBuffer,
    next_id: u64,
    heard: Vec<Frame>,
}

/// What came back for a request.
#[derive(Debug)]
pub enum Answer {
    /// The service's own response.
    Response(Box<Frame>),
    /// The bus's refusal.
    Refused(Refusal),
}

/// The header of a request of a stranger to a service.
#[must_use]
pub fn request_header(service: &str, method: u16, seal: Seal) -> Header {
    Header {
        kind: Kind::Request,
        id: 0,
        correlation: 0,
        destination: Destination::Service(DaemonName::parse(service).expect("a daemon's name")),
        method,
        sender: None,
        deadline_ms: u32::try_from(PATIENCE.as_millis()).expect("patience in milliseconds"),
        descriptors: 0,
        seal,
    }
}

impl Hostile {
    /// Connects to a system's bus with a fresh key.
    ///
    /// # Panics
    /// The bus does not let it in.
    #[must_use]
    pub fn connect(system: &System) -> Self {
        Self::connect_as(system, &Identity::generate().expect("random bytes"))
    }

    /// Connects with a given key.
    ///
    /// # Panics
    /// The bus does not let it in.
    #[must_use]
    pub fn connect_as(system: &System, identity: &Identity) -> Self {
        let socket = UnixStream::connect(system.paths().bus_socket()).expect("the bus listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self::shake_hands(system.paths(), socket, identity)
            .expect("the bus owns its key and answers message 1")
    }

    /// Connects with a fresh key if the bus lets it in.
    #[must_use]
    pub fn try_connect(paths: &Paths) -> Option<Self> {
        let socket = UnixStream::connect(paths.bus_socket()).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        Self::shake_hands(paths, socket, &Identity::generate().ok()?)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Sends bytes as they are; `false` when the bus has ended the connection.
    pub fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Sends a request with descriptors.
    ///
    /// # Panics
    /// The bus does not take it.
    pub fn send_descriptors(&mut self, header: &Header, body: &[u8], descriptors: Vec<OwnedFd>) {
        let id = self.next_id;
        self.next_id += 1;
        let count = u8::try_from(descriptors.len()).expect("few descriptors");
        let header = Header { id, descriptors: count, ..header.clone() };
        socket::send(&self.socket, &mut self.wire, &header, body, &descriptors)
            .expect("a frame within its limits");
        assert_eq!(socket::flush(&self.socket, &mut self.wire), Ok(true), "the bus reads");
    }

    fn shake_hands(paths: &Paths, mut socket: UnixStream, identity: &Identity) -> Option<Self> {
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        let key = socket::published_key(&paths.bus_public_key()).ok()??;
        let (initiator, message) = Initiator::start(identity, key, &socket::prologue()).ok()?;
        socket.write_all(&message).ok()?;
        let mut reply = [0; MESSAGE_2_BYTES];
        socket.read_exact(&mut reply).ok()?;
        let wire = Connection::new(initiator.finish(&reply).ok()?, &[]);
        Some(Self { socket, wire, buffer: ReadBuffer::default(), next_id: 1, heard: Vec::new() })
    }

    /// Sends a frame while nobody may read it; forgets what comes meanwhile. `false` when the bus has ended the
    /// connection.
    pub fn try_send(&mut self, header: &Header, body: &[u8]) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let header = Header { id, ..header.clone() };
        if self.wire.send(&header, body).is_err() {
            return false;
        }
        loop {
            if self.forget_what_came().is_err() {
                return false;
            }
            match socket::flush(&self.socket, &mut self.wire) {
                Ok(true) => return true,
                Ok(false) => drop(wait_readable(&self.socket, Instant::now() + GLANCE)),
                Err(_) => return false,
            }
        }
    }

    fn forget_what_came(&mut self) -> Result<(), LinkError> {
        while socket::receive(&self.socket, &mut self.wire, &mut self.buffer)? != Received::Nothing {
            while self.wire.next_frame()?.is_some() {}
        }
        Ok(())
    }

    /// Whether the bus has ended the connection; forgets what came before.
    pub fn has_ended(&mut self) -> bool {
        self.forget_what_came().is_err()
    }

    /// The bytes that a frame has on its way, not sent.
    ///
    /// # Panics
    /// It is over its limits.
    pub fn sealed(&mut self, header: &Header, body: &[u8]) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        self.wire.send(&Header { id, ..header.clone() }, body).expect("a frame within its limits");
        let mut bytes = Vec::new();
        while let Some(output) = self.wire.output() {
            bytes.extend_from_slice(output);
            let count = output.len();
            self.wire.sent(count);
        }
        bytes
    }

    /// Waits until the bus ends the connection.
    ///
    /// # Panics
    /// It does not.
    pub fn wait_end(&mut self) {
        let end = deadline();
        while !self.has_ended() {
            assert!(wait_readable(&self.socket, end), "the bus keeps the connection");
        }
    }

    /// Sends a frame as it is, but for the id, which rises; answers it.
    ///
    /// # Panics
    /// The bus does not take it.
    pub fn send(&mut self, header: &Header, body: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let header = Header { id, ..header.clone() };
        self.wire.send(&header, body).expect("a frame within its limits");
        while !socket::flush(&self.socket, &mut self.wire).expect("the bus reads") {
            // What the bus sends meanwhile is kept: it may be what keeps the bus from reading.
            self.read_what_came(Instant::now());
        }
        id
    }

    /// Reads until something came or the deadline passed.
    fn read_what_came(&mut self, deadline: Instant) {
        if wait_readable(&self.socket, deadline) {
            socket::receive(&self.socket, &mut self.wire, &mut self.buffer)
                .expect("the bus keeps the connection");
        }
        while let Some(frame) = self.wire.next_frame().expect("the bus keeps the protocol") {
            self.heard.push(frame);
        }
    }

    /// Asks a service and waits for what comes back.
    ///
    /// # Panics
    /// Nothing comes back.
    pub fn ask(&mut self, header: &Header, body: &[u8]) -> Answer {
        let id = self.send(header, body);
        let end = deadline();
        loop {
            let is_answer = |frame: &Frame| {
                frame.header.correlation == id && matches!(frame.header.kind, Kind::Response | Kind::Refusal)
            };
            if let Some(place) = self.heard.iter().position(is_answer) {
                let frame = self.heard.remove(place);
                return match frame.header.kind {
                    Kind::Refusal => Answer::Refused(decode(&frame.body).expect("a refusal")),
                    _ => Answer::Response(Box::new(frame)),
                };
            }
            assert!(Instant::now() < end, "no answer within {PATIENCE:?}");
            self.read_what_came(end);
        }
    }

    /// Makes a typed call of the bus itself.
    ///
    /// # Panics
    /// The bus refuses it without an answer.
    pub fn ask_bus<T: serde::de::DeserializeOwned>(&mut self, request: &BusRequest) -> Result<T, BusDenial> {
        let body = encode(request).expect("a request");
        match self.ask(&request_header(BUS, 0, Seal::None), &body) {
            Answer::Response(frame) => decode(&frame.body).expect("a reply"),
            Answer::Refused(refusal) => panic!("the bus refused: {refusal}"),
        }
    }

    /// Makes a call of a service in clear, whatever the service wants.
    pub fn ask_in_clear<S: Service>(&mut self, request: &S::Request) -> Answer {
        let body = encode(request).expect("a request");
        self.ask(&request_header(S::NAME, 1, Seal::None), &body)
    }

    /// Tries to subscribe to a topic.
    ///
    /// # Errors
    /// What the bus denied.
    pub fn subscribe(&mut self, topic: Topic) -> Result<(), BusDenial> {
        self.ask_bus(&BusRequest::Subscribe(Subscribe { topic }))
    }

    /// Makes sure that the bus has taken all that was sent, and that all it sent until then has come; answers what
    /// came besides answers to this client's own requests.
    pub fn fence(&mut self) -> Vec<Frame> {
        let peers: Result<Vec<core_types::protocol::bus::Peer>, _> =
            self.ask_bus(&BusRequest::Peers(Peers {}));
        drop(peers);
        std::mem::take(&mut self.heard)
    }

    /// Sends a response to a request that was never put to this client.
    pub fn forge_response(&mut self, correlation: u64, seal: Seal, body: &[u8]) {
        let header = Header {
            kind: Kind::Response,
            correlation,
            destination: Destination::Asker,
            deadline_ms: 0,
            ..request_header(BUS, 0, seal)
        };
        self.send(&header, body);
    }
}
