//! Splitting a key so that fewer than a given number of its shares say nothing about it (Shamir, "How to share a
//! secret", 1979), over GF(256) byte by byte.
//!
//! A share is one byte that numbers it and as many bytes as the key has. The arithmetic is that of `vsss-rs`, which
//! uses no tables that secret bytes would index.

use core::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use vsss_rs::Gf256;
use zeroize::{Zeroize, Zeroizing};

use crate::stack::scrubbed;
use crate::{EntropyError, SecureBytes};

/// Most shares a key can be split into here; the field would allow 255.
pub const SHARES_MAX: u8 = 32;

/// Why a key was not split, or not put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    /// Fewer than two needed, more needed than there are, or more than [`SHARES_MAX`].
    #[error("a key cannot be split into {shares} shares of which {needed} are needed")]
    Numbers {
        /// How many are needed.
        needed: u8,
        /// How many there were to be.
        shares: u8,
    },
    /// The shares are not those of one key: too few, of different lengths, or the same number twice.
    #[error("the shares do not belong together")]
    Mismatch,
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Splits `key` into `shares` shares, any `needed` of which give it back.
///
/// # Errors
/// Numbers that make no sense, or no random bytes.
pub fn split(key: &SecureBytes, needed: u8, shares: u8) -> Result<Vec<SecureBytes>, SharingError> {
    let sensible = (2..=SHARES_MAX).contains(&needed) && (needed..=SHARES_MAX).contains(&shares);
    if !sensible || key.is_empty() {
        return Err(SharingError::Numbers { needed, shares });
    }
    let coefficients = Coefficients::new()?;
    let split = scrubbed(|| Gf256::split_bytes(needed.into(), shares.into(), key.expose(), coefficients));
    let split = split.map_err(|_| SharingError::Numbers { needed, shares })?;
    Ok(split.into_iter().map(|share| SecureBytes::copy_of(&Zeroizing::new(share))).collect())
}

/// The key that these shares are of, if they are enough of one key's. Which shares were too few or another key's
/// cannot be told from here: what comes out then is another key.
///
/// # Errors
/// They cannot be shares of one key.
pub fn combine(shares: &[SecureBytes]) -> Result<SecureBytes, SharingError> {
    let copies = shares.iter().map(|share| share.expose().to_vec()).collect();
    let copies: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(copies);
    let key = scrubbed(|| Gf256::combine_bytes(copies.as_slice())).map_err(|_| SharingError::Mismatch)?;
    Ok(SecureBytes::copy_of(&Zeroizing::new(key)))
}

/// The random coefficients of the polynomials: BLAKE3's output for a seed of the kernel, since the library takes
/// only a generator that cannot fail, and the kernel's can.
struct Coefficients(blake3::OutputReader);

impl Coefficients {
    fn new() -> Result<Self, EntropyError> {
        let seed = SecureBytes::random(blake3::KEY_LEN)?;
        let mut hasher = blake3::Hasher::new_derive_key("pds v2 sharing-coefficients");
        hasher.update(seed.expose());
        let output = hasher.finalize_xof();
        hasher.zeroize();
        Ok(Self(output))
    }
}

impl Drop for Coefficients {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecureBytes {
        SecureBytes::copy_of(&(100..132).collect::<Vec<u8>>())
    }

    fn picked(shares: &[SecureBytes], which: u32) -> Vec<SecureBytes> {
        shares
            .iter()
            .enumerate()
            .filter(|(at, _)| which >> at & 1 == 1)
            .map(|(_, share)| share.clone())
            .collect()
    }

    #[test]
    fn any_that_are_enough_give_the_key_back_and_any_fewer_do_not() {
        for (needed, number) in [(2_u8, 2_u8), (2, 3), (3, 3), (3, 5), (5, 7)] {
            let shares = split(&key(), needed, number).unwrap();
            for which in 1..1_u32 << number {
                let some = picked(&shares, which);
                let enough = some.len() >= usize::from(needed);
                let found = combine(&some).is_ok_and(|combined| combined.ct_eq(key().expose()));
                assert_eq!(found, enough, "{needed} of {number}, shares {which:b}");
            }
        }
    }

    /// With one share missing, every byte of the key is as likely as any other: for each of the 256 values that the
    /// missing share's byte may have, another byte of the key comes out.
    #[test]
    fn one_share_too_few_says_nothing_about_the_key() {
        let shares = split(&key(), 3, 3).unwrap();
        let mut seen = [false; 256];
        for guess in 0..=255 {
            let mut guessed = shares.clone();
            guessed[2].expose_mut()[1] = guess;
            seen[usize::from(combine(&guessed).unwrap().expose()[0])] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn two_splits_of_one_key_share_nothing_and_do_not_mix() {
        let (first, second) = (split(&key(), 2, 3).unwrap(), split(&key(), 2, 3).unwrap());
        for (one, other) in first.iter().zip(&second) {
            assert_eq!(one.expose()[0], other.expose()[0]);
            assert!(!one.ct_eq(other.expose()));
        }
        let mixed = [first[0].clone(), second[1].clone()];
        assert!(!combine(&mixed).unwrap().ct_eq(key().expose()));
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for (needed, shares) in [(0, 3), (1, 3), (4, 3), (2, 33), (33, 33), (2, 0)] {
            assert_eq!(split(&key(), needed, shares).err(), Some(SharingError::Numbers { needed, shares }));
        }
        assert!(split(&SecureBytes::zeroed(0), 2, 2).is_err());
        assert!(split(&key(), 2, SHARES_MAX).is_ok());
    }

    #[test]
    fn what_cannot_be_shares_of_one_key_is_refused() {
        let shares = split(&key(), 2, 3).unwrap();
        let short = SecureBytes::copy_of(&shares[1].expose()[..20]);
        let zeroth = SecureBytes::zeroed(shares[0].len());
        for wrong in [
            vec![],
            vec![shares[0].clone()],
            vec![shares[0].clone(), shares[0].clone()],
            vec![shares[0].clone(), short],
            vec![shares[0].clone(), zeroth],
            vec![SecureBytes::zeroed(0), SecureBytes::zeroed(0)],
        ] {
            assert_eq!(combine(&wrong).err(), Some(SharingError::Mismatch));
        }
    }

    /// A share must be of the same format for ever: this one was written down when the format was fixed.
    #[test]
    fn known_answer() {
        let share = |text: &str| SecureBytes::copy_of(&hex::decode(text).unwrap());
        // f(x) = 0x42 + 0x90 x over GF(256) modulo 0x11b.
        let combined = combine(&[share("01d2"), share("0279")]).unwrap();
        assert_eq!(combined.expose(), [0x42]);
    }
}
