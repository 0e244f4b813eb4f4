//! Random programs of green threads that share a queue, a semaphore, an event or a pool. What happens, in the
//! order in which it does, is held against a plain model: may each of them get what it got, when it
//! did, and does nobody wait in the end who need not? A seed decides whose turn it is, in a quarter of
//! the programs; in the others they take turns as on a real hub.

mod event;
mod pool;
mod queue;
mod run;
mod semaphore;

use std::fmt::Debug;
use std::marker::PhantomData;
use std::rc::Rc;

use quickcheck::{Arbitrary, Gen, TestResult, Testable};
use run::{Model, Program, Subject};
use stolon::hub;

/// What a seed stands for.
type Make<M> = fn(u64) -> (Rc<dyn Subject<M>>, M);

/// Runs each program on a simulated hub, with a subject and a model that are made for its seed.
fn check<M: Model>(make: Make<M>) {
    let (mut check, seed) = crate::quickcheck(60, crate::EMULATED_PROGRAMS);
    let agrees = move |program: Program<M::Call>| {
        let run = || {
            let (subject, model) = make(program.seed);
            run::run(subject, model, &program)
        };
        let verdict =
            if program.is_in_order() { run() } else { hub::simulated(program.seed).run(run) };
        match verdict {
            Ok(()) => TestResult::passed(),
            Err(report) => TestResult::error(report),
        }
    };
    // Quickcheck wants a function or something that looks like one.
    struct Agrees<F>(F);
    impl<P, F> Testable for Agrees<(F, PhantomData<P>)>
    where
        P: Arbitrary + Debug,
        F: Fn(P) -> TestResult + 'static,
    {
        fn result(&self, random: &mut Gen) -> TestResult {
            let program = P::arbitrary(random);
            let failed = self.0.0(program.clone());
            if failed.is_failure() { shrunk(&self.0.0, program, failed) } else { failed }
        }
    }
    // One hub for all that run in order: to make one takes longer than most programs.
    hub::simulated(seed).in_order().run(|| check.quickcheck(Agrees((agrees, PhantomData))));
}

/// The result of the smallest program that fails, as far as can be found, with the program.
fn shrunk<P: Arbitrary + Debug>(
    agrees: &impl Fn(P) -> TestResult,
    program: P,
    failed: TestResult,
) -> TestResult {
    let fails = |smaller: P| {
        let result = agrees(smaller.clone());
        result.is_failure().then_some((smaller, result))
    };
    match program.shrink().find_map(fails) {
        Some((smaller, failed)) => shrunk(agrees, smaller, failed),
        None => TestResult::error(format!("{program:?}\n{failed:?}")),
    }
}

#[test]
fn random_programs_of_queues_do_what_the_model_says() {
    check(queue::make);
}

#[test]
fn random_programs_of_semaphores_do_what_the_model_says() {
    check(semaphore::make);
}

#[test]
fn random_programs_of_events_do_what_the_model_says() {
    check(event::make);
}

#[test]
fn random_programs_of_pools_of_items_do_what_the_model_says() {
    check(pool::make);
}
