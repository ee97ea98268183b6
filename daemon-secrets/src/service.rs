//! What `daemon-secrets` answers: one arm per request, each to the function of its name.

use std::path::PathBuf;
use std::sync::Arc;

use core_crypto::kdf::Argon2Params;
use core_daemon::{Answer, BootTimer, Caller, Context, Serve, StartError, answer};
use core_secrets::vault::remove_unfinished;
use core_types::config::{Config, UnlockCost};
use core_types::paths::Paths;
use core_types::protocol::secrets::{SecretsRequest, SecretsService};
use tokio::sync::Mutex as FairMutex;

use crate::grants::Grants;
use crate::neighbours::{Neighbours, OverTheBus};
use crate::rate_limit::{RateLimits, Rates};
use crate::rules::LiveRules;
use crate::settings::{TTL_VARIABLE, cache_ttl};
use crate::vault::{Vaults, prepare_folder};
use crate::wiper::wipe_what_expires;

/// The service.
pub(crate) struct SecretsDaemon<N> {
    pub(crate) vaults: Arc<Vaults>,
    pub(crate) rules: LiveRules,
    pub(crate) rates: Box<dyn Rates>,
    pub(crate) grants: Grants,
    pub(crate) neighbours: N,
    /// Cost of deriving keys from passwords: new ones get it, and cheaper ones when they unlock.
    pub(crate) kdf_cost: Argon2Params,
    /// Held while a key is derived from a password.
    pub(crate) derivation: FairMutex<()>,
    /// Held while a file of someone else is read or written, which may take as long as that side likes: it then keeps
    /// one thread, and not all.
    pub(crate) backups: FairMutex<()>,
    /// Folder of what each vault remembers of the audit log.
    pub(crate) audit_anchors: PathBuf,
}

impl SecretsDaemon<OverTheBus> {
    /// The service with all vaults locked.
    ///
    /// # Errors
    /// A setting is wrong, or the folder of the vaults is not this user's alone.
    pub(crate) fn start(context: Context) -> Result<Self, StartError> {
        let ttl =
            cache_ttl(std::env::args_os().skip(1), std::env::var_os(TTL_VARIABLE), context.config.cache_ttl);
        let ttl = ttl.map_err(|error| StartError::Service(error.to_string()))?;
        prepare_folder(&context.paths.vaults())?;
        // Only now: no other daemon of this user runs.
        if let Err(error) = remove_unfinished(&context.paths.vaults()) {
            tracing::error!(%error, "what was left of unfinished vaults could not be removed");
        }
        let timer = BootTimer::new()
            .map_err(|error| StartError::Service(format!("there is no timer to wipe by: {error}")))?;
        let neighbours = OverTheBus { bus: context.bus, audit: context.audit };
        let config = Config { cache_ttl: ttl, ..context.config };
        let UnlockCost { memory_mib, passes, lanes } = config.unlock_cost;
        let kdf_cost = Argon2Params { memory_kib: memory_mib << 10, passes, lanes };
        let daemon = Self::new(&context.paths, config, neighbours, kdf_cost);
        tokio::spawn(wipe_what_expires(Arc::clone(&daemon.vaults), timer));
        Ok(daemon)
    }
}

impl<N: Neighbours> SecretsDaemon<N> {
    pub(crate) fn new(paths: &Paths, config: Config, neighbours: N, kdf_cost: Argon2Params) -> Self {
        Self {
            vaults: Arc::new(Vaults::new(paths, &config)),
            rules: LiveRules::new(paths, &config),
            rates: Box::new(RateLimits::new(&config)),
            grants: Grants::default(),
            neighbours,
            kdf_cost,
            derivation: FairMutex::default(),
            backups: FairMutex::default(),
            audit_anchors: paths.audit_anchors(),
        }
    }
}

impl<N: Neighbours> Serve for SecretsDaemon<N> {
    type Service = SecretsService;

    async fn handle(&self, request: SecretsRequest, caller: Caller) -> Answer {
        let (sender, deadline) = (&caller.sender, caller.deadline);
        // Boxed is what is seldom asked for: the future of each request has room for the largest that is not.
        match request {
            SecretsRequest::Init(call) => answer(&call, Box::pin(self.init(&call, sender, deadline)).await),
            SecretsRequest::Unlock(call) => {
                answer(&call, Box::pin(self.unlock(&call, sender, deadline)).await)
            }
            SecretsRequest::Lock(call) => answer(&call, Box::pin(self.lock(&call, sender)).await),
            SecretsRequest::Profiles(call) => answer(&call, Box::pin(self.profiles(sender)).await),
            SecretsRequest::ChangePassword(call) => {
                answer(&call, Box::pin(self.change_password(&call, sender, deadline)).await)
            }
            SecretsRequest::Factors(call) => answer(&call, Box::pin(self.factors(&call, sender)).await),
            SecretsRequest::AddFactor(call) => {
                answer(&call, Box::pin(self.add_factor(&call, sender, deadline)).await)
            }
            SecretsRequest::RemoveFactor(call) => {
                answer(&call, Box::pin(self.remove_factor(&call, sender, deadline)).await)
            }
            SecretsRequest::SetPolicy(call) => {
                answer(&call, Box::pin(self.set_policy(&call, sender, deadline)).await)
            }
            SecretsRequest::CheckRecovery(call) => {
                answer(&call, Box::pin(self.check_recovery(&call, sender, deadline)).await)
            }
            SecretsRequest::Rekey(call) => answer(&call, Box::pin(self.rekey(&call, sender, deadline)).await),
            SecretsRequest::RekeyProgress(call) => {
                answer(&call, Box::pin(self.rekey_progress(&call, sender)).await)
            }
            SecretsRequest::Get(call) => answer(&call, self.get(&call, sender).await),
            SecretsRequest::GetFor(call) => answer(&call, self.get_for(&call, sender).await),
            SecretsRequest::GetBatch(call) => answer(&call, self.get_batch(&call, sender).await),
            SecretsRequest::Set(call) => answer(&call, self.set(&call, sender).await),
            SecretsRequest::Import(call) => {
                answer(&call, Box::pin(self.import(&call, sender, caller.descriptors)).await)
            }
            SecretsRequest::Compare(call) => answer(&call, Box::pin(self.compare(&call, sender)).await),
            SecretsRequest::Delete(call) => answer(&call, Box::pin(self.delete(&call, sender)).await),
            SecretsRequest::List(call) => answer(&call, self.list(&call, sender).await),
            SecretsRequest::History(call) => answer(&call, Box::pin(self.history(&call, sender)).await),
            SecretsRequest::Restore(call) => answer(&call, Box::pin(self.restore(&call, sender)).await),
            SecretsRequest::Purge(call) => answer(&call, Box::pin(self.purge(&call, sender)).await),
            SecretsRequest::Move(call) => answer(&call, Box::pin(self.rename(&call, sender)).await),
            SecretsRequest::AcceptRollback(call) => {
                answer(&call, Box::pin(self.accept_rollback(&call, sender)).await)
            }
            SecretsRequest::Rules(call) => answer(&call, Box::pin(self.rules_state(sender)).await),
            SecretsRequest::Explain(call) => answer(&call, Box::pin(self.explain(&call, sender)).await),
            SecretsRequest::Grant(call) => answer(&call, Box::pin(self.grant(&call, sender)).await),
            SecretsRequest::Grants(call) => answer(&call, Box::pin(self.list_grants(sender)).await),
            SecretsRequest::RevokeGrant(call) => {
                answer(&call, Box::pin(self.revoke_grant(&call, sender)).await)
            }
            SecretsRequest::AuditKey(call) => answer(&call, Box::pin(self.audit_key(&call, sender)).await),
            SecretsRequest::LockFor(call) => answer(&call, Box::pin(self.lock_for(&call, sender)).await),
            SecretsRequest::DeliverAudit(call) => {
                self.neighbours.recorded().await;
                answer(&call, Ok(()))
            }
            SecretsRequest::AuditAnchor(call) => {
                answer(&call, Box::pin(self.audit_anchor(&call, sender)).await)
            }
            SecretsRequest::Protection(call) => answer(&call, Box::pin(self.protection(sender)).await),
            SecretsRequest::Backup(call) => {
                answer(&call, Box::pin(self.backup(&call, sender, caller.descriptors, deadline)).await)
            }
            SecretsRequest::InspectBackup(call) => {
                answer(&call, Box::pin(self.inspect_backup(sender, caller.descriptors)).await)
            }
            SecretsRequest::RestoreBackup(call) => answer(
                &call,
                Box::pin(self.restore_backup(&call, sender, caller.descriptors, deadline)).await,
            ),
            #[cfg(feature = "ipc-field-encryption")]
            SecretsRequest::FieldKey(call) => answer(&call, Box::pin(self.field_key(&call, sender)).await),
        }
    }

    async fn stop(&self) {
        self.vaults.cancel_rekeys();
        for profile in self.vaults.unlocked() {
            self.lock_at_end(&profile).await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::neighbours::Unreachable;
    use core_daemon::{NotDurable, Room};
    use core_types::WireSecret;
    use core_types::config::AuditMode;
    use core_types::header::Sender;
    use core_types::name::ProfileName;
    use core_types::protocol::profile::{AuditPoint, Operation, Outcome, SecretOperationAudit};
    use core_types::protocol::secrets::{
        FactorProof, Get, Init, ProfileChanged, SecretsDenial, Set, Unlock, Unlocked,
    };
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    pub(crate) const PASSWORD: &[u8] = b"right";

    #[tokio::test]
    async fn a_request_takes_little_room() {
        let world = World::new();
        let caller = Caller { sender: cli(), descriptors: Vec::new(), deadline: later() };
        let call = Get { profile: profile("work"), name: "a".to_owned(), version: None };
        let answering = world.daemon.handle(call.into(), caller);
        assert!(size_of_val(&answering) < 4096, "{} bytes are moved for each", size_of_val(&answering));
    }

    /// Neighbours that note what they are told and answer what a test wants.
    #[derive(Default)]
    pub(crate) struct TestNeighbours {
        pub(crate) wait: Mutex<Duration>,
        pub(crate) recorded: AtomicU64,
        pub(crate) unreachable: AtomicBool,
        pub(crate) begun: AtomicUsize,
        pub(crate) under_way: AtomicUsize,
        pub(crate) most_under_way: AtomicUsize,
        pub(crate) ended: Mutex<Vec<bool>>,
        pub(crate) unwritable: AtomicBool,
        /// There is room for records, and yet they cannot be written.
        pub(crate) full_at_last: AtomicBool,
        pub(crate) entries: Mutex<Vec<SecretOperationAudit>>,
        pub(crate) changes: Mutex<Vec<(String, bool)>>,
        pub(crate) hints: AtomicUsize,
        pub(crate) audit_modes: Mutex<Vec<AuditMode>>,
    }

    impl Neighbours for TestNeighbours {
        async fn begin_unlock(&self, _: &ProfileName) -> Result<(Duration, u64), Unreachable> {
            if self.unreachable.load(Ordering::SeqCst) {
                return Err(Unreachable);
            }
            self.begun.fetch_add(1, Ordering::SeqCst);
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
            Ok((*self.wait.lock().unwrap(), self.recorded.load(Ordering::SeqCst)))
        }
        async fn end_unlock(&self, _: &ProfileName, right: bool) {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            self.ended.lock().unwrap().push(right);
        }
        async fn audit_head(&self) -> Option<AuditPoint> {
            None
        }
        async fn recorded(&self) {}
        fn room(&self, _: &ProfileName, _: usize) -> Result<Room, NotDurable> {
            match self.unwritable.load(Ordering::SeqCst) {
                true => Err(NotDurable("full".to_owned())),
                false => Ok(Room::none()),
            }
        }
        async fn record(&self, entries: Vec<SecretOperationAudit>, _: Room) -> Result<(), NotDurable> {
            if self.unwritable.load(Ordering::SeqCst) || self.full_at_last.load(Ordering::SeqCst) {
                return Err(NotDurable("full".to_owned()));
            }
            self.entries.lock().unwrap().extend(entries);
            Ok(())
        }
        fn audit_by(&self, config: &Config) {
            self.audit_modes.lock().unwrap().push(config.audit.mode);
        }
        fn publish(&self, change: ProfileChanged) {
            self.changes.lock().unwrap().push((change.profile.into(), change.unlocked));
        }
        fn hint(&self) {
            self.hints.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A daemon in a folder of its own, with the cheapest key derivation there is.
    pub(crate) struct World {
        pub(crate) daemon: SecretsDaemon<TestNeighbours>,
        pub(crate) paths: Paths,
        _folder: tempfile::TempDir,
    }

    pub(crate) fn profile(name: &str) -> ProfileName {
        ProfileName::parse(name).unwrap()
    }

    pub(crate) fn cli() -> Sender {
        sender(None)
    }

    pub(crate) fn wire(bytes: &[u8]) -> WireSecret {
        WireSecret::new(bytes.to_vec())
    }

    /// The factor that `init` makes.
    pub(crate) fn password(password: &[u8]) -> FactorProof {
        FactorProof { factor: 1, secret: wire(password) }
    }

    pub(crate) fn unlock_call(name: &str, secret: &[u8]) -> Unlock {
        Unlock { profile: profile(name), factors: vec![password(secret)] }
    }

    /// Long enough for everything.
    pub(crate) fn later() -> Instant {
        Instant::now() + Duration::from_secs(120)
    }

    impl World {
        /// Writes the configuration that is looked at with the next request.
        pub(crate) fn write_config(&self, text: &str) {
            std::fs::create_dir_all(self.paths.config_file().parent().unwrap()).unwrap();
            std::fs::write(self.paths.config_file(), text).unwrap();
        }

        /// Without any vault.
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().to_owned();
            let paths = Paths::from_variables(|name| match name {
                "HOME" => Some(root.clone()),
                "PDS_RUNTIME_DIR" => Some(PathBuf::from("/nonexistent")),
                _ => None,
            });
            let paths = paths.unwrap();
            Self { daemon: Self::another(&paths), paths, _folder: folder }
        }

        /// A second daemon over the same folders.
        pub(crate) fn another(paths: &Paths) -> SecretsDaemon<TestNeighbours> {
            Self::configured(paths, Config::default())
        }

        fn configured(paths: &Paths, config: Config) -> SecretsDaemon<TestNeighbours> {
            prepare_folder(&paths.vaults()).unwrap();
            SecretsDaemon::new(paths, config, TestNeighbours::default(), Argon2Params::FLOOR)
        }

        /// As [`Self::with_vault`], with another time that values are cached for.
        pub(crate) async fn with_ttl(cache_ttl: Duration) -> Self {
            let mut world = Self::new();
            world.daemon = Self::configured(&world.paths, Config { cache_ttl, ..Config::default() });
            world.init("work").await.unwrap();
            world
        }

        /// With an unlocked profile `work`, and its records forgotten.
        pub(crate) async fn with_vault() -> Self {
            let world = Self::new();
            world.init("work").await.unwrap();
            world.outcomes();
            world
        }

        pub(crate) async fn init(&self, name: &str) -> Result<(), SecretsDenial> {
            let call = Init { profile: profile(name), password: wire(PASSWORD) };
            self.daemon.init(&call, &cli(), later()).await
        }

        pub(crate) async fn unlock(&self, name: &str, password: &[u8]) -> Result<Unlocked, SecretsDenial> {
            self.daemon.unlock(&unlock_call(name, password), &cli(), later()).await
        }

        pub(crate) async fn set(&self, name: &str, value: &[u8]) -> Result<(), SecretsDenial> {
            let call = Set {
                profile: profile("work"),
                name: name.to_owned(),
                value: wire(value),
                expires_unix_ms: None,
                note: None,
            };
            self.daemon.set(&call, &cli()).await
        }

        pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, SecretsDenial> {
            let call = Get { profile: profile("work"), name: name.to_owned(), version: None };
            self.daemon.get(&call, &cli()).await.map(|value| value.expose().to_vec())
        }

        /// What was recorded since the last time: operation, subject, and whether and where it was denied.
        pub(crate) fn outcomes(&self) -> Vec<(Operation, Option<String>, String)> {
            let entries = std::mem::take(&mut *self.daemon.neighbours.entries.lock().unwrap());
            let outcome = |outcome| match outcome {
                Outcome::Done => "done".to_owned(),
                Outcome::Denied { gate, .. } => format!("denied at {gate:?}"),
                Outcome::Failed { reason } => format!("failed: {reason}"),
            };
            entries
                .into_iter()
                .map(|entry| (entry.operation, entry.subject, outcome(entry.outcome)))
                .collect()
        }
    }
}
