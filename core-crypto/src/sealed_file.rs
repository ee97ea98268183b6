//! A value as a file that lies in memory only and that nobody can change, for a program that is given a descriptor.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};
use rustix::io::{Errno, retry_on_intr, write};

/// What its link in `/proc/PID/fd` says of it.
const NAME: &str = "pds-secret";

/// Makes a sealed file (memfd_create(2)) of the value, to be read from its beginning; close-on-exec. Any bytes, any size.
///
/// Its pages can be swapped, as those of the program that reads them can.
///
/// # Errors
/// The kernel has no memory or descriptor for it.
pub fn sealed_file(value: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 no such file can be kept from being executed.
    let file = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(NAME, flags)?,
        made => made?,
    };
    let mut left = value;
    while !left.is_empty() {
        let written = retry_on_intr(|| write(&file, left))?;
        left = left.get(written..).unwrap_or_default();
    }
    seek(&file, SeekFrom::Start(0))?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_sealed_file_holds_just_the_value_and_cannot_be_changed() {
        for value in [&b""[..], b"a\0b\n", &[0xff; 1 << 20]] {
            let mut file = File::from(sealed_file(value).unwrap());
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert_eq!(read, value);
            assert!(file.write_all(b"x").is_err());
            // What is empty is not cut by that.
            assert_eq!(file.set_len(0).is_err(), !value.is_empty());
            assert!(file.set_len(value.len() as u64 + 1).is_err());
            assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err());
        }
    }
}
