//! The waits of a queue, each until it is over: whoever waits may be killed meanwhile.

use std::cell::RefCell;
use std::mem;

use super::core::Core;
use super::store::Store;
use crate::hub::{Line, Ticket, WaitId};

/// A getter's wait, until it is over: it may be killed, before or after it was called.
pub(super) struct Getting<'a, S: Store> {
    pub(super) core: &'a Core<S>,
    pub(super) ticket: Ticket,
}

impl<S: Store> Getting<'_, S> {
    /// Leaves the line, and says whether it was called.
    fn leave(&self) -> bool {
        let mut state = self.core.state();
        state.getters.leave(self.ticket).is_none() && state.called.leave(self.ticket).is_some()
    }

    pub(super) fn end(self) -> bool {
        let was_called = self.leave();
        mem::forget(self);
        was_called
    }
}

impl<S: Store> Drop for Getting<'_, S> {
    fn drop(&mut self) {
        if self.leave() {
            self.core.call(&mut self.core.state());
        }
    }
}

/// A putter's wait, until it is over: if it is killed before, its item is not put.
pub(super) struct Putting<'a, S: Store> {
    pub(super) core: &'a Core<S>,
    pub(super) ticket: Ticket,
}

impl<S: Store> Putting<'_, S> {
    /// Leaves the line with the item, if it has not been put.
    pub(super) fn leave(&self) -> Option<S::Item> {
        let mut state = self.core.state();
        let putter = state.putters.leave(self.ticket);
        self.core.call_back(&mut state);
        putter.map(|putter| putter.item)
    }
}

impl<S: Store> Drop for Putting<'_, S> {
    fn drop(&mut self) {
        // Not while the queue is borrowed.
        drop(self.leave());
    }
}

/// The wait of one who joins, until it is over.
pub(super) struct Joining<'a> {
    pub(super) joiners: &'a RefCell<Line<WaitId>>,
    pub(super) ticket: Ticket,
}

impl Joining<'_> {
    /// Leaves the line, and says whether all items were done: who is told so is in it no more.
    pub(super) fn end(self) -> bool {
        let all_done = self.leave();
        mem::forget(self);
        all_done
    }

    fn leave(&self) -> bool {
        self.joiners.borrow_mut().leave(self.ticket).is_none()
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
