//! Locks profiles with the session: before the machine goes to sleep, with the screen, and at the last logout, as logind
//! tells it (org.freedesktop.login1(5)).
//!
//! Suspend waits: a delay inhibitor is held, and let go when `daemon-secrets` has answered that the keys are gone. Where
//! there is no system bus or no logind, nothing is told and nothing fails; both may come later.

mod sessions;
mod told;

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_daemon::LiveConfig;
use core_ipc::BusClient;
use core_types::protocol::profile::{LockCause, SessionWatchState};
use futures_lite::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use zbus::zvariant::{self, DynamicType, OwnedObjectPath, OwnedValue};
use zbus::{Connection, MessageStream};

use crate::auto_lock::AutoLocks;
use sessions::{Session, Sessions};
use told::{LOGIND, MANAGER, SESSION, Told, told};

const MANAGER_PATH: &str = "/org/freedesktop/login1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long the system bus and logind may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long it is waited before the system bus is looked for again: first, and at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long suspend waits for inhibitors where logind does not say (logind.conf(5)), and how much of it is left unused.
const DELAY_DEFAULT: Duration = Duration::from_secs(5);
const DELAY_LEFT: Duration = Duration::from_millis(500);
/// How long it is tried to lock where nobody waits for it.
const LOCKING_MAX: Duration = Duration::from_secs(60);
/// How many things that logind told may wait.
const TOLD_MAX: usize = 1024;
/// What is to be heard of.
const RULES: [&str; 4] = [
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.login1'",
    "type='signal',sender='org.freedesktop.login1',interface='org.freedesktop.login1.Manager'",
    "type='signal',sender='org.freedesktop.login1',interface='org.freedesktop.login1.Session'",
    "type='signal',sender='org.freedesktop.login1',interface='org.freedesktop.DBus.Properties',\
     arg0='org.freedesktop.login1.Session'",
];

/// Whether logind is listened to. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Watching(Arc<Mutex<SessionWatchState>>);

impl Watching {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(SessionWatchState::Absent("logind has not been looked for yet".to_owned()))))
    }

    pub(crate) fn state(&self) -> SessionWatchState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of it, and logs it where it is another than before.
    fn is(&self, state: SessionWatchState) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == state {
            return;
        }
        match &state {
            SessionWatchState::Complete => tracing::info!("suspend, screen locks and logouts are noticed"),
            SessionWatchState::WithoutDelay(why) => {
                tracing::warn!(
                    "suspend, screen locks and logouts are noticed, but suspend does not wait: {why}"
                );
            }
            SessionWatchState::Absent(why) => {
                tracing::info!("suspend, screen locks and logouts are not noticed: {why}");
            }
        }
        *now = state;
    }
}

/// Who has logind's name on the bus, as far as was heard.
#[derive(Debug, Default)]
struct Owner {
    name: Option<String>,
    heard: bool,
}

/// Locks profiles when logind tells of something that has them locked.
pub(crate) struct Logind {
    locker: Locker,
    standing: Watching,
    sessions: Sessions,
    inhibitor: Option<OwnedFd>,
    /// How long suspend waits.
    delay: Duration,
    /// How long it is waited before the system bus is looked for again.
    pause: Duration,
}

/// Has profiles locked. Clones share all they have.
#[derive(Clone)]
struct Locker {
    locks: AutoLocks,
    bus: BusClient,
    live: Arc<LiveConfig>,
}

impl Locker {
    async fn lock(&self, cause: LockCause, until: Instant) {
        if !self.locks.lock_all(&self.bus, &self.live, cause, until).await {
            tracing::error!(?cause, "not all profiles could be locked in time");
        }
    }

    /// Does it on the side.
    fn begin(&self, cause: LockCause) {
        let locker = self.clone();
        tokio::spawn(async move { locker.lock(cause, Instant::now() + LOCKING_MAX).await });
    }
}

/// Ends a task when it is dropped.
struct Ending(AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Logind {
    /// For the user whose daemon this is.
    pub(crate) fn new(locks: AutoLocks, bus: BusClient, live: LiveConfig, standing: Watching) -> Self {
        Self {
            locker: Locker { locks, bus, live: Arc::new(live) },
            standing,
            sessions: Sessions::of(rustix::process::getuid().as_raw()),
            inhibitor: None,
            delay: DELAY_DEFAULT,
            pause: LOOK_AGAIN,
        }
    }

    /// Listens for ever, on whatever system bus there is.
    pub(crate) async fn watch(mut self) {
        loop {
            let Err(reason) = self.listen().await;
            self.inhibitor = None;
            self.standing.is(SessionWatchState::Absent(reason));
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LOOK_AGAIN_MAX);
        }
    }

    /// Listens until the connection to the system bus is lost; says why.
    async fn listen(&mut self) -> Result<Infallible, String> {
        let connection = connect().await?;
        let owner = Arc::new(Mutex::new(Owner::default()));
        let (tell, mut waiting) = mpsc::channel(TOLD_MAX);
        // All there is to read is read at once, and what is not of logind dropped: whoever floods this connection holds up
        // nothing.
        let reading = tokio::spawn(read(MessageStream::from(&connection), Arc::clone(&owner), tell));
        let _reading = Ending(reading.abort_handle());
        for rule in RULES {
            bus_call(&connection, "AddMatch", &rule).await?;
        }
        // That nobody has the name is an error as well.
        let known = bus_call(&connection, "GetNameOwner", &LOGIND).await;
        let known: Option<String> = known.and_then(|reply| body(&reply)).ok();
        {
            let mut owner = known_owner(&owner);
            if !owner.heard {
                owner.name = known;
            }
        }
        self.pause = LOOK_AGAIN;
        let present = known_owner(&owner).name.is_some();
        self.begin(&connection, present).await;
        while let Some(told) = waiting.recv().await {
            self.act(&connection, told).await;
        }
        Err("the connection to the system bus was lost".to_owned())
    }

    async fn act(&mut self, connection: &Connection, told: Told) {
        match told {
            Told::Owner(owner) => self.begin(connection, owner.is_some()).await,
            Told::Sleep(true) => {
                let until = Instant::now() + self.delay.saturating_sub(DELAY_LEFT);
                self.locker.lock(LockCause::Suspend, until).await;
                // Closed only now: the machine may sleep.
                self.inhibitor = None;
            }
            Told::Sleep(false) => self.hold_suspend(connection).await,
            Told::Locked(path) => {
                let (connection, locker, uid) =
                    (connection.clone(), self.locker.clone(), self.sessions.uid());
                tokio::spawn(async move {
                    // Of what cannot be told whose it is, it is taken to be ours.
                    if session(&connection, &path).await.is_none_or(|session| session.uid == uid) {
                        locker.begin(LockCause::Screen);
                    }
                });
            }
            Told::Began(path) => {
                if let Some(session) = session(connection, &path).await {
                    self.sessions.began(path, session);
                }
            }
            Told::Ended(path) => {
                if self.sessions.ended(&path) {
                    self.locker.begin(LockCause::Logout);
                }
            }
            Told::UserGone(uid) if uid == self.sessions.uid() => self.locker.begin(LockCause::Logout),
            Told::UserGone(_) => {}
        }
    }

    /// Begins with the logind that is there now, if there is one.
    async fn begin(&mut self, connection: &Connection, present: bool) {
        if !present {
            self.inhibitor = None;
            self.standing.is(SessionWatchState::Absent("logind does not run".to_owned()));
            return;
        }
        self.delay = delay(connection).await.unwrap_or(DELAY_DEFAULT);
        self.hold_suspend(connection).await;
        match sessions(connection).await {
            Ok(all) => {
                if let Some(cause) = self.sessions.seen_again(all) {
                    self.locker.begin(cause);
                }
            }
            Err(error) => tracing::warn!("logind does not list its sessions: {error}"),
        }
    }

    /// Has suspend wait for us.
    async fn hold_suspend(&mut self, connection: &Connection) {
        match inhibitor(connection).await {
            Ok(inhibitor) => {
                self.inhibitor = Some(inhibitor);
                self.standing.is(SessionWatchState::Complete);
            }
            Err(error) => {
                self.inhibitor = None;
                self.standing.is(SessionWatchState::WithoutDelay(error));
            }
        }
    }
}

fn known_owner(owner: &Mutex<Owner>) -> MutexGuard<'_, Owner> {
    owner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells on what logind tells, until the connection is lost or nobody keeps up with it.
async fn read(mut messages: MessageStream, owner: Arc<Mutex<Owner>>, tell: mpsc::Sender<Told>) {
    while let Some(Ok(message)) = messages.next().await {
        let told = told(&message, known_owner(&owner).name.as_deref());
        if let Some(Told::Owner(name)) = &told {
            *known_owner(&owner) = Owner { name: name.clone(), heard: true };
        }
        if told.is_some_and(|told| tell.try_send(told).is_err()) {
            return;
        }
    }
}

async fn connect() -> Result<Connection, String> {
    let building = async {
        let builder = zbus::connection::Builder::system()?.method_timeout(ANSWER_MAX);
        builder.build().await
    };
    let built = tokio::time::timeout(ANSWER_MAX, building).await;
    let built = built.map_err(|_| "the system bus does not answer".to_owned())?;
    built.map_err(|error| format!("there is no system bus ({error})"))
}

/// Puts a question to the bus itself.
async fn bus_call(connection: &Connection, method: &str, text: &&str) -> Result<zbus::Message, String> {
    let bus = "org.freedesktop.DBus";
    let reply = connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), method, text).await;
    reply.map_err(|error| error.to_string())
}

/// Puts a question to logind.
async fn call<B: Serialize + DynamicType>(
    connection: &Connection,
    path: &str,
    method: (&str, &str),
    arguments: &B,
) -> Result<zbus::Message, String> {
    let (interface, method) = method;
    let reply = connection.call_method(Some(LOGIND), path, Some(interface), method, arguments).await;
    reply.map_err(|error| error.to_string())
}

fn body<T: DeserializeOwned + zvariant::Type>(reply: &zbus::Message) -> Result<T, String> {
    reply.body().deserialize().map_err(|error| error.to_string())
}

/// Takes what suspend waits for until it is closed.
async fn inhibitor(connection: &Connection) -> Result<OwnedFd, String> {
    let arguments = ("sleep", "pds", "Profiles are locked first", "delay");
    let reply = call(connection, MANAGER_PATH, (MANAGER, "Inhibit"), &arguments).await?;
    body::<zvariant::OwnedFd>(&reply).map(OwnedFd::from)
}

/// How long suspend waits.
async fn delay(connection: &Connection) -> Option<Duration> {
    let arguments = (MANAGER, "InhibitDelayMaxUSec");
    let reply = call(connection, MANAGER_PATH, (PROPERTIES, "Get"), &arguments).await.ok()?;
    let value: OwnedValue = body(&reply).ok()?;
    value.downcast_ref::<u64>().ok().map(Duration::from_micros)
}

/// What logind says of a session; `None` where it cannot be told.
async fn session(connection: &Connection, path: &str) -> Option<Session> {
    let reply = call(connection, path, (PROPERTIES, "GetAll"), &SESSION).await.ok()?;
    let properties: HashMap<String, OwnedValue> = body(&reply).ok()?;
    Session::read(&properties)
}

/// All sessions that can be told about, with their paths.
async fn sessions(connection: &Connection) -> Result<Vec<(String, Session)>, String> {
    let reply = call(connection, MANAGER_PATH, (MANAGER, "ListSessions"), &()).await?;
    let listed: Vec<(String, u32, String, String, OwnedObjectPath)> = body(&reply)?;
    let mut all = Vec::new();
    for (.., path) in listed {
        if let Some(session) = session(connection, path.as_str()).await {
            all.push((path.as_str().to_owned(), session));
        }
    }
    Ok(all)
}
