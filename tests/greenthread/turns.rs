//! Green threads that nobody kills: when they run, what waiting for them gives, how long they
//! sleep.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::Log;
use crate::util::leak::guarded;
use stolon::greenthread::Builder;
use stolon::stack::stack_counts;
use stolon::{GreenThread, sleep, spawn, spawn_n};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// The text of the panic that waiting ends with.
fn panic_of<R: Clone + 'static>(green: &GreenThread<R>) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| green.wait())) else {
        panic!("no panic");
    };
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

// When they run.

#[test]
fn spawn_only_schedules_and_the_new_ones_run_in_order() {
    guarded(|| {
        let log = Log::default();
        for name in ["a", "b", "c"] {
            let log = log.clone();
            spawn(move || log.note(name));
        }
        log.note("spawned");
        sleep(NOW);
        assert_eq!(log.take(), "spawned a b c");
    });
}

#[test]
fn spawn_n_runs_among_the_others_in_order() {
    guarded(|| {
        let log = Log::default();
        for (turn, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let log = log.clone();
            if turn % 2 == 0 {
                spawn_n(move || log.note(name))
            } else {
                drop(spawn(move || log.note(name)))
            }
        }
        log.note("spawned");
        sleep(NOW);
        assert_eq!(log.take(), "spawned a b c d");
    });
}

#[test]
fn a_panic_of_one_that_nobody_waits_for_ends_nothing_else() {
    guarded(|| {
        spawn_n(|| panic_any("reported by the hook"));
        let other = spawn(|| sleep(MS));
        sleep(NOW);
        assert!(!other.is_dead());
        other.wait();
    });
}

#[test]
fn green_threads_that_yield_take_turns() {
    guarded(|| {
        let log = Log::default();
        let spawn_one = |name: &'static str| {
            let log = log.clone();
            spawn(move || {
                for turn in 0..2 {
                    log.note(format!("{name}{turn}"));
                    sleep(NOW);
                }
            })
        };
        let (a, b) = (spawn_one("a"), spawn_one("b"));
        a.wait();
        b.wait();
        assert_eq!(log.take(), "a0 b0 a1 b1");
    });
}

#[test]
fn a_new_one_runs_after_those_that_are_runnable_already() {
    guarded(|| {
        let log = Log::default();
        let (old_log, new_log, main_log) = (log.clone(), log.clone(), log.clone());
        spawn(move || {
            sleep(NOW);
            old_log.note("old");
        });
        sleep(NOW);
        spawn(move || new_log.note("new"));
        sleep(NOW);
        main_log.note("main");
        assert_eq!(log.take(), "old new main");
    });
}

#[test]
fn green_threads_spawn_green_threads() {
    fn sum(depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let (left, right) = (spawn(move || sum(depth - 1)), spawn(move || sum(depth - 1)));
        left.wait() + right.wait()
    }
    guarded(|| assert_eq!(spawn(|| sum(7)).wait(), 128));
}

#[test]
fn ten_thousand_that_wait_at_once_are_all_woken() {
    guarded(|| {
        let count = if cfg!(target_arch = "aarch64") { 1_000 } else { 10_000 };
        let arrived = Rc::new(Cell::new(0));
        let seen = Rc::clone(&arrived);
        let gate = Rc::new(spawn(move || {
            while seen.get() < count {
                sleep(NOW);
            }
            stack_counts().in_use
        }));
        let enter = |_| {
            let (gate, arrived) = (Rc::clone(&gate), Rc::clone(&arrived));
            spawn(move || {
                arrived.set(arrived.get() + 1);
                gate.wait()
            })
        };
        let waiters: Vec<_> = (0..count).map(enter).collect();
        // Theirs, the gate's and the mainloop's.
        assert!(waiters.iter().all(|waiter| waiter.wait() == count + 2));
    });
}

// What waiting for them gives.

#[test]
fn wait_returns_the_result_every_time_and_to_everyone() {
    guarded(|| {
        let answer = Rc::new(spawn(|| {
            sleep(NOW);
            vec![6, 7]
        }));
        let waiter = || {
            let answer = Rc::clone(&answer);
            spawn(move || answer.wait())
        };
        let waiters = [waiter(), waiter(), waiter()];
        assert_eq!(answer.wait(), [6, 7]);
        assert_eq!(answer.wait(), [6, 7]);
        assert!(answer.is_dead());
        assert!(waiters.iter().all(|waiter| waiter.wait() == [6, 7]));
    });
}

#[test]
fn wait_raises_the_panic_every_time() {
    guarded(|| {
        let text = spawn(|| panic!("a text"));
        let formatted = spawn(|| panic!("text number {}", 2));
        for _ in 0..2 {
            assert_eq!(panic_of(&text), "a text");
            assert_eq!(panic_of(&formatted), "text number 2");
        }
    });
}

#[test]
fn a_payload_that_cannot_be_copied_goes_to_who_waits_first() {
    guarded(|| {
        let green = spawn(|| panic_any(42));
        let payload = catch_unwind(AssertUnwindSafe(|| green.wait())).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&42));
        assert!(panic_of(&green).contains("payload went to who waited for it first"));
    });
}

#[test]
fn join_gives_a_result_that_cannot_be_copied_or_the_payload() {
    guarded(|| {
        struct Unique(i32);
        let green = spawn(|| {
            sleep(NOW);
            Unique(7)
        });
        assert_eq!(green.join().map(|unique| unique.0).ok(), Some(7));
        let payload = spawn(|| panic_any(42)).join().unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&42));
    });
}

#[test]
fn a_result_whose_copying_panics_is_there_for_the_next_who_waits() {
    #[derive(Debug)]
    struct Fragile(Rc<Cell<bool>>);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(!self.0.replace(false), "not now");
            Self(Rc::clone(&self.0))
        }
    }
    guarded(|| {
        let green = spawn(|| Fragile(Rc::new(Cell::new(true))));
        assert_eq!(panic_of(&green), "not now");
        assert!(!green.wait().0.get());
    });
}

// When nobody waits for them.

#[test]
fn a_green_thread_without_a_handle_runs_on() {
    guarded(|| {
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        drop(spawn(move || {
            for _ in 0..5 {
                sleep(NOW);
                counted.set(counted.get() + 1);
            }
        }));
        (0..6).for_each(|_| sleep(NOW));
        assert_eq!(turns.get(), 5);
    });
}

#[test]
fn a_panic_without_a_handle_leaves_the_others_alone() {
    guarded(|| {
        let other = spawn(|| {
            sleep(MS);
            "well"
        });
        drop(spawn(|| panic!("alone")));
        sleep(NOW);
        assert_eq!(other.wait(), "well");
    });
}

#[test]
fn a_result_whose_destructor_panics_leaves_the_others_alone() {
    struct Unkind;
    impl Drop for Unkind {
        fn drop(&mut self) {
            panic!("in the destructor of a result");
        }
    }
    guarded(|| {
        let other = spawn(|| {
            sleep(MS);
            "well"
        });
        drop(spawn(|| Unkind));
        assert_eq!(other.wait(), "well");
    });
}

// How long they sleep.

#[test]
fn a_sleep_lasts_at_least_as_long_as_asked() {
    guarded(|| {
        for duration in [Duration::from_nanos(1), Duration::from_micros(300), 7 * MS] {
            let start = Instant::now();
            sleep(duration);
            assert!(start.elapsed() >= duration, "{:?} of {duration:?}", start.elapsed());
        }
    });
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    guarded(|| {
        let log = Log::default();
        for (name, ms) in [("c", 60), ("a", 20), ("b", 20), ("d", 100)] {
            let log = log.clone();
            spawn(move || {
                sleep(ms * MS);
                log.note(name);
            });
        }
        sleep(120 * MS);
        assert_eq!(log.take(), "a b c d");
    });
}

#[test]
fn sleeping_side_by_side_takes_as_long_as_the_longest() {
    guarded(|| {
        let start = Instant::now();
        let sleepers: Vec<_> = (0..100).map(|_| spawn(|| sleep(20 * MS))).collect();
        sleepers.iter().for_each(GreenThread::wait);
        let elapsed = start.elapsed();
        assert!(elapsed >= 20 * MS && elapsed < 1000 * MS, "{elapsed:?}");
    });
}

#[test]
fn a_sleep_that_never_ends_does_not_keep_others_waiting() {
    guarded(|| {
        let endless = spawn(|| sleep(Duration::MAX));
        sleep(MS);
        assert!(!endless.is_dead());
        endless.kill();
    });
}

#[test]
fn waiters_go_on_in_the_order_in_which_they_came_whoever_was_killed() {
    guarded(|| {
        let log = Log::default();
        let awaited = Rc::new(spawn(|| sleep(2 * MS)));
        let wait = |name: &'static str| {
            let (log, awaited) = (log.clone(), Rc::clone(&awaited));
            spawn(move || {
                awaited.wait();
                log.note(name);
            })
        };
        let first = wait("first");
        let mut waiters: Vec<_> = ["second", "third"].map(wait).into();
        sleep(NOW);
        first.kill();
        waiters.push(wait("fourth"));
        waiters.iter().for_each(GreenThread::wait);
        assert_eq!(log.take(), "second third fourth");
    });
}

// What they are made with.

#[test]
fn a_builder_gives_a_name_and_a_stack_size() {
    guarded(|| {
        let builder = Builder::new().name("deep").stack_bytes(4 << 20);
        let green = builder
            .spawn(|| {
                let large = [1_u8; 2 << 20];
                std::hint::black_box(&large).iter().map(|&byte| u64::from(byte)).sum::<u64>()
            })
            .unwrap();
        assert!(format!("{green:?}").contains("'deep'"), "{green:?}");
        assert_eq!(green.wait(), 2 << 20);
        assert_eq!(format!("{green:?}"), "GreenThread(dead)");
    });
}
