//! What the bus waits for: one epoll instance over all its descriptors (epoll(7)), each under a number.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Most events taken at once; what is left comes first the next time.
const EVENTS_MAX: usize = 256;

/// A set of descriptors that are watched.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// What happened to the descriptor with this number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happened {
    pub(crate) number: u64,
    /// There is something to read, or the other end has gone.
    pub(crate) readable: bool,
    /// The other end has gone: it neither sends nor reads any more.
    pub(crate) gone: bool,
    /// There is room to write.
    pub(crate) writable: bool,
}

impl Poll {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a descriptor for reading; it stops by itself when the descriptor is closed.
    pub(crate) fn add(&self, number: u64, descriptor: impl AsFd) -> Result<(), Errno> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(number), EventFlags::IN)
    }

    /// Watches a descriptor, whose number it is, for something to read, for room to write, for both or for neither; its
    /// end is told of in any case. For room it is watched only while something waits to be written: each frame that
    /// the other end has read would wake the bus.
    pub(crate) fn watch(
        &self,
        number: u64,
        descriptor: impl AsFd,
        input: bool,
        room: bool,
    ) -> Result<(), Errno> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, input);
        flags.set(EventFlags::OUT, room);
        epoll::modify(&self.epoll, descriptor, EventData::new_u64(number), flags)
    }

    /// Watches a descriptor no longer, of which there may be duplicates.
    pub(crate) fn remove(&self, descriptor: impl AsFd) {
        // What is not watched need not be told of.
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Waits until something happens, or `until`, as seen from `now`; with `None` for as long as it takes.
    pub(crate) fn wait(&mut self, until: Option<Instant>, now: Instant) -> Result<(), Errno> {
        let timeout = until.map(|until| timespec(until.saturating_duration_since(now)));
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What happened in the last [`Self::wait`].
    pub(crate) fn happened(&self, place: usize) -> Option<Happened> {
        let event = self.events.get(place)?;
        let (flags, number) = (event.flags, event.data.u64());
        Some(Happened {
            number,
            readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
            gone: flags.intersects(EventFlags::HUP | EventFlags::ERR),
            writable: flags.contains(EventFlags::OUT),
        })
    }
}

/// Rounded up to whole milliseconds, which every kernel can wait for: waking too early would only mean waiting again.
fn timespec(time: Duration) -> Timespec {
    let millis = time.as_nanos().div_ceil(1_000_000);
    Timespec {
        tv_sec: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
    }
}
