//! Argon2id (RFC 9106): from a password to the key that unwraps the master key.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

use crate::SecureBytes;
pub use crate::key_schedule::SALT_BYTES;
use crate::stack::scrubbed;

/// Length of a derived key, in bytes.
pub const KEK_BYTES: usize = 32;

/// The cost of a derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes (they are computed one after the other; the number is a part of the result).
    pub lanes: u32,
}

/// Why a key was not derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// Cheaper than the floor: whoever chose it wants the password to be guessed.
    #[error("{what} of {value} is below the floor of {floor}")]
    TooCheap {
        /// Which parameter.
        what: &'static str,
        /// What was asked for.
        value: u32,
        /// Least allowed.
        floor: u32,
    },
    /// Dearer than the ceiling: whoever chose it wants the machine to stand still.
    #[error("{what} of {value} is above the ceiling of {ceiling}")]
    TooDear {
        /// Which parameter.
        what: &'static str,
        /// What was asked for.
        value: u32,
        /// Most allowed.
        ceiling: u32,
    },
    /// The machine has not that much memory to give now.
    #[error("there is not enough memory for the {memory_kib} KiB that the derivation needs")]
    Memory {
        /// What it needs, in KiB.
        memory_kib: u32,
    },
    /// A password that Argon2 does not take (4 GiB or more).
    #[error("the password is too long")]
    Password,
}

impl Argon2Params {
    /// What new vaults get: the second recommended option of RFC 9106, section 4.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// Least that is accepted (OWASP's minimum for Argon2id).
    pub const FLOOR: Self = Self { memory_kib: 19 << 10, passes: 2, lanes: 1 };
    /// Most that is accepted: about half a minute on the machines of today.
    pub const CEILING: Self = Self { memory_kib: 1 << 20, passes: 64, lanes: 16 };

    /// Whether the cost lies between [`Self::FLOOR`] and [`Self::CEILING`]. Allocates nothing.
    ///
    /// # Errors
    /// The first parameter that does not.
    pub fn check(&self) -> Result<(), KdfError> {
        let (floor, ceiling) = (Self::FLOOR, Self::CEILING);
        let ranges = [
            ("Argon2 memory (KiB)", self.memory_kib, floor.memory_kib, ceiling.memory_kib),
            ("Argon2 number of passes", self.passes, floor.passes, ceiling.passes),
            ("Argon2 number of lanes", self.lanes, floor.lanes, ceiling.lanes),
        ];
        for (what, value, floor, ceiling) in ranges {
            if value < floor {
                return Err(KdfError::TooCheap { what, value, floor });
            }
            if value > ceiling {
                return Err(KdfError::TooDear { what, value, ceiling });
            }
        }
        Ok(())
    }

    /// What this cost becomes where `wanted` is configured: at least as much memory and as many passes; `None` where
    /// it has them already. A cost is never lowered.
    #[must_use]
    pub fn raised_to(self, wanted: Self) -> Option<Self> {
        let cheaper = self.memory_kib < wanted.memory_kib || self.passes < wanted.passes;
        cheaper.then(|| Self {
            memory_kib: self.memory_kib.max(wanted.memory_kib),
            passes: self.passes.max(wanted.passes),
            lanes: wanted.lanes,
        })
    }
}

impl Default for Argon2Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The memory that Argon2 fills with what follows from the password; wiped when dropped.
struct Scratch(Vec<Block>);

impl Scratch {
    fn new(params: &Argon2Params, blocks: usize) -> Result<Self, KdfError> {
        let mut scratch = Vec::new();
        let failed = |_| KdfError::Memory { memory_kib: params.memory_kib };
        scratch.try_reserve_exact(blocks).map_err(failed)?;
        scratch.resize(blocks, Block::default());
        Ok(Self(scratch))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// Derives the 32-byte key-encryption key of a password. Takes about 0.2 s and 64 MiB with the default cost.
///
/// # Errors
/// Parameters out of their range, found before anything is allocated; or too little memory.
pub fn derive_kek(
    password: &[u8],
    salt: &[u8; SALT_BYTES],
    params: &Argon2Params,
) -> Result<SecureBytes, KdfError> {
    params.check()?;
    let checked = Params::new(params.memory_kib, params.passes, params.lanes, Some(KEK_BYTES));
    let checked = checked.map_err(|_| KdfError::Memory { memory_kib: params.memory_kib })?;
    let mut scratch = Scratch::new(params, checked.block_count())?;
    let mut kek = SecureBytes::zeroed(KEK_BYTES);
    scrubbed(|| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, checked)
            .hash_password_into_with_memory(password, salt, kek.expose_mut(), &mut scratch.0)
            .map_err(|_| KdfError::Password)
    })?;
    Ok(kek)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values come from the reference implementation (libargon2, `argon2id_hash_raw`).
    #[test]
    fn known_answers() {
        let answers = [
            (Argon2Params::FLOOR, "a152e7156e1575df8a65a372b8735960395379e4434a4ca80022c518002180b7"),
            (Argon2Params::DEFAULT, "07f6a6ad15310304823d180a3ebeccb14f5b487ce05eb8a95d51ea7d72b41f62"),
        ];
        for (params, expected) in answers {
            let kek = derive_kek(b"correct horse", b"somesalt12345678", &params).unwrap();
            assert_eq!(hex::encode(kek.expose()), expected);
        }
    }

    #[test]
    fn password_salt_and_every_parameter_count() {
        let floor = Argon2Params::FLOOR;
        let base = derive_kek(b"p", &[0; SALT_BYTES], &floor).unwrap();
        let others = [
            derive_kek(b"q", &[0; SALT_BYTES], &floor),
            derive_kek(b"p", &[1; SALT_BYTES], &floor),
            derive_kek(b"p", &[0; SALT_BYTES], &Argon2Params { memory_kib: floor.memory_kib + 8, ..floor }),
            derive_kek(b"p", &[0; SALT_BYTES], &Argon2Params { passes: 3, ..floor }),
            derive_kek(b"p", &[0; SALT_BYTES], &Argon2Params { lanes: 2, ..floor }),
        ];
        for other in others {
            assert!(!base.ct_eq(other.unwrap().expose()));
        }
    }

    #[test]
    fn a_cost_is_raised_and_never_lowered() {
        let cost = |memory_kib, passes, lanes| Argon2Params { memory_kib, passes, lanes };
        let table = [
            (cost(100, 3, 4), None),
            (cost(100, 3, 1), None),
            (cost(200, 4, 1), None),
            (cost(99, 3, 1), Some(cost(100, 3, 4))),
            (cost(100, 2, 4), Some(cost(100, 3, 4))),
            (cost(50, 9, 4), Some(cost(100, 9, 4))),
            (cost(500, 2, 4), Some(cost(500, 3, 4))),
        ];
        for (now, expected) in table {
            assert_eq!(now.raised_to(cost(100, 3, 4)), expected, "{now:?}");
        }
    }

    #[test]
    fn costs_out_of_range_are_refused_without_work() {
        let good = Argon2Params::DEFAULT;
        let bad = [
            Argon2Params { memory_kib: 19 * 1024 - 1, ..good },
            Argon2Params { memory_kib: 8 << 20, ..good },
            Argon2Params { memory_kib: u32::MAX, ..good },
            Argon2Params { passes: 1, ..good },
            Argon2Params { passes: u32::MAX, ..good },
            Argon2Params { lanes: 0, ..good },
            Argon2Params { lanes: 17, ..good },
        ];
        for params in bad {
            let error = derive_kek(b"p", &[0; SALT_BYTES], &params).unwrap_err();
            assert!(matches!(error, KdfError::TooCheap { .. } | KdfError::TooDear { .. }), "{params:?}");
        }
        for params in [Argon2Params::DEFAULT, Argon2Params::FLOOR, Argon2Params::CEILING] {
            assert_eq!(params.check(), Ok(()));
        }
    }
}
