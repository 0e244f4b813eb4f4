//! Where nobody may block: on the mainloop, and where that cannot go on.

use super::Hub;
use crate::greenlet;

impl Hub {
    /// Called before the current greenlet parks.
    #[inline]
    pub(super) fn may_block(&self) {
        greenlet::raise_pending_kill();
        self.refuse_in_mainloop();
    }

    #[inline]
    fn refuse_in_mainloop(&self) {
        if greenlet::is_loop() {
            blocked_in_mainloop();
        }
    }

    /// As [`may_block`](Self::may_block), where another greenlet is resumed.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse_in_call(&self) {
        if self.is_called() {
            blocked_in_mainloop();
        }
    }

    /// Whether a call on the mainloop has switched away, and waits for something else than the scheduler's:
    /// then the mainloop cannot go on.
    pub(super) fn is_called(&self) -> bool {
        self.last_mainloop().is_some_and(|mainloop| {
            !mainloop.is_dead() && !mainloop.is_current() && !mainloop.accepts_its_type()
        })
    }
}

#[cold]
#[inline(never)]
fn blocked_in_mainloop() -> ! {
    panic!("do not call blocking functions from the mainloop")
}
