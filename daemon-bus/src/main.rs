//! The bus daemon: `daemon-bus` carries the traffic, on a socket of its own or on one that systemd gives it;
//! `daemon-bus --supervise` starts and watches all daemons of a user where systemd does not.

mod accounts;
mod bus;
mod enroll;
mod facts;
mod log_file;
mod newcomers;
mod own;
mod peer;
mod poll;
mod router;
mod standby;
mod supervise;
mod turns;
mod vouchers;

use std::process::ExitCode;

use core_daemon::Process;
use core_daemon::process::report;
use core_types::name::BUS;

fn main() -> ExitCode {
    let argument = std::env::args_os().nth(1);
    let is = |word: &str| argument.as_deref().is_some_and(|argument| argument == word);
    if is("--supervise") {
        return supervise::main();
    }
    if is(standby::STANDBY) {
        return standby::main();
    }
    let supervised = is(supervise::SUPERVISED);
    let outcome = Process::start(BUS, false).and_then(|process| bus::serve(&process.paths, supervised));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(BUS, &error),
    }
}
