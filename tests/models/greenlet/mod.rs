//! Programs of greenlets that are made, switched to, thrown into, moved, killed and dropped.

mod model;
mod program;
mod real;

use std::any::Any;
use std::cell::Cell;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use program::{Program, Script};
use quickcheck::TestResult;

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

#[test]
fn random_programs_do_what_the_model_says() {
    let report = take_hook();
    set_hook(Box::new(move |info| {
        if !RUNS.get() {
            report(info);
        }
    }));
    let (mut check, _) = crate::quickcheck(usize::from(u8::MAX), crate::PROGRAMS);
    check.quickcheck(agrees as fn(Program) -> TestResult);
}
