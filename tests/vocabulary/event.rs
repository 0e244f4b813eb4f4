//! Events: who gets what was sent, and when. The numbers are those of docs/semantics-eventlet.md.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::on_drop::OnDrop;
use stolon::event::{AlreadySent, Event, NotSent};
use stolon::greenlet::GreenletExit;
use stolon::{sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn raised_by<R>(f: impl FnOnce() -> R) -> Box<dyn Any + Send> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("nothing was raised"),
        Err(payload) => payload,
    }
}

// EV-01
#[test]
fn one_send_wakes_all_who_wait_also_if_each_then_fails() {
    guarded(|| {
        let event = Event::new();
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let event = event.clone();
                spawn(move || {
                    let value: u32 = event.wait();
                    std::panic::resume_unwind(Box::new(value));
                })
            })
            .collect();
        sleep(NOW);
        event.send(7).unwrap();
        for waiter in waiters {
            let payload = waiter.join().unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&7_u32));
        }
    });
}

// EV-02
#[test]
fn a_second_send_is_an_error_and_the_first_value_stays() {
    guarded(|| {
        let event = Event::new();
        assert!(!event.ready() && event.poll().is_none());
        assert_eq!(event.send("first"), Ok(()));
        assert_eq!(event.send("second"), Err(AlreadySent("second")));
        assert_eq!(event.send_exception(3), Err(AlreadySent(3)));
        let others = Rc::new(Cell::new(0));
        let counter = Rc::clone(&others);
        spawn(move || counter.set(counter.get() + 1));
        // Without switching.
        assert_eq!(event.wait(), "first");
        assert_eq!(event.wait_timeout(HOUR), Some("first"));
        assert_eq!(others.get(), 0);
        assert!(event.ready() && event.has_result() && !event.has_exception());
        assert_eq!((event.poll(), event.poll_result()), (Some("first"), Some("first")));
        assert!(event.poll_exception().is_none());
        sleep(NOW);
        assert_eq!(others.get(), 1);
    });
}

// EV-04
#[test]
fn an_exception_is_raised_at_each_wait_and_not_after_a_reset() {
    guarded(|| {
        let event = Event::<u32>::new();
        let waiter = spawn({
            let event = event.clone();
            move || event.wait()
        });
        sleep(NOW);
        event.send_exception("fault").unwrap();
        assert_eq!(waiter.join().unwrap_err().downcast_ref(), Some(&"fault"));
        for _ in 0..2 {
            assert_eq!(raised_by(|| event.wait()).downcast_ref(), Some(&"fault"));
            assert_eq!(raised_by(|| event.wait_timeout(HOUR)).downcast_ref(), Some(&"fault"));
            assert_eq!(raised_by(|| event.poll()).downcast_ref(), Some(&"fault"));
            assert_eq!(event.poll_exception().unwrap().downcast_ref(), Some(&"fault"));
        }
        assert!(event.ready() && event.has_exception() && !event.has_result());
        assert_eq!(event.poll_result(), None);
        assert_eq!(event.send(1), Err(AlreadySent(1)));
        event.reset().unwrap();
        assert_eq!(event.wait_timeout(MS), None);
        event.send(2).unwrap();
        assert_eq!(event.wait(), 2);
    });
}

// EV-05
#[test]
fn a_wait_with_a_timeout_ends_with_the_value_or_with_the_time() {
    guarded(|| {
        let event = Event::new();
        let start = Instant::now();
        assert_eq!(event.wait_timeout(10 * MS), None);
        assert!(start.elapsed() >= 10 * MS);
        let sender = event.clone();
        spawn(move || {
            sleep(10 * MS);
            sender.send(5).unwrap();
        });
        let start = Instant::now();
        assert_eq!(event.wait_timeout(HOUR), Some(5));
        assert!(start.elapsed() >= 10 * MS);
    });
}

// EV-06
#[test]
fn waiters_resume_in_the_order_in_which_they_came() {
    guarded(|| {
        let (event, log) = (Event::new(), Rc::new(RefCell::new(Vec::new())));
        for number in 0..8 {
            let (event, log) = (event.clone(), Rc::clone(&log));
            spawn(move || {
                event.wait();
                log.borrow_mut().push(number);
            });
        }
        sleep(NOW);
        event.send(()).unwrap();
        // D5: the sender goes on first.
        assert!(log.borrow().is_empty());
        sleep(NOW);
        assert_eq!(*log.borrow(), [0, 1, 2, 3, 4, 5, 6, 7]);
    });
}

// Corner 16.

#[test]
fn who_was_killed_or_timed_out_takes_nothing_from_the_others() {
    guarded(|| {
        let event = Event::new();
        let wait = |timeout| {
            let event = event.clone();
            spawn(move || event.wait_timeout(timeout))
        };
        let (killed, late, good) = (wait(HOUR), wait(NOW), wait(HOUR));
        sleep(NOW);
        killed.kill();
        assert_eq!(late.wait(), None);
        assert_eq!(
            format!("{event:?}"),
            "Event { ready: false, has_exception: false, waiting: 1, .. }"
        );
        event.send(1).unwrap();
        let also_killed = wait(HOUR);
        assert_eq!((good.wait(), also_killed.wait()), (Some(1), Some(1)));
        assert!(killed.join().unwrap_err().is::<GreenletExit>());
    });
}

#[test]
fn one_killed_between_the_send_and_its_turn_unwinds_and_the_others_get_the_value() {
    guarded(|| {
        let event = Event::new();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let event = event.clone();
                spawn(move || event.wait())
            })
            .collect();
        sleep(NOW);
        event.send(1).unwrap();
        waiters[0].kill();
        let ended: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().ok()).collect();
        assert_eq!(ended, [None, Some(1), Some(1)]);
    });
}

#[test]
fn a_reset_leaves_the_old_value_to_those_who_were_told_of_it() {
    guarded(|| {
        let event = Event::new();
        assert_eq!(event.reset(), Err(NotSent));
        let early = spawn({
            let event = event.clone();
            move || event.wait()
        });
        sleep(NOW);
        event.send("old").unwrap();
        event.reset().unwrap();
        assert_eq!(event.reset(), Err(NotSent));
        let late = spawn({
            let event = event.clone();
            move || event.wait()
        });
        sleep(NOW);
        event.send("new").unwrap();
        assert_eq!((early.wait(), late.wait()), ("old", "new"));
    });
}

#[test]
fn a_value_whose_clone_uses_the_event_and_waits_harms_nobody() {
    struct Odd(Event<Odd>, u32);

    impl Clone for Odd {
        fn clone(&self) -> Self {
            sleep(NOW);
            let _ = self.0.reset();
            Self(self.0.clone(), self.1 + 1)
        }
    }

    guarded(|| {
        let event = Event::<Odd>::new();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let event = event.clone();
                spawn(move || event.wait().1)
            })
            .collect();
        sleep(NOW);
        assert!(event.send(Odd(event.clone(), 1)).is_ok());
        for waiter in waiters {
            assert_eq!(waiter.wait(), 2);
        }
        assert!(!event.ready());
    });
}

#[test]
fn a_destructor_can_wait_for_an_event_while_it_unwinds() {
    guarded(|| {
        let event = Event::new();
        let seen = Rc::new(Cell::new(0));
        let green = spawn({
            let (event, seen) = (event.clone(), Rc::clone(&seen));
            move || {
                let _waits = OnDrop(|| seen.set(event.wait()));
                sleep(HOUR);
            }
        });
        sleep(NOW);
        let sender = event.clone();
        spawn(move || sender.send(9).unwrap());
        green.kill();
        assert_eq!(seen.get(), 0);
        sleep(NOW);
        assert_eq!((seen.get(), green.is_dead()), (9, true));
    });
}
