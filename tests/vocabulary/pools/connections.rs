//! Connections: when they are opened, checked, cleaned and closed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::pools::{ConnectionPool, ConnectionPoolBuilder, GetError, Manager};
use stolon::{sleep, spawn, spawn_n};

use super::{MS, NOW, panics};
use crate::util::leak::{guarded, simulated};

const HOUR: Duration = Duration::from_secs(3600);

/// What the connections of a test are told, and what they tell.
#[derive(Default)]
pub(crate) struct World {
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

pub(crate) struct Wire(Rc<World>, u32);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.closed.set(self.0.closed.get() + 1);
        sleep(NOW);
    }
}

pub(crate) struct Wires(Rc<World>);

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
pub(crate) fn one_wire() -> (ConnectionPool<Wires>, Rc<World>) {
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
    // Each pass takes as long as it says there, however busy the machine is.
    simulated(|| {
        let world = Rc::new(World::default());
        let builder = ConnectionPoolBuilder::new().max_idle(10 * MS).max_age(None);
        let pool = builder.build(Wires(Rc::clone(&world)));
        let [one, two] = [pool.get().unwrap(), pool.get().unwrap()];
        drop((one, two));
        for _ in 0..30 {
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
