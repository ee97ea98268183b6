//! What messages of the system bus mean: which of them come from logind, and what they tell (org.freedesktop.login1(5)).
//!
//! Anyone on the system bus can send a signal of any name to anyone. The bus vouches for the sender alone, so what is not
//! from the owner of logind's name tells nothing.

use std::collections::HashMap;

use zbus::message::{Message, Type};
use zbus::zvariant::{ObjectPath, Value};

/// The name of logind on the bus.
pub(super) const LOGIND: &str = "org.freedesktop.login1";
/// Its interfaces.
pub(super) const MANAGER: &str = "org.freedesktop.login1.Manager";
pub(super) const SESSION: &str = "org.freedesktop.login1.Session";
/// The bus itself, whose name no one else can have.
const BUS: &str = "org.freedesktop.DBus";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Logind has this unique name from now on, or none.
    Owner(Option<String>),
    /// The machine is about to go to sleep, or has woken up.
    Sleep(bool),
    /// The session at this path is to be locked, or is.
    Locked(String),
    /// A session began.
    Began(String),
    /// A session ended.
    Ended(String),
    /// The last session of this user ended, and nothing of his lingers.
    UserGone(u32),
}

/// What a message tells, where logind has this unique name.
pub(super) fn told(message: &Message, logind: Option<&str>) -> Option<Told> {
    let header = message.header();
    if header.message_type() != Type::Signal {
        return None;
    }
    let (sender, member) = (header.sender()?.as_str(), header.member()?.as_str());
    let body = message.body();
    if sender == BUS {
        let (name, _, owner) = body.deserialize::<(&str, &str, &str)>().ok()?;
        let of_logind = member == "NameOwnerChanged" && name == LOGIND;
        return of_logind.then(|| Told::Owner((!owner.is_empty()).then(|| owner.to_owned())));
    }
    if Some(sender) != logind {
        return None;
    }
    let at = || header.path().map(|path| path.as_str().to_owned());
    let session = || Some(body.deserialize::<(&str, ObjectPath<'_>)>().ok()?.1.as_str().to_owned());
    match (header.interface()?.as_str(), member) {
        (MANAGER, "PrepareForSleep") => body.deserialize().ok().map(Told::Sleep),
        (MANAGER, "SessionNew") => session().map(Told::Began),
        (MANAGER, "SessionRemoved") => session().map(Told::Ended),
        (MANAGER, "UserRemoved") => Some(Told::UserGone(body.deserialize::<(u32, ObjectPath<'_>)>().ok()?.0)),
        (SESSION, "Lock") => at().map(Told::Locked),
        ("org.freedesktop.DBus.Properties", "PropertiesChanged") => {
            type Changed<'a> = (&'a str, HashMap<&'a str, Value<'a>>, Vec<&'a str>);
            let (interface, changed, _) = body.deserialize::<Changed<'_>>().ok()?;
            let locked = interface == SESSION && changed.get("LockedHint") == Some(&Value::Bool(true));
            if locked { at().map(Told::Locked) } else { None }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = ":1.5";
    const PATH: &str = "/org/freedesktop/login1/session/_31";

    fn signal<B>(sender: &str, path: &str, interface: &str, member: &str, body: &B) -> Message
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let message = Message::signal(path, interface, member).unwrap().sender(sender).unwrap();
        message.build(body).unwrap()
    }

    fn changed(locked: bool) -> (&'static str, HashMap<&'static str, Value<'static>>, Vec<&'static str>) {
        (SESSION, HashMap::from([("LockedHint", Value::Bool(locked))]), Vec::new())
    }

    #[test]
    fn what_logind_tells_is_understood_and_the_same_from_anyone_else_is_not() {
        let path = || ObjectPath::try_from(PATH).unwrap();
        let manager = "/org/freedesktop/login1";
        let properties = "org.freedesktop.DBus.Properties";
        let all = |sender| {
            [
                (signal(sender, manager, MANAGER, "PrepareForSleep", &(true,)), Told::Sleep(true)),
                (signal(sender, manager, MANAGER, "PrepareForSleep", &(false,)), Told::Sleep(false)),
                (
                    signal(sender, manager, MANAGER, "SessionNew", &("1", path())),
                    Told::Began(PATH.to_owned()),
                ),
                (
                    signal(sender, manager, MANAGER, "SessionRemoved", &("1", path())),
                    Told::Ended(PATH.to_owned()),
                ),
                (signal(sender, manager, MANAGER, "UserRemoved", &(7_u32, path())), Told::UserGone(7)),
                (signal(sender, PATH, SESSION, "Lock", &()), Told::Locked(PATH.to_owned())),
                (
                    signal(sender, PATH, properties, "PropertiesChanged", &changed(true)),
                    Told::Locked(PATH.to_owned()),
                ),
            ]
        };
        for (message, meant) in all(OWNER) {
            assert_eq!(told(&message, Some(OWNER)), Some(meant));
        }
        for (message, _) in all(":1.6") {
            assert_eq!(told(&message, Some(OWNER)), None);
            assert_eq!(told(&message, None), None);
        }
        for other in [
            signal(OWNER, PATH, properties, "PropertiesChanged", &changed(false)),
            signal(OWNER, PATH, SESSION, "Unlock", &()),
            signal(OWNER, manager, MANAGER, "PrepareForSleep", &("yes",)),
            signal(OWNER, PATH, MANAGER, "Lock", &()),
        ] {
            assert_eq!(told(&other, Some(OWNER)), None);
        }
    }

    #[test]
    fn only_the_bus_says_who_logind_is() {
        let owner = |sender, name, new| {
            let body = (name, "", new);
            told(&signal(sender, "/org/freedesktop/DBus", BUS, "NameOwnerChanged", &body), Some(OWNER))
        };
        assert_eq!(owner(BUS, LOGIND, ":1.9"), Some(Told::Owner(Some(":1.9".to_owned()))));
        assert_eq!(owner(BUS, LOGIND, ""), Some(Told::Owner(None)));
        assert_eq!(owner(BUS, "org.example", ":1.9"), None);
        assert_eq!(owner(":1.6", LOGIND, ":1.6"), None);
        assert_eq!(owner(OWNER, LOGIND, ":1.6"), None);
    }
}
