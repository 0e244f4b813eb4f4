//! What a greenlet has to look after before it next blocks in a hub. Almost always nothing, and
//! then one comparison of a byte says so.

use std::cell::Cell;

/// It was killed when it could not unwind.
const KILL: u8 = 1;

/// It has timeouts, which its hub knows.
const TIMEOUTS: u8 = 2;

/// It is the loop of a scheduler, which does not block.
const LOOP: u8 = 4;

/// A kill or a timeout was raised in it, and may be unwinding it.
const RAISED: u8 = 8;

/// A tracer runs on its stack, or is suspended there.
const TRACED: u8 = 16;

/// The greenlet's notes to itself.
#[derive(Default)]
pub(super) struct Pending(Cell<u8>);

impl Pending {
    /// Whether there is anything.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        self.0.get() != 0
    }

    /// Whether it was killed when it could not unwind, and has not been since.
    #[inline(always)]
    pub(super) fn kill(&self) -> bool {
        self.0.get() & KILL != 0
    }

    /// Whether it has timeouts.
    pub(super) fn timeouts(&self) -> bool {
        self.0.get() & TIMEOUTS != 0
    }

    /// Whether it is the loop of a scheduler.
    #[inline(always)]
    pub(super) fn is_loop(&self) -> bool {
        self.0.get() & LOOP != 0
    }

    /// Whether a kill or a timeout was raised in it that may be unwinding it.
    pub(super) fn raised(&self) -> bool {
        self.0.get() & RAISED != 0
    }

    /// Whether a tracer is under way on its stack.
    pub(super) fn traced(&self) -> bool {
        self.0.get() & TRACED != 0
    }

    pub(super) fn set_traced(&self, is_traced: bool) {
        self.set(TRACED, is_traced);
    }

    pub(super) fn set_loop(&self) {
        self.set(LOOP, true);
    }

    pub(super) fn set_raised(&self, was_raised: bool) {
        self.set(RAISED, was_raised);
    }

    pub(super) fn set_kill(&self, is_pending: bool) {
        self.set(KILL, is_pending);
    }

    pub(super) fn set_timeouts(&self, are_pending: bool) {
        self.set(TIMEOUTS, are_pending);
    }

    #[inline]
    pub(super) fn clear(&self) {
        self.0.set(0);
    }

    fn set(&self, what: u8, is_pending: bool) {
        let others = self.0.get() & !what;
        self.0.set(if is_pending { others | what } else { others });
    }
}
