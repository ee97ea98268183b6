//! The same request through other message buses, where they are installed: what a bus without sealing costs.
//!
//! A client and an echo that speak just as much D-Bus (<https://dbus.freedesktop.org/doc/dbus-specification.html>) as
//! that takes, so that what is measured is the bus between them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tests::PATIENCE;

use crate::echo::BYTES;

pub(crate) const BUS: &str = "--dbus-bus";
pub(crate) const ECHO: &str = "--dbus-echo";

const DAEMON: &str = "dbus-daemon";
const BROKER: &str = "dbus-broker-launch";

/// One session for this user, everything allowed.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"#;

/// The kinds of messages.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// The codes of header fields.
const PATH: u8 = 1;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// The buses that can be measured here.
pub(crate) fn installed() -> Vec<&'static str> {
    let found = |name: &&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    let mut buses: Vec<_> = [DAEMON].into_iter().filter(found).collect();
    // What starts it needs a journal's socket in its place, which takes a mount namespace.
    if rustix::process::geteuid().is_root() {
        buses.extend([BROKER].into_iter().filter(found));
    }
    buses
}

/// Runs a bus at `socket` until standard input ends. The broker needs a mount namespace of its own.
pub(crate) fn run_bus(program: &str, socket: &str, config: &str) {
    let mut bus = if program == DAEMON {
        let mut bus = Command::new(program);
        bus.args(["--nofork", "--nopidfile", "--config-file", config]).stdin(Stdio::null());
        bus
    } else {
        std::fs::create_dir_all("/run/systemd/journal").expect("a folder");
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").expect("a socket");
        std::thread::spawn(move || while journal.recv(&mut [0; 4_096]).is_ok() {});
        // As systemd starts it, sd_listen_fds(3).
        let script =
            "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --scope user --config-file \"$1\"";
        let mut bus = Command::new("sh");
        bus.args(["-c", script, program, config]);
        bus.stdin(std::os::fd::OwnedFd::from(UnixListener::bind(socket).expect("a socket")));
        bus.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={socket}"));
        bus
    };
    let mut bus = bus.spawn().expect("a bus");
    let _end = std::io::stdin().read(&mut [0]);
    bus.kill().expect("a bus that runs");
    bus.wait().expect("a bus that ended");
}

/// Answers each call with its own body.
pub(crate) fn run_echo(socket: &str) {
    let mut echo = Client::connect(Path::new(socket));
    println!("{}", echo.name);
    while let Some(call) = echo.next() {
        if call.kind == METHOD_CALL {
            let to = call.sender.expect("the bus names the sender");
            let fields = [(REPLY_SERIAL, Field::Number(call.serial)), (DESTINATION, Field::Text(&to))];
            echo.send(METHOD_RETURN, &fields, &call.body[4..]);
        }
    }
}

/// A running bus, an echo on it, and a client.
pub(crate) struct DbusEcho {
    bus: Child,
    echo: Child,
    client: Client,
    to: String,
    _folder: tempfile::TempDir,
}

impl DbusEcho {
    pub(crate) fn start(program: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, config) = (folder.path().join("bus"), folder.path().join("config"));
        std::fs::write(&config, CONFIG.replace("SOCKET", &socket.display().to_string())).expect("a file");
        let ours = std::env::current_exe().expect("our own path");
        let mut bus = if program == BROKER {
            let mut apart = Command::new("unshare");
            apart.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" \"$@\""]).arg(&ours);
            apart
        } else {
            Command::new(&ours)
        };
        let bus = bus.args([BUS, program]).args([&socket, &config]);
        let bus = bus.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut echo = Command::new(ours);
        let mut echo = echo.arg(ECHO).arg(&socket).stdout(Stdio::piped()).spawn().expect("an echo");
        let mut to = String::new();
        let from = echo.stdout.take().expect("a pipe");
        BufReader::new(from).read_line(&mut to).expect("the echo's name");
        let client = Client::connect(&socket);
        Self { bus: bus.expect("a bus"), echo, client, to: to.trim().to_owned(), _folder: folder }
    }

    /// All processes but this one.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.bus.id(), self.echo.id()];
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            pids.extend(children.unwrap_or_default().split(' ').filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        pids
    }

    pub(crate) fn round_trip(&mut self) {
        let fields = [
            (PATH, Field::Path("/echo")),
            (MEMBER, Field::Text("Echo")),
            (DESTINATION, Field::Text(&self.to)),
        ];
        self.client.send(METHOD_CALL, &fields, &[7; BYTES]);
        assert_eq!(self.client.answer().body.len(), 4 + BYTES);
    }
}

impl Drop for DbusEcho {
    fn drop(&mut self) {
        drop(self.bus.stdin.take());
        // The echo ends with the bus.
        let _statuses = (self.bus.wait(), self.echo.wait());
    }
}

/// The value of a header field.
enum Field<'a> {
    Path(&'a str),
    Text(&'a str),
    Signature(&'a str),
    Number(u32),
}

/// What was received.
struct Message {
    kind: u8,
    serial: u32,
    sender: Option<String>,
    body: Vec<u8>,
}

/// One connection to a bus.
struct Client {
    socket: UnixStream,
    serial: u32,
    name: String,
}

impl Client {
    fn connect(path: &Path) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let mut socket = loop {
            match UnixStream::connect(path) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
            }
            std::thread::yield_now();
        };
        let uid = hex::encode(rustix::process::geteuid().as_raw().to_string());
        write!(socket, "\0AUTH EXTERNAL {uid}\r\n").expect("a bus that reads");
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("an answer to AUTH");
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"OK "), "{}", String::from_utf8_lossy(&line));
        socket.write_all(b"BEGIN\r\n").expect("a bus that reads");
        let mut client = Self { socket, serial: 0, name: String::new() };
        let bus = "org.freedesktop.DBus";
        let fields =
            [(PATH, Field::Path("/")), (MEMBER, Field::Text("Hello")), (DESTINATION, Field::Text(bus))];
        client.send(METHOD_CALL, &fields, &[]);
        let hello = client.answer().body;
        client.name = String::from_utf8_lossy(&hello[4..hello.len() - 1]).into_owned();
        client
    }

    /// Sends a message; one with a body has an array of bytes in it.
    fn send(&mut self, kind: u8, fields: &[(u8, Field<'_>)], body: &[u8]) {
        self.serial += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("a short message").to_le_bytes();
        let body_bytes = if body.is_empty() { 0 } else { 4 + body.len() };
        let mut message = vec![b'l', kind, 0, 1];
        message.extend(length(body_bytes));
        message.extend(self.serial.to_le_bytes());
        message.extend([0; 4]);
        let signature = [(SIGNATURE, Field::Signature("ay"))];
        for (code, value) in fields.iter().chain(signature.iter().filter(|_| body_bytes > 0)) {
            pad(&mut message);
            let (letter, text) = match value {
                Field::Path(text) => (b'o', *text),
                Field::Text(text) => (b's', *text),
                Field::Signature(text) => (b'g', *text),
                Field::Number(_) => (b'u', ""),
            };
            message.extend([*code, 1, letter, 0]);
            match value {
                Field::Number(number) => message.extend(number.to_le_bytes()),
                Field::Signature(_) => message.push(u8::try_from(text.len()).expect("a short signature")),
                Field::Path(_) | Field::Text(_) => message.extend(length(text.len())),
            }
            if letter != b'u' {
                message.extend(text.as_bytes());
                message.push(0);
            }
        }
        let fields_bytes = length(message.len() - 16);
        message[12..16].copy_from_slice(&fields_bytes);
        pad(&mut message);
        if body_bytes > 0 {
            message.extend(length(body.len()));
            message.extend(body);
        }
        self.socket.write_all(&message).expect("a bus that reads");
    }

    /// The next message; `None` at the end.
    fn next(&mut self) -> Option<Message> {
        let mut head = [0; 16];
        self.socket.read_exact(&mut head).ok()?;
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (body_bytes, fields_bytes) = (number(4) as usize, number(12) as usize);
        let mut rest = vec![0; fields_bytes.next_multiple_of(8) + body_bytes];
        self.socket.read_exact(&mut rest).ok()?;
        let body = rest.split_off(rest.len() - body_bytes);
        Some(Message { kind: head[1], serial: number(8), sender: sender(&rest[..fields_bytes]), body })
    }

    /// The next answer; what the bus tells besides is passed over.
    fn answer(&mut self) -> Message {
        loop {
            let message = self.next().expect("a bus that answers");
            assert_ne!(message.kind, ERROR, "{}", String::from_utf8_lossy(&message.body));
            if message.kind == METHOD_RETURN {
                return message;
            }
        }
    }
}

/// Fields begin at a multiple of eight.
fn pad(message: &mut Vec<u8>) {
    message.resize(message.len().next_multiple_of(8), 0);
}

/// The sender among the fields of a header.
fn sender(fields: &[u8]) -> Option<String> {
    let mut at = 0;
    while let [code, _, letter, _, rest @ ..] = fields.get(at..)? {
        let (skipped, text) = match letter {
            b'u' => (4, 0),
            b'g' => (1, usize::from(*rest.first()?) + 1),
            _ => (4, u32::from_le_bytes(*rest.first_chunk()?) as usize + 1),
        };
        if *code == SENDER {
            return Some(String::from_utf8_lossy(rest.get(skipped..skipped + text - 1)?).into_owned());
        }
        at = (at + 4 + skipped + text).next_multiple_of(8);
    }
    None
}
