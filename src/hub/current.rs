//! The thread's own hub.
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::io;
use std::ptr;
use std::rc::Rc;

use super::{Hub, WaitId, Wake};
use crate::greenlet::{self, Greenlet, Successor};

thread_local! {
    static HUB: Guard = Guard::new();

    /// The hub in `HUB`, or null while there is none. Read without asking whether `HUB` is there, and
    /// from a fixed address.
    static OPEN: Cell<*const Rc<Hub>> = const { Cell::new(ptr::null()) };
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
        OPEN.with(|open| open.set(hub));
        Rc::clone(hub)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get() {
            hub.close();
            OPEN.with(|open| open.set(ptr::null()));
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
    match open() {
        Some(hub) => Ok(Rc::clone(hub)),
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
    match open() {
        Some(hub) => Some(Rc::clone(hub)),
        None => make().map(|hub| hub.expect("no hub could be made")),
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
pub(crate) fn existing() -> Option<Rc<Hub>> {
    open().map(Rc::clone)
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
fn yield_first() {
    if let Some(hub) = current() {
        hub.yield_now();
    }
}

/// The thread's hub, if there is one.
#[inline(always)]
fn open<'a>() -> Option<&'a Rc<Hub>> {
    let hub = OPEN.with(Cell::get);
    // SAFETY: if it is not null it is the address of the hub in HUB, which has its final place, as a
    // thread-local does, and is there until `Guard`'s `drop`. That comes on this thread when it has
    // left all greenlets but its root; one that is resumed after that makes no use of the reference.
    // All callers are in this file: they clone it, or are `wake` and `succeed`, which neither switch
    // nor run code of the user's, or `yield_now`, of which `Hub::yield_now` says the same.
    (!hub.is_null()).then(|| unsafe { &*hub })
}

#[cold]
fn try_make() -> io::Result<Rc<Hub>> {
    make().unwrap_or_else(|| Err(io::Error::other("no hub: this thread is exiting")))
}

/// The thread's hub, where it is not open: made if there is none yet, none when the thread is exiting.
#[cold]
fn make() -> Option<io::Result<Rc<Hub>>> {
    // Making the guard makes the thread's root, which is too late then.
    if greenlet::is_thread_alive() { HUB.try_with(Guard::hub).ok() } else { None }
}
