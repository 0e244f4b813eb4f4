//! Pools of green threads: how many run at once, who gets a slot, what is left when things end badly.

mod agent;
mod imap;
mod members;
mod piles;
mod slots;

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::{GreenPool, sleep};

use crate::util::leak::guarded;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Counts how many are inside at once, and the most that ever were.
#[derive(Clone, Default)]
struct Gauge(Rc<(Cell<usize>, Cell<usize>)>);

struct Inside(Gauge);

impl Gauge {
    fn enter(&self) -> Inside {
        let (inside, most) = &*self.0;
        inside.set(inside.get() + 1);
        most.set(most.get().max(inside.get()));
        Inside(self.clone())
    }

    fn most(&self) -> usize {
        self.0.1.get()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let inside = &self.0.0.0;
        inside.set(inside.get() - 1);
    }
}

/// Something that greenlets wait for: that it is opened.
#[derive(Clone, Default)]
struct Gate(Rc<Cell<bool>>);

impl Gate {
    fn pass(&self) {
        while !self.0.get() {
            sleep(MS);
        }
    }

    fn open(&self) {
        self.0.set(true);
    }
}

/// The processor time that this thread has used.
fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

fn state(pool: &GreenPool) -> (usize, isize, usize) {
    (pool.running(), pool.free(), pool.waiting())
}

#[test]
fn ten_thousand_go_through_a_pool_in_a_moment() {
    guarded(|| {
        let (pool, count) = (GreenPool::new(100), Rc::new(Cell::new(0)));
        let start = Instant::now();
        for _ in 0..10_000 {
            let count = Rc::clone(&count);
            pool.spawn_n(move || count.set(count.get() + 1));
        }
        pool.waitall().unwrap();
        assert_eq!(count.get(), 10_000);
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}
