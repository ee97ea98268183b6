//! Secrets as credentials of systemd units: `LoadCredential=NAME:%t/pds/credentials.sock`.
//!
//! systemd connects from an abstract address that names unit and credential, sends nothing, and reads to the end. An end
//! without a byte is an empty credential to it, with which the unit starts. So whoever gets nothing is sent more than systemd
//! takes, and then the start of the unit fails; and what is begun is not cut short.
//!
//! Any process can have such an address. So the process is pinned and looked at: the unit's name has to be that of its
//! control group, and if it is the user's own, it has to come from the systemd that started this daemon.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_daemon::{Context, StartError, lives};
use core_ipc::BusClient;
use core_types::limits::{CREDENTIAL_BYTES_MAX, CREDENTIALS_AT_ONCE};
use core_types::protocol::secrets::{GetFor, NamedSecret};
use core_types::{ProfileName, SecretName, UnitName};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::{SocketAddrUnix, getpeername};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::fields::opened;
use crate::service::ask;

/// How long finding the value may take, and how long one that is not believed may take to read its refusal.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed accept(2): the usual reason is that no descriptor is left, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most of those that are not believed and still read their refusals; who comes then is closed to at once.
const NOT_BELIEVED_MAX: usize = 256;
/// What a refusal consists of.
const PIECE: [u8; 4096] = [0; 4096];

/// Who gives credentials to units.
pub(crate) struct Credentials {
    bus: BusClient,
    default_profile: ProfileName,
    /// The systemd of the user, which started this daemon.
    manager: u32,
    /// Places of those that are not believed, so that they take none of the others'.
    not_believed: Arc<Semaphore>,
}

/// What systemd asks for, by the address that it connects from.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    unit: UnitName,
    credential: String,
}

/// A process that systemd has made for the start of a unit.
#[derive(Debug)]
struct Asker {
    wanted: Wanted,
    uid: u32,
    pid: u32,
}

impl Credentials {
    /// Listens, and answers from now on; must be called on the runtime.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn start(context: &Context) -> Result<(), StartError> {
        let path = context.paths.credentials_socket();
        let listener = listen(&path).map_err(|error| {
            StartError::Service(format!("the socket {} cannot be made: {error}", path.display()))
        })?;
        let manager = rustix::process::getppid().and_then(|parent| u32::try_from(parent.as_raw_pid()).ok());
        let credentials = Self {
            bus: context.bus.clone(),
            default_profile: context.config.default_profile.clone(),
            manager: manager.unwrap_or(0),
            not_believed: Arc::new(Semaphore::new(NOT_BELIEVED_MAX)),
        };
        tokio::spawn(Arc::new(credentials).serve(listener));
        Ok(())
    }

    async fn serve(self: Arc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CREDENTIALS_AT_ONCE));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let this = Arc::clone(&self);
                    match asker(&stream, self.manager) {
                        Ok(asker) => drop(tokio::spawn(async move {
                            this.answer(stream, asker).await;
                            drop(place);
                        })),
                        Err(reason) => self.send_away(stream, &reason),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no credential can be asked for at the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Refuses one that is not believed, beside the others and for a time only.
    fn send_away(&self, stream: UnixStream, reason: &str) {
        tracing::warn!("whoever asked for a credential is refused: {reason}");
        if let Ok(place) = Arc::clone(&self.not_believed).try_acquire_owned() {
            tokio::spawn(async move {
                let _gone = tokio::time::timeout(PATIENCE, refuse(stream)).await;
                drop(place);
            });
        }
    }

    async fn answer(&self, stream: UnixStream, asker: Asker) {
        match self.find(&asker).await {
            Ok(secret) => give(stream, &secret).await,
            Err(reason) => {
                let (unit, asked) = (asker.wanted.unit.as_str(), &asker.wanted.credential);
                tracing::warn!(%unit, %asked, "a unit gets no credential, and so does not start: {reason}");
                refuse(stream).await;
            }
        }
    }

    async fn find(&self, asker: &Asker) -> Result<NamedSecret, String> {
        let deadline = Instant::now() + PATIENCE;
        let (profile, name) = self.place(&asker.wanted.credential)?;
        let get = GetFor {
            profile: profile.clone(),
            name: name.to_string(),
            unit: asker.wanted.unit.clone(),
            uid: asker.uid,
            pid: asker.pid,
        };
        let found = async {
            let value = ask(&self.bus, &get, deadline).await?;
            opened(&self.bus, &profile, vec![NamedSecret { name, value }], deadline).await
        };
        let secrets =
            tokio::time::timeout(PATIENCE, found).await.map_err(|_| "no answer in time".to_owned())?;
        secrets.map_err(|denial| denial.to_string())?.pop().ok_or_else(|| "no answer".to_owned())
    }

    /// Where the secret of a credential lies: `NAME` or `PROFILE@NAME`, with `+` for the `/` that it cannot have.
    fn place(&self, credential: &str) -> Result<(ProfileName, SecretName), String> {
        let (profile, name) = match credential.split_once('@') {
            None => (self.default_profile.clone(), credential),
            Some((profile, name)) => (
                ProfileName::parse(profile).map_err(|error| format!("'{profile}' is no profile: {error}"))?,
                name,
            ),
        };
        let name = name.replace('+', "/");
        let name =
            SecretName::parse(&*name).map_err(|error| format!("'{name}' is no name of a secret: {error}"))?;
        Ok((profile, name))
    }
}

/// Binds the socket, in place of one that an earlier process left behind: the instance lock says that it has ended.
fn listen(path: &std::path::Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Writes the value, for as long as it takes: one that is cut short would be a wrong one.
async fn give(mut stream: UnixStream, secret: &NamedSecret) {
    if let Err(error) = stream.write_all(secret.value.expose()).await {
        tracing::warn!(%error, "a unit has not taken its credential");
    }
}

/// Writes more than systemd takes as a credential.
async fn refuse(mut stream: UnixStream) {
    for _ in 0..=CREDENTIAL_BYTES_MAX / PIECE.len() {
        // It has read enough.
        if stream.write_all(&PIECE).await.is_err() {
            return;
        }
    }
}

/// Who asks, if it is systemd that starts the unit.
fn asker(stream: &UnixStream, manager: u32) -> Result<Asker, String> {
    let wanted =
        address(stream).as_deref().and_then(wanted).ok_or("its address names no unit and credential")?;
    let credentials = getsockopt(stream, sockopt::PeerCredentials).map_err(|error| error.to_string())?;
    let process =
        getsockopt(stream, sockopt::PeerPidfd).map_err(|error| format!("it cannot be pinned: {error}"))?;
    let uid = if credentials.uid() == root()? { 0 } else { credentials.uid() };
    let pid = u32::try_from(credentials.pid()).unwrap_or(0);
    let seen = Seen::of(pid).map_err(|error| format!("process {pid} cannot be looked at: {error}"))?;
    // What was read by number is the process's if it still lives.
    if !lives(&process) {
        return Err(format!("process {pid} has ended"));
    }
    let own = rustix::process::geteuid().as_raw();
    seen.judge(&wanted.unit, uid, own, manager).map_err(|reason| {
        format!("process {pid} of user {uid} claims to be started for {}: {reason}", wanted.unit.as_str())
    })?;
    Ok(Asker { wanted, uid, pid })
}

/// The number under which root is seen here: another than 0 in a user namespace that has no root of its own, where all
/// users but ours share it (user_namespaces(7)). Of these only root can reach our socket.
fn root() -> Result<u32, String> {
    let init =
        std::fs::metadata("/proc/1").map_err(|error| format!("the first process cannot be seen: {error}"))?;
    Ok(init.uid())
}

/// The abstract address that the other end has bound.
fn address(stream: &UnixStream) -> Option<Vec<u8>> {
    let address = SocketAddrUnix::try_from(getpeername(stream).ok()??).ok()?;
    address.abstract_name().map(<[u8]>::to_vec)
}

/// Unit and credential of an address, which is random digits, `/unit/`, the unit, `/`, and the credential.
fn wanted(name: &[u8]) -> Option<Wanted> {
    let mut parts = std::str::from_utf8(name).ok()?.splitn(4, '/');
    let (_random, "unit", unit, credential) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?)
    else {
        return None;
    };
    Some(Wanted { unit: UnitName::parse(unit).ok()?, credential: credential.to_owned() })
}

/// What the kernel shows of a process: where it comes from, and its control group.
#[derive(Debug)]
struct Seen {
    /// The processes that it comes from, its parent first.
    parents: [u32; 2],
    group: String,
}

impl Seen {
    fn of(pid: u32) -> std::io::Result<Self> {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let group = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
        let parent = parent_of(pid)?;
        Ok(Self { parents: [parent, parent_of(parent).unwrap_or(0)], group })
    }

    /// Whether systemd started the process for the unit: the user's, or for a process of root the machine's.
    fn judge(&self, unit: &UnitName, uid: u32, own: u32, manager: u32) -> Result<(), &'static str> {
        let users = format!("/user@{own}.service/");
        let of_user = self.group.contains(&users);
        if self.group.rsplit('/').next() != Some(unit.as_str()) {
            return Err("it is in the control group of another unit");
        }
        match (uid == own, uid == 0, of_user) {
            (true, _, true) if manager != 0 && self.parents.contains(&manager) => Ok(()),
            (true, _, true) => Err("it does not come from the user's systemd"),
            (_, true, false) if !self.group.contains("/user@") => Ok(()),
            _ => Err("it is in the control group of another user's unit"),
        }
    }
}

fn parent_of(pid: u32) -> std::io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[test]
    fn an_address_names_unit_and_credential() {
        let found = wanted(b"8990497ba3ecda10/unit/cred.service/dbpass").unwrap();
        assert_eq!(found, Wanted { unit: unit("cred.service"), credential: "dbpass".to_owned() });
        for bad in [
            "",
            "x",
            "x/unit/cred.service",
            "x/y/cred.service/a",
            "x/unit/cred/a",
            "x/unit//a",
            "x/unit/a.target/b",
        ] {
            assert_eq!(wanted(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(wanted(b"x/unit/a.service/\xff"), None);
    }

    #[test]
    fn only_what_systemd_started_for_the_unit_is_believed() {
        let judge = |group: &str, parents, uid| {
            Seen { parents, group: group.to_owned() }.judge(&unit("web.service"), uid, 1000, 50).is_ok()
        };
        let mine = "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service";
        assert!(judge(mine, [50, 1], 1000) && judge(mine, [60, 50], 1000));
        assert!(!judge(mine, [60, 61], 1000), "another process's child");
        assert!(!judge(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/other.service",
            [50, 1],
            1000
        ));
        assert!(!judge("/user.slice/user-1000.slice/session-1.scope", [50, 1], 1000));
        assert!(!judge("/system.slice/web.service", [50, 1], 1000), "a system unit that runs as the user");
        assert!(judge("/system.slice/web.service", [9, 1], 0));
        assert!(!judge("/user.slice/user-1001.slice/user@1001.service/web.service", [9, 1], 0));
        assert!(!judge(mine, [50, 1], 1001) && !judge("/system.slice/web.service", [9, 1], 1001));
        assert!(!judge("", [50, 1], 1000));
    }
}
