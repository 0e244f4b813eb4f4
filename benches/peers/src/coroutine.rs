//! Contenders made of coroutines: of anything that is resumed with a word and suspends with one.

use std::collections::VecDeque;
use std::hint::black_box;

use crate::bodies::{Body, shuffle};
use crate::figure::{Figure, Ours};
use crate::measure::{Contender, time};
use crate::slab::Slot;

/// A coroutine of some peer, or of stolon.
pub trait Coroutine: Sized + 'static {
    /// What it needs to be made, and leaves behind.
    type Stack: 'static;

    /// A stack as the peer makes it.
    fn stack() -> Result<Self::Stack, String>;

    /// A stack of somebody else's.
    fn stack_from(slot: Slot) -> Result<Self::Stack, String>;

    /// How many are made with stacks of their own.
    const OWN_STACKS: usize;

    fn new(stack: Self::Stack, body: Body) -> Self;

    fn resume(&mut self, value: usize) -> usize;
}

/// Coroutines that end.
pub trait Ending: Coroutine {
    /// One that was made and not resumed yet, and ends when it is.
    type Empty: 'static;

    fn empty(stack: Self::Stack) -> Self::Empty;

    /// Resumes it, and returns its stack.
    fn run(empty: Self::Empty) -> Self::Stack;
}

/// The contender of coroutines `C` in a figure; or why there is none.
pub fn contender<C: Ending>(figure: Figure) -> Result<Contender, String> {
    let per_iteration = figure.per_iteration(Ours::Greenlet);
    match figure {
        Figure::Machine => echo::<C>(Body::Flat),
        Figure::Switch(depth) => echo::<C>(Body::at_depth(depth)),
        Figure::Ring { count, shuffled } => {
            Ok(ring(per_iteration, many::<C>(stacks::<C>(count)?, shuffled)))
        }
        Figure::SpawnJoin(count) => {
            let stacks: Result<_, _> = (0..count).map(|_| C::stack()).collect();
            Ok(spawn_join::<C>(per_iteration, stacks?))
        }
        Figure::Stagger(_) => Err(String::from("of the machine layer only")),
        Figure::HandOver | Figure::Rendezvous | Figure::Semaphore => {
            Err(String::from("no scheduler"))
        }
        Figure::Yield(_) | Figure::Pool(_) | Figure::ParkWake | Figure::Overshoot => {
            Err(String::from("no scheduler"))
        }
        Figure::TimerCancel { .. } | Figure::TimerFire(_) => Err(String::from("no timers")),
        Figure::Parked(_) | Figure::Echo(_) | Figure::TimerBytes(_) => {
            Err(String::from("measured in a process of its own"))
        }
    }
}

/// Coroutines that wait, one on each stack.
pub fn many<C: Coroutine>(stacks: Vec<C::Stack>, shuffled: bool) -> Vec<C> {
    let mut ring: Vec<C> = stacks.into_iter().map(|stack| C::new(stack, Body::Frame)).collect();
    if shuffled {
        shuffle(&mut ring);
    }
    ring
}

/// One that sends back what it gets.
pub fn echo<C: Coroutine>(body: Body) -> Result<Contender, String> {
    let mut coroutine = C::new(C::stack()?, body);
    let batch = move |iterations| {
        Ok(time(|| {
            let mut value = 0;
            for _ in 0..iterations {
                value = coroutine.resume(value);
            }
            black_box(value);
        }))
    };
    Ok(Contender::new(Figure::Machine.per_iteration(Ours::Machine), Box::new(batch)))
}

/// Many, resumed in turn.
pub fn ring<C: Coroutine>(per_iteration: usize, mut ring: Vec<C>) -> Contender {
    let batch = move |rounds| {
        Ok(time(|| {
            for round in 0..rounds {
                for coroutine in &mut ring {
                    black_box(coroutine.resume(round as usize));
                }
            }
        }))
    };
    Contender::new(per_iteration, Box::new(batch))
}

/// As many as there are stacks are made, then run, one after the other.
fn spawn_join<C: Ending>(per_iteration: usize, mut stacks: Vec<C::Stack>) -> Contender {
    let mut made = VecDeque::with_capacity(stacks.len());
    let batch = move |iterations| {
        Ok(time(|| {
            for _ in 0..iterations {
                made.extend(stacks.drain(..).map(C::empty));
                stacks.extend(made.drain(..).map(C::run));
            }
        }))
    };
    Contender::new(per_iteration, Box::new(batch))
}

fn stacks<C: Coroutine>(count: usize) -> Result<Vec<C::Stack>, String> {
    if count <= C::OWN_STACKS {
        (0..count).map(|_| C::stack()).collect()
    } else {
        Slot::many(count, 1)?.into_iter().map(C::stack_from).collect()
    }
}

/// Makes so many, each on a stack of its own, and leaves them suspended.
pub fn park<C: Coroutine>(count: usize) -> Result<(), String> {
    for made in 0..count {
        let stack = C::stack().map_err(|e| format!("after {made} stacks: {e}"))?;
        let mut coroutine = C::new(stack, Body::Frame);
        coroutine.resume(1);
        std::mem::forget(coroutine);
    }
    Ok(())
}
