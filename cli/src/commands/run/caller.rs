//! What a child takes over from the caller of `pds run`: environment, umask, resource limits and streams.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use core_ipc::namespaces;
use core_types::WireSecret;
use core_types::child::environment::split;
use core_types::protocol::launcher::{Inherited, OsBytes, ResourceLimit, Standing, WITNESS_FILE};
use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getpriority_process, getrlimit, umask};

use super::signals;

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

/// A string of the operating system, as it travels.
pub(super) fn os_bytes(text: OsString) -> OsBytes {
    WireSecret::new(text.into_vec())
}

/// The environment, as `NAME=value`, with these variables in the place of those of the same names.
pub(super) fn environment(variables: Vec<OsBytes>) -> Vec<OsBytes> {
    let replaced: BTreeSet<_> = variables.iter().map(|pair| split(pair.expose()).0.to_vec()).collect();
    let pair = |(name, value): (OsString, OsString)| {
        let mut text = name.into_vec();
        text.push(b'=');
        text.append(&mut value.into_vec());
        WireSecret::new(text)
    };
    let inherited = std::env::vars_os().filter(|(name, _)| !replaced.contains(name.as_bytes()));
    inherited.map(pair).chain(variables).collect()
}

/// The umask. It is changed for a moment to be read, so no other thread may make a file meanwhile.
pub(super) fn file_mode_mask() -> u32 {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    mask.as_raw_mode()
}

/// All resource limits.
pub(super) fn limits() -> Vec<ResourceLimit> {
    let limit = |resource| {
        let found = getrlimit(resource);
        ResourceLimit { resource: resource as u32, soft: found.current, hard: found.maximum }
    };
    RESOURCES.into_iter().map(limit).collect()
}

/// How signals come to this process, and how nice it is.
///
/// # Errors
/// /proc cannot be read.
pub(super) fn inherited() -> io::Result<Inherited> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    // Rust's own start ignores it, so that nobody can tell whether the caller did.
    let ignored_signals = signals::mask(&status, "SigIgn") & !signals::bit(Signal::SIGPIPE);
    let blocked_signals = signals::mask(&status, "SigBlk");
    Ok(Inherited { ignored_signals, blocked_signals, nice: getpriority_process(None)? })
}

/// Duplicates of standard input, output and error. Without input, the first is empty: a terminal that the child does not
/// read from is none of its streams.
pub(super) fn streams(without_input: bool) -> io::Result<[OwnedFd; 3]> {
    let input = if without_input {
        File::open("/dev/null")?.into()
    } else {
        io::stdin().as_fd().try_clone_to_owned()?
    };
    Ok([input, io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?])
}

/// The working directory itself, which may have no path any more.
pub(super) fn directory() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(".", flags, Mode::empty())?)
}

/// Where this process stands, so that the launcher can tell that it is not confined; `witness` leads to the launcher's
/// witness.
pub(super) fn standing(witness: &Path) -> Standing {
    let word = witness_word(witness).unwrap_or_default();
    Standing { witness: WireSecret::new(word.into_bytes()), namespaces: namespaces::of("self") }
}

/// The word in the name of a file of the witness, which has no path: `/memfd:NAME (deleted)`. Nothing is opened, because
/// the process may be another one by now.
fn witness_word(witness: &Path) -> Option<String> {
    let name = std::fs::read_link(std::fs::read_link(witness).ok()?).ok()?;
    let name = name.to_str()?.strip_prefix("/memfd:")?.strip_prefix(WITNESS_FILE)?;
    Some(name.split(' ').next()?.to_owned())
}
