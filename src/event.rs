//! Events: a value, or an exception, that is sent once and reaches everyone who waits for it.
//!
//! Layer 6. Mirrors eventlet's `event`. An [`Event`] is a handle; its clones are handles to the same
//! event.
//!
//! ```
//! use stolon::event::Event;
//!
//! let event = Event::new();
//! let waiter = stolon::spawn({
//!     let event = event.clone();
//!     move || event.wait()
//! });
//! event.send(42).unwrap();
//! assert_eq!(waiter.wait(), 42);
//! // From now on nobody has to wait.
//! assert_eq!(event.wait(), 42);
//! ```
//!
//! Sending never switches: the waiters become runnable, in the order in which they came. What can be
//! done without waiting can be done anywhere, in the hub's own loop and while a thread exits too.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::error::Error;
use std::fmt;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use crate::hub::{self, Line, Ticket, Wait, WaitId, WaitsFor, Wake};

/// Something that happens once, mirroring eventlet's class of this name.
pub struct Event<T> {
    /// What has been sent, and who waits for it, since the last reset.
    round: Rc<RefCell<Rc<Round<T>>>>,
}

/// Why nothing was sent: something has been before. What was to be sent is handed back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AlreadySent<T>(pub T);

/// Why an event was not reset: nothing has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

/// An event from one reset to the next. Who waited in one gets what was sent in it.
struct Round<T> {
    outcome: OnceCell<Outcome<T>>,
    waiters: RefCell<Line<WaitId>>,
}

enum Outcome<T> {
    Value(T),
    /// Makes a copy.
    Exception(Box<dyn Fn() -> Payload>),
}

type Payload = Box<dyn Any + Send>;

impl<T> Event<T> {
    /// One that has not been sent.
    pub fn new() -> Self {
        Self { round: Rc::new(RefCell::new(Rc::new(Round::new()))) }
    }

    /// Sends a value to all who wait, and to all who will. Mirrors eventlet's `send`.
    ///
    /// # Errors
    ///
    /// When something has been sent before, which stays what it was.
    pub fn send(&self, value: T) -> Result<(), AlreadySent<T>> {
        match self.round().send(Outcome::Value(value)) {
            Err(Outcome::Value(value)) => Err(AlreadySent(value)),
            _ => Ok(()),
        }
    }

    /// Sends an exception: all who wait, and all who will, unwind with a copy of it as their payload.
    /// Mirrors eventlet's `send_exception`.
    ///
    /// ```
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    /// use stolon::event::Event;
    ///
    /// let event = Event::<()>::new();
    /// event.send_exception("out of order").unwrap();
    /// let raised = catch_unwind(AssertUnwindSafe(|| event.wait())).unwrap_err();
    /// assert_eq!(raised.downcast_ref(), Some(&"out of order"));
    /// ```
    ///
    /// # Errors
    ///
    /// When something has been sent before, which stays what it was.
    pub fn send_exception<E: Any + Send + Clone>(
        &self,
        exception: E,
    ) -> Result<(), AlreadySent<E>> {
        let round = self.round();
        if round.outcome.get().is_some() {
            return Err(AlreadySent(exception));
        }
        let copy = move || Box::new(exception.clone()) as Payload;
        // It was asked for before.
        let _ = round.send(Outcome::Exception(Box::new(copy)));
        Ok(())
    }

    /// Waits until something is sent, and returns a copy of it, at once if it has been. Mirrors
    /// eventlet's `wait`.
    ///
    /// Who waits when the event is reset gets what was sent before.
    ///
    /// # Panics
    ///
    /// With an exception that was sent. When it has to wait on the hub's own loop, or while the
    /// thread exits.
    pub fn wait(&self) -> T
    where
        T: Clone,
    {
        let round = self.round();
        round.wait(None);
        round.copy().unwrap_or_else(|| panic!("cannot wait for an event: this thread is exiting"))
    }

    /// As [`wait`](Self::wait), but waits no longer than `timeout`; `None` if nothing has been sent by
    /// then.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait); but while the thread exits it returns at once.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<T>
    where
        T: Clone,
    {
        let round = self.round();
        round.wait(Some(timeout));
        round.copy()
    }

    /// Whether something has been sent. Mirrors eventlet's `ready`.
    pub fn ready(&self) -> bool {
        self.round().outcome.get().is_some()
    }

    /// Whether a value has been sent.
    pub fn has_result(&self) -> bool {
        matches!(self.round().outcome.get(), Some(Outcome::Value(_)))
    }

    /// Whether an exception has been sent.
    pub fn has_exception(&self) -> bool {
        matches!(self.round().outcome.get(), Some(Outcome::Exception(_)))
    }

    /// A copy of the value, if one has been sent; does not wait. Mirrors eventlet's `poll`.
    ///
    /// # Panics
    ///
    /// With an exception that was sent.
    pub fn poll(&self) -> Option<T>
    where
        T: Clone,
    {
        self.round().copy()
    }

    /// As [`poll`](Self::poll), but raises no exception.
    pub fn poll_result(&self) -> Option<T>
    where
        T: Clone,
    {
        match self.round().outcome.get() {
            Some(Outcome::Value(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// A copy of the exception, if one has been sent; it is not raised.
    pub fn poll_exception(&self) -> Option<Box<dyn Any + Send>> {
        match self.round().outcome.get() {
            Some(Outcome::Exception(copy)) => Some(copy()),
            _ => None,
        }
    }

    /// Makes it one that has not been sent. Mirrors eventlet's `reset`.
    ///
    /// # Errors
    ///
    /// When it is one already.
    pub fn reset(&self) -> Result<(), NotSent> {
        if !self.ready() {
            return Err(NotSent);
        }
        let before = self.round.replace(Rc::new(Round::new()));
        // Not while it is borrowed.
        drop(before);
        Ok(())
    }

    fn round(&self) -> Rc<Round<T>> {
        Rc::clone(&self.round.borrow())
    }
}

impl<T> Round<T> {
    fn new() -> Self {
        Self { outcome: OnceCell::new(), waiters: RefCell::default() }
    }

    fn send(&self, outcome: Outcome<T>) -> Result<(), Outcome<T>> {
        self.outcome.set(outcome)?;
        let mut waiters = self.waiters.take();
        if !waiters.is_empty() {
            if let Some(hub) = hub::current() {
                while let Some(waiter) = waiters.take_first() {
                    hub.wake(waiter, Wake::Ready);
                }
            }
        }
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) {
        if self.outcome.get().is_none() {
            if let Some(hub) = hub::current() {
                let wait = Wait::begin(&hub, WaitsFor::Event);
                let _waiting = Waiting::new(self, wait.id());
                wait.park(hub.deadline_after(timeout));
            }
        }
    }

    /// None if nothing has been sent.
    fn copy(&self) -> Option<T>
    where
        T: Clone,
    {
        match self.outcome.get()? {
            Outcome::Value(value) => Some(value.clone()),
            Outcome::Exception(copy) => resume_unwind(copy()),
        }
    }
}

/// A wait for an event, until it is over: the waiter may be killed before something is sent.
struct Waiting<'a, T> {
    round: &'a Round<T>,
    ticket: Ticket,
}

impl<'a, T> Waiting<'a, T> {
    fn new(round: &'a Round<T>, id: WaitId) -> Self {
        Self { round, ticket: round.waiters.borrow_mut().join(id) }
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.round.waiters.borrow_mut().leave(self.ticket);
    }
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        Self { round: Rc::clone(&self.round) }
    }
}

impl<T> Default for Event<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing is borrowed while it is written: to write may block.
        let waiting = self.round().waiters.borrow().len();
        f.debug_struct("Event")
            .field("ready", &self.ready())
            .field("has_exception", &self.has_exception())
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for AlreadySent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlreadySent(..)")
    }
}

impl<T> fmt::Display for AlreadySent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("something has been sent by this event before")
    }
}

impl<T> Error for AlreadySent<T> {}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing has been sent by this event, so it is not reset")
    }
}

impl Error for NotSent {}
