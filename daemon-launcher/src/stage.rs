//! The stage: the process that becomes the command. It gets the secrets straight from the launcher, gives itself
//! the caller's umask, limits, directory and streams, and executes.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use core_types::child::environment::{FIRST_DESCRIPTOR, split};
use core_types::protocol::launcher::{Inherited, OsBytes, ResourceLimit};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::Mode;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, fchdir, getrlimit, setpriority_process, setrlimit, umask};

use crate::handover::{StagePlan, StageReport, Step, StepError, receive, send};
use crate::ignored;
use crate::secret_files;

/// All limits there are (getrlimit(2)).
const RESOURCES: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// The number of the first file that the command gets besides its streams.
const FIRST_NUMBER: i32 = FIRST_DESCRIPTOR as i32;
/// How many descriptors come with a plan besides such files.
const OTHERS: usize = 4;

/// What a stage says to its monitor before it executes the command.
pub(crate) const EXECUTING: u8 = b'>';
/// What it says after that, if it has not become the command.
pub(crate) const NOT_EXECUTED: u8 = b'!';

/// The whole life of a stage, with its socket to the launcher and its pipe to the monitor. It returns only if the command
/// could not be executed.
#[must_use]
pub(crate) fn run(launcher: UnixStream, monitor: OwnedFd) -> ExitCode {
    let received = receive::<StagePlan>(&launcher).map_err(StepError::at(Step::Plan));
    let files = received.as_ref().map_or(0, |(plan, descriptors)| files_among(plan, descriptors));
    let (Ok(launcher), Ok(monitor)) =
        (out_of_the_way(launcher.into(), files), out_of_the_way(monitor, files))
    else {
        // The launcher sees the end of a socket that never said `Executing`.
        return ExitCode::FAILURE;
    };
    let launcher = UnixStream::from(launcher);
    let error = become_command(received, &launcher, &monitor);
    let _ = rustix::io::write(&monitor, &[NOT_EXECUTED]);
    // If this fails too, it sees the same.
    let _ = send(&launcher, &StageReport::Failed(error), &[]);
    ExitCode::FAILURE
}

/// Executes the command the plan names, or says what went wrong.
fn become_command(
    received: Result<(StagePlan, Vec<OwnedFd>), StepError>,
    socket: &UnixStream,
    monitor: &OwnedFd,
) -> StepError {
    let prepared =
        received.and_then(|(plan, descriptors)| prepare_command(&plan, descriptors, socket, monitor));
    match prepared {
        Err(error) => error,
        Ok((mut command, _image)) => StepError::new(Step::Execute, command.exec()),
    }
}

/// How many of the descriptors that came with a plan the command gets as open files.
fn files_among(plan: &StagePlan, descriptors: &[OwnedFd]) -> usize {
    descriptors.len().saturating_sub(OTHERS + usize::from(plan.has_image))
}

fn prepare_command(
    plan: &StagePlan,
    descriptors: Vec<OwnedFd>,
    socket: &UnixStream,
    monitor: &OwnedFd,
) -> Result<(Command, Option<OwnedFd>), StepError> {
    let files = files_among(plan, &descriptors);
    let moved = descriptors.into_iter().map(|descriptor| out_of_the_way(descriptor, files));
    let moved: Vec<OwnedFd> = moved.collect::<Result<_, _>>().map_err(StepError::at(Step::Plan))?;
    let mut moved = moved.into_iter();
    let mut next = || moved.next().ok_or_else(|| StepError::new(Step::Plan, Errno::BADMSG));
    let (input, output, error, directory) = (next()?, next()?, next()?, next()?);
    let mut files: Vec<OwnedFd> = moved.collect();
    let image = files.pop_if(|_| plan.has_image);
    let (program, arguments) =
        plan.arguments.split_first().ok_or_else(|| StepError::new(Step::Plan, Errno::INVAL))?;

    let mut command = match &image {
        // By its own path, which for a file in memory is no other (proc(5)).
        Some(image) => Command::new(format!("/proc/self/fd/{}", image.as_raw_fd())),
        None => Command::new(os_str(program)),
    };
    command.arg0(os_str(program));
    command.args(arguments.iter().map(os_str)).env_clear().envs(plan.environment.iter().map(variable));
    command.stdin(input).stdout(output).stderr(error);

    hand_on(&files).map_err(StepError::at(Step::Prepare))?;
    fchdir(&directory).map_err(StepError::at(Step::Directory))?;
    // After that, because a descriptor leads to the mounts that are left.
    plan.files.iter().try_for_each(secret_files::make).map_err(StepError::at(Step::Files))?;
    umask(Mode::from_bits_truncate(plan.umask));
    take_over(&plan.inherited).map_err(StepError::at(Step::Prepare))?;
    send(socket, &StageReport::Executing, &[]).map_err(StepError::at(Step::Plan))?;
    rustix::io::write(monitor, &[EXECUTING]).map_err(StepError::at(Step::Plan))?;
    // Last, because a low limit on memory or descriptors would hit this process too.
    set_limits(&plan.limits).map_err(StepError::at(Step::Limits))?;
    Ok((command, image))
}

/// The same descriptor with a number that none of so many files of the command is to have; close-on-exec.
fn out_of_the_way(descriptor: OwnedFd, files: usize) -> Result<OwnedFd, Errno> {
    match i32::try_from(files) {
        Ok(0) => Ok(descriptor),
        Ok(files) => fcntl_dupfd_cloexec(&descriptor, FIRST_NUMBER + files),
        Err(_) => Err(Errno::MFILE),
    }
}

/// Lets the command inherit these files, under the numbers from the first after the streams on.
fn hand_on(files: &[OwnedFd]) -> nix::Result<()> {
    for (file, number) in files.iter().zip(FIRST_NUMBER..) {
        // The lowest that is free, which is this one: everything else was moved up.
        if fcntl(file, FcntlArg::F_DUPFD(number))? != number {
            return Err(nix::Error::EBADF);
        }
    }
    Ok(())
}

fn os_str(bytes: &OsBytes) -> &OsStr {
    OsStr::from_bytes(bytes.expose())
}

fn variable(pair: &OsBytes) -> (&OsStr, &OsStr) {
    let (name, value) = split(pair.expose());
    (OsStr::from_bytes(name), OsStr::from_bytes(value))
}

/// Ignores and holds back the signals that the caller does, and leaves the processor to others as it does.
fn take_over(inherited: &Inherited) -> io::Result<()> {
    // A process that is less nice than the launcher's spawner cannot be made: the child is as nice as that then.
    let _may_be_forbidden = setpriority_process(None, inherited.nice);
    ignored::ignore(signals(inherited.ignored_signals))?;
    // The monitor started this process with all signals blocked; one that came meanwhile strikes here.
    Ok(signals(inherited.blocked_signals).collect::<SigSet>().thread_set_mask()?)
}

/// The signals of a mask, without the real-time ones.
fn signals(mask: u64) -> impl Iterator<Item = Signal> {
    Signal::iterator().filter(move |signal| mask & (1 << (*signal as i32 - 1)) != 0)
}

/// Sets the caller's limits; a ceiling that this process may not raise stays where it is.
fn set_limits(limits: &[ResourceLimit]) -> Result<(), Errno> {
    for resource in RESOURCES {
        if let Some(limit) = limits.iter().find(|limit| limit.resource == resource as u32) {
            let wanted = Rlimit { current: limit.soft, maximum: limit.hard };
            match setrlimit(resource, wanted) {
                Err(Errno::PERM) => setrlimit(resource, lowered(wanted, getrlimit(resource).maximum))?,
                done => done?,
            }
        }
    }
    Ok(())
}

/// The limits nearest to `wanted` under a ceiling; `None` is "unlimited".
fn lowered(wanted: Rlimit, ceiling: Option<u64>) -> Rlimit {
    let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let maximum = least(wanted.maximum, ceiling);
    Rlimit { current: least(wanted.current, maximum), maximum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_lowers_what_is_above_it_and_nothing_else() {
        let limits = |current, maximum| Rlimit { current, maximum };
        for (wanted, ceiling, expected) in [
            (limits(Some(5), Some(9)), Some(7), limits(Some(5), Some(7))),
            (limits(Some(8), Some(9)), Some(7), limits(Some(7), Some(7))),
            (limits(None, None), Some(7), limits(Some(7), Some(7))),
            (limits(Some(5), Some(6)), Some(7), limits(Some(5), Some(6))),
            (limits(None, None), None, limits(None, None)),
        ] {
            let found = lowered(wanted, ceiling);
            assert_eq!((found.current, found.maximum), (expected.current, expected.maximum));
        }
    }
}
