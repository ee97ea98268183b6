//! A client of ssh-agent, as far as unlocking needs it: which keys there are, and a signature of one
//! (draft-ietf-sshm-ssh-agent). Only `pds` talks to an agent; no daemon does.
//!
//! Whatever answers at `SSH_AUTH_SOCK` may hang, dribble or lie about lengths, so each exchange has a deadline and each
//! answer a largest size.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, io};

use base64ct::{Base64Unpadded, Encoding};
use core_types::factor::{AgentKeyKind, UnsupportedKey, ssh_string};
use core_types::limits::{AGENT_KEY_BYTES_MAX, SIGNATURE_BYTES_MAX};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::prompt::Typed;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Asks for `rsa-sha2-512` from an RSA key.
const RSA_SHA2_512: u32 = 4;

/// Largest answer that is read, in bytes; OpenSSH's own limit.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Most keys that are looked at.
const IDENTITIES_MAX: usize = 1024;
/// How long an agent may take to list its keys, which needs nobody.
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to sign: it may have to ask someone first.
const SIGN_PATIENCE: Duration = Duration::from_secs(60);

/// Why an agent was of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// There is none.
    #[error("there is no ssh-agent: SSH_AUTH_SOCK is not set")]
    Absent,
    /// It cannot be reached or does not answer.
    #[error("the ssh-agent at {} does not answer: {source}", path.display())]
    Unreachable { path: PathBuf, source: io::Error },
    /// It answers with something else.
    #[error("the ssh-agent answers with what no ssh-agent does")]
    Malformed,
    /// It has the key and does not sign.
    #[error("the ssh-agent did not sign with this key")]
    Refused,
    /// It signs in a way that no key can follow from.
    #[error("this SSH key cannot unlock: {0}")]
    Unsupported(#[from] UnsupportedKey),
}

/// A key that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The public key (RFC 4253, section 6.6).
    pub(crate) public_key: Vec<u8>,
    /// What its owner calls it.
    pub(crate) comment: String,
}

/// The fingerprint of a public key, as `ssh-add -l` shows it.
pub(crate) struct Fingerprint<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Fingerprint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(self.0)))
    }
}

/// A connection to an agent.
pub(crate) struct Agent {
    stream: UnixStream,
    path: PathBuf,
}

impl Agent {
    /// The agent that `SSH_AUTH_SOCK` names.
    ///
    /// # Errors
    /// There is none, or it cannot be reached.
    pub(crate) fn connect() -> Result<Self, AgentError> {
        let path =
            std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).ok_or(AgentError::Absent)?;
        Self::connect_to(Path::new(&path))
    }

    fn connect_to(path: &Path) -> Result<Self, AgentError> {
        let unreachable = |source: io::Error| AgentError::Unreachable { path: path.to_owned(), source };
        // Without waiting: the queue of an agent that hangs may be full.
        let connected = SocketAddrUnix::new(path).and_then(|address| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::connect(&socket, &address)?;
            Ok(socket)
        });
        let stream = UnixStream::from(connected.map_err(|errno| unreachable(errno.into()))?);
        stream.set_nonblocking(false).map_err(unreachable)?;
        Ok(Self { stream, path: path.to_owned() })
    }

    /// The keys that the agent holds.
    ///
    /// # Errors
    /// It does not say.
    pub(crate) fn identities(&mut self) -> Result<Vec<Identity>, AgentError> {
        let answer = self.ask(&[REQUEST_IDENTITIES], Instant::now() + LIST_PATIENCE)?;
        identities(&answer).ok_or(AgentError::Malformed)
    }

    /// The raw signature of a key over `data`, an RSA one without leading zeros.
    ///
    /// # Errors
    /// The agent does not sign, or the key's signatures cannot unlock.
    pub(crate) fn sign(&mut self, public_key: &[u8], data: &[u8]) -> Result<Typed, AgentError> {
        let kind = AgentKeyKind::of(public_key)?;
        let flags = match kind {
            AgentKeyKind::Rsa => RSA_SHA2_512,
            AgentKeyKind::Ed25519 => 0,
        };
        let mut request = vec![SIGN_REQUEST];
        put_string(&mut request, public_key);
        put_string(&mut request, data);
        request.extend_from_slice(&flags.to_be_bytes());
        let answer = self.ask(&request, Instant::now() + SIGN_PATIENCE)?;
        match answer.first() {
            Some(&SIGN_RESPONSE) => signature(kind, &answer[1..]).ok_or(AgentError::Malformed),
            _ => Err(AgentError::Refused),
        }
    }

    /// The signature of a key over `data`, if it is the same twice.
    ///
    /// # Errors
    /// As [`Self::sign`], or the two differ.
    pub(crate) fn sign_alike(&mut self, public_key: &[u8], data: &[u8]) -> Result<Typed, AgentError> {
        let (first, second) = (self.sign(public_key, data)?, self.sign(public_key, data)?);
        if first == second { Ok(first) } else { Err(UnsupportedKey::NotDeterministic.into()) }
    }

    /// Sends a request and reads the answer to it, without its length.
    fn ask(&mut self, request: &[u8], deadline: Instant) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        let failed = |source| AgentError::Unreachable { path: self.path.clone(), source };
        let mut message = Vec::with_capacity(request.len() + 4);
        put_string(&mut message, request);
        self.stream.set_write_timeout(Some(left(deadline).map_err(failed)?)).map_err(failed)?;
        (&self.stream).write_all(&message).map_err(failed)?;
        let mut length = [0; 4];
        self.fill(&mut length, deadline).map_err(failed)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 || length > ANSWER_BYTES_MAX {
            return Err(AgentError::Malformed);
        }
        let mut answer = Zeroizing::new(vec![0; length]);
        self.fill(&mut answer, deadline).map_err(failed)?;
        Ok(answer)
    }

    fn fill(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match (&self.stream).read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Appends a string with its length before it (RFC 4251, section 5).
fn put_string(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(bytes);
}

/// Reads the list of keys; a key that is too large to be one of ours is left out.
fn identities(answer: &[u8]) -> Option<Vec<Identity>> {
    let (&IDENTITIES_ANSWER, rest) = answer.split_first()? else { return None };
    let (number, mut rest) = rest.split_first_chunk::<4>()?;
    let number =
        usize::try_from(u32::from_be_bytes(*number)).ok().filter(|number| *number <= IDENTITIES_MAX)?;
    let mut identities = Vec::new();
    for _ in 0..number {
        let (public_key, after) = ssh_string(rest)?;
        let (comment, after) = ssh_string(after)?;
        rest = after;
        if public_key.len() <= AGENT_KEY_BYTES_MAX {
            let comment = String::from_utf8_lossy(comment).into_owned();
            identities.push(Identity { public_key: public_key.to_vec(), comment });
        }
    }
    rest.is_empty().then_some(identities)
}

/// Reads a signature of the kind that was asked for.
fn signature(kind: AgentKeyKind, answer: &[u8]) -> Option<Typed> {
    let (inner, []) = ssh_string(answer)? else { return None };
    let (algorithm, rest) = ssh_string(inner)?;
    let (raw, []) = ssh_string(rest)? else { return None };
    let raw = match (kind, algorithm) {
        (AgentKeyKind::Ed25519, b"ssh-ed25519") if raw.len() == 64 => raw,
        // A number: some agents fill it up with zeros and some do not.
        (AgentKeyKind::Rsa, b"rsa-sha2-512") => &raw[raw.iter().position(|byte| *byte != 0)?..],
        _ => return None,
    };
    (raw.len() <= SIGNATURE_BYTES_MAX).then(|| Zeroizing::new(raw.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn strings(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| put_string(&mut bytes, part));
        bytes
    }

    fn ed25519() -> Vec<u8> {
        strings(&[b"ssh-ed25519", &[7; 32]])
    }

    /// An agent that answers each request with the next of these bytes, and then hangs.
    fn agent(answers: Vec<Vec<u8>>) -> (Agent, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&answer).unwrap();
            }
            let _until_the_client_goes = stream.read(&mut [0]);
        });
        (Agent::connect_to(&path).unwrap(), folder)
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        strings(&[message])
    }

    fn signed(algorithm: &[u8], raw: &[u8]) -> Vec<u8> {
        let inner = strings(&[algorithm, raw]);
        framed(&[vec![SIGN_RESPONSE], strings(&[&inner])].concat())
    }

    #[test]
    fn keys_are_listed_with_their_comments() {
        let list = [vec![IDENTITIES_ANSWER, 0, 0, 0, 1], strings(&[&ed25519(), b"me@here"])].concat();
        let (mut agent, _folder) = agent(vec![framed(&list)]);
        let expected = Identity { public_key: ed25519(), comment: "me@here".to_owned() };
        assert_eq!(agent.identities().unwrap(), [expected]);
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        let long = [vec![IDENTITIES_ANSWER, 0, 0, 0, 2], strings(&[&ed25519(), b"only one"])].concat();
        let more = [vec![IDENTITIES_ANSWER, 0, 0, 0, 0], b"x".to_vec()].concat();
        for answer in [
            framed(&[5]),
            framed(&[IDENTITIES_ANSWER]),
            framed(&[IDENTITIES_ANSWER, 0xff, 0xff, 0xff, 0xff]),
            framed(&long),
            framed(&more),
            vec![0; 4],
            vec![0xff; 4],
        ] {
            let (mut agent, _folder) = agent(vec![answer.clone()]);
            assert!(matches!(agent.identities(), Err(AgentError::Malformed)), "{answer:?}");
        }
    }

    #[test]
    fn a_signature_is_taken_only_in_the_form_that_was_asked_for() {
        let sign = |kind: &str, answer: Vec<u8>| {
            let modulus = [vec![0], vec![0x80; 256]].concat();
            let key = match kind {
                "rsa" => strings(&[b"ssh-rsa", &[1, 0, 1], &modulus]),
                _ => ed25519(),
            };
            let (mut agent, _folder) = agent(vec![answer]);
            agent.sign(&key, b"data").map(|signature| signature.to_vec())
        };
        assert_eq!(sign("ed25519", signed(b"ssh-ed25519", &[1; 64])).unwrap(), [1; 64]);
        assert_eq!(sign("rsa", signed(b"rsa-sha2-512", &[0, 0, 5, 0])).unwrap(), [5, 0]);
        for (kind, answer) in [
            ("ed25519", signed(b"ssh-ed25519", &[1; 63])),
            ("ed25519", signed(b"rsa-sha2-512", &[1; 64])),
            ("rsa", signed(b"ssh-rsa", &[1; 256])),
            ("rsa", signed(b"rsa-sha2-512", &[0; 256])),
            ("rsa", signed(b"rsa-sha2-512", &[1; SIGNATURE_BYTES_MAX + 1])),
        ] {
            assert!(matches!(sign(kind, answer), Err(AgentError::Malformed)), "{kind}");
        }
        assert!(matches!(sign("ed25519", framed(&[5])), Err(AgentError::Refused)));
    }

    #[test]
    fn signatures_that_differ_are_refused() {
        let two = vec![signed(b"ssh-ed25519", &[1; 64]), signed(b"ssh-ed25519", &[2; 64])];
        let (mut differing, _folder) = agent(two);
        let refused = differing.sign_alike(&ed25519(), b"data");
        assert!(matches!(refused, Err(AgentError::Unsupported(UnsupportedKey::NotDeterministic))));
        let (mut alike, _folder) = agent(vec![signed(b"ssh-ed25519", &[1; 64]); 2]);
        assert_eq!(*alike.sign_alike(&ed25519(), b"data").unwrap(), [1; 64]);
    }

    #[test]
    fn an_agent_that_hangs_is_given_up() {
        let (mut agent, _folder) = agent(Vec::new());
        let soon = Instant::now() + Duration::from_millis(50);
        let given_up = agent.ask(&[REQUEST_IDENTITIES], soon);
        assert!(matches!(given_up, Err(AgentError::Unreachable { .. })));
        assert!(matches!(agent.ask(&[REQUEST_IDENTITIES], soon), Err(AgentError::Unreachable { .. })));
    }

    #[test]
    fn nobody_at_the_socket_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Agent::connect_to(&folder.path().join("none"));
        assert!(matches!(refused, Err(AgentError::Unreachable { .. })));
    }

    /// SHA-256 of nothing, in Base64 (RFC 4648, section 4) without its padding.
    #[test]
    fn a_fingerprint_is_as_ssh_shows_it() {
        assert_eq!(Fingerprint(b"").to_string(), "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
