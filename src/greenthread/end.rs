//! The end of a green thread, and who waits for it.

use std::cell::Cell;
use std::mem;

use crate::clock::Deadline;
use crate::hub::{self, Wait, WaitId, WaitsFor, Wake};

/// Whether a green thread has ended, and who waits for that.
pub(super) struct End {
    has_come: Cell<bool>,
    waiters: Waiters,
}

impl End {
    pub(super) const fn new() -> Self {
        let waiters = Waiters {
            first: Cell::new(None),
            others: Cell::new(None),
            are_several: Cell::new(false),
        };
        Self { has_come: Cell::new(false), waiters }
    }

    #[inline]
    pub(super) fn has_come(&self) -> bool {
        self.has_come.get()
    }

    /// Called once, by the green thread itself or by who killed it before it started.
    #[inline(always)]
    pub(super) fn come(&self) {
        self.has_come.set(true);
        self.waiters.wake();
    }

    /// Blocks the current greenlet until it has come. False if `deadline` passes before that.
    #[inline(always)]
    fn wait_inline(&self, deadline: Deadline) -> bool {
        while !self.has_come() {
            let woken = match Wait::try_begin(WaitsFor::GreenThread) {
                Some(wait) => {
                    let waiting = Waiting::new(&self.waiters, wait.id());
                    let woken = wait.park_inline(deadline);
                    if woken == Wake::Ready {
                        // Whoever woke it has taken it out.
                        mem::forget(waiting);
                    }
                    woken
                }
                None => Wake::Closed,
            };
            if woken == Wake::Expired {
                return self.has_come();
            }
            assert!(
                woken != Wake::Closed,
                "cannot wait for a green thread: this thread is exiting"
            );
        }
        true
    }

    /// Blocks the current greenlet until it has come.
    #[inline(always)]
    pub(super) fn wait(&self) {
        self.wait_inline(Deadline::NEVER);
    }

    /// As [`wait`](Self::wait). False if `deadline` passes before that.
    pub(super) fn wait_until(&self, deadline: Deadline) -> bool {
        self.wait_inline(deadline)
    }
}

/// Who waits for a green thread to end. One waiter, the common case, takes no memory of its own.
struct Waiters {
    first: Cell<Option<WaitId>>,
    /// Those who came after it.
    others: Cell<Option<Box<Others>>>,
    /// Whether there are others.
    are_several: Cell<bool>,
}

/// A word for most, who have none.
#[derive(Default)]
struct Others(Vec<WaitId>);

impl Waiters {
    #[inline(always)]
    fn add(&self, id: WaitId) {
        if self.first.get().is_none() && !self.are_several.get() {
            self.first.set(Some(id));
        } else {
            self.add_other(id);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_other(&self, id: WaitId) {
        let mut others = self.others.take().unwrap_or_default();
        others.0.push(id);
        self.others.set(Some(others));
        self.are_several.set(true);
    }

    #[inline(never)]
    fn remove(&self, id: WaitId) {
        if self.first.get() == Some(id) {
            self.first.set(None);
        } else if self.are_several.get() {
            self.remove_other(id);
        }
    }

    #[cold]
    #[inline(never)]
    fn remove_other(&self, id: WaitId) {
        let mut others = self.others.take().unwrap_or_default();
        others.0.retain(|other| *other != id);
        self.are_several.set(!others.0.is_empty());
        self.others.set(Some(others));
    }

    /// Wakes them in the order in which they came.
    #[inline(always)]
    fn wake(&self) {
        if let Some(first) = self.first.take() {
            hub::wake(first, Wake::Ready);
        }
        if self.are_several.replace(false) {
            self.wake_others();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_others(&self) {
        for other in self.others.take().unwrap_or_default().0 {
            hub::wake(other, Wake::Ready);
        }
    }
}

/// A wait in a list of waiters, until it is over: a waiter may be killed before it is woken.
struct Waiting<'a> {
    waiters: &'a Waiters,
    id: WaitId,
}

impl<'a> Waiting<'a> {
    #[inline(always)]
    fn new(waiters: &'a Waiters, id: WaitId) -> Self {
        waiters.add(id);
        Self { waiters, id }
    }
}

impl Drop for Waiting<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.waiters.remove(self.id);
    }
}
