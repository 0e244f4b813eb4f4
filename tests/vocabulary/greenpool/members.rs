//! Members: what they spawn into their own pool, and who waits for all of them.

use std::cell::Cell;
use std::rc::Rc;

use stolon::{GreenPool, sleep, spawn, spawn_n};

use super::{Gate, HOUR, MS, NOW, panics, state};
use crate::util::leak::guarded;

// Corner 21, with the better rule.
#[test]
fn a_member_of_a_full_pool_spawns_in_its_own_place_and_gets_a_handle() {
    guarded(|| {
        let pool = GreenPool::new(1);
        let inner = pool.clone();
        let green = pool.spawn(move || {
            let good = inner.spawn(|| 1);
            assert!(good.is_dead(), "it ran here");
            let bad = inner.spawn(|| -> i32 { panic!("inline") });
            assert!(bad.is_dead());
            assert!(panics(|| bad.wait()) && panics(|| bad.wait()));
            let (ran, runs) = (Rc::new(Cell::new(false)), inner.clone());
            let sets = Rc::clone(&ran);
            inner.spawn_n(move || {
                assert_eq!(state(&runs), (1, 0, 0));
                sets.set(true);
            });
            assert!(ran.get());
            inner.spawn_n(|| panic!("inline as well"));
            good.wait()
        });
        assert_eq!(green.wait(), 1);
    });
}

#[test]
fn a_member_that_is_killed_while_it_runs_another_in_its_place_unwinds() {
    guarded(|| {
        let (pool, went_on) = (GreenPool::new(1), Rc::new(Cell::new(false)));
        let (inner, goes_on) = (pool.clone(), Rc::clone(&went_on));
        let green = pool.spawn(move || {
            inner.spawn(|| sleep(HOUR));
            goes_on.set(true);
        });
        sleep(NOW);
        green.kill();
        assert!(!went_on.get() && panics(|| green.wait()));
        assert_eq!(state(&pool), (0, 1, 0));
    });
}

// Corners 21 and 23.
#[test]
fn a_timeout_of_a_member_reaches_through_what_it_runs_in_its_place() {
    guarded(|| {
        let pool = GreenPool::new(1);
        let inner = pool.clone();
        let green = pool.spawn(move || {
            let run = || drop(inner.spawn(|| sleep(HOUR)));
            stolon::timeout::with_timeout(MS, run).is_err()
        });
        assert!(green.wait());
        assert_eq!(state(&pool), (0, 1, 0));
    });
}

#[test]
fn a_spawn_that_times_out_takes_no_slot() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(1), Gate::default());
        let passes = gate.clone();
        pool.spawn_n(move || passes.pass());
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        let spawn = || pool.spawn_n(move || runs.set(true));
        assert!(stolon::timeout::with_timeout(MS, spawn).is_err());
        assert_eq!(state(&pool), (1, 0, 0));
        assert!(stolon::timeout::with_timeout(MS, || pool.waitall()).is_err());
        gate.open();
        pool.waitall().unwrap();
        assert!(!ran.get());
    });
}

#[test]
fn a_member_of_a_pool_that_has_room_spawns_as_anyone_does() {
    guarded(|| {
        let pool = GreenPool::new(2);
        let inner = pool.clone();
        let green = pool.spawn(move || {
            let other = inner.spawn(|| 2);
            assert!(!other.is_dead());
            other.wait()
        });
        assert_eq!(green.wait(), 2);
    });
}

#[test]
fn a_member_of_one_pool_is_none_of_another() {
    guarded(|| {
        let [one, two] = [GreenPool::new(1), GreenPool::new(1)];
        two.spawn_n(|| sleep(MS));
        let inner = two.clone();
        let green = one.spawn(move || {
            let other = inner.spawn(|| 2);
            assert!(!other.is_dead(), "it waited, and did not run in this one's place");
            assert_eq!(inner.waitall(), Ok(()));
            other.wait()
        });
        assert_eq!(green.wait(), 2);
    });
}

// waitall.

// GP-07
#[test]
fn waiting_for_all_from_inside_is_an_error() {
    guarded(|| {
        let pool = GreenPool::new(3);
        let inner = pool.clone();
        let told = pool.spawn(move || inner.waitall().unwrap_err().to_string()).wait();
        assert!(told.contains("would wait for itself"), "{told}");
        pool.waitall().unwrap();
    });
}

// GP-07
#[test]
fn waiting_for_all_of_nothing_returns_at_once() {
    guarded(|| {
        let (pool, other) = (GreenPool::new(3), Rc::new(Cell::new(false)));
        let runs = Rc::clone(&other);
        spawn_n(move || runs.set(true));
        pool.waitall().unwrap();
        assert!(!other.get(), "nobody else ran");
    });
}

// GP-07
#[test]
fn what_is_spawned_meanwhile_and_who_waits_to_spawn_is_waited_for() {
    guarded(|| {
        fn chain(pool: GreenPool, left: u32, ended: Rc<Cell<u32>>) {
            sleep(NOW);
            if left > 0 {
                let (next, count) = (pool.clone(), Rc::clone(&ended));
                pool.spawn_n(move || chain(next, left - 1, count));
            }
            ended.set(ended.get() + 1);
        }
        let (pool, ended) = (GreenPool::new(2), Rc::new(Cell::new(0)));
        for _ in 0..3 {
            let (inner, count) = (pool.clone(), Rc::clone(&ended));
            let spawner = pool.clone();
            spawn_n(move || spawner.spawn_n(move || chain(inner, 10, count)));
        }
        sleep(NOW);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || pool.waitall())
            })
            .collect();
        pool.waitall().unwrap();
        assert_eq!((ended.get(), state(&pool)), (33, (0, 2, 0)));
        assert!(waiters.iter().all(|waiter| waiter.wait().is_ok()));
    });
}

#[test]
fn who_waits_for_all_is_told_when_the_last_who_waited_to_spawn_is_killed() {
    guarded(|| {
        let pool = GreenPool::new(0);
        let spawner = spawn({
            let pool = pool.clone();
            move || pool.spawn_n(|| ())
        });
        let waiter = spawn({
            let pool = pool.clone();
            move || pool.waitall()
        });
        sleep(NOW);
        assert!(!waiter.is_dead());
        spawner.kill();
        waiter.wait().unwrap();
    });
}

#[test]
fn who_is_killed_while_it_waits_for_all_leaves_the_others_waiting() {
    guarded(|| {
        let (pool, gate) = (GreenPool::new(1), Gate::default());
        let passes = gate.clone();
        pool.spawn_n(move || passes.pass());
        let [killed, other] = [(), ()].map(|()| {
            let pool = pool.clone();
            spawn(move || pool.waitall().unwrap())
        });
        sleep(NOW);
        killed.kill();
        gate.open();
        other.wait();
    });
}

// Unwinding.

#[test]
fn a_pool_can_be_used_in_a_destructor_while_its_greenlet_unwinds() {
    guarded(|| {
        struct Uses(GreenPool, Rc<Cell<u32>>);
        impl Drop for Uses {
            fn drop(&mut self) {
                let sum: u32 = self.0.imap(|n: u32| n + 1, 0..5).sum();
                self.0.spawn_n(|| sleep(MS));
                self.0.waitall().unwrap();
                self.1.set(sum);
            }
        }
        let (pool, sum) = (GreenPool::new(2), Rc::new(Cell::new(0)));
        let uses = Uses(pool.clone(), Rc::clone(&sum));
        assert!(panics(move || {
            let _uses = uses;
            panic!("unwinds");
        }));
        assert_eq!((sum.get(), state(&pool)), (15, (0, 2, 0)));
    });
}
