//! Pools of green threads: how many run at once, who gets a slot, what is left when things end badly.

mod util;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::greenlet::GreenletExit;
use stolon::pools::TokenPool;
use stolon::{GreenPile, GreenPool, GreenThread, sleep, spawn, spawn_n};
use util::leak::guarded;

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

// Slots.

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

// A member of a full pool.

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

// D10

/// The agent's loop: spawns a worker into the pool whenever there is room.
fn agent(pool: &GreenPool, counts: &Counts, work: impl Fn() + Clone + 'static) -> GreenThread<()> {
    let (pool, counts) = (pool.clone(), counts.clone());
    spawn(move || {
        loop {
            let (work, in_worker) = (work.clone(), counts.clone());
            pool.spawn_n(move || {
                in_worker.0.0.set(in_worker.0.0.get() + 1);
                let _inside = in_worker.0.2.enter();
                work();
            });
            counts.0.1.set(counts.0.1.get() + 1);
        }
    })
}

/// How many workers have started, how many spawns have returned, and who works now.
#[derive(Clone, Default)]
struct Counts(Rc<(Cell<u32>, Cell<u32>, Gauge)>);

impl Counts {
    fn get(&self) -> (u32, u32) {
        (self.0.0.get(), self.0.1.get())
    }
}

#[test]
fn d10_an_endless_loop_fills_its_pool_and_then_replaces_who_ends_without_spinning() {
    guarded(|| {
        let (pool, counts) = (GreenPool::new(8), Counts::default());
        let ends = Rc::new(Cell::new(0u32));
        let panics = Rc::new(Cell::new(false));
        let (to_end, how) = (Rc::clone(&ends), Rc::clone(&panics));
        let agent = agent(&pool, &counts, move || {
            while to_end.get() == 0 {
                sleep(20 * MS);
            }
            to_end.set(to_end.get() - 1);
            assert!(!how.get(), "a worker");
        });
        assert_eq!(counts.get(), (0, 0), "to start it takes no time");
        sleep(5 * MS);
        assert_eq!((counts.get(), state(&pool)), ((8, 8), (8, 0, 1)));
        for (n, how) in [(9, false), (10, true)] {
            panics.set(how);
            ends.set(1);
            sleep(50 * MS);
            assert_eq!((counts.get(), state(&pool)), ((n, n), (8, 0, 1)));
        }
        agent.kill();
        ends.set(8);
        panics.set(false);
        pool.waitall().unwrap();
    });
}

#[test]
fn d10_a_full_pool_takes_no_processor_time() {
    guarded(|| {
        let (pool, counts) = (GreenPool::new(8), Counts::default());
        let agent = agent(&pool, &counts, || sleep(HOUR));
        sleep(5 * MS);
        let before = cpu_time();
        sleep(300 * MS);
        let used = cpu_time() - before;
        assert!(used < 10 * MS, "{used:?}");
        assert_eq!(counts.get(), (8, 8));
        agent.kill();
        stop_all(&pool);
    });
}

/// Ends who runs in a pool, by the only handle that there is: its thread's.
fn stop_all(pool: &GreenPool) {
    for greenlet in stolon::greenlet::all() {
        let is_hub = greenlet.name() == Some("mainloop");
        if !is_hub && greenlet.parent::<()>().is_some() {
            stolon::greenthread::kill(&greenlet);
        }
    }
    pool.waitall().unwrap();
}

#[test]
fn d10_over_a_thousand_lives_there_are_never_more_than_the_pool_is_large() {
    guarded(|| {
        let (pool, counts) = (GreenPool::new(8), Counts::default());
        let agent = agent(&pool, &counts, || (0..3).for_each(|_| sleep(NOW)));
        while counts.get().0 < 1000 {
            sleep(NOW);
        }
        agent.kill();
        pool.waitall().unwrap();
        assert_eq!(counts.0.2.most(), 8);
    });
}

// imap.

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

// Piles.

// GP-10
#[test]
fn three_producers_of_a_pile_find_their_own_order_kept() {
    for size in [5, 50] {
        guarded(move || {
            let pile = Rc::new(GreenPile::new(size));
            let producers: Vec<_> = (0..3u64)
                .map(|producer| {
                    let pile = Rc::clone(&pile);
                    spawn(move || {
                        for n in 0..1000u64 {
                            let turns = (n * 31 + producer * 17) % 4;
                            pile.spawn(move || {
                                (0..turns).for_each(|_| sleep(NOW));
                                (producer, n)
                            });
                        }
                    })
                })
                .collect();
            sleep(NOW);
            let (mut next, mut count) = (HashMap::new(), 0);
            for (producer, n) in &*pile {
                let expected = next.entry(producer).or_insert(0);
                assert_eq!(n, *expected);
                *expected += 1;
                count += 1;
            }
            assert_eq!(count, 3000);
            producers.iter().for_each(|producer| producer.wait());
        });
    }
}

// GP-11
#[test]
fn two_piles_on_one_pool_have_each_their_own_results() {
    guarded(|| {
        let pool = GreenPool::new(2);
        let [one, two] = [GreenPile::with_pool(&pool), GreenPile::with_pool(&pool)];
        for n in 0..10 {
            one.spawn(move || n);
            two.spawn(move || {
                sleep(NOW);
                n * 2
            });
        }
        assert_eq!(one.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert_eq!(two.collect::<Vec<_>>(), (0..10).map(|n| n * 2).collect::<Vec<_>>());
    });
}

// Corner 22.
#[test]
fn a_pile_raises_a_panic_at_its_place_and_goes_on() {
    guarded(|| {
        let pile = GreenPile::new(2);
        for n in 0..3 {
            pile.spawn(move || {
                assert!(n != 1, "one");
                n
            });
        }
        assert_eq!(pile.next(), Some(0));
        assert!(panics(|| pile.next()));
        assert_eq!(pile.next(), Some(2));
        assert_eq!(pile.next(), None);
        pile.spawn(|| 7);
        assert_eq!(pile.next(), Some(7), "one more spawned gives one more");
    });
}

#[test]
fn a_spawn_into_a_pile_that_is_interrupted_leaves_it_usable() {
    guarded(|| {
        let (pile, gate) = (Rc::new(GreenPile::new(1)), Gate::default());
        let passes = gate.clone();
        pile.spawn(move || {
            passes.pass();
            1
        });
        let (spawns, takes) = (Rc::clone(&pile), Rc::clone(&pile));
        let spawner = spawn(move || spawns.spawn(|| 2));
        let taker = spawn(move || (takes.next(), takes.next()));
        sleep(NOW);
        spawner.kill();
        gate.open();
        assert_eq!(taker.wait(), (Some(1), None));
        pile.spawn(|| 3);
        assert_eq!((pile.next(), pile.next()), (Some(3), None));
    });
}

#[test]
fn who_is_killed_while_it_takes_from_a_pile_takes_nothing() {
    guarded(|| {
        let pile = Rc::new(GreenPile::new(3));
        for n in 0..3u32 {
            pile.spawn(move || {
                sleep(3 * MS);
                n
            });
        }
        let takes = Rc::clone(&pile);
        let taker = spawn(move || takes.next());
        sleep(NOW);
        taker.kill();
        assert_eq!(
            [pile.next(), pile.next(), pile.next(), pile.next()],
            [Some(0), Some(1), Some(2), None]
        );
    });
}

// GP-13
#[test]
fn a_member_that_gives_up_waiting_for_a_token_spoils_neither_pool() {
    guarded(|| {
        let (pool, tokens) = (GreenPool::new(1), TokenPool::tokens(1));
        let held = tokens.get();
        let asks = tokens.clone();
        let timed_out = pool.spawn(move || asks.get_timeout(2 * MS).is_none());
        assert!(timed_out.wait());
        let asks = tokens.clone();
        let killed = pool.spawn(move || drop(asks.get()));
        sleep(NOW);
        assert_eq!(tokens.waiting(), 1);
        killed.kill();
        assert_eq!((tokens.waiting(), state(&pool)), (0, (0, 1, 0)));
        drop(held);
        assert_eq!(tokens.free(), 1);
        let asks = tokens.clone();
        pool.spawn(move || drop(asks.get())).wait();
        assert_eq!((tokens.free(), state(&pool)), (1, (0, 1, 0)));
    });
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
