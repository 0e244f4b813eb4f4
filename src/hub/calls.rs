//! Scheduled calls: functions that the mainloop calls when their time has come.
//!
//! A pending call is a timer like that of a wait, and beside it a place in a table with the function.
//! So the timers of waits, which are many, are no larger for it. Nothing is borrowed while a function
//! runs or is dropped: it may schedule and cancel what it likes.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Hub;
use super::call_table::{Call, CallId, Due};
use crate::greenlet::{self, Acquaintance};
use crate::quietly::{dispose, quietly};

/// What [`set_error_hook`] sets.
pub(super) type ErrorHook = Rc<dyn Fn(&CallPanic<'_>)>;

/// Calls `f` on the thread's hub when `delay` is over, mirroring eventlet's `schedule_call_global`:
/// whatever has become by then of the greenlet that scheduled it. A timer without a green thread.
///
/// | | rule |
/// |---|---|
/// | order | by deadline, and among equal ones by the order in which they were scheduled |
/// | it schedules another call | that one comes in a later pass of the loop, after those that are due already and after descriptors were looked at, even if `delay` is zero |
/// | `f` captures much | that stays where it is, on the heap; what `f` itself needs lies on the loop's stack, which has the [default size](crate::stack::default_stack_bytes) of the moment when the loop was made |
/// | the [`Timer`] is dropped | nothing: it is called all the same |
/// | it is cancelled, by another call that is due in the same pass too | `f` is dropped and not called |
/// | it panics | [`set_error_hook`] says what is told of it; the loop goes on, with the next call of this pass |
/// | it blocks | that is a panic, as it runs in the loop itself; `sleep` for no time returns at once |
/// | it kills a green thread, or drops the last handle of a greenlet | that one unwinds at once, and the call goes on when it has ended or waits |
/// | a `delay` of more than 584 years | it is never called |
/// | the thread exits | `f` is dropped and not called |
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use stolon::hub;
///
/// let count = Rc::new(Cell::new(0));
/// let in_call = Rc::clone(&count);
/// hub::schedule_call_global(Duration::from_millis(1), move || in_call.set(1));
/// let too_late = hub::schedule_call_global(Duration::from_secs(3600), || unreachable!());
/// stolon::sleep(Duration::from_millis(2));
/// assert_eq!(count.get(), 1);
/// assert!(too_late.cancel());
/// ```
///
/// # Panics
///
/// When the thread's hub cannot be made.
#[track_caller]
pub fn schedule_call_global(delay: Duration, f: impl FnOnce() + 'static) -> Timer {
    schedule(delay, || None, Box::new(f))
}

/// As [`schedule_call_global`], but if the greenlet that is current now is dead when `delay` is over,
/// `f` is dropped then and not called. Mirrors eventlet's `schedule_call_local`.
///
/// It keeps its greenlet from nothing: not from ending, nor from being killed with its last handle.
///
/// ```
/// use std::time::Duration;
/// use stolon::hub;
///
/// let green = stolon::spawn(|| hub::schedule_call_local(Duration::from_millis(1), || unreachable!()));
/// let timer = green.join().unwrap();
/// assert!(timer.is_pending());
/// stolon::sleep(Duration::from_millis(2));
/// assert!(!timer.is_pending());
/// ```
///
/// # Panics
///
/// When the thread's hub cannot be made.
#[track_caller]
pub fn schedule_call_local(delay: Duration, f: impl FnOnce() + 'static) -> Timer {
    schedule(delay, || Some(greenlet::current::<()>().acquaintance()), Box::new(f))
}

#[track_caller]
fn schedule(
    delay: Duration,
    owner: impl FnOnce() -> Option<Acquaintance>,
    run: Box<dyn FnOnce()>,
) -> Timer {
    let place = Location::caller();
    match super::current().filter(|hub| !hub.closed.get()) {
        Some(hub) => hub.schedule(delay, owner(), run, place),
        // The thread is exiting: it counts as cancelled.
        None => Timer { hub: Weak::new(), id: CallId { index: 0, number: 0 } },
    }
}

/// Cancels all calls that are scheduled on this thread, ends the loop of its hub, and returns how many
/// calls there were. Mirrors eventlet's `hub.abort(wait=True)`, which drops them silently.
///
/// Green threads are none of its business: those that sleep or wait go on when it is time. The loop is
/// made anew when somebody next blocks. Until then nothing is left of it, nor of its stack.
///
/// In a call on the loop itself it only cancels the others, as the loop cannot wait for its own end;
/// so also while such a call has switched away or kills a green thread, and in a destructor of a greenlet
/// that unwinds.
///
/// ```
/// use std::time::Duration;
/// use stolon::hub;
///
/// hub::schedule_call_global(Duration::from_secs(3600), || unreachable!());
/// assert_eq!(hub::abort(), 1);
/// stolon::sleep(Duration::from_millis(1));
/// ```
///
/// # Panics
///
/// With the panic of a function's destructor.
pub fn abort() -> usize {
    let Some(hub) = super::current::existing() else { return 0 };
    let cancelled = hub.take_calls();
    let mainloop = hub.last_mainloop().filter(|mainloop| hub.is_at_rest(mainloop));
    if let Some(mainloop) = mainloop.filter(|_| !greenlet::is_unwinding()) {
        mainloop.end();
    }
    cancelled.len()
}

/// Has `hook` called, in the loop of this thread's hub, when a scheduled call panics, or the
/// destructor of one that is not called any more. It replaces the one that was set before.
///
/// The process's panic hook comes first, as for any panic, and by default prints a message to stderr.
/// Without a hook here that is all. A panic of the hook itself goes nowhere else.
///
/// ```
/// use std::{cell::RefCell, rc::Rc, time::Duration};
/// use stolon::hub;
///
/// let log = Rc::new(RefCell::new(Vec::new()));
/// let in_hook = Rc::clone(&log);
/// hub::set_error_hook(move |panic| in_hook.borrow_mut().push(panic.to_string()));
/// hub::schedule_call_global(Duration::ZERO, || panic!("no disk"));
/// stolon::sleep(Duration::from_millis(1));
/// assert!(log.borrow()[0].ends_with("panicked: no disk"));
/// ```
///
/// # Panics
///
/// When the thread's hub cannot be made. While the thread exits it does nothing.
pub fn set_error_hook(hook: impl Fn(&CallPanic<'_>) + 'static) {
    if let Some(hub) = super::current() {
        let before = hub.error_hook.replace(Some(Rc::new(hook)));
        // Not while it is borrowed.
        drop(before);
    }
}

/// Takes out what [`set_error_hook`] has set on this thread.
pub fn clear_error_hook() {
    if let Some(hub) = super::current::existing() {
        drop(hub.error_hook.take());
    }
}

/// What a hook that [`set_error_hook`] sets is told. Displayed, it is a line with the place and, if
/// the payload is a string, what it says.
pub struct CallPanic<'a> {
    payload: &'a (dyn Any + Send),
    place: &'static Location<'static>,
}

impl CallPanic<'_> {
    /// What the call panicked with.
    pub fn payload(&self) -> &(dyn Any + Send) {
        self.payload
    }

    /// Where the call was scheduled.
    pub fn scheduled_at(&self) -> &'static Location<'static> {
        self.place
    }
}

impl fmt::Display for CallPanic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.payload.downcast_ref::<&'static str>().copied();
        let text = text.or_else(|| self.payload.downcast_ref::<String>().map(String::as_str));
        write!(f, "a call that was scheduled at {} has panicked", self.place)?;
        text.map_or(Ok(()), |text| write!(f, ": {text}"))
    }
}

impl fmt::Debug for CallPanic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallPanic({self})")
    }
}

/// A call that was scheduled, mirroring eventlet's `Timer`. Dropping it does not cancel the call.
#[derive(Clone)]
pub struct Timer {
    hub: Weak<Hub>,
    id: CallId,
}

impl Timer {
    /// Sees to it that the call does not come, and drops its function. False if it has come already,
    /// even if it is under way, or was cancelled before.
    pub fn cancel(&self) -> bool {
        let call = self.hub.upgrade().and_then(|hub| {
            let call = hub.calls.borrow_mut().remove(self.id)?;
            hub.timers.borrow_mut().cancel(call.timer);
            Some(call)
        });
        // Its function goes when nothing is borrowed.
        call.is_some()
    }

    /// Whether the call is still to come. That of [`schedule_call_local`] is pending until its time
    /// comes, also if its greenlet is dead by now.
    pub fn is_pending(&self) -> bool {
        self.hub.upgrade().is_some_and(|hub| hub.calls.borrow_mut().get(self.id).is_some())
    }

    /// Has a pending call come when `delay` is over, counted from now, and not as it was to before:
    /// as if it were cancelled and scheduled anew. False, and nothing happens, if it is not pending.
    pub fn reschedule(&self, delay: Duration) -> bool {
        let Some(hub) = self.hub.upgrade() else { return false };
        let mut calls = hub.calls.borrow_mut();
        let Some(call) = calls.get(self.id) else { return false };
        hub.timers.borrow_mut().cancel(call.timer);
        call.timer = hub.insert_timer(hub.deadline_after(Some(delay)), Due::call(self.id.index));
        true
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({})", if self.is_pending() { "pending" } else { "over" })
    }
}

impl Hub {
    fn schedule(
        self: &Rc<Self>,
        delay: Duration,
        owner: Option<Acquaintance>,
        run: Box<dyn FnOnce()>,
        place: &'static Location<'static>,
    ) -> Timer {
        let deadline = self.deadline_after(Some(delay));
        let id = self.calls.borrow_mut().insert(|CallId { index, number }| {
            let timer = self.insert_timer(deadline, Due::call(index));
            Call { number, timer, owner, place, run }
        });
        Timer { hub: Rc::downgrade(self), id }
    }

    /// Calls what was at this place when its timer fired.
    pub(super) fn run_call(&self, index: u32) {
        let call = self.calls.borrow_mut().remove_at(index);
        let Some(Call { owner, place, run, .. }) = call else { return };
        let is_wanted = owner.is_none_or(|owner| !owner.is_dead());
        let ended = catch_unwind(AssertUnwindSafe(|| if is_wanted { run() } else { drop(run) }));
        let Err(payload) = ended else { return };
        let hook = self.error_hook.borrow().clone();
        if let Some(hook) = hook {
            let panic = CallPanic { payload: &*payload, place };
            // With the hook itself, of which this may be the last reference.
            quietly(move || hook(&panic));
        }
        dispose(payload);
    }

    fn take_calls(&self) -> Vec<Call> {
        let calls = self.calls.borrow_mut().take_all();
        let mut timers = self.timers.borrow_mut();
        for call in &calls {
            timers.cancel(call.timer);
        }
        calls
    }

    /// Drops all calls, for a thread that is exiting, and the hook.
    pub(super) fn drop_calls(&self) {
        let hook = self.error_hook.take();
        quietly(|| drop(hook));
        for call in self.take_calls() {
            quietly(|| drop(call));
        }
    }
}
