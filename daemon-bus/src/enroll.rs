//! Daemons of others: who the user has let on the bus under which name, and how that ends.

use core_crypto::private_fs;
use core_daemon::unix_ms_now;
use core_ipc::enrolled::{EnrollError, EnrolledDaemons, EnrolledEntry, EnrolledFileError};
use core_ipc::wire::PublicKey;
use core_types::DaemonName;
use core_types::header::{Destination, Header, Kind, Sender};
use core_types::protocol::bus::{BusDenial, Enroll, EnrolledDaemon, RegistryChange, Revoke};
use core_types::protocol::{Topic, encode};

use crate::bus::Bus;
use crate::own::{own_header, own_sender};
use crate::router::ConnectionId;

impl Bus {
    /// Gives a name to a key.
    pub(crate) fn enroll(&mut self, from: ConnectionId, call: &Enroll) -> Result<(), BusDenial> {
        let sender = self.user(from)?;
        let mut all = self.enrolled.clone();
        let (name, key) = (call.name.clone(), PublicKey(call.key));
        let entry = EnrolledEntry { name: name.clone(), key, since_unix_ms: unix_ms_now() };
        all.enroll(entry).map_err(|error| denial(error, &name))?;
        self.change_enrolled(all, RegistryChange { name, enrolled: true, sender })
    }

    /// Takes a name back, and ends the connections that have it.
    pub(crate) fn revoke(&mut self, from: ConnectionId, call: &Revoke) -> Result<(), BusDenial> {
        let sender = self.user(from)?;
        let mut all = self.enrolled.clone();
        let key = all.revoke(&call.name, unix_ms_now()).map_err(|error| denial(error, &call.name))?;
        self.change_enrolled(all, RegistryChange { name: call.name.clone(), enrolled: false, sender })?;
        self.end_all_of(key);
        Ok(())
    }

    /// Who is enrolled.
    pub(crate) fn list_enrolled(&mut self, from: ConnectionId) -> Result<Vec<EnrolledDaemon>, BusDenial> {
        self.user(from)?;
        let entries = self.enrolled.enrolled().iter().map(|entry| EnrolledDaemon {
            name: entry.name.clone(),
            key: entry.key.0,
            since_unix_ms: entry.since_unix_ms,
            connections: u32::try_from(self.connections_of(entry.key).count()).unwrap_or(u32::MAX),
        });
        Ok(entries.collect())
    }

    /// The asker, if it is the user at the command line. No daemon lets another in or keeps one out.
    fn user(&self, from: ConnectionId) -> Result<Sender, BusDenial> {
        let sender = self.router.sender(from).filter(|sender| sender.name.is_none());
        sender.cloned().ok_or(BusDenial::NotForDaemons)
    }

    /// Puts a change in force. It is made known to `daemon-profile`, which records it; without it nothing is changed.
    fn change_enrolled(&mut self, all: EnrolledDaemons, change: RegistryChange) -> Result<(), BusDenial> {
        let subscribers = self.router.subscribers(Topic::BusRegistry);
        if subscribers.is_empty() {
            return Err(BusDenial::Unrecorded);
        }
        let body = encode(&change).map_err(|_| BusDenial::Invalid)?;
        let written = private_fs::ensure_private_dir(self.paths.data())
            .and_then(|()| private_fs::ensure_private_dir(&self.paths.enrolled_folder()))
            .map_err(EnrolledFileError::from)
            .and_then(|()| all.write(&self.paths.enrolled()));
        written.map_err(|error| BusDenial::Storage(error.to_string()))?;
        self.enrolled = all;
        tracing::info!(name = %change.name, enrolled = change.enrolled, "the enrolled daemons changed");
        let header = Header {
            sender: own_sender(),
            ..own_header(Kind::Event, Destination::Topic(Topic::BusRegistry))
        };
        self.publish(&subscribers, &header, &body);
        Ok(())
    }
}

fn denial(error: EnrollError, name: &DaemonName) -> BusDenial {
    match error {
        EnrollError::Reserved => BusDenial::ReservedName(name.clone()),
        EnrollError::Exists => BusDenial::AlreadyEnrolled(name.clone()),
        EnrollError::KeyUsed => BusDenial::KeyUsed,
        EnrollError::TooMany => BusDenial::TooManyEnrolled,
        EnrollError::Unknown => BusDenial::NotEnrolled(name.clone()),
    }
}
