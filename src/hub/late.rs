//! What has to wait until nobody unwinds: kills of greenlets that were unwinding when they were killed, and
//! alarms of greenlets that parked while they were. Also of those of which that could not be told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::thread;

use super::alarms::Parked;
use super::mainloop::BetweenTurns;
use super::{Hub, Wake};
use crate::greenlet::{self, Greenlet};

#[derive(Default)]
pub(super) struct Late {
    /// Whether there may be anything.
    any: Cell<bool>,
    kills: RefCell<Vec<Greenlet<Wake>>>,
    alarms: RefCell<Vec<Rc<Parked>>>,
}

impl Late {
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

impl Hub {
    /// Has the mainloop kill a greenlet again that could not unwind when it was killed.
    pub(super) fn note_late_kill(&self, victim: &Greenlet<Wake>) {
        if victim.has_pending_kill() {
            self.late.kills.borrow_mut().push(victim.clone());
            self.late.any.set(true);
        }
    }

    /// Called by the mainloop in each round.
    #[inline]
    pub(super) fn do_what_is_late(&self) {
        if self.late.any.get() && !thread::panicking() {
            greenlet::settle();
            self.catch_up();
        }
    }

    #[cold]
    #[inline(never)]
    fn catch_up(&self) {
        self.late.any.set(false);
        for parked in self.late.alarms.take() {
            parked.set_timer(self);
        }
        for victim in self.late.take_kills() {
            if victim.has_pending_kill() && !victim.is_dead() {
                self.undisturbed(|| {
                    let _turn = BetweenTurns::new(self);
                    victim.exit_now::<Wake>();
                });
            }
        }
    }
}
