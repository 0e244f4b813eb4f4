//! When those that yield let the mainloop look at timers and descriptors.
//!
//! A hand-over by yielding takes nanoseconds, or as long as the greenlet runs between two yields. So
//! if anyone waits for time or for the world, who yields counts turns: when there were as many as
//! greenlets were runnable, it is the mainloop's turn. Chains of greenlets that wake each other are
//! not cut so short, as a system call for each hand-over would be too dear there: they go on up to
//! [`BUDGET`].

use std::rc::Rc;

use super::in_hook::is_in_hook;
use super::waiter::UnderWay;
use super::{BUDGET, Due, Hub, IO_BUDGET, ROUND_IS_OVER, waited_for};
use crate::clock::Deadline;
use crate::greenlet;
use crate::timers::TimerId;

impl Hub {
    /// After how many turns who yields has timers and descriptors looked at: when all who are
    /// runnable now have had theirs. With nothing to look at that would be a waste.
    pub(super) fn round(&self) -> u32 {
        let runnable = self.run_queue.borrow().len();
        if runnable > 1 && self.timers.borrow().is_empty() && !self.hears_of_others() {
            return BUDGET;
        }
        u32::try_from(runnable).unwrap_or(BUDGET).clamp(1, BUDGET)
    }

    /// Adds a timer: if there was none, those that yield have had no reason to let the mainloop look.
    #[inline(never)]
    pub(super) fn insert_timer(&self, deadline: Deadline, due: Due) -> TimerId {
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            self.floor.set(BUDGET);
        }
        timers.insert(deadline, due)
    }

    /// [`yield_now`](Self::yield_now), where there is nobody to rotate with, or it is the mainloop's turn.
    pub(super) fn yield_through_mainloop(self: &Rc<Self>) {
        // In a callback of the mainloop there is nobody to give the turn to.
        let is_refused = greenlet::is_loop() || self.is_called() || is_in_hook();
        if self.closed.get() || is_refused {
            return;
        }
        let _away = self.note_unwinding();
        self.may_block();
        let have_all_had_a_turn =
            self.budget.get() <= self.floor.get() || self.run_queue.borrow().is_empty();
        if have_all_had_a_turn {
            // Who yields comes after those whose time has come, as its turn is due later.
            if let Some(now) = self.look_at_timers() {
                self.wake_due(now);
            }
        }
        let wait = UnderWay::stand_in_queue(self);
        if have_all_had_a_turn {
            self.floor.set(ROUND_IS_OVER);
            self.io_budget.set(IO_BUDGET);
            if waited_for(self.switch_into_mainloop()).is_none() {
                self.note_late_kill(&greenlet::current());
                self.switch_away();
            }
        } else {
            self.switch_away();
        }
        drop(wait);
        self.raise_due_alarm();
    }

    /// Called before a wait for a descriptor: if nobody waited before, those that yield have had no
    /// reason to let the mainloop look.
    #[inline(always)]
    pub(super) fn note_waiter(&self) {
        if !self.fds.anyone_waits() {
            self.floor.set(BUDGET);
        }
    }

    /// Counts an operation that is about to be tried; too many in a row without waiting give others
    /// a turn.
    #[inline]
    pub(crate) fn spend_io(self: &Rc<Self>) {
        match self.io_budget.get().checked_sub(1) {
            Some(left) => self.io_budget.set(left),
            None => self.io_is_spent(),
        }
    }

    #[cold]
    #[inline(never)]
    fn io_is_spent(self: &Rc<Self>) {
        self.yield_now();
    }
}
