//! Waiting until all of a group are done, as eventlet's `coros` has it.
//!
//! Layer 6. Mirrors its `metaphore`, an inverse semaphore: it is open at zero, and the more is counted,
//! the longer one waits.
//!
//! ```
//! use stolon::coros::WaitGroup;
//!
//! let group = WaitGroup::new();
//! for site in 0..3 {
//!     let member = group.member();
//!     stolon::spawn_n(move || {
//!         stolon::sleep(std::time::Duration::from_millis(site));
//!         drop(member);
//!     });
//! }
//! assert_eq!(group.count(), 3);
//! group.wait();
//! assert_eq!(group.count(), 0);
//! ```
//!
//! Counting never switches, and can be done anywhere, in the hub's own loop and while a thread exits
//! too. Those who wait become runnable in the order in which they came.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::hub::{self, Turn, Turnstile, WaitsFor};

/// A count of what is under way, that one can wait for to be zero. Mirrors eventlet's `metaphore`.
///
/// It is a handle; its clones are handles to the same group, and count nothing.
#[derive(Clone, Default)]
pub struct WaitGroup {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    count: Cell<usize>,
    waiting: Turnstile,
}

/// Counts as one in a [`WaitGroup`] until it is dropped: also when its greenlet is killed or panics.
#[derive(Debug)]
#[must_use = "dropping it ends the membership"]
pub struct Member {
    group: WaitGroup,
}

/// Why [`WaitGroup::dec`] counted nothing: there were fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew;

impl WaitGroup {
    /// One with nothing under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `by` more. Mirrors eventlet's `inc`.
    ///
    /// Who waits goes on waiting; but not who was told that all is done, and has not run yet.
    ///
    /// # Panics
    ///
    /// When there would be more than [`usize::MAX`].
    pub fn inc(&self, by: usize) {
        let count = self.shared.count.get().checked_add(by);
        self.shared.count.set(count.expect("a group has at most usize::MAX members"));
    }

    /// Counts `by` fewer; if none are left, all who wait are told. Mirrors eventlet's `dec`.
    ///
    /// # Errors
    ///
    /// When there are fewer than that; they stay as many as they are. In eventlet none are left then.
    pub fn dec(&self, by: usize) -> Result<(), TooFew> {
        let count = self.shared.count.get().checked_sub(by).ok_or(TooFew)?;
        self.shared.count.set(count);
        if count == 0 && self.shared.waiting.len() > 0 {
            if let Some(hub) = hub::current() {
                self.shared.waiting.grant_all(&hub);
            }
        }
        Ok(())
    }

    /// Counts one more until the member is dropped.
    ///
    /// # Panics
    ///
    /// As [`inc`](Self::inc).
    pub fn member(&self) -> Member {
        self.inc(1);
        Member { group: self.clone() }
    }

    /// Waits until none are left, not at all if there are none. Mirrors eventlet's `wait`.
    ///
    /// # Panics
    ///
    /// When it has to wait and this is the hub's own loop, or the thread is exiting.
    pub fn wait(&self) {
        let is_done = self.wait_until_zero(None);
        assert!(is_done, "cannot wait for a group: this thread is exiting");
    }

    /// As [`wait`](Self::wait), but waits no longer than `timeout`, and says whether none are left.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait); but while the thread exits it returns at once.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until_zero(Some(timeout))
    }

    fn wait_until_zero(&self, timeout: Option<Duration>) -> bool {
        let shared = &self.shared;
        if shared.count.get() == 0 {
            return true;
        }
        let Some(hub) = hub::current() else { return false };
        let deadline = hub.deadline_after(timeout);
        // What is told is told to each of them: it need not be passed on.
        let turn = shared.waiting.stand(&hub, WaitsFor::Members, deadline, |_| {});
        matches!(turn, Turn::Granted(_)) || shared.count.get() == 0
    }

    /// How many are under way, eventlet's `counter`.
    pub fn count(&self) -> usize {
        self.shared.count.get()
    }

    /// How many greenlets wait until there are none.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.len()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup")
            .field("count", &self.count())
            .field("waiting", &self.waiting())
            .finish()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // An error: it was counted off by hand.
        let _ = self.group.dec(1);
    }
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group has fewer members than were said to be done")
    }
}

impl Error for TooFew {}
