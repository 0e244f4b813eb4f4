//! The payloads of panics that nobody takes: they are dropped, and what they hold is given back.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stolon::greenlet::{self, Greenlet};
use stolon::hub::{self, schedule_call_global};
use stolon::{sleep, spawn, spawn_n, tpool};

use crate::taken_since;
use crate::util::leak::simulated;
use crate::util::on_drop::OnDrop;
use crate::util::server::PATIENCE;

const MS: Duration = Duration::from_millis(1);
const BYTES: usize = 100_000;

/// Panics with a large payload. The panic hook is not called.
fn panic_large() {
    resume_unwind(Box::new(vec![1_u8; BYTES]));
}

/// Does `what` many times, on a hub in its order, and holds that less than a payload in all is taken
/// by that.
#[track_caller]
fn takes_nothing(mut what: impl FnMut() + Send + 'static) {
    simulated(move || {
        let mut some = || {
            for _ in 0..20 {
                what();
            }
            sleep(MS);
        };
        some();
        let taken = taken_since();
        some();
        let bytes = taken();
        assert!(bytes < BYTES, "{bytes} bytes");
    });
}

#[test]
fn a_message_that_panics_leaves_nothing() {
    takes_nothing(|| hub::handle().run(panic_large).unwrap());
}

#[test]
fn a_scheduled_call_that_panics_leaves_nothing() {
    takes_nothing(|| drop(schedule_call_global(Duration::ZERO, panic_large)));
}

#[test]
fn a_green_thread_that_panics_leaves_nothing() {
    takes_nothing(|| {
        spawn_n(panic_large);
        drop(spawn(panic_large));
        drop(hub::handle().spawn(panic_large).unwrap());
        spawn(|| ()).link(|_| panic_large());
    });
}

#[test]
fn a_local_value_whose_destructor_panics_leaves_nothing() {
    stolon::greenlet_local!(static LOCAL: OnDrop<fn()> = OnDrop(panic_large));
    takes_nothing(|| spawn(|| LOCAL.with(|_| ())).wait());
}

#[test]
fn a_greenlet_that_panics_as_it_is_dropped_leaves_nothing() {
    takes_nothing(|| {
        let main = greenlet::current::<()>();
        let greenlet = Greenlet::new(move |()| {
            let killed = catch_unwind(AssertUnwindSafe(|| main.switch(())));
            assert!(killed.is_err());
            panic_large();
        });
        greenlet.switch(()).unwrap();
        drop(greenlet);
    });
}

#[test]
fn what_is_thrown_into_a_scope_that_ends_leaves_nothing() {
    takes_nothing(|| {
        let thrown = catch_unwind(AssertUnwindSafe(|| {
            greenlet::scope(|scope| {
                let owner = greenlet::current::<()>();
                for _ in 0..3 {
                    let owner = owner.clone();
                    let member = scope.greenlet(move |()| {
                        let thrower = owner.clone();
                        // The owner waits for the end of this one, and gets a payload instead.
                        let _throws = OnDrop(move || {
                            drop(thrower.throw(Box::new(vec![1_u8; BYTES])));
                        });
                        drop(owner.switch(()));
                    });
                    member.switch(()).unwrap();
                }
            });
        }));
        assert_eq!(thrown.unwrap_err().downcast::<Vec<u8>>().unwrap().len(), BYTES);
    });
}

#[test]
fn a_greenlet_that_outlives_its_green_thread_and_panics_leaves_no_payload() {
    takes_nothing(|| {
        let orphan = spawn(|| {
            Greenlet::<()>::new(|()| {
                sleep(MS);
                panic_large();
            })
        });
        let orphan = orphan.join().unwrap();
        // Waits for what never comes: the parent of the other is dead, so the loop gets the panic.
        let starter = spawn(move || drop(orphan.switch(())));
        sleep(2 * MS);
        starter.kill();
    });
}

#[test]
fn a_payload_whose_destructor_panics_is_the_last_that_is_looked_at() {
    let mut count = 0;
    takes_nothing(move || {
        count += 1;
        // Once is enough: this payload is what may leak.
        if count == 1 {
            let raises = OnDrop(|| panic_any(7));
            hub::handle().run(|| resume_unwind(Box::new(raises))).unwrap();
        }
        sleep(MS);
    });
}

#[test]
fn a_payload_of_the_pools_threads_is_dropped() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    for _ in 0..10 {
        let (drops, is_dropped) = mpsc::channel::<()>();
        // Nobody waits for the result, whose destructor panics.
        drop(tpool::spawn(move || {
            let _ = is_dropped.recv();
            OnDrop(|| resume_unwind(Box::new(Counted)))
        }));
        drop(drops);
    }
    let start = Instant::now();
    while DROPPED.load(Ordering::Relaxed) < 10 {
        assert!(start.elapsed() < PATIENCE, "{} were dropped", DROPPED.load(Ordering::Relaxed));
        std::thread::yield_now();
    }
}
