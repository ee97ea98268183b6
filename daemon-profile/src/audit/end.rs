//! Reading the end of the log from its files: where the chain stands, and whether the last line is whole.

use std::path::Path;

use super::LogError;
use super::chain::{End, PIECE_BYTES_MAX};
use super::line::{Head, Recorder, Torn};
use super::scan::Backwards;
use super::segment::Segment;

/// How many of the last entries are read to learn what each sender has had recorded.
const READ_BACK_MAX: usize = 10_000;

/// How the current segment ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Not known: it has to be read.
    Unknown,
    /// With an entry and its line feed.
    Clean,
    /// With an entry whose line feed is missing.
    Unterminated,
    /// With bytes that are no entry.
    Torn {
        /// The bytes.
        torn: Torn,
        /// Whether a line feed ends them.
        terminated: bool,
    },
}

/// What the files tell about the end of the log.
pub(crate) struct Found {
    /// Where the chain ends; `None` without any entry.
    pub(crate) end: Option<End>,
    /// How the current segment ends.
    pub(crate) tail: Tail,
    /// Who handed the last entries over, the last one first.
    pub(crate) recorders: Vec<Recorder>,
}

impl Found {
    /// Reads the segments in `folder` from the end: as many entries as tell about senders, or, where the entries
    /// before `known` are known, back to those.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(folder: &Path, known: u64) -> Result<Self, LogError> {
        let mut reader = EndReader { known, ..EndReader::default() };
        let mut tail = None;
        for segment in Segment::list(folder)?.iter().rev() {
            reader.read(segment)?;
            // Only the segment written to can have been left torn.
            tail.get_or_insert_with(|| reader.tail());
            if reader.is_done {
                break;
            }
        }
        Ok(Self { end: reader.end, tail: tail.unwrap_or(Tail::Clean), recorders: reader.recorders })
    }
}

#[derive(Default)]
struct EndReader {
    known: u64,
    end: Option<End>,
    entries: usize,
    recorders: Vec<Recorder>,
    /// Lines after the last entry, the last one first.
    torn: Vec<Vec<u8>>,
    torn_bytes: usize,
    terminated: bool,
    is_done: bool,
}

impl EndReader {
    fn read(&mut self, segment: &Segment) -> Result<(), LogError> {
        let failed = |error| segment.failed(error);
        let mut pieces = Backwards::new(segment.open_read()?).map_err(failed)?;
        let mut last = true;
        while let Some(piece) = pieces.next_piece().map_err(failed)? {
            if last {
                self.terminated = piece.terminated;
                last = false;
            }
            match piece.bytes.as_deref().and_then(|line| Some((line, Head::parse(line)?))) {
                Some((line, head)) => self.entry(line, head),
                None if self.end.is_none() => self.torn_piece(piece.bytes),
                None => {}
            }
            if self.is_done {
                break;
            }
        }
        Ok(())
    }

    fn entry(&mut self, line: &[u8], head: Head) {
        self.end.get_or_insert_with(|| End { next: head.sequence + 1, link: head.previous.next(line) });
        self.entries += 1;
        self.is_done = self.entries >= READ_BACK_MAX || head.sequence < self.known;
        self.recorders.extend(head.recorder);
    }

    fn torn_piece(&mut self, bytes: Option<Vec<u8>>) {
        self.torn_bytes =
            bytes.as_ref().map_or(usize::MAX, |bytes| self.torn_bytes.saturating_add(bytes.len()));
        if self.torn_bytes > PIECE_BYTES_MAX {
            self.torn.clear();
            self.torn_bytes = usize::MAX;
        } else {
            self.torn.extend(bytes);
        }
    }

    fn tail(&mut self) -> Tail {
        let terminated = self.terminated;
        if self.torn_bytes > PIECE_BYTES_MAX {
            // Too much to keep, so it cannot be pinned: a check of the chain will name this place.
            return Tail::Torn { torn: Torn { bytes: 0, hash: String::new() }, terminated };
        }
        let mut pieces = std::mem::take(&mut self.torn);
        if !pieces.is_empty() {
            pieces.reverse();
            return Tail::Torn { torn: Torn::of(&pieces.join(&b'\n')), terminated };
        }
        if terminated || self.entries == 0 { Tail::Clean } else { Tail::Unterminated }
    }
}
