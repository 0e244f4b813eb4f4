//! What has to wait until nobody unwinds: kills of greenlets that were unwinding when they were killed, and
//! alarms of greenlets that parked while they were. Also of those of which that could not be told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::thread;

use super::alarms::Parked;
use super::mainloop::BetweenTurns;
use super::{Hub, Wake};
use crate::greenlet::{self, Away, Greenlet};
use crate::sys::panic_count;

#[derive(Default)]
pub(super) struct Late {
    /// Whether there may be anything.
    any: Cell<bool>,
    kills: RefCell<Vec<Greenlet<Wake>>>,
    alarms: RefCell<Vec<Rc<Parked>>>,
}

impl Late {
    /// Of a hub that is made now.
    pub(super) fn new() -> Self {
        let late = Self::default();
        // While the thread unwinds its count cannot be looked for: the mainloop does that later.
        late.any.set(thread::panicking());
        late
    }

    pub(super) fn add_alarm(&self, parked: &Rc<Parked>) {
        self.alarms.borrow_mut().push(Rc::clone(parked));
        self.any.set(true);
    }

    pub(super) fn remove_alarm(&self, parked: &Rc<Parked>) {
        self.alarms.borrow_mut().retain(|late| !Rc::ptr_eq(late, parked));
    }

    /// Those who are still to be killed.
    pub(super) fn take_kills(&self) -> Vec<Greenlet<Wake>> {
        self.kills.take()
    }
}

/// Kills that are left to the next mainloop, if this one ends meanwhile.
struct Rest<'a> {
    late: &'a Late,
    kills: VecDeque<Greenlet<Wake>>,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if !self.kills.is_empty() {
            self.late.kills.borrow_mut().extend(self.kills.drain(..));
            self.late.any.set(true);
        }
    }
}

impl Hub {
    /// Has the mainloop kill a greenlet again that could not unwind when it was killed.
    pub(super) fn note_late_kill(&self, victim: &Greenlet<Wake>) {
        if victim.has_pending_kill() {
            self.late.kills.borrow_mut().push(victim.clone());
            self.late.any.set(true);
        }
    }

    /// Notes the unwindings of the current greenlet as its own while it is suspended. If they cannot be told,
    /// the mainloop clears that up when nobody unwinds any more.
    pub(super) fn note_unwinding(&self) -> Option<Away> {
        let away = Away::if_unwinding();
        if away.is_none() && thread::panicking() {
            self.late.any.set(true);
        }
        away
    }

    /// Called by the mainloop in each round. True if the hub has been closed meanwhile.
    #[inline]
    pub(super) fn do_what_is_late(&self) -> bool {
        self.late.any.get() && !thread::panicking() && self.catch_up()
    }

    #[cold]
    #[inline(never)]
    fn catch_up(&self) -> bool {
        greenlet::settle();
        self.late.any.set(false);
        // The hub may have been made while the thread was unwinding.
        self.unwindings.set(panic_count::word());
        for parked in self.late.alarms.take() {
            parked.set_timer(self);
        }
        let mut rest = Rest { late: &self.late, kills: self.late.take_kills().into() };
        while let Some(victim) = rest.kills.pop_front() {
            if victim.has_pending_kill() && !victim.is_dead() {
                self.undisturbed(|| {
                    let _turn = BetweenTurns::new(self);
                    victim.exit_now::<Wake>();
                });
            }
        }
        self.closed.get()
    }
}
