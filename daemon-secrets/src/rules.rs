//! The access rules as they are in force: those of the configuration file, which is looked at before each decision,
//! so that a change of it holds from the next request on. The audit modes are followed with them.
//!
//! A new file that cannot be used leaves what is in force as it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_daemon::{Change, LiveConfig};
use core_types::ProfileName;
use core_types::config::{AuditMode, Config};
use core_types::header::Sender;
use core_types::paths::Paths;
use core_types::protocol::profile::Outcome;
use core_types::protocol::secrets::{RulesState, SecretsDenial};

use crate::acl::{AccessRules, Action};
use crate::attempt::identified;
use crate::neighbours::Neighbours;
use crate::record::{About, conclude, record_config};
use crate::service::SecretsDaemon;

struct State {
    rules: Arc<AccessRules>,
    /// The configuration in force, of which rules and audit modes are followed.
    config: Config,
    /// Why the file as it is now is not in force.
    problem: Option<String>,
}

/// The rules in force, and the file that they come from.
pub(crate) struct LiveRules {
    file: LiveConfig,
    state: Mutex<State>,
}

impl LiveRules {
    /// The rules that the daemon was started with.
    pub(crate) fn new(paths: &Paths, config: &Config) -> Self {
        let rules = Arc::new(AccessRules::new(&config.access));
        let state = State { rules, config: config.clone(), problem: None };
        Self { file: LiveConfig::new(paths), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules that were in force when the file was looked at last.
    pub(crate) fn current(&self) -> Arc<AccessRules> {
        Arc::clone(&self.state().rules)
    }

    /// The rules in force now: those of the file, if it changed and can be used.
    pub(crate) async fn look(&self, neighbours: &impl Neighbours) -> Arc<AccessRules> {
        if let Some(change) = self.file.changed().await {
            self.take(change, neighbours).await;
        }
        self.current()
    }

    /// Puts what was read in force. A change that cannot be recorded is not made, and tried again.
    async fn take(&self, change: Change<'_>, neighbours: &impl Neighbours) {
        match &change.config {
            Ok(config) => {
                let changed = self.changed_parts(config);
                // Recorded as the old modes ask for: the new ones may ask for less.
                if !changed.is_empty() && record_config(neighbours, &changed, Outcome::Done).await.is_err() {
                    return;
                }
                self.put_in_force(config, &changed, neighbours);
            }
            Err(problem) => {
                let outcome = Outcome::Failed { reason: problem.clone() };
                let is_new = self.state().problem.as_ref() != Some(problem);
                if is_new && record_config(neighbours, &[], outcome).await.is_err() {
                    return;
                }
                tracing::error!(%problem, "the new configuration cannot be used; rules and audit modes stay");
                self.state().problem = Some(problem.clone());
            }
        }
        change.seen();
    }

    /// What of a configuration is followed and is not as it is in force.
    fn changed_parts(&self, config: &Config) -> Vec<&'static str> {
        let state = self.state();
        let rules = state.config.access != config.access;
        let modes = audit_modes(&state.config) != audit_modes(config);
        [(rules, ACCESS_RULES), (modes, AUDIT_MODES)]
            .into_iter()
            .filter_map(|(changed, part)| changed.then_some(part))
            .collect()
    }

    fn put_in_force(&self, config: &Config, changed: &[&str], neighbours: &impl Neighbours) {
        let mut state = self.state();
        state.problem = None;
        if changed.contains(&AUDIT_MODES) {
            tracing::info!(mode = config.audit.mode.as_str(), "the audit modes changed");
            neighbours.audit_by(config);
        }
        if changed.contains(&ACCESS_RULES) {
            tracing::info!(patterns = config.access.patterns(), "the access rules changed");
            state.rules = Arc::new(AccessRules::new(&config.access));
            neighbours.hint();
        }
        state.config = config.clone();
    }
}

/// What the audit log calls the parts of a configuration that are followed.
const ACCESS_RULES: &str = "access rules";
const AUDIT_MODES: &str = "audit modes";

fn audit_modes(config: &Config) -> (AuditMode, Vec<(ProfileName, AuditMode)>) {
    (config.audit.mode, config.own_audit_modes())
}

impl<N: Neighbours> SecretsDaemon<N> {
    /// Which rules are in force, and whether they are those of the file.
    pub(crate) async fn rules_state(&self, sender: &Sender) -> Result<RulesState, SecretsDenial> {
        let result = identified(Action::Rules, sender);
        if result.is_ok() {
            self.rules.look(&self.neighbours).await;
        }
        let result = result.map(|()| {
            let state = self.rules.state();
            RulesState { patterns: state.config.access.patterns() as u64, problem: state.problem.clone() }
        });
        conclude(&self.neighbours, About::of(Action::Rules, None, sender), result).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::sender;
    use crate::service::tests::{World, cli, profile};
    use core_types::protocol::profile::Operation;
    use core_types::protocol::secrets::Get;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    const ONLY_A: &str = "[profiles.work.access.backup]\nget = ['a']\n";

    async fn backup_gets(world: &World, name: &str) -> Result<(), SecretsDenial> {
        let call = Get { profile: profile("work"), name: name.to_owned(), version: None };
        world.daemon.get(&call, &sender(Some("backup"))).await.map(|_| ())
    }

    async fn problem(world: &World) -> Option<String> {
        world.daemon.rules_state(&cli()).await.unwrap().problem
    }

    fn changes(world: &World) -> Vec<String> {
        let recorded = world.outcomes().into_iter();
        recorded
            .filter(|(operation, ..)| *operation == Operation::ConfigChange)
            .map(|(.., how)| how)
            .collect()
    }

    async fn world() -> World {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        world.outcomes();
        world
    }

    #[tokio::test]
    async fn a_change_of_the_file_holds_from_the_next_request_on_and_is_recorded() {
        let world = world().await;
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        world.write_config(ONLY_A);
        assert_eq!(backup_gets(&world, "a").await, Ok(()));
        world.write_config("[profiles.work.access.backup]\nget = ['b']\n");
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        world.write_config("# the same rules\n[profiles.work.access.backup]\nget = ['b']\n");
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        std::fs::remove_file(world.paths.config_file()).unwrap();
        assert_eq!(backup_gets(&world, "b").await, Err(SecretsDenial::Forbidden));
        assert_eq!(changes(&world), ["done", "done", "done"]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_leaves_the_old_rules_in_force_and_says_so() {
        let world = world().await;
        world.write_config(ONLY_A);
        backup_gets(&world, "a").await.unwrap();
        world.write_config("[profiles.work.access.backup]\nget = ['a b']\n");
        backup_gets(&world, "a").await.unwrap();
        let said = problem(&world).await.unwrap();
        assert!(said.contains("config.toml") && said.contains("line 2"), "{said}");
        world.write_config(ONLY_A);
        assert_eq!(problem(&world).await, None);
        let recorded = changes(&world);
        assert_eq!(recorded.len(), 2, "{recorded:?}");
        assert!(recorded[1].starts_with("failed: "), "{recorded:?}");
    }

    #[tokio::test]
    async fn a_file_that_others_could_have_written_is_not_used() {
        let world = world().await;
        world.write_config(ONLY_A);
        backup_gets(&world, "a").await.unwrap();
        let file = world.paths.config_file();
        let elsewhere = file.with_extension("elsewhere");
        std::fs::write(&elsewhere, "").unwrap();
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        backup_gets(&world, "a").await.unwrap();
        assert!(
            problem(&world).await.unwrap().contains("symbolic link")
                || problem(&world).await.unwrap().contains("a link")
        );
        std::fs::remove_file(&file).unwrap();
        for mode in [0o620, 0o602] {
            world.write_config("");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            backup_gets(&world, "a").await.unwrap();
            let said = problem(&world).await.unwrap();
            assert!(said.contains("config.toml") && said.contains("chmod"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_recorded_is_not_made() {
        let world = world().await;
        world.write_config(ONLY_A);
        backup_gets(&world, "a").await.unwrap();
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        world.write_config("");
        assert!(matches!(backup_gets(&world, "a").await, Err(SecretsDenial::AuditUnwritable { .. })));
        assert!(world.daemon.rules.current().may_read(
            &crate::acl::tests::requester(Some("backup")),
            &profile("work"),
            "a"
        ));
        world.daemon.neighbours.unwritable.store(false, Ordering::SeqCst);
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
    }

    #[tokio::test]
    async fn the_audit_modes_are_followed_and_their_change_is_recorded_before() {
        let world = world().await;
        let modes = || std::mem::take(&mut *world.daemon.neighbours.audit_modes.lock().unwrap());
        world.write_config("[audit]\nmode = 'durable'\n");
        world.get("a").await.unwrap();
        assert_eq!(modes(), [AuditMode::Durable]);
        let recorded = world.outcomes();
        let change =
            (Operation::ConfigChange, Some("config.toml: audit modes".to_owned()), "done".to_owned());
        assert_eq!(recorded[0], change);
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        world.write_config("[audit]\nmode = 'best-effort'\n");
        assert!(world.get("a").await.is_err());
        assert_eq!(modes(), []);
        world.daemon.neighbours.unwritable.store(false, Ordering::SeqCst);
        world.get("a").await.unwrap();
        assert_eq!(modes(), [AuditMode::BestEffort]);
        world.write_config("[audit]\nmode = 'sometimes'\n");
        world.get("a").await.unwrap();
        world.write_config(&format!("[profiles.work]\naudit = 'durable'\n{ONLY_A}"));
        world.get("a").await.unwrap();
        let recorded: Vec<_> = world
            .outcomes()
            .into_iter()
            .filter(|(operation, ..)| *operation == Operation::ConfigChange)
            .filter_map(|(_, subject, _)| subject)
            .collect();
        let both = "config.toml: access rules, audit modes";
        assert_eq!(recorded, ["config.toml: audit modes", "config.toml", both]);
    }

    /// The file is cut short before it is written anew: a request in between must not find a file without rules.
    #[tokio::test]
    async fn half_a_file_is_not_taken_for_a_whole_one() {
        let world = world().await;
        let rules = "[profiles.work.access.cli]\nget = ['b']\n";
        world.write_config(rules);
        assert_eq!(world.get("a").await, Err(SecretsDenial::Forbidden));
        world.write_config("");
        let reading = world.get("a");
        let writing = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            world.write_config(rules);
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert_eq!(read, Err(SecretsDenial::Forbidden));
    }
}
