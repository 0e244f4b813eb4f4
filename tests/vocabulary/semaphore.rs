//! Semaphores: who gets a permit, and what becomes of it. The numbers are those of
//! docs/semantics-eventlet.md.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::{guarded, simulated};
use crate::util::on_drop::OnDrop;
use stolon::semaphore::{BoundedSemaphore, CappedSemaphore, ReleasedTooOften, Semaphore};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

type Log<T> = Rc<RefCell<Vec<T>>>;

/// Green threads that acquire and then note their numbers, and wait for it.
fn acquirers(semaphore: &Semaphore, count: usize, log: &Log<usize>) -> Vec<GreenThread<()>> {
    let spawned = (0..count).map(|number| {
        let (semaphore, log) = (semaphore.clone(), Rc::clone(log));
        spawn(move || {
            semaphore.acquire();
            log.borrow_mut().push(number);
        })
    });
    let spawned = spawned.collect();
    sleep(NOW);
    spawned
}

// SE-01
#[test]
fn two_workers_that_sleep_with_the_lock_have_it_equally_often() {
    simulated(|| {
        let lock = Semaphore::new(1);
        let counts: [Rc<Cell<i32>>; 2] = Default::default();
        let workers = counts.clone().map(|count| {
            let lock = lock.clone();
            spawn(move || {
                loop {
                    let _held = lock.access();
                    count.set(count.get() + 1);
                    sleep(MS / 10);
                }
            })
        });
        sleep(30 * MS);
        for worker in workers {
            worker.kill();
        }
        let [one, other] = counts.map(|count| count.get());
        assert!(one > 5 && (one - other).abs() <= 1, "{one} and {other}");
        assert_eq!(lock.balance(), 1);
    });
}

// SE-02
#[test]
fn a_capped_semaphore_makes_releasers_wait_at_its_limit() {
    guarded(|| {
        let semaphore = CappedSemaphore::new(2, 3);
        let spawn_with = |f: fn(&CappedSemaphore)| {
            let semaphore = semaphore.clone();
            spawn(move || f(&semaphore))
        };
        semaphore.acquire();
        semaphore.acquire();
        let releaser = spawn_with(CappedSemaphore::release);
        semaphore.acquire();
        assert_eq!(semaphore.balance(), -3);
        assert!(semaphore.locked() && !semaphore.bounded());
        for _ in 0..3 {
            semaphore.release();
        }
        assert!(!semaphore.locked() && semaphore.bounded() && !semaphore.try_release());
        let acquirer = spawn_with(CappedSemaphore::acquire);
        semaphore.release();
        assert_eq!(semaphore.balance(), 3);
        releaser.wait();
        acquirer.wait();
    });
}

// SE-03
#[test]
fn with_a_limit_of_zero_an_acquire_and_a_release_meet() {
    guarded(|| {
        let semaphore = CappedSemaphore::new(0, 0);
        assert!(semaphore.locked() && semaphore.bounded());
        assert!(!semaphore.try_acquire() && !semaphore.try_release());
        let acquirer = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire()
        });
        semaphore.release();
        acquirer.wait();
        let releaser = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.release()
        });
        sleep(NOW);
        assert!(!releaser.is_dead());
        semaphore.acquire();
        releaser.wait();
        assert_eq!(semaphore.balance(), 0);
    });
}

// SE-05
#[test]
fn an_acquire_in_vain_ends_with_its_time_and_leaves_nothing() {
    guarded(|| {
        let semaphore = Semaphore::new(0);
        let start = Instant::now();
        assert!(!semaphore.acquire_timeout(10 * MS));
        assert!(start.elapsed() >= 10 * MS);
        assert!(semaphore.access_timeout(NOW).is_none());
        assert_eq!(semaphore.balance(), 0);
        semaphore.release();
        assert_eq!(semaphore.balance(), 1);
        assert!(semaphore.access_timeout(HOUR).is_some());
        assert_eq!(semaphore.balance(), 1);
    });
}

// SE-08
#[test]
fn two_releases_wake_two_of_three_and_to_kill_the_third_leaves_none() {
    guarded(|| {
        let (semaphore, log) = (Semaphore::new(0), Log::default());
        let waiters = acquirers(&semaphore, 3, &log);
        assert_eq!(semaphore.balance(), -3);
        semaphore.release();
        assert_eq!(semaphore.balance(), -2);
        semaphore.release();
        assert_eq!(semaphore.balance(), -1);
        sleep(NOW);
        assert_eq!(*log.borrow(), [0, 1]);
        waiters[2].kill();
        assert_eq!(semaphore.balance(), 0);
    });
}

// SE-09
#[test]
fn a_bounded_semaphore_refuses_what_is_too_much() {
    guarded(|| {
        let semaphore = BoundedSemaphore::new(2);
        assert_eq!(semaphore.release(), Err(ReleasedTooOften));
        semaphore.acquire();
        let guard = semaphore.access();
        assert!(semaphore.locked() && !semaphore.try_acquire() && semaphore.try_access().is_none());
        assert!(!semaphore.acquire_timeout(NOW));
        let waiter = spawn({
            let semaphore = semaphore.clone();
            move || drop(semaphore.access_timeout(HOUR).unwrap())
        });
        sleep(NOW);
        assert_eq!(semaphore.balance(), -1);
        drop(guard);
        waiter.wait();
        assert_eq!(semaphore.release(), Ok(()));
        assert_eq!((semaphore.release(), semaphore.balance()), (Err(ReleasedTooOften), 2));
        let early = semaphore.access();
        assert_eq!(semaphore.release(), Ok(()));
        drop(early);
        assert_eq!(semaphore.balance(), 2);
    });
}

#[test]
fn a_waiter_of_a_bounded_semaphore_that_is_killed_with_its_permit_holds_none() {
    guarded(|| {
        let semaphore = BoundedSemaphore::new(1);
        semaphore.acquire();
        let waiter = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire()
        });
        sleep(NOW);
        semaphore.release().unwrap();
        waiter.kill();
        assert_eq!((semaphore.balance(), semaphore.release()), (1, Err(ReleasedTooOften)));
    });
}

// SE-10
#[test]
fn a_lock_is_granted_in_the_order_in_which_it_was_asked_for() {
    guarded(|| {
        let (lock, log) = (Semaphore::new(1), Log::default());
        let held = lock.access();
        let spawned: Vec<_> = (1..=3)
            .map(|number| {
                let (lock, log) = (lock.clone(), Rc::clone(&log));
                spawn(move || {
                    // With a timeout and without: one line.
                    let _held =
                        if number == 2 { lock.access_timeout(HOUR) } else { Some(lock.access()) };
                    log.borrow_mut().push(number);
                    sleep(NOW);
                })
            })
            .collect();
        sleep(NOW);
        drop(held);
        for green in spawned {
            green.wait();
        }
        assert_eq!(*log.borrow(), [1, 2, 3]);
    });
}

// Corner 17, with the better rule.
#[test]
fn a_permit_that_goes_to_a_waiter_cannot_be_stolen_before_that_one_runs() {
    guarded(|| {
        let (semaphore, log) = (Semaphore::new(0), Log::default());
        acquirers(&semaphore, 1, &log);
        semaphore.release();
        assert!(semaphore.locked() && !semaphore.try_acquire() && semaphore.try_access().is_none());
        assert!(!semaphore.acquire_timeout(NOW));
        assert_eq!(*log.borrow(), [0]);
        assert_eq!(semaphore.balance(), 0);
    });
}

// D5
#[test]
fn no_more_than_one_of_fifty_holds_a_lock_and_releasing_switches_to_nobody() {
    guarded(|| {
        let (lock, holders) = (Semaphore::new(1), Rc::new(Cell::new(0)));
        let workers: Vec<_> = (0..50)
            .map(|_| {
                let (lock, holders) = (lock.clone(), Rc::clone(&holders));
                spawn(move || {
                    for _ in 0..20 {
                        lock.acquire();
                        holders.set(holders.get() + 1);
                        assert_eq!(holders.get(), 1);
                        sleep(NOW);
                        holders.set(holders.get() - 1);
                        lock.release();
                        assert_eq!(holders.get(), 0, "releasing has switched");
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.wait();
        }
        assert_eq!(lock.balance(), 1);
    });
}

#[test]
fn who_is_killed_after_the_permit_came_passes_it_on() {
    guarded(|| {
        let (semaphore, log) = (Semaphore::new(0), Log::default());
        let waiters = acquirers(&semaphore, 3, &log);
        semaphore.release();
        waiters[0].kill();
        sleep(NOW);
        assert_eq!(*log.borrow(), [1]);
        semaphore.release();
        waiters[2].kill();
        assert_eq!((semaphore.balance(), semaphore.try_acquire()), (1, true));
    });
}

#[test]
fn who_has_timed_out_when_the_permit_comes_has_it_all_the_same() {
    guarded(|| {
        let semaphore = Semaphore::new(0);
        let waiter = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire_timeout(MS)
        });
        sleep(NOW);
        // Its timer fires before this one, in one pass, so both are in the queue.
        spawn({
            let semaphore = semaphore.clone();
            move || semaphore.release()
        });
        let start = Instant::now();
        while start.elapsed() < 2 * MS {}
        let came = waiter.wait();
        assert_eq!(semaphore.balance(), isize::from(!came));
    });
}

// Corner 18.

#[test]
fn an_interrupted_acquire_of_a_capped_semaphore_takes_its_room_away_again() {
    guarded(|| {
        let semaphore = CappedSemaphore::new(0, 0);
        let acquirer = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire()
        });
        sleep(NOW);
        acquirer.kill();
        assert!(!semaphore.try_release() && !semaphore.acquire_timeout(NOW));
        assert!(!semaphore.release_timeout(NOW) && !semaphore.try_acquire());
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn an_interrupted_release_of_a_capped_semaphore_takes_its_permit_away_again() {
    guarded(|| {
        let semaphore = CappedSemaphore::new(1, 1);
        let releaser = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.release()
        });
        sleep(NOW);
        releaser.kill();
        assert_eq!(semaphore.balance(), 1);
        assert!(semaphore.try_acquire() && !semaphore.try_acquire());
    });
}

#[test]
fn a_permit_of_a_killed_acquirer_is_kept_and_what_was_released_stays_so() {
    guarded(|| {
        let semaphore = CappedSemaphore::new(0, 0);
        let acquirer = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire()
        });
        sleep(NOW);
        semaphore.release();
        acquirer.kill();
        // One more than the limit, which the next one takes, and then all is as it was.
        assert!(semaphore.try_acquire() && !semaphore.try_acquire() && !semaphore.try_release());
        assert_eq!(semaphore.balance(), 0);
        let releaser = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.release()
        });
        sleep(NOW);
        semaphore.acquire();
        releaser.kill();
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn a_capped_semaphore_needs_a_limit_that_is_no_lower_than_its_permits() {
    // Guarded, as the report of a panic opens files.
    guarded(|| {
        let made = catch_unwind(|| CappedSemaphore::new(2, 1));
        let payload = made.unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert_eq!(text, "a semaphore cannot have 2 permits with a limit of 1");
    });
}

#[test]
fn at_the_largest_limit_of_a_capped_semaphore_one_can_wait() {
    guarded(|| {
        let limit = isize::MAX as usize / 2;
        assert!(catch_unwind(|| CappedSemaphore::new(0, limit + 1)).is_err());
        let semaphore = CappedSemaphore::new(0, limit);
        assert!(!semaphore.acquire_timeout(NOW));
        let semaphore = CappedSemaphore::new(limit, limit);
        assert!(!semaphore.release_timeout(NOW));
        semaphore.acquire();
        semaphore.release();
        assert!(semaphore.bounded());
    });
}

#[test]
fn a_guard_releases_as_its_greenlet_unwinds_and_in_destructors() {
    guarded(|| {
        let semaphore = Semaphore::new(1);
        let holder = spawn({
            let semaphore = semaphore.clone();
            move || {
                let second = semaphore.clone();
                let _waits = OnDrop(move || drop(second.access()));
                let _held = semaphore.access();
                sleep(HOUR);
            }
        });
        sleep(NOW);
        assert!(semaphore.try_access().is_none());
        let waiter = spawn({
            let semaphore = semaphore.clone();
            move || {
                let _held = semaphore.access();
                sleep(NOW);
            }
        });
        sleep(NOW);
        // The waiter gets it first; the destructor waits in line behind it.
        holder.kill();
        waiter.wait();
        while !holder.is_dead() {
            sleep(NOW);
        }
        assert_eq!(semaphore.balance(), 1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = semaphore.access();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert_eq!(semaphore.balance(), 1);
    });
}

#[test]
fn every_second_of_two_thousand_waiters_may_leave() {
    guarded(|| {
        let (semaphore, log) = (Semaphore::new(0), Log::default());
        let waiters = acquirers(&semaphore, 2_000, &log);
        for waiter in waiters.iter().skip(1).step_by(2) {
            waiter.kill();
        }
        assert_eq!(semaphore.balance(), -1_000);
        for _ in 0..1_000 {
            semaphore.release();
        }
        sleep(NOW);
        let expected: Vec<_> = (0..2_000).step_by(2).collect();
        assert_eq!(*log.borrow(), expected);
        assert_eq!(semaphore.balance(), 0);
    });
}
