//! Bytes from outside, up to a limit and not one more.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use zeroize::Zeroizing;

/// Why there is no input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// More than allowed.
    #[error("the value is larger than {limit} bytes, the most it may have")]
    TooLarge { limit: usize },
    /// The source failed.
    #[error("{origin} cannot be read: {source}")]
    Unreadable { origin: String, source: io::Error },
}

impl InputError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some("store a key, and with it an encrypted file".to_owned()),
            Self::Unreadable { .. } => Some("see that it exists and that you may read it".to_owned()),
        }
    }
}

/// Something to read from, with the name it has in messages.
pub(crate) struct Source {
    origin: String,
    file: File,
}

impl Source {
    /// A file; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn file(path: &Path) -> Result<Self, InputError> {
        if path == Path::new("-") {
            return Self::stdin();
        }
        let origin = format!("the file {}", PathBuf::from(path).display());
        match File::open(path) {
            Ok(file) => Ok(Self { origin, file }),
            Err(source) => Err(InputError::Unreadable { origin, source }),
        }
    }

    /// A file that is open, with a name for messages.
    pub(crate) fn opened(origin: String, file: File) -> Self {
        Self { origin, file }
    }

    /// Standard input.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn stdin() -> Result<Self, InputError> {
        let origin = "standard input".to_owned();
        match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
            Ok(descriptor) => Ok(Self { origin, file: descriptor.into() }),
            Err(errno) => Err(InputError::Unreadable { origin, source: errno.into() }),
        }
    }

    /// A descriptor that the process was started with. To be called before the process opens any of its own.
    ///
    /// # Errors
    /// There is no such descriptor.
    pub(crate) fn descriptor(number: u32) -> Result<Self, InputError> {
        let origin = format!("descriptor {number}");
        match inherited(number) {
            Ok(descriptor) => Ok(Self { origin, file: descriptor.into() }),
            Err(errno) => Err(InputError::Unreadable { origin, source: errno.into() }),
        }
    }

    /// Bytes of it, where it is a file.
    pub(crate) fn length(&self) -> Option<u64> {
        self.file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
    }

    /// Reads to the end, at most `limit` bytes. The buffer is allocated once, so that growing leaves nothing behind.
    ///
    /// # Errors
    /// There are more bytes, or reading failed.
    pub(crate) fn read(mut self, limit: usize) -> Result<Zeroizing<Vec<u8>>, InputError> {
        let mut buffer = Zeroizing::new(vec![0; limit + 1]);
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(InputError::Unreadable { origin: self.origin, source }),
            }
        }
        if filled > limit {
            return Err(InputError::TooLarge { limit });
        }
        buffer.truncate(filled);
        Ok(buffer)
    }
}

/// A duplicate of one of our own descriptors by its number: a process may always take its own (`pidfd_getfd(2)`).
fn inherited(number: u32) -> Result<OwnedFd, Errno> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    match pidfd_getfd(&ourselves, number, PidfdGetfdFlags::empty()) {
        // Older kernels, and sandboxes that do not know the call: open it anew, which does for files and pipes.
        Err(Errno::NOSYS | Errno::PERM) => {
            let path = format!("/proc/self/fd/{number}");
            rustix::fs::open(
                path,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
        }
        result => result,
    }
}

/// Removes one line feed from the end; answers whether there was one.
pub(crate) fn remove_line_feed(bytes: &mut Vec<u8>) -> bool {
    let ends = bytes.last() == Some(&b'\n');
    if ends {
        bytes.pop();
    }
    ends
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn source(bytes: &[u8]) -> Source {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        Source { origin: "test".to_owned(), file }
    }

    #[test]
    fn everything_up_to_the_limit_is_read_exactly() {
        assert_eq!(*source(b"").read(4).unwrap(), b"");
        assert_eq!(*source(b"a\0\n\xff").read(4).unwrap(), b"a\0\n\xff");
        assert!(matches!(source(b"12345").read(4), Err(InputError::TooLarge { limit: 4 })));
    }

    #[test]
    fn a_source_without_end_is_refused_at_the_limit() {
        let endless = Source::file(Path::new("/dev/zero")).unwrap();
        assert!(matches!(endless.read(1 << 20), Err(InputError::TooLarge { .. })));
    }

    #[test]
    fn a_descriptor_is_taken_by_its_number() {
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"pw\n").unwrap();
        drop(writer);
        let number = u32::try_from(reader.as_raw_fd()).unwrap();
        assert_eq!(*Source::descriptor(number).unwrap().read(10).unwrap(), b"pw\n");
        assert!(matches!(Source::descriptor(4_000_000), Err(InputError::Unreadable { .. })));
    }

    #[test]
    fn exactly_one_line_feed_is_removed() {
        for (given, left, found) in [
            (&b"a\n\n"[..], &b"a\n"[..], true),
            (b"a", b"a", false),
            (b"", b"", false),
            (b"a\r\n", b"a\r", true),
        ] {
            let mut bytes = given.to_vec();
            assert_eq!(remove_line_feed(&mut bytes), found);
            assert_eq!(bytes, left);
        }
    }
}
