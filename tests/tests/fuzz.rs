//! Every fuzz target over its corpus, over the pinned messages, and over mutations of both: a short run of what
//! `make fuzz` does for long, with the same inputs every time.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use tests::fuzz::TARGETS;
use tests::programs::workspace;

const MUTATIONS: usize = 20_000;
/// Those that do a handshake or two for each input.
const SLOW: [&str; 2] = ["handshake", "connection"];
const MUTATIONS_SLOW: usize = 500;

/// A generator of numbers that look random (Vigna, "xorshift64*"): the same ones for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() % limit.max(1)
    }
}

/// The inputs kept for a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = workspace().join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// The bytes of all messages that the protocol's own test pins.
fn pinned() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(workspace().join("core-types/tests/golden.txt")).unwrap();
    text.lines().filter_map(|line| hex::decode(line.rsplit_once(' ')?.1).ok()).collect()
}

/// One to four small changes.
fn mutated(inputs: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = inputs[numbers.below(inputs.len())].clone();
    for _ in 0..=numbers.below(4) {
        let place = numbers.below(bytes.len());
        match (numbers.below(6), bytes.is_empty()) {
            (0, false) => bytes[place] ^= 1 << numbers.below(8),
            (1, false) => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            (2, false) => drop(bytes.remove(place)),
            (3, false) => bytes.truncate(place),
            (4, _) => {
                let other = &inputs[numbers.below(inputs.len())];
                bytes.truncate(place);
                bytes.extend_from_slice(&other[numbers.below(other.len())..]);
            }
            _ => bytes.insert(place, u8::try_from(numbers.below(256)).unwrap()),
        }
    }
    bytes
}

#[test]
fn no_input_makes_a_decoder_break_its_promise() {
    for (name, target) in TARGETS {
        let kept = corpus(name);
        assert!(!kept.is_empty(), "no corpus for {name}");
        kept.iter().for_each(|input| target(input));
        let mut inputs = pinned();
        assert!(inputs.len() > 20, "the pinned messages were not found");
        inputs.extend(kept);
        inputs.iter().for_each(|input| target(input));
        let mut numbers = Numbers(0x5eed);
        for _ in 0..if SLOW.contains(&name) { MUTATIONS_SLOW } else { MUTATIONS } {
            target(&mutated(&inputs, &mut numbers));
        }
    }
}
