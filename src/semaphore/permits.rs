//! What all semaphores are made of: a count, and a line of those who wait for it to rise.
//!
//! A permit that is given back goes to the first in the line, not into the count, and that one is
//! woken. So the count is above zero only while nobody waits, and nobody can overtake who does.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::hub::{self, Line, Ticket, Wait, WaitId, WaitsFor, Wake};

#[derive(Debug)]
pub(super) struct Permits {
    /// Below zero while more were taken back than there were.
    count: Cell<isize>,
    waiters: RefCell<Line<WaitId>>,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        let count = isize::try_from(count).expect("a semaphore has at most isize::MAX permits");
        Self { count: Cell::new(count), waiters: RefCell::default() }
    }

    /// Those that are left, or as a negative number, how many wait for more.
    pub(super) fn balance(&self) -> isize {
        // A line in memory has fewer than isize::MAX places.
        self.count.get() - self.waiters.borrow().len() as isize
    }

    /// Whether none is left.
    #[inline]
    pub(super) fn are_gone(&self) -> bool {
        self.count.get() <= 0
    }

    /// Takes one, if one is left.
    #[inline]
    pub(super) fn try_acquire(&self) -> bool {
        let left = !self.are_gone();
        if left {
            self.count.set(self.count.get() - 1);
        }
        left
    }

    /// Takes one, or waits for one, no longer than `timeout`, and says whether it came.
    ///
    /// If the greenlet is killed meanwhile, `killed` is told whether one had come; it is in its hands
    /// then.
    #[inline]
    pub(super) fn acquire(
        &self,
        timeout: Option<Duration>,
        waits_for: WaitsFor,
        killed: impl Fn(bool),
    ) -> bool {
        self.try_acquire() || self.wait(timeout, waits_for, killed)
    }

    fn wait(&self, timeout: Option<Duration>, waits_for: WaitsFor, killed: impl Fn(bool)) -> bool {
        let woken = Wait::try_begin(waits_for).map(|wait| {
            let waiting = Waiting::new(self, wait.id(), &killed);
            let wake = wait.park(hub::deadline_after(timeout));
            (waiting.end(), wake)
        });
        let (came, wake) = woken.unwrap_or((false, Wake::Closed));
        if wake == Wake::Closed && timeout.is_none() {
            killed(came);
            panic!("cannot wait for a semaphore: this thread is exiting");
        }
        came
    }

    /// Gives one back: to the first who waits, if anyone does.
    #[inline]
    pub(super) fn release(&self) {
        let first = self.waiters.borrow_mut().take_first();
        match first {
            None => {
                let count = self.count.get().checked_add(1);
                self.count.set(count.expect("a semaphore has at most isize::MAX permits"));
            }
            Some(first) => hub::wake(first, Wake::Ready),
        }
    }

    /// Takes one that may have been taken already, and will be missing then.
    pub(super) fn take_back(&self) {
        self.count.set(self.count.get() - 1);
    }
}

/// A wait for a permit, until it is over: the waiter may be killed, before or after one came.
struct Waiting<'a, F: Fn(bool)> {
    permits: &'a Permits,
    ticket: Ticket,
    /// None when the wait is over.
    killed: Option<F>,
}

impl<'a, F: Fn(bool)> Waiting<'a, F> {
    fn new(permits: &'a Permits, id: WaitId, killed: F) -> Self {
        let ticket = permits.waiters.borrow_mut().join(id);
        Self { permits, ticket, killed: Some(killed) }
    }

    /// Leaves the line, and says whether a permit has come: who got one is in it no more.
    fn leave(&self) -> bool {
        self.permits.waiters.borrow_mut().leave(self.ticket).is_none()
    }

    fn end(mut self) -> bool {
        self.killed = None;
        self.leave()
    }
}

impl<F: Fn(bool)> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        if let Some(killed) = self.killed.take() {
            killed(self.leave());
        }
    }
}
