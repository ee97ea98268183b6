//! Cargo's credential provider (the Cargo Book, "Credential Provider Protocol", version 1).
//!
//! The token of a registry is the secret `cargo/HOST[/PATH]` after the address of its index, whatever a project calls it:
//! a project could call its own registry by the name of another.

use std::io::{BufRead as _, Read as _};

use core_types::SecretName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keep::Keep;
use super::{HelperError, REQUEST_BYTES_MAX, place};
use crate::error::Failure;
use crate::prompt::{Terminal, Typed};
use crate::session::Session;

/// The versions of the protocol that are spoken, which is said first.
const HELLO: &[u8] = b"{\"v\":[1]}\n";
/// Longest token that is typed.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Room for what is JSON around a token.
const OTHER_BYTES: usize = 256;

#[derive(Deserialize)]
struct Request {
    v: u32,
    registry: Registry,
    kind: String,
    #[serde(default)]
    token: Option<String>,
}

#[derive(Deserialize)]
struct Registry {
    #[serde(rename = "index-url")]
    index_url: String,
}

#[derive(Serialize)]
enum Answer<'a> {
    Ok(Done<'a>),
    Err(Refusal),
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Done<'a> {
    Get { token: &'a str, cache: &'static str, operation_independent: bool },
    Login,
    Logout,
}

#[derive(Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Refusal {
    UrlNotSupported,
    NotFound,
    OperationNotSupported,
    Other { message: String },
}

/// What one request led to.
enum Reply {
    Token(Typed),
    Login,
    Logout,
    Refused(Refusal),
}

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    session.output.prepared(HELLO)?;
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES_MAX));
        let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
        let read = input.by_ref().take(limit).read_until(b'\n', &mut line);
        match read.map_err(|source| Failure::Child { what: "the request cannot be read", source })? {
            0 => return Ok(()),
            _ if line.last() != Some(&b'\n') && line.len() == REQUEST_BYTES_MAX => {
                return Err(HelperError::Request("it is too long").into());
            }
            _ => answer(session, &line)?,
        }
    }
}

/// Answers one request. What went wrong is told to cargo, which shows it.
fn answer(session: &mut Session, line: &[u8]) -> Result<(), Failure> {
    let reply = serde_json::from_slice::<Request>(line)
        .map_err(|_| HelperError::Request("it is not its JSON").into())
        .and_then(|request| act(session, &request))
        .unwrap_or_else(|failure| Reply::Refused(Refusal::Other { message: explained(&failure) }));
    let room = if let Reply::Token(token) = &reply { 6 * token.len() } else { 0 };
    let reply = match &reply {
        Reply::Token(token) => match std::str::from_utf8(token) {
            Ok(token) => Answer::Ok(Done::Get { token, cache: "session", operation_independent: true }),
            Err(_) => Answer::Err(Refusal::Other { message: "the token is not UTF-8".to_owned() }),
        },
        Reply::Login => Answer::Ok(Done::Login),
        Reply::Logout => Answer::Ok(Done::Logout),
        Reply::Refused(refusal) => Answer::Err(refusal.clone()),
    };
    let mut text = Zeroizing::new(Vec::with_capacity(room + OTHER_BYTES));
    serde_json::to_writer(&mut *text, &reply).map_err(|error| Failure::Output(error.into()))?;
    text.push(b'\n');
    session.output.prepared(&text)
}

fn explained(failure: &Failure) -> String {
    match failure.advice() {
        Some(advice) => format!("{failure} ({advice})"),
        None => failure.to_string(),
    }
}

fn act(session: &mut Session, request: &Request) -> Result<Reply, Failure> {
    if request.v != 1 {
        return Err(HelperError::Request("it is of another version").into());
    }
    let Some(name) = name(&request.registry.index_url)? else {
        return Ok(Reply::Refused(Refusal::UrlNotSupported));
    };
    let mut keep = Keep::open(session)?;
    Ok(match request.kind.as_str() {
        "get" => keep.line(&name)?.map_or(Reply::Refused(Refusal::NotFound), Reply::Token),
        "login" => {
            let token = match &request.token {
                Some(token) => Zeroizing::new(token.as_bytes().to_vec()),
                None => typed(&request.registry.index_url)?,
            };
            keep.store(&name, token.trim_ascii(), None)?;
            Reply::Login
        }
        "logout" if keep.remove(&name)? => Reply::Logout,
        "logout" => Reply::Refused(Refusal::NotFound),
        _ => Reply::Refused(Refusal::OperationNotSupported),
    })
}

fn typed(index_url: &str) -> Result<Typed, Failure> {
    let question = format!("Token for {}: ", crate::output::shown(index_url));
    Ok(Terminal::open()?.hidden(&[&question], TOKEN_BYTES_MAX)?.remove(0))
}

/// The secret of a registry; none where its index is not asked for over https or http. Of http it is another one.
fn name(index_url: &str) -> Result<Option<SecretName>, HelperError> {
    let address = index_url.strip_prefix("sparse+").unwrap_or(index_url);
    let (root, rest) = match address.split_once("://") {
        Some(("https", rest)) => ("cargo", rest),
        Some(("http", rest)) => ("cargo-http", rest),
        _ => return Ok(None),
    };
    let parts = place::parts(rest)?;
    if parts.is_empty() {
        return Ok(None);
    }
    let parts: Vec<&str> = std::iter::once(root).chain(parts.iter().map(String::as_str)).collect();
    place::name(&parts).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_known_by_the_address_of_its_index() {
        let named = |url: &str| name(url).unwrap().map(|name| name.to_string());
        assert_eq!(named("sparse+https://index.crates.io/").as_deref(), Some("cargo/index.crates.io"));
        assert_eq!(named("https://h:8/a/b?c").as_deref(), Some("cargo/h_3A8/a/b_3Fc"));
        assert_eq!(named("sparse+http://127.0.0.1:80/").as_deref(), Some("cargo-http/127.0.0.1_3A80"));
        for other in ["file:///tmp/index", "ssh://git@h/x", "https://", "x", ""] {
            assert_eq!(named(other), None, "{other}");
        }
        assert!(name("https://a\nb/").is_err());
    }

    #[test]
    fn answers_are_those_of_the_book() {
        let text = |answer: Answer<'_>| serde_json::to_string(&answer).unwrap();
        let get = Done::Get { token: "t", cache: "session", operation_independent: true };
        assert_eq!(
            text(Answer::Ok(get)),
            r#"{"Ok":{"kind":"get","token":"t","cache":"session","operation_independent":true}}"#
        );
        assert_eq!(text(Answer::Ok(Done::Login)), r#"{"Ok":{"kind":"login"}}"#);
        assert_eq!(text(Answer::Err(Refusal::NotFound)), r#"{"Err":{"kind":"not-found"}}"#);
        assert_eq!(text(Answer::Err(Refusal::UrlNotSupported)), r#"{"Err":{"kind":"url-not-supported"}}"#);
        let other = Refusal::Other { message: "m".to_owned() };
        assert_eq!(text(Answer::Err(other)), r#"{"Err":{"kind":"other","message":"m"}}"#);
    }
}
