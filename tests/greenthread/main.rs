//! What green threads promise: when they run, how they end, who is told.

#[path = "../util/mod.rs"]
mod util;

mod kill;
mod later;
mod link;
mod turns;

use std::cell::RefCell;
use std::rc::Rc;

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    /// All that was noted since the last call.
    fn take(&self) -> String {
        self.0.take().join(" ")
    }
}
