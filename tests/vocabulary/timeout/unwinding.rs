//! Timeouts beside kills, in destructors, and while others unwind.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;

use stolon::event::Event;
use stolon::greenlet::{self, Greenlet, GreenletExit};
use stolon::semaphore::Semaphore;
use stolon::timeout::{Timeout, with_timeout};
use stolon::{hub, sleep, spawn};

use super::{HOUR, MS, NOW, raised_by};
use crate::util::leak::{guarded, simulated};
use crate::util::on_drop::OnDrop;

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
fn while_another_greenlet_unwinds_it_comes_in_time() {
    simulated(|| {
        let unwound = Event::new();
        let unwinds = spawn({
            let unwound = unwound.clone();
            move || {
                let _waits = OnDrop(|| {
                    unwound.send(()).unwrap();
                    sleep(HOUR);
                });
                resume_unwind(Box::new(1));
            }
        });
        unwound.wait();
        let start = hub::now();
        assert!(std::thread::panicking());
        assert!(with_timeout(MS, || sleep(HOUR)).is_err());
        assert!(hub::now() - start == MS && std::thread::panicking());
        // And that one goes on with its own.
        assert!(unwinds.join().is_err());
        assert!(hub::now() - start >= HOUR && !std::thread::panicking());
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
fn where_it_cannot_be_told_which_greenlet_unwinds_it_is_late_and_the_wait_ends_by_itself() {
    simulated(|| {
        let main = greenlet::current::<()>();
        let unwinds = Greenlet::new(move |()| {
            let _by_hand = OnDrop(|| main.switch(()).unwrap());
            resume_unwind(Box::new(1));
        });
        unwinds.switch(()).unwrap();
        let start = hub::now();
        let waited = with_timeout(MS, || {
            sleep(3 * MS);
            hub::now() - start
        });
        assert!(waited.unwrap() >= 3 * MS && std::thread::panicking());
        assert_eq!(raised_by(|| drop(unwinds.switch(()))).downcast_ref(), Some(&1));
        assert!(!std::thread::panicking());
        assert!(with_timeout(MS, || sleep(HOUR)).is_err());
        assert!(hub::now() - start == 4 * MS);
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
fn cancelled_too_late_it_is_not_raised_after_a_kill_that_came_before_it() {
    simulated(|| {
        let timeout = Rc::new(RefCell::new(None));
        let set = Rc::clone(&timeout);
        let waiter = spawn(move || {
            *set.borrow_mut() = Some(Timeout::new(MS));
            assert!(raised_by(|| sleep(HOUR)).is::<GreenletExit>());
            sleep(MS);
            sleep(NOW);
            let other = Timeout::new(MS);
            assert!(other.is(&*raised_by(|| sleep(HOUR))));
        });
        let waiter = Rc::new(waiter);
        sleep(NOW);
        let killed = Rc::clone(&waiter);
        // In the pass in which the timeout has just woken its greenlet.
        hub::schedule_call_global(MS, move || {
            timeout.borrow().as_ref().unwrap().cancel();
            killed.kill();
        });
        waiter.wait();
    });
}
