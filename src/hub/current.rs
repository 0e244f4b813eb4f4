//! The thread's own hub.
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::io;
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use super::{Hub, Wait, WaitId, Wake};
use crate::clock::Deadline;
use crate::greenlet::{self, Acquaintance, Greenlet, Successor};
use crate::timers::TimerId;

thread_local! {
    static HUB: Guard = Guard::new();

    /// The hub in `HUB`, or null while there is none. Read without asking whether `HUB` is there, and
    /// from a fixed address.
    static OPEN: Cell<*const Hub> = const { Cell::new(ptr::null()) };
}

/// Owns the thread's hub, and closes it when the thread exits.
struct Guard {
    hub: OnceCell<Rc<Hub>>,
}

impl Guard {
    fn new() -> Self {
        // First of all, so that the thread's greenlets outlive its hub and find it closed.
        greenlet::current::<()>();
        Self { hub: OnceCell::new() }
    }

    fn hub(&self) -> io::Result<Rc<Hub>> {
        if let Some(hub) = self.hub.get() {
            return Ok(Rc::clone(hub));
        }
        Ok(self.open(Hub::new(None)?))
    }

    fn open(&self, hub: Rc<Hub>) -> Rc<Hub> {
        let hub = self.hub.get_or_init(|| hub);
        OPEN.with(|open| open.set(Rc::as_ptr(hub)));
        Rc::clone(hub)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // From here on nobody parks.
        OPEN.with(|open| open.set(ptr::null()));
        match self.hub.get() {
            Some(hub) => hub.close(),
            None => greenlet::seal::<Wake>(None),
        }
    }
}

/// Makes `hub` that of this thread, which has none yet.
pub(super) fn install(hub: Rc<Hub>) {
    assert!(open().is_none(), "this thread has a hub");
    HUB.with(|guard| guard.open(hub));
}

/// The thread's hub, made if there is none yet.
///
/// # Errors
///
/// When no epoll instance can be made, and when the thread is exiting.
#[inline]
pub(crate) fn try_current() -> io::Result<Rc<Hub>> {
    match existing() {
        Some(hub) => Ok(hub),
        None => try_make(),
    }
}

/// The thread's hub, made if there is none yet; none when the thread is exiting.
///
/// # Panics
///
/// When no epoll instance can be made.
#[inline]
pub(crate) fn current() -> Option<Rc<Hub>> {
    match existing() {
        Some(hub) => Some(hub),
        None => make().map(|hub| hub.expect("no hub could be made")),
    }
}

/// The mainloop of the thread's hub, for who only makes it a parent.
///
/// # Errors
///
/// As [`try_current`], and when no stack can be had for it.
#[inline(always)]
pub(crate) fn mainloop_as_parent() -> io::Result<Acquaintance> {
    match open().and_then(|hub| hub.living_mainloop(Greenlet::acquaintance)) {
        Some(mainloop) => Ok(mainloop),
        None => Ok(try_current()?.mainloop()?.acquaintance()),
    }
}

/// Makes a new greenlet runnable for the first time; while the thread exits, it is not to run.
#[inline(always)]
pub(crate) fn start(greenlet: Greenlet<Wake>) {
    if let Some(hub) = open() {
        hub.start(greenlet);
    }
}

/// Ends a wait of one of this thread's greenlets, and makes it runnable, unless that wait is over.
/// Without a hub nobody waits.
#[inline(always)]
pub(crate) fn wake(id: WaitId, wake: Wake) {
    if let Some(hub) = open() {
        hub.wake(id, wake);
    }
}

/// For whom a green thread leaves that has ended: the next one, where it is not the mainloop's turn.
#[derive(Clone, Copy)]
pub(crate) struct NextOne;

impl Successor<Wake> for NextOne {
    #[inline(always)]
    fn succeed(self, parent: u32, wake: &mut Wake) -> Option<Greenlet<Wake>> {
        let next;
        (next, *wake) = open()?.successor(parent)?;
        Some(next)
    }
}

/// The thread's hub, if it has one.
#[inline]
pub(crate) fn existing() -> Option<Rc<Hub>> {
    let hub = OPEN.with(Cell::get);
    if hub.is_null() {
        return None;
    }
    // SAFETY: it is the address that an `Rc` has given, the same that `into_raw` gives. That `Rc` is in HUB
    // still (`open`), so the hub is there; and the reference that is made here was counted before.
    Some(unsafe {
        Rc::increment_strong_count(hub);
        Rc::from_raw(hub)
    })
}

/// The deadline that is `timeout` from now by the clock of the thread's hub; never if there is none, or no
/// hub.
///
/// # Panics
///
/// As [`current`].
#[inline(always)]
pub(crate) fn deadline_after(timeout: Option<Duration>) -> Deadline {
    timeout.map_or(Deadline::NEVER, deadline_after_some)
}

#[inline(never)]
fn deadline_after_some(timeout: Duration) -> Deadline {
    match open() {
        Some(hub) => hub.deadline_after(Some(timeout)),
        None => first_deadline_after(timeout),
    }
}

#[cold]
#[inline(never)]
fn first_deadline_after(timeout: Duration) -> Deadline {
    current().map_or(Deadline::NEVER, |hub| hub.deadline_after(Some(timeout)))
}

/// Parks the current greenlet ([`Wait::park`]).
#[inline(always)]
pub(super) fn park(wait: Wait, deadline: Deadline) -> Wake {
    match open() {
        Some(hub) => hub.park(wait, deadline),
        None => wait.park_otherwise(deadline),
    }
}

/// Ends the parking of a wait of this thread's, if it is parked, and returns its greenlet.
pub(super) fn unpark(id: WaitId) -> Option<Greenlet<Wake>> {
    open()?.run_queue.borrow_mut().unpark(id)
}

/// Cancels a timer of the thread's hub; without one there are no timers.
pub(super) fn cancel_timer(id: TimerId) {
    if let Some(hub) = open() {
        hub.timers.borrow_mut().cancel(id);
    }
}

/// Lets every other runnable greenlet of this thread run once. While the thread exits it does
/// nothing.
///
/// # Panics
///
/// When no epoll instance can be made, and on the hub's own loop.
#[inline(always)]
pub(crate) fn yield_now() {
    match open() {
        Some(hub) => hub.yield_now(),
        None => yield_first(),
    }
}

/// [`yield_now`] before the thread has a hub, and when it has none any more.
#[cold]
#[inline(never)]
fn yield_first() {
    if let Some(hub) = current() {
        hub.yield_now();
    }
}

/// [`Hub::yield_now`], where the mainloop has to run, or another second thought is needed.
#[inline(never)]
pub(super) fn yield_through_mainloop() {
    if let Some(hub) = existing() {
        hub.yield_through_mainloop();
    }
}

/// The thread's hub, if there is one.
#[inline(always)]
fn open<'a>() -> Option<&'a Hub> {
    let hub = OPEN.with(Cell::get);
    // SAFETY: if it is not null it is the address of the hub in HUB, which is there until `Guard::drop` has
    // set it to null and returned. That runs on this thread, and from then on no greenlet is resumed that
    // could be in one of the callers (`greenlet::seal`); the current one does not come back to them. All
    // callers are in this file: they neither switch nor run code of the user's, or they are `park` and
    // `yield_now`, of which `Hub::park` and `Hub::yield_now` say that they make no use of it afterwards.
    (!hub.is_null()).then(|| unsafe { &*hub })
}

#[cold]
#[inline(never)]
fn try_make() -> io::Result<Rc<Hub>> {
    make().unwrap_or_else(|| Err(io::Error::other("no hub: this thread is exiting")))
}

/// The thread's hub, where it is not open: made if there is none yet, none when the thread is exiting.
#[cold]
#[inline(never)]
fn make() -> Option<io::Result<Rc<Hub>>> {
    // Making the guard makes the thread's root, which is too late then.
    if greenlet::is_thread_alive() { HUB.try_with(Guard::hub).ok() } else { None }
}
