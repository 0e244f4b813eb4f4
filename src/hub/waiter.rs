//! Park and wake: the one primitive that everything which blocks is built from.
//!
//! A primitive begins a wait, hands its [`WaitId`] to whoever will end it, and parks. It gets back
//! the reason why it was woken; turning reasons into errors is left to the surface.

use std::mem;
use std::rc::Rc;

use super::{Due, Hub, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;
use crate::greenlet;
use crate::timers::TimerId;

/// A wait that has begun. Dropping it ends it: after that, and when its greenlet is killed,
/// wake-ups for it do nothing and its timer is gone.
pub(crate) struct Wait<'a> {
    hub: &'a Rc<Hub>,
    id: WaitId,
    waits_for: WaitsFor,
    timer: Option<TimerId>,
}

impl<'a> Wait<'a> {
    /// Begins a wait of the current greenlet.
    #[inline]
    pub(crate) fn begin(hub: &'a Rc<Hub>, waits_for: WaitsFor) -> Self {
        let id = WaitId::begin(&greenlet::current());
        Self { hub, id, waits_for, timer: None }
    }

    /// Makes the current greenlet runnable at its next turn, for one that is about to leave.
    #[inline]
    pub(super) fn stand_in_queue(hub: &'a Rc<Hub>) -> Self {
        let wait = Self::begin(hub, WaitsFor::Turn);
        hub.run_queue.borrow_mut().push(greenlet::current(), wait.id, Wake::Ready);
        wait
    }

    /// What to wake this wait by.
    pub(crate) fn id(&self) -> WaitId {
        self.id
    }

    /// Lets other greenlets run until this wait is woken or `deadline` has passed, and says which.
    ///
    /// # Panics
    ///
    /// With a kill that reached the greenlet when it could not unwind, and with what its timeouts
    /// raise. When the current greenlet is the hub's own loop. And with a report of all that wait, in
    /// the main greenlet, when nothing can ever wake any of them.
    pub(crate) fn park(self, deadline: Deadline) -> Wake {
        let hub = self.hub;
        if hub.closed.get() {
            return Wake::Closed;
        }
        if greenlet::has_pending() {
            return hub.park_disturbed(self, deadline);
        }
        hub.refuse_in_mainloop();
        self.park_until(deadline)
    }

    /// [`park`](Self::park), when nothing speaks against it.
    #[inline(always)]
    pub(super) fn park_until(mut self, deadline: Deadline) -> Wake {
        let hub = self.hub;
        if !deadline.is_never() {
            self.timer = Some(hub.insert_timer(deadline, Due::Wait(self.id)));
        }
        hub.run_queue.borrow_mut().park(
            self.id,
            greenlet::current(),
            self.waits_for,
            hub.observed.noted_time.get(),
        );
        let wake = hub.switch_away();
        // Its turn has come: nothing is left of it but the timer.
        self.cancel_timer();
        mem::forget(self);
        wake
    }

    #[inline(always)]
    fn cancel_timer(&self) {
        if let Some(timer) = self.timer {
            self.hub.timers.borrow_mut().cancel(timer);
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.cancel_timer();
        let parked = self.hub.run_queue.borrow_mut().unpark(self.id);
        // Not while the queue is borrowed.
        drop(parked);
        // What stands in the queue for this wait is stale from now on.
        WaitId::begin(&greenlet::current());
    }
}
