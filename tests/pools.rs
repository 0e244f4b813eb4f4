//! Pools of items and of connections: how many are made, who gets them, what becomes of bad ones.

mod util;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::dagpool::DAGPool;
use stolon::pools::{
    ConnectionPool, ConnectionPoolBuilder, GetError, Item, Manager, Pool, PoolBuilder, TokenPool,
};
use stolon::{GreenPile, GreenPool, hub, sleep, spawn, spawn_n};
use util::leak::guarded;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

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

// Items.

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

// Connections.

/// What the connections of a test are told, and what they tell.
#[derive(Default)]
struct World {
    opened: Cell<u32>,
    closed: Cell<u32>,
    checked: Cell<u32>,
    cleaned: Cell<u32>,
    refuses: Cell<bool>,
    is_slow: Cell<bool>,
    breaks: Cell<bool>,
    cannot_clean: Cell<bool>,
    panics: Cell<bool>,
}

struct Wire(Rc<World>, u32);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.closed.set(self.0.closed.get() + 1);
        sleep(NOW);
    }
}

struct Wires(Rc<World>);

impl Manager for Wires {
    type Connection = Wire;
    type Error = String;

    fn connect(&self) -> Result<Wire, String> {
        sleep(if self.0.is_slow.get() { HOUR } else { NOW });
        if self.0.refuses.get() {
            return Err(String::from("refused"));
        }
        assert!(!self.0.panics.get(), "connect");
        self.0.opened.set(self.0.opened.get() + 1);
        Ok(Wire(Rc::clone(&self.0), self.0.opened.get()))
    }

    fn is_healthy(&self, _: &mut Wire) -> bool {
        sleep(NOW);
        self.0.checked.set(self.0.checked.get() + 1);
        !self.0.breaks.get()
    }

    fn clean(&self, _: &mut Wire) -> bool {
        sleep(NOW);
        assert!(!self.0.panics.get(), "clean");
        self.0.cleaned.set(self.0.cleaned.get() + 1);
        !self.0.cannot_clean.get()
    }
}

impl World {
    /// How many were opened, and closed.
    fn counts(&self) -> (u32, u32) {
        (self.opened.get(), self.closed.get())
    }
}

/// A pool of one that keeps its connection for ever, and what it does.
fn one_wire() -> (ConnectionPool<Wires>, Rc<World>) {
    let world = Rc::new(World::default());
    let builder = ConnectionPoolBuilder::new().max_size(1).max_idle(None).max_age(None);
    (builder.build(Wires(Rc::clone(&world))), world)
}

fn number_of(pool: &ConnectionPool<Wires>) -> u32 {
    pool.get().unwrap_or_else(|e| panic!("{e}")).1
}

#[test]
fn a_connection_is_cleaned_when_it_comes_back_and_checked_when_it_is_lent_again() {
    guarded(|| {
        let (pool, world) = one_wire();
        assert_eq!([number_of(&pool), number_of(&pool), number_of(&pool)], [1, 1, 1]);
        assert_eq!((world.counts(), world.cleaned.get(), world.checked.get()), ((1, 0), 3, 2));
        drop(pool);
        assert_eq!(world.counts(), (1, 1));
    });
}

#[test]
fn one_that_is_not_healthy_any_more_is_replaced() {
    guarded(|| {
        let (pool, world) = one_wire();
        assert_eq!(number_of(&pool), 1);
        world.breaks.set(true);
        assert_eq!((number_of(&pool), world.counts(), pool.free()), (2, (2, 1), 1));
    });
}

#[test]
fn one_that_cannot_be_cleaned_is_closed_and_who_waits_opens_another() {
    guarded(|| {
        let (pool, world) = one_wire();
        for panics in [false, true] {
            world.cannot_clean.set(true);
            let lent = pool.get().unwrap();
            let before = lent.1;
            let waiter = spawn({
                let (pool, world) = (pool.clone(), Rc::clone(&world));
                move || {
                    let number = number_of(&pool);
                    world.panics.set(false);
                    number
                }
            });
            sleep(NOW);
            assert_eq!(pool.waiting(), 1);
            if panics {
                world.panics.set(true);
                let calms = Rc::clone(&world);
                spawn_n(move || {
                    sleep(NOW);
                    calms.panics.set(false);
                });
            }
            drop(lent);
            assert_eq!((waiter.wait(), pool.free()), (before + 1, 1));
        }
    });
}

// DB-01
#[test]
fn db_01_who_waits_is_woken_by_an_old_connection_and_opens_a_new_one() {
    guarded(|| {
        let world = Rc::new(World::default());
        let builder = ConnectionPoolBuilder::new().max_size(1).max_age(MS);
        let pool = builder.build(Wires(Rc::clone(&world)));
        let lent = pool.get().unwrap();
        let waiter = spawn({
            let pool = pool.clone();
            move || pool.get().unwrap().1
        });
        sleep(2 * MS);
        assert_eq!(pool.waiting(), 1);
        drop(lent);
        assert_eq!(waiter.wait(), 2);
        assert_eq!(world.closed.get(), 1);
    });
}

// DB-02
#[test]
fn db_02_without_idle_time_or_age_each_is_closed_when_it_comes_back() {
    guarded(|| {
        let base = ConnectionPoolBuilder::new;
        for builder in [base().max_idle(NOW), base().max_age(NOW)] {
            let world = Rc::new(World::default());
            let pool = builder.build(Wires(Rc::clone(&world)));
            assert_eq!([number_of(&pool), number_of(&pool)], [1, 2]);
            assert_eq!((world.counts(), pool.free()), ((2, 2), 4));
        }
    });
}

// DB-03
#[test]
fn db_03_a_connection_that_is_discarded_or_not_opened_takes_no_room() {
    guarded(|| {
        let (pool, world) = one_wire();
        pool.get().unwrap().discard();
        assert_eq!((world.counts(), pool.free()), ((1, 1), 1));
        world.refuses.set(true);
        let refused = pool.get().err().unwrap();
        assert_eq!(refused.to_string(), "no connection could be opened: refused");
        assert_eq!(pool.free(), 1);
        world.refuses.set(false);
        world.panics.set(true);
        assert!(panics(|| pool.get()));
        world.panics.set(false);
        assert_eq!((number_of(&pool), pool.free()), (2, 1));
    });
}

#[test]
fn what_is_idle_for_too_long_is_closed_by_itself_and_what_is_used_is_not() {
    guarded(|| {
        let world = Rc::new(World::default());
        let builder = ConnectionPoolBuilder::new().max_idle(10 * MS).max_age(None);
        let pool = builder.build(Wires(Rc::clone(&world)));
        let [one, two] = [pool.get().unwrap(), pool.get().unwrap()];
        drop((one, two));
        let start = Instant::now();
        while start.elapsed() < 30 * MS {
            // The newest is lent again and again.
            drop(pool.get().unwrap());
            sleep(MS);
        }
        assert_eq!(world.counts(), (2, 1));
        sleep(30 * MS);
        assert_eq!((world.counts(), pool.free()), ((2, 2), 4));
    });
}

#[test]
fn opening_one_takes_no_longer_than_it_may_and_is_given_up() {
    guarded(|| {
        let world = Rc::new(World::default());
        world.is_slow.set(true);
        let builder = ConnectionPoolBuilder::new().max_size(1).connect_timeout(5 * MS);
        let pool = builder.build(Wires(Rc::clone(&world)));
        let start = Instant::now();
        assert!(matches!(pool.get(), Err(GetError::ConnectTimeout(limit)) if limit == 5 * MS));
        assert!(start.elapsed() >= 5 * MS);
        assert_eq!((world.counts(), pool.free()), ((0, 0), 1));
        // So is it when who wants it is killed.
        let killed = spawn({
            let pool = pool.clone();
            move || drop(pool.get())
        });
        sleep(NOW);
        killed.kill();
        // What opens it cannot unwind before the other one has.
        while pool.free() != 1 {
            sleep(NOW);
        }
        world.is_slow.set(false);
        assert_eq!(number_of(&pool), 1);
    });
}

#[test]
fn who_waits_for_a_connection_may_give_up_and_the_pool_may_grow_and_be_cleared() {
    guarded(|| {
        let (pool, world) = one_wire();
        let lent = pool.get().unwrap();
        assert!(matches!(pool.get_timeout(MS), Err(GetError::Exhausted(limit)) if limit == MS));
        pool.resize(2);
        assert_eq!(pool.get_timeout(MS).unwrap().1, 2);
        drop(lent);
        assert_eq!((world.counts(), pool.free()), ((2, 0), 2));
        pool.clear();
        assert_eq!((world.counts(), pool.free()), ((2, 2), 2));
    });
}

// The hub's own loop.

#[test]
fn on_the_hubs_own_loop_what_has_to_wait_says_that_it_must_not() {
    guarded(|| {
        let told = Rc::new(RefCell::new(Vec::new()));
        let tells = Rc::clone(&told);
        hub::set_error_hook(move |panic| tells.borrow_mut().push(panic.to_string()));
        let (full, items) = (GreenPool::new(1), Pool::new(1, || ()));
        let (wires, _) = one_wire();
        let dag = DAGPool::<&str, i32>::new([]);
        let pile = Rc::new(GreenPile::with_pool(&full));
        let (lent, wire) = (items.get(), wires.get().unwrap());
        let green = Rc::new(full.spawn(|| sleep(20 * MS)));
        let calls: [Box<dyn FnOnce()>; 7] = [
            Box::new({
                let full = full.clone();
                move || full.spawn_n(|| ())
            }),
            Box::new({
                let full = full.clone();
                move || full.waitall().unwrap()
            }),
            Box::new({
                let items = items.clone();
                move || drop(items.get())
            }),
            Box::new({
                let wires = wires.clone();
                move || drop(wires.get())
            }),
            Box::new(move || drop(dag.wait_for(&"never"))),
            Box::new(move || pile.spawn(|| ())),
            Box::new({
                let green = Rc::clone(&green);
                move || green.wait()
            }),
        ];
        let count = calls.len();
        for call in calls {
            hub::schedule_call_global(NOW, call);
        }
        sleep(5 * MS);
        assert_eq!(told.borrow().len(), count, "{:?}", told.borrow());
        let text = "do not call blocking functions from the mainloop";
        assert!(told.borrow().iter().all(|told| told.contains(text)), "{:?}", told.borrow());
        hub::clear_error_hook();
        // Nothing is left of any of them.
        assert_eq!((full.waiting(), items.waiting(), wires.waiting()), (0, 0, 0));
        drop((lent, wire));
        green.wait();
        full.waitall().unwrap();
        // What need not wait works there.
        let (pool, ran) = (full.clone(), Rc::new(Cell::new(false)));
        let runs = Rc::clone(&ran);
        hub::schedule_call_global(NOW, move || {
            drop(items.get());
            pool.spawn_n(move || runs.set(true));
        });
        sleep(5 * MS);
        assert!(ran.get());
    });
}
