//! A system bus of one's own with a logind on it that says what a test has it say (org.freedesktop.login1(5)).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::runtime::Runtime;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{self, ObjectPath, OwnedObjectPath, Value};
use zbus::{Connection, interface};

use crate::system::wait_for;

const NAME: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";
const PATH: &str = "/org/freedesktop/login1";
/// Anyone may own and send anything, so that nothing but pds itself holds back whoever pretends.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true"/><allow receive_type="method_call"/>
<allow receive_type="signal"/><allow receive_requested_reply="true"/></policy></busconfig>"#;

/// A bus daemon; dropping it ends it.
pub struct SystemBus {
    daemon: Child,
    address: String,
}

impl SystemBus {
    /// Starts one whose socket and configuration lie in the folder.
    ///
    /// # Panics
    /// There is no `dbus-daemon`, or it does not come up.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let (socket, config) = (folder.join("system_bus"), folder.join("system_bus.conf"));
        let _old = std::fs::remove_file(&socket);
        std::fs::write(&config, CONFIG.replace("SOCKET", &socket.display().to_string())).expect("a file");
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg("--nopidfile").arg(format!("--config-file={}", config.display()));
        let daemon =
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("dbus-daemon can be run");
        wait_for("the system bus", || socket.exists().then_some(()));
        Self { daemon, address: address(folder) }
    }
}

/// Where a bus of this folder is.
#[must_use]
pub fn address(folder: &Path) -> String {
    format!("unix:path={}", folder.join("system_bus").display())
}

impl Drop for SystemBus {
    fn drop(&mut self) {
        let _gone = self.daemon.kill();
        let _status = self.daemon.wait();
    }
}

/// What it was asked.
#[derive(Default)]
struct Asked {
    /// The other ends of the inhibitors that were given out.
    inhibitors: Vec<OwnedFd>,
}

struct Manager {
    asked: Arc<Mutex<Asked>>,
    sessions: Vec<(String, u32)>,
    delay: Duration,
}

#[interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(
        &self,
        what: &str,
        _who: &str,
        _why: &str,
        mode: &str,
    ) -> zbus::fdo::Result<zvariant::OwnedFd> {
        if (what, mode) != ("sleep", "delay") {
            return Err(zbus::fdo::Error::InvalidArgs(format!("{what} {mode}")));
        }
        let failed = |error: rustix::io::Errno| zbus::fdo::Error::Failed(error.to_string());
        let (kept, given) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        self.asked.lock().map_err(|error| zbus::fdo::Error::Failed(error.to_string()))?.inhibitors.push(kept);
        Ok(given.into())
    }

    fn list_sessions(&self) -> Vec<(String, u32, String, String, OwnedObjectPath)> {
        let path = |id: &str| OwnedObjectPath::try_from(session_path(id)).unwrap_or_default();
        let sessions = self.sessions.iter();
        sessions.map(|(id, uid)| (id.clone(), *uid, String::new(), String::new(), path(id))).collect()
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay(&self) -> u64 {
        u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX)
    }
}

struct Session {
    uid: u32,
}

#[interface(name = "org.freedesktop.login1.Session")]
impl Session {
    #[zbus(property)]
    fn user(&self) -> (u32, OwnedObjectPath) {
        (self.uid, OwnedObjectPath::default())
    }

    #[zbus(property)]
    fn class(&self) -> &'static str {
        "user"
    }

    #[zbus(property)]
    fn locked_hint(&self) -> bool {
        false
    }
}

fn session_path(id: &str) -> String {
    format!("{PATH}/session/{id}")
}

/// A logind on such a bus, or somebody who would like to be taken for it.
pub struct Logind {
    runtime: Runtime,
    connection: Connection,
    asked: Arc<Mutex<Asked>>,
}

impl Logind {
    /// Logind, with these sessions and the users whose they are; suspend waits for so long.
    ///
    /// # Panics
    /// The bus does not let it.
    #[must_use]
    pub fn start(bus: &SystemBus, sessions: &[(&str, u32)], delay: Duration) -> Self {
        let logind = Self::pretender(bus);
        let sessions: Vec<(String, u32)> =
            sessions.iter().map(|(id, uid)| ((*id).to_owned(), *uid)).collect();
        let manager = Manager { asked: Arc::clone(&logind.asked), sessions: sessions.clone(), delay };
        let serving = async {
            let server = logind.connection.object_server();
            server.at(PATH, manager).await?;
            for (id, uid) in sessions {
                server.at(session_path(&id), Session { uid }).await?;
            }
            logind.connection.request_name(NAME).await
        };
        logind.runtime.block_on(serving).expect("a name on the bus");
        logind
    }

    /// Somebody on the bus who has not the name.
    ///
    /// # Panics
    /// There is no bus.
    #[must_use]
    pub fn pretender(bus: &SystemBus) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let connecting = async { zbus::connection::Builder::address(&*bus.address)?.build().await };
        let connection = runtime.block_on(connecting).expect("the bus answers");
        Self { runtime, connection, asked: Arc::default() }
    }

    /// How many inhibitors were taken so far.
    ///
    /// # Panics
    /// A thread panicked.
    #[must_use]
    pub fn inhibitors(&self) -> usize {
        self.asked.lock().expect("no thread panicked").inhibitors.len()
    }

    /// Whether the inhibitor that was taken last is given back within so long; returns as soon as it is.
    ///
    /// # Panics
    /// None was taken.
    #[must_use]
    pub fn is_let_go(&self, within: Duration) -> bool {
        let asked = self.asked.lock().expect("no thread panicked");
        let last = asked.inhibitors.last().expect("an inhibitor");
        let within =
            Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
        poll(&mut [PollFd::new(&last.as_fd(), PollFlags::IN)], Some(&within)).expect("a pipe") == 1
    }

    /// Says that the machine goes to sleep, or has woken up.
    pub fn sleep(&self, begins: bool) {
        self.say(None, PATH, MANAGER, "PrepareForSleep", &(begins,));
    }

    /// Says that a session shall be locked.
    pub fn lock(&self, session: &str) {
        self.say(None, &session_path(session), SESSION, "Lock", &());
    }

    /// Says that a session is locked.
    pub fn locked(&self, session: &str) {
        let changed = HashMap::from([("LockedHint", Value::from(true))]);
        let body = (SESSION, changed, Vec::<String>::new());
        let properties = "org.freedesktop.DBus.Properties";
        self.say(None, &session_path(session), properties, "PropertiesChanged", &body);
    }

    /// Says that a session has ended.
    pub fn ended(&self, session: &str) {
        let path = ObjectPath::try_from(session_path(session)).expect("a path");
        self.say(None, PATH, MANAGER, "SessionRemoved", &(session, path));
    }

    /// Says to each who is on the bus, and to nobody else, what logind would say of a lock and of sleep.
    ///
    /// # Panics
    /// The bus does not answer.
    pub fn pretend_to_all(&self, session: &str) {
        let listing = async { zbus::fdo::DBusProxy::new(&self.connection).await?.list_names().await };
        let names = self.runtime.block_on(listing).expect("the bus answers");
        for name in names.iter().map(|name| name.as_str()).filter(|name| name.starts_with(':')) {
            self.say(Some(name), &session_path(session), SESSION, "Lock", &());
            self.say(Some(name), PATH, MANAGER, "PrepareForSleep", &(true,));
            let body = (NAME, "", self.connection.unique_name().map_or("", |name| name.as_str()));
            self.say(Some(name), "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", &body);
            self.say(Some(name), &session_path(session), SESSION, "Lock", &());
        }
        // It has taken all of them before it answers this.
        let listing = async { zbus::fdo::DBusProxy::new(&self.connection).await?.list_names().await };
        self.runtime.block_on(listing).expect("the bus answers");
    }

    fn say<B>(&self, to: Option<&str>, path: &str, interface: &str, member: &str, body: &B)
    where
        B: serde::Serialize + zvariant::DynamicType + Sync,
    {
        let saying = async {
            let mut emitter = SignalEmitter::new(&self.connection, path)?;
            if let Some(name) = to {
                emitter = emitter.set_destination(zbus::names::BusName::try_from(name)?);
            }
            emitter.emit(interface, member, body).await
        };
        self.runtime.block_on(saying).expect("the bus takes it");
    }
}
