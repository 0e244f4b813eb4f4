//! Timeouts that reach into any depth of blocking code, mirroring eventlet's `timeout`.
//!
//! Layer 6. [`with_timeout`] bounds what a function may take. A [`Timeout`] is the same by hand: it is
//! set when it is made, for the current greenlet, until it is cancelled or dropped.
//!
//! ```
//! use std::time::Duration;
//! use stolon::timeout::with_timeout;
//!
//! let slow = with_timeout(Duration::from_millis(1), || stolon::sleep(Duration::from_secs(60)));
//! assert_eq!(slow.unwrap_err().to_string(), "timed out after 0.001 seconds");
//! assert_eq!(with_timeout(Duration::from_secs(60), || 6 * 7), Ok(42));
//! ```
//!
//! What has expired is raised where its greenlet waits: a [`TimedOut`] unwinds from there, as a panic
//! that calls no panic hook, and destructors run. Who catches it compares identities, not types
//! ([`Timeout::is`], [`Timeout::catch`]): it may be an outer scope's. A `catch_unwind` that gets
//! another's should pass it on with [`resume_unwind`], and one that nobody catches ends its green
//! thread, as a panic does.
//!
//! # What a timeout finds its greenlet at
//!
//! | a timeout expires while its greenlet | rule |
//! |---|---|
//! | waits, or yields by `sleep(0)` | it is raised there |
//! | computes | nothing happens; it is raised when the greenlet next waits or yields, if it is pending then |
//! | has been woken, and waits for its turn | that wait is over well; it is raised at the next one |
//! | unwinds, and waits in a destructor | that wait goes on; it is raised when the greenlet next waits after the unwinding. If a kill or a timeout unwinds it, a wait for a descriptor fails after a second |
//! | is suspended in [`Greenlet::switch`](crate::greenlet::Greenlet::switch) | it is raised when the greenlet next waits in a hub |
//!
//! | several timeouts | rule |
//! |---|---|
//! | are nested, the outer one expires first | it unwinds the inner scopes, which cancel theirs |
//! | have expired when their greenlet looks | the earliest is raised, the first made among equals; the others stay pending until their scopes cancel them |
//! | a timeout and the end of the wait's own time fall together | the timeout wins: `Timeout(0)` beats `sleep(0)` |
//! | a timeout and a kill | whichever reaches the greenlet first unwinds it; scopes on the way cancel theirs |
//!
//! What other greenlets do makes no difference, with one exception: if one of them switches to another by
//! hand ([`Greenlet::switch`](crate::greenlet::Greenlet::switch)) in a destructor while it unwinds, it
//! cannot be told which of them unwinds. Timeouts and kills of greenlets that begin to wait meanwhile come
//! when none of the thread unwinds any more.
//!
//! With `panic = "abort"` nothing can be raised: a timeout that expires in a wait ends the process,
//! with a message. Use the calls that take a timeout of their own there.

mod is_timeout;

use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::greenlet;
use crate::hub::{Alarm, MakePayload};
pub use is_timeout::{IsTimeout, is_timeout};

/// Runs `f`, and ends it if it still waits when `duration` has passed. Mirrors eventlet's
/// `with_timeout`; its `timeout_value` is `with_timeout(..).unwrap_or(value)`.
///
/// `f` ends by unwinding from where it waits. Without a duration, `None`, it takes as long as it
/// takes.
///
/// ```
/// use std::time::Duration;
/// use stolon::event::Event;
/// use stolon::timeout::with_timeout;
///
/// let never = Event::<u32>::new();
/// assert_eq!(with_timeout(Duration::from_millis(1), || never.wait()).unwrap_or(0), 0);
/// assert_eq!(with_timeout(None, || 1), Ok(1));
/// ```
///
/// # Errors
///
/// [`TimedOut`], if this very timeout has expired.
///
/// # Panics
///
/// With what else `f` panics with, a kill and the timeout of an outer scope among it. And as
/// [`Timeout::start`].
pub fn with_timeout<R>(
    duration: impl Into<Option<Duration>>,
    f: impl FnOnce() -> R,
) -> Result<R, TimedOut> {
    Timeout::new(duration).catch(f)
}

/// Raises a [`TimedOut`] in the greenlet that made it, when that waits and the time has passed.
/// Mirrors eventlet's class of this name.
///
/// Dropping it cancels it.
///
/// ```
/// use std::time::Duration;
/// use stolon::timeout::Timeout;
///
/// let timeout = Timeout::new(Duration::from_millis(1));
/// let ended = timeout.catch(|| {
///     // At any depth.
///     stolon::sleep(Duration::from_secs(60));
/// });
/// assert!(ended.is_err() && !timeout.pending());
/// ```
#[must_use = "dropping it cancels it"]
pub struct Timeout {
    id: u64,
    duration: Option<Duration>,
    is_silent: bool,
    payload: Rc<MakePayload>,
    alarm: RefCell<Option<Alarm>>,
}

/// That a timeout has expired: what it raises, and what its scope returns.
///
/// Two are equal if they are of one [`Timeout`].
#[derive(Clone, Debug)]
pub struct TimedOut {
    id: u64,
    duration: Duration,
}

/// Why a [`Timeout`] could not be started: it is pending. To start it anew, cancel it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyStarted;

impl Timeout {
    /// One that expires when `duration` has passed, or never if that is `None`. It is started.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn new(duration: impl Into<Option<Duration>>) -> Self {
        let (id, duration) = (next_id(), duration.into());
        Self::started(id, duration, false, timed_out(id, duration))
    }

    /// As [`new`](Self::new), but its [`scope`](Self::scope) keeps its end to itself. Mirrors
    /// eventlet's `Timeout(seconds, False)`.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn silent(duration: impl Into<Option<Duration>>) -> Self {
        let (id, duration) = (next_id(), duration.into());
        Self::started(id, duration, true, timed_out(id, duration))
    }

    /// As [`new`](Self::new), but raises a copy of `exception` in place of a [`TimedOut`]. Mirrors
    /// eventlet's `Timeout(seconds, exception)`. Neither [`is`](Self::is) nor [`catch`](Self::catch)
    /// knows such a payload.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn raising<E: Any + Send + Clone>(
        duration: impl Into<Option<Duration>>,
        exception: E,
    ) -> Self {
        let payload = Rc::new(move || Box::new(exception.clone()) as Box<dyn Any + Send>);
        Self::started(next_id(), duration.into(), false, payload)
    }

    fn started(
        id: u64,
        duration: Option<Duration>,
        is_silent: bool,
        payload: Rc<MakePayload>,
    ) -> Self {
        let timeout = Self { id, duration, is_silent, payload, alarm: RefCell::new(None) };
        // It has not been started before.
        let _ = timeout.start();
        timeout
    }

    /// Starts it anew, for the current greenlet, after it has expired or was cancelled. Mirrors
    /// eventlet's `start`.
    ///
    /// On a thread that is exiting it does nothing, as nobody waits there.
    ///
    /// # Errors
    ///
    /// When it is pending.
    ///
    /// # Panics
    ///
    /// When the thread's hub cannot be made. And in the destructor of a greenlet-local value, if the
    /// greenlet has had timeouts before it ended.
    pub fn start(&self) -> Result<(), AlreadyStarted> {
        if self.pending() {
            return Err(AlreadyStarted);
        }
        let alarm = self.duration.and_then(|duration| Alarm::set(duration, &self.payload));
        let before = self.alarm.replace(alarm);
        drop(before);
        Ok(())
    }

    /// Cancels it; once more, or after it has expired, is no error. Mirrors eventlet's `cancel`.
    ///
    /// When another greenlet calls it as its own has just been woken by this timeout, it is too late.
    pub fn cancel(&self) {
        let alarm = self.alarm.take();
        drop(alarm);
    }

    /// Whether it may still expire: it was started, and has neither been raised nor cancelled since.
    /// Mirrors eventlet's `pending`.
    pub fn pending(&self) -> bool {
        self.alarm.borrow().as_ref().is_some_and(Alarm::is_pending)
    }

    /// How long it takes; `None` if it never expires.
    pub fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// Whether `payload`, as caught by `catch_unwind`, was raised by this very timeout.
    pub fn is(&self, payload: &dyn Any) -> bool {
        payload.downcast_ref::<TimedOut>().is_some_and(|timed_out| timed_out.is_of(self))
    }

    /// Runs `f`, and then cancels this timeout. If it has ended `f`, that is the error; whatever else
    /// ends `f` goes on. So this is Python's `try` with an `except` for this timeout alone.
    ///
    /// # Errors
    ///
    /// [`TimedOut`], if this very timeout has ended `f`.
    ///
    /// # Panics
    ///
    /// With what else `f` panics with.
    pub fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, TimedOut> {
        let ended = catch_unwind(AssertUnwindSafe(f));
        self.cancel();
        match ended {
            Ok(value) => Ok(value),
            Err(payload) if self.is(&*payload) => {
                greenlet::clear_raised();
                match payload.downcast() {
                    Ok(timed_out) => Err(*timed_out),
                    Err(payload) => resume_unwind(payload),
                }
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Starts this timeout if it is not pending, runs `f`, and cancels the timeout: Python's `with`
    /// block. `None` if the timeout is a [`silent`](Self::silent) one and has ended `f`.
    ///
    /// # Panics
    ///
    /// With what else `f` panics with, and with this timeout's [`TimedOut`] if it is not silent. And
    /// as [`start`](Self::start).
    pub fn scope<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        // An error: it is pending, as it is to be.
        let _ = self.start();
        match self.catch(f) {
            Ok(value) => Some(value),
            Err(_) if self.is_silent => None,
            Err(timed_out) => resume_unwind(Box::new(timed_out)),
        }
    }
}

fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// What makes the payload of a timeout of its own kind.
fn timed_out(id: u64, duration: Option<Duration>) -> Rc<MakePayload> {
    let duration = duration.unwrap_or(Duration::MAX);
    Rc::new(move || Box::new(TimedOut { id, duration }))
}

impl TimedOut {
    /// How long it was set for.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether `timeout` is what has expired.
    pub fn is_of(&self, timeout: &Timeout) -> bool {
        self.id == timeout.id
    }
}

/// As eventlet's `str`: "1 second", "2 seconds (silent)", and nothing for one that never expires.
impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(duration) = self.duration else { return Ok(()) };
        write_seconds(f, duration)?;
        if self.is_silent { f.write_str(" (silent)") } else { Ok(()) }
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("duration", &self.duration)
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl PartialEq for TimedOut {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for TimedOut {}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out after ")?;
        write_seconds(f, self.duration)
    }
}

impl Error for TimedOut {}

impl From<TimedOut> for io::Error {
    fn from(timed_out: TimedOut) -> Self {
        Self::new(io::ErrorKind::TimedOut, timed_out)
    }
}

impl fmt::Display for AlreadyStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the timeout is already started; to restart it, cancel it first")
    }
}

impl Error for AlreadyStarted {}

fn write_seconds(f: &mut fmt::Formatter<'_>, duration: Duration) -> fmt::Result {
    let seconds = duration.as_secs_f64();
    write!(f, "{seconds} second{}", if duration == Duration::from_secs(1) { "" } else { "s" })
}
