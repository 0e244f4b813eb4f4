//! One switch between two greenlets, a round trip, with the value in a register and through memory;
//! and at a depth of calls, where most greenlets really wait.
#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stolon::greenlet::{self, Greenlet};

/// A greenlet that sends each value it gets back, `depth` calls that are not inlined below its
/// body.
fn echo<T: 'static>(depth: usize) -> Greenlet<T> {
    #[inline(never)]
    fn below<T: 'static>(depth: usize, main: &Greenlet<T>, value: T) -> T {
        if depth == 0 {
            return main.switch(value).expect("main takes it");
        }
        // What is done with the result keeps this from becoming a jump.
        black_box(below(black_box(depth) - 1, main, value))
    }
    let main = greenlet::current::<T>();
    Greenlet::new(move |mut value: T| {
        loop {
            value = below(depth, &main, value);
        }
    })
}

fn switch(c: &mut Criterion) {
    let mut group = c.benchmark_group("switch/round_trip");
    // Two switches, one way each.
    group.throughput(Throughput::Elements(2));
    group.bench_function("word", |b| {
        let main = greenlet::current::<usize>();
        let flat = Greenlet::new(move |mut n: usize| {
            loop {
                n = main.switch(n + 1).expect("main takes it");
            }
        });
        let mut n = 0;
        b.iter(|| {
            n = flat.switch(n).expect("the greenlet never ends");
            n
        });
    });
    group.bench_function("32_bytes", |b| {
        let echo = echo::<[u64; 4]>(0);
        b.iter(|| echo.switch(black_box([1, 2, 3, 4])).expect("the greenlet never ends"));
    });
    for depth in [2, 8] {
        group.bench_function(format!("word_{depth}_calls_deep"), |b| {
            let echo = echo::<usize>(depth);
            b.iter(|| echo.switch(black_box(1)).expect("the greenlet never ends"));
        });
    }
    group.finish();

    c.bench_function("greenlet/make_run_end", |b| {
        b.iter(|| Greenlet::new(|n: usize| n + 1).switch(black_box(1)).expect("it returns"));
    });
}

criterion_group!(benches, switch);
criterion_main!(benches);
