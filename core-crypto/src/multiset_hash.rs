//! A hash of a set of elements that follows each addition and removal without seeing the others.
//!
//! The hash is the sum, modulo 2^256, of a keyed pseudorandom function (BLAKE3 in keyed mode) of each element: the
//! construction MSet-Add-Hash of Clarke, Devadas, van Dijk, Gassend and Suh, "Incremental Multiset Hash Functions and
//! Their Application to Memory Integrity Checking" (ASIACRYPT 2003), section 5. Whoever has not the key cannot tell the
//! function's values from random numbers, so to find two different sets with the same sum is to guess 256 bits. They
//! add a random number so that sums may be shown to the attacker; ours are kept where only the key's owner reads them.

use zeroize::Zeroize;

use crate::SecureBytes;
use crate::stack::scrubbed;

const LIMBS: usize = 4;

/// The hash of a set; see the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MultisetHash([u64; LIMBS]);

impl MultisetHash {
    /// The hash of the set without elements.
    pub const EMPTY: Self = Self([0; LIMBS]);
    /// Length of [`Self::to_bytes`].
    pub const BYTES: usize = 8 * LIMBS;

    /// The hash of this set and `elements` together.
    #[must_use]
    pub fn with<'a>(mut self, key: &SecureBytes, elements: impl IntoIterator<Item = &'a [u8]>) -> Self {
        for_each(key, elements, |value| self.add(value));
        self
    }

    /// The hash of this set without `elements`, which must be in it.
    #[must_use]
    pub fn without<'a>(mut self, key: &SecureBytes, elements: impl IntoIterator<Item = &'a [u8]>) -> Self {
        for_each(key, elements, |value| self.subtract(value));
        self
    }

    /// As bytes, the lowest first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut limbs = [0; LIMBS];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        Self(limbs)
    }

    fn add(&mut self, value: Self) {
        let mut carry = false;
        for (limb, added) in self.0.iter_mut().zip(value.0) {
            let (sum, first) = limb.overflowing_add(added);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
    }

    fn subtract(&mut self, value: Self) {
        let mut borrow = false;
        for (limb, taken) in self.0.iter_mut().zip(value.0) {
            let (difference, first) = limb.overflowing_sub(taken);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (difference, first || second);
        }
    }
}

/// Gives the function's value of each element, and leaves the key nowhere. A key of another length than 32 bytes, which
/// none of the key schedule has, counts as the zero key.
fn for_each<'a>(
    key: &SecureBytes,
    elements: impl IntoIterator<Item = &'a [u8]>,
    mut each: impl FnMut(MultisetHash),
) {
    scrubbed(|| {
        let mut keyed = blake3::Hasher::new_keyed(key.expose().try_into().unwrap_or(&[0; 32]));
        for element in elements {
            keyed.update(element);
            each(MultisetHash::from_bytes(keyed.finalize().as_bytes()));
            keyed.reset();
        }
        keyed.zeroize();
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SecureBytes {
        SecureBytes::copy_of(&[byte; 32])
    }

    fn hash(elements: &[&[u8]]) -> MultisetHash {
        MultisetHash::EMPTY.with(&key(1), elements.iter().copied())
    }

    #[test]
    fn one_element_hashes_to_blake3_in_keyed_mode() {
        assert_eq!(hash(&[b"row"]).to_bytes(), *blake3::keyed_hash(&[1; 32], b"row").as_bytes());
    }

    #[test]
    fn the_sum_carries_over_all_limbs() {
        let mut all_ones = MultisetHash([u64::MAX; LIMBS]);
        all_ones.add(MultisetHash([1, 0, 0, 0]));
        assert_eq!(all_ones, MultisetHash::EMPTY);
        all_ones.subtract(MultisetHash([1, 0, 0, 0]));
        assert_eq!(all_ones, MultisetHash([u64::MAX; LIMBS]));
        let mut middle = MultisetHash([u64::MAX, u64::MAX, 4, 0]);
        middle.add(MultisetHash([1, 0, 0, 7]));
        assert_eq!(middle, MultisetHash([0, 0, 5, 7]));
    }

    #[test]
    fn sets_that_differ_hash_differently() {
        let set = hash(&[b"a", b"b"]);
        for other in
            [hash(&[]), hash(&[b"a"]), hash(&[b"a", b"c"]), hash(&[b"ab"]), hash(&[b"a", b"a", b"b"])]
        {
            assert_ne!(set, other);
        }
        let elements = [&b"a"[..], b"b"];
        assert_ne!(set, MultisetHash::EMPTY.with(&key(2), elements), "another key");
    }

    proptest! {
        /// The order of what was done leaves no trace, only what is there.
        #[test]
        fn it_follows_additions_and_removals_in_any_order(
            kept in proptest::collection::vec(any::<Vec<u8>>(), 0..8),
            gone in proptest::collection::vec(any::<Vec<u8>>(), 0..8),
        ) {
            let key = key(1);
            let both = MultisetHash::EMPTY
                .with(&key, gone.iter().map(Vec::as_slice))
                .with(&key, kept.iter().rev().map(Vec::as_slice));
            let left = both.without(&key, gone.iter().rev().map(Vec::as_slice));
            prop_assert_eq!(left, MultisetHash::EMPTY.with(&key, kept.iter().map(Vec::as_slice)));
            prop_assert_eq!(MultisetHash::from_bytes(&left.to_bytes()), left);
        }
    }
}
