//! `imap` and `starmap`: results in order, and no further ahead than the pool is large.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use stolon::{GreenPile, GreenPool, sleep, spawn, spawn_n};

use super::{Gate, Gauge, MS, NOW};
use crate::util::leak::guarded;

// GP-08, corner 22.
#[test]
fn an_item_that_fails_raises_at_its_place_and_the_rest_goes_on() {
    guarded(|| {
        let pool = GreenPool::new(3);
        let f = |n: u32| {
            assert!(n != 1 && n != 7, "item {n}");
            n
        };
        let mut results = pool.imap(f, 0..10);
        let mut seen = Vec::new();
        loop {
            match catch_unwind(AssertUnwindSafe(|| results.next())) {
                Ok(Some(n)) => seen.push(n.to_string()),
                Ok(None) => break,
                Err(_) => seen.push(String::from("err")),
            }
        }
        assert_eq!(seen.join(" "), "0 err 2 3 4 5 6 err 8 9");
        assert!(results.next().is_none());
        let failed: Vec<_> = pool.imap(f, 0..10).results().map(|result| result.is_err()).collect();
        assert_eq!(failed.iter().filter(|failed| **failed).count(), 2);
        assert!(failed[1] && failed[7]);
    });
}

// GP-09
#[test]
fn results_come_in_order_and_items_are_taken_no_further_than_the_pool_is_large() {
    guarded(|| {
        let (pool, gauge) = (GreenPool::new(50), Gauge::default());
        let taken = Rc::new(Cell::new(0));
        let items = (0..1000usize).inspect({
            let taken = Rc::clone(&taken);
            move |_| taken.set(taken.get() + 1)
        });
        let entered = gauge.clone();
        let results = pool.imap(
            move |n| {
                let _inside = entered.enter();
                for _ in 0..(n * 7919) % 5 {
                    sleep(NOW);
                }
                n
            },
            items,
        );
        assert_eq!(taken.get(), 0, "nothing is done before a result is asked for");
        for (expected, n) in results.enumerate() {
            assert_eq!(n, expected);
            assert!(taken.get() <= n + 50, "{} taken at {n}", taken.get());
        }
        assert_eq!(taken.get(), 1000);
        assert!((25..=50).contains(&gauge.most()), "{} at once", gauge.most());
    });
}

#[test]
fn a_result_that_is_there_waits_for_no_more_than_one_of_slow_items() {
    guarded(|| {
        let (pool, taken) = (GreenPool::new(10), Rc::new(Cell::new(0)));
        let takes = Rc::clone(&taken);
        let items = (0..10).inspect(move |_| {
            takes.set(takes.get() + 1);
            sleep(MS);
        });
        let mut results = pool.imap(|n| n, items);
        for expected in 0..10 {
            assert_eq!(results.next(), Some(expected));
            assert!(taken.get() <= expected + 2, "{} taken at {expected}", taken.get());
        }
    });
}

// GP-12
#[test]
fn of_nothing_there_is_nothing() {
    guarded(|| {
        let pool = GreenPool::new(2);
        assert_eq!(pool.imap(|n: u32| n, []).next(), None);
        let pile = GreenPile::<u32>::new(2);
        assert_eq!(pile.next(), None);
    });
}

// GP-16, with the better rule.
#[test]
fn what_imap_runs_counts_in_its_pool() {
    guarded(|| {
        let (pool, gauge) = (GreenPool::new(3), Gauge::default());
        let (gate, entered) = (Gate::default(), gauge.clone());
        for _ in 0..2 {
            let (gate, inside) = (gate.clone(), gauge.clone());
            pool.spawn_n(move || {
                let _inside = inside.enter();
                gate.pass();
            });
        }
        let running = pool.clone();
        let results = pool.imap(
            move |n: usize| {
                let _inside = entered.enter();
                sleep(NOW);
                (n, running.running())
            },
            0..20,
        );
        for (expected, (n, running)) in results.enumerate() {
            assert_eq!((n, running), (expected, 3));
        }
        assert_eq!(gauge.most(), 3);
        gate.open();
        pool.waitall().unwrap();
    });
}

#[test]
fn imap_in_a_pool_that_others_have_filled_goes_on_when_it_gets_a_slot() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(1), Gate::default());
        let passes = gate.clone();
        pool.spawn_n(move || passes.pass());
        let opens = gate.clone();
        spawn_n(move || opens.open());
        assert_eq!(pool.imap(|n: u32| n * n, 0..4).collect::<Vec<_>>(), [0, 1, 4, 9]);
        let inner = pool.clone();
        let nested = pool.spawn(move || inner.imap(|n: u32| n + 1, 0..4).sum::<u32>());
        assert_eq!(nested.wait(), 10, "a member of the full pool runs it in its place");
    });
}

#[test]
fn a_panic_of_the_items_is_raised_at_its_place_and_ends_them() {
    guarded(|| {
        let pool = GreenPool::new(5);
        let items = (0..10).inspect(|n| assert!(*n != 3, "an item"));
        let mut results = pool.imap(|n| n, items).results();
        for expected in 0..3 {
            assert_eq!(results.next().unwrap().unwrap(), expected);
        }
        assert!(results.next().unwrap().is_err());
        assert!(results.next().is_none());
    });
}

#[test]
fn who_is_killed_while_it_waits_for_a_result_takes_none() {
    guarded(|| {
        let pool = GreenPool::new(2);
        let results = Rc::new(RefCell::new(pool.imap(
            |n: u64| {
                sleep(2 * MS);
                n
            },
            0..4,
        )));
        let shared = Rc::clone(&results);
        let killed = spawn(move || shared.borrow_mut().next());
        sleep(NOW);
        killed.kill();
        let rest: Vec<_> = results.borrow_mut().by_ref().collect();
        assert_eq!(rest, [0, 1, 2, 3]);
    });
}

#[test]
fn dropped_half_way_what_is_under_way_runs_on() {
    guarded(|| {
        let (pool, ended) = (GreenPool::new(4), Rc::new(Cell::new(0)));
        let ends = Rc::clone(&ended);
        let f = move |n: u32| {
            sleep(n * MS);
            ends.set(ends.get() + 1);
        };
        let mut results = pool.imap(f, 0..100);
        results.next();
        drop(results);
        pool.waitall().unwrap();
        assert_eq!(ended.get(), 4);
    });
}

#[test]
fn starmap_spreads_tuples() {
    guarded(|| {
        let pool = GreenPool::new(2);
        let three = pool.starmap(|a: u8, b: char, c: &str| format!("{a}{b}{c}"), [(1, 'x', "y")]);
        assert_eq!(three.collect::<Vec<_>>(), ["1xy"]);
        assert_eq!(pool.starmap(|a: u8| a + 1, [(1,), (2,)]).collect::<Vec<_>>(), [2, 3]);
    });
}

#[test]
fn who_gives_up_waiting_for_a_slot_loses_no_item_of_an_imap() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(1), Gate::default());
        let passes = gate.clone();
        pool.spawn_n(move || passes.pass());
        let results = Rc::new(RefCell::new(pool.imap(|n: u32| n, 0..4)));
        let next = || results.borrow_mut().next();
        assert!(stolon::timeout::with_timeout(MS, next).is_err());
        let shared = Rc::clone(&results);
        let killed = spawn(move || shared.borrow_mut().next());
        sleep(NOW);
        killed.kill();
        gate.open();
        let rest: Vec<_> = results.borrow_mut().by_ref().collect();
        assert_eq!(rest, [0, 1, 2, 3]);
    });
}
