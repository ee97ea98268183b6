//! The `pds` binary: closes the process to onlookers, reads the command line, runs one command.

mod agent;
mod args;
mod assignments;
mod commands;
mod completion;
mod desk;
mod editor;
mod env_file;
mod error;
mod expiry;
mod fetch;
mod fields;
mod flow;
mod generate;
mod import;
mod input;
mod kubernetes;
mod lazy;
mod manual_page;
mod mask;
mod new_file;
mod output;
mod picker;
mod progress;
mod project;
mod prompt;
mod proofs;
mod redirect;
mod session;
mod shown_forms;
mod start;
mod stop;
mod terminal;
mod totp;
mod units;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes whatever is freed: values pass through buffers of libraries too.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    if let Err(failure) = refuse_dumps() {
        return failure.report(None, None, &output::Messages::plain());
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(question) = commands::Question::of(&arguments) {
        return question.answer();
    }
    match args::parse(arguments) {
        Ok(args) => commands::run(args),
        Err(usage) => usage.report(),
    }
}

/// Makes the process unreadable to the user's other processes, and keeps it from leaving a core file (prctl(2)
/// `PR_SET_DUMPABLE`: no dump is written at all then, so the core limit stays as the child of `pds run` shall see it).
fn refuse_dumps() -> Result<(), error::Failure> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|errno| error::Failure::Hardening(errno.into()))
}
