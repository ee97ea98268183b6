//! The floor of every request on the bus: the same number of bytes through three processes' raw Unix sockets,
//! from the asker over a relay to an answerer and back.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

/// Argument that makes the program a relay: from its standard input to its standard output and back.
pub(crate) const RELAY: &str = "floor-relay";
/// Argument that makes the program an answerer on its standard input.
pub(crate) const ECHO: &str = "floor-echo";
/// Bytes of a message.
pub(crate) const BYTES: usize = 256;

/// The asker's end, and the two other processes.
pub(crate) struct Floor {
    socket: UnixStream,
    children: [Child; 2],
}

impl Floor {
    pub(crate) fn start() -> Self {
        let (ours, relay_front) = UnixStream::pair().unwrap();
        let (relay_back, echo) = UnixStream::pair().unwrap();
        let program = std::env::current_exe().unwrap();
        let start = |argument: &str, stdin: UnixStream, stdout: Stdio| {
            Command::new(&program).arg(argument).stdin(OwnedFd::from(stdin)).stdout(stdout).spawn().unwrap()
        };
        let relay = start(RELAY, relay_front, OwnedFd::from(relay_back).into());
        let echo = start(ECHO, echo, Stdio::null());
        Self { socket: ours, children: [relay, echo] }
    }

    /// One message there and back.
    pub(crate) fn round_trip(&mut self) {
        let mut message = [7; BYTES];
        self.socket.write_all(&message).unwrap();
        self.socket.read_exact(&mut message).unwrap();
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The relay ends with our socket, the answerer with the relay's.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn own(stream: impl AsFd) -> UnixStream {
    stream.as_fd().try_clone_to_owned().unwrap().into()
}

pub(crate) fn relay() {
    let (mut front, mut back) = (own(std::io::stdin()), own(std::io::stdout()));
    let mut message = [0; BYTES];
    while front.read_exact(&mut message).is_ok() {
        back.write_all(&message).unwrap();
        back.read_exact(&mut message).unwrap();
        front.write_all(&message).unwrap();
    }
    let _ = back.shutdown(std::net::Shutdown::Both);
}

pub(crate) fn echo() {
    let mut socket = own(std::io::stdin());
    let mut message = [0; BYTES];
    while socket.read_exact(&mut message).is_ok() {
        socket.write_all(&message).unwrap();
    }
}
