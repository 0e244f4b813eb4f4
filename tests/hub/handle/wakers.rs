//! Wakers, in threads and signal handlers; and when nobody is left who could wake.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Instant;

use stolon::hub::{self, Waiter, Waker};
use stolon::{GreenThread, sleep, spawn};

use super::{AGE, MS, NOW, text_of};
use crate::util::child;
use crate::util::leak::guarded;
use crate::util::server::PATIENCE;

#[test]
fn a_waker_wakes_from_another_thread_before_and_during_the_wait() {
    guarded(|| {
        for early in [true, false] {
            let mut waiter = Waiter::new();
            let (waker, (go, wait)) = (waiter.waker(), mpsc::channel());
            let thread = thread::spawn(move || {
                wait.recv().unwrap();
                waker.wake()
            });
            if early {
                go.send(()).unwrap();
            } else {
                // This runs when the main greenlet waits.
                spawn(move || go.send(()).unwrap());
            }
            while early && !thread.is_finished() {
                thread::yield_now();
            }
            waiter.wait();
            assert!(thread.join().unwrap());
        }
    });
}

#[test]
fn several_wakes_count_as_one_and_a_waiter_may_wait_again() {
    guarded(|| {
        let mut waiter = Waiter::new();
        let waker = waiter.waker();
        for _ in 0..3 {
            assert!(waker.wake());
            assert!(!waker.wake() && !waker.clone().wake());
            waiter.wait();
            assert!(!waiter.wait_timeout(NOW));
            let start = Instant::now();
            assert!(!waiter.wait_timeout(2 * MS));
            assert!(start.elapsed() >= 2 * MS);
        }
    });
}

// Corner 8: a wake-up that belongs to an earlier wait never ends a later one.
#[test]
fn a_late_wake_ends_no_other_wait() {
    guarded(|| {
        let late: Vec<_> = (0..200).map(|_| Waiter::new().waker()).collect();
        let mut waiters: Vec<_> = (0..200).map(|_| Waiter::new()).collect();
        assert!(late.iter().all(|waker| !waker.wake()));
        let waiting = |mut waiter: Waiter| spawn(move || waiter.wait_timeout(3 * MS));
        let waiting: Vec<_> = waiters.drain(..).map(waiting).collect();
        sleep(NOW);
        assert!(late.iter().all(|waker| !waker.wake()));
        assert!(!waiting.iter().any(GreenThread::wait));
        // Nor a wait of another kind of the same greenlet.
        let waiter = Waiter::new();
        assert!(waiter.waker().wake());
        let start = Instant::now();
        sleep(3 * MS);
        assert!(start.elapsed() >= 3 * MS);
        drop(waiter);
    });
}

#[test]
fn a_killed_waiter_is_not_woken() {
    guarded(|| {
        let waker = Rc::new(RefCell::new(None));
        let given = Rc::clone(&waker);
        let waiting = spawn(move || {
            let mut waiter = Waiter::new();
            *given.borrow_mut() = Some(waiter.waker());
            waiter.wait();
        });
        sleep(NOW);
        let waker = waker.take().unwrap();
        waiting.kill();
        assert!(!waker.wake());
    });
}

// Deadlocks.

/// Whether the main greenlet hears at once that nothing can wake it.
pub(crate) fn reports_deadlock() -> bool {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut forgotten = Waiter::new();
        forgotten.wait();
    }));
    let report = text_of(ended.unwrap_err());
    report.contains("would block forever") && report.contains("a waker")
}

#[test]
fn a_deadlock_is_reported_when_no_handle_and_no_waker_is_left() {
    guarded(|| {
        assert!(reports_deadlock());
        // They are made, and go.
        drop(hub::handle());
        let waker = Waiter::new().waker();
        thread::spawn(move || drop(waker.clone())).join().unwrap();
        assert!(reports_deadlock());
    });
}

#[test]
fn a_deadlock_is_reported_when_the_last_handle_goes_while_all_wait() {
    guarded(|| {
        for _ in 0..20 {
            let (go, wait) = mpsc::channel::<()>();
            let handle = hub::handle();
            let thread = thread::spawn(move || {
                wait.recv().unwrap();
                drop(handle);
            });
            spawn(move || go.send(()).unwrap());
            assert!(reports_deadlock());
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_deadlock_is_reported_while_what_was_sent_last_is_still_to_be_done() {
    guarded(|| {
        for _ in 0..200 {
            let mut waiter = Waiter::new();
            let slot = Rc::new(Cell::new(false));
            let (handle, waker) = (hub::handle(), waiter.waker());
            // The handle and the waker are gone by the time that the hub looks, or are not.
            let thread = thread::spawn(move || {
                let wake = move || {
                    waker.wake();
                };
                handle.run(wake).unwrap();
            });
            waiter.wait();
            slot.set(true);
            thread.join().unwrap();
        }
    });
}

// Signal handlers.

static HANDLER_WAKES: OnceLock<Waker> = OnceLock::new();

extern "C" fn wake_from_handler(_signal: libc::c_int) {
    if let Some(waker) = HANDLER_WAKES.get() {
        waker.wake();
    }
}

// Corner 24: a green thread that a handler has woken starts at once, not when the hub would have
// woken anyway.
#[test]
fn a_signal_handler_wakes_a_green_thread_at_once() {
    const NAME: &str = "a_signal_handler_wakes_a_green_thread_at_once";
    if child::is_child() {
        let mut waiter = Waiter::new();
        HANDLER_WAKES.set(waiter.waker()).unwrap();
        let handler = wake_from_handler as extern "C" fn(libc::c_int);
        // SAFETY: the handler does only what one may do.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        // SAFETY: a plain system call.
        let this = unsafe { libc::pthread_self() };
        let asleep = Arc::new(AtomicUsize::new(0));
        let announced = Arc::clone(&asleep);
        // SAFETY: a plain system call.
        let tid = unsafe { libc::gettid() };
        let signals = thread::spawn(move || {
            for round in 1..=20 {
                while announced.load(Ordering::Acquire) < round || !is_waiting(tid) {
                    thread::yield_now();
                }
                // To the thread whose hub it is, or to this one.
                // SAFETY: both threads exist.
                let to = if round % 2 == 0 { this } else { unsafe { libc::pthread_self() } };
                // SAFETY: as above.
                assert_eq!(unsafe { libc::pthread_kill(to, libc::SIGUSR1) }, 0);
            }
        });
        let start = Instant::now();
        let woken = spawn(move || {
            for round in 1..=20 {
                asleep.store(round, Ordering::Release);
                waiter.wait();
                // It was late if the sleep below had to end first.
                assert!(spawn(move || start.elapsed()).wait() < AGE / 2);
            }
        });
        let sleeper = spawn(|| sleep(AGE));
        woken.wait();
        assert!(!sleeper.is_dead() && start.elapsed() < PATIENCE);
        signals.join().unwrap();
        println!("woken every time");
        return;
    }
    guarded(|| {
        let output = child::run(NAME);
        let text = child::text_of(&output);
        assert!(output.status.success() && text.contains("woken every time"), "{text}");
    });
}

/// Whether a thread of this process sleeps in the kernel.
fn is_waiting(tid: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}
