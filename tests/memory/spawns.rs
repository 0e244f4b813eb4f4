//! What greenlets take from the heap: nothing, once as many have been alive before; and what they give
//! back.

use std::cell::Cell;
use std::time::Duration;

use stolon::corolocal::Local;
use stolon::greenlet::Greenlet;
use stolon::{GreenThread, sleep, spawn, spawn_n};

use crate::util::leak::guarded;
use crate::{allocations, taken_since};

/// How many allocations `f` makes the second time.
fn allocations_when_warm(f: impl Fn()) -> usize {
    f();
    allocations(f)
}

#[test]
fn spawning_and_joining_one_takes_nothing() {
    guarded(|| {
        assert_eq!(allocations_when_warm(|| spawn(|| ()).join().unwrap()), 0);
    });
}

#[test]
fn small_closures_and_results_take_nothing() {
    guarded(|| {
        let run = || {
            let big = [7u64; 100];
            assert_eq!(spawn(move || (big[3], big[99])).join().unwrap(), (7, 7));
        };
        assert_eq!(allocations_when_warm(run), 0);
    });
}

#[test]
fn many_at_once_take_nothing() {
    guarded(|| {
        let threads = std::cell::RefCell::new(Vec::<GreenThread<usize>>::with_capacity(500));
        let run = || {
            let mut threads = threads.borrow_mut();
            threads.extend((0..500).map(|n| {
                spawn(move || {
                    sleep(Duration::ZERO);
                    n
                })
            }));
            for (n, thread) in threads.drain(..).enumerate() {
                assert_eq!(thread.join().unwrap(), n);
            }
        };
        assert_eq!(allocations_when_warm(run), 0);
    });
}

#[test]
fn detached_ones_take_nothing() {
    guarded(|| {
        let run = || {
            spawn_n(|| sleep(Duration::ZERO));
            drop(spawn(|| 1));
            (0..4).for_each(|_| sleep(Duration::ZERO));
        };
        assert_eq!(allocations_when_warm(run), 0);
    });
}

#[test]
fn a_large_result_is_the_only_thing_that_takes_something() {
    guarded(|| {
        let run = || {
            assert_eq!(spawn(|| [1u8; 1000]).join().unwrap()[999], 1);
        };
        assert_eq!(allocations_when_warm(run), 1);
    });
}

#[test]
fn plain_greenlets_take_nothing() {
    guarded(|| {
        let run = || {
            let echo = Greenlet::new(|n: usize| n + 1);
            assert_eq!(echo.switch(1).unwrap(), 2);
        };
        assert_eq!(allocations_when_warm(run), 0);
    });
}

#[test]
fn control_blocks_use_places_again_and_give_them_back() {
    guarded(|| {
        let make = |count| (0..count).map(|_| Greenlet::new(|n: usize| n));
        let taken = taken_since();
        let mut greenlets = Vec::with_capacity(10_000);
        greenlets.extend(make(10_000));
        let by_all = taken();
        // Gaps everywhere, and others for them.
        let mut number = 0;
        greenlets.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        greenlets.extend(make(5000));
        assert!(taken() < by_all + by_all / 20, "{} after {by_all}", taken());
        drop(greenlets);
        // About 1000 are kept, with what lies beside them, and the list of all is.
        assert!(taken() < by_all / 2, "{} after {by_all}", taken());
    });
}

#[test]
fn locals_that_are_gone_leave_no_entries_in_a_greenlet_that_lives_on() {
    guarded(|| {
        let one = || {
            let local = Local::new(|| Cell::new(1));
            assert_eq!(local.get(), 1);
        };
        let each = allocations_when_warm(one);
        let all = allocations_when_warm(|| (0..1000).for_each(|_| one()));
        assert_eq!(all, 1000 * each, "and the list of entries has not grown");
    });
}
