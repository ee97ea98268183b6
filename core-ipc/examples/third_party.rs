//! A daemon of someone else: it has been enrolled (`pds enroll NAME --key-file FILE`), an access rule lets it read a
//! secret, and it writes the secret's value to standard output, one line each time it is another one.
//!
//! `cargo run --example third_party -- FILE PROFILE SECRET`; tests run it against whole systems.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use core_ipc::blocking::Client;
use core_ipc::{CallOptions, key_file};
use core_types::paths::Paths;
use core_types::protocol::Topic;
use core_types::protocol::bus::Subscribe;
use core_types::protocol::secrets::Get;
use core_types::{ProfileName, WireSecret};

/// How long to wait for the bus.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may happen before it is looked whether the connection stands.
const QUIET: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    match watch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A denial says why, and never what the value is.
            let _nobody_may_listen = writeln!(std::io::stderr(), "third_party: {error}");
            ExitCode::FAILURE
        }
    }
}

fn watch() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, profile, name] = arguments.as_slice() else {
        return Err("usage: third_party KEY-FILE PROFILE SECRET".into());
    };
    let identity = key_file::read(Path::new(file))?;
    let mut client = Client::connect_as(identity, &Paths::from_environment()?, PATIENCE)?;
    // First, so that no change between the first reading and the subscription is missed.
    client.call(&Subscribe { topic: Topic::SecretsChanged }, CallOptions::default())?;
    let get = Get { profile: ProfileName::parse(profile.as_str())?, name: name.clone(), version: None };
    let mut last = None;
    loop {
        let value = client.call(&get, CallOptions::default())?;
        if last.as_ref().map(WireSecret::expose) != Some(value.expose()) {
            let mut output = std::io::stdout().lock();
            output.write_all(value.expose())?;
            output.write_all(b"\n")?;
            output.flush()?;
            last = Some(value);
        }
        while client.next_event(QUIET)?.is_none() {}
    }
}
