//! What `daemon-profile` answers, and to whom.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use core_daemon::{Answer, BootTimer, Caller, Context, LiveConfig, Serve, StartError, answer, unix_ms_now};
use core_ipc::CallOptions;
use core_types::ProfileName;
use core_types::config::{AuditMode, Config};
use core_types::header::Sender;
use core_types::name::{DaemonName, LAUNCHER, SECRETS};
use core_types::paths::Paths;
use core_types::protocol::bus::{Incident, Misdeed, RegistryChange};
use core_types::protocol::profile::{
    AuditPoint, AuditReport, AuditState, BeginUnlock, EndUnlock, Operation, Outcome, ProfileDenial,
    ProfileRequest, ProfileService, Record, SecretOperationAudit, UnlockDelay,
};
use core_types::protocol::secrets::{self, Gate, ProfileChanged};
use core_types::protocol::{Topic, decode, launcher};
use tokio::sync::mpsc;

use crate::attempts::Attempts;
use crate::audit::{Audit, LogError, ProofKeys, Standing};
use crate::auto_lock::AutoLocks;
use crate::generations::Generations;
use crate::keeper::Keeper;
use crate::last_reads::LastReads;
use crate::logind::{Logind, Watching};
use crate::take_up::take_up;

/// Most incidents that wait to be written; what comes while so many wait is only logged.
const INCIDENTS_MAX: usize = 64;

/// How long a reader of the log waits for what the daemons that write to it gather.
const CATCH_UP: Duration = Duration::from_millis(600);

/// The daemons that may have unlock attempts judged.
const UNLOCKERS: [&str; 1] = [SECRETS];
/// The daemons that may write to the audit log: those that guard something.
const RECORDERS: [&str; 2] = [SECRETS, LAUNCHER];

/// The service.
pub(crate) struct ProfileDaemon {
    attempts: Attempts,
    generations: Generations,
    audit: Audit,
    incidents: mpsc::Sender<SecretOperationAudit>,
    live: LiveConfig,
    modes: Mutex<Modes>,
    last_reads: LastReads,
    auto_locks: AutoLocks,
    sessions: Watching,
    keeper: Option<Keeper>,
}

/// What `pds status` says of the modes.
#[derive(Clone)]
struct Modes {
    mode: AuditMode,
    own: Vec<(ProfileName, AuditMode)>,
}

impl From<&Config> for Modes {
    fn from(config: &Config) -> Self {
        Self { mode: config.audit.mode, own: config.own_audit_modes() }
    }
}

impl ProfileDaemon {
    /// Opens the files of the service; must be called on the runtime.
    ///
    /// # Errors
    /// A folder or file is a link, somebody else's, or writable by others.
    pub(crate) fn open(paths: &Paths, config: &Config) -> Result<Self, StartError> {
        let attempts = Attempts::open(&paths.unlock_attempts())?;
        let generations = Generations::open(&paths.generations())?;
        let audit = Audit::open(&paths.audit(), &config.audit)
            .map_err(|error| StartError::Service(error.to_string()))?;
        let (incidents, waiting) = mpsc::channel(INCIDENTS_MAX);
        tokio::spawn(write_incidents(audit.clone(), waiting));
        let last_reads = LastReads::open(&paths.last_reads())?;
        tokio::spawn(last_reads.clone().catch_up(audit.clone()));
        let (live, modes) = (LiveConfig::new(paths), Mutex::new(Modes::from(config)));
        let auto_locks = AutoLocks::new(config);
        Ok(Self {
            attempts,
            generations,
            last_reads,
            auto_locks,
            sessions: Watching::new(),
            audit,
            incidents,
            live,
            modes,
            keeper: None,
        })
    }

    /// The same, with the vaults vouching for the log, and with profiles being locked whose time is over.
    ///
    /// # Errors
    /// There is no timer.
    pub(crate) fn at_work(self, context: Context) -> Result<Self, StartError> {
        let timer = BootTimer::new()
            .map_err(|error| StartError::Service(format!("there is no timer to lock by: {error}")))?;
        let keeper = Keeper::new(self.audit.clone(), context.bus.clone());
        tokio::spawn(take_up(context.bus.clone(), keeper.clone(), self.auto_locks.clone()));
        let live = || LiveConfig::new(&context.paths);
        let (locks, standing) = (self.auto_locks.clone(), self.sessions.clone());
        tokio::spawn(Logind::new(locks.clone(), context.bus.clone(), live(), standing).watch());
        tokio::spawn(locks.run(context.bus.clone(), live(), timer));
        Ok(Self { keeper: Some(keeper), ..self })
    }

    async fn begin_unlock(&self, call: &BeginUnlock, sender: &Sender) -> Result<UnlockDelay, ProfileDenial> {
        only(&UNLOCKERS, sender)?;
        let generation = self.generations.of(&call.profile).await;
        Ok(UnlockDelay { generation, ..self.attempts.begin(call.profile.clone()).await })
    }

    async fn end_unlock(&self, call: &EndUnlock, sender: &Sender) -> Result<(), ProfileDenial> {
        only(&UNLOCKERS, sender)?;
        self.attempts.end(call.profile.clone(), call.right).await;
        Ok(())
    }

    async fn status(&self) -> AuditState {
        let Standing { next_sequence, failing, missing } = self.audit.status();
        let Modes { mode, own } = self.modes().await;
        AuditState { next_sequence, failing, mode, modes: own, missing }
    }

    /// The modes of the configuration as it is now; of one that cannot be used nothing is taken over.
    async fn modes(&self) -> Modes {
        if let Some(change) = self.live.changed().await {
            if let Ok(config) = &change.config {
                *self.modes.lock().unwrap_or_else(PoisonError::into_inner) = Modes::from(config);
            }
            change.seen();
        }
        self.modes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the daemons that write to the log send what they gather, so that whoever reads it finds what was just done.
    async fn catch_up(&self) {
        let Some(bus) = self.keeper.as_ref().map(Keeper::bus) else { return };
        let options = || CallOptions { deadline: CATCH_UP, descriptors: Vec::new() };
        let (secrets, launcher) = tokio::join!(
            bus.call_with(&secrets::DeliverAudit {}, options()),
            bus.call_with(&launcher::DeliverAudit {}, options())
        );
        if secrets.is_err() || launcher.is_err() {
            // What they keep is not lost, and comes as soon as they can send it.
            tracing::debug!(
                ?secrets,
                ?launcher,
                "the audit log is read without the latest entries of a daemon"
            );
        }
    }

    async fn verify(&self) -> Result<AuditReport, LogError> {
        match &self.keeper {
            Some(keeper) => keeper.verify().await,
            None => self.audit.verify(ProofKeys::new()).await,
        }
    }

    async fn sync(&self, sender: &Sender) -> Result<(), ProfileDenial> {
        only(&RECORDERS, sender)?;
        self.audit.sync().await.map_err(log_failed)
    }

    /// Where the log ends on the disk.
    async fn head(&self, sender: &Sender) -> Result<AuditPoint, ProfileDenial> {
        only(&UNLOCKERS, sender)?;
        let head = self.audit.head();
        self.audit.sync().await.map_err(log_failed)?;
        Ok(head)
    }

    fn profile_changed(&self, body: &[u8]) {
        match decode::<ProfileChanged>(body) {
            Ok(change) => {
                self.auto_locks.changed(&change);
                if let Some(keeper) = &self.keeper {
                    keeper.changed(change);
                }
            }
            Err(error) => tracing::error!(%error, "a change of a profile was not understood"),
        }
    }

    async fn record(&self, call: &Record, sender: &Sender) -> Result<(), ProfileDenial> {
        let by = only(&RECORDERS, sender)?;
        let count = u64::try_from(call.entries.len()).map_err(|_| ProfileDenial::Invalid)?;
        call.first.checked_add(count).ok_or(ProfileDenial::Invalid)?;
        self.audit.record(by, call.clone()).await.map_err(log_failed)?;
        if by == SECRETS {
            self.auto_locks.learn(&call.entries);
            self.generations.learn(&call.entries).await;
            self.last_reads.learn(&call.entries, self.audit.head().sequence);
        }
        if let Some(keeper) = &self.keeper {
            keeper.written();
        }
        Ok(())
    }
}

/// The name of the sender, if it is registered as one of `allowed`.
fn only<'a>(allowed: &[&'a str], sender: &Sender) -> Result<&'a str, ProfileDenial> {
    let name = sender.name.as_ref().map(DaemonName::as_str);
    let found = allowed.iter().find(|allowed| name == Some(**allowed));
    found.copied().ok_or_else(|| ProfileDenial::Identity { requester: sender.requester().to_owned() })
}

fn log_failed(error: LogError) -> ProfileDenial {
    ProfileDenial::Log(error.to_string())
}

impl Serve for ProfileDaemon {
    type Service = ProfileService;

    async fn handle(&self, request: ProfileRequest, caller: Caller) -> Answer {
        let sender = &caller.sender;
        match request {
            ProfileRequest::BeginUnlock(call) => answer(&call, self.begin_unlock(&call, sender).await),
            ProfileRequest::EndUnlock(call) => answer(&call, self.end_unlock(&call, sender).await),
            ProfileRequest::Record(call) => answer(&call, self.record(&call, sender).await),
            // Whoever is admitted to the bus may read the log: it is the user's own.
            ProfileRequest::AuditTail(call) => {
                self.catch_up().await;
                answer(&call, self.audit.tail(&call).await.map_err(log_failed))
            }
            ProfileRequest::AuditVerify(call) => {
                self.catch_up().await;
                answer(&call, self.verify().await.map_err(log_failed))
            }
            ProfileRequest::AuditStatus(call) => answer(&call, Ok(self.status().await)),
            ProfileRequest::AuditSync(call) => answer(&call, self.sync(sender).await),
            ProfileRequest::AuditHead(call) => answer(&call, self.head(sender).await),
            ProfileRequest::AuditSearch(call) => {
                self.catch_up().await;
                answer(&call, self.audit.search(&call).await.map_err(log_failed))
            }
            ProfileRequest::LastReads(call) => {
                self.catch_up().await;
                answer(&call, Ok(self.last_reads.page(&call)))
            }
            ProfileRequest::AutoLocks(call) => answer(&call, Ok(self.auto_locks.pending())),
            ProfileRequest::SessionWatch(call) => answer(&call, Ok(self.sessions.state())),
        }
    }

    fn event(&self, topic: Topic, body: &[u8], _: &Sender) {
        match topic {
            Topic::BusIncident => self.incident(body),
            Topic::ProfileState => self.profile_changed(body),
            Topic::BusRegistry => self.registry_change(body),
            Topic::SecretsChanged => {}
        }
    }

    async fn stop(&self) {
        // All places are free only when every incident has been taken to be written, and so is before `close` in
        // the log's queue.
        let _places = self.incidents.reserve_many(INCIDENTS_MAX).await;
        let last_reads = self.last_reads.clone();
        // What is not kept is learned from the log again.
        let _ = tokio::task::spawn_blocking(move || last_reads.keep()).await;
        self.audit.close().await;
    }
}

impl ProfileDaemon {
    fn incident(&self, body: &[u8]) {
        match decode::<Incident>(body) {
            Ok(incident) => {
                if self.incidents.try_send(incident_entry(&incident, unix_ms_now())).is_err() {
                    tracing::error!(?incident, "too many incidents wait; this one is not in the audit log");
                }
            }
            Err(error) => tracing::error!(%error, "an incident of the bus was not understood"),
        }
    }
}

impl ProfileDaemon {
    fn registry_change(&self, body: &[u8]) {
        match decode::<RegistryChange>(body) {
            Ok(change) => {
                if self.incidents.try_send(registry_entry(&change, unix_ms_now())).is_err() {
                    tracing::error!(
                        ?change,
                        "too many events of the bus wait; this one is not in the audit log"
                    );
                }
            }
            Err(error) => tracing::error!(%error, "a change of the enrolled daemons was not understood"),
        }
    }
}

fn registry_entry(change: &RegistryChange, unix_ms: u64) -> SecretOperationAudit {
    let operation = if change.enrolled { Operation::Enroll } else { Operation::Revoke };
    SecretOperationAudit::new(unix_ms, operation, (&change.sender).into(), Outcome::Done)
        .about(None, Some(change.name.as_str().to_owned()))
}

async fn write_incidents(audit: Audit, mut waiting: mpsc::Receiver<SecretOperationAudit>) {
    while let Some(event) = waiting.recv().await {
        if let Err(error) = audit.note(event).await {
            tracing::error!(%error, "an incident of the bus is not in the audit log");
        }
    }
}

fn incident_entry(incident: &Incident, unix_ms: u64) -> SecretOperationAudit {
    let (subject, deed) = match incident.misdeed {
        Misdeed::ForgedResponse => ("forged-response", "it answered a request that was not put to it"),
        Misdeed::ForbiddenPublish => ("forbidden-publish", "it published on a topic that is not its own"),
        Misdeed::NameTakeover => ("name-takeover", "it tried to serve under a name that is taken"),
    };
    let reason = format!("{deed} ({} times since the last report)", incident.count);
    let outcome = Outcome::Denied { gate: Gate::Identity, reason };
    SecretOperationAudit::new(unix_ms, Operation::Incident, (&incident.sender).into(), outcome)
        .about(None, Some(subject.to_owned()))
}

#[cfg(test)]
mod tests {
    use core_types::name::PROFILE;
    use core_types::protocol::encode;
    use core_types::protocol::profile::{AuditTail, Requester};
    use serde_json::Value;

    use super::*;

    fn sender(name: Option<&str>) -> Sender {
        let name = name.map(|name| DaemonName::parse(name).unwrap());
        Sender { name, connection: 1, uid: 1000, gid: 1000, pid: Some(7), executable: None, unit: None }
    }

    fn daemon(folder: &tempfile::TempDir) -> ProfileDaemon {
        let paths = Paths::from_variables(|name| {
            let place = matches!(name, "HOME" | "XDG_RUNTIME_DIR" | "PDS_STATE_DIR");
            place.then(|| folder.path().join("state"))
        })
        .unwrap();
        core_crypto::private_fs::ensure_private_dir(paths.state()).unwrap();
        ProfileDaemon::open(&paths, &Config::default()).unwrap()
    }

    fn entry() -> SecretOperationAudit {
        SecretOperationAudit::new(0, Operation::Get, Requester::from(&sender(None)), Outcome::Done)
            .about(None, Some("api-key".to_owned()))
    }

    async fn lines(daemon: &ProfileDaemon) -> Vec<Value> {
        let lines = daemon.audit.tail(&AuditTail { count: 100, after: None }).await.unwrap();
        lines.iter().map(|line| serde_json::from_str(&line.json).unwrap()).collect()
    }

    /// Everyone whom the bus can stamp, with what they may do: unlock attempts, recording.
    #[tokio::test]
    async fn only_the_daemons_that_guard_something_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = daemon(&folder);
        let profile = ProfileName::parse("work").unwrap();
        let callers = [
            (Some(SECRETS), true, true),
            (Some(LAUNCHER), false, true),
            (Some(PROFILE), false, false),
            (Some("daemon-bus"), false, false),
            (Some("cli"), false, false),
            (Some("daemon-secrets.x"), false, false),
            (None, false, false),
        ];
        for (name, unlocks, records) in callers {
            let sender = sender(name);
            let denial = ProfileDenial::Identity { requester: sender.requester().to_owned() };
            let begun = daemon.begin_unlock(&BeginUnlock { profile: profile.clone() }, &sender).await;
            let ended =
                daemon.end_unlock(&EndUnlock { profile: profile.clone(), right: true }, &sender).await;
            let record = Record { origin: 1, first: 0, entries: vec![entry()], missing: 0 };
            let recorded = daemon.record(&record, &sender).await;
            assert_eq!(begun.map(|_| ()), if unlocks { Ok(()) } else { Err(denial.clone()) }, "{name:?}");
            assert_eq!(ended, if unlocks { Ok(()) } else { Err(denial.clone()) }, "{name:?}");
            assert_eq!(recorded, if records { Ok(()) } else { Err(denial) }, "{name:?}");
        }
        let recorders: Vec<_> =
            lines(&daemon).await.iter().map(|line| line["recorder"]["by"].clone()).collect();
        assert_eq!(recorders, [SECRETS, LAUNCHER]);
    }

    /// A stranger that ends an attempt as right would have every wrong one before it forgiven.
    #[tokio::test]
    async fn a_stranger_can_neither_forgive_attempts_nor_add_some() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = daemon(&folder);
        let profile = ProfileName::parse("work").unwrap();
        let begin = BeginUnlock { profile: profile.clone() };
        for _ in 0..3 {
            assert!(daemon.begin_unlock(&begin, &sender(Some(SECRETS))).await.is_ok());
        }
        assert!(daemon.end_unlock(&EndUnlock { profile, right: true }, &sender(None)).await.is_err());
        assert!(daemon.begin_unlock(&begin, &sender(None)).await.is_err());
        assert_eq!(
            daemon.begin_unlock(&begin, &sender(Some(SECRETS))).await,
            Ok(UnlockDelay { wait_ms: 300, generation: 0 })
        );
    }

    #[tokio::test]
    async fn numbers_that_have_no_successor_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = daemon(&folder);
        let record = Record { origin: 1, first: u64::MAX, entries: vec![entry()], missing: 0 };
        assert_eq!(daemon.record(&record, &sender(Some(SECRETS))).await, Err(ProfileDenial::Invalid));
    }

    #[tokio::test]
    async fn an_incident_of_the_bus_becomes_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = daemon(&folder);
        let incident = Incident { misdeed: Misdeed::ForgedResponse, sender: sender(None), count: 3 };
        daemon.event(Topic::BusIncident, &encode(&incident).unwrap(), &sender(Some("daemon-bus")));
        daemon.event(Topic::BusIncident, b"no incident", &sender(Some("daemon-bus")));
        daemon.stop().await;
        let lines = lines(&daemon).await;
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["operation"], "incident");
        assert_eq!(lines[0]["subject"], "forged-response");
        assert_eq!(lines[0]["requester"]["name"], "cli");
        assert_eq!(lines[0]["requester"]["pid"], 7);
        assert!(lines[0]["reason"].as_str().unwrap().contains("3 times"));
    }
}
