//! The two primitives of the suite that decide what a session costs, under the names that snow asks for them by.
//!
//! Both are graviola's assembly where the processor has what it needs, which is seen at run time: X25519 (RFC 7748) is
//! formally verified, and curve25519-dalek elsewhere, since a handshake is eight multiplications and little else;
//! AES-256-GCM (NIST SP 800-38D) takes a third of aes-gcm's time for a large message, and half for 256 bytes. Either of
//! the two keeps its expanded key: snow's own expands it anew for each message, which for small messages is half
//! the work. Random bytes come from the kernel's system call itself. The hash is snow's own.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use curve25519_dalek::MontgomeryPoint;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// Answers snow's question for primitives.
#[derive(Default)]
pub(super) struct Suite {
    /// The public half of the static key that will be set, so that it need not be computed again.
    pub(super) public: Option<[u8; KEY_BYTES]>,
}

impl CryptoResolver for Suite {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(KernelRandom))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => {
                Some(Box::new(X25519 { known: self.public, private: Zeroizing::default(), public: [0; 32] }))
            }
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::AESGCM => Some(Box::new(AesGcm::with(&[0; KEY_BYTES]))),
            _ => None,
        }
    }
}

/// The kernel's random bytes.
struct KernelRandom;

impl Random for KernelRandom {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        core_crypto::random::fill(bytes).map_err(|_| snow::Error::Rng)
    }
}

/// One key pair of a handshake.
struct X25519 {
    known: Option<[u8; KEY_BYTES]>,
    private: Zeroizing<[u8; KEY_BYTES]>,
    public: [u8; KEY_BYTES],
}

/// The public half of a private key.
pub(super) fn public_of(private: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    #[cfg(target_arch = "x86_64")]
    if graviola::util::is_cpu_supported() {
        return graviola::key_agreement::x25519::StaticPrivateKey::from_array(private)
            .public_key()
            .as_bytes();
    }
    MontgomeryPoint::mul_base_clamped(*private).to_bytes()
}

/// The secret that two keys share; `None` for a public key of low order, with which everyone shares the same.
fn shared(private: &[u8; KEY_BYTES], public: &[u8; KEY_BYTES]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    #[cfg(target_arch = "x86_64")]
    if graviola::util::is_cpu_supported() {
        use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
        let public = PublicKey::from_array(public);
        let secret = StaticPrivateKey::from_array(private).diffie_hellman(&public).ok()?;
        return Some(Zeroizing::new(secret.as_bytes()));
    }
    shared_portably(private, public)
}

fn shared_portably(
    private: &[u8; KEY_BYTES],
    public: &[u8; KEY_BYTES],
) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let secret = Zeroizing::new(MontgomeryPoint(*public).mul_clamped(*private).to_bytes());
    if secret.iter().fold(0, |all, byte| all | byte) == 0 { None } else { Some(secret) }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, private: &[u8]) {
        // A key of another length, which snow does not pass on, would leave zeros, with which no handshake ends.
        if let Ok(private) = private.try_into() {
            *self.private = private;
            self.public = self.known.take().unwrap_or_else(|| public_of(&self.private));
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        random.try_fill_bytes(self.private.as_mut())?;
        self.public = public_of(&self.private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_ref()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let out = out.first_chunk_mut::<KEY_BYTES>().ok_or(snow::Error::Dh)?;
        *out = *shared(&self.private, public).ok_or(snow::Error::Dh)?;
        Ok(())
    }
}

/// One direction's cipher. It is made with a key of zeros, under which snow seals nothing.
enum AesGcm {
    #[cfg(target_arch = "x86_64")]
    Assembly(graviola::aead::AesGcm),
    Portable(Aes256Gcm),
}

impl AesGcm {
    fn with(key: &[u8; KEY_BYTES]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if graviola::util::is_cpu_supported() {
            return Self::Assembly(graviola::aead::AesGcm::new(key));
        }
        Self::portable(key)
    }

    fn portable(key: &[u8; KEY_BYTES]) -> Self {
        Self::Portable(Aes256Gcm::new(key.into()))
    }
}

/// The nonce of Noise's `AESGCM`: four zero bytes, then the number, most significant byte first (section 12.4).
fn nonce(number: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[NONCE_BYTES - 8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        *self = Self::with(key);
    }

    fn encrypt(&self, number: u64, associated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plain.len());
        body.copy_from_slice(plain);
        let tag = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Assembly(key) => {
                let mut tag = [0; TAG_BYTES];
                key.encrypt(&nonce(number), associated, body, &mut tag);
                Ok(tag)
            }
            Self::Portable(key) => {
                let nonce = nonce(number);
                key.encrypt_in_place_detached(Nonce::from_slice(&nonce), associated, body).map(Into::into)
            }
        };
        match tag {
            Ok(tag) => {
                rest[..TAG_BYTES].copy_from_slice(&tag);
                plain.len() + TAG_BYTES
            }
            // Only for more than 64 GiB. Nothing in clear goes out, and nothing that would open.
            Err(_) => {
                body.fill(0);
                0
            }
        }
    }

    fn decrypt(
        &self,
        number: u64,
        associated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(body);
        let nonce = nonce(number);
        let opened = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Assembly(key) => key.decrypt(&nonce, associated, out, tag).is_ok(),
            Self::Portable(key) => {
                let (nonce, tag) = (Nonce::from_slice(&nonce), Tag::from_slice(tag));
                key.decrypt_in_place_detached(nonce, associated, out, tag).is_ok()
            }
        };
        if opened { Ok(body.len()) } else { Err(snow::Error::Decrypt) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use snow::Builder;

    fn key(text: &str) -> [u8; KEY_BYTES] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 7748, section 5.2.
    #[test]
    fn both_implementations_multiply_as_the_rfc_does() {
        let scalar = key("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
        let point = key("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
        let product = key("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        assert_eq!(*shared(&scalar, &point).unwrap(), product);
        assert_eq!(*shared_portably(&scalar, &point).unwrap(), product);
    }

    #[test]
    fn a_key_of_low_order_shares_nothing() {
        let private = [0x5a; KEY_BYTES];
        let mut one = [0; KEY_BYTES];
        one[0] = 1;
        let eight = key("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        for low in [[0; KEY_BYTES], one, eight] {
            assert!(shared(&private, &low).is_none(), "{low:?}");
            assert!(shared_portably(&private, &low).is_none(), "{low:?}");
        }
    }

    proptest! {
        #[test]
        fn both_implementations_agree(private: [u8; KEY_BYTES], other: [u8; KEY_BYTES]) {
            prop_assert_eq!(public_of(&private), MontgomeryPoint::mul_base_clamped(private).to_bytes());
            let point = public_of(&other);
            prop_assert_eq!(shared(&private, &point), shared_portably(&private, &point));
        }
    }

    proptest! {
        #[test]
        fn both_ciphers_seal_alike_and_open_nothing_that_was_changed(
            key: [u8; KEY_BYTES],
            number: u64,
            plain in proptest::collection::vec(any::<u8>(), 0..700),
            associated in proptest::collection::vec(any::<u8>(), 0..40),
            flipped: prop::sample::Index,
        ) {
            let ciphers = [AesGcm::with(&key), AesGcm::portable(&key)];
            let sealed = ciphers.each_ref().map(|cipher| {
                let mut sealed = vec![0; plain.len() + TAG_BYTES];
                let length = cipher.encrypt(number, &associated, &plain, &mut sealed);
                prop_assert_eq!(length, sealed.len());
                Ok(sealed)
            });
            let [ours, portable] = sealed;
            let mut sealed = ours?;
            prop_assert_eq!(&sealed, &portable?);
            let mut out = vec![0; plain.len()];
            for cipher in &ciphers {
                prop_assert!(cipher.decrypt(number, &associated, &sealed, &mut out).is_ok());
                prop_assert_eq!(&out, &plain);
            }
            let place = flipped.index(sealed.len());
            sealed[place] ^= 1;
            for cipher in &ciphers {
                prop_assert!(cipher.decrypt(number, &associated, &sealed, &mut out).is_err());
                prop_assert!(cipher.decrypt(number, &associated, &sealed[..TAG_BYTES - 1], &mut out).is_err());
            }
        }
    }

    /// A handshake and some messages, ours at one end and snow's own primitives at the other.
    #[test]
    fn sessions_are_those_of_snow() {
        let parameters = || "Noise_IK_25519_AESGCM_BLAKE2s".parse().unwrap();
        let pair = Builder::new(parameters()).generate_keypair().unwrap();
        let suite = Suite { public: Some(pair.public.as_slice().try_into().unwrap()) };
        let ours = Builder::with_resolver(parameters(), Box::new(suite));
        let mut ours = ours.local_private_key(&pair.private).unwrap().build_responder().unwrap();
        let stranger = Builder::new(parameters()).generate_keypair().unwrap();
        let theirs = Builder::new(parameters()).local_private_key(&stranger.private).unwrap();
        let mut theirs = theirs.remote_public_key(&pair.public).unwrap().build_initiator().unwrap();
        let (mut message, mut out) = ([0; 256], [0; 256]);
        let length = theirs.write_message(&[], &mut message).unwrap();
        ours.read_message(&message[..length], &mut out).unwrap();
        let length = ours.write_message(&[], &mut message).unwrap();
        theirs.read_message(&message[..length], &mut out).unwrap();
        let mut ours = ours.into_transport_mode().unwrap();
        let mut theirs = theirs.into_transport_mode().unwrap();
        for text in [&b"one"[..], b"", b"three"] {
            let length = ours.write_message(text, &mut message).unwrap();
            let opened = theirs.read_message(&message[..length], &mut out).unwrap();
            assert_eq!(&out[..opened], text);
            theirs.rekey_outgoing();
            ours.rekey_incoming();
            let length = theirs.write_message(text, &mut message).unwrap();
            let opened = ours.read_message(&message[..length], &mut out).unwrap();
            assert_eq!(&out[..opened], text);
        }
    }
}
