//! Other ends to talk to: a relay and an echo over raw sockets, which are the floor, and an echo on the bus.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use core_ipc::{BusClient, Connector, Inbound};
use core_types::WireSecret;
use core_types::name::DaemonName;
use core_types::paths::Paths;
use core_types::protocol::bus::BusDenial;
use core_types::protocol::{Call, Service, decode, encode};
use rustix::stdio::{stdin, stdout};
use serde::{Deserialize, Serialize};
use tests::System;

pub(crate) const RELAY: &str = "--relay";
pub(crate) const ECHO: &str = "--echo";
pub(crate) const SERVE: &str = "--serve";
/// Bytes of a request and of its response.
pub(crate) const BYTES: usize = 256;

/// Reads just so many bytes; false at the end.
fn read_all(from: impl AsFd, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(&from, &mut buffer[filled..]) {
            Ok(0) => return false,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("read: {error}"),
        }
    }
    true
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = rustix::io::write(&to, bytes).expect("a peer that reads");
        bytes = &bytes[count..];
    }
}

/// Carries requests from standard input's peer to standard output's, and responses back.
pub(crate) fn relay() {
    let mut buffer = [0; BYTES];
    while read_all(stdin(), &mut buffer) {
        write_all(stdout(), &buffer);
        if !read_all(stdout(), &mut buffer) {
            return;
        }
        write_all(stdin(), &buffer);
    }
}

/// Sends back what comes.
pub(crate) fn echo() {
    let mut buffer = [0; BYTES];
    while read_all(stdin(), &mut buffer) {
        write_all(stdin(), &buffer);
    }
}

/// Three processes over raw sockets: this one, a relay, an echo.
pub(crate) struct RawEcho {
    socket: UnixStream,
    others: Vec<Child>,
}

impl RawEcho {
    pub(crate) fn start() -> Self {
        let (socket, near) = UnixStream::pair().expect("a socket pair");
        let (middle, far) = UnixStream::pair().expect("a socket pair");
        let start = |argument: &str, input: UnixStream, output: Stdio| {
            Command::new(std::env::current_exe().expect("our own path"))
                .arg(argument)
                .stdin(OwnedFd::from(input))
                .stdout(output)
                .spawn()
                .expect("a copy of this program")
        };
        let relay = start(RELAY, near, OwnedFd::from(middle).into());
        let echo = start(ECHO, far, Stdio::null());
        Self { socket, others: vec![relay, echo] }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.others.iter().map(Child::id).collect()
    }

    pub(crate) fn round_trip(&mut self) {
        let mut buffer = [7; BYTES];
        write_all(&self.socket, &buffer);
        assert!(read_all(&self.socket, &mut buffer), "the relay has gone");
    }
}

impl Drop for RawEcho {
    fn drop(&mut self) {
        let _ends_the_relay = self.socket.shutdown(std::net::Shutdown::Both);
        for child in &mut self.others {
            let _status = child.wait();
        }
    }
}

/// Name of the echo on the bus.
const NAME: &str = "daemon-bench-echo";

/// A request that is answered by its own bytes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Echo(pub(crate) WireSecret);

/// All requests of the echo.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum EchoRequest {
    Echo(Echo),
}

/// The echo as a service.
pub(crate) struct EchoService;

impl Service for EchoService {
    type Request = EchoRequest;
    type Denial = BusDenial;
    const NAME: &'static str = NAME;
    const SEALED: bool = false;
}

impl From<Echo> for EchoRequest {
    fn from(call: Echo) -> Self {
        Self::Echo(call)
    }
}

impl Call for Echo {
    type Service = EchoService;
    type Reply = WireSecret;
    const METHOD: u16 = 1;
}

/// Answers on the bus of the environment until standard input ends.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let paths = Paths::from_environment().expect("the system's places");
    std::thread::spawn(|| {
        read_all(stdin(), &mut [0]);
        std::process::exit(0);
    });
    // As the daemons do it: in a task of the runtime.
    runtime.block_on(async { tokio::spawn(answer_all(paths)).await.expect("an orderly end") });
}

async fn answer_all(paths: Paths) {
    let name = DaemonName::parse(NAME).expect("a daemon's name");
    let connector = Connector {
        paths,
        name,
        version: "1".to_owned(),
        topics: Vec::new(),
        sealed: false,
        service: NAME,
        name_socket: None,
    };
    let (bus, mut inbound) = BusClient::start(connector).expect("a key on the bus");
    while let Some(item) = inbound.recv().await {
        match item {
            Inbound::Connected => println!("ready"),
            Inbound::Event { .. } => {}
            Inbound::Request(request) => {
                let EchoRequest::Echo(Echo(bytes)) = decode(&request.body).expect("a request");
                let reply: Result<WireSecret, BusDenial> = Ok(bytes);
                bus.respond(&request.ticket(), &encode(&reply).expect("a reply"));
            }
        }
    }
}

/// A daemon on a system's bus that answers with what it is asked.
pub(crate) struct BusEcho(Child);

impl BusEcho {
    pub(crate) fn start(system: &System) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .arg(SERVE)
            .env_clear()
            .envs(system.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a copy of this program");
        let mut line = [0; 6];
        assert!(read_all(child.stdout.as_ref().expect("a pipe"), &mut line), "the echo did not start");
        drop(child.stdout.take());
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for BusEcho {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _status = self.0.wait();
    }
}
