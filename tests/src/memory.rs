//! Looks for secrets in the memory of running processes, from outside, as root's debugger would.
//!
//! A secret is looked for by pieces of its bytes, its hex digits and its base64, so that half a copy is found too.
//! Nothing found is ever shown, only what it was, and where.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::canary::Canary;

/// Bytes of a piece: of hex digits still 64 bits, so that nothing is found by chance.
const PIECE_BYTES: usize = 16;
/// Long secrets are looked for by a piece out of each stretch of so many bytes.
const STRETCH_BYTES: usize = 1024;
/// How much is read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// Where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Which secret.
    pub what: String,
    /// As what.
    pub form: &'static str,
    /// The process or file, and the mapping.
    pub place: String,
    /// Whether the mapping is locked, as all secret memory is.
    pub locked: bool,
}

/// What must not be found.
pub struct Secrets {
    names: Vec<String>,
    pieces: HashMap<[u8; PIECE_BYTES], (usize, &'static str)>,
    /// One bit for each beginning of a piece.
    beginnings: Vec<u64>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new()
    }
}

/// The first three bytes as a number.
fn beginning(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
}

impl Secrets {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { names: Vec::new(), pieces: HashMap::new(), beginnings: vec![0; (1 << 24) / 64] }
    }

    /// Adds a secret; `what` is shown when it is found.
    ///
    /// # Panics
    /// It is too short to be found for sure.
    pub fn add(&mut self, what: impl Into<String>, secret: &[u8]) {
        assert!(secret.len() >= PIECE_BYTES, "a secret to look for has at least {PIECE_BYTES} bytes");
        let number = self.names.len();
        self.names.push(what.into());
        for (form, bytes) in Canary::new(secret).forms() {
            let Some(last) = bytes.len().checked_sub(PIECE_BYTES) else { continue };
            for start in (0..last).step_by(STRETCH_BYTES).chain([last / 2, last]) {
                let piece: [u8; PIECE_BYTES] =
                    bytes[start..start + PIECE_BYTES].try_into().expect("a piece of that length");
                let place = beginning(&piece);
                self.beginnings[place / 64] |= 1 << (place % 64);
                self.pieces.insert(piece, (number, form));
            }
        }
    }

    /// Which secrets stand in these bytes: their numbers and forms.
    fn found_in(&self, bytes: &[u8]) -> Vec<(usize, &'static str)> {
        let mut found = Vec::new();
        // Most of what is looked through is zero or machine code, so nearly every place ends at the first test; it is
        // written for speed, because a debug build looks through gigabytes.
        let mut place = 0;
        for (end, &byte) in bytes.iter().enumerate() {
            place = (place << 8 | usize::from(byte)) & 0xff_ffff;
            if self.beginnings[place / 64] >> (place % 64) & 1 == 0 || end < 2 {
                continue;
            }
            let window = bytes.get(end - 2..end - 2 + PIECE_BYTES);
            found.extend(window.and_then(|window| self.pieces.get(window)));
        }
        found
    }

    /// Looks into everything that can be read of a process's memory.
    ///
    /// # Panics
    /// The process cannot be looked into.
    #[must_use]
    pub fn in_process(&self, pid: u32) -> Looked {
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root may open the memory of a process");
        let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let mut looked = Looked::default();
        let mut window = vec![0; WINDOW_BYTES + PIECE_BYTES];
        for mapping in mappings(pid) {
            let place = format!("{} {pid}: {}", program.trim(), mapping.shown);
            self.in_range(&memory, &mapping, &place, &mut window, &mut looked);
        }
        looked.hits.sort();
        looked.hits.dedup();
        looked
    }

    /// Looks into a mapping, a window at a time.
    fn in_range(
        &self,
        memory: &File,
        mapping: &Mapping,
        place: &str,
        window: &mut [u8],
        looked: &mut Looked,
    ) {
        let mut from = mapping.from;
        while from < mapping.to {
            let wanted = window.len().min(usize::try_from(mapping.to - from).expect("a range that fits"));
            // Guard pages, secret memory and pages of the kernel cannot be read.
            let Ok(count @ 1..) = memory.read_at(&mut window[..wanted], from) else { break };
            for (number, form) in self.found_in(&window[..count]) {
                let (what, place) = (self.names[number].clone(), place.to_owned());
                looked.hits.push(Hit { what, form, place, locked: mapping.locked });
            }
            // The windows overlap by a piece, so that none is cut in two.
            let step = if wanted == window.len() && count == wanted { WINDOW_BYTES } else { count };
            from += u64::try_from(step).expect("a step that fits");
            looked.bytes += step;
        }
    }

    /// Looks into a file, such as a core.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn in_file(&self, path: &Path) -> Looked {
        let bytes = std::fs::read(path).expect("a file that can be read");
        let hit = |(number, form): (usize, &'static str)| {
            let place = path.display().to_string();
            Hit { what: self.names[number].clone(), form, place, locked: false }
        };
        let mut hits: Vec<Hit> = self.found_in(&bytes).into_iter().map(hit).collect();
        hits.sort();
        hits.dedup();
        Looked { hits, bytes: bytes.len() }
    }
}

/// What a look into memory has found.
#[derive(Debug, Default)]
pub struct Looked {
    /// The secrets found.
    pub hits: Vec<Hit>,
    /// How many bytes could be read.
    pub bytes: usize,
}

struct Mapping {
    from: u64,
    to: u64,
    shown: String,
    locked: bool,
}

/// The mappings of a process (proc_pid_smaps(5)) but for those that hold nothing of its own.
fn mappings(pid: u32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("root may read the mappings");
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (number(from), number(to))) {
            let shown = line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            found.push(Mapping { from, to, shown, locked: false });
        } else if let (Some(flags), Some(last)) = (line.strip_prefix("VmFlags:"), found.last_mut()) {
            last.locked = flags.split_ascii_whitespace().any(|flag| flag == "lo");
        }
    }
    assert!(!found.is_empty(), "process {pid} has no memory");
    found.retain(|mapping| !mapping.shown.ends_with("[vvar]") && !mapping.shown.ends_with("[vsyscall]"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn whole_and_half_secrets_are_found_in_every_form_and_nothing_else() {
        let secret = crate::chance::Chance::of("memory").bytes(40);
        let mut secrets = Secrets::new();
        secrets.add("it", &secret);
        let found = |bytes: &[u8]| !secrets.found_in(bytes).is_empty();
        for bytes in [&secret[..], &secret[..16], &secret[12..28], &secret[24..]] {
            assert!(found(&[b"xyz", bytes].concat()));
        }
        assert!(found(hex::encode(&secret).as_bytes()));
        assert!(!found(&secret[1..16]) && !found(&[0; 100]));
    }

    #[test]
    fn a_secret_is_found_in_another_process() {
        let mut child =
            Command::new("cat").env("A", "0123456789abcdef-0123").stdin(Stdio::piped()).spawn().unwrap();
        let mut secrets = Secrets::new();
        secrets.add("it", b"0123456789abcdef-0123");
        secrets.add("another", b"another that is not there");
        let looked = secrets.in_process(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(looked.bytes > 10_000);
        assert!(!looked.hits.is_empty() && looked.hits.iter().all(|hit| hit.what == "it"), "{looked:?}");
    }
}
