//! What the log asks of the disk, so that tests can put a full or failing one in its place.

use std::fs::File;
use std::io::{self, Write};

/// Writing to, and making durable, an open file.
pub(crate) trait Disk: Send + Sync {
    /// write(2): gives how many of the bytes were taken.
    ///
    /// # Errors
    /// None was.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize>;

    /// fdatasync(2).
    ///
    /// # Errors
    /// What was written is perhaps not on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The disk itself.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod small {
    //! A disk for the tests of the log.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// A disk with little room, which counts what is asked of it.
    pub(crate) struct SmallDisk {
        pub(crate) free: AtomicUsize,
        pub(crate) writes: AtomicUsize,
        pub(crate) syncs: AtomicUsize,
        pub(crate) sync_fails: AtomicBool,
    }

    impl SmallDisk {
        pub(crate) fn with(free: usize) -> Arc<Self> {
            let (writes, syncs, sync_fails) = Default::default();
            Arc::new(Self { free: AtomicUsize::new(free), writes, syncs, sync_fails })
        }
    }

    impl Disk for SmallDisk {
        fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
            self.writes.fetch_add(1, SeqCst);
            let taken = bytes.len().min(self.free.load(SeqCst));
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.free.fetch_sub(taken, SeqCst);
            file.write_all(&bytes[..taken])?;
            Ok(taken)
        }

        fn sync(&self, _: &File) -> io::Result<()> {
            self.syncs.fetch_add(1, SeqCst);
            if self.sync_fails.load(SeqCst) { Err(io::Error::other("medium error")) } else { Ok(()) }
        }
    }
}
