//! Slots: how many there are, who gets them, and that each comes back.

use std::cell::{Cell, RefCell};
use std::panic::panic_any;
use std::rc::Rc;

use stolon::greenlet::GreenletExit;
use stolon::{GreenPool, GreenThread, sleep, spawn, spawn_n};

use super::{Gate, Gauge, MS, NOW, state};
use crate::util::leak::guarded;

// GP-01, D5
#[test]
fn so_many_run_at_once_and_no_more_and_all_results_come() {
    guarded(|| {
        let (pool, gauge) = (GreenPool::new(4), Gauge::default());
        let task = |n: usize| {
            let gauge = gauge.clone();
            move || {
                let _inside = gauge.enter();
                for _ in 0..n % 3 + 1 {
                    sleep(NOW);
                }
                n
            }
        };
        let all: Vec<_> = (0..10).map(|n| pool.spawn(task(n))).collect();
        let results: Vec<_> = all.iter().map(GreenThread::wait).collect();
        assert_eq!(results, (0..10).collect::<Vec<_>>());
        let detached = (0..10).map(|n| (task(n), Rc::new(Cell::new(0))));
        for (task, result) in detached {
            pool.spawn_n(move || result.set(task()));
        }
        pool.waitall().unwrap();
        assert_eq!((gauge.most(), state(&pool)), (4, (0, 4, 0)));
    });
}

// D5
#[test]
fn the_one_too_many_is_spawned_when_one_ends_and_others_go_on_meanwhile() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(3), Gate::default());
        for _ in 0..3 {
            let gate = gate.clone();
            pool.spawn_n(move || gate.pass());
        }
        let ticks = Rc::new(Cell::new(0));
        let (ticking, opens) = (Rc::clone(&ticks), gate.clone());
        let ticker = spawn(move || {
            while ticking.get() < 20 {
                sleep(MS);
                ticking.set(ticking.get() + 1);
            }
            opens.open();
        });
        let fourth = pool.spawn(|| ());
        assert!(gate.0.get() && ticks.get() == 20);
        fourth.wait();
        ticker.wait();
        pool.waitall().unwrap();
    });
}

#[test]
fn spawning_only_schedules_and_takes_the_slot_at_once() {
    guarded(|| {
        let (pool, ran) = (GreenPool::new(2), Rc::new(Cell::new(false)));
        let runs = Rc::clone(&ran);
        let green = pool.spawn(move || runs.set(true));
        assert!(!ran.get());
        assert_eq!(state(&pool), (1, 1, 0));
        green.wait();
        assert_eq!(state(&pool), (0, 2, 0), "free when it has been waited for");
    });
}

// GP-03
#[test]
fn those_who_wait_are_counted_as_they_come() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(1), Gate::default());
        let passes = gate.clone();
        pool.spawn_n(move || passes.pass());
        assert_eq!(state(&pool), (1, 0, 0));
        for waiting in 1..=2 {
            let pool = pool.clone();
            spawn_n({
                let pool = pool.clone();
                move || pool.spawn_n(|| ())
            });
            sleep(NOW);
            assert_eq!(state(&pool), (1, 0, waiting));
        }
        gate.open();
        pool.waitall().unwrap();
        assert_eq!(state(&pool), (0, 1, 0));
    });
}

#[test]
fn slots_are_given_in_the_order_of_asking() {
    guarded(|| {
        let (pool, order) = (GreenPool::new(1), Rc::new(RefCell::new(Vec::new())));
        pool.spawn_n(|| sleep(MS));
        for n in 0..5 {
            let (pool, order) = (pool.clone(), Rc::clone(&order));
            spawn_n(move || pool.spawn_n(move || order.borrow_mut().push(n)));
        }
        sleep(NOW);
        pool.waitall().unwrap();
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
    });
}

// GP-04
#[test]
fn a_task_that_panics_or_exits_gives_its_slot_back() {
    guarded(|| {
        let pool = GreenPool::new(2);
        assert!(pool.spawn(|| panic!("a task")).join().is_err());
        assert!(pool.spawn(|| panic_any(GreenletExit)).join().is_err());
        pool.spawn_n(|| panic!("a detached task"));
        pool.spawn_n(|| panic_any(GreenletExit));
        sleep(NOW);
        assert_eq!(state(&pool), (0, 2, 0));
    });
}

// GP-14, corner 21.
#[test]
fn a_member_killed_before_it_starts_leaves_its_slot_before_what_it_holds() {
    guarded(|| {
        struct Asks(GreenPool, Rc<Cell<usize>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                self.1.set(self.0.running());
            }
        }
        let (pool, seen) = (GreenPool::new(1), Rc::new(Cell::new(9)));
        let asks = Asks(pool.clone(), Rc::clone(&seen));
        let green = pool.spawn(move || drop(asks));
        assert_eq!(pool.running(), 1);
        green.kill();
        assert_eq!((seen.get(), state(&pool)), (0, (0, 1, 0)));
    });
}

// Corner 21.
#[test]
fn a_killed_spawner_leaves_nothing_behind_and_its_slot_to_the_next() {
    guarded(|| {
        let (pool, gate, ran) = (GreenPool::new(1), Gate::default(), Rc::new(Cell::new(0)));
        let passes = gate.clone();
        pool.spawn_n(move || passes.pass());
        let spawner = || {
            let (pool, ran) = (pool.clone(), Rc::clone(&ran));
            spawn(move || pool.spawn(move || ran.set(ran.get() + 1)).wait())
        };
        let [waiting, granted, last] = [spawner(), spawner(), spawner()];
        sleep(NOW);
        assert_eq!(pool.waiting(), 3);
        waiting.kill();
        assert_eq!(state(&pool), (1, 0, 2));
        // The slot is granted to a spawner that is killed before it runs.
        let pool_of_killer = pool.clone();
        gate.open();
        let killer = spawn(move || {
            while pool_of_killer.waiting() == 2 {
                sleep(NOW);
            }
            assert_eq!(state(&pool_of_killer), (1, 0, 1));
            granted.kill();
        });
        killer.wait();
        last.wait();
        pool.waitall().unwrap();
        assert_eq!((ran.get(), state(&pool)), (1, (0, 1, 0)));
    });
}

// GP-05
#[test]
fn a_pool_that_shrinks_lets_members_run_on_and_owes_their_slots() {
    guarded(|| {
        let (pool, gates) = (GreenPool::new(2), [Gate::default(), Gate::default()]);
        for gate in gates.clone() {
            pool.spawn_n(move || gate.pass());
        }
        pool.resize(1);
        assert_eq!(state(&pool), (2, -1, 0));
        let third = spawn({
            let pool = pool.clone();
            move || pool.spawn(|| ()).wait()
        });
        sleep(NOW);
        gates[0].open();
        sleep(3 * MS);
        assert_eq!(state(&pool), (1, 0, 1), "the first slot is not used again");
        gates[1].open();
        third.wait();
        assert_eq!(state(&pool), (0, 1, 0));
    });
}

// GP-05
#[test]
fn a_pool_that_grows_lets_as_many_in_as_it_has_new_slots() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(1), Gate::default());
        for _ in 0..5 {
            let (pool, gate) = (pool.clone(), gate.clone());
            spawn_n(move || pool.spawn_n(move || gate.pass()));
        }
        sleep(NOW);
        assert_eq!(state(&pool), (1, 0, 4));
        pool.resize(3);
        assert_eq!(state(&pool), (3, 0, 2));
        pool.resize(10);
        assert_eq!(state(&pool), (5, 5, 0));
        gate.open();
        pool.waitall().unwrap();
    });
}

// GP-15
#[test]
fn in_a_pool_of_none_each_spawn_waits_for_a_resize() {
    guarded(|| {
        let pool = GreenPool::new(0);
        let spawner = spawn({
            let pool = pool.clone();
            move || pool.spawn(|| 5).wait()
        });
        sleep(MS);
        assert_eq!(state(&pool), (0, 0, 1));
        pool.resize(1);
        assert_eq!(spawner.wait(), 5);
    });
}
