//! `pds get`: writes the value of a secret to standard output.

use base64ct::{Base64, Encoding};
use core_types::ProfileName;
use core_types::protocol::secrets::Get;
use core_types::reference::SecretReference;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Exit, Failure};
use crate::fetch;
use crate::fields;
use crate::picker;
use crate::session::Session;

/// `pds get --json`: the value as text where it is UTF-8, else as base64 (RFC 4648, section 4).
#[derive(Serialize)]
struct Value<'a> {
    profile: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<&'a str>,
}

pub(super) fn run(session: &mut Session, name: Option<&str>, version: Option<u64>) -> Result<(), Failure> {
    let profile = session.profile()?;
    match name {
        Some(name) => write(session, profile, name, version),
        None => choose(session, profile, version),
    }
}

/// Has the user choose one of the names first.
fn choose(session: &mut Session, profile: ProfileName, version: Option<u64>) -> Result<(), Failure> {
    let names: Vec<String> = fetch::names(session, &profile)?.into_iter().map(String::from).collect();
    if names.is_empty() {
        session.messages.note(format!("there is no secret in profile '{profile}' to choose"));
        return Err(Failure::Reported(Exit::NotFound));
    }
    match picker::pick(&names)? {
        Some(name) => write(session, profile, name, version),
        None => Err(Failure::Reported(Exit::Failed)),
    }
}

/// `pds read`: the same for what a reference leads to.
pub(super) fn follow(session: &mut Session, reference: &SecretReference) -> Result<(), Failure> {
    let SecretReference { profile, name } = reference;
    session.use_profile(profile.clone());
    write(session, profile.clone(), name.as_str(), None)
}

fn write(
    session: &mut Session,
    profile: ProfileName,
    name: &str,
    version: Option<u64>,
) -> Result<(), Failure> {
    let value = session.call(&Get { profile: profile.clone(), name: name.to_owned(), version })?;
    let value = fields::opened(session, &profile, name, value)?;
    if session.output.wants_json() {
        let object = value_object(profile.as_str(), name, value.expose())?;
        return session.output.prepared(&object);
    }
    session.output.value(value.expose())
}

/// The line of JSON, in a buffer that is large enough from the start (a character takes at most six bytes), so that
/// growing leaves no piece of the value behind.
fn value_object(profile: &str, name: &str, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    const OTHER_BYTES: usize = 1024;
    let text = std::str::from_utf8(value).ok();
    let encoded = match text {
        Some(_) => Zeroizing::new(String::new()),
        None => Zeroizing::new(Base64::encode_string(value)),
    };
    let object =
        Value { profile, name, value: text, value_base64: text.is_none().then_some(encoded.as_str()) };
    let mut line = Zeroizing::new(Vec::with_capacity(6 * (value.len() + name.len()) + OTHER_BYTES));
    serde_json::to_writer(&mut *line, &object).map_err(|error| Failure::Output(error.into()))?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_anything_else_is_base64() {
        let object =
            |value: &[u8]| String::from_utf8(value_object("p", "a/b", value).unwrap().to_vec()).unwrap();
        assert_eq!(
            object(b"x\n\"\0"),
            "{\"profile\":\"p\",\"name\":\"a/b\",\"value\":\"x\\n\\\"\\u0000\"}\n"
        );
        assert_eq!(object(b""), "{\"profile\":\"p\",\"name\":\"a/b\",\"value\":\"\"}\n");
        assert_eq!(object(b"\xff\x00"), "{\"profile\":\"p\",\"name\":\"a/b\",\"value_base64\":\"/wA=\"}\n");
    }

    #[test]
    fn the_buffer_never_grows() {
        let value = vec![0; 1 << 16];
        let line = value_object("p", "n", &value).unwrap();
        assert_eq!(line.capacity(), 6 * (value.len() + 1) + 1024);
    }
}
