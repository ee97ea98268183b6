//! Wiping the stack below a call that worked on keys, and the registers it used: ciphers and hashes keep round keys and
//! chaining values in frames and registers that nobody else overwrites.

use std::hint::black_box;

use crate::memory::clear_registers;

/// Bytes below the caller's frame that are overwritten; the deepest of the wrapped calls needs less.
const DEPTH: usize = 16 << 10;

/// Runs `work` and then overwrites the stack and the registers that it used. For whatever has secrets encrypted,
/// decrypted or hashed by code that is not ours.
pub fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    let result = in_own_frame(work);
    overwrite();
    clear_registers();
    result
}

#[inline(never)]
fn in_own_frame<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite() {
    // Nothing may be left out that fills a frame which someone looks at.
    black_box(&mut [0u8; DEPTH]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use crate::{SecureBytes, aead, key_schedule};

    /// How often `needle` stands on this thread's stack, dead frames included.
    fn hits(needle: &[u8]) -> usize {
        let here = std::ptr::from_ref(&needle) as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let ranges = maps.lines().filter_map(|line| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        });
        let stack = ranges.into_iter().find(|range| range.contains(&here)).unwrap();
        let mut bytes = vec![0; stack.len()];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, stack.start as u64).unwrap();
        bytes.windows(needle.len()).filter(|window| *window == needle).count()
    }

    #[test]
    fn sealing_and_opening_leave_no_key_on_the_stack() {
        let key = SecureBytes::random(aead::KEY_BYTES).unwrap();
        let sealed = aead::seal(&key, b"here", b"value").unwrap();
        assert_eq!(hits(key.expose()), 0);
        aead::open(&key, b"here", &sealed).unwrap();
        assert_eq!(hits(key.expose()), 0);
    }

    #[test]
    fn deriving_leaves_neither_key_on_the_stack() {
        let master = SecureBytes::random(key_schedule::KEY_BYTES).unwrap();
        let derived = key_schedule::vault_key(&master, "work");
        assert_eq!((hits(master.expose()), hits(derived.expose())), (0, 0));
    }

    #[test]
    fn the_scan_is_not_blind() {
        let secret = SecureBytes::random(32).unwrap();
        let mut planted = [0; 32];
        planted.copy_from_slice(secret.expose());
        black_box(&mut planted);
        assert_ne!(hits(secret.expose()), 0);
        black_box(&planted);
    }
}
