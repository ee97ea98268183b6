//! `pds env`: assignments of the variables that `pds run` would set.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use core_types::WireSecret;
use core_types::child::environment::{FIRST_DESCRIPTOR, environment, split};
use core_types::child::references;
use core_types::protocol::launcher::Run;
use core_types::protocol::secrets::NamedSecret;

use crate::args::{EnvFormat, EnvOptions};
use crate::assignments;
use crate::env_file;
use crate::error::Failure;
use crate::fetch::{self, denied};
use crate::project::Wanted;
use crate::session::Session;

pub(super) fn run(session: &mut Session, options: &EnvOptions) -> Result<(), Failure> {
    let wanted = super::wanted(session, &options.selected, options.no_project)?;
    let variables = variables(session, wanted, &options.selected.env_files, fetch::selected)?;
    let variables: Vec<(&[u8], &[u8])> = variables.iter().map(|pair| split(pair.expose())).collect();
    let format = if session.output.wants_json() { EnvFormat::Json } else { options.format };
    let text = assignments::written(format, &variables)?;
    if std::io::stdout().is_terminal() {
        session.messages.note(format!(
            "careful: here come {} values in clear, onto this terminal and into what it keeps",
            variables.len()
        ));
    }
    session.output.prepared(&text)
}

/// The variables that `pds run` would set, as `NAME=value`; `read` reads what is selected by its own names.
pub(super) fn variables(
    session: &mut Session,
    wanted: Wanted,
    env_files: &[PathBuf],
    read: impl FnOnce(&mut Session, &Run) -> Result<Vec<NamedSecret>, Failure>,
) -> Result<Vec<WireSecret>, Failure> {
    let run = Run {
        profiles: session.profiles()?,
        selection: wanted.selection,
        mappings: wanted.mappings,
        prefix: wanted.prefix,
        environment: env_file::read_all(env_files)?,
        ..Run::default()
    };
    let referrals = references::find(&run.environment).map_err(denied)?;
    let secrets = read(session, &run)?;
    let resolved = fetch::referred(session, referrals)?;
    // The profile is what the caller of a program is told; a shell would go by it from now on.
    let run = Run { profiles: Vec::new(), ..run };
    environment(&run, &secrets, &resolved, FIRST_DESCRIPTOR..).map_err(denied)
}
