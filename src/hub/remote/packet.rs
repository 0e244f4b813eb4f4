//! A function that runs elsewhere, and the handle by which its result is waited for.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Waiter, Waker};
use crate::clock::Deadline;
use crate::greenlet::GreenletExit;
use crate::hub::WaitsFor;
use crate::sys;

/// What unwinding carries.
type Payload = Box<dyn Any + Send>;

/// `f` as something to be run on another thread, and the handle to its result.
pub(crate) fn job<R: Send, F: FnOnce() -> R + Send>(f: F) -> (Job<F, R>, JoinHandle<R>) {
    let forks = sys::fork::count();
    let state = State { is_over: false, waker: None, value: None, failure: None };
    let packet = Arc::new(Packet { forks, state: Mutex::new(state) });
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
            match catch_unwind(AssertUnwindSafe(f)) {
                Ok(value) => self.packet.finish(|state| state.value = Some(value)),
                Err(payload) => self.packet.fail(payload),
            }
        }
    }

    /// Delivers a panic's payload instead.
    pub(super) fn fail(mut self, payload: Payload) {
        self.f = None;
        self.packet.fail(payload);
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
            self.packet.fail(Box::new(GreenletExit));
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

struct State<R> {
    /// Whether it has ended.
    is_over: bool,
    /// Who waits for that.
    waker: Option<Waker>,
    /// What it has ended with, until that is taken. Two fields, so that a failure is noted without room
    /// for an `R` on the stack, which may be that of a hub's own loop.
    value: Option<R>,
    failure: Option<Payload>,
}

impl<R> Packet<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, by what `note` puts into its state, if it has not ended.
    fn finish(&self, note: impl FnOnce(&mut State<R>)) {
        let mut state = self.lock();
        if state.is_over {
            // What is left over is dropped when the lock is free.
            drop(state);
            return;
        }
        state.is_over = true;
        note(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake_directly();
        }
    }

    #[cold]
    #[inline(never)]
    fn fail(&self, payload: Payload) {
        self.finish(|state| state.failure = Some(payload));
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
        self.fail(Box::new(GreenletExit));
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
        let mut waiter: Option<Waiter> = None;
        loop {
            if self.packet.is_inherited() {
                return Err(Box::new(GreenletExit));
            }
            let mut state = self.packet.lock();
            if state.is_over {
                let State { value, failure, .. } = &mut *state;
                let value = value.take();
                return value.ok_or_else(|| failure.take().expect("the outcome is taken once"));
            }
            state.waker = waiter.as_ref().map(Waiter::waker);
            drop(state);
            // What has ended already needs none.
            match &mut waiter {
                Some(waiter) => drop(waiter.wait_until(WaitsFor::Thread, Deadline::NEVER)),
                None => waiter = Some(Waiter::for_one_wait()),
            }
        }
    }

    /// Whether the function has ended; [`join`](Self::join) will not wait then.
    pub fn is_finished(&self) -> bool {
        self.packet.is_inherited() || self.packet.lock().is_over
    }
}

impl<R> Drop for JoinHandle<R> {
    fn drop(&mut self) {
        if self.packet.is_inherited() {
            return;
        }
        // Who was killed waits no longer.
        let waker = self.packet.lock().waker.take();
        drop(waker);
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}
