//! A stream of a command that is no terminal, with values hidden in it: the command writes into a pipe of ours, and what
//! comes out of it goes to where the stream led.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::isatty;

use crate::flow::Flow;
use crate::mask::{Forms, Mask};

/// What a pipe that can be written to takes at once without waiting (PIPE_BUF, pipe(7)).
const PIPE_BYTES: usize = 4096;
/// Most that is taken up of what an ended command wrote: the largest pipe that an ordinary user may have. What comes
/// beyond it is from others who go on writing.
const LEFT_BEHIND_BYTES_MAX: usize = 1 << 20;

/// One of them, or two that lead to the same place.
pub(crate) struct Redirect {
    flow: Flow,
    /// `None` when nothing more will come, or nobody takes it.
    source: Option<OwnedFd>,
    sink: OwnedFd,
    most: usize,
    left_behind: usize,
}

impl Redirect {
    /// Puts a pipe in the place of output and error, where they are no terminal; one for both, where both lead to the
    /// same place, so that what is written stays in its order.
    ///
    /// # Errors
    /// There is no pipe to be had.
    pub(crate) fn replace(streams: &mut [OwnedFd; 3]) -> io::Result<Vec<Self>> {
        let [_, output, error] = streams;
        let place = |stream: &OwnedFd| fstat(stream).map(|found| (found.st_dev, found.st_ino, found.st_rdev));
        let together = place(output)? == place(error)?;
        let mut redirects = Vec::new();
        if !isatty(&*output) {
            let (redirect, end) = Self::to(output)?;
            if together {
                *error = end.try_clone()?;
            }
            *output = end;
            redirects.push(redirect);
        }
        if !together && !isatty(&*error) {
            let (redirect, end) = Self::to(error)?;
            *error = end;
            redirects.push(redirect);
        }
        Ok(redirects)
    }

    fn to(sink: &OwnedFd) -> io::Result<(Self, OwnedFd)> {
        let (source, end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&source, true)?;
        let waits =
            matches!(FileType::from_raw_mode(fstat(sink)?.st_mode), FileType::Fifo | FileType::Socket);
        let most = if waits { PIPE_BYTES } else { usize::MAX };
        Ok((
            Self { flow: Flow::new(), source: Some(source), sink: sink.try_clone()?, most, left_behind: 0 },
            end,
        ))
    }

    /// Has values hidden; before anything is carried.
    pub(crate) fn hide(&mut self, forms: &Rc<Forms>) {
        self.flow.hide(Mask::new(forms));
    }

    /// What to wait for before [`Self::carry`] has something to do.
    pub(crate) fn waits_for(&self) -> Option<PollFd<'_>> {
        match &self.source {
            _ if !self.flow.is_empty() => Some(PollFd::from_borrowed_fd(self.sink.as_fd(), PollFlags::OUT)),
            Some(source) if self.flow.takes_more() => {
                Some(PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN))
            }
            _ => None,
        }
    }

    /// Until when to wait at most.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.flow.due()
    }

    /// Carries what can be carried without waiting.
    pub(crate) fn carry(&mut self) {
        if let Some(source) = &self.source {
            self.flow.fill(source);
        }
        self.flow.let_go();
        self.write();
        if self.flow.is_empty() && !self.flow.takes_more() {
            self.source = None;
        }
    }

    fn write(&mut self) {
        if !self.flow.is_empty() && is_ready(&self.sink) && self.flow.write_to(&self.sink, self.most).is_err()
        {
            // Who writes on is told so by a pipe that nobody reads.
            self.flow = Flow::new();
            self.source = None;
        }
    }

    /// Takes up what an ended command left; true when all of it has been written.
    pub(crate) fn has_shown_the_rest(&mut self) -> bool {
        if self.flow.is_empty() {
            let came = match &self.source {
                Some(source) if self.left_behind < LEFT_BEHIND_BYTES_MAX => self.flow.fill(source),
                _ => 0,
            };
            self.left_behind += came;
            if came == 0 && self.flow.is_empty() {
                self.flow.let_all_go();
                self.source = None;
            }
        }
        self.flow.is_empty() && self.source.is_none()
    }
}

fn is_ready(sink: &OwnedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(sink.as_fd(), PollFlags::OUT)];
    retry_on_intr(|| poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))
        .is_ok_and(|ready| ready > 0)
}
