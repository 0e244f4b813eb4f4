//! Timeouts: which is raised, where, and what it does on its way. The numbers are those of
//! docs/semantics-eventlet.md.

mod util;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::event::Event;
use stolon::green::net::{TcpListener, TcpStream};
use stolon::greenlet::{self, Greenlet, GreenletExit};
use stolon::hub;
use stolon::semaphore::Semaphore;
use stolon::timeout::{AlreadyStarted, TimedOut, Timeout, is_timeout, with_timeout};
use stolon::{sleep, spawn};
use util::leak::guarded;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

type Payload = Box<dyn Any + Send>;

fn raised_by<R>(f: impl FnOnce() -> R) -> Payload {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("nothing was raised"),
        Err(payload) => payload,
    }
}

fn compute(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {}
}

/// As [`guarded`], on a simulated hub, as it is about time.
fn simulated(body: impl FnOnce() + Send + 'static) {
    guarded(|| hub::simulated(1).in_order().run(body));
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

// TO-01
#[test]
fn of_nested_timeouts_the_one_that_expires_first_is_raised() {
    guarded(|| {
        let outer = Timeout::new(MS);
        let inner = Timeout::new(HOUR);
        assert!(outer.pending() && inner.pending());
        let payload = raised_by(|| inner.catch(|| sleep(HOUR)));
        assert!(outer.is(&*payload) && !inner.is(&*payload));
        assert!(!outer.pending() && !inner.pending());

        let outer = Timeout::new(HOUR);
        let inner = Timeout::new(MS);
        let ended = inner.catch(|| sleep(HOUR));
        assert!(ended.unwrap_err().is_of(&inner));
        assert!(outer.pending() && !inner.pending());
    });
}

// TO-03
#[test]
fn the_outer_timeout_escapes_an_inner_one_with_a_value() {
    guarded(|| {
        let ended = with_timeout(MS, || with_timeout(HOUR, || sleep(HOUR)).is_err());
        assert_eq!(ended.unwrap_err().duration(), MS);
        let value = with_timeout(HOUR, || with_timeout(MS, || sleep(HOUR)).map_or(2, |()| 1));
        assert_eq!(value, Ok(2));
    });
}

// TO-04
#[test]
fn what_never_yields_is_not_interrupted_but_at_its_next_yield() {
    guarded(|| {
        assert_eq!(with_timeout(MS, || compute(3 * MS)), Ok(()));
        // Alone, and with another that is runnable.
        for others in 0..2 {
            let green = (others > 0).then(|| spawn(|| (0..10).for_each(|_| sleep(NOW))));
            let reached = Cell::new(0);
            let ended = with_timeout(MS, || {
                compute(3 * MS);
                reached.set(1);
                sleep(NOW);
                reached.set(2);
            });
            assert!(ended.is_err());
            assert_eq!(reached.get(), 1);
            green.inspect(|green| green.wait());
        }
    });
}

#[test]
fn one_that_only_ever_yields_is_interrupted_in_time() {
    guarded(|| {
        let start = Instant::now();
        let ended = with_timeout(5 * MS, || {
            loop {
                sleep(NOW);
            }
        });
        assert!(ended.is_err() && start.elapsed() >= 5 * MS);
    });
}

// TO-05
#[test]
fn a_scope_that_ends_early_cancels_its_timeout() {
    guarded(|| {
        let start = Instant::now();
        assert_eq!(with_timeout(5 * MS, || 1), Ok(1));
        drop(Timeout::new(5 * MS));
        sleep(10 * MS);
        // That it is over is an error of nobody's, and the hub has nothing left to wait for.
        assert!(start.elapsed() >= 10 * MS);
        let never = Event::<()>::new();
        let text = raised_by(|| never.wait());
        assert!(text.downcast_ref::<String>().unwrap().contains("block forever"));
    });
}

// TO-06
#[test]
fn what_is_raised_can_be_chosen() {
    guarded(|| {
        let timeout = Timeout::raising(MS, "too late");
        let payload = raised_by(|| sleep(HOUR));
        assert_eq!(payload.downcast_ref(), Some(&"too late"));
        assert!(!timeout.is(&*payload) && !is_timeout(&*payload) && !timeout.pending());

        let timeout = Timeout::new(MS);
        let payload = raised_by(|| timeout.scope(|| sleep(HOUR)));
        assert!(timeout.is(&*payload) && is_timeout(&*payload));

        let silent = Timeout::silent(MS);
        assert_eq!(silent.scope(|| sleep(HOUR)), None);
        assert_eq!(silent.scope(|| 5), Some(5));
        // Silent is a matter of its own scope.
        let outer = Timeout::silent(MS);
        assert!(outer.is(&*raised_by(|| Timeout::silent(HOUR).scope(|| sleep(HOUR)))));

        let never = Timeout::new(None);
        assert!(!never.pending() && never.duration().is_none());
        assert_eq!(never.catch(|| sleep(MS)), Ok(()));
        assert_eq!(with_timeout(None, || 1), Ok(1));
    });
}

#[test]
fn timeouts_tell_how_long_they_are() {
    guarded(|| {
        let text = |timeout: Timeout| timeout.to_string();
        assert_eq!(text(Timeout::new(Duration::from_secs(1))), "1 second");
        assert_eq!(text(Timeout::new(Duration::from_secs(2))), "2 seconds");
        assert_eq!(text(Timeout::silent(Duration::from_secs(2))), "2 seconds (silent)");
        assert_eq!(text(Timeout::new(None)), "");
        let timed_out = with_timeout(MS, || sleep(HOUR)).unwrap_err();
        let error = io::Error::from(timed_out);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "timed out after 0.001 seconds");
        assert!(is_timeout(&error) && !is_timeout(&"timeout"));
    });
}

// TO-07
#[test]
fn a_timeout_cancelled_in_its_scope_does_nothing_and_a_pending_one_cannot_be_started() {
    guarded(|| {
        let timeout = Timeout::new(MS);
        let cancelled = timeout.catch(|| {
            timeout.cancel();
            timeout.cancel();
            sleep(5 * MS);
        });
        assert_eq!(cancelled, Ok(()));
        assert_eq!(timeout.start(), Ok(()));
        assert_eq!(timeout.start(), Err(AlreadyStarted));
        assert!(timeout.pending());
        // Once more after it has expired.
        for _ in 0..2 {
            assert!(timeout.catch(|| sleep(HOUR)).is_err() && !timeout.pending());
            timeout.start().unwrap();
        }
    });
}

// TO-08
#[test]
fn a_timeout_is_no_error_that_ordinary_code_could_handle() {
    guarded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let handled = Cell::new(false);
        let ended = with_timeout(MS, || {
            // A library that takes any error for the end.
            handled.set(client.read(&mut [0; 8]).is_err());
        });
        assert!(ended.is_err() && !handled.get());
        // The socket is as it was.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    });
}

// TO-09
#[test]
fn a_timeout_of_zero_beats_a_sleep_of_zero() {
    guarded(|| {
        let reached = Cell::new(false);
        let ended = with_timeout(NOW, || {
            sleep(NOW);
            reached.set(true);
        });
        assert!(ended.is_err() && !reached.get());
        assert_eq!(with_timeout(NOW, || 1), Ok(1));
    });
}

#[test]
fn a_timeout_wins_over_a_sleep_that_ends_at_the_same_moment() {
    guarded(|| {
        for seed in 0..20 {
            hub::simulated(seed).run(|| {
                assert!(with_timeout(HOUR, || sleep(HOUR)).is_err());
                let later = HOUR + Duration::from_nanos(1);
                assert_eq!(with_timeout(later, || sleep(HOUR)), Ok(()));
            });
        }
    });
}

#[test]
fn who_sets_timeouts_of_zero_in_a_loop_starves_nobody() {
    guarded(|| {
        let done = Rc::new(Cell::new(false));
        let sets = Rc::clone(&done);
        spawn(move || {
            sleep(MS);
            sets.set(true);
        });
        while !done.get() {
            assert!(with_timeout(NOW, || sleep(HOUR)).is_err());
        }
        done.set(false);
        let sets = Rc::clone(&done);
        spawn(move || sets.set(true));
        assert!(with_timeout(NOW, || sleep(NOW)).is_err());
        assert!(done.get());
    });
}

// Corner 23.

#[test]
fn of_those_that_have_expired_the_earliest_is_raised_and_then_the_next() {
    guarded(|| {
        let [late, early] = [2 * MS, MS].map(Timeout::new);
        compute(4 * MS);
        assert!(early.is(&*raised_by(|| sleep(HOUR))) && late.pending());
        assert!(late.is(&*raised_by(|| sleep(NOW))) && !late.pending());
        sleep(NOW);
    });
}

#[test]
fn it_unwinds_any_depth_of_blocking_code_and_destructors_run() {
    fn deep(depth: u32, dropped: &Cell<u32>) {
        let _counts = OnDrop(|| dropped.set(dropped.get() + 1));
        if depth == 0 { Event::<()>::new().wait() } else { deep(depth - 1, dropped) }
    }
    guarded(|| {
        let dropped = Cell::new(0);
        assert!(with_timeout(MS, || deep(20, &dropped)).is_err());
        assert_eq!(dropped.get(), 21);
    });
}

#[test]
fn who_has_been_woken_goes_on_and_gets_it_at_the_next_wait() {
    simulated(|| {
        let event = Event::new();
        let green = spawn({
            let event = event.clone();
            move || {
                let got = Cell::new(0);
                let ended = with_timeout(5 * MS, || {
                    got.set(event.wait());
                    sleep(HOUR);
                });
                (got.get(), ended.is_err())
            }
        });
        sleep(NOW);
        event.send(3).unwrap();
        hub::advance(10 * MS);
        assert_eq!(green.wait(), (3, true));
    });
}

#[test]
fn a_waiter_that_times_out_swallows_no_wake_up() {
    guarded(|| {
        let semaphore = Semaphore::new(0);
        let doomed = spawn({
            let semaphore = semaphore.clone();
            move || with_timeout(MS, || semaphore.acquire()).is_err()
        });
        let good = spawn({
            let semaphore = semaphore.clone();
            move || semaphore.acquire_timeout(HOUR)
        });
        assert!(doomed.wait());
        assert_eq!(semaphore.balance(), -1);
        semaphore.release();
        assert!(good.wait());
    });
}

#[test]
fn a_timeout_is_for_the_greenlet_that_started_it() {
    guarded(|| {
        let timeout = Rc::new(Timeout::new(MS));
        let held = Rc::clone(&timeout);
        let green = spawn(move || {
            sleep(5 * MS);
            drop(held);
        });
        // Raised here and not there.
        assert!(timeout.is(&*raised_by(|| sleep(HOUR))));
        green.wait();
        let other = Rc::clone(&timeout);
        let green = spawn(move || {
            other.start().unwrap();
            other.is(&*raised_by(|| sleep(HOUR)))
        });
        assert!(green.wait());
    });
}

#[test]
fn another_greenlet_may_cancel_it_and_the_wait_goes_on() {
    simulated(|| {
        let [first, second] = [5 * MS, 10 * MS].map(|duration| Rc::new(Timeout::new(duration)));
        let cancels = Rc::clone(&first);
        spawn(move || cancels.cancel());
        let start = hub::now();
        assert!(second.is(&*raised_by(|| sleep(HOUR))));
        assert_eq!(hub::now() - start, 10 * MS);
        // With none left the sleep is as long as it is.
        second.start().unwrap();
        let cancels = Rc::clone(&second);
        spawn(move || cancels.cancel());
        let start = hub::now();
        sleep(20 * MS);
        assert_eq!(hub::now() - start, 20 * MS);
    });
}

#[test]
fn cancelled_by_another_after_it_has_woken_its_greenlet_it_is_raised() {
    guarded(|| {
        let timeout = Rc::new(Timeout::new(HOUR));
        timeout.cancel();
        let log = Rc::new(RefCell::new(Vec::new()));
        let green = spawn({
            let (timeout, log) = (Rc::new(Timeout::new(None)), Rc::clone(&log));
            move || {
                let short = Rc::new(Timeout::new(2 * MS));
                let cancels = Rc::clone(&short);
                // Its timer fires in the same pass, after that of the timeout.
                spawn(move || {
                    compute(4 * MS);
                    sleep(NOW);
                    cancels.cancel();
                });
                let ended = timeout.catch(|| short.catch(|| sleep(20 * MS)));
                log.borrow_mut().push(ended.unwrap().is_err());
            }
        });
        green.wait();
        assert_eq!(log.borrow().len(), 1);
        sleep(30 * MS);
    });
}

// Kills and unwinding.

#[test]
fn a_kill_goes_through_timeouts_and_cancels_them() {
    guarded(|| {
        let seen = Rc::new(Cell::new(None));
        let green = spawn({
            let seen = Rc::clone(&seen);
            move || {
                let timeout = Timeout::new(HOUR);
                let payload = raised_by(|| timeout.catch(|| sleep(HOUR)));
                seen.set(Some((payload.is::<GreenletExit>(), timeout.pending())));
                resume_unwind(payload);
            }
        });
        sleep(NOW);
        green.kill();
        assert_eq!(seen.get(), Some((true, false)));
        assert!(green.join().unwrap_err().is::<GreenletExit>());
    });
}

#[test]
fn it_does_not_expire_in_a_destructor_while_its_greenlet_unwinds_but_afterwards() {
    guarded(|| {
        let green = spawn(|| {
            let timeout = Timeout::new(MS);
            let slept = Cell::new(false);
            let payload = raised_by(|| {
                let _waits = OnDrop(|| {
                    sleep(5 * MS);
                    sleep(NOW);
                    slept.set(true);
                });
                resume_unwind(Box::new(1));
            });
            assert_eq!(payload.downcast_ref(), Some(&1));
            assert!(slept.get() && timeout.pending());
            assert!(timeout.is(&*raised_by(|| sleep(HOUR))));
        });
        green.wait();
    });
}

#[test]
fn while_another_greenlet_unwinds_it_is_late_but_comes() {
    simulated(|| {
        let unwound = Event::new();
        let unwinds = spawn({
            let unwound = unwound.clone();
            move || {
                let _waits = OnDrop(|| {
                    unwound.send(()).unwrap();
                    sleep(10 * MS);
                });
                resume_unwind(Box::new(1));
            }
        });
        unwound.wait();
        // It cannot know that it is not the one.
        let start = hub::now();
        assert!(std::thread::panicking());
        assert!(with_timeout(MS, || sleep(HOUR)).is_err());
        assert!(hub::now() - start < HOUR && !std::thread::panicking());
        assert!(unwinds.join().is_err());
    });
}

#[test]
fn parked_before_another_unwinds_it_is_not_late() {
    simulated(|| {
        let start = Event::new();
        let unwinds = spawn({
            let start = start.clone();
            move || {
                let _waits = OnDrop(|| {
                    start.send(()).unwrap();
                    sleep(50 * MS);
                });
                sleep(MS);
                resume_unwind(Box::new(1));
            }
        });
        let panicking = Cell::new(false);
        let ended = with_timeout(10 * MS, || {
            let _asks = OnDrop(|| panicking.set(!unwinds.is_dead()));
            sleep(HOUR);
        });
        assert!(ended.is_err() && panicking.get());
        assert!(unwinds.join().is_err());
    });
}

#[test]
fn a_late_timeout_lets_its_wait_end_by_itself_and_by_its_own_time() {
    simulated(|| {
        let unwound = Event::new();
        let green = spawn({
            let unwound = unwound.clone();
            move || {
                let _waits = OnDrop(|| {
                    unwound.send(()).unwrap();
                    sleep(20 * MS);
                });
                resume_unwind(Box::new(1));
            }
        });
        unwound.wait();
        let start = hub::now();
        let waited = with_timeout(MS, || {
            sleep(3 * MS);
            hub::now() - start
        });
        assert!(waited.unwrap() >= 3 * MS && std::thread::panicking());
        assert!(green.join().is_err());
        sleep(NOW);
    });
}

#[test]
fn a_timeout_may_be_set_in_a_destructor_and_by_the_main_greenlet() {
    guarded(|| {
        let green = spawn(|| {
            let _sets = OnDrop(|| drop(with_timeout(MS, || Semaphore::new(1).acquire())));
            sleep(HOUR);
        });
        sleep(NOW);
        green.kill();
        assert!(green.is_dead());
        assert!(greenlet::current::<()>().parent::<()>().is_none());
        assert!(with_timeout(MS, || sleep(HOUR)).is_err());
    });
}

#[test]
fn a_greenlet_that_ends_with_a_timeout_forgotten_leaves_none_to_the_next() {
    guarded(|| {
        for _ in 0..3 {
            spawn(|| std::mem::forget(Timeout::new(NOW))).wait();
        }
        for _ in 0..3 {
            spawn(|| {
                let _other = Timeout::new(HOUR);
                sleep(NOW);
                sleep(MS);
            })
            .wait();
        }
    });
}

#[test]
fn a_greenlet_that_is_switched_by_hand_gets_its_timeout_when_it_waits() {
    guarded(|| {
        let main = greenlet::current::<u32>();
        let by_hand = Greenlet::new(move |_: u32| {
            let ended = with_timeout(MS, || {
                let value = main.switch(1).unwrap();
                sleep(HOUR);
                value
            });
            assert!(ended.is_err());
            3
        });
        assert_eq!(by_hand.switch(0).unwrap(), 1);
        compute(2 * MS);
        sleep(2 * MS);
        assert_eq!(by_hand.switch(2).unwrap(), 3);
    });
}

#[test]
fn a_hundred_thousand_timeouts_set_and_cancelled_leave_nothing() {
    guarded(|| {
        let outer = Timeout::new(HOUR);
        for _ in 0..100_000 {
            assert!(with_timeout(HOUR, || ()).is_ok());
        }
        // Nor does one that its greenlet was parked with.
        let event = Event::new();
        let sender = event.clone();
        spawn(move || sender.send(1).unwrap());
        assert_eq!(with_timeout(HOUR, || event.wait()), Ok(1));
        outer.cancel();
        // With a timer left it would not be so sure.
        let text = raised_by(|| Event::<()>::new().wait());
        assert!(text.downcast_ref::<String>().unwrap().contains("block forever"));
        assert!(!text.is::<TimedOut>());
    });
}
