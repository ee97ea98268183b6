//! Docker's credential helper, as docker and podman call it (docker/docker-credential-helpers, "protocol").
//!
//! The password of USER at SERVER is the secret `docker/SERVER/USER`. A server has one user: storing another takes his place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keep::Keep;
use super::{HelperError, place, request};
use crate::error::Failure;
use crate::session::Session;

const FOLDER: &str = "docker";
/// Room for what is JSON around values.
const OTHER_BYTES: usize = 256;

/// What `store` is given and `get` gives.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// The same as it is read: a string of JSON may have escapes, and is copied then.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(rename = "ServerURL")]
    server: String,
    username: String,
    secret: String,
}

/// Docker shows what a helper writes to standard output when it fails, and knows by it that there is nothing.
pub(super) fn run(session: &mut Session, operation: &str) -> Result<(), Failure> {
    let result = match operation {
        "get" => get(session),
        "store" => store(session),
        "erase" => erase(session),
        "list" => list(session),
        _ => Err(HelperError::Request("there is no such operation").into()),
    };
    if let Err(failure) = &result {
        session.output.line(failure)?;
    }
    result
}

fn server(bytes: &[u8]) -> Result<String, HelperError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HelperError::Request("it is not UTF-8"))?.trim();
    if text.is_empty() { Err(HelperError::Request("no credentials server URL")) } else { Ok(text.to_owned()) }
}

fn folder(server: &str) -> Result<String, HelperError> {
    Ok(format!("{FOLDER}/{}", place::part(server)?))
}

fn get(session: &mut Session) -> Result<(), Failure> {
    let server = server(&request()?)?;
    let folder = folder(&server)?;
    let mut keep = Keep::open(session)?;
    let users = keep.below(&folder, 1)?;
    let known: Vec<(&String, String)> =
        users.iter().filter_map(|part| Some((part, place::text(part)?))).collect();
    let [(part, user)] = known.as_slice() else {
        let users: Vec<String> = known.into_iter().map(|(_, user)| user).collect();
        return Err(
            if users.is_empty() { HelperError::DockerNothing } else { HelperError::Users { users } }.into()
        );
    };
    let name = place::name(&[&folder, part])?;
    let value = keep.value(&name)?.ok_or(HelperError::DockerNothing)?;
    let secret = std::str::from_utf8(&value)
        .map_err(|_| HelperError::Value { name: name.to_string(), what: "bytes that are no text" })?;
    let mut line =
        Zeroizing::new(Vec::with_capacity(6 * (value.len() + server.len() + user.len()) + OTHER_BYTES));
    serde_json::to_writer(&mut *line, &Credentials { server: &server, username: user, secret })
        .map_err(|error| Failure::Output(error.into()))?;
    line.push(b'\n');
    session.output.prepared(&line)
}

fn store(session: &mut Session) -> Result<(), Failure> {
    let request = request()?;
    // What serde says of a text may repeat some of it.
    let given: Given =
        serde_json::from_slice(&request).map_err(|_| HelperError::Request("it is not its JSON"))?;
    if given.username.is_empty() {
        return Err(HelperError::Request("no credentials username").into());
    }
    let folder = folder(&server(given.server.as_bytes())?)?;
    let part = place::part(&given.username)?;
    let mut keep = Keep::open(session)?;
    keep.store(&place::name(&[&folder, &part])?, given.secret.as_bytes(), None)?;
    for other in keep.below(&folder, 1)?.iter().filter(|other| **other != part) {
        keep.remove(&place::name(&[&folder, other])?)?;
    }
    Ok(())
}

fn erase(session: &mut Session) -> Result<(), Failure> {
    let folder = folder(&server(&request()?)?)?;
    let mut keep = Keep::open(session)?;
    let users = keep.below(&folder, 1)?;
    if users.is_empty() {
        return Err(HelperError::DockerNothing.into());
    }
    for user in users {
        keep.remove(&place::name(&[&folder, &user])?)?;
    }
    Ok(())
}

fn list(session: &mut Session) -> Result<(), Failure> {
    let names = Keep::open(session)?.below(FOLDER, 2)?;
    let known = names.iter().filter_map(|name| {
        let (server, user) = name.split_once('/')?;
        Some((place::text(server)?, place::text(user)?))
    });
    let users: BTreeMap<String, String> = known.collect();
    session.output.object(&users)
}
