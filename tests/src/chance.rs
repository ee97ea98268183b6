//! Chance that comes out the same each time, so that what it found once can be found again.

/// The variable that starts all chance elsewhere: any number.
const SEED: &str = "PDS_TEST_SEED";
/// The variable that makes tests of faults try this many times as often.
const FACTOR: &str = "PDS_TEST_FACTOR";

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => otherwise,
    }
}

/// How often a test of faults tries: `few` times, or as many times that as `PDS_TEST_FACTOR` says.
#[must_use]
pub fn tries(few: usize) -> usize {
    few * usize::try_from(number(FACTOR, 1)).expect("a factor that can be counted")
}

/// A row of random numbers (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The row that belongs to this name, and to `PDS_TEST_SEED`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let seed = number(SEED, 0);
        eprintln!("chance: {SEED}={seed}");
        Self(name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(257).wrapping_add(u64::from(byte))))
    }

    /// A row of its own for one of several that take from it at once.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.next_number())
    }

    fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to just below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a limit that fits");
        usize::try_from(self.next_number() % limit).expect("less than the limit")
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let numbers = std::iter::repeat_with(|| self.next_number().to_le_bytes());
        numbers.flatten().take(count).collect()
    }
}
