//! Items: how many are made, who gets them, what becomes of those that are too many.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::pools::{Item, Pool, PoolBuilder, TokenPool};
use stolon::{hub, sleep, spawn, spawn_n};

use super::{MS, NOW, panics};
use crate::util::leak::{guarded, simulated};

/// A pool of numbers, 0 for the first that is made, and how many were made.
fn numbers(max_size: usize) -> (Pool<usize>, Rc<Cell<usize>>) {
    let made = Rc::new(Cell::new(0));
    let count = Rc::clone(&made);
    let pool = Pool::new(max_size, move || {
        sleep(NOW);
        count.set(count.get() + 1);
        count.get() - 1
    });
    (pool, made)
}

#[test]
fn items_are_made_on_demand_and_lent_again_oldest_first() {
    guarded(|| {
        let (pool, made) = numbers(3);
        assert_eq!((made.get(), pool.free()), (0, 3));
        let [one, two] = [pool.get(), pool.get()];
        assert_eq!((*one, *two, made.get(), pool.free()), (0, 1, 2, 1));
        drop((two, one));
        assert_eq!((*pool.get(), made.get(), pool.free()), (1, 2, 2));
        assert_eq!(*pool.get(), 0);
    });
}

#[test]
fn as_a_stack_the_newest_is_lent_first_and_the_least_is_made_at_once() {
    guarded(|| {
        let made = Rc::new(Cell::new(0));
        let count = Rc::clone(&made);
        let builder = PoolBuilder::new().min_size(2).max_size(3).order_as_stack(true);
        let pool = builder.build(move || count.replace(count.get() + 1));
        assert_eq!((made.get(), pool.free()), (2, 3));
        let [one, two] = [pool.get(), pool.get()];
        let last = *two;
        drop((one, two));
        assert_eq!((*pool.get(), made.get()), (last, 2));
        assert!(panics(|| PoolBuilder::new().min_size(2).max_size(1).build(|| ())));
    });
}

// PO-02
#[test]
fn many_at_once_and_a_creator_that_yields_make_as_many_as_there_may_be() {
    guarded(|| {
        let (pool, made) = numbers(4);
        let inside = Rc::new(Cell::new(0));
        let all: Vec<_> = (0..100)
            .map(|_| {
                let (pool, inside) = (pool.clone(), Rc::clone(&inside));
                spawn(move || {
                    let _item = pool.get();
                    inside.set(inside.get() + 1);
                    assert!(inside.get() <= 4);
                    sleep(NOW);
                    inside.set(inside.get() - 1);
                })
            })
            .collect();
        all.iter().for_each(|green| green.wait());
        assert_eq!((made.get(), pool.free(), pool.waiting()), (4, 4, 0));
    });
}

// PO-03
#[test]
fn who_waits_first_gets_what_comes_back_first_and_nobody_overtakes() {
    guarded(|| {
        let (pool, _) = numbers(2);
        let [one, two] = [pool.get(), pool.get()];
        let got = Rc::new(RefCell::new(Vec::new()));
        for name in ["first", "second"] {
            let (pool, got) = (pool.clone(), Rc::clone(&got));
            spawn_n(move || {
                let item = pool.get();
                got.borrow_mut().push((name, *item));
                sleep(NOW);
            });
        }
        sleep(NOW);
        assert_eq!(pool.waiting(), 2);
        drop(two);
        assert!(pool.try_get().is_none(), "it is the first one's already");
        drop(one);
        sleep(NOW);
        assert_eq!(*got.borrow(), [("first", 1), ("second", 0)]);
    });
}

#[test]
fn one_that_is_killed_or_gives_up_leaves_its_item_to_the_next() {
    guarded(|| {
        let (pool, made) = numbers(1);
        let item = pool.get();
        assert!(pool.get_timeout(MS).is_none());
        assert_eq!(pool.waiting(), 0);
        let get = || {
            let pool = pool.clone();
            spawn(move || *pool.get())
        };
        let [waiting, granted, last] = [get(), get(), get()];
        sleep(NOW);
        waiting.kill();
        assert_eq!(pool.waiting(), 2);
        drop(item);
        assert_eq!(pool.waiting(), 1, "granted, and not run yet");
        granted.kill();
        assert_eq!((last.wait(), made.get(), pool.free()), (0, 1, 1));
    });
}

// PO-04
#[test]
fn a_creator_that_panics_leaves_the_pool_as_it_was_and_the_next_may_try() {
    guarded(|| {
        let fails = Rc::new(Cell::new(true));
        let failing = Rc::clone(&fails);
        let pool = Pool::new(1, move || {
            sleep(NOW);
            assert!(!failing.get(), "a creator");
        });
        let waits = pool.clone();
        let tries = fails.clone();
        let waiter = spawn(move || {
            sleep(NOW);
            tries.set(false);
            drop(waits.get());
        });
        assert!(panics(|| pool.get()));
        waiter.wait();
        assert_eq!((pool.free(), pool.waiting()), (1, 0));
    });
}

// PO-05
#[test]
fn a_pool_that_shrinks_drops_what_is_too_many() {
    guarded(|| {
        struct Counted(Rc<Cell<i32>>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let alive = Rc::new(Cell::new(0));
        let count = Rc::clone(&alive);
        let pool = Pool::new(4, move || {
            count.set(count.get() + 1);
            Counted(Rc::clone(&count))
        });
        let mut lent: Vec<_> = (0..4).map(|_| pool.get()).collect();
        lent.pop();
        pool.resize(2);
        assert_eq!((alive.get(), pool.free()), (3, -1), "the free one was dropped at once");
        lent.pop();
        assert_eq!((alive.get(), pool.free()), (2, 0));
        drop(lent);
        assert_eq!((alive.get(), pool.free()), (2, 2));
        pool.resize(0);
        assert_eq!((alive.get(), pool.free()), (0, 0));
    });
}

#[test]
fn a_pool_that_grows_lets_those_who_wait_make_items() {
    guarded(|| {
        let (pool, made) = numbers(1);
        let _item = pool.get();
        let all: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || *pool.get())
            })
            .collect();
        sleep(NOW);
        pool.resize(3);
        assert_eq!(pool.waiting(), 1);
        all.iter().for_each(|green| assert!(green.wait() > 0));
        assert_eq!((made.get(), pool.free()), (3, 2));
    });
}

#[test]
fn an_item_that_is_detached_is_replaced() {
    guarded(|| {
        let (pool, made) = numbers(1);
        let item = pool.get();
        let waiter = spawn({
            let pool = pool.clone();
            move || *pool.get()
        });
        sleep(NOW);
        assert_eq!(Item::detach(item), 0);
        assert_eq!((waiter.wait(), made.get(), pool.free()), (1, 2, 1));
    });
}

#[test]
fn items_can_be_had_and_given_back_while_unwinding() {
    guarded(|| {
        struct Uses(Pool<usize>);
        impl Drop for Uses {
            fn drop(&mut self) {
                assert_eq!(*self.0.get(), 0);
            }
        }
        let (pool, _) = numbers(1);
        let lends = pool.clone();
        spawn_n(move || {
            let _item = lends.get();
            sleep(MS);
        });
        sleep(NOW);
        let uses = Uses(pool.clone());
        assert!(panics(move || {
            let _uses = uses;
            panic!("unwinds");
        }));
        assert_eq!(pool.free(), 1);
    });
}

#[test]
fn tokens_are_as_many_as_there_are() {
    guarded(|| {
        let tokens = TokenPool::tokens(2);
        let held = [tokens.get(), tokens.get()];
        assert!(tokens.try_get().is_none());
        drop(held);
        assert_eq!(tokens.free(), 2);
    });
}

#[test]
fn many_who_give_up_at_once_do_not_hold_up_who_gives_back() {
    const MANY: usize = 6000;
    simulated(|| {
        let pool = Pool::new(MANY, || ());
        let items: Vec<_> = (0..MANY).map(|_| pool.get()).collect();
        let waiters: Vec<_> = (0..MANY)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || pool.get_timeout(MS).is_some())
            })
            .collect();
        sleep(NOW);
        // In the pass in which the time of all is over, and before any of them runs.
        let (took, gives) = (Rc::new(Cell::new(None)), pool.clone());
        let takes = Rc::clone(&took);
        hub::schedule_call_global(MS, move || {
            assert_eq!(gives.waiting(), MANY);
            let start = Instant::now();
            drop(items);
            takes.set(Some(start.elapsed()));
        });
        assert_eq!(waiters.iter().filter(|waiter| waiter.wait()).count(), 0);
        // To look at all of them for each would take 10 s, and without debug assertions 1 s.
        assert!(took.get().unwrap() < Duration::from_millis(500), "{took:?}");
        assert_eq!((pool.waiting(), pool.free()), (0, MANY as isize));
    });
}
