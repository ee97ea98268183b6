//! Sealed sessions: a second Noise IK session between the two ends of a request, tunnelled through the bus.
//!
//! The bus may lose a request (it answers `Busy` or `Timeout` itself), so messages name their nonce instead of
//! relying on order. A sealed body is the `u64` nonce of its first message, then messages of at most 65,535 bytes under
//! rising nonces. Inside stands `u64` length of the plaintext, for a response also the `u64` nonce of the request it
//! answers, then the plaintext. So a body that was cut, moved to another request, or sent again does not open.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use core_crypto::scrubbed;
use core_types::DaemonName;
use core_types::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, KEY_SECONDS_MAX};
use snow::StatelessTransportState;
use zeroize::Zeroizing;

use crate::wire::Body;
use crate::wire::noise::{
    Identity, Initiator, MESSAGE_1_BYTES, MESSAGE_BYTES_MAX, NoiseError, PAYLOAD_BYTES_MAX, PublicKey,
    Responder, TAG_BYTES,
};

const NONCE_BYTES: usize = 8;
const LENGTH_BYTES: usize = 8;
/// A session is replaced by a fresh one after this many messages.
const MESSAGES_MAX: u64 = 1 << 20;
/// Most sessions a responder keeps; the one unused for longest goes first, and its initiator opens a new one.
const SESSIONS_MAX: usize = 512;

/// What both ends put into the handshake, so that a session for one service is worth nothing at another.
fn prologue(service: &str) -> Vec<u8> {
    format!("pds sealed v1 {service}").into_bytes()
}

/// One direction's way of sealing: plaintext in, body out.
pub(crate) fn seal_body(
    transport: &StatelessTransportState,
    next_nonce: &mut u64,
    prefix: &[u8],
    plaintext: &[u8],
) -> Result<(u64, Vec<u8>), NoiseError> {
    if plaintext.len() > BODY_BYTES_MAX {
        return Err(NoiseError);
    }
    let first = *next_nonce;
    let mut inner = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + prefix.len() + plaintext.len()));
    inner.extend_from_slice(&(plaintext.len() as u64).to_be_bytes());
    inner.extend_from_slice(prefix);
    inner.extend_from_slice(plaintext);
    let messages = inner.len().div_ceil(PAYLOAD_BYTES_MAX);
    let mut body = vec![0; NONCE_BYTES + inner.len() + messages * TAG_BYTES];
    body[..NONCE_BYTES].copy_from_slice(&first.to_be_bytes());
    let mut rest = &mut body[NONCE_BYTES..];
    for payload in inner.chunks(PAYLOAD_BYTES_MAX) {
        let written = scrubbed(|| transport.write_message(*next_nonce, payload, rest))?;
        rest = &mut rest[written..];
        *next_nonce += 1;
    }
    Ok((first, body))
}

/// The other way: body in; its first nonce, the one after its last, and the plaintext behind `prefix_bytes` out.
struct Opened {
    first: u64,
    next: u64,
    prefix: u64,
    plaintext: Body,
}

fn open_body(
    transport: &StatelessTransportState,
    has_prefix: bool,
    body: &[u8],
) -> Result<Opened, NoiseError> {
    if body.len() > FRAME_BYTES_MAX {
        return Err(NoiseError);
    }
    let (nonce, messages) = body.split_first_chunk::<NONCE_BYTES>().ok_or(NoiseError)?;
    let first = u64::from_be_bytes(*nonce);
    let mut next = first;
    let mut inner = Zeroizing::new(vec![0; messages.len()]);
    let mut length = 0;
    for message in messages.chunks(MESSAGE_BYTES_MAX) {
        length += scrubbed(|| transport.read_message(next, message, &mut inner[length..]))?;
        next = next.checked_add(1).ok_or(NoiseError)?;
    }
    inner.truncate(length);
    let (claimed, rest) = inner.split_first_chunk::<LENGTH_BYTES>().ok_or(NoiseError)?;
    let (prefix, rest) = match rest.split_first_chunk::<NONCE_BYTES>() {
        Some((prefix, rest)) if has_prefix => (u64::from_be_bytes(*prefix), rest),
        None if has_prefix => return Err(NoiseError),
        _ => (0, rest),
    };
    if u64::from_be_bytes(*claimed) != rest.len() as u64 {
        return Err(NoiseError);
    }
    let start = length - rest.len();
    Ok(Opened { first, next, prefix, plaintext: Body::behind(start, inner) })
}

/// The asking end, while the handshake is under way.
pub struct SealInitiator(Initiator);

impl SealInitiator {
    /// Starts a sealed session with the owner of `service_key`; returns the body of the handshake request.
    ///
    /// # Errors
    /// The key is not usable.
    pub fn start(
        identity: &Identity,
        service: &str,
        service_key: PublicKey,
    ) -> Result<(Self, [u8; MESSAGE_1_BYTES]), NoiseError> {
        let (initiator, message) = Initiator::start(identity, service_key, &prologue(service))?;
        Ok((Self(initiator), message))
    }

    /// Takes the body of the handshake's response, which came now.
    ///
    /// # Errors
    /// It did not come from the owner of the key.
    pub fn finish(self, body: &[u8], now: Instant) -> Result<SealedAsker, NoiseError> {
        let (number, message) = body.split_first_chunk::<NONCE_BYTES>().ok_or(NoiseError)?;
        Ok(SealedAsker {
            number: u64::from_be_bytes(*number),
            transport: self.0.finish_stateless(message)?,
            next_nonce: 0,
            opened: now,
        })
    }
}

/// The asking end of a session.
pub struct SealedAsker {
    number: u64,
    transport: StatelessTransportState,
    next_nonce: u64,
    opened: Instant,
}

impl SealedAsker {
    /// The number the responder knows the session by.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it is time to open a new session instead.
    #[must_use]
    pub fn is_worn(&self, now: Instant) -> bool {
        self.next_nonce >= MESSAGES_MAX || now >= self.opened + Duration::from_secs(KEY_SECONDS_MAX)
    }

    /// Seals a request; returns its nonce, by which its response is known, and the body.
    ///
    /// # Errors
    /// The request is too long.
    pub fn seal(&mut self, request: &[u8]) -> Result<(u64, Vec<u8>), NoiseError> {
        seal_body(&self.transport, &mut self.next_nonce, &[], request)
    }

    /// Opens the response to the request with this nonce.
    ///
    /// # Errors
    /// The body is not the responder's answer to just that request.
    pub fn open(&self, request_nonce: u64, body: &[u8]) -> Result<Body, NoiseError> {
        let opened = open_body(&self.transport, true, body)?;
        if opened.prefix == request_nonce { Ok(opened.plaintext) } else { Err(NoiseError) }
    }
}

/// The answering end of one session.
struct SealedAnswerer {
    transport: StatelessTransportState,
    /// The registered name whose published key the initiator proved to own, if it claimed one.
    name: Option<DaemonName>,
    /// All request nonces below this are used up.
    expected: u64,
    next_nonce: u64,
}

/// A request that came sealed: what it says, who sealed it, and what its answer must name.
pub struct SealedRequest {
    /// The request.
    pub plaintext: Body,
    /// The registered name that the session's initiator proved to be, if it claimed one.
    pub name: Option<DaemonName>,
    /// Its nonce.
    pub nonce: u64,
}

/// All sessions of one answering daemon.
pub struct SealedSessions {
    service: &'static str,
    sessions: HashMap<u64, SealedAnswerer>,
    used: VecDeque<u64>,
    next_number: u64,
}

impl SealedSessions {
    /// No session yet. `seed` is a random number from which sessions are numbered.
    #[must_use]
    pub fn new(service: &'static str, seed: u64) -> Self {
        Self { service, sessions: HashMap::new(), used: VecDeque::new(), next_number: seed }
    }

    /// Answers a handshake request; returns the body of the response. `claimed` is the registered name that the
    /// bus stamped on it, with the key which that daemon has published.
    ///
    /// # Errors
    /// The request is not a handshake with this daemon, or its initiator does not own the claimed name's key.
    pub fn accept(
        &mut self,
        identity: &Identity,
        claimed: Option<(DaemonName, PublicKey)>,
        body: &[u8],
    ) -> Result<Vec<u8>, NoiseError> {
        let responder = Responder::new(identity, &prologue(self.service))?;
        let (transport, initiator, message) = responder.respond_stateless(body)?;
        if claimed.as_ref().is_some_and(|(_, key)| *key != initiator) {
            return Err(NoiseError);
        }
        while self.sessions.len() >= SESSIONS_MAX {
            match self.used.pop_front() {
                Some(oldest) => drop(self.sessions.remove(&oldest)),
                None => self.sessions.clear(),
            }
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        self.sessions.insert(
            number,
            SealedAnswerer { transport, name: claimed.map(|(name, _)| name), expected: 0, next_nonce: 0 },
        );
        self.used.push_back(number);
        Ok([number.to_be_bytes().as_slice(), &message].concat())
    }

    /// Opens a request of a session; `None` when there is no such session (any more).
    ///
    /// # Errors
    /// The body was changed, cut, or sent before.
    pub fn open(&mut self, number: u64, body: &[u8]) -> Option<Result<SealedRequest, NoiseError>> {
        let session = self.sessions.get_mut(&number)?;
        if let Some(place) = self.used.iter().rposition(|used| *used == number) {
            self.used.remove(place);
            self.used.push_back(number);
        }
        Some(open_body(&session.transport, false, body).and_then(|opened| {
            if opened.first < session.expected {
                return Err(NoiseError);
            }
            session.expected = opened.next;
            Ok(SealedRequest { plaintext: opened.plaintext, name: session.name.clone(), nonce: opened.first })
        }))
    }

    /// Seals the response to the request of this nonce; `None` when the session has gone meanwhile.
    ///
    /// # Errors
    /// The response is too long.
    pub fn seal(
        &mut self,
        number: u64,
        request_nonce: u64,
        response: &[u8],
    ) -> Option<Result<Vec<u8>, NoiseError>> {
        let session = self.sessions.get_mut(&number)?;
        Some(
            seal_body(&session.transport, &mut session.next_nonce, &request_nonce.to_be_bytes(), response)
                .map(|(_, body)| body),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (SealedAsker, SealedSessions) {
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut sessions = SealedSessions::new("daemon-x", 7);
        let (start, message) = SealInitiator::start(&ours, "daemon-x", theirs.public()).unwrap();
        let response = sessions.accept(&theirs, None, &message).unwrap();
        (start.finish(&response, Instant::now()).unwrap(), sessions)
    }

    #[test]
    fn requests_and_responses_pass_in_any_order_and_any_size() {
        let (mut asker, mut sessions) = session();
        let large = vec![7; 1_500_000];
        let (first, first_body) = asker.seal(&large).unwrap();
        let (second, second_body) = asker.seal(b"").unwrap();
        let opened = sessions.open(asker.number(), &first_body).unwrap().unwrap();
        assert_eq!((&*opened.plaintext, opened.name), (large.as_slice(), None));
        let opened = sessions.open(asker.number(), &second_body).unwrap().unwrap();
        assert_eq!(opened.plaintext.len(), 0);
        let to_second = sessions.seal(asker.number(), second, b"two").unwrap().unwrap();
        let to_first = sessions.seal(asker.number(), first, &large).unwrap().unwrap();
        assert_eq!(*asker.open(first, &to_first).unwrap(), large);
        assert_eq!(*asker.open(second, &to_second).unwrap(), b"two"[..]);
    }

    #[test]
    fn a_request_lost_on_the_way_does_not_end_the_session() {
        let (mut asker, mut sessions) = session();
        let _lost = asker.seal(b"lost").unwrap();
        let (_, body) = asker.seal(b"arrives").unwrap();
        assert!(sessions.open(asker.number(), &body).unwrap().is_ok());
    }

    #[test]
    fn a_body_sent_again_or_late_does_not_open() {
        let (mut asker, mut sessions) = session();
        let (_, early) = asker.seal(b"early").unwrap();
        let (_, body) = asker.seal(b"once").unwrap();
        assert!(sessions.open(asker.number(), &body).unwrap().is_ok());
        assert!(sessions.open(asker.number(), &body).unwrap().is_err());
        assert!(sessions.open(asker.number(), &early).unwrap().is_err());
    }

    #[test]
    fn the_answer_to_another_request_does_not_open() {
        let (mut asker, mut sessions) = session();
        let (first, first_body) = asker.seal(b"1").unwrap();
        let (second, second_body) = asker.seal(b"2").unwrap();
        for body in [&first_body, &second_body] {
            sessions.open(asker.number(), body).unwrap().unwrap();
        }
        let answer = sessions.seal(asker.number(), first, b"to first").unwrap().unwrap();
        assert!(asker.open(second, &answer).is_err());
        assert!(asker.open(first, &answer).is_ok());
    }

    #[test]
    fn a_changed_or_cut_body_does_not_open() {
        let (mut asker, mut sessions) = session();
        let (_, body) = asker.seal(&vec![1; 100_000]).unwrap();
        for place in [0, 9, 70_000, body.len() - 1] {
            let mut changed = body.clone();
            changed[place] ^= 1;
            assert!(sessions.open(asker.number(), &changed).unwrap().is_err(), "{place}");
        }
        assert!(sessions.open(asker.number(), &body[..8 + MESSAGE_BYTES_MAX]).unwrap().is_err());
        assert!(sessions.open(asker.number(), &body).unwrap().is_ok());
    }

    #[test]
    fn a_session_with_the_wrong_daemon_or_for_another_service_does_not_begin() {
        let (ours, theirs, stranger) =
            (Identity::generate().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap());
        let (_, message) = SealInitiator::start(&ours, "daemon-x", theirs.public()).unwrap();
        assert!(SealedSessions::new("daemon-x", 0).accept(&stranger, None, &message).is_err());
        assert!(SealedSessions::new("daemon-y", 0).accept(&theirs, None, &message).is_err());
    }

    #[test]
    fn a_claimed_name_needs_the_key_that_belongs_to_it() {
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut sessions = SealedSessions::new("daemon-x", 0);
        let name: DaemonName = "daemon-launcher".parse().unwrap();
        let mut accept = |key| {
            let (start, message) = SealInitiator::start(&ours, "daemon-x", theirs.public()).unwrap();
            let response = sessions.accept(&theirs, Some((name.clone(), key)), &message)?;
            let mut asker = start.finish(&response, Instant::now())?;
            let (_, body) = asker.seal(b"").unwrap();
            sessions.open(asker.number(), &body).unwrap().map(|request| request.name)
        };
        assert_eq!(accept(theirs.public()), Err(NoiseError));
        assert_eq!(accept(ours.public()), Ok(Some(name.clone())));
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes() {
        let (mut asker, mut sessions) = session();
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        for _ in 0..SESSIONS_MAX {
            let (_, message) = SealInitiator::start(&ours, "daemon-x", theirs.public()).unwrap();
            sessions.accept(&theirs, None, &message).unwrap();
        }
        assert_eq!(sessions.sessions.len(), SESSIONS_MAX);
        let (_, body) = asker.seal(b"").unwrap();
        assert!(sessions.open(asker.number(), &body).is_none());
    }
    #[test]
    fn a_session_is_worn_after_an_hour() {
        let (asker, _) = session();
        assert!(!asker.is_worn(asker.opened + Duration::from_secs(KEY_SECONDS_MAX - 1)));
        assert!(asker.is_worn(asker.opened + Duration::from_secs(KEY_SECONDS_MAX)));
    }
}
