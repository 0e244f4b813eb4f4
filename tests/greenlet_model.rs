//! Random programs of greenlets, run by the library and by a plain model of its rules: both have to
//! tell the same story.
//!
//! `STOLON_MODEL_SEED` and `STOLON_MODEL_PROGRAMS` choose other programs than usual, or more.

#[path = "greenlet_model/model.rs"]
mod model;
#[path = "greenlet_model/program.rs"]
mod program;
#[path = "greenlet_model/real.rs"]
mod real;

use std::any::Any;
use std::cell::Cell;
use std::env;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use program::{Program, Script};
use quickcheck::{Gen, QuickCheck, TestResult};

const SEED: u64 = 1;
const PROGRAMS: u64 = 10_000;

thread_local! {
    /// Whether a program runs, whose panics are its own business.
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

fn agrees(program: Program) -> TestResult {
    let expected = model::run(&Script::new(&program));
    let is_traced = program.0.len() % 2 == 0;
    RUNS.set(true);
    let happened = catch_unwind(AssertUnwindSafe(|| real::run(Script::new(&program), is_traced)));
    RUNS.set(false);
    let happened = match happened {
        Ok(happened) => happened,
        Err(payload) => return TestResult::error(text_of(&*payload)),
    };
    let same = iter::zip(&expected, &happened).take_while(|(one, other)| one == other).count();
    if same == expected.len() && same == happened.len() {
        return TestResult::passed();
    }
    let mut report = String::from("the story is");
    for event in &expected[..same] {
        report += &format!("\n  {event:?}");
    }
    let [next, came] = [&expected, &happened].map(|log| log.get(same));
    TestResult::error(format!("{report}\nthen by the model {next:?}\nand in fact      {came:?}"))
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref().copied().unwrap_or("a panic without a text"),
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_programs_do_what_the_model_says() {
    let seed = number_from("STOLON_MODEL_SEED", SEED);
    let programs = number_from("STOLON_MODEL_PROGRAMS", PROGRAMS);
    // Shown if the test fails.
    println!("STOLON_MODEL_SEED={seed} STOLON_MODEL_PROGRAMS={programs}");
    let report = take_hook();
    set_hook(Box::new(move |info| {
        if !RUNS.get() {
            report(info);
        }
    }));
    let random = Gen::from_size_and_seed(usize::from(u8::MAX), seed);
    let mut check = QuickCheck::new().rng(random).tests(programs).max_tests(programs);
    check.quickcheck(agrees as fn(Program) -> TestResult);
}
