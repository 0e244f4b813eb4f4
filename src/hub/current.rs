//! The thread's own hub.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

use super::Hub;
use crate::clock::Clock;
use crate::greenlet;

thread_local! {
    static HUB: Guard = Guard::new();
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
        let hub = Hub::new(Clock::monotonic())?;
        Ok(Rc::clone(self.hub.get_or_init(|| hub)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get() {
            hub.closed.set(true);
        }
    }
}

/// The thread's hub, made if there is none yet.
///
/// # Errors
///
/// When no epoll instance can be made, and when the thread is exiting.
pub(crate) fn try_current() -> io::Result<Rc<Hub>> {
    if let Some(made) = made() {
        return made;
    }
    Err(io::Error::other("no hub: this thread is exiting"))
}

/// The thread's hub, made if there is none yet; none when the thread is exiting.
///
/// # Panics
///
/// When no epoll instance can be made.
pub(crate) fn current() -> Option<Rc<Hub>> {
    made().map(|hub| hub.expect("no hub could be made"))
}

/// None when the thread is exiting.
fn made() -> Option<io::Result<Rc<Hub>>> {
    // Making the guard makes the thread's root, which is too late then.
    if greenlet::is_thread_alive() { HUB.try_with(Guard::hub).ok() } else { None }
}
