//! What helpers read and store: values under names, where nothing that is missing is an error.

use core_types::pattern::Pattern;
use core_types::protocol::secrets::{Delete, Get, List, SecretsDenial, Set};
use core_types::{ProfileName, SecretName, WireSecret};
use zeroize::Zeroizing;

use super::HelperError;
use crate::error::{Denial, Failure};
use crate::fields;
use crate::input::remove_line_feed;
use crate::prompt::Typed;
use crate::session::Session;

/// Secrets of one profile.
pub(super) struct Keep<'a> {
    session: &'a mut Session,
    profile: ProfileName,
}

impl<'a> Keep<'a> {
    /// Those of the profile that the session is about.
    ///
    /// # Errors
    /// It is about none.
    pub(super) fn open(session: &'a mut Session) -> Result<Self, Failure> {
        let profile = session.profile()?;
        Ok(Self { session, profile })
    }

    /// A value, without a line feed at its end; `None` where there is none.
    ///
    /// # Errors
    /// What was denied, or why there is no answer.
    pub(super) fn value(&mut self, name: &SecretName) -> Result<Option<Typed>, Failure> {
        let call = Get { profile: self.profile.clone(), name: name.as_str().to_owned(), version: None };
        let value = match self.session.call(&call) {
            Ok(value) => fields::opened(self.session, &self.profile, name.as_str(), value)?,
            Err(Failure::Denied(Denial::Secrets(SecretsDenial::NoSuchSecret(_)))) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let mut value = Zeroizing::new(value.expose().to_vec());
        remove_line_feed(&mut value);
        Ok(Some(value))
    }

    /// A value that goes into one line of text.
    ///
    /// # Errors
    /// As [`Self::value`], and it would not stay on one line.
    pub(super) fn line(&mut self, name: &SecretName) -> Result<Option<Typed>, Failure> {
        let value = self.value(name)?;
        match value.as_deref().and_then(|value| unfit(value)) {
            Some(what) => Err(HelperError::Value { name: name.to_string(), what }.into()),
            None => Ok(value),
        }
    }

    /// Stores a value, unless it is stored already.
    ///
    /// # Errors
    /// What was denied, or why there is no answer.
    pub(super) fn store(
        &mut self,
        name: &SecretName,
        value: &[u8],
        expires_unix_ms: Option<u64>,
    ) -> Result<(), Failure> {
        if self.value(name)?.is_some_and(|kept| *kept == value) {
            return Ok(());
        }
        let value = WireSecret::new(value.to_vec());
        let value = fields::sealed(self.session, &self.profile, name.as_str(), value)?;
        let (profile, name) = (self.profile.clone(), name.as_str().to_owned());
        self.session.call(&Set { profile, name, value, expires_unix_ms, note: None })?;
        Ok(())
    }

    /// Removes a secret; it can be restored. Answers whether there was one.
    ///
    /// # Errors
    /// What was denied, or why there is no answer.
    pub(super) fn remove(&mut self, name: &SecretName) -> Result<bool, Failure> {
        match self.session.call(&Delete { profile: self.profile.clone(), name: name.as_str().to_owned() }) {
            Ok(_) => Ok(true),
            Err(Failure::Denied(Denial::Secrets(SecretsDenial::NoSuchSecret(_)))) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The names just below `folder` with so many parts each, without it.
    ///
    /// # Errors
    /// What was denied, or why there is no answer.
    pub(super) fn below(&mut self, folder: &str, parts: usize) -> Result<Vec<String>, Failure> {
        let pattern = Pattern::parse(format!("{folder}/*"))
            .map_err(|_| HelperError::Place("its name would be too long"))?;
        let mut list = List { profile: self.profile.clone(), pattern: Some(pattern), after: None };
        let mut found = Vec::new();
        loop {
            let page = self.session.call(&list)?;
            list.after = page.entries.last().map(|entry| entry.name.clone());
            let names = page
                .entries
                .iter()
                .filter_map(|entry| entry.name.as_str().strip_prefix(folder)?.strip_prefix('/'));
            found.extend(names.filter(|name| name.split('/').count() == parts).map(str::to_owned));
            if !page.more || list.after.is_none() {
                return Ok(found);
            }
        }
    }
}

/// What of a value would end a line, or the text, for some reader.
pub(super) fn unfit(value: &[u8]) -> Option<&'static str> {
    value.iter().find_map(|byte| match byte {
        b'\n' => Some("a line feed"),
        b'\r' => Some("a carriage return"),
        0 => Some("a NUL byte"),
        _ => None,
    })
}
