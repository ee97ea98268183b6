//! The keys of a Bitwarden export that is protected with a password: PBKDF2 or Argon2id, stretched by HKDF into a key
//! that encrypts (AES-256-CBC) and one that authenticates (HMAC-SHA-256); <https://bitwarden.com/help/kdf-algorithms/>.

use aes::Aes256;
use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64, Encoding as _};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut as _, KeyIvInit as _};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::ImportError;

const KEY_BYTES: usize = 32;
/// Bitwarden lets users choose up to these; what asks for more was not made by it.
const PBKDF2_ITERATIONS_MAX: u32 = 2_000_000;
const ARGON2_ITERATIONS_MAX: u32 = 10;
const ARGON2_MEBIBYTES_MAX: u32 = 1_024;
const ARGON2_LANES_MAX: u32 = 16;

const DAMAGED: &str = "it is not as Bitwarden wrote it";

/// How a key is made of the password, as the export says it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kdf {
    kdf_type: u32,
    kdf_iterations: u32,
    kdf_memory: Option<u32>,
    kdf_parallelism: Option<u32>,
}

/// The two keys of an export.
pub(super) struct Keys {
    encrypt: Zeroizing<[u8; KEY_BYTES]>,
    authenticate: Zeroizing<[u8; KEY_BYTES]>,
}

impl Keys {
    /// Makes them of the password.
    ///
    /// # Errors
    /// The export asks for what no export of Bitwarden does.
    pub(super) fn derive(password: &[u8], salt: &str, kdf: &Kdf) -> Result<Self, ImportError> {
        let impossible = || ImportError::at("its key derivation", "it asks for what Bitwarden does not");
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        match (kdf.kdf_type, kdf.kdf_memory, kdf.kdf_parallelism) {
            (0, _, _) if (1..=PBKDF2_ITERATIONS_MAX).contains(&kdf.kdf_iterations) => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt.as_bytes(), kdf.kdf_iterations, &mut *key);
            }
            (1, Some(memory), Some(lanes))
                if kdf.kdf_iterations <= ARGON2_ITERATIONS_MAX
                    && memory <= ARGON2_MEBIBYTES_MAX
                    && lanes <= ARGON2_LANES_MAX =>
            {
                let params = Params::new(memory << 10, kdf.kdf_iterations, lanes, Some(KEY_BYTES));
                let argon2 =
                    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|_| impossible())?);
                let salt = Sha256::digest(salt.as_bytes());
                argon2.hash_password_into(password, &salt, &mut *key).map_err(|_| impossible())?;
            }
            _ => return Err(impossible()),
        }
        let stretched = |purpose: &[u8]| {
            let mut out = Zeroizing::new([0; KEY_BYTES]);
            let hkdf = Hkdf::<Sha256>::from_prk(&*key).map_err(|_| impossible())?;
            hkdf.expand(purpose, &mut *out).map_err(|_| impossible())?;
            Ok::<_, ImportError>(out)
        };
        Ok(Self { encrypt: stretched(b"enc")?, authenticate: stretched(b"mac")? })
    }

    /// Opens a text of type 2: `2.IV|CIPHERTEXT|MAC`, each in base64.
    ///
    /// # Errors
    /// It was not encrypted with these keys.
    pub(super) fn open(&self, text: &str) -> Result<Zeroizing<Vec<u8>>, ImportError> {
        self.opened(text).ok_or_else(|| ImportError::at("its encrypted part", DAMAGED))
    }

    fn opened(&self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut parts = text.strip_prefix("2.")?.split('|').map(|part| Base64::decode_vec(part).ok());
        let (iv, sealed, mac) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() {
            return None;
        }
        let mut authentic = Hmac::<Sha256>::new_from_slice(&*self.authenticate).ok()?;
        authentic.update(&iv);
        authentic.update(&sealed);
        authentic.verify_slice(&mac).ok()?;
        let cipher = Decryptor::<Aes256>::new_from_slices(&*self.encrypt, &iv).ok()?;
        cipher.decrypt_padded_vec_mut::<Pkcs7>(&sealed).ok().map(Zeroizing::new)
    }
}
