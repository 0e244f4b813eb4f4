//! Kills: greenlets that are made to unwind by others, and who goes on when.

use std::any::Any;
use std::rc::Rc;

use super::waiter::UnderWay;
use super::{Hub, Wake};
use crate::greenlet::{Greenlet, SwitchError};

/// What unwinding carries.
type Payload = Box<dyn Any + Send>;

impl Hub {
    /// Makes a greenlet that is not the current one unwind now. The current one goes on at its next
    /// turn, or at once if it is the mainloop.
    pub(crate) fn exit_greenlet(self: &Rc<Self>, victim: &Greenlet<Wake>) {
        self.interrupt(victim, || victim.exit_now());
    }

    /// [`exit_greenlet`](Self::exit_greenlet) with a payload of one's own. Nobody may be unwinding.
    pub(crate) fn throw_into(self: &Rc<Self>, victim: &Greenlet<Wake>, payload: Payload) {
        self.interrupt(victim, || victim.throw_now(payload));
    }

    fn interrupt(
        self: &Rc<Self>,
        victim: &Greenlet<Wake>,
        raise: impl FnOnce() -> Option<Result<Wake, SwitchError<Wake>>>,
    ) {
        if self.in_mainloop.get() {
            return self.interrupt_from_mainloop(victim, raise);
        }
        let _wait = UnderWay::stand_in_queue(self);
        // Else it was dead already, or this greenlet's turn has come.
        let ended_here = matches!(raise(), Some(Ok(Wake::Ended) | Err(_)));
        self.note_late_kill(victim);
        if ended_here {
            self.switch_away();
        }
    }

    /// Makes a greenlet unwind for a call, which goes on when that has ended or waits.
    fn interrupt_from_mainloop(
        &self,
        victim: &Greenlet<Wake>,
        raise: impl FnOnce() -> Option<Result<Wake, SwitchError<Wake>>>,
    ) {
        let is_mainloop = self.last_mainloop().as_ref().is_some_and(Greenlet::is_current);
        assert!(is_mainloop, "do not call blocking functions from the mainloop");
        let _back = BackInMainloop(self);
        self.set_in_mainloop(false);
        self.in_call.set(true);
        // Whatever comes back: it is the mainloop that is resumed.
        let _ = raise();
        self.note_late_kill(victim);
    }
}

/// Notes that the mainloop is the current greenlet again, after a panic too.
struct BackInMainloop<'a>(&'a Hub);

impl Drop for BackInMainloop<'_> {
    fn drop(&mut self) {
        self.0.set_in_mainloop(true);
        self.0.in_call.set(false);
    }
}
