//! `pds run --here`: this process itself becomes the command, with the secrets that the launcher would have given it.
//!
//! For callers that the launcher starts nothing for, and for containers. What the command gets is decided by the same
//! code; what it inherits is whatever this process has.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use core_crypto::{program_image, sealed_file};
use core_types::SecretName;
use core_types::child::environment::{environment, find, split};
use core_types::child::references;
use core_types::limits::SECRET_DESCRIPTORS_MAX;
use core_types::program::ImageDigest;
use core_types::protocol::launcher::{ControllingTerminal, LauncherDenial, OsBytes, Pin, Run};
use core_types::protocol::secrets::NamedSecret;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::stdio::dup2_stdin;

use super::{RunError, RunPlan, describe, program};
use crate::error::Failure;
use crate::fetch::{self, denied};
use crate::session::Session;

/// Becomes the command. Returns only to say why not.
///
/// # Errors
/// The command could not be executed, and never ran.
pub(crate) fn run_here(session: &mut Session, request: RunPlan) -> Result<ExitCode, Failure> {
    let image = pinned(&request)?;
    let call = describe(request, ControllingTerminal::Absent)
        .map_err(RunError::at("what the command inherits cannot be read"))?;
    let referrals = references::find(&call.environment).map_err(denied)?;
    let secrets = fetch::selected(session, &call)?;
    let resolved = fetch::referred(session, referrals)?;
    // Not its descriptor either is to reach the command, or to stand where one of the command's own is to be.
    session.disconnect();
    let files = hand_on(&call, &secrets)?;
    let numbers = files.iter().filter_map(|file| u32::try_from(file.as_raw_fd()).ok());
    let environment = environment(&call, &secrets, &resolved, numbers).map_err(denied)?;
    drop((secrets, resolved));
    let mut command = command(&call, &environment, image.as_ref())?;
    Err(not_executed(&command.exec()))
}

/// Opens the files that the command is to get besides its streams, and puts a secret in the place of its input.
fn hand_on(run: &Run, secrets: &[NamedSecret]) -> Result<Vec<OwnedFd>, Failure> {
    if run.handed.descriptors.len() > SECRET_DESCRIPTORS_MAX {
        return Err(denied(LauncherDenial::Invalid("too many secrets as descriptors".to_owned())));
    }
    let failed = |error: io::Error| -> Failure {
        RunError::at("a secret cannot be handed on as an open file")(error).into()
    };
    let file = |name: &SecretName| -> Result<OwnedFd, Failure> {
        sealed_file(find(secrets, name).map_err(denied)?.value.expose()).map_err(failed)
    };
    if let Some(name) = &run.handed.stdin {
        dup2_stdin(file(name)?).map_err(|error| failed(error.into()))?;
    }
    let files: Vec<OwnedFd> = run.handed.descriptors.iter().map(file).collect::<Result<_, _>>()?;
    for file in &files {
        fcntl_setfd(file, FdFlags::empty()).map_err(|error| failed(error.into()))?;
    }
    Ok(files)
}

/// The command's file in memory, if it is pinned to what is in it.
fn pinned(request: &RunPlan) -> Result<Option<OwnedFd>, Failure> {
    // Rules of programs are the launcher's.
    let Some(Pin::Image(expected)) = request.pin else { return Ok(None) };
    let name = request.command.first().map(OsString::as_os_str).unwrap_or_default();
    let file = program::open(name, &request.variables).map_err(denied)?;
    let image = program_image(file).map_err(|error| denied(LauncherDenial::Unpinnable(error.to_string())))?;
    match ImageDigest::new(image.hash) {
        found if found == expected => Ok(Some(image.file)),
        found => Err(denied(LauncherDenial::OtherImage { expected, found })),
    }
}

fn command(run: &Run, environment: &[OsBytes], image: Option<&OwnedFd>) -> Result<Command, Failure> {
    let no_command = || denied(LauncherDenial::Invalid("no command".to_owned()));
    let (program, arguments) = run.arguments.split_first().ok_or_else(no_command)?;
    let name = OsStr::from_bytes(program.expose());
    let mut command = match image {
        // By its own path, which for a file in memory is no other (proc(5)).
        Some(image) => Command::new(format!("/proc/self/fd/{}", image.as_raw_fd())),
        None => Command::new(name),
    };
    command.arg0(name);
    command.args(arguments.iter().map(|argument| OsStr::from_bytes(argument.expose())));
    command.env_clear().envs(environment.iter().map(variable));
    Ok(command)
}

fn variable(pair: &OsBytes) -> (&OsStr, &OsStr) {
    let (name, value) = split(pair.expose());
    (OsStr::from_bytes(name), OsStr::from_bytes(value))
}

/// Tells by the codes of a shell why the command was not executed.
fn not_executed(error: &io::Error) -> Failure {
    use io::ErrorKind::{ArgumentListTooLong, NotFound, OutOfMemory, WouldBlock};
    denied(match error.kind() {
        NotFound => LauncherDenial::NotFound,
        ArgumentListTooLong | OutOfMemory | WouldBlock => LauncherDenial::Spawn(error.to_string()),
        _ => LauncherDenial::NotExecutable(error.to_string()),
    })
}
