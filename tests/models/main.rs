//! Random programs, run by the library and by plain models of its rules: both have to tell the same
//! story.
//!
//! `STOLON_MODEL_SEED` and `STOLON_MODEL_PROGRAMS` choose other programs than usual, or more.

mod greenlet;
mod greenpool;
#[path = "../util/mod.rs"]
mod util;
mod vocabulary;

use std::env;

use quickcheck::{Gen, QuickCheck};

const SEED: u64 = 1;
const PROGRAMS: u64 = 10_000;
/// In an emulator, of what is built on greenlets and knows nothing of the machine.
const EMULATED_PROGRAMS: u64 = 2_000;

/// What checks as many programs as it is asked for, of up to `size`, and the seed of the first.
/// `emulated` is how many it is by default in an emulator.
fn quickcheck(size: usize, emulated: u64) -> (QuickCheck, u64) {
    let number_from = |variable: &str, default| {
        env::var(variable).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number_from("STOLON_MODEL_SEED", SEED);
    let default = if util::server::is_emulated() { emulated } else { PROGRAMS };
    let programs = number_from("STOLON_MODEL_PROGRAMS", default);
    // Shown if the test fails.
    println!("STOLON_MODEL_SEED={seed} STOLON_MODEL_PROGRAMS={programs}");
    let random = Gen::from_size_and_seed(size, seed);
    (QuickCheck::new().rng(random).tests(programs).max_tests(programs), seed)
}
