//! A function that runs elsewhere, and the handle by which its result is waited for.

use std::any::Any;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Waiter, Waker};
use crate::clock::Deadline;
use crate::greenlet::GreenletExit;
use crate::hub::WaitsFor;
use crate::sys;

/// `f` as something to be run on another thread, and the handle to its result.
pub(crate) fn job<R: Send, F: FnOnce() -> R + Send>(f: F) -> (Job<F, R>, JoinHandle<R>) {
    let forks = sys::fork::count();
    let packet = Arc::new(Packet { forks, state: Mutex::new(State::Pending(None)) });
    (Job { f: Some(f), packet: Arc::clone(&packet) }, JoinHandle { packet })
}

/// A function that was sent to another thread. If it is dropped there, whoever waits is told.
pub(crate) struct Job<F, R> {
    f: Option<F>,
    packet: Arc<Packet<R>>,
}

impl<R: Send, F: FnOnce() -> R + Send> Job<F, R> {
    /// Runs it and delivers its result. What it has captured is dropped before that.
    pub(crate) fn run(mut self) {
        if let Some(f) = self.f.take() {
            let outcome = catch_unwind(AssertUnwindSafe(f));
            self.packet.finish(outcome);
        }
    }

    /// Delivers a panic's payload instead.
    pub(super) fn fail(mut self, payload: Box<dyn Any + Send>) {
        drop(self.f.take());
        self.packet.finish(Err(payload));
    }

    /// The function, which will not run; nobody has the handle any more.
    pub(super) fn into_function(mut self) -> F {
        self.f.take().expect("it has not run")
    }

    pub(super) fn packet(&self) -> &Arc<Packet<R>> {
        &self.packet
    }
}

impl<F, R> Drop for Job<F, R> {
    fn drop(&mut self) {
        if let Some(f) = self.f.take() {
            // First of all, as that may raise.
            self.packet.finish(Err(Box::new(GreenletExit)));
            drop(f);
        }
    }
}

/// What a job and its handle have in common.
pub(super) struct Packet<R> {
    /// How many forks there had been when it was made.
    forks: u32,
    state: Mutex<State<R>>,
}

enum State<R> {
    /// It has not ended. Perhaps someone waits.
    Pending(Option<Waker>),
    Done(thread::Result<R>),
    Taken,
}

impl<R> Packet<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first outcome that there is.
    fn finish(&self, outcome: thread::Result<R>) {
        let mut state = self.lock();
        if !matches!(&*state, State::Pending(_)) {
            // What is left over is dropped when the lock is free.
            drop(state);
            return;
        }
        let before = mem::replace(&mut *state, State::Done(outcome));
        drop(state);
        if let State::Pending(Some(waker)) = before {
            waker.wake_directly();
        }
    }

    /// Whether the thread that was to finish it is in another process.
    fn is_inherited(&self) -> bool {
        self.forks != sys::fork::count()
    }
}

/// Something whose hub may go before it ends.
pub(super) trait Abandon: Send + Sync {
    /// Tells who waits that it never will.
    fn abandon(&self);
}

impl<R: Send> Abandon for Packet<R> {
    fn abandon(&self) {
        self.finish(Err(Box::new(GreenletExit)));
    }
}

/// The result of a function that runs on another thread, as [`std::thread::JoinHandle`]; it may be
/// sent to any thread and waited for there. Dropping it detaches: the function runs on, and its
/// result is dropped by whichever thread is last to have it.
#[must_use = "dropping it detaches the function, and nobody sees its result"]
pub struct JoinHandle<R> {
    packet: Arc<Packet<R>>,
}

impl<R> JoinHandle<R> {
    /// Waits for the function to end, and returns its result or the payload of its panic. Blocks the
    /// current greenlet and no other; a thread that has no hub waits as a whole.
    ///
    /// The payload is a [`GreenletExit`] if the function will never end: it was killed, or did not
    /// run or not end before its hub's thread did, or that thread is in another process, as this one
    /// was forked from it.
    ///
    /// # Errors
    ///
    /// The payload.
    ///
    /// # Panics
    ///
    /// On the hub's own loop.
    pub fn join(self) -> thread::Result<R> {
        let mut waiter = None;
        while !self.is_finished() {
            let waiter = waiter.get_or_insert_with(Waiter::for_one_wait);
            if let State::Pending(waker) = &mut *self.packet.lock() {
                *waker = Some(waiter.waker());
            } else {
                break;
            }
            waiter.wait_until(WaitsFor::Thread, Deadline::NEVER);
        }
        if self.packet.is_inherited() {
            return Err(Box::new(GreenletExit));
        }
        match mem::replace(&mut *self.packet.lock(), State::Taken) {
            State::Done(outcome) => outcome,
            _ => unreachable!("only the handle takes the outcome, and is gone then"),
        }
    }

    /// Whether the function has ended; [`join`](Self::join) will not wait then.
    pub fn is_finished(&self) -> bool {
        self.packet.is_inherited() || !matches!(&*self.packet.lock(), State::Pending(_))
    }
}

impl<R> Drop for JoinHandle<R> {
    fn drop(&mut self) {
        if self.packet.is_inherited() {
            return;
        }
        // Who was killed waits no longer.
        if let State::Pending(waker) = &mut *self.packet.lock() {
            drop(waker.take());
        }
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}
