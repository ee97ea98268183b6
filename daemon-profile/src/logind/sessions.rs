//! The sessions of the user in which somebody is: when the last of them ends, he has logged out.

use std::collections::{BTreeMap, HashMap};

use zbus::zvariant::{OwnedValue, Structure, Value};

use super::LockCause;

/// What logind says of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    /// Whose it is.
    pub(super) uid: u32,
    /// Whether somebody is in it: cron and systemd itself make sessions as well.
    pub(super) attended: bool,
    /// Whether its screen is locked.
    pub(super) locked: bool,
}

impl Session {
    /// Reads a session's properties; `None` for what is none.
    pub(super) fn read(properties: &HashMap<String, OwnedValue>) -> Option<Self> {
        let Value::Structure(user) = &**properties.get("User")? else { return None };
        let uid = Structure::fields(user).first()?.downcast_ref::<u32>().ok()?;
        let class = properties.get("Class")?.downcast_ref::<&str>().ok()?;
        let locked = properties.get("LockedHint").and_then(|hint| hint.downcast_ref::<bool>().ok());
        Some(Self { uid, attended: class.starts_with("user"), locked: locked.unwrap_or(false) })
    }
}

/// The sessions of one user in which somebody is, by their paths, and whether each is locked. Pure.
#[derive(Debug)]
pub(super) struct Sessions {
    uid: u32,
    open: BTreeMap<String, bool>,
}

impl Sessions {
    /// None yet.
    pub(super) fn of(uid: u32) -> Self {
        Self { uid, open: BTreeMap::new() }
    }

    /// Whose they are.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Takes note of a session that began.
    pub(super) fn began(&mut self, path: String, session: Session) {
        if session.uid == self.uid && session.attended {
            self.open.insert(path, session.locked);
        }
    }

    /// Takes note of the end of a session; whether it was the last one.
    pub(super) fn ended(&mut self, path: &str) -> bool {
        self.open.remove(path).is_some() && self.open.is_empty()
    }

    /// Takes note of all sessions there are, after a time in which nothing was told; why profiles lock if something
    /// happened in it.
    pub(super) fn seen_again(&mut self, all: Vec<(String, Session)>) -> Option<LockCause> {
        let before = std::mem::take(&mut self.open);
        for (path, session) in all {
            self.began(path, session);
        }
        let locked = |(path, locked): (&String, &bool)| !locked && self.open.get(path) == Some(&true);
        if !before.is_empty() && self.open.is_empty() {
            Some(LockCause::Logout)
        } else {
            before.iter().any(locked).then_some(LockCause::Screen)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(uid: u32, attended: bool, locked: bool) -> Session {
        Session { uid, attended, locked }
    }

    fn some(path: &str, locked: bool) -> Vec<(String, Session)> {
        vec![(path.to_owned(), session(7, true, locked))]
    }

    #[test]
    fn only_the_end_of_the_last_session_with_somebody_in_it_is_a_logout() {
        let mut sessions = Sessions::of(7);
        sessions.began("desk".to_owned(), session(7, true, false));
        sessions.began("ssh".to_owned(), session(7, true, false));
        sessions.began("cron".to_owned(), session(7, false, false));
        sessions.began("other".to_owned(), session(8, true, false));
        assert!(!sessions.ended("ssh"));
        assert!(!sessions.ended("other"));
        assert!(sessions.ended("desk"));
        assert!(!sessions.ended("desk") && !sessions.ended("cron"));
    }

    #[test]
    fn what_happened_while_nothing_was_told_is_made_up_for() {
        let mut sessions = Sessions::of(7);
        assert_eq!(sessions.seen_again(Vec::new()), None);
        assert_eq!(sessions.seen_again(some("a", true)), None, "it was locked before anything was unlocked");
        assert_eq!(sessions.seen_again(some("a", false)), None);
        assert_eq!(sessions.seen_again(some("a", true)), Some(LockCause::Screen));
        assert_eq!(sessions.seen_again(some("b", true)), None, "another session");
        assert_eq!(sessions.seen_again(Vec::new()), Some(LockCause::Logout));
        assert_eq!(sessions.seen_again(Vec::new()), None);
    }

    #[test]
    fn properties_are_read_and_what_is_no_session_is_none() {
        let path = zbus::zvariant::ObjectPath::try_from("/user").unwrap();
        let user = Value::from((7_u32, path)).try_to_owned().unwrap();
        let text = |text: &str| Value::from(text).try_to_owned().unwrap();
        let with = |class: &str| {
            HashMap::from([("User".to_owned(), user.clone()), ("Class".to_owned(), text(class))])
        };
        for (class, attended) in
            [("user", true), ("user-early", true), ("background", false), ("manager", false)]
        {
            assert_eq!(Session::read(&with(class)), Some(session(7, attended, false)), "{class}");
        }
        let mut locked = with("user");
        locked.insert("LockedHint".to_owned(), OwnedValue::from(true));
        assert_eq!(Session::read(&locked), Some(session(7, true, true)));
        locked.insert("User".to_owned(), text("7"));
        assert_eq!(Session::read(&locked), None);
        assert_eq!(Session::read(&HashMap::new()), None);
    }
}
