//! Random bytes of the kernel, by the system call itself: a library that looks for it at run time finds it in no static
//! program, and takes a file for it that a sandbox or container may not have.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// The kernel gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel gave no random bytes")]
pub struct EntropyError;

/// Fills `bytes` from the kernel's generator (getrandom(2)); waits, soon after a machine was switched on, until that has
/// been seeded.
///
/// # Errors
/// The kernel gives none.
pub fn fill(mut bytes: &mut [u8]) -> Result<(), EntropyError> {
    while !bytes.is_empty() {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(count) if count > 0 => bytes = bytes.get_mut(count..).ok_or(EntropyError)?,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return Err(EntropyError),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_filled_however_many_there_are() {
        for len in [0, 1, 32, 257, 100_000] {
            let (mut one, mut sum) = (vec![0_u8; len], vec![0_u8; len]);
            // A byte stays zero by chance once in 256 times, and 20 times in a row never.
            for _ in 0..20 {
                fill(&mut one).unwrap();
                sum.iter_mut().zip(&one).for_each(|(sum, byte)| *sum |= byte);
            }
            assert!(sum.iter().all(|byte| *byte != 0), "{len}");
        }
    }
}
