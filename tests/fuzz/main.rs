//! Runs one fuzz target under libFuzzer: the one that `PDS_FUZZ_TARGET` names.
#![no_main]

#[path = "../src/fuzz.rs"]
mod fuzz;

use std::sync::LazyLock;

use fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("PDS_FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, target)) => *target,
        None => panic!("PDS_FUZZ_TARGET must be one of {:?}", TARGETS.map(|(name, _)| name)),
    }
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));
