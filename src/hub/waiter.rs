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

/// A wait that has begun. Nothing ends it before it is parked: wake-ups come to nothing until then.
pub(crate) struct Wait<'a> {
    hub: &'a Rc<Hub>,
    id: WaitId,
    waits_for: WaitsFor,
}

/// A wait for which the current greenlet is parked, or stands in the queue. Dropping it, as when the
/// greenlet is killed, ends it: after that wake-ups for it do nothing.
pub(super) struct UnderWay<'a> {
    hub: &'a Hub,
    id: WaitId,
}

/// The timer of a wait that has a deadline. Dropping it cancels the timer.
struct Timer<'a> {
    hub: &'a Hub,
    id: TimerId,
}

impl<'a> Wait<'a> {
    /// Begins a wait of the current greenlet.
    #[inline]
    pub(crate) fn begin(hub: &'a Rc<Hub>, waits_for: WaitsFor) -> Self {
        Self { hub, id: WaitId::begin_current(), waits_for }
    }

    /// What to wake this wait by.
    #[inline]
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
        self.park_inline(deadline)
    }

    /// [`park`](Self::park), inlined where it is called.
    #[inline(always)]
    pub(crate) fn park_inline(self, deadline: Deadline) -> Wake {
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
    pub(super) fn park_until(self, deadline: Deadline) -> Wake {
        let (hub, id) = (self.hub, self.id);
        let timer = || Timer { hub, id: hub.insert_timer(deadline, Due::Wait(id)) };
        let _timer = (!deadline.is_never()).then(timer);
        let since = hub.observed.noted_time.get();
        hub.run_queue.borrow_mut().park(id, greenlet::current(), self.waits_for, since);
        let under_way = UnderWay { hub, id };
        let wake = hub.switch_away();
        // Its turn has come: nothing is left of it.
        mem::forget(under_way);
        wake
    }
}

impl<'a> UnderWay<'a> {
    /// Makes the current greenlet runnable at its next turn, for one that is about to leave.
    #[inline]
    pub(super) fn stand_in_queue(hub: &'a Hub) -> Self {
        let id = WaitId::begin_current();
        hub.run_queue.borrow_mut().push(greenlet::current(), id, Wake::Ready);
        Self { hub, id }
    }
}

impl Drop for UnderWay<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        let parked = self.hub.run_queue.borrow_mut().unpark(self.id);
        // Not while the queue is borrowed.
        drop(parked);
        // What stands in the queue for this wait is stale from now on.
        WaitId::begin_current();
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.hub.timers.borrow_mut().cancel(self.id);
    }
}
