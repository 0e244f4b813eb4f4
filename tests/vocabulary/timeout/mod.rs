//! Timeouts: which is raised, where, and what it does on its way. The numbers are those of
//! docs/semantics-eventlet.md.

mod reach;
mod scopes;
mod unwinding;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use stolon::event::Event;
use stolon::greenlet::{self, Greenlet};
use stolon::timeout::{TimedOut, Timeout, with_timeout};
use stolon::{sleep, spawn};

use crate::util::leak::guarded;

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
