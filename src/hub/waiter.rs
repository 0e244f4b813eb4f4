//! Park and wake: the one primitive that everything which blocks is built from.
//!
//! A primitive begins a wait, hands its [`WaitId`] to whoever will end it, and parks. It gets back
//! the reason why it was woken; turning reasons into errors is left to the surface.

use std::mem;
use std::rc::Rc;

use super::run_queue::NoneActive;
use super::{Due, Hub, IO_BUDGET, WaitId, WaitsFor, Wake, waited_for};
use crate::clock::Deadline;
use crate::greenlet::{self, Greenlet, SwitchError};
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

    /// A wait of the current greenlet that has begun already.
    #[inline]
    pub(super) fn begun(hub: &'a Rc<Hub>, id: WaitId, waits_for: WaitsFor) -> Self {
        Self { hub, id, waits_for }
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
    #[inline(always)]
    pub(crate) fn park(self, deadline: Deadline) -> Wake {
        /// Takes the parts of a wait in registers.
        #[inline(never)]
        fn park(hub: &Rc<Hub>, id: WaitId, waits_for: WaitsFor, deadline: Deadline) -> Wake {
            Wait { hub, id, waits_for }.park_inline(deadline)
        }
        park(self.hub, self.id, self.waits_for, deadline)
    }

    /// [`park`](Self::park), inlined where it is called.
    #[inline(always)]
    pub(crate) fn park_inline(self, deadline: Deadline) -> Wake {
        let (hub, id) = (self.hub, self.id);
        if hub.nobody_parks.get() {
            return park_nobody(hub, id, self.waits_for, deadline);
        }
        let Some(current) = greenlet::current_undisturbed() else {
            return park_disturbed(hub, id, self.waits_for, deadline);
        };
        self.park_current(current, deadline)
    }

    /// [`park`](Self::park), when nothing speaks against it.
    pub(super) fn park_until(self, deadline: Deadline) -> Wake {
        self.park_current(greenlet::current(), deadline)
    }

    #[inline(always)]
    fn park_current(self, current: Greenlet<Wake>, deadline: Deadline) -> Wake {
        let (wake, timer) = self.park_with_timer(current, deadline);
        if wake == Wake::Expired {
            // That was the timer: there is none to be cancelled.
            mem::forget(timer);
        }
        wake
    }

    /// [`park_until`](Self::park_until), where other timers may end the wait as well.
    pub(super) fn park_beside_timers(self, deadline: Deadline) -> Wake {
        self.park_with_timer(greenlet::current(), deadline).0
    }

    #[inline(always)]
    fn park_with_timer(
        self,
        current: Greenlet<Wake>,
        deadline: Deadline,
    ) -> (Wake, Option<Timer<'a>>) {
        let (hub, id) = (self.hub, self.id);
        let timer = || Timer { hub, id: hub.insert_timer(deadline, Due::Wait(id)) };
        let timer = (!deadline.is_never()).then(timer);
        let under_way = UnderWay { hub, id };
        let wake = hub.park_and_switch(id, current, self.waits_for);
        // Its turn has come: nothing is left of it.
        mem::forget(under_way);
        (wake, timer)
    }
}

/// [`Wait::park`], where nobody parks. It takes the parts of the wait, which then needs no address.
#[cold]
#[inline(never)]
fn park_nobody(hub: &Rc<Hub>, id: WaitId, waits_for: WaitsFor, deadline: Deadline) -> Wake {
    if hub.closed.get() { Wake::Closed } else { park_disturbed(hub, id, waits_for, deadline) }
}

/// [`Wait::park`] of a greenlet that has something to look after first. As there.
#[cold]
#[inline(never)]
fn park_disturbed(hub: &Rc<Hub>, id: WaitId, waits_for: WaitsFor, deadline: Deadline) -> Wake {
    hub.park_disturbed(Wait { hub, id, waits_for }, deadline)
}

impl Hub {
    /// Parks the current greenlet and hands over to the next one.
    #[inline(always)]
    fn park_and_switch(
        self: &Rc<Self>,
        id: WaitId,
        current: Greenlet<Wake>,
        waits_for: WaitsFor,
    ) -> Wake {
        let since = self.observed.noted_time.get();
        let mut run_queue = self.run_queue.borrow_mut();
        run_queue.park(id, current, waits_for, since);
        self.io_budget.set(IO_BUDGET);
        let left = self.budget.get();
        let next = if left > 0 {
            run_queue.next_for(id.place())
        } else {
            Err(NoneActive { is_stale: false })
        };
        drop(run_queue);
        let (next, wake) = match next {
            Ok(next) => next,
            // What is stale is dropped here and not on the mainloop: its destructors may block.
            Err(NoneActive { is_stale: true }) => return self.switch_away(),
            Err(NoneActive { is_stale: false }) => return self.leave_to_mainloop(),
        };
        self.budget.set(left - 1);
        next.switch_into_and(wake, |resumed| match resumed {
            Ok(wake) if wake != Wake::Ended => wake,
            other => self.stay_away(other),
        })
    }

    /// Leaves the current greenlet, which is parked, when it is the mainloop's turn.
    #[inline(never)]
    fn leave_to_mainloop(self: &Rc<Self>) -> Wake {
        match self.switch_into_mainloop() {
            Ok(wake) if wake != Wake::Ended => wake,
            other => self.stay_away(other),
        }
    }

    /// Goes on waiting, if it was something else that the current greenlet was resumed with.
    #[cold]
    #[inline(never)]
    fn stay_away(self: &Rc<Self>, resumed: Result<Wake, SwitchError<Wake>>) -> Wake {
        waited_for(resumed).unwrap_or_else(|| {
            self.note_late_kill(&greenlet::current());
            self.switch_away()
        })
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
    #[inline(always)]
    fn drop(&mut self) {
        // By value, so that none of it needs an address while all is well.
        end_wait(self.hub, self.id);
    }
}

#[inline(never)]
fn end_wait(hub: &Hub, id: WaitId) {
    let parked = hub.run_queue.borrow_mut().unpark(id);
    // Not while the queue is borrowed.
    drop(parked);
    // What stands in the queue for this wait is stale from now on.
    WaitId::begin_current();
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.hub.timers.borrow_mut().cancel(self.id);
    }
}
