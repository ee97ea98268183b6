//! Sub-allocation: many small blocks in few mappings, zero when handed out and zero again when given back.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use super::mapping::Mapping;
use super::{Protection, note_given_back, note_handed_out};

/// Sizes of the mappings that small blocks share, largest first: when a limit leaves no room for the first,
/// a smaller one may still fit.
const SHARED_SIZES: [usize; 3] = [256 << 10, 64 << 10, 4 << 10];
/// From this size on a block gets a mapping of its own.
const OWN_MAPPING_FROM: usize = 64 << 10;
/// Blocks begin and end at multiples of this, which bounds the number of free pieces.
const GRANULE: usize = 16;

static ARENA: Mutex<Arena> = Mutex::new(Arena { chunks: BTreeMap::new(), next: 0 });

struct Arena {
    chunks: BTreeMap<u64, Chunk>,
    next: u64,
}

struct Chunk {
    mapping: Mapping,
    /// Free pieces by their offset; neighbours are always joined.
    free: BTreeMap<usize, usize>,
}

/// Where a block was found.
struct Place {
    chunk: u64,
    data: NonNull<u8>,
    level: Protection,
}

impl Arena {
    /// Finds room for `len` bytes (a multiple of the granule) with the best protection there is.
    fn place(&mut self, len: usize) -> Option<Place> {
        Protection::ALL.into_iter().find_map(|level| self.place_in(level, len))
    }

    fn place_in(&mut self, level: Protection, len: usize) -> Option<Place> {
        let may_share = len < OWN_MAPPING_FROM;
        let of_level =
            self.chunks.iter_mut().filter(|(_, chunk)| may_share && chunk.mapping.level() == level);
        for (&number, chunk) in of_level {
            if let Some(data) = chunk.take(len) {
                return Some(Place { chunk: number, data, level });
            }
        }
        let mapping = map(level, len)?;
        let number = self.next;
        self.next += 1;
        let free = BTreeMap::from([(0, mapping.len())]);
        let chunk = self.chunks.entry(number).or_insert(Chunk { mapping, free });
        chunk.take(len).map(|data| Place { chunk: number, data, level })
    }

    /// Wipes a block and takes it back; a chunk without blocks is unmapped.
    fn release(&mut self, chunk: u64, data: NonNull<u8>, len: usize) {
        let Some(home) = self.chunks.get_mut(&chunk) else { return };
        home.give_back(data, len);
        if home.free.get(&0) == Some(&home.mapping.len()) {
            self.chunks.remove(&chunk);
        }
    }
}

/// Maps room for `len` bytes; `None` if the level is not to be had.
fn map(level: Protection, len: usize) -> Option<Mapping> {
    if len >= OWN_MAPPING_FROM {
        return Mapping::new(level, len).ok();
    }
    SHARED_SIZES.iter().filter(|size| **size >= len).find_map(|size| Mapping::new(level, *size).ok())
}

impl Chunk {
    /// Cuts a block off the end of the first free piece that is large enough, so that the first block of a
    /// chunk ends where the guard page begins.
    fn take(&mut self, len: usize) -> Option<NonNull<u8>> {
        let (&offset, &free) = self.free.iter().find(|(_, free)| **free >= len)?;
        match free - len {
            0 => self.free.remove(&offset),
            rest => self.free.insert(offset, rest),
        };
        // SAFETY: the free piece, and with it the block at its end, lies inside the mapping.
        Some(unsafe { self.mapping.start().add(offset + free - len) })
    }

    fn give_back(&mut self, data: NonNull<u8>, len: usize) {
        // SAFETY: the block lies inside the mapping, and its last user is giving it back.
        unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), len) }.zeroize();
        let mut offset = data.as_ptr() as usize - self.mapping.start().as_ptr() as usize;
        let mut len = len;
        if let Some(after) = self.free.remove(&(offset + len)) {
            len += after;
        }
        if let Some((&before, &before_len)) = self.free.range(..offset).next_back()
            && before + before_len == offset
        {
            offset = before;
            len += before_len;
        }
        self.free.insert(offset, len);
    }
}

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a secret, in the arena.
pub(crate) struct Block {
    home: Home,
    len: usize,
}

enum Home {
    /// A block without bytes.
    None,
    /// A piece of a chunk.
    Arena { chunk: u64, data: NonNull<u8> },
    /// The heap, when not even an unlocked mapping was to be had (`RLIMIT_AS`, `vm.max_map_count`).
    Heap(Box<[u8]>),
}

// SAFETY: a block is the only user of its piece of the arena, which is valid in every thread.
unsafe impl Send for Block {}
// SAFETY: a shared block only gives shared slices.
unsafe impl Sync for Block {}

impl Block {
    /// A block of `len` zero bytes.
    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { home: Home::None, len };
        }
        let place = len.checked_next_multiple_of(GRANULE).and_then(|size| arena().place(size));
        let (home, level) = match place {
            Some(Place { chunk, data, level }) => (Home::Arena { chunk, data }, level),
            None => (Home::Heap(vec![0; len].into_boxed_slice()), Protection::Plain),
        };
        note_handed_out(level, len);
        Self { home, len }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.home {
            Home::None => &[],
            // SAFETY: the piece has at least `len` initialised bytes, and only `&mut self` may change them.
            Home::Arena { data, .. } => unsafe { std::slice::from_raw_parts(data.as_ptr(), self.len) },
            Home::Heap(bytes) => bytes,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.home {
            Home::None => &mut [],
            // SAFETY: the piece has at least `len` initialised bytes, and `&mut self` is the only access.
            Home::Arena { data, .. } => unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), self.len) },
            Home::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match &mut self.home {
            Home::None => {}
            Home::Arena { chunk, data } => {
                arena().release(*chunk, *data, self.len.next_multiple_of(GRANULE));
            }
            Home::Heap(bytes) => bytes.zeroize(),
        }
        note_given_back(self.len);
        // Whoever used the block last did so through registers.
        super::clear_registers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// A block from an arena of its own, so that tests running beside this one change nothing in it.
    fn with_arena<T>(test: impl FnOnce(&mut Arena) -> T) -> T {
        test(&mut Arena { chunks: BTreeMap::new(), next: 0 })
    }

    fn bytes_at(place: &Place, len: usize) -> &'static mut [u8] {
        // SAFETY: only called while the arena of the test has the chunk mapped.
        unsafe { std::slice::from_raw_parts_mut(place.data.as_ptr(), len) }
    }

    /// The kernel's flags of the mapping at an address (proc_pid_smaps(5)).
    fn vm_flags(address: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            } else if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags:")) {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        panic!("no mapping at {address:#x}")
    }

    /// The levels this kernel has.
    fn levels() -> Vec<Protection> {
        let has = |level: &Protection| match Mapping::new(*level, 4096) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{level:?}: {error}");
                false
            }
        };
        Protection::ALL.into_iter().filter(has).collect()
    }

    #[test]
    fn a_freed_block_is_wiped_in_place() {
        with_arena(|arena| {
            let (neighbour, block) = (arena.place(48).unwrap(), arena.place(48).unwrap());
            assert_eq!(neighbour.chunk, block.chunk, "the neighbour keeps the chunk mapped");
            bytes_at(&neighbour, 48).fill(0x5a);
            bytes_at(&block, 48).fill(0xa5);
            arena.release(block.chunk, block.data, 48);
            assert_eq!(bytes_at(&block, 48), [0; 48]);
            assert_eq!(bytes_at(&neighbour, 48), [0x5a; 48]);
        });
    }

    #[test]
    fn dropping_a_block_frees_it() {
        let block = Block::zeroed(OWN_MAPPING_FROM);
        let Home::Arena { chunk, .. } = block.home else { panic!("not in the arena") };
        assert!(arena().chunks.contains_key(&chunk));
        drop(block);
        assert!(!arena().chunks.contains_key(&chunk));
    }

    #[test]
    fn guards_and_advice_are_on_every_level() {
        for level in levels() {
            let mapping = Mapping::new(level, 4096).unwrap();
            let start = mapping.start().as_ptr() as usize;
            let flags = vm_flags(start);
            let has = |flag: &str| flags.iter().any(|found| found == flag);
            assert!(has("rd") && has("wr") && has("dc") && has("dd"), "{level:?}: {flags:?}");
            assert_eq!(has("lo"), level != Protection::Plain, "{level:?}: {flags:?}");
            for guard in [start - 1, start + mapping.len()] {
                let flags = vm_flags(guard);
                assert!(!flags.iter().any(|flag| flag == "rd" || flag == "wr"), "{level:?}: {flags:?}");
            }
        }
    }

    #[test]
    fn pieces_are_joined_again_and_an_empty_chunk_is_unmapped() {
        with_arena(|arena| {
            let sizes = [16, 4096, 48, 1024];
            let mut places: Vec<_> = sizes.iter().map(|size| (arena.place(*size).unwrap(), *size)).collect();
            assert_eq!(arena.chunks.len(), 1);
            places.swap(0, 2);
            for (place, size) in places {
                arena.release(place.chunk, place.data, size);
            }
            assert!(arena.chunks.is_empty());
        });
    }

    #[test]
    fn blocks_never_overlap_and_stay_inside_their_mapping() {
        with_arena(|arena| {
            let mut held: Vec<(Place, usize, u8)> = Vec::new();
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            for step in 0..4_000u32 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let pick = usize::try_from(random >> 33).unwrap();
                if held.len() > 40 || (pick % 3 == 0 && !held.is_empty()) {
                    let (place, size, mark) = held.swap_remove(pick % held.len());
                    let bytes = bytes_at(&place, size);
                    assert!(bytes.iter().all(|byte| *byte == mark), "another block wrote here");
                    arena.release(place.chunk, place.data, size);
                } else {
                    let size = (pick % 9_000 + 1).next_multiple_of(GRANULE);
                    let mark = u8::try_from(step % 255 + 1).unwrap();
                    let place = arena.place(size).unwrap();
                    let bytes = bytes_at(&place, size);
                    assert!(bytes.iter().all(|byte| *byte == 0), "not zero when handed out");
                    bytes.fill(mark);
                    held.push((place, size, mark));
                }
            }
        });
    }

    /// Ends the calling process at once, with nothing of Rust's or the C library's in between.
    fn leave(code: i32) -> ! {
        // SAFETY: `_exit` touches no memory of ours and does not return.
        unsafe { libc::_exit(code) }
    }

    /// How a forked child ends that does `work`, which may make system calls and touch memory, and nothing else.
    fn forked(work: impl FnOnce()) -> std::process::ExitStatus {
        // SAFETY: the child is a copy with this one thread; it allocates nothing, takes no lock, and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        if child == 0 {
            work();
            leave(0);
        }
        let mut status = 0;
        // SAFETY: the child is ours and is waited for once; the status is a place of ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(waited, child);
        std::process::ExitStatus::from_raw(status)
    }

    #[test]
    fn a_forked_child_has_no_secret_and_cannot_change_the_parents() {
        for level in levels() {
            let mapping = Mapping::new(level, 4096).unwrap();
            let bytes = mapping.start().as_ptr();
            // SAFETY: the mapping has that many bytes of its own.
            unsafe { bytes.write_bytes(0xa5, mapping.len()) };
            // SAFETY: none in the child; that the byte is not there is what the test wants to see.
            let reading = forked(|| leave(i32::from(unsafe { bytes.read_volatile() } == 0xa5)));
            assert_eq!(reading.signal(), Some(libc::SIGSEGV), "{level:?}: {reading}");
            // SAFETY: as above.
            let wiping = forked(|| unsafe { bytes.write_bytes(0, 4096) });
            assert_eq!(wiping.signal(), Some(libc::SIGSEGV), "{level:?}: {wiping}");
            // SAFETY: the mapping has that many bytes of its own, which nobody changes meanwhile.
            let left = unsafe { std::slice::from_raw_parts(bytes, mapping.len()) };
            assert!(left.iter().all(|byte| *byte == 0xa5), "{level:?}");
        }
    }

    const OVERRUN: &str = "PDS_TEST_OVERRUN";

    /// What the children of the next test do; without the variable it does nothing.
    #[test]
    fn overrun_in_a_child() {
        let Ok(side) = std::env::var(OVERRUN) else { return };
        // A block of whole pages has a mapping of its own and a guard page at either end.
        let block = Block::zeroed(OWN_MAPPING_FROM);
        let first = block.as_slice().as_ptr();
        let outside = if side == "after" { first.wrapping_add(block.len) } else { first.wrapping_sub(1) };
        // SAFETY: none; the read is the fault that the test wants to see.
        let byte = unsafe { outside.read_volatile() };
        panic!("the byte outside could be read: {byte}");
    }

    #[test]
    fn an_overrun_ends_the_process() {
        for side in ["before", "after"] {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "memory::arena::tests::overrun_in_a_child"])
                .env(OVERRUN, side)
                .output()
                .unwrap()
                .status;
            assert_eq!(status.signal(), Some(libc::SIGSEGV), "{side}: {status}");
        }
    }

    #[test]
    fn the_first_block_of_a_chunk_ends_at_the_guard_page() {
        with_arena(|arena| {
            let place = arena.place(32).unwrap();
            let mapping = &arena.chunks[&place.chunk].mapping;
            let end = mapping.start().as_ptr() as usize + mapping.len();
            assert_eq!(place.data.as_ptr() as usize + 32, end);
        });
    }
}
