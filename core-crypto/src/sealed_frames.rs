//! Many values in one file in memory, each encrypted for its place, for another process that gets its descriptor and,
//! by another way, its key: more than fits into a message, and nothing of it in clear outside of the two.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals, memfd_create, seek};

use crate::aead::{self, AeadError, NONCE_BYTES, TAG_BYTES};
use crate::random::EntropyError;
use crate::secure_bytes::SecureBytes;

/// What its link in `/proc/PID/fd` says of it.
const NAME: &str = "pds-values";
/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;
const KEY_BYTES: usize = 32;

/// Why there are no values in a file, or none can be put into one.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// The file is not one that nobody can change any more, or its owner can still make it shorter.
    #[error("it is not a sealed file in memory")]
    NotSealed,
    /// A frame is longer than the reader takes.
    #[error("value {index} of it is larger than {limit} bytes")]
    TooLong {
        /// Which, counted from 0.
        index: u64,
        /// Most bytes it may have.
        limit: usize,
    },
    /// It ends too early, or what is in it was not encrypted with this key for this place.
    #[error("value {index} of it was not written with its key")]
    Foreign {
        /// Which, counted from 0.
        index: u64,
    },
    /// The system failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing could be encrypted.
    #[error("{0}")]
    Encrypt(AeadError),
    /// There are no random bytes for a key.
    #[error("{0}")]
    Entropy(EntropyError),
}

fn place(context: &str, index: u64) -> Vec<u8> {
    [context.as_bytes(), &[0], &index.to_be_bytes()].concat()
}

/// Writes values into a new file, under a new key.
pub struct FrameWriter {
    file: File,
    key: SecureBytes,
    context: String,
    index: u64,
}

impl FrameWriter {
    /// An empty file. `context` says what it is for: it can be read for nothing else.
    ///
    /// # Errors
    /// The kernel has no memory, descriptor or random bytes for it.
    pub fn new(context: &str) -> Result<Self, FramesError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Before Linux 6.3 no such file can be kept from being executed.
        let file = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(rustix::io::Errno::INVAL) => memfd_create(NAME, flags),
            made => made,
        };
        let file = File::from(file.map_err(io::Error::from)?);
        let key = SecureBytes::random(KEY_BYTES).map_err(FramesError::Entropy)?;
        Ok(Self { file, key, context: context.to_owned(), index: 0 })
    }

    /// Adds a value.
    ///
    /// # Errors
    /// It could not be encrypted or written.
    pub fn add(&mut self, value: &[u8]) -> Result<(), FramesError> {
        let sealed =
            aead::seal(&self.key, &place(&self.context, self.index), value).map_err(FramesError::Encrypt)?;
        let limit = u32::MAX as usize;
        let length = u32::try_from(sealed.len());
        let length = length.map_err(|_| FramesError::TooLong { index: self.index, limit })?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&sealed)?;
        self.index += 1;
        Ok(())
    }

    /// The file, which nobody can change from now on and which is read from its beginning, and its key.
    ///
    /// # Errors
    /// The system failed.
    pub fn finish(self) -> Result<(OwnedFd, SecureBytes), FramesError> {
        seek(&self.file, SeekFrom::Start(0)).map_err(io::Error::from)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&self.file, seals).map_err(io::Error::from)?;
        Ok((self.file.into(), self.key))
    }
}

/// Reads the values of a file that someone else made.
pub struct FrameReader {
    file: BufReader<File>,
    key: SecureBytes,
    context: String,
    index: u64,
    limit: usize,
}

impl FrameReader {
    /// A file that comes from a [`FrameWriter`] with this key and `context`; no value of it may have more than `limit`
    /// bytes. Reading such a file never waits for anybody, and a second reading finds what the first one found.
    ///
    /// # Errors
    /// It is another kind of file.
    pub fn new(file: OwnedFd, key: SecureBytes, context: &str, limit: usize) -> Result<Self, FramesError> {
        // Only files in memory have seals at all (fcntl(2), "File Sealing").
        let seals = fcntl_get_seals(&file).map_err(|_| FramesError::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE) {
            return Err(FramesError::NotSealed);
        }
        let file = BufReader::new(File::from(file));
        let mut reader = Self { file, key, context: context.to_owned(), index: 0, limit };
        reader.rewind()?;
        Ok(reader)
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// The system failed.
    pub fn bytes(&self) -> Result<u64, FramesError> {
        Ok(self.file.get_ref().metadata()?.len())
    }

    /// Goes back to the first value.
    ///
    /// # Errors
    /// The system failed.
    pub fn rewind(&mut self) -> Result<(), FramesError> {
        io::Seek::rewind(&mut self.file)?;
        self.index = 0;
        Ok(())
    }

    /// Whether there is nothing after the values that were read.
    ///
    /// # Errors
    /// The system failed.
    pub fn is_at_end(&mut self) -> Result<bool, FramesError> {
        Ok(io::BufRead::fill_buf(&mut self.file)?.is_empty())
    }

    /// The next value.
    ///
    /// # Errors
    /// There is none, it is too long, or it was not written with the key.
    pub fn next_value(&mut self) -> Result<SecureBytes, FramesError> {
        let foreign = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FramesError::Foreign { index: self.index },
            _ => FramesError::Io(error),
        };
        let mut length = [0; LENGTH_BYTES];
        self.file.read_exact(&mut length).map_err(foreign)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > self.limit + NONCE_BYTES + TAG_BYTES {
            return Err(FramesError::TooLong { index: self.index, limit: self.limit });
        }
        let mut sealed = vec![0; length];
        self.file.read_exact(&mut sealed).map_err(foreign)?;
        let value = aead::open(&self.key, &place(&self.context, self.index), &sealed);
        let value = value.map_err(|_| FramesError::Foreign { index: self.index })?;
        self.index += 1;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed_file;

    const VALUES: [&[u8]; 3] = [b"", b"one", &[7; 70_000]];

    fn written() -> (OwnedFd, SecureBytes) {
        let mut writer = FrameWriter::new("test").unwrap();
        VALUES.iter().for_each(|value| writer.add(value).unwrap());
        writer.finish().unwrap()
    }

    fn bytes_of(file: &OwnedFd) -> Vec<u8> {
        let (mut bytes, mut file) = (Vec::new(), File::from(file.try_clone().unwrap()));
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read_as_often_as_wanted_and_nobody_sees_it() {
        let (file, key) = written();
        assert!(!bytes_of(&file).windows(3).any(|bytes| bytes == b"one"));
        let mut reader = FrameReader::new(file, key, "test", 70_000).unwrap();
        for _ in 0..2 {
            reader.rewind().unwrap();
            for value in VALUES {
                assert_eq!(reader.next_value().unwrap().expose(), value);
            }
            assert!(reader.is_at_end().unwrap());
            assert!(matches!(reader.next_value(), Err(FramesError::Foreign { index: 3 })));
        }
    }

    #[test]
    fn another_key_purpose_place_or_limit_reads_nothing() {
        let (file, key) = written();
        let other = || file.try_clone().unwrap();
        let first = |mut reader: FrameReader| reader.next_value();
        let wrong = SecureBytes::random(32).unwrap();
        let wrong_key = first(FrameReader::new(other(), wrong, "test", 70_000).unwrap());
        assert!(matches!(wrong_key, Err(FramesError::Foreign { index: 0 })));
        let elsewhere = first(FrameReader::new(other(), key.clone(), "tes", 70_000).unwrap());
        assert!(matches!(elsewhere, Err(FramesError::Foreign { index: 0 })));
        let mut short = FrameReader::new(other(), key.clone(), "test", 10).unwrap();
        short.next_value().unwrap();
        short.next_value().unwrap();
        assert!(matches!(short.next_value(), Err(FramesError::TooLong { index: 2, limit: 10 })));
        // The first two exchanged.
        let bytes = bytes_of(&file);
        let (first_end, second_end) = (4 + 28, 4 + 28 + 4 + 28 + 3);
        let moved = [&bytes[first_end..second_end], &bytes[..first_end]].concat();
        let mut reader = FrameReader::new(sealed_file(&moved).unwrap(), key, "test", 99).unwrap();
        assert!(matches!(reader.next_value(), Err(FramesError::Foreign { index: 0 })));
    }

    #[test]
    fn every_cut_and_every_other_kind_of_file_is_refused() {
        let (file, key) = written();
        let bytes = bytes_of(&file);
        for end in [0, 3, 4, 10, 31] {
            let cut = sealed_file(&bytes[..end]).unwrap();
            let mut reader = FrameReader::new(cut, key.clone(), "test", 99).unwrap();
            assert!(matches!(reader.next_value(), Err(FramesError::Foreign { index: 0 })), "{end}");
        }
        let open = memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        for other in [open, pipe.into(), tempfile::tempfile().unwrap().into()] {
            let refused = FrameReader::new(other, key.clone(), "test", 99);
            assert!(matches!(refused, Err(FramesError::NotSealed)));
        }
    }
}
