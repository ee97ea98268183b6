//! A program's file as one that lies in memory and that nobody can change, so that what was checked is what is executed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

/// What its link in `/proc/PID/exe` says of it.
const NAME: &str = "pds-program";
/// How much is copied at once, in bytes.
const PIECE: usize = 256 << 10;

/// Copies a file, from where it stands, into a sealed one (memfd_create(2)) that can be executed, close-on-exec; with the
/// BLAKE3 hash of what was copied.
///
/// # Errors
/// There are more than `max` bytes (`FileTooLarge`), it cannot be read, or the kernel has no memory or descriptor for it.
pub fn sealed_image(mut file: &File, max: u64) -> io::Result<(OwnedFd, [u8; 32])> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 every such file can be executed, and that need not be said.
    let made = match memfd_create(NAME, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(NAME, flags)?,
        made => made?,
    };
    let mut image = File::from(made);
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut left = max;
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        left = left.checked_sub(read as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let part = piece.get(..read).unwrap_or_default();
        hasher.update(part);
        image.write_all(part)?;
    }
    fcntl_add_seals(&image, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok((image.into(), *hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    #[test]
    fn the_image_is_what_was_hashed_and_cannot_be_changed() {
        for bytes in [&b""[..], b"#!", &[7; PIECE + 1]] {
            let (image, hash) = sealed_image(&file(bytes), 1 << 20).unwrap();
            assert_eq!(hash, digest(bytes));
            let mut image = File::from(image);
            assert!(image.write_all(b"x").is_err() && image.set_len(bytes.len() as u64 + 1).is_err());
            let mut copied = Vec::new();
            io::Seek::rewind(&mut image).unwrap();
            image.read_to_end(&mut copied).unwrap();
            assert_eq!(copied, bytes);
        }
        let limit = |max| sealed_image(&file(&[7; 10]), max).map(|_| ()).map_err(|error| error.kind());
        assert_eq!((limit(10), limit(9)), (Ok(()), Err(io::ErrorKind::FileTooLarge)));
    }

    #[test]
    fn it_can_be_executed() {
        let (image, _) = sealed_image(&File::open("/bin/true").unwrap(), 64 << 20).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&image));
        assert!(std::process::Command::new(path).status().unwrap().success());
    }
}
