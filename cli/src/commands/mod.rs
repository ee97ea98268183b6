//! The commands: one file each, and the one place that runs them and reports how they ended.

mod answer;
mod audit;
mod backup;
mod completions;
mod config;
mod daemon;
mod doctor;
mod edit;
mod enroll;
mod env;
mod explain;
mod export;
mod factor;
mod get;
mod grant;
mod history;
mod import;
mod init;
mod inject;
mod list;
mod lock;
mod logs;
mod man;
mod mount;
mod mv;
mod passwd;
mod profile;
mod ps;
mod qr;
mod reads;
mod recovery;
mod rekey;
mod restore_backup;
mod rm;
pub(crate) mod run;
mod scan;
mod set;
mod show;
mod status;
mod totp;
mod unlock;
mod wait;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use core_ipc::CallError;
use core_types::child::environment::split;
use core_types::header::Refusal;
use core_types::protocol::launcher::{Files, Handed, OsBytes, Pin};
use core_types::reference::SecretReference;

pub(crate) use self::answer::HelperError;
pub(crate) use self::completions::Question;
pub(crate) use self::edit::EditError;
pub(crate) use self::mount::MountError;
pub(crate) use self::qr::CodeError;
use self::run::{RunError, RunPlan};
pub(crate) use self::scan::ScanError;
use crate::args::{
    Args, AuditCommand, Command, ConfigCommand, DaemonCommand, ProfileCommand, RunOptions, SelectionOptions,
};
use crate::env_file;
use crate::error::Failure;
use crate::output::{Messages, shown};
use crate::project::{self, ProjectFileError, Wanted};
use crate::session::Session;

/// Runs the command of a command line, and answers the exit code of the process.
pub(crate) fn run(args: Args) -> ExitCode {
    let Args { options, command } = args;
    let messages = Messages::new(&options);
    // These are made while pds is installed, where there need not be a user's folder yet.
    let made = match &command {
        Command::Man(options) => Some(man::run(&messages, &options.folder)),
        Command::Completions(options) => Some(completions::run(options.shell)),
        _ => None,
    };
    if let Some(made) = made {
        let failed = |failure: Failure| failure.report(Some(&command), None, &messages);
        return made.map_or_else(failed, |()| ExitCode::SUCCESS);
    }
    let mut session = match Session::new(options) {
        Ok(session) => session,
        Err(failure) => return failure.report(Some(&command), None, &messages),
    };
    let result = execute(&command, &mut session);
    // What was written before a failure is data as well, and is written out before the failure is told.
    let written = session.output.finish();
    match result.and_then(|code| written.map(|()| code)) {
        Ok(code) => code,
        Err(failure) => failure.report(Some(&command), session.profile_used(), &messages),
    }
}

fn execute(command: &Command, session: &mut Session) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(options) => init::run(session, options),
        Command::Unlock(options) => unlock::run(session, options),
        Command::Lock => lock::run(session),
        Command::Wait(options) => wait::run(session, options.hold),
        Command::Status => status::run(session),
        Command::Doctor => doctor::run(session),
        Command::Man(options) => man::run(&session.messages, &options.folder),
        Command::Completions(options) => completions::run(options.shell),
        Command::Backup(options) => backup::run(session, &options.file, options.force),
        Command::RestoreBackup(options) => restore_backup::run(session, options),
        Command::Set(options) => set::run(session, options),
        Command::Get(options) => get::run(session, options.name.as_deref(), options.version),
        Command::Edit(options) => edit::run(session, &options.name),
        Command::Qr(options) => qr::run(session, options),
        Command::Totp(options) => totp::run(session, &options.name),
        Command::List(options) => list::run(session, options.pattern.as_ref(), options.long),
        Command::Rm(options) => rm::run(session, &options.names, options.yes),
        Command::Mv(options) => mv::run(session, &options.from, &options.to, options.yes),
        Command::History(options) => history::list(session, &options.name),
        Command::Restore(options) => history::restore(session, &options.name, options.version),
        Command::Purge(options) => history::purge(session, &options.name, options.yes),
        Command::Read(options) => get::follow(session, &options.reference),
        Command::Inject(options) => inject::run(session, options),
        Command::Env(options) => env::run(session, options),
        Command::Run(options) => return launch(session, options),
        Command::Helper(helper) => answer::run(session, helper),
        Command::Scan(options) => scan::run(session, options),
        Command::Import(options) => import::run(session, options),
        Command::Export(options) => export::run(session, options),
        Command::Mount(options) => mount::mount(session, options),
        Command::Umount(options) => mount::umount(session, &options.folder),
        Command::Ps => ps::run(session),
        Command::Passwd(options) => passwd::run(session, options),
        Command::Rekey(options) => rekey::run(session, options),
        Command::Factor(command) => factor::run(session, command),
        Command::Recovery(command) => recovery::run(session, command),
        Command::Enroll(options) => enroll::enroll(session, options),
        Command::Enrolled => enroll::list(session),
        Command::Revoke(options) => enroll::revoke(session, &options.name),
        Command::Config(ConfigCommand::Check { file }) => config::run(session, file.as_deref()),
        Command::Grant(options) => grant::grant(session, options),
        Command::Grants => grant::list(session),
        Command::RevokeGrant(options) => grant::revoke(session, options.id),
        Command::Explain(options) => explain::run(session, options),
        Command::Profile(ProfileCommand::List) => profile::list(session),
        Command::Audit(AuditCommand::Tail { count, follow }) => audit::tail(session, *count, *follow),
        Command::Audit(AuditCommand::Show { secret, since, requester }) => {
            let of_profile = session.names_profile();
            let (secret, requester) = (secret.as_deref(), requester.as_deref());
            show::run(session, &show::Sought { secret, requester, since: *since, of_profile })
        }
        Command::Audit(AuditCommand::Verify) => audit::verify(session),
        Command::Audit(AuditCommand::Unused { since }) => reads::unused(session, *since),
        Command::Audit(AuditCommand::Age { over }) => reads::age(session, *over),
        Command::Daemon(DaemonCommand::Start) => daemon::start(session),
        Command::Daemon(DaemonCommand::Stop) => daemon::stop(session),
        Command::Daemon(DaemonCommand::Restart) => daemon::restart(session),
        Command::Daemon(DaemonCommand::Logs { count, follow }) => logs::run(session, *count, *follow),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// `pds run`: what it needs of the session, around what it does.
fn launch(session: &mut Session, options: &RunOptions) -> Result<ExitCode, Failure> {
    let mut wanted = wanted(session, &options.selected, options.no_project)?;
    let profiles = session.profiles()?;
    let witness = session.paths.witness();
    let variables = env_file::read_all(&options.selected.env_files)?;
    if options.files.is_some() {
        // What the project says of variables is not meant for files.
        (wanted.mappings, wanted.prefix) = (Vec::new(), String::new());
    }
    if let (true, Some(_), Some(path)) = (options.here, &wanted.files, &wanted.project) {
        return Err(ProjectFileError::FilesAndOption { path: path.clone(), option: "--here" }.into());
    }
    let folder = options.files.as_ref().or(wanted.files.as_ref());
    let files = folder.map(|folder| wanted_files(folder.as_deref(), options.owner)).transpose()?;
    let pin = match options.pin {
        Some(image) => Some(Pin::Image(image)),
        // Rules of programs are asked by the launcher alone.
        None if options.here => None,
        None => session.gives_to_named_programs(&profiles, refers(&variables)).then_some(Pin::Ruled),
    };
    let messages = session.messages;
    let plan = || RunPlan {
        profiles: profiles.clone(),
        selection: wanted.selection.clone(),
        mappings: wanted.mappings.clone(),
        prefix: wanted.prefix.clone(),
        variables: variables.clone(),
        handed: Handed {
            descriptors: options.descriptors.clone(),
            stdin: options.stdin.clone(),
            files: files.clone(),
        },
        command: options.command.clone(),
        witness: witness.clone(),
        mask: options.mask,
        pin,
        messages,
    };
    if options.here {
        return run::run_here(session, plan());
    }
    let undelivered =
        |error: &RunError| matches!(error, RunError::Call(CallError::Refused(Refusal::ServiceUnknown)));
    let end = Instant::now() + session.usual_deadline();
    Ok(session.until_delivered(end, |client, left| run::run(client, plan(), left), undelivered)??)
}

/// Whether a variable of the command may be a reference to a secret, of whatever profile.
fn refers(variables: &[OsBytes]) -> bool {
    let meant = |pair: &OsBytes| SecretReference::is_meant_by(split(pair.expose()).1);
    let inherited = |(_, value): (OsString, OsString)| SecretReference::is_meant_by(value.as_bytes());
    variables.iter().any(meant) || std::env::vars_os().any(inherited)
}

/// What `--files` asks for; the folder by its whole path, because the launcher stands elsewhere.
fn wanted_files(folder: Option<&Path>, owner: Option<(u32, u32)>) -> Result<Files, Failure> {
    let whole = |folder: &Path| -> std::io::Result<String> {
        let whole = std::fs::canonicalize(folder)?;
        whole.into_os_string().into_string().map_err(|_| std::io::ErrorKind::InvalidInput.into())
    };
    let folder = folder.map(whole).transpose();
    let folder =
        folder.map_err(|source| Failure::Child { what: "the folder of --files cannot be used", source })?;
    Ok(Files { folder, owner })
}

/// What a command is to be given, by its command line and the project file of its working directory.
fn wanted(session: &mut Session, options: &SelectionOptions, no_project: bool) -> Result<Wanted, Failure> {
    // Without a working directory there is no project.
    let folder = std::env::current_dir().ok().filter(|_| !no_project);
    let found = folder.map(|folder| project::find(&folder)).transpose()?.flatten();
    if let Some(found) = &found {
        session.messages.detail(shown(&found.told()));
    }
    let wanted = project::wanted(options, found.as_ref())?;
    session.set_profile_of_project(wanted.profile.clone());
    Ok(wanted)
}
