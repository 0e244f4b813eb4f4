//! Scheduled calls: when they come, in which order, and what they may do. On a simulated clock, where
//! time is exact, unless the test says otherwise.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::{guarded, simulated};
use stolon::greenlet::{self, Greenlet};
use stolon::hub::{self, Timer, schedule_call_global, schedule_call_local};
use stolon::{sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What happened, in order.
type Log = Rc<RefCell<Vec<&'static str>>>;

/// A call that writes `name` into the log.
fn note(log: &Log, delay: Duration, name: &'static str) -> Timer {
    let log = Rc::clone(log);
    schedule_call_global(delay, move || log.borrow_mut().push(name))
}

// Order.

// HB-01.
#[test]
fn calls_come_by_deadline_and_equal_ones_in_the_order_they_were_scheduled() {
    simulated(|| {
        let log = Log::default();
        note(&log, 2 * MS, "2d");
        note(&log, MS, "first d");
        note(&log, MS, "second d");
        sleep(3 * MS);
        assert_eq!(*log.borrow(), ["first d", "second d", "2d"]);
    });
}

// D14.
#[test]
fn deadlines_come_in_order_whatever_the_order_of_insertion() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    simulated(move || {
        for order in orders {
            let (log, start) = (Rc::new(RefCell::new(Vec::new())), hub::now());
            for n in order {
                let log = Rc::clone(&log);
                schedule_call_global(n * MS, move || {
                    log.borrow_mut().push((n, hub::now() - start))
                });
            }
            sleep(4 * MS);
            assert_eq!(*log.borrow(), [(1, MS), (2, 2 * MS), (3, 3 * MS)], "{order:?}");
        }
    });
}

// D14, corner 10.
#[test]
fn a_call_scheduled_by_a_call_comes_in_the_next_pass_even_if_it_is_due() {
    simulated(|| {
        let log = Log::default();
        let in_call = Rc::clone(&log);
        schedule_call_global(MS, move || {
            in_call.borrow_mut().push("t1");
            note(&in_call, NOW, "t1's child");
        });
        note(&log, MS, "t2");
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["t1", "t2", "t1's child"]);
    });
}

// HB-06.
#[test]
fn between_a_call_and_the_one_it_schedules_descriptors_are_looked_at() {
    simulated(|| {
        let (mut near, mut far) = crate::util::sockets::unix_pair();
        let log = Log::default();
        let [in_reader, in_first, in_second] = [(); 3].map(|()| Rc::clone(&log));
        let reader = spawn(move || {
            std::io::Read::read_exact(&mut far, &mut [0]).unwrap();
            in_reader.borrow_mut().push("reader");
        });
        schedule_call_global(MS, move || {
            in_first.borrow_mut().push("first");
            std::io::Write::write_all(&mut near, b"!").unwrap();
            schedule_call_global(NOW, move || {
                in_second.borrow_mut().push("second");
                note(&in_second, NOW, "third");
            });
        });
        note(&log, MS, "due with the first");
        reader.wait();
        sleep(MS);
        // The byte was seen before the second, so the reader had its turn before the third.
        assert_eq!(*log.borrow(), ["first", "due with the first", "second", "reader", "third"]);
    });
}

#[test]
fn calls_that_schedule_each_other_without_end_starve_nobody() {
    fn again(count: Rc<Cell<u32>>) {
        count.set(count.get() + 1);
        schedule_call_global(NOW, move || again(count));
    }
    guarded(|| {
        let count = Rc::new(Cell::new(0));
        again(Rc::clone(&count));
        let (near, mut far) = crate::util::sockets::pair();
        let reader = spawn(move || std::io::Read::read(&mut far, &mut [0; 8]).unwrap());
        sleep(MS);
        spawn(move || std::io::Write::write_all(&mut &near, b"byte").unwrap()).wait();
        assert_eq!(reader.wait(), 4);
        assert!(count.get() > 2);
        assert_eq!(hub::abort(), 1);
    });
}

#[test]
fn sleepers_and_calls_of_one_moment_are_served_in_order_of_insertion() {
    simulated(|| {
        let log = Log::default();
        let sleeper = |name| {
            let log = Rc::clone(&log);
            spawn(move || {
                sleep(MS);
                log.borrow_mut().push(name);
            })
        };
        let first = sleeper("first sleeper");
        sleep(NOW);
        note(&log, MS, "call");
        let second = sleeper("second sleeper");
        first.wait();
        second.wait();
        // The loop wakes the one and calls the other in order; who was woken runs after that.
        assert_eq!(*log.borrow(), ["call", "first sleeper", "second sleeper"]);
    });
}

// Local ones.

// HB-03, corner 10.
#[test]
fn of_a_greenlet_that_has_ended_only_the_global_call_comes() {
    simulated(|| {
        let log = Log::default();
        let in_green = Rc::clone(&log);
        let ended = spawn(move || {
            let in_local = Rc::clone(&in_green);
            schedule_call_local(MS, move || in_local.borrow_mut().push("local"));
            note(&in_green, MS, "global");
        });
        ended.wait();
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["global"]);
    });
}

#[test]
fn a_local_call_comes_while_its_greenlet_waits_and_not_when_it_was_killed() {
    simulated(|| {
        let calls = Rc::new(Cell::new(0));
        let start = || {
            let calls = Rc::clone(&calls);
            spawn(move || {
                schedule_call_local(MS, move || calls.set(calls.get() + 1));
                sleep(HOUR);
            })
        };
        let (living, killed) = (start(), start());
        sleep(NOW);
        killed.kill();
        sleep(2 * MS);
        assert_eq!(calls.get(), 1);
        assert_eq!(Rc::strong_count(&calls), 1, "what is not called is dropped when it is due");
        living.kill();
        // That of main, which does not die.
        let in_main = Rc::clone(&calls);
        schedule_call_local(MS, move || in_main.set(7));
        sleep(2 * MS);
        assert_eq!(calls.get(), 7);
    });
}

#[test]
fn a_local_call_keeps_its_greenlet_from_nothing() {
    simulated(|| {
        let (main, calls) = (greenlet::current::<()>(), Rc::new(Cell::new(0)));
        let in_call = Rc::clone(&calls);
        let plain = Greenlet::new(move |()| {
            schedule_call_local(MS, move || in_call.set(1));
            main.switch(()).unwrap();
        });
        plain.switch(()).unwrap();
        let live = greenlet::all().len();
        drop(plain);
        assert_eq!(greenlet::all().len(), live - 1, "it was unwound with its last handle");
        // Its block is not given to another meanwhile, which would be taken for it.
        let others: Vec<_> = (0..10).map(|_| Greenlet::<()>::new(|()| ())).collect();
        sleep(2 * MS);
        assert_eq!(calls.get(), 0);
        drop(others);
    });
}

// Handles.

#[test]
fn dropping_the_handle_cancels_nothing() {
    simulated(|| {
        let log = Log::default();
        drop(note(&log, MS, "called"));
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["called"]);
    });
}

// D14, HB-04.
#[test]
fn a_cancelled_call_never_comes_and_what_it_holds_is_dropped_at_once() {
    simulated(|| {
        let held = Rc::new(Cell::new(0));
        let timers: Vec<Timer> = (0..2000)
            .map(|n| {
                let held = Rc::clone(&held);
                schedule_call_global(n * MS, move || held.set(n))
            })
            .collect();
        assert_eq!(Rc::strong_count(&held), 2001);
        for (cancelled, timer) in (1..).zip(&timers) {
            assert!(timer.is_pending());
            assert!(timer.cancel());
            assert!(!timer.is_pending());
            assert_eq!(Rc::strong_count(&held), 2001 - cancelled);
        }
        // And each by itself, with never more than one there.
        for n in 0..2000 {
            assert!(schedule_call_global(n * MS, || unreachable!()).cancel());
        }
        sleep(3000 * MS);
        assert_eq!(held.get(), 0);
        assert!(timers.iter().all(|timer| !timer.cancel()));
        assert_eq!(hub::abort(), 0);
    });
}

#[test]
fn one_that_is_scheduled_in_the_place_of_a_cancelled_one_comes_at_its_own_time() {
    simulated(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        for n in 1..10 {
            assert!(schedule_call_global(n * MS, || unreachable!()).cancel());
            let (log, start) = (Rc::clone(&log), hub::now());
            schedule_call_global(HOUR, move || log.borrow_mut().push(hub::now() - start));
        }
        sleep(2 * HOUR);
        assert_eq!(*log.borrow(), [HOUR; 9]);
    });
}

// Corner 10.
#[test]
fn cancelling_is_idempotent_and_legal_after_the_call() {
    simulated(|| {
        let log = Log::default();
        let timer = note(&log, MS, "called");
        let twin = timer.clone();
        assert_eq!(format!("{timer:?}"), "Timer(pending)");
        sleep(2 * MS);
        assert!(!timer.cancel() && !timer.cancel() && !twin.cancel());
        // Its place is another's by now.
        let other = note(&log, MS, "other");
        assert!(!timer.cancel() && !timer.is_pending() && other.is_pending());
        assert!(!timer.reschedule(HOUR));
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["called", "other"]);
        assert_eq!(format!("{timer:?}"), "Timer(over)");
    });
}

#[test]
fn a_call_may_cancel_others_that_are_due_in_the_same_pass_and_not_itself() {
    simulated(|| {
        let log = Log::default();
        let timers: Rc<RefCell<Vec<Timer>>> = Rc::default();
        let (in_call, of_call) = (Rc::clone(&log), Rc::clone(&timers));
        let itself = schedule_call_global(MS, move || {
            let timers = of_call.borrow();
            let cancelled: Vec<_> = timers.iter().map(Timer::cancel).collect();
            // Itself is under way, the one before has come; the others are due, or far.
            assert_eq!(cancelled, [false, false, true, true]);
            assert!(!timers[0].is_pending());
            in_call.borrow_mut().push("canceller");
        });
        let before = note(&log, MS / 2, "before");
        let [same, far] = [MS, HOUR].map(|delay| note(&log, delay, "cancelled"));
        *timers.borrow_mut() = vec![itself, before, same, far];
        note(&log, MS, "last");
        sleep(2 * HOUR);
        assert_eq!(*log.borrow(), ["before", "canceller", "last"]);
    });
}

// Arming again.

#[test]
fn a_call_may_schedule_itself_again_and_again() {
    fn tick(log: &Rc<RefCell<Vec<Duration>>>, start: Instant) {
        log.borrow_mut().push(hub::now() - start);
        if log.borrow().len() < 4 {
            let log = Rc::clone(log);
            schedule_call_global(10 * MS, move || tick(&log, start));
        }
    }
    simulated(|| {
        let log = Rc::default();
        tick(&log, hub::now());
        sleep(HOUR);
        assert_eq!(*log.borrow(), [NOW, 10 * MS, 20 * MS, 30 * MS]);
    });
}

#[test]
fn a_pending_call_that_is_rescheduled_comes_once_and_at_the_new_time() {
    simulated(|| {
        let log = Log::default();
        let (later, sooner) = (note(&log, MS, "later"), note(&log, HOUR, "sooner"));
        assert!(later.reschedule(3 * MS) && sooner.reschedule(2 * MS));
        // A watchdog that is put off again and again.
        let watchdog = note(&log, 2 * MS, "watchdog");
        for _ in 0..10 {
            sleep(MS);
            assert!(watchdog.reschedule(2 * MS));
        }
        assert_eq!(*log.borrow(), ["sooner", "later"]);
        sleep(2 * HOUR);
        assert_eq!(*log.borrow(), ["sooner", "later", "watchdog"]);
        assert!(!watchdog.reschedule(MS));
    });
}

#[test]
fn one_rescheduled_in_a_pass_does_not_come_in_it() {
    simulated(|| {
        let log = Log::default();
        let other: Rc<RefCell<Option<Timer>>> = Rc::default();
        let of_call = Rc::clone(&other);
        schedule_call_global(MS, move || {
            assert!(of_call.borrow().as_ref().unwrap().reschedule(NOW));
        });
        *other.borrow_mut() = Some(note(&log, MS, "put off"));
        note(&log, MS, "due");
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["due", "put off"]);
    });
}

// Deadlines.

#[test]
fn what_is_overdue_comes_at_once_in_order_of_deadlines() {
    simulated(|| {
        let log = Log::default();
        note(&log, 3 * MS, "third");
        note(&log, MS, "first");
        note(&log, 2 * MS, "second");
        let start = hub::now();
        // The loop has no turn for an hour.
        hub::advance(HOUR);
        note(&log, NOW, "due now");
        assert!(log.borrow().is_empty());
        sleep(Duration::from_nanos(1));
        assert_eq!(*log.borrow(), ["first", "second", "third", "due now"]);
        assert_eq!(hub::now() - start, HOUR + Duration::from_nanos(1));
    });
}

#[test]
fn a_deadline_in_the_far_future_comes_and_one_beyond_all_never_does() {
    simulated(|| {
        let log = Log::default();
        let never = note(&log, Duration::MAX, "never");
        let beyond = note(&log, 600 * YEAR, "beyond");
        note(&log, 500 * YEAR, "far");
        sleep(499 * YEAR);
        assert!(log.borrow().is_empty());
        sleep(2 * YEAR);
        assert_eq!(*log.borrow(), ["far"]);
        assert!(never.cancel() && beyond.is_pending());
    });
}

#[test]
fn a_call_that_never_comes_hides_no_deadlock() {
    simulated(|| {
        schedule_call_global(Duration::MAX, || unreachable!());
        let report = catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX))).unwrap_err();
        assert!(report.downcast_ref::<String>().unwrap().contains("would block forever"));
    });
}

// On the real clock.
#[test]
fn with_far_deadlines_pending_the_real_hub_sleeps_as_long_as_it_should() {
    guarded(|| {
        let timers = [500 * YEAR, Duration::MAX, HOUR].map(|delay| {
            schedule_call_global(delay, || unreachable!());
            schedule_call_global(delay, || unreachable!())
        });
        let (called, start) = (Rc::new(Cell::new(None)), Instant::now());
        let in_call = Rc::clone(&called);
        schedule_call_global(5 * MS, move || in_call.set(Some(start.elapsed())));
        sleep(20 * MS);
        assert!(start.elapsed() >= 20 * MS && called.get().unwrap() >= 5 * MS);
        assert!(timers.iter().all(Timer::cancel));
        assert_eq!(hub::abort(), 3);
    });
}
