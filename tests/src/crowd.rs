//! Processes besides the tests' own that connect to a bus, since the bus gives each process a share: the program
//! `crowd` and what a test does with it.

use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use core_types::header::Seal;
use core_types::name::{BUS, PROFILE, SECRETS};
use core_types::paths::Paths;
use core_types::protocol::bus::{BusRequest, Peers};
use core_types::protocol::encode;
use core_types::protocol::profile::{AuditStatus, ProfileRequest};

use crate::hostile::{Hostile, request_header};
use crate::{System, programs};

/// Requests that a flooding client sends on one connection.
const REQUESTS_A_CONNECTION: usize = 100;

/// What the processes do.
#[derive(Debug, Clone, Copy)]
pub enum Doing {
    /// Each client asks for as much as it can, and reads no answer that it need not read.
    Flood,
    /// Each client connects and asks nothing.
    Hold,
}

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Hold => "hold",
        }
    }
}

/// Running processes; dropping them ends them.
pub struct Crowd(Vec<Child>);

impl Crowd {
    /// Starts so many processes with so many clients each, and waits until each has begun.
    ///
    /// # Panics
    /// They cannot be started, or do not begin.
    #[must_use]
    pub fn start(system: &System, processes: usize, clients: usize, doing: Doing) -> Self {
        let start = |_| {
            std::process::Command::new(programs::program("crowd"))
                .args([doing.word(), &clients.to_string()])
                .env_clear()
                .envs(system.environment())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the program is built")
        };
        let mut crowd = Self((0..processes).map(start).collect());
        for process in &mut crowd.0 {
            let mut word = [0; 1];
            let output = process.stdout.as_mut().expect("a pipe");
            output.read_exact(&mut word).expect("the process begins");
        }
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // All are told before any is waited for.
        for process in &mut self.0 {
            let _gone_already = process.kill();
        }
        for process in &mut self.0 {
            let _status = process.wait();
        }
    }
}

/// The whole of the program `crowd`: does what its arguments say until its standard input ends.
///
/// # Panics
/// The arguments or the environment are not as [`Crowd::start`] makes them.
pub fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, doing, clients] = arguments.as_slice() else { panic!("what to do, and how many clients") };
    let clients: usize = clients.parse().expect("how many clients");
    let paths = Paths::from_environment().expect("folders");
    let held: Vec<Hostile> = match doing.as_str() {
        "hold" => (0..clients).map(|_| Hostile::try_connect(&paths).expect("a place")).collect(),
        _ => {
            for number in 0..clients {
                let paths = paths.clone();
                std::thread::spawn(move || flood(&paths, number));
            }
            Vec::new()
        }
    };
    std::io::stdout().write_all(b"r").expect("a parent that listens");
    std::io::stdout().flush().expect("a parent that listens");
    let _end = std::io::stdin().read(&mut [0; 1]);
    drop(held);
}

/// Asks for as much as the bus takes, on one connection after the other, of the bus and of two services.
fn flood(paths: &Paths, number: usize) {
    let status = encode(&ProfileRequest::AuditStatus(AuditStatus {})).expect("a message");
    let own = encode(&BusRequest::Peers(Peers {})).expect("a message");
    loop {
        let Some(mut flooder) = Hostile::try_connect(paths) else {
            // Refused at once, as it may be when the bus has gone: no reason to keep a processor busy.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        for round in 0..REQUESTS_A_CONNECTION {
            let sent = match (number + round) % 3 {
                0 => flooder.try_send(&request_header(PROFILE, 6, Seal::None), &status),
                1 => flooder.try_send(&request_header(BUS, 0, Seal::None), &own),
                // Not what it should be, which the service has to find out.
                _ => flooder.try_send(&request_header(SECRETS, 1, Seal::Handshake), &[9; 96]),
            };
            if !sent {
                break;
            }
        }
    }
}
