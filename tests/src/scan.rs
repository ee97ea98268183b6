//! What stands in the memory of another process, read as root or a debugger would.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes read at once; neighbouring pieces overlap, so that nothing is cut in two.
const PIECE_BYTES: usize = 1 << 20;

/// How often `wanted` stands in the readable memory of a process (proc(5), `/proc/PID/mem`).
///
/// # Errors
/// The memory cannot be read: the process is not dumpable, and we are not root.
pub fn count_in_memory(pid: u32, wanted: &[u8]) -> io::Result<usize> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut count = 0;
    for line in maps.lines() {
        let Some((start, end)) = readable(line) else { continue };
        let mut at = start;
        let mut piece = vec![0; PIECE_BYTES + wanted.len() - 1];
        while at < end {
            let length = piece.len().min(usize::try_from(end - at).expect("a range that fits"));
            // Secret memory, and what was unmapped meanwhile, cannot be read by anyone.
            let Ok(read) = memory.read_at(&mut piece[..length], at) else { break };
            count += piece[..read].windows(wanted.len()).filter(|window| *window == wanted).count();
            if read < piece.len() {
                break;
            }
            at += PIECE_BYTES as u64;
        }
    }
    Ok(count)
}

/// The range of a line of `/proc/PID/maps`, if it can be read.
fn readable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    if rights.starts_with('r') && !line.ends_with("[vvar]") && !line.ends_with("[vsyscall]") {
        Some((number(start)?, number(end)?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_searched_to_the_end() {
        let text: Vec<u8> = b"memory-scan-".iter().chain(b"needle").map(|byte| byte ^ 0x20).collect();
        let hidden = vec![text.clone(), text.clone()];
        assert!(count_in_memory(std::process::id(), &text).unwrap() >= 3);
        drop(hidden);
    }
}
