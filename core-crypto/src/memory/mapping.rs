//! One mapping: guard page, usable pages, guard page. All system calls of the memory module are here.

use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, mprotect, munmap,
};

use super::Protection;

/// Pages of one protection level between two inaccessible pages; given back to the kernel when dropped.
pub(super) struct Mapping {
    reservation: NonNull<c_void>,
    reserved: usize,
    start: NonNull<u8>,
    len: usize,
    level: Protection,
}

// SAFETY: a mapping belongs to the process, not to a thread, and `Mapping` owns it alone.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps at least `len` bytes, all zero.
    pub(super) fn new(level: Protection, len: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let overflow = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = len.checked_next_multiple_of(page).ok_or_else(overflow)?;
        let reserved = len.checked_add(2 * page).ok_or_else(overflow)?;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no existing memory.
        let reservation =
            unsafe { mmap_anonymous(std::ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        // SAFETY: the reservation is larger than one page, so the sum stays inside it.
        let start = unsafe { reservation.cast::<u8>().add(page) };
        let (Some(reservation), Some(start)) = (NonNull::new(reservation), NonNull::new(start)) else {
            return Err(overflow());
        };
        let mapping = Self { reservation, reserved, start, len, level };
        match level {
            Protection::SecretMemory => mapping.back_with_secret_memory()?,
            Protection::Locked => mapping.back_with_locked_pages()?,
            Protection::Plain => mapping.back_with_plain_pages()?,
        }
        Ok(mapping)
    }

    /// Where the usable bytes begin.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many usable bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn level(&self) -> Protection {
        self.level
    }

    fn pages(&self) -> *mut c_void {
        self.start.as_ptr().cast()
    }

    /// The pages are shared with the descriptor's file, so without `DontFork` a child that wipes its copy
    /// would wipe ours.
    fn back_with_secret_memory(&self) -> io::Result<()> {
        let file = memfd_secret()?;
        rustix::fs::ftruncate(&file, u64::try_from(self.len).unwrap_or(u64::MAX))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies inside the reservation, which this mapping owns and nobody uses yet.
        unsafe { mmap(self.pages(), self.len, protection, flags, &file, 0) }?;
        self.advise(Advice::LinuxDontFork)
    }

    fn back_with_locked_pages(&self) -> io::Result<()> {
        self.make_accessible()?;
        // SAFETY: the range is a part of the reservation.
        unsafe { mlock(self.pages(), self.len) }?;
        self.advise(Advice::LinuxDontDump)?;
        self.advise(Advice::LinuxDontFork)
    }

    /// The advice is taken where the kernel gives it: this level is the last one before an error.
    fn back_with_plain_pages(&self) -> io::Result<()> {
        self.make_accessible()?;
        let _ = self.advise(Advice::LinuxDontDump);
        let _ = self.advise(Advice::LinuxDontFork);
        Ok(())
    }

    fn make_accessible(&self) -> io::Result<()> {
        // SAFETY: the range is a part of the reservation, which nobody uses yet.
        Ok(unsafe { mprotect(self.pages(), self.len, MprotectFlags::READ | MprotectFlags::WRITE) }?)
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: `DontDump` and `DontFork` change no content of the range, which is a part of the reservation.
        Ok(unsafe { madvise(self.pages(), self.len, advice) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours, and the arena drops a mapping only when no block of it is left.
        let unmapped = unsafe { munmap(self.reservation.as_ptr(), self.reserved) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping");
    }
}

/// memfd_secret(2) with the close-on-exec flag; an error of kind `Unsupported` where the kernel has it not.
fn memfd_secret() -> io::Result<OwnedFd> {
    let flags = libc::c_ulong::from(libc::O_CLOEXEC.unsigned_abs());
    // SAFETY: the call takes one integer and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, flags) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
