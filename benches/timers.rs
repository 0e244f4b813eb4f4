//! What a timer costs beside many that are pending: inserted and cancelled, inserted and fired.

use std::collections::VecDeque;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use stolon::clock::{Deadline, Time};
use stolon::timers::Timers;

/// As large as a boxed closure.
type Payload = (usize, usize);

const PENDING: [u64; 3] = [1_000, 100_000, 1_000_000];
/// How many are inserted before the first of them is cancelled or fires.
const IN_FLIGHT: u64 = 1_000;
const FAR_NS: u64 = 1 << 60;

fn at(ns: u64) -> Deadline {
    Deadline::at(Time::from_ns(ns))
}

/// Numbers without a pattern, the same ones each time (xorshift).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Timers that are far in the future, in no order.
fn far_timers(count: u64) -> Timers<Payload> {
    let mut timers = Timers::new();
    let mut state = 0x9E37_79B9_7F4A_7C15;
    for _ in 0..count {
        timers.insert(at(FAR_NS + random(&mut state) % FAR_NS), (1, 2));
    }
    timers
}

/// A request with a timeout: the timer goes before its time, in order of arrival.
fn insert_and_cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers/insert_and_cancel");
    for count in PENDING {
        let mut timers = far_timers(count);
        let mut now_ns = 2 * FAR_NS;
        let mut in_flight: VecDeque<_> =
            (0..IN_FLIGHT).map(|i| timers.insert(at(now_ns + i), (1, 2))).collect();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                now_ns += 1_000;
                in_flight.push_back(timers.insert(at(now_ns), (1, 2)));
                let oldest = in_flight.pop_front().expect("the queue never runs dry");
                black_box(timers.cancel(oldest))
            });
        });
    }
}

/// A short sleep: the timer is the next one that is due but a thousand.
fn insert_and_fire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers/insert_and_fire");
    for count in PENDING {
        let mut timers = far_timers(count);
        let mut now_ns = 0;
        for i in 0..IN_FLIGHT {
            timers.insert(at(i), (1, 2));
        }
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                now_ns += 1;
                timers.insert(at(now_ns + IN_FLIGHT), (1, 2));
                black_box(timers.pop_due(Time::from_ns(now_ns + IN_FLIGHT)))
            });
        });
    }
}

/// As many sleeps as there are timers, all of random length: the earliest fires, and a new one
/// takes its place.
fn fire_in_random_order(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers/fire_in_random_order");
    for count in PENDING {
        let mut timers = far_timers(count);
        let mut state = 0x2545_F491_4F6C_DD1D;
        let (mut now_ns, step_ns) = (FAR_NS, FAR_NS / count);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                now_ns += step_ns;
                timers.insert(at(now_ns + random(&mut state) % FAR_NS), (1, 2));
                black_box(timers.pop_due(Time::from_ns(u64::MAX)))
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    insert_and_cancel(&mut criterion);
    insert_and_fire(&mut criterion);
    fire_in_random_order(&mut criterion);
    criterion.final_summary();
}
