//! The access rules as they are in force: those of the configuration file, which is looked at before each decision,
//! so that a change of it holds from the next request on.
//!
//! A file that is being written is left alone until nobody has touched it for a moment: half of one may be a valid
//! file with fewer rules. A new file that cannot be used leaves the old rules in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use core_crypto::private_fs;
use core_types::access::AccessPolicy;
use core_types::config::Config;
use core_types::header::Sender;
use core_types::limits::CONFIG_BYTES_MAX;
use core_types::paths::Paths;
use core_types::protocol::profile::Outcome;
use core_types::protocol::secrets::{RulesState, SecretsDenial};
use tokio::sync::Mutex as FairMutex;

use crate::acl::{AccessRules, Action};
use crate::attempt::identified;
use crate::neighbours::Neighbours;
use crate::record::{About, conclude, record_config};
use crate::service::SecretsDaemon;

/// How long nobody may have touched the file before it is read. More than the steps of the kernel's file times, so
/// that of two changes the second is never taken for the first.
const SETTLED: Duration = Duration::from_millis(50);

/// What tells one state of a file from another, without reading it. `None`: there is no file.
type Stamp = Option<FileStamp>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

/// What stands at the path now; a link is not followed.
fn stamp(file: &Path) -> Stamp {
    let stat = rustix::fs::lstat(file).ok()?;
    Some(FileStamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        bytes: stat.st_size,
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// Whether nobody has touched the file for long enough. Whether there was one just before cannot be seen.
fn is_settled(stamp: Stamp) -> bool {
    let Some(FileStamp { changed: (seconds, nanoseconds), .. }) = stamp else { return false };
    let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), 0) + Duration::from_nanos(nanoseconds);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(changed).is_some_and(|age| age >= SETTLED)
}

struct State {
    rules: Arc<AccessRules>,
    policy: AccessPolicy,
    /// The file as it was when it was read last.
    seen: Option<Stamp>,
    /// Why the file as it is now is not in force.
    problem: Option<String>,
}

/// The rules in force, and the file that they come from.
pub(crate) struct LiveRules {
    file: PathBuf,
    state: Mutex<State>,
    /// Held while the file is read.
    reading: FairMutex<()>,
}

impl LiveRules {
    /// The rules that the daemon was started with.
    pub(crate) fn new(paths: &Paths, config: &Config) -> Self {
        let state = State {
            rules: Arc::new(AccessRules::new(&config.access)),
            policy: config.access.clone(),
            seen: None,
            problem: None,
        };
        Self { file: paths.config_file(), state: Mutex::new(state), reading: FairMutex::default() }
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
        if !self.is_seen() {
            let _one_reader = self.reading.lock().await;
            if !self.is_seen() {
                self.read(neighbours).await;
            }
        }
        self.current()
    }

    fn is_seen(&self) -> bool {
        self.state().seen == Some(stamp(&self.file))
    }

    async fn read(&self, neighbours: &impl Neighbours) {
        let before = stamp(&self.file);
        if !is_settled(before) {
            tokio::time::sleep(SETTLED).await;
        }
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || policy_of(&file)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        // Whoever is still writing is waited for by the next request.
        if stamp(&self.file) == before {
            self.take(before, read, neighbours).await;
        }
    }

    /// Puts what was read in force. A change that cannot be recorded is not made, and tried again.
    async fn take(&self, seen: Stamp, read: Result<AccessPolicy, String>, neighbours: &impl Neighbours) {
        let changed = match &read {
            Ok(policy) => self.state().policy != *policy,
            Err(problem) => self.state().problem.as_ref() != Some(problem),
        };
        let outcome = match &read {
            Ok(_) => Outcome::Done,
            Err(reason) => Outcome::Failed { reason: reason.clone() },
        };
        if changed && record_config(neighbours, outcome).await.is_err() {
            return;
        }
        let mut state = self.state();
        state.seen = Some(seen);
        match read {
            Ok(policy) => {
                state.problem = None;
                if changed {
                    tracing::info!(patterns = policy.patterns(), "the access rules changed");
                    state.rules = Arc::new(AccessRules::new(&policy));
                    state.policy = policy;
                    neighbours.hint();
                }
            }
            Err(problem) => {
                tracing::error!(%problem, "the new configuration cannot be used; the access rules stay as they were");
                state.problem = Some(problem);
            }
        }
    }
}

/// The rules of the file, or why it cannot be used.
fn policy_of(file: &Path) -> Result<AccessPolicy, String> {
    let bytes = private_fs::read_limited(file, CONFIG_BYTES_MAX).map_err(|error| error.to_string())?;
    let bytes = bytes.unwrap_or_default();
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8 text", file.display()))?;
    let config = Config::parse(text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(config.access)
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
            RulesState { patterns: state.policy.patterns() as u64, problem: state.problem.clone() }
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

    const ONLY_A: &str = "[profiles.work.access.backup]\nget = ['a']\n";

    fn write(world: &World, text: &str) {
        std::fs::create_dir_all(world.paths.config_file().parent().unwrap()).unwrap();
        std::fs::write(world.paths.config_file(), text).unwrap();
    }

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
        write(&world, ONLY_A);
        assert_eq!(backup_gets(&world, "a").await, Ok(()));
        write(&world, "[profiles.work.access.backup]\nget = ['b']\n");
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        write(&world, "# the same rules\n[profiles.work.access.backup]\nget = ['b']\n");
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
        std::fs::remove_file(world.paths.config_file()).unwrap();
        assert_eq!(backup_gets(&world, "b").await, Err(SecretsDenial::Forbidden));
        assert_eq!(changes(&world), ["done", "done", "done"]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_leaves_the_old_rules_in_force_and_says_so() {
        let world = world().await;
        write(&world, ONLY_A);
        backup_gets(&world, "a").await.unwrap();
        write(&world, "[profiles.work.access.backup]\nget = ['a b']\n");
        backup_gets(&world, "a").await.unwrap();
        let said = problem(&world).await.unwrap();
        assert!(said.contains("config.toml") && said.contains("line 2"), "{said}");
        write(&world, ONLY_A);
        assert_eq!(problem(&world).await, None);
        let recorded = changes(&world);
        assert_eq!(recorded.len(), 2, "{recorded:?}");
        assert!(recorded[1].starts_with("failed: "), "{recorded:?}");
    }

    #[tokio::test]
    async fn a_file_that_others_could_have_written_is_not_used() {
        let world = world().await;
        write(&world, ONLY_A);
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
            write(&world, "");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            backup_gets(&world, "a").await.unwrap();
            let said = problem(&world).await.unwrap();
            assert!(said.contains("config.toml") && said.contains("chmod"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_recorded_is_not_made() {
        let world = world().await;
        write(&world, ONLY_A);
        backup_gets(&world, "a").await.unwrap();
        world.daemon.neighbours.unwritable.store(true, Ordering::SeqCst);
        write(&world, "");
        assert!(matches!(backup_gets(&world, "a").await, Err(SecretsDenial::AuditUnwritable { .. })));
        assert!(world.daemon.rules.current().may_read(
            &crate::acl::tests::requester(Some("backup")),
            &profile("work"),
            "a"
        ));
        world.daemon.neighbours.unwritable.store(false, Ordering::SeqCst);
        assert_eq!(backup_gets(&world, "a").await, Err(SecretsDenial::Forbidden));
    }

    /// The file is cut short before it is written anew: a request in between must not find a file without rules.
    #[tokio::test]
    async fn half_a_file_is_not_taken_for_a_whole_one() {
        let world = world().await;
        let rules = "[profiles.work.access.cli]\nget = ['b']\n";
        write(&world, rules);
        assert_eq!(world.get("a").await, Err(SecretsDenial::Forbidden));
        write(&world, "");
        let reading = world.get("a");
        let writing = async {
            tokio::time::sleep(SETTLED / 5).await;
            write(&world, rules);
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert_eq!(read, Err(SecretsDenial::Forbidden));
    }
}
