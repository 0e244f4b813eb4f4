//! Park and wake: the one primitive that everything which blocks is built from.
//!
//! A primitive begins a wait, hands its [`WaitId`] to whoever will end it, and parks. It gets back
//! the reason why it was woken; turning reasons into errors is left to the surface.

use std::mem;
use std::rc::Rc;

use super::current;
use super::in_hook::holds_thread;
use super::run_queue::NoneActive;
use super::{Due, Hub, IO_BUDGET, WaitId, WaitsFor, Wake, waited_for};
use crate::clock::Deadline;
use crate::greenlet::{self, Greenlet, SwitchError};
use crate::timers::TimerId;

/// A wait that has begun. Nothing ends it before it is parked: wake-ups come to nothing until then.
pub(crate) struct Wait {
    /// Whose it is: the current greenlet.
    greenlet: Greenlet<Wake>,
    id: WaitId,
    waits_for: WaitsFor,
}

/// The wait for which the current greenlet is parked, or stands in the queue. Dropping it, as when the
/// greenlet is killed, ends it: after that wake-ups for it do nothing.
pub(super) struct UnderWay(());

/// The timer of a wait that has a deadline. Dropping it cancels the timer.
struct Timer(TimerId);

impl Wait {
    /// Begins a wait of the current greenlet. None while the thread exits, and nobody waits any more.
    ///
    /// # Panics
    ///
    /// When the thread has no greenlets yet, and no hub can be made.
    #[inline(always)]
    pub(crate) fn try_begin(waits_for: WaitsFor) -> Option<Self> {
        let greenlet = greenlet::try_current().or_else(first_greenlet)?;
        Some(Self::of(greenlet, waits_for))
    }

    /// Begins a wait of the current greenlet, on a thread that has this hub.
    #[inline]
    pub(crate) fn begin(_hub: &Rc<Hub>, waits_for: WaitsFor) -> Self {
        Self::of(greenlet::current(), waits_for)
    }

    #[inline(always)]
    fn of(greenlet: Greenlet<Wake>, waits_for: WaitsFor) -> Self {
        let id = WaitId::begin(&greenlet);
        Self { greenlet, id, waits_for }
    }

    /// What to wake this wait by.
    #[inline]
    pub(crate) fn id(&self) -> WaitId {
        self.id
    }

    /// What it is for.
    pub(super) fn waits_for(&self) -> WaitsFor {
        self.waits_for
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
        fn park(
            greenlet: Greenlet<Wake>,
            id: WaitId,
            waits_for: WaitsFor,
            deadline: Deadline,
        ) -> Wake {
            Wait { greenlet, id, waits_for }.park_inline(deadline)
        }
        park(self.greenlet, self.id, self.waits_for, deadline)
    }

    /// [`park`](Self::park), inlined where it is called.
    #[inline(always)]
    pub(crate) fn park_inline(self, deadline: Deadline) -> Wake {
        current::park(self, deadline)
    }

    /// [`park`](Self::park), where the thread has no hub yet, or something speaks against it. It takes
    /// the parts of the wait, which then needs no address.
    #[inline(always)]
    pub(super) fn park_otherwise(self, deadline: Deadline) -> Wake {
        park_otherwise(self.greenlet, self.id, self.waits_for, deadline)
    }
}

/// The current greenlet, where the thread has none yet: the root, if there is still to be one.
#[cold]
#[inline(never)]
fn first_greenlet() -> Option<Greenlet<Wake>> {
    current::current().map(|_| greenlet::current())
}

#[cold]
#[inline(never)]
fn park_otherwise(
    greenlet: Greenlet<Wake>,
    id: WaitId,
    waits_for: WaitsFor,
    deadline: Deadline,
) -> Wake {
    match current::current() {
        Some(hub) if holds_thread(waits_for) => hub.hold_thread(waits_for, deadline),
        Some(hub) if !hub.closed.get() => {
            hub.park_disturbed(Wait { greenlet, id, waits_for }, deadline)
        }
        _ => Wake::Closed,
    }
}

// In these functions the hub may be gone when the greenlet is resumed: `self` is not used from then on.
// What is left to do then looks for the hub anew.
impl Hub {
    /// [`Wait::park`].
    ///
    /// The hub may be gone when this greenlet is resumed: `self` is not used from then on.
    #[inline(always)]
    pub(super) fn park(&self, wait: Wait, deadline: Deadline) -> Wake {
        if wait.greenlet.has_pending() || self.somebody_unwinds() {
            return wait.park_otherwise(deadline);
        }
        self.park_until(wait, deadline)
    }

    /// [`Wait::park`], when nothing speaks against it.
    #[inline(always)]
    pub(super) fn park_until(&self, wait: Wait, deadline: Deadline) -> Wake {
        let (wake, timer) = self.park_with_timer(wait, deadline);
        if wake == Wake::Expired {
            // That was the timer: there is none to be cancelled.
            mem::forget(timer);
        }
        wake
    }

    /// [`park_until`](Self::park_until), where other timers may end the wait as well.
    pub(super) fn park_beside_timers(&self, wait: Wait, deadline: Deadline) -> Wake {
        self.park_with_timer(wait, deadline).0
    }

    #[inline(always)]
    fn park_with_timer(&self, wait: Wait, deadline: Deadline) -> (Wake, Option<Timer>) {
        let timer = if deadline.is_never() {
            None
        } else {
            Some(Timer(self.insert_timer(deadline, Due::wake(wait.id))))
        };
        let under_way = UnderWay(());
        let wake = self.park_and_switch(wait);
        // Its turn has come: nothing is left of it.
        mem::forget(under_way);
        (wake, timer)
    }

    /// Parks the current greenlet and hands over to the next one.
    #[inline(always)]
    fn park_and_switch(&self, wait: Wait) -> Wake {
        let Wait { greenlet, id, waits_for } = wait;
        let since = self.observed.noted_time.get();
        let mut run_queue = self.run_queue.borrow_mut();
        run_queue.park(id, greenlet, waits_for, since);
        self.io_budget.set(IO_BUDGET);
        let left = self.budget.get();
        let next = if left > 0 {
            run_queue.next_for(id.place)
        } else {
            Err(NoneActive { is_stale: false })
        };
        drop(run_queue);
        let (next, wake) = match next {
            Ok(next) => next,
            // What is stale is dropped here and not on the mainloop: its destructors may block.
            Err(NoneActive { is_stale: true }) => return leave(),
            Err(NoneActive { is_stale: false }) => return self.leave_to_mainloop(),
        };
        self.budget.set(left - 1);
        next.switch_into_and(wake, |resumed| match resumed {
            // Each by itself: the caller goes on with the first.
            Ok(Wake::Ready) => Wake::Ready,
            Ok(Wake::Expired) => Wake::Expired,
            other => stay_away(other),
        })
    }

    /// Leaves the current greenlet, which is parked, when it is the mainloop's turn.
    #[inline(never)]
    fn leave_to_mainloop(&self) -> Wake {
        let Some(mainloop) = self.living_mainloop(Greenlet::clone) else { return leave() };
        match mainloop.switch_into(Wake::Turn) {
            Ok(wake) if wake != Wake::Ended => wake,
            other => stay_away(other),
        }
    }
}

/// Goes on waiting, if it was something else that the current greenlet was resumed with.
#[cold]
#[inline(never)]
fn stay_away(resumed: Result<Wake, SwitchError<Wake>>) -> Wake {
    waited_for(resumed).unwrap_or_else(|| {
        if let Some(hub) = current::existing() {
            hub.note_late_kill(&greenlet::current());
        }
        leave()
    })
}

/// Leaves the current greenlet, which is parked, for whoever comes next. Without a hub nobody waits.
#[cold]
#[inline(never)]
fn leave() -> Wake {
    current::existing().map_or(Wake::Closed, |hub| hub.switch_away())
}

impl UnderWay {
    /// Makes the current greenlet runnable at its next turn, for one that is about to leave.
    #[inline]
    pub(super) fn stand_in_queue(hub: &Hub) -> Self {
        let id = WaitId::begin_current();
        hub.run_queue.borrow_mut().push(greenlet::current(), id, Wake::Ready);
        Self(())
    }
}

impl Drop for UnderWay {
    #[inline(never)]
    fn drop(&mut self) {
        let greenlet = greenlet::current();
        // It is its newest wait: the current greenlet has begun no other since.
        let parked = current::unpark(WaitId::newest_of(&greenlet));
        // Not while the queue is borrowed.
        drop(parked);
        // What stands in the queue for this wait is stale from now on.
        greenlet.begin_turn();
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        current::cancel_timer(self.0);
    }
}
