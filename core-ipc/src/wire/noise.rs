//! Noise IK (Noise Protocol Framework, revision 34) as states that consume each other:
//! `Initiator` or `Responder`, then `Session`. Only a `Session` carries anything.

use core_crypto::SecureBytes;
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::suite::{Suite, public_of};

/// The cipher suite of every session of pds.
const SUITE: &str = "Noise_IK_25519_AESGCM_BLAKE2s";
/// Bytes of the first handshake message: ephemeral key, sealed static key, tag of an empty payload.
pub const MESSAGE_1_BYTES: usize = 96;
/// Bytes of the second handshake message: ephemeral key, tag of an empty payload.
pub const MESSAGE_2_BYTES: usize = 48;
/// Bytes that sealing adds to a message.
pub const TAG_BYTES: usize = 16;
/// Longest sealed message.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Most payload of one message.
pub const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - TAG_BYTES;

/// A session changes its key after this many messages in one direction.
const REKEY_MESSAGES: u64 = 1 << 20;
/// A session changes its key after this many payload bytes in one direction.
const REKEY_BYTES: u64 = 1 << 30;

/// A Noise static public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads the 64 hex digits of a `.pub` file; white space around them is fine.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).ok()?;
        Some(Self(key))
    }

    /// The key as 64 hex digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// A Noise static key pair. The private half never leaves locked memory, except into a handshake; that of a pair which is
/// for one connection alone is just wiped, since the handshakes of that connection hold it in the same memory.
pub struct Identity {
    private: Private,
    public: PublicKey,
}

enum Private {
    Kept(SecureBytes),
    Passing(Box<Zeroizing<[u8; 32]>>),
}

impl Private {
    fn expose(&self) -> &[u8] {
        match self {
            Self::Kept(key) => key.expose(),
            Self::Passing(key) => key.as_ref().as_ref(),
        }
    }
}

/// Something in the handshake or in a sealed message is not as the protocol has it; which part, is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's Noise message is not valid")]
pub struct NoiseError;

impl From<snow::Error> for NoiseError {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

fn builder<'a>(public: Option<PublicKey>) -> Result<Builder<'a>, NoiseError> {
    let suite = Suite { public: public.map(|key| key.0) };
    Ok(Builder::with_resolver(SUITE.parse()?, Box::new(suite)))
}

impl Identity {
    /// Makes a fresh key pair.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn generate() -> Result<Self, NoiseError> {
        let Self { private, public } = Self::for_one_connection()?;
        Ok(Self { private: Private::Kept(SecureBytes::copy_of(private.expose())), public })
    }

    /// Makes a fresh key pair by which nobody will be known after its connection has ended. No memory is locked for it, which
    /// is much of what a short-lived process would do.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn for_one_connection() -> Result<Self, NoiseError> {
        let mut private = Box::new(Zeroizing::new([0; 32]));
        core_crypto::random::fill(private.as_mut().as_mut()).map_err(|_| NoiseError)?;
        let public = PublicKey(public_of(&private));
        Ok(Self { private: Private::Passing(private), public })
    }

    /// The pair of a private key of 64 hex digits.
    #[must_use]
    pub fn from_private_hex(text: &str) -> Option<Self> {
        let mut private = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, private.as_mut()).ok()?;
        let public = PublicKey(public_of(&private));
        Some(Self { private: Private::Kept(SecureBytes::copy_of(private.as_ref())), public })
    }

    /// The private half as 64 hex digits, for the file of the one who is to own it. It has room for a line feed.
    #[must_use]
    pub fn private_hex(&self) -> Zeroizing<String> {
        let mut digits = Zeroizing::new([0; 64]);
        // It fails for another length only, and then leaves no key.
        let encoded = hex::encode_to_slice(self.private.expose(), digits.as_mut()).ok();
        let mut text = Zeroizing::new(String::with_capacity(65));
        text.push_str(encoded.and_then(|()| std::str::from_utf8(digits.as_ref()).ok()).unwrap_or_default());
        text
    }

    /// The half that others may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

fn write_handshake<const N: usize>(state: &mut HandshakeState) -> Result<[u8; N], NoiseError> {
    let mut message = [0; N];
    if state.write_message(&[], &mut message)? == N { Ok(message) } else { Err(NoiseError) }
}

/// Reads a handshake message and insists that it carries no payload: nothing may take effect before the handshake has ended.
fn read_handshake(state: &mut HandshakeState, message: &[u8]) -> Result<(), NoiseError> {
    let mut payload = [0; MESSAGE_1_BYTES];
    if state.read_message(message, &mut payload)? == 0 { Ok(()) } else { Err(NoiseError) }
}

/// The side that knows whom it wants to talk to, waiting for message 2.
pub struct Initiator(HandshakeState);

impl Initiator {
    /// Starts a handshake with the owner of `remote`; returns the state and message 1.
    ///
    /// # Errors
    /// `remote` is no usable key.
    pub fn start(
        identity: &Identity,
        remote: PublicKey,
        prologue: &[u8],
    ) -> Result<(Self, [u8; MESSAGE_1_BYTES]), NoiseError> {
        let mut state = builder(Some(identity.public))?
            .prologue(prologue)?
            .local_private_key(identity.private.expose())?
            .remote_public_key(&remote.0)?
            .build_initiator()?;
        let message = write_handshake(&mut state)?;
        Ok((Self(state), message))
    }

    /// Ends the handshake with message 2.
    ///
    /// # Errors
    /// The other side does not own the key asked for, has another prologue, or sent a payload.
    pub fn finish(mut self, message: &[u8]) -> Result<Session, NoiseError> {
        read_handshake(&mut self.0, message)?;
        Session::new(self.0)
    }

    /// As [`Self::finish`], for a session whose messages may be lost on the way.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(crate) fn finish_stateless(
        mut self,
        message: &[u8],
    ) -> Result<snow::StatelessTransportState, NoiseError> {
        read_handshake(&mut self.0, message)?;
        Ok(self.0.into_stateless_transport_mode()?)
    }
}

/// The side that waits for whoever comes.
pub struct Responder(HandshakeState);

impl Responder {
    /// Gets ready for one handshake.
    ///
    /// # Errors
    /// The key pair is not usable.
    pub fn new(identity: &Identity, prologue: &[u8]) -> Result<Self, NoiseError> {
        Ok(Self(
            builder(Some(identity.public))?
                .prologue(prologue)?
                .local_private_key(identity.private.expose())?
                .build_responder()?,
        ))
    }

    /// Takes message 1; returns the session and message 2.
    ///
    /// # Errors
    /// The message is not for this key and prologue, or carries a payload.
    pub fn respond(mut self, message: &[u8]) -> Result<(Session, [u8; MESSAGE_2_BYTES]), NoiseError> {
        read_handshake(&mut self.0, message)?;
        let reply = write_handshake(&mut self.0)?;
        Ok((Session::new(self.0)?, reply))
    }

    /// As [`Self::respond`], for a session whose messages may be lost on the way; also names the initiator's key.
    ///
    /// # Errors
    /// As [`Self::respond`].
    pub(crate) fn respond_stateless(
        mut self,
        message: &[u8],
    ) -> Result<(snow::StatelessTransportState, PublicKey, [u8; MESSAGE_2_BYTES]), NoiseError> {
        read_handshake(&mut self.0, message)?;
        let reply = write_handshake(&mut self.0)?;
        let remote = remote_key(&self.0)?;
        Ok((self.0.into_stateless_transport_mode()?, remote, reply))
    }
}

fn remote_key(state: &HandshakeState) -> Result<PublicKey, NoiseError> {
    let key = state.get_remote_static().ok_or(NoiseError)?;
    Ok(PublicKey(key.try_into().map_err(|_| NoiseError)?))
}

/// Counts what one direction has sealed under its key.
struct Wear {
    messages: u64,
    bytes: u64,
    messages_max: u64,
}

impl Wear {
    fn new(messages_max: u64) -> Self {
        Self { messages: 0, bytes: 0, messages_max }
    }

    /// Adds a message; says whether the key is worn out by it, or no longer wanted by the sender. Both sides count the same, so both change keys at once.
    fn add(&mut self, bytes: usize) -> bool {
        self.messages += 1;
        self.bytes += bytes as u64;
        let worn = bytes == 0 || self.messages >= self.messages_max || self.bytes >= REKEY_BYTES;
        if worn {
            *self = Self::new(self.messages_max);
        }
        worn
    }
}

/// An established session over a channel that keeps order and loses nothing.
pub struct Session {
    transport: TransportState,
    remote: PublicKey,
    sent: Wear,
    received: Wear,
}

impl Session {
    fn new(state: HandshakeState) -> Result<Self, NoiseError> {
        let remote = remote_key(&state)?;
        Ok(Self {
            transport: state.into_transport_mode()?,
            remote,
            sent: Wear::new(REKEY_MESSAGES),
            received: Wear::new(REKEY_MESSAGES),
        })
    }

    /// The static key that the peer proved to own.
    #[must_use]
    pub fn remote(&self) -> PublicKey {
        self.remote
    }

    /// Has keys change after so many messages already.
    #[cfg(test)]
    pub(crate) fn wear_until(&mut self, messages_max: u64) {
        (self.sent, self.received) = (Wear::new(messages_max), Wear::new(messages_max));
    }

    /// Whether nothing has been sealed under the present key.
    pub(crate) fn is_fresh(&self) -> bool {
        self.sent.messages == 0
    }

    /// Seals one message; `payload` has at most [`PAYLOAD_BYTES_MAX`] bytes, the result goes to the end of `output`.
    /// A message without payload tells the other side that a new key follows.
    ///
    /// # Errors
    /// The payload is too long.
    pub(crate) fn seal(&mut self, payload: &[u8], output: &mut Vec<u8>) -> Result<(), NoiseError> {
        let start = output.len();
        output.resize(start + payload.len() + TAG_BYTES, 0);
        self.transport.write_message(payload, &mut output[start..])?;
        if self.sent.add(payload.len()) {
            self.transport.rekey_outgoing();
        }
        Ok(())
    }

    /// Opens one message to the end of `output`.
    ///
    /// # Errors
    /// It was changed, dropped, repeated or moved on the way, or wants a new key where there is a new one.
    pub(crate) fn open(&mut self, message: &[u8], output: &mut Vec<u8>) -> Result<(), NoiseError> {
        let start = output.len();
        let length = message.len().checked_sub(TAG_BYTES).ok_or(NoiseError)?;
        if length == 0 && self.received.messages == 0 {
            return Err(NoiseError);
        }
        output.resize(start + length, 0);
        self.transport.read_message(message, &mut output[start..])?;
        if self.received.add(length) {
            self.transport.rekey_incoming();
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two ends whose private keys are known: the initiator's static and ephemeral one, then the responder's.
    pub(crate) fn known_ends(
        keys: &[[u8; 32]; 4],
        prologue: &[u8],
    ) -> (Initiator, [u8; MESSAGE_1_BYTES], Responder) {
        let known = |fixed: usize| {
            let builder = builder(None).unwrap().prologue(prologue).unwrap();
            let builder = builder.local_private_key(&keys[fixed]).unwrap();
            builder.fixed_ephemeral_key_for_testing_only(&keys[fixed + 1])
        };
        let remote = curve25519_dalek::MontgomeryPoint::mul_base_clamped(keys[2]).to_bytes();
        let mut state = known(0).remote_public_key(&remote).unwrap().build_initiator().unwrap();
        let message = write_handshake(&mut state).unwrap();
        (Initiator(state), message, Responder(known(2).build_responder().unwrap()))
    }

    pub(crate) fn pair() -> (Session, Session) {
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (initiator, message) = Initiator::start(&ours, theirs.public(), b"p").unwrap();
        let (responder, reply) = Responder::new(&theirs, b"p").unwrap().respond(&message).unwrap();
        let session = initiator.finish(&reply).unwrap();
        assert_eq!(responder.remote(), ours.public());
        assert_eq!(session.remote(), theirs.public());
        (session, responder)
    }

    #[test]
    fn a_session_carries_messages_both_ways() {
        let (mut a, mut b) = pair();
        let check = |from: &mut Session, to: &mut Session| {
            let (mut sealed, mut opened) = (Vec::new(), Vec::new());
            from.seal(b"hello", &mut sealed).unwrap();
            to.open(&sealed, &mut opened).unwrap();
            assert_eq!(opened, b"hello");
        };
        check(&mut a, &mut b);
        check(&mut b, &mut a);
    }

    #[test]
    fn a_handshake_with_another_prologue_or_key_fails() {
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (_, message) = Initiator::start(&ours, theirs.public(), b"v1").unwrap();
        assert!(Responder::new(&theirs, b"v2").unwrap().respond(&message).is_err());
        let stranger = Identity::generate().unwrap();
        assert!(Responder::new(&stranger, b"v1").unwrap().respond(&message).is_err());
    }

    #[test]
    fn a_payload_in_a_handshake_message_is_refused() {
        let (ours, theirs) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut state = builder(None)
            .unwrap()
            .prologue(b"p")
            .unwrap()
            .local_private_key(ours.private.expose())
            .unwrap()
            .remote_public_key(&theirs.public().0)
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut message = [0; 128];
        let length = state.write_message(b"early", &mut message).unwrap();
        assert!(Responder::new(&theirs, b"p").unwrap().respond(&message[..length]).is_err());
    }

    #[test]
    fn a_changed_repeated_or_swapped_message_does_not_open() {
        let (mut a, mut b) = pair();
        let mut sealed = Vec::new();
        a.seal(b"first", &mut sealed).unwrap();
        let mut second = Vec::new();
        a.seal(b"second", &mut second).unwrap();
        let mut changed = sealed.clone();
        changed[0] ^= 1;
        assert!(b.open(&changed, &mut Vec::new()).is_err());
        assert!(b.open(&second, &mut Vec::new()).is_err());
        b.open(&sealed, &mut Vec::new()).unwrap();
        assert!(b.open(&sealed, &mut Vec::new()).is_err());
    }

    #[test]
    fn the_key_changes_after_a_gibibyte_on_both_sides_alike() {
        let (mut a, mut b) = pair();
        a.sent.bytes = REKEY_BYTES - 2;
        b.received.bytes = REKEY_BYTES - 2;
        for text in [b"abc", b"def", b"ghi"] {
            let (mut sealed, mut opened) = (Vec::new(), Vec::new());
            a.seal(text, &mut sealed).unwrap();
            b.open(&sealed, &mut opened).unwrap();
            assert_eq!(opened, text);
        }
        assert!(a.sent.bytes < 10);
    }
}
