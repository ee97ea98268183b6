//! A scope for each program, where the user has a systemd of his own: systemd lists it by name, counts and limits what it
//! uses for itself, and what ends the launcher, its spawner or another program does not touch it
//! (systemd.scope(5), org.freedesktop.systemd1(5)).
//!
//! The process is put there before it becomes the program, so whatever it starts is there as well. A scope is a good thing
//! and no promise: without one the program runs where the spawner does, and that is logged.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use core_crypto::SecureBytes;
use core_types::paths::Paths;
use futures_lite::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zbus::zvariant::{self, DynamicType, OwnedValue, Value};
use zbus::{Connection, MatchRule, MessageStream};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long a program may wait for its scope.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it is not tried again when it has failed, so that not every program waits for what does not answer.
const PAUSE: Duration = Duration::from_secs(10);
/// The slice of programs whose caller is in none of the user's (systemd.special(7)).
const SLICE: &str = "app.slice";
/// Longest part of a scope's name that is the program's, in characters.
const NAME_MAX: usize = 64;

/// The user's systemd, as far as it makes scopes.
pub(crate) struct Scopes {
    /// Where it listens, if it is to be asked at all.
    manager: Option<PathBuf>,
    connected: tokio::sync::Mutex<Option<Manager>>,
    failed: Mutex<Option<Instant>>,
}

/// A connection to it.
#[derive(Clone)]
struct Manager {
    connection: Connection,
    /// Its control group, in which all of its slices are.
    group: String,
}

/// Who is to be in a scope.
pub(crate) struct Member {
    /// The process, which becomes the program.
    pub(crate) pid: u32,
    /// The one for which it is started.
    pub(crate) caller: Option<u32>,
    /// What is executed, or the end of its path.
    pub(crate) program: String,
}

impl Scopes {
    /// Scopes for all programs, or none if they are not `wanted`.
    pub(crate) fn new(paths: &Paths, wanted: bool) -> Self {
        Self {
            manager: paths.user_manager().filter(|_| wanted),
            connected: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Puts a process into a scope of its own, where that can be had before the deadline.
    pub(crate) async fn hold(&self, member: &Member, deadline: Instant) {
        if !self.manager.as_ref().is_some_and(|socket| socket.exists()) || self.pauses() {
            return;
        }
        let patience = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
        let held = timeout(patience, self.make(member)).await;
        if let Err(reason) = held.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            tracing::warn!(
                "systemd makes no scope for a program, which runs in the spawner's unit: {reason}"
            );
        }
    }

    fn pauses(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| failed.elapsed() < PAUSE)
    }

    /// With the connection there is, or another if that has ended with its bus.
    async fn make(&self, member: &Member) -> Result<(), String> {
        let known = self.connected.lock().await.clone();
        if let Some(manager) = known {
            match manager.make(member).await {
                Err(zbus::Error::InputOutput(_)) => {}
                made => return made.map_err(|error| error.to_string()),
            }
        }
        let mut connected = self.connected.lock().await;
        *connected = None;
        let manager = Manager::connect().await.map_err(|error| error.to_string())?;
        *connected = Some(manager.clone());
        drop(connected);
        manager.make(member).await.map_err(|error| error.to_string())
    }
}

impl Manager {
    async fn connect() -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::session()?.method_timeout(PATIENCE).build().await?;
        let group: OwnedValue = call(&connection, (PROPERTIES, "Get"), &(MANAGER, "ControlGroup")).await?;
        Ok(Self { connection, group: group.try_into()? })
    }

    async fn make(&self, member: &Member) -> zbus::Result<()> {
        let name = scope_name(&member.program)?;
        let group = member.caller.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
        let slice = slice(&group.unwrap_or_default(), &self.group).to_owned();
        // Heard before it can be told.
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD)?
            .interface(MANAGER)?
            .member("JobRemoved")?
            .arg(2, name.as_str())?
            .build();
        let mut told = MessageStream::for_match_rule(rule, &self.connection, None).await?;
        let properties: [(&str, Value<'_>); 4] = [
            ("Description", format!("{} with secrets, by pds", member.program).into()),
            ("Slice", slice.into()),
            ("CollectMode", "inactive-or-failed".into()),
            ("PIDs", vec![member.pid].into()),
        ];
        let auxiliary: [(&str, Vec<(&str, Value<'_>)>); 0] = [];
        let arguments = (&name, "fail", &properties[..], &auxiliary[..]);
        let _job: zvariant::OwnedObjectPath =
            call(&self.connection, (MANAGER, "StartTransientUnit"), &arguments).await?;
        let Some(end) = told.next().await else {
            return Err(zbus::Error::InputOutput(std::sync::Arc::new(
                std::io::ErrorKind::ConnectionReset.into(),
            )));
        };
        let (.., result): (u32, zvariant::OwnedObjectPath, String, String) = end?.body().deserialize()?;
        if result == "done" { Ok(()) } else { Err(zbus::Error::Failure(format!("its job was {result}"))) }
    }
}

/// Asks the manager.
async fn call<B, R>(
    connection: &Connection,
    (interface, method): (&str, &str),
    arguments: &B,
) -> zbus::Result<R>
where
    B: Serialize + DynamicType,
    R: DeserializeOwned + zvariant::Type,
{
    let reply = connection.call_method(Some(SYSTEMD), PATH, Some(interface), method, arguments).await?;
    reply.body().deserialize()
}

/// A name that no other scope has, after the rules for programs of a desktop: `app-`, who starts it, the program, and
/// something random. A dash would say where a part ends.
fn scope_name(program: &str) -> zbus::Result<String> {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "_.".contains(letter) { letter } else { '_' };
    let program: String = program.chars().take(NAME_MAX).map(plain).collect();
    let random = SecureBytes::random(8).map_err(|error| zbus::Error::Failure(error.to_string()))?;
    let random = random.expose().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Ok(format!("app-pds-{program}-{random}.scope"))
}

/// The innermost slice that a process is in, by its `/proc/PID/cgroup` (cgroups(7)), among those of the manager whose
/// control group this is: what limits its slice is to limit what it starts.
fn slice<'a>(groups: &'a str, manager: &str) -> &'a str {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let below = group.and_then(|group| group.strip_prefix(manager.trim_end_matches('/')));
    let below = below.and_then(|group| group.strip_prefix('/')).unwrap_or_default();
    below.split('/').take_while(|part| part.ends_with(".slice")).last().unwrap_or(SLICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stays_in_the_innermost_slice_of_its_caller() {
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        let of = |below: &str| slice(&format!("1:name=x:/other\n0::{manager}{below}\n"), manager).to_owned();
        assert_eq!(of("/app.slice/app-build.slice/run-u1.scope"), "app-build.slice");
        assert_eq!(of("/session.slice/terminal.service"), "session.slice");
        assert_eq!(of("/background.slice"), "background.slice");
        assert_eq!(of("/init.scope"), "app.slice");
        assert_eq!(of(""), "app.slice");
        // A login's own group is the system manager's.
        assert_eq!(slice("0::/user.slice/user-1000.slice/session-1.scope\n", manager), "app.slice");
        assert_eq!(
            slice("0::/user.slice/user-1000.slice/user@1000.service2/a.slice\n", manager),
            "app.slice"
        );
        assert_eq!(slice("0::/app.slice/build.slice/x.scope\n", "/"), "build.slice");
        assert_eq!(slice("", manager), "app.slice");
    }

    #[test]
    fn a_scope_has_a_name_of_its_own_that_systemd_takes() {
        let name = scope_name("my-tool 2\u{e9}").unwrap();
        let random = name.strip_prefix("app-pds-my_tool_2_-").unwrap().strip_suffix(".scope").unwrap();
        assert!(random.len() == 16 && random.chars().all(|digit| digit.is_ascii_hexdigit()), "{name}");
        assert_ne!(scope_name("my-tool").unwrap(), scope_name("my-tool").unwrap());
        assert!(scope_name(&"x".repeat(300)).unwrap().len() < 255);
    }
}
