//! One request: what is selected is fetched, put into an environment, handed to a new child, and forgotten.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use core_crypto::{SecureBytes, checksum, private_fs, sealed_file};
use core_daemon::{Answer, Caller, Context, Room, Serve, StartError, answer, inherited_listener};
use core_ipc::{BusClient, CallError, CallOptions};
use core_types::child::batches;
use core_types::child::environment::{FIRST_DESCRIPTOR, environment, find, given, with_variable};
use core_types::child::files::{FOLDER_VARIABLE, files};
use core_types::limits::{ARGUMENTS_MAX, MASKED_BYTES_MAX, SECRET_DESCRIPTORS_MAX, SELECTION_MAX};
use core_types::paths::Paths;
use core_types::program::Program;
use core_types::protocol::launcher::{
    ControllingTerminal, LauncherDenial, LauncherRequest, LauncherService, OsBytes, Pin, RUN_DESCRIPTORS,
    Run, Started,
};
use core_types::protocol::profile::{ChildRecord, Requester, SecretOperationAudit};
use core_types::protocol::secrets::{GetBatch, List, NamedSecret, SecretsDenial, Selection};
use core_types::protocol::{Call, DenialOf};
use core_types::{ProfileName, SecretName, WireSecret};

use rustix::fs::fstatfs;
use tokio::runtime::Handle;

use crate::children::{Children, Note, Noted};
use crate::confinement::refuse_confined;
use crate::credentials::Credentials;
use crate::fields::opened;
use crate::handover::{SecretFiles, StagePlan};
use crate::image::{self, Image};
use crate::record::{self, Recorder, bounded};
use crate::scope::{Member, Scopes};
use crate::secret_files::remove_left;
use crate::spawn::{self, Child};
use crate::spawner::{OWN_EXECUTABLE, Spawner};
use crate::witness::Witness;
use core_types::child::references::{self, Referral, Resolved};

/// File systems in memory: tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Why files lie where they do, or nowhere.
const NO_NAMESPACE: &str = "the kernel lets this user lay no files";

/// Most resource limits of a request; the kernel knows 16.
const LIMITS_MAX: usize = 32;

/// Random bytes of which the witness's word is made.
const WORD_BYTES: usize = 32;

/// The starter of programs.
pub struct Launcher {
    context: Context,
    spawner: Arc<Spawner>,
    recorder: Arc<Recorder>,
    children: Arc<Children>,
    scopes: Arc<Scopes>,
}

/// A program that runs: what is recorded of its start, and by what its end is waited for.
struct Running {
    pid: u32,
    noted: Noted,
    note: Note,
    monitor: UnixStream,
    /// What the caller hides.
    masked: Vec<WireSecret>,
    /// The folder of its files, if others can see it.
    exposed: Option<String>,
}

impl Launcher {
    /// Has the spawner started, before this process enters its sandbox: by systemd, where that started the launcher.
    ///
    /// # Errors
    /// The spawner cannot be started.
    pub fn prepare(paths: &Paths) -> Result<Spawner, StartError> {
        let word = SecureBytes::random(WORD_BYTES)
            .map_err(|error| StartError::Service(format!("there is no word for the witness: {error}")))?;
        let witness = Witness::new(&paths.witness(), checksum(word.expose()));
        match inherited_listener() {
            Some(name) => Spawner::of_unit(paths, &name, &witness).map_err(|error| {
                StartError::Service(format!(
                    "the spawner, which is pds-spawner.service, cannot be started: {error}; if pds was just replaced: \
                     systemctl --user daemon-reload, then pds daemon restart"
                ))
            }),
            None => Spawner::start(OWN_EXECUTABLE, &witness)
                .map_err(|error| StartError::Service(format!("the spawner cannot be started: {error}"))),
        }
    }

    /// Makes the service; must be called on the runtime.
    ///
    /// # Errors
    /// The folder of its notes is one that others can change.
    pub fn new(context: Context, spawner: Spawner) -> Result<Self, StartError> {
        let recorder = Arc::new(Recorder::new(&context));
        let children = Children::start(&context.paths.children(), Arc::clone(&recorder))?;
        remove_left(&context.paths.exposed_files());
        // Where systemd does not run the daemons, it runs no units that could ask.
        if inherited_listener().is_some() {
            Credentials::start(&context)?;
        }
        let spawner = Arc::new(spawner);
        let watched = Arc::clone(&spawner);
        std::thread::spawn(move || end_with(&watched));
        let scopes = Arc::new(Scopes::new(&context.paths, context.config.scope));
        Ok(Self { context, spawner, recorder, children, scopes })
    }
}

/// Has this process end in order when its spawner or witness has, so that whoever looks after it starts all of them.
fn end_with(spawner: &Spawner) {
    match spawner.wait_end() {
        Ok(()) => tracing::warn!(
            "the spawner or its witness has ended; the launcher ends to be started with others"
        ),
        Err(error) => tracing::error!(%error, "it cannot be seen whether the spawner lives"),
    }
    if let Err(error) = nix::sys::signal::raise(nix::sys::signal::SIGTERM) {
        tracing::error!(%error, "the launcher cannot end");
    }
}

impl Serve for Launcher {
    type Service = LauncherService;

    async fn handle(&self, request: LauncherRequest, caller: Caller) -> Answer {
        match request {
            LauncherRequest::Run(run) => {
                let started = self.run(&run, caller).await;
                answer(&run, started)
            }
            LauncherRequest::Children(list) => {
                let listed = only_the_command_line(&caller).map(|()| self.children.page(list.after));
                answer(&list, listed)
            }
            LauncherRequest::DeliverAudit(call) => {
                self.recorder.delivered().await;
                answer(&call, Ok(()))
            }
        }
    }

    async fn stop(&self) {
        self.children.abandon().await;
    }
}

impl Launcher {
    /// Starts the program of a request and gives its number, or says why it was not started; either is recorded.
    async fn run(&self, run: &Run, caller: Caller) -> Result<Started, LauncherDenial> {
        let requester = Requester::from(&caller.sender);
        let room = match self.recorder.room(run).await {
            Ok(room) => room,
            // It was tried to be recorded, too.
            Err(denial) => {
                let entry = record::attempt(run, requester, &Err(denial.clone()));
                self.recorder.attempt(entry, Room::none()).await;
                return Err(denial);
            }
        };
        match self.start(run, requester.clone(), caller).await {
            Ok(Running { pid, noted, note, monitor, masked, exposed }) => {
                self.recorder.attempt(noted.start.clone(), room).await;
                // Only now, so that its end stands after its start.
                self.children.watch(note, noted, monitor);
                Ok(Started { pid, masked, exposed })
            }
            Err(denial) => {
                let entry = record::attempt(run, requester, &Err(denial.clone()));
                self.recorder.attempt(entry, room).await;
                Err(denial)
            }
        }
    }

    /// Starts the program. Its entry is the one of its start.
    async fn start(
        &self,
        run: &Run,
        requester: Requester,
        caller: Caller,
    ) -> Result<Running, LauncherDenial> {
        only_the_command_line(&caller)?;
        check(run)?;
        let mut sent = caller.descriptors;
        let program = run.pin.as_deref().copied().zip(sent.pop_if(|_| run.pin.is_some()));
        let terminal_apart = sent.pop_if(|_| run.terminal == ControllingTerminal::Apart);
        let [input, output, error, directory, control] = descriptors(sent)?;
        refuse_confined(&run.standing, &caller.sender, &control, self.spawner.free())?;
        let referrals = references::find(&run.environment)?;
        let image = pinned(program).await?;
        let reading =
            Reading { program: image.as_ref().map(|image| &image.program), deadline: caller.deadline };
        let secrets = self.fetch(run, reading).await?;
        let resolved = self.resolve(referrals, reading).await?;
        let (folder, secret_files) = self.secret_files(run, &secrets)?.unzip();
        let environment = environment(run, &secrets, &resolved, FIRST_DESCRIPTOR..)?;
        let environment = match &folder {
            Some(folder) => with_variable(environment, FOLDER_VARIABLE, folder.as_bytes()),
            None => environment,
        };
        let files = run
            .handed
            .descriptors
            .iter()
            .map(|name| opened_file(&secrets, name))
            .collect::<Result<_, _>>()?;
        let input =
            run.handed.stdin.iter().map(|name| opened_file(&secrets, name)).next().unwrap_or(Ok(input))?;
        let (variables, mut names): (Vec<_>, Vec<_>) = given(run, &secrets, &resolved).into_iter().unzip();
        let in_files = secret_files.iter().flat_map(|files: &SecretFiles| &files.files);
        names.extend(in_files.filter_map(|(name, _)| SecretName::parse(name.as_str()).ok()));
        let profiles = record::profiles(run, &resolved);
        let masked = masked(run, &secrets, &resolved)?;
        drop((secrets, resolved));
        names.extend(run.handed.stdin.clone());
        names.sort();
        names.dedup();
        let exposed = secret_files.iter().find(|files| files.exposed).map(|files| files.folder.clone());
        let plan = StagePlan {
            arguments: run.arguments.clone(),
            environment,
            umask: run.umask,
            limits: run.limits.clone(),
            inherited: *run.inherited,
            files: secret_files,
            has_image: image.is_some(),
        };
        let image = image.map(|image| image.file);
        let streams = [input, output, error];
        let terminal = run.terminal;
        let child = Child { plan, streams, directory, files, image, control, terminal, terminal_apart };
        let record = ChildRecord {
            pid: 0,
            profiles: bounded(profiles),
            secrets: bounded(names.iter().map(ToString::to_string)),
            variables: bounded(variables),
            exit: None,
        };
        let (children, start) = (Arc::clone(&self.children), record::attempt(run, requester, &Ok(record)));
        let (scopes, runtime) = (Arc::clone(&self.scopes), Handle::current());
        let program = program_name(&run.arguments);
        let (caller, deadline) = (caller.sender.pid, caller.deadline);
        let announce = move |pid| {
            runtime.block_on(scopes.hold(&Member { pid, caller, program }, deadline));
            let child = start.child.clone().map(|child| ChildRecord { pid, ..child });
            let noted = Noted::new(SecretOperationAudit { child, ..start });
            (pid, children.note(&noted), noted)
        };
        let ((pid, note, noted), monitor) = spawn::start(&self.spawner, child, deadline, announce).await?;
        Ok(Running { pid, noted, note, monitor, masked, exposed })
    }

    /// The files that the program alone sees, and their folder.
    fn secret_files(
        &self,
        run: &Run,
        secrets: &[NamedSecret],
    ) -> Result<Option<(String, SecretFiles)>, LauncherDenial> {
        let Some(wanted) = &run.handed.files else { return Ok(None) };
        let exposed = !self.spawner.lays_over();
        let folder = match (&wanted.folder, exposed) {
            (Some(folder), false) => folder.clone(),
            (Some(folder), true) => {
                return Err(LauncherDenial::Spawn(format!("{NO_NAMESPACE} over {folder}")));
            }
            (None, false) => {
                let folder = self.context.paths.secret_files();
                private_fs::ensure_private_dir(&folder)
                    .map_err(|error| LauncherDenial::Spawn(error.to_string()))?;
                folder.to_string_lossy().into_owned()
            }
            (None, true) => exposed_folder(&self.context.paths)?,
        };
        let files = files(run, secrets)?.into_iter();
        let files = files.map(|secret| (secret.name.to_string(), secret.value.clone())).collect();
        Ok(Some((folder.clone(), SecretFiles { folder, exposed, owner: wanted.owner, files })))
    }

    /// Reads everything the request selects: all of it, or nothing.
    async fn fetch(&self, run: &Run, reading: Reading<'_>) -> Result<Vec<NamedSecret>, LauncherDenial> {
        let mut secrets = Vec::new();
        for batch in self.batches(run, reading.deadline).await? {
            if !matches!(&batch.selection, Selection::Only(patterns) if patterns.is_empty()) {
                secrets.append(&mut self.read(batch, reading).await?.1);
            }
        }
        Ok(secrets)
    }

    /// Follows all references: each leads to a secret, or the run is refused.
    async fn resolve(
        &self,
        referrals: Vec<Referral>,
        reading: Reading<'_>,
    ) -> Result<Vec<Resolved>, LauncherDenial> {
        let mut read = Vec::new();
        for batch in references::batches(&referrals) {
            let secrets = self.read(batch.clone(), reading).await.map_err(|denial| match denial {
                LauncherDenial::Secrets(denial) => references::refusal(&referrals, &batch, denial),
                other => other,
            })?;
            read.push(secrets);
        }
        references::resolve(referrals, read)
    }

    /// Reads a batch, and tells its profile.
    async fn read(
        &self,
        batch: GetBatch,
        Reading { program, deadline }: Reading<'_>,
    ) -> Result<(ProfileName, Vec<NamedSecret>), LauncherDenial> {
        let batch = GetBatch { program: program.cloned(), ..batch };
        let batched = self.ask(&batch, deadline).await?;
        let secrets = self.opened(&batch.profile, batched, deadline).await?;
        Ok((batch.profile, secrets))
    }

    async fn batches(&self, run: &Run, deadline: Instant) -> Result<Vec<GetBatch>, LauncherDenial> {
        match &run.profiles[..] {
            [] => Err(LauncherDenial::Invalid("no profile".to_owned())),
            [profile] => Ok(vec![batches::single(profile, run)]),
            several => {
                let mut listings = Vec::new();
                for profile in several {
                    listings.push((profile.clone(), self.names(profile, deadline).await?));
                }
                batches::divided(&listings, run)
            }
        }
    }

    /// All names of a profile.
    async fn names(
        &self,
        profile: &ProfileName,
        deadline: Instant,
    ) -> Result<Vec<SecretName>, LauncherDenial> {
        let mut list = List { profile: profile.clone(), pattern: None, after: None };
        let mut names = Vec::new();
        loop {
            let page = self.ask(&list, deadline).await?;
            names.extend(page.entries.into_iter().map(|entry| entry.name));
            match names.last() {
                Some(last) if page.more => list.after = Some(last.clone()),
                _ => return Ok(names),
            }
        }
    }

    async fn ask<C>(&self, call: &C, deadline: Instant) -> Result<C::Reply, LauncherDenial>
    where
        C: Call,
        DenialOf<C>: Into<SecretsDenial>,
    {
        ask(&self.context.bus, call, deadline).await
    }

    async fn opened(
        &self,
        profile: &ProfileName,
        secrets: Vec<NamedSecret>,
        deadline: Instant,
    ) -> Result<Vec<NamedSecret>, LauncherDenial> {
        opened(&self.context.bus, profile, secrets, deadline).await
    }
}

/// For which program secrets are read, where it has been looked at, and until when.
#[derive(Clone, Copy)]
struct Reading<'a> {
    program: Option<&'a Program>,
    deadline: Instant,
}

/// A new name in the folder of what lies where other processes of the user see it, if that is in memory.
fn exposed_folder(paths: &Paths) -> Result<String, LauncherDenial> {
    let denied = |error: &dyn std::fmt::Display| LauncherDenial::Spawn(error.to_string());
    let all = paths.exposed_files();
    private_fs::ensure_private_dir(&all).map_err(|error| denied(&error))?;
    let found = File::open(&all).and_then(|all| Ok(fstatfs(all)?)).map_err(|error| denied(&error))?;
    // The kernel's number is one of 32 bits, whatever the type it is given in.
    if !IN_MEMORY.contains(&(found.f_type & 0xffff_ffff)) {
        return Err(LauncherDenial::Spawn(format!(
            "{NO_NAMESPACE} over a folder, and {} is on a disk",
            all.display()
        )));
    }
    let name = SecureBytes::random(8).map_err(|error| denied(&error))?;
    let name = name.expose().iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
    Ok(all.join(name).to_string_lossy().into_owned())
}

/// The end of the path of what is executed.
fn program_name(arguments: &[OsBytes]) -> String {
    let path = arguments.first().map(OsBytes::expose).unwrap_or_default();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The program of a run that is pinned. Beside the runtime, because it may have many bytes.
async fn pinned(program: Option<(Pin, OwnedFd)>) -> Result<Option<Image>, LauncherDenial> {
    let Some((pin, file)) = program else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || image::read(file, pin)).await;
    read.map_err(|error| LauncherDenial::Spawn(error.to_string()))?
}

/// The values that the caller hides: all that the program is given, however it gets them.
fn masked(
    run: &Run,
    secrets: &[NamedSecret],
    resolved: &[Resolved],
) -> Result<Vec<WireSecret>, LauncherDenial> {
    if !run.mask {
        return Ok(Vec::new());
    }
    let values = secrets.iter().map(|secret| &secret.value).chain(resolved.iter().map(|one| &one.value));
    let bytes: usize = values.clone().map(|value| value.expose().len()).sum();
    if bytes > MASKED_BYTES_MAX {
        let count = |bytes| u64::try_from(bytes).unwrap_or(u64::MAX);
        return Err(LauncherDenial::TooMuchToMask { bytes: count(bytes), limit: count(MASKED_BYTES_MAX) });
    }
    Ok(values.cloned().collect())
}

/// Asks `daemon-secrets` within what is left of the asker's time.
pub(crate) async fn ask<C>(bus: &BusClient, call: &C, deadline: Instant) -> Result<C::Reply, LauncherDenial>
where
    C: Call,
    DenialOf<C>: Into<SecretsDenial>,
{
    let options =
        CallOptions { deadline: deadline.saturating_duration_since(Instant::now()), descriptors: Vec::new() };
    bus.call_with(call, options).await.map_err(|error| match error {
        CallError::Denied(denial) => LauncherDenial::Secrets(denial.into()),
        other => LauncherDenial::SecretsUnreachable(other.to_string()),
    })
}

/// Refuses requests of other daemons: a program they start would get what the launcher may read, not what they may.
fn only_the_command_line(caller: &Caller) -> Result<(), LauncherDenial> {
    match &caller.sender.name {
        None => Ok(()),
        Some(name) => {
            Err(LauncherDenial::Secrets(SecretsDenial::Identity { requester: name.as_str().to_owned() }))
        }
    }
}

/// Refuses what no honest `pds` sends.
fn check(run: &Run) -> Result<(), LauncherDenial> {
    let invalid = |reason: &str| Err(LauncherDenial::Invalid(reason.to_owned()));
    let has_nul = |text: &OsBytes| text.expose().contains(&0);
    if run.arguments.is_empty() {
        return invalid("no command");
    }
    if run.arguments.len() > ARGUMENTS_MAX || run.environment.len() > ARGUMENTS_MAX {
        return invalid("too many arguments or variables");
    }
    if run.mappings.len() > SELECTION_MAX || run.limits.len() > LIMITS_MAX {
        return invalid("too many mappings or limits");
    }
    if run.handed.descriptors.len() > SECRET_DESCRIPTORS_MAX {
        return invalid("too many secrets as descriptors");
    }
    if run.arguments.iter().chain(&run.environment).any(has_nul) {
        return invalid("an argument or variable with a NUL byte");
    }
    Ok(())
}

/// A fetched secret as a file that the child can read.
fn opened_file(secrets: &[NamedSecret], name: &SecretName) -> Result<OwnedFd, LauncherDenial> {
    let value = find(secrets, name)?.value.expose();
    sealed_file(value).map_err(|error| LauncherDenial::Spawn(format!("'{name}' as an open file: {error}")))
}

fn descriptors(descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; RUN_DESCRIPTORS], LauncherDenial> {
    let count = descriptors.len();
    descriptors
        .try_into()
        .map_err(|_| LauncherDenial::Invalid(format!("{count} descriptors instead of {RUN_DESCRIPTORS}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::DaemonName;
    use core_types::header::Sender;

    fn run(arguments: &[&[u8]]) -> Run {
        Run {
            arguments: arguments.iter().map(|text| WireSecret::new(text.to_vec())).collect(),
            ..Run::default()
        }
    }

    fn caller(name: Option<&str>) -> Caller {
        let sender = Sender {
            name: name.map(|name| DaemonName::parse(name).unwrap()),
            connection: 1,
            uid: 0,
            gid: 0,
            pid: None,
            executable: None,
            unit: None,
        };
        Caller { sender, descriptors: vec![], deadline: Instant::now() }
    }

    #[test]
    fn only_a_client_without_a_name_may_start_programs() {
        assert_eq!(only_the_command_line(&caller(None)), Ok(()));
        let denial = LauncherDenial::Secrets(SecretsDenial::Identity { requester: "backup".to_owned() });
        assert_eq!(only_the_command_line(&caller(Some("backup"))), Err(denial));
    }

    #[test]
    fn requests_that_cannot_be_executed_are_refused_before_anything_is_read() {
        assert_eq!(check(&run(&[b"true"])), Ok(()));
        let bad: [&[&[u8]]; 3] = [&[], &[b"a\0b"], &[b"a", b"\0"]];
        for arguments in bad {
            assert!(matches!(check(&run(arguments)), Err(LauncherDenial::Invalid(_))));
        }
        assert!(matches!(descriptors(vec![]), Err(LauncherDenial::Invalid(_))));
    }
}
