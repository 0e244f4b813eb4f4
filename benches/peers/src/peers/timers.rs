//! stolon's timers by themselves, as its hub has them.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use stolon::clock::{Clock, Deadline};
use stolon::timers::Timers;

use super::Made;
use crate::figure::{Figure, Ours};
use crate::measure::{Batch, Contender, time};
use crate::timer::{IN_FLIGHT, NAP, STEP, far, timeout};

/// As the hub's: what is to be woken, or to be called.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "it has a size, and is nothing else")]
enum Due {
    Wait { place: u32, turn: u32 },
    Call(u32),
}

const DUE: Due = Due::Wait { place: 1, turn: 2 };

fn pending(count: usize, clock: &Clock) -> Timers<Due> {
    let (mut timers, now) = (Timers::new(), clock.now());
    for after in far().take(count) {
        timers.insert(Deadline::after(now, after), DUE);
    }
    timers
}

pub fn contender(figure: Figure) -> Made {
    let batch: Batch = match figure {
        Figure::TimerCancel { count, early } => insert_cancel(count, early),
        Figure::TimerFire(count) => insert_fire(count),
        _ => return Err(String::from("timers only")),
    };
    Ok(Contender::new(figure.per_iteration(Ours::Timers), batch))
}

fn insert_cancel(count: usize, early: bool) -> Batch {
    let clock = Clock::monotonic();
    let mut timers = pending(count, &clock);
    let start = clock.now();
    let mut passed = Duration::ZERO;
    let mut next = move || {
        passed += STEP;
        Deadline::after(start, timeout(early) + passed)
    };
    let mut in_flight: VecDeque<_> = (0..IN_FLIGHT).map(|_| timers.insert(next(), DUE)).collect();
    Box::new(move |iterations| {
        Ok(time(|| {
            for _ in 0..iterations {
                in_flight.push_back(timers.insert(next(), DUE));
                let oldest = in_flight.pop_front().expect("the queue never runs dry");
                black_box(timers.cancel(oldest));
            }
        }))
    })
}

/// The clock goes on by a thousandth of a nap with each, so that the one that was set first fires.
fn insert_fire(count: usize) -> Batch {
    let clock = Clock::monotonic();
    let mut timers = pending(count, &clock);
    let simulated = Clock::simulated();
    simulated.advance_to(clock.now());
    let tick = move |timers: &mut Timers<Due>| {
        let now = simulated.now();
        timers.insert(Deadline::after(now, NAP), DUE);
        let later = Deadline::after(now, STEP).moment().expect("soon");
        simulated.advance_to(later);
        later
    };
    for _ in 0..IN_FLIGHT - 1 {
        tick(&mut timers);
    }
    Box::new(move |iterations| {
        Ok(time(|| {
            for _ in 0..iterations {
                let now = tick(&mut timers);
                timers.begin_pass();
                assert!(black_box(timers.pop_due(now)).is_some(), "one is due");
                timers.end_pass();
            }
        }))
    })
}

/// Sets so many, and leaves them so.
pub fn park(count: usize) -> Result<(), String> {
    std::mem::forget(pending(count, &Clock::monotonic()));
    Ok(())
}

/// How long a batch of fires is at least worth while: that of all who sleep.
pub fn laps(iterations: u64) -> u64 {
    iterations.div_ceil(IN_FLIGHT as u64).max(2)
}

/// Scales what so many laps of all who sleep took to `iterations`.
pub fn per_lap(took: Duration, iterations: u64) -> Duration {
    let fired = laps(iterations) as f64 * IN_FLIGHT as f64;
    took.mul_f64(iterations as f64 / fired)
}
