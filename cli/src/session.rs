//! What one invocation has: its options, its folders, and one connection to the bus, made when first needed.

use std::cell::OnceCell;
use std::fs::File;
use std::time::{Duration, Instant};

use core_crypto::private_fs;
use core_ipc::blocking::Client;
use core_ipc::wire::WireError;
use core_ipc::{CallError, CallOptions, ConnectError};
use core_types::ProfileName;
use core_types::config::Config;
use core_types::header::Refusal;
use core_types::limits::{CONFIG_BYTES_MAX, DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX};
use core_types::paths::Paths;
use core_types::protocol::{Call, DenialOf, Service};

use crate::args::Options;
use crate::error::{Denial, Failure};
use crate::output::{Messages, Output};
use crate::start::{self, Started};

/// How long most things may take, when `--timeout` says nothing.
const DEADLINE: Duration = Duration::from_millis(DEADLINE_MS_DEFAULT as u64);
/// How long an attempt with a password may take: it waits for up to 10 s after wrong ones, and Argon2id is slow on purpose.
pub(crate) const PASSWORD_DEADLINE: Duration = Duration::from_secs(30);
/// How long something may take that reads or writes a whole vault.
pub(crate) const LONG_DEADLINE: Duration = Duration::from_millis(DEADLINE_MS_MAX as u64);
/// Pause between two attempts to reach what is just starting.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a bus that fails the handshake may be one that is just ending; a handshake with one of another version
/// fails for ever.
const SUCCESSION: Duration = Duration::from_secs(2);

/// One invocation.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) messages: Messages,
    pub(crate) output: Output,
    pub(crate) paths: Paths,
    profile: Option<ProfileName>,
    /// The profile of the project, which counts for more than the configuration's.
    of_project: Option<ProfileName>,
    /// The configuration, once it was read.
    config: OnceCell<Config>,
    client: Option<Client>,
}

impl Session {
    /// An invocation with these options; nothing is connected yet.
    ///
    /// # Errors
    /// The folders cannot be told from the environment.
    pub(crate) fn new(options: Options) -> Result<Self, Failure> {
        let messages = Messages::new(&options);
        let output = Output::new(&options);
        let paths = Paths::from_environment()?;
        let config = OnceCell::new();
        Ok(Self { messages, output, paths, options, profile: None, of_project: None, config, client: None })
    }

    /// The profile the command is about: `-p`, `PDS_PROFILE`, the project's, the configuration's, `default`; in this order.
    ///
    /// # Errors
    /// More than one `-p`, a variable that is no name, or a configuration that cannot be used.
    pub(crate) fn profile(&mut self) -> Result<ProfileName, Failure> {
        let profile = match self.options.profiles.as_slice() {
            [] => default_profile(std::env::var_os("PDS_PROFILE"), || match &self.of_project {
                Some(profile) => Ok(profile.clone()),
                None => Ok(self.config()?.default_profile.clone()),
            })?,
            [profile] => profile.clone(),
            _ => return Err(Failure::SeveralProfiles),
        };
        self.profile = Some(profile.clone());
        Ok(profile)
    }

    /// Says which profile the command is about, where the command itself names it.
    pub(crate) fn use_profile(&mut self, profile: ProfileName) {
        self.profile = Some(profile);
    }

    /// Says which profile the project names.
    pub(crate) fn set_profile_of_project(&mut self, profile: Option<ProfileName>) {
        self.of_project = profile;
    }

    /// Whether the command line names a profile.
    pub(crate) fn names_profile(&self) -> bool {
        !self.options.profiles.is_empty()
    }

    /// The profiles of `pds run`: each `-p` in order, or the one that any command would use.
    ///
    /// # Errors
    /// As [`Self::profile`].
    pub(crate) fn profiles(&mut self) -> Result<Vec<ProfileName>, Failure> {
        if self.options.profiles.len() > 1 {
            return Ok(self.options.profiles.clone());
        }
        Ok(vec![self.profile()?])
    }

    /// The profile that [`Self::profile`] answered, for messages.
    pub(crate) fn profile_used(&self) -> Option<&ProfileName> {
        self.profile.as_ref()
    }

    /// Whether the configuration has programs named that alone are given secrets of one of these profiles, or of any where
    /// the environment `refers` to secrets. The daemons go on by the last configuration that could be used, so where it
    /// cannot be they have the last word.
    pub(crate) fn gives_to_named_programs(&self, profiles: &[ProfileName], refers: bool) -> bool {
        self.config().is_ok_and(|config| {
            config.access.programs.keys().any(|profile| refers || profiles.contains(profile))
        })
    }

    /// The configuration.
    ///
    /// # Errors
    /// It cannot be read, or holds something that is not known.
    fn config(&self) -> Result<&Config, Failure> {
        match self.config.get() {
            Some(config) => Ok(config),
            None => self.read_config().map(|config| self.config.get_or_init(|| config)),
        }
    }

    fn read_config(&self) -> Result<Config, Failure> {
        let path = self.paths.config_file();
        match private_fs::read_limited(&path, CONFIG_BYTES_MAX).map_err(Failure::ConfigFile)? {
            None => Ok(Config::default()),
            Some(bytes) => match std::str::from_utf8(&bytes) {
                Err(_) => Err(Failure::ConfigText { path }),
                Ok(text) => Config::parse(text).map_err(|source| Failure::Config { path, source }),
            },
        }
    }

    /// How long something may take that takes `usual` at most when all is well.
    pub(crate) fn deadline(&self, usual: Duration) -> Duration {
        self.options.timeout.unwrap_or(usual)
    }

    /// How long most things may take.
    pub(crate) fn usual_deadline(&self) -> Duration {
        self.deadline(DEADLINE)
    }

    /// The connection to the bus; starts the daemons when nobody listens and nothing forbids it.
    ///
    /// # Errors
    /// There is no connection, and why.
    pub(crate) fn client(&mut self) -> Result<&mut Client, Failure> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        Ok(self.client.insert(client))
    }

    /// Ends the connection to the bus, if there is one.
    pub(crate) fn disconnect(&mut self) {
        self.client = None;
    }

    fn connect(&self) -> Result<Client, Failure> {
        match self.connect_once() {
            Ok(client) => Ok(client),
            Err(error) if !error.is_absent() => Err(error.into()),
            Err(_) if self.options.no_start => Err(Failure::NotRunning),
            Err(_) => self.start_and_connect().map(|(client, _)| client),
        }
    }

    /// One connection; a bus that ends over the handshake is being restarted, and its successor is waited for.
    fn connect_once(&self) -> Result<Client, ConnectError> {
        let patience = Instant::now() + self.usual_deadline().min(SUCCESSION);
        loop {
            match Client::connect(&self.paths, self.usual_deadline()) {
                Err(ConnectError::Handshake) if Instant::now() < patience => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Starts the daemons unless they are running, whatever `--no-start` says; answers whether it was us.
    ///
    /// # Errors
    /// They did not come up in time, and why.
    pub(crate) fn start(&mut self) -> Result<bool, Failure> {
        self.client = None;
        let (client, started) = match self.connect_once() {
            Ok(client) => (client, Started::BySomeoneElse),
            Err(error) if !error.is_absent() => return Err(error.into()),
            Err(_) => self.start_and_connect()?,
        };
        self.client = Some(client);
        Ok(started == Started::ByUs)
    }

    /// Starts the daemons, or waits for those that someone else is starting.
    fn start_and_connect(&self) -> Result<(Client, Started), Failure> {
        let deadline = Instant::now() + self.usual_deadline();
        // The daemons would refuse a wrong configuration as well, but into their log.
        self.config()?;
        let started = start::start_daemons(&self.paths, deadline)?;
        self.messages.detail(match started {
            Started::ByUs => "started the daemons",
            Started::BySomeoneElse => "the daemons are being started by another command; waiting for them",
        });
        Ok((self.connect_until(deadline)?, started))
    }

    /// Makes the connection anew after it was lost, but starts nothing: for a command that only looks on.
    ///
    /// # Errors
    /// The bus did not come back in time.
    pub(crate) fn reconnect(&mut self) -> Result<(), Failure> {
        self.client = None;
        self.client = Some(self.connect_until(Instant::now() + self.usual_deadline())?);
        Ok(())
    }

    /// Connects, again and again while the daemons come up.
    fn connect_until(&self, deadline: Instant) -> Result<Client, Failure> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match Client::connect(&self.paths, left.max(RETRY_PAUSE)) {
                Ok(client) => return Ok(client),
                Err(error @ ConnectError::Folder(_)) => return Err(error.into()),
                Err(error) if left <= RETRY_PAUSE => return Err(error.into()),
                Err(_) => std::thread::sleep(RETRY_PAUSE),
            }
        }
    }

    /// Makes a call that is answered soon.
    ///
    /// # Errors
    /// What the service denied, or why there is no answer.
    pub(crate) fn call<C: Call>(&mut self, call: &C) -> Result<C::Reply, Failure>
    where
        DenialOf<C>: Into<Denial>,
    {
        self.call_within(call, DEADLINE)
    }

    /// Makes a call that takes `usual` at most when all is well.
    ///
    /// # Errors
    /// What the service denied, or why there is no answer.
    pub(crate) fn call_within<C: Call>(&mut self, call: &C, usual: Duration) -> Result<C::Reply, Failure>
    where
        DenialOf<C>: Into<Denial>,
    {
        self.call_until(call, Instant::now() + self.deadline(usual))
    }

    /// Makes a call that has to be answered by `end`.
    ///
    /// # Errors
    /// What the service denied, or why there is no answer.
    pub(crate) fn call_until<C: Call>(&mut self, call: &C, end: Instant) -> Result<C::Reply, Failure>
    where
        DenialOf<C>: Into<Denial>,
    {
        self.until_delivered(
            end,
            |client, left| client.call(call, CallOptions { deadline: left, descriptors: Vec::new() }),
            |error| matches!(error, CallError::Refused(Refusal::ServiceUnknown)),
        )?
        .map_err(|error| (C::Service::NAME, error).into())
    }

    /// Makes a call with which a file goes along, and which takes `usual` at most when all is well.
    ///
    /// # Errors
    /// What the service denied, or why there is no answer.
    pub(crate) fn call_with_file<C: Call>(
        &mut self,
        call: &C,
        file: &File,
        usual: Duration,
    ) -> Result<C::Reply, Failure>
    where
        DenialOf<C>: Into<Denial>,
    {
        let end = Instant::now() + self.deadline(usual);
        let file =
            file.try_clone().map_err(|source| Failure::Child { what: "the file cannot be sent", source })?;
        let attempt = |client: &mut Client, left| {
            let descriptors = vec![file.try_clone().map_err(|_| WireError::Descriptors)?.into()];
            client.call(call, CallOptions { deadline: left, descriptors })
        };
        self.until_delivered(end, attempt, |error| {
            matches!(error, CallError::Refused(Refusal::ServiceUnknown))
        })?
        .map_err(|error| (C::Service::NAME, error).into())
    }

    /// Makes an attempt, and makes it again until `end` while it is `undelivered`: its service is starting, and
    /// has seen nothing of it.
    ///
    /// # Errors
    /// There is no connection; the attempt's own error is the inner one.
    pub(crate) fn until_delivered<T, E>(
        &mut self,
        end: Instant,
        mut attempt: impl FnMut(&mut Client, Duration) -> Result<T, E>,
        undelivered: impl Fn(&E) -> bool,
    ) -> Result<Result<T, E>, Failure> {
        let client = self.client()?;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(RETRY_PAUSE);
            match attempt(client, left) {
                Err(error) if undelivered(&error) && left > RETRY_PAUSE => std::thread::sleep(RETRY_PAUSE),
                result => return Ok(result),
            }
        }
    }
}

/// The profile of a command without `-p`, from the value of `PDS_PROFILE` or else the configuration.
fn default_profile(
    variable: Option<std::ffi::OsString>,
    otherwise: impl FnOnce() -> Result<ProfileName, Failure>,
) -> Result<ProfileName, Failure> {
    match variable.filter(|value| !value.is_empty()) {
        Some(value) => ProfileName::parse(value.to_string_lossy()).map_err(Failure::ProfileVariable),
        None => otherwise(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_before_the_configuration_and_an_empty_one_is_none() {
        let config = || Ok(ProfileName::parse("work").unwrap());
        assert_eq!(default_profile(Some("home".into()), config).unwrap().as_str(), "home");
        assert_eq!(default_profile(Some("".into()), config).unwrap().as_str(), "work");
        assert_eq!(default_profile(None, config).unwrap().as_str(), "work");
        assert!(matches!(default_profile(Some("A B".into()), config), Err(Failure::ProfileVariable(_))));
    }
}
