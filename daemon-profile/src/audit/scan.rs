//! Reading a segment line by line, from its start or from its end, with bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use super::chain::PIECE_BYTES_MAX;

const CHUNK_BYTES: usize = 64 << 10;

/// One line, or what stands where a line should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its bytes without the line feed; `None` if there are more than [`PIECE_BYTES_MAX`].
    pub(crate) bytes: Option<Vec<u8>>,
    /// Whether a line feed ends it.
    pub(crate) terminated: bool,
}

/// The lines of a file in their order.
pub(crate) struct Forwards {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Forwards {
    /// Reads `file` from where it stands.
    pub(crate) fn new(file: File) -> Self {
        Self { reader: BufReader::with_capacity(CHUNK_BYTES, file), line: Vec::new() }
    }

    /// The next line without its line feed; one that is too long comes in pieces of [`PIECE_BYTES_MAX`] + 1 bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        self.reader.by_ref().take(PIECE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.line)?;
        Ok(match self.line.as_slice() {
            [] => None,
            [line @ .., b'\n'] => Some(line),
            line => Some(line),
        })
    }
}

/// The lines of a file from its last to its first.
pub(crate) struct Backwards {
    file: File,
    /// What was read and not given yet: the bytes of the file from `position` on.
    buffer: Vec<u8>,
    position: u64,
    /// Whether the line sought was longer than may be kept.
    overlong: bool,
    /// Whether a line feed ends the line sought; `None` when there is no line left.
    terminated: Option<bool>,
    chunk_bytes: usize,
}

impl Backwards {
    /// Reads `file` from its present end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        Self::with_chunks(file, CHUNK_BYTES)
    }

    fn with_chunks(file: File, chunk_bytes: usize) -> io::Result<Self> {
        let position = file.metadata()?.len();
        let mut lines =
            Self { file, buffer: Vec::new(), position, overlong: false, terminated: None, chunk_bytes };
        if position > 0 {
            lines.read_chunk()?;
            lines.terminated = Some(lines.buffer.pop_if(|byte| *byte == b'\n').is_some());
        }
        Ok(lines)
    }

    /// The line before the one given last.
    ///
    /// # Errors
    /// The file cannot be read, or became shorter.
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        let Some(terminated) = self.terminated else { return Ok(None) };
        let mut searched = 0;
        let bytes = loop {
            let unsearched = self.buffer.len() - searched;
            if let Some(feed) = self.buffer[..unsearched].iter().rposition(|byte| *byte == b'\n') {
                let line = self.buffer.split_off(feed + 1);
                self.buffer.truncate(feed);
                self.terminated = Some(true);
                break line;
            }
            if self.position == 0 {
                self.terminated = None;
                break std::mem::take(&mut self.buffer);
            }
            if self.buffer.len() > PIECE_BYTES_MAX {
                self.overlong = true;
                self.buffer.clear();
            }
            searched = self.buffer.len();
            self.read_chunk()?;
        };
        let overlong = std::mem::take(&mut self.overlong) || bytes.len() > PIECE_BYTES_MAX;
        Ok(Some(Piece { bytes: (!overlong).then_some(bytes), terminated }))
    }

    /// Puts the chunk before `position` in front of the buffer.
    fn read_chunk(&mut self) -> io::Result<()> {
        let length = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.chunk_bytes);
        let start = self.position - length as u64;
        let mut chunk = vec![0; length];
        self.file.read_exact_at(&mut chunk, start)?;
        chunk.append(&mut self.buffer);
        self.buffer = chunk;
        self.position = start;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use proptest::prelude::*;

    use super::*;

    fn file_with(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn backwards(bytes: &[u8], chunk_bytes: usize) -> Vec<Piece> {
        let mut lines = Backwards::with_chunks(file_with(bytes), chunk_bytes).unwrap();
        std::iter::from_fn(|| lines.next_piece().unwrap()).collect()
    }

    fn forwards(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Forwards::new(file_with(bytes));
        std::iter::from_fn(|| lines.next_line().unwrap().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_line_without_end_is_passed_without_being_kept() {
        let mut bytes = b"first\n".to_vec();
        bytes.resize(bytes.len() + 2 * PIECE_BYTES_MAX, 0);
        bytes.extend_from_slice(b"\nlast");
        let piece = |bytes: Option<&[u8]>, terminated| Piece { bytes: bytes.map(<[u8]>::to_vec), terminated };
        let expected = [piece(Some(b"last"), false), piece(None, true), piece(Some(b"first"), true)];
        assert_eq!(backwards(&bytes, CHUNK_BYTES), expected);
        assert!(forwards(&bytes).iter().all(|line| line.len() <= PIECE_BYTES_MAX + 1));
    }

    proptest! {
        #[test]
        fn both_directions_give_the_lines_of_the_file(text in "[ab\n]{0,40}", chunk_bytes in 1_usize..9) {
            let mut expected: Vec<&str> = text.split('\n').collect();
            let terminated = expected.pop_if(|last| last.is_empty()).is_some();
            let found = backwards(text.as_bytes(), chunk_bytes);
            for (index, piece) in found.iter().enumerate() {
                prop_assert_eq!(piece.terminated, terminated || index > 0);
            }
            let lines: Vec<Vec<u8>> = found.into_iter().rev().map(|piece| piece.bytes.unwrap()).collect();
            prop_assert_eq!(&lines, &forwards(text.as_bytes()));
            prop_assert_eq!(lines, expected.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }
}
