//! Git's credential helper (gitcredentials(7), git-credential(1) "INPUT/OUTPUT FORMAT").
//!
//! The password of USER at HOST is the secret `git/HOST/USER`, or `git/HOST/PATH/USER` for one repository where git tells
//! paths (`credential.useHttpPath`). That is for https; what git asks for another protocol is kept apart, below
//! `git-PROTOCOL`, so that no password of https goes over the wire in clear.
//!
//! Newlines in what git says or is told have let strangers' addresses fetch the passwords of other hosts (CVE-2020-5260,
//! CVE-2024-50349), carriage returns too (CVE-2024-52006), and empty hosts or protocols the password of any (CVE-2020-11008).

use zeroize::Zeroizing;

use super::keep::{Keep, unfit};
use super::{HelperError, place, request};
use crate::error::Failure;
use crate::prompt::Typed;
use crate::session::Session;

/// What git says of a credential.
#[derive(Default)]
struct Credential {
    protocol: String,
    host: String,
    path: String,
    username: Option<String>,
    password: Option<Typed>,
    expires_unix_seconds: Option<u64>,
}

pub(super) fn run(session: &mut Session, operation: &str) -> Result<(), Failure> {
    let act = match operation {
        "get" => get,
        "store" => store,
        "erase" => erase,
        // "If it does not support the requested operation, it should silently ignore the request."
        _ => return Ok(()),
    };
    let credential = parse(&request()?)?;
    act(session, &credential)
}

/// The attributes of a request, one to a line, up to an empty line. Unknown ones are passed over, as git wants it.
fn parse(text: &[u8]) -> Result<Credential, HelperError> {
    let mut credential = Credential::default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for line in text.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty()) {
        if unfit(line).is_some() {
            return Err(HelperError::Request("a line holds a carriage return or a NUL byte"));
        }
        let split = line.iter().position(|byte| *byte == b'=');
        let (key, value) = split
            .map(|at| (&line[..at], &line[at + 1..]))
            .ok_or(HelperError::Request("a line has no '='"))?;
        let text = || {
            std::str::from_utf8(value).map(str::to_owned).map_err(|_| HelperError::Request("it is not UTF-8"))
        };
        match key {
            b"protocol" => credential.protocol = text()?,
            b"host" => credential.host = text()?,
            b"path" => credential.path = text()?,
            b"username" => credential.username = Some(text()?),
            b"password" => credential.password = Some(Zeroizing::new(value.to_vec())),
            b"password_expiry_utc" => credential.expires_unix_seconds = text()?.parse().ok(),
            _ => {}
        }
    }
    if credential.protocol.is_empty() || credential.host.is_empty() {
        return Err(HelperError::Request("it names no protocol or no host"));
    }
    Ok(credential)
}

impl Credential {
    /// The folders of names in which its password may lie, the nearest first.
    fn folders(&self) -> Result<Vec<String>, HelperError> {
        let root = match self.protocol.as_str() {
            "https" => "git".to_owned(),
            other => format!("git-{}", place::part(other)?),
        };
        let mut folder = format!("{root}/{}", place::part(&self.host.to_ascii_lowercase())?);
        let mut folders = vec![folder.clone()];
        for part in place::parts(&self.path)? {
            folder = format!("{folder}/{part}");
            folders.push(folder.clone());
        }
        folders.reverse();
        Ok(folders)
    }
}

fn get(session: &mut Session, asked: &Credential) -> Result<(), Failure> {
    let mut keep = Keep::open(session)?;
    for folder in asked.folders()? {
        let Some(user) = user(&mut keep, &folder, asked.username.as_deref())? else { continue };
        let name = place::name(&[&folder, &place::part(&user)?])?;
        if let Some(password) = keep.line(&name)? {
            let mut answer = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 32));
            answer.extend(b"username=");
            answer.extend(user.as_bytes());
            answer.extend(b"\npassword=");
            answer.extend(&*password);
            answer.push(b'\n');
            return session.output.prepared(&answer);
        }
    }
    Ok(())
}

/// The user that is asked for, or the only one that there is.
fn user(keep: &mut Keep<'_>, folder: &str, asked: Option<&str>) -> Result<Option<String>, Failure> {
    if let Some(user) = asked {
        return Ok(Some(user.to_owned()));
    }
    let mut users: Vec<String> = keep.below(folder, 1)?.iter().filter_map(|part| place::text(part)).collect();
    if users.len() > 1 {
        return Err(HelperError::Users { users }.into());
    }
    Ok(users.pop())
}

fn store(session: &mut Session, given: &Credential) -> Result<(), Failure> {
    let (Some(user), Some(password)) = (&given.username, &given.password) else { return Ok(()) };
    let folders = given.folders()?;
    let name = place::name(&[folders.first().map_or("git", String::as_str), &place::part(user)?])?;
    let expires_unix_ms = given.expires_unix_seconds.and_then(|seconds| seconds.checked_mul(1000));
    Keep::open(session)?.store(&name, password, expires_unix_ms)
}

/// Removes what the server refused, and nothing that was stored since.
fn erase(session: &mut Session, refused: &Credential) -> Result<(), Failure> {
    let mut keep = Keep::open(session)?;
    for folder in refused.folders()? {
        let Some(user) = user(&mut keep, &folder, refused.username.as_deref())? else { continue };
        let name = place::name(&[&folder, &place::part(&user)?])?;
        let Some(kept) = keep.value(&name)? else { continue };
        if refused.password.as_ref().is_none_or(|password| *password == kept) {
            keep.remove(&name)?;
        }
        return Ok(());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(text: &str) -> Vec<String> {
        parse(text.as_bytes()).unwrap().folders().unwrap()
    }

    #[test]
    fn a_host_is_a_folder_and_a_path_lies_below_it() {
        assert_eq!(
            folders("protocol=https\nhost=GitHub.com\nwwwauth[]=Basic realm=x\n\n"),
            ["git/github.com"]
        );
        assert_eq!(
            folders("protocol=https\nhost=h:8443\npath=org/repo.git\n"),
            ["git/h_3A8443/org/repo.git", "git/h_3A8443/org", "git/h_3A8443"]
        );
        assert_eq!(folders("protocol=http\nhost=h"), ["git-http/h"]);
        assert_eq!(
            folders("protocol=https\nhost=h/../../x\npath=../y"),
            ["git/h_2F.._2F.._2Fx/_2E_2E/y", "git/h_2F.._2F.._2Fx/_2E_2E", "git/h_2F.._2F.._2Fx"]
        );
    }

    #[test]
    fn what_ends_an_empty_line_is_not_read_and_unknown_attributes_are_passed_over() {
        let credential =
            parse(b"protocol=https\nhost=h\nstate[]=a\nquit=0\nusername=u\npassword=a=b \n\nhost=other\n")
                .unwrap();
        assert_eq!((credential.host.as_str(), credential.username.as_deref()), ("h", Some("u")));
        assert_eq!(credential.password.unwrap().as_slice(), b"a=b ");
    }

    /// The requests of CVE-2020-5260, CVE-2020-11008, CVE-2024-50349 and CVE-2024-52006, as git sent them.
    #[test]
    fn requests_that_were_attacks_are_refused() {
        for wrong in [
            &b"protocol=https\nhost=good\r\nusername=u\n"[..],
            b"protocol=https\nhost=good.example\rhost=bad\n",
            b"protocol=https\n",
            b"host=good\n",
            b"protocol=\nhost=good\n",
            b"protocol=https\nhost=\n",
            b"protocol=https\nhost=a\0b\n",
            b"protocol=https\nhost\n",
            b"protocol=https\nhost=\xff\n",
            b"",
        ] {
            assert!(parse(wrong).is_err());
        }
        for steering in ["protocol=https\nhost=a\x1b[31mb\n", "protocol=https\nhost=a\npath=\x07\n"] {
            assert!(parse(steering.as_bytes()).unwrap().folders().is_err());
        }
    }
}
