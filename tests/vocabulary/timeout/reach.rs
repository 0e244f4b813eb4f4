//! Corner 23: whom it reaches, and where.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use stolon::event::Event;
use stolon::semaphore::Semaphore;
use stolon::timeout::{Timeout, with_timeout};
use stolon::{hub, sleep, spawn};

use super::{HOUR, MS, NOW, compute, raised_by};
use crate::util::leak::{guarded, simulated};
use crate::util::on_drop::OnDrop;

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
