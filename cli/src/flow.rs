//! One direction of what is carried between two open files: what was read and is not written yet.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use zeroize::Zeroizing;

use crate::mask::Mask;

/// Bytes carried at once in one direction.
const FLOW_BYTES: usize = 16 << 10;
/// How long what may be the beginning of a value is held back.
const HELD_TIME: Duration = Duration::from_millis(100);

/// It is filled when it is empty.
pub(crate) struct Flow {
    /// What is typed may be a password.
    bytes: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    source_ended: bool,
    /// What values are hidden by, and what has passed it.
    mask: Option<(Mask, Zeroizing<Vec<u8>>)>,
    /// When what the mask holds back is let go.
    due: Option<Instant>,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Zeroizing::new(vec![0; FLOW_BYTES]),
            start: 0,
            end: 0,
            source_ended: false,
            mask: None,
            due: None,
        }
    }

    /// Has values hidden in what is read from now on.
    pub(crate) fn hide(&mut self, mask: Mask) {
        self.mask = Some((mask, Zeroizing::default()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn takes_more(&self) -> bool {
        self.is_empty() && !self.source_ended
    }

    /// What was read and not written yet.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Where in what was read the next write begins.
    pub(crate) fn position(&self) -> usize {
        self.start
    }

    /// When [`Self::let_go`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.is_empty())
    }

    /// Whether nothing more will come.
    #[cfg(test)]
    pub(crate) fn has_ended(&self) -> bool {
        self.source_ended
    }

    /// Reads once, if nothing waits to be written; answers how many bytes came.
    pub(crate) fn fill(&mut self, source: &OwnedFd) -> usize {
        if !self.takes_more() {
            return 0;
        }
        match retry_on_intr(|| rustix::io::read(source, self.room())) {
            Err(Errno::AGAIN) => 0,
            // A pseudo-terminal whose other end is closed answers EIO.
            Ok(0) | Err(_) => {
                self.source_ended = true;
                self.let_all_go();
                0
            }
            Ok(count) => {
                self.take(count);
                count
            }
        }
    }

    fn room(&mut self) -> &mut [u8] {
        // What has passed a mask may be shorter or longer.
        self.bytes.resize(FLOW_BYTES, 0);
        &mut self.bytes
    }

    fn take(&mut self, count: usize) {
        (self.start, self.end) = (0, count);
        let Some((mask, shown)) = &mut self.mask else { return };
        shown.clear();
        mask.push(self.bytes.get(..count).unwrap_or_default(), shown);
        self.due = mask.holds().then(|| Instant::now() + HELD_TIME);
        std::mem::swap(&mut self.bytes, shown);
        self.end = self.bytes.len();
    }

    /// Lets go of what was held back long enough, if what came before it has been written.
    pub(crate) fn let_go(&mut self) {
        if self.is_empty() && self.due.is_some_and(|due| due <= Instant::now()) {
            self.let_all_go();
        }
    }

    /// Lets go of all that is held back; only where nothing waits to be written.
    pub(crate) fn let_all_go(&mut self) {
        self.due = None;
        if let Some((mask, _)) = &mut self.mask {
            self.bytes.clear();
            mask.let_all_go(&mut self.bytes);
            (self.start, self.end) = (0, self.bytes.len());
        }
    }

    /// Writes at most so many bytes, once.
    ///
    /// # Errors
    /// Nobody can take them any more.
    pub(crate) fn write_to(&mut self, sink: &OwnedFd, most: usize) -> Result<(), Errno> {
        let end = self.end.min(self.start.saturating_add(most));
        let Some(bytes) = self.bytes.get(self.start..end).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        match retry_on_intr(|| rustix::io::write(sink, bytes)) {
            Err(Errno::AGAIN) => Ok(()),
            Ok(0) => Err(Errno::IO),
            Err(errno) => Err(errno),
            Ok(count) => {
                self.start += count;
                Ok(())
            }
        }
    }

    /// Writes once; what nobody can take any more is dropped, so that the writer does not wait for it.
    pub(crate) fn drain(&mut self, sink: &OwnedFd) {
        if self.write_to(sink, usize::MAX).is_err() {
            self.start = self.end;
        }
    }
}
