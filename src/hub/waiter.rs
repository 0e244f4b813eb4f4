//! Park and wake: the one primitive that everything which blocks is built from.
//!
//! A primitive begins a wait, hands its [`WaitId`] to whoever will end it, and parks. It gets back
//! the reason why it was woken; turning reasons into errors is left to the surface.

use std::rc::Rc;

use super::run_queue::{WaitId, WaitsFor};
use super::{Hub, Wake};
use crate::clock::Deadline;
use crate::greenlet;
use crate::timers::TimerId;

/// A wait that has begun. Dropping it ends it: after that, and when its greenlet is killed,
/// wake-ups for it do nothing and its timer is gone.
pub(crate) struct Wait<'a> {
    hub: &'a Rc<Hub>,
    id: WaitId,
    timer: Option<TimerId>,
}

impl<'a> Wait<'a> {
    /// Begins a wait of the current greenlet.
    #[inline]
    pub(crate) fn begin(hub: &'a Rc<Hub>, waits_for: WaitsFor) -> Self {
        let id = hub.run_queue.borrow_mut().begin(waits_for);
        Self { hub, id, timer: None }
    }

    /// What to wake this wait by.
    pub(crate) fn id(&self) -> WaitId {
        self.id
    }

    /// Lets other greenlets run until this wait is woken or `deadline` has passed, and says which.
    ///
    /// # Panics
    ///
    /// With a kill that reached the greenlet when it could not unwind. When the current greenlet is
    /// the hub's own loop. And with a report of all that wait, in the main greenlet, when nothing
    /// can ever wake any of them.
    pub(crate) fn park(mut self, deadline: Deadline) -> Wake {
        let hub = self.hub;
        if hub.closed.get() {
            return Wake::Closed;
        }
        hub.may_block();
        if !deadline.is_never() {
            self.timer = Some(hub.timers.borrow_mut().insert(deadline, self.id));
        }
        hub.run_queue.borrow_mut().park(self.id, greenlet::current());
        hub.switch_away()
    }

    /// Stands in the queue of runnable greenlets from the start, and lets those before it run.
    #[inline]
    pub(crate) fn yield_now(self) -> Wake {
        let hub = self.hub;
        if hub.closed.get() {
            return Wake::Closed;
        }
        hub.may_block();
        self.stand_in_queue();
        hub.switch_away()
    }

    /// Makes the current greenlet runnable at its next turn, for one that is about to leave.
    #[inline]
    pub(crate) fn stand_in_queue(&self) {
        let current = greenlet::current();
        self.hub.run_queue.borrow_mut().push(current, Wake::Ready, Some(self.id));
    }
}

impl Drop for Wait<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.hub.timers.borrow_mut().cancel(timer);
        }
        let parked = self.hub.run_queue.borrow_mut().end(self.id);
        // Not while the queue is borrowed.
        drop(parked);
    }
}
