//! A wait that any thread, or a signal handler, may end.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use super::{FLAGS, Flags, Post};
use crate::clock::{Clock, Deadline};
use crate::hub::{self, Hub, Wait, WaitId, WaitsFor, Wake};

/// Waits for a [`Waker`], which blocks the current greenlet and no other. It stays on its thread;
/// its wakers may go anywhere.
///
/// A wake-up that comes before the wait lets it return at once, as [`thread::unpark`](Thread::unpark)
/// does; several count as one. A wake-up that comes when the waiter has been dropped does nothing,
/// whoever waits by then. So make one for each thing that is waited for.
///
/// ```
/// use stolon::hub::Waiter;
///
/// let mut waiter = Waiter::new();
/// let waker = waiter.waker();
/// let thread = std::thread::spawn(move || waker.wake());
/// waiter.wait();
/// assert!(thread.join().unwrap());
/// ```
///
/// # Signal handlers
///
/// A handler may call [`Waker::wake`] of a waker that was made before, and nothing else of this
/// crate: it sets flags and writes to an eventfd. It finds the waker in a `static`, say a
/// [`OnceLock`](std::sync::OnceLock). The greenlet that waits is runnable at once, and its hub, if it
/// was waiting for descriptors, waits no longer, whichever thread the handler ran on. Only a waker of
/// a waiter that was made while its thread exits, when there is no hub any more, is not for handlers.
pub struct Waiter(Kind);

enum Kind {
    /// Of a thread's hub.
    Green { hub: Rc<Hub>, post: Rc<Post>, flag: Flag },
    /// Of a thread without one: the whole thread waits.
    Native(Arc<Native>),
}

/// One waiter's flag, as its wakers see it.
#[derive(Clone)]
struct Flag {
    flags: Arc<Flags>,
    place: u32,
    number: u64,
}

struct Native {
    woken: AtomicBool,
    /// Whether the waiter is gone.
    closed: AtomicBool,
    thread: Thread,
}

impl Waiter {
    /// A waiter that has not been woken.
    ///
    /// # Panics
    ///
    /// When the thread's hub cannot be made, for want of descriptors.
    pub fn new() -> Self {
        hub::current().map_or_else(Self::native, Self::green)
    }

    /// A waiter for one wait, which is about to begin: on a thread that has no hub none is made,
    /// and the thread itself will wait.
    pub(crate) fn for_one_wait() -> Self {
        hub::existing().map_or_else(Self::native, Self::green)
    }

    fn green(hub: Rc<Hub>) -> Self {
        let post = hub.post().expect("nobody can wait for another thread");
        let (flags, place) = post.occupy();
        let number = flags.number(place % FLAGS);
        Self(Kind::Green { hub, post, flag: Flag { flags, place, number } })
    }

    fn native() -> Self {
        let [woken, closed] = [const { AtomicBool::new(false) }; 2];
        Self(Kind::Native(Arc::new(Native { woken, closed, thread: thread::current() })))
    }

    /// Something that wakes this waiter. As long as there is one, the hub does not report a deadlock.
    pub fn waker(&self) -> Waker {
        Waker::new(match &self.0 {
            Kind::Green { flag, .. } => Target::Green(flag.clone()),
            Kind::Native(native) => Target::Native(Arc::clone(native)),
        })
    }

    /// Waits until one of its wakers was used since the last wait.
    ///
    /// # Panics
    ///
    /// On the hub's own loop; and with a report of all that wait, in the main greenlet, when nothing
    /// can wake any of them any more: then all wakers and handles of the hub are gone, too.
    pub fn wait(&mut self) {
        self.wait_until(WaitsFor::Waker, Deadline::NEVER);
    }

    /// As [`wait`](Self::wait), for at most `timeout`; false if nobody has woken it by then.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> bool {
        self.wait_until(WaitsFor::Waker, self.deadline_after(timeout))
    }

    /// The deadline that is `timeout` from now.
    pub(crate) fn deadline_after(&self, timeout: Duration) -> Deadline {
        match &self.0 {
            Kind::Green { hub, .. } => hub.deadline_after(Some(timeout)),
            Kind::Native(_) => Deadline::after(Clock::monotonic().now(), timeout),
        }
    }

    /// Waits; false if nobody has woken it when `deadline` has passed.
    pub(crate) fn wait_until(&mut self, waits_for: WaitsFor, deadline: Deadline) -> bool {
        match &self.0 {
            Kind::Green { hub, post, flag } => flag.wait(hub, post, waits_for, deadline),
            Kind::Native(native) => native.wait(deadline),
        }
    }
}

impl Flag {
    fn raise(&self) -> bool {
        let marked = self.flags.mark(self.place % FLAGS, self.number);
        if marked {
            self.flags.raise(self.place % FLAGS);
        }
        marked
    }

    /// As [`raise`](Self::raise), but not for a signal handler: who waits on this very thread is
    /// runnable at once, and not when the mainloop next looks.
    fn raise_directly(&self) {
        let own = hub::existing().filter(|hub| hub.has_inbox(&self.flags.inbox));
        match own {
            Some(hub) if self.flags.mark(self.place % FLAGS, self.number) => {
                hub.wake_place(self.place);
            }
            Some(_) => {}
            None => {
                self.raise();
            }
        }
    }

    fn wait(&self, hub: &Rc<Hub>, post: &Post, waits_for: WaitsFor, deadline: Deadline) -> bool {
        // The hub looks at the flags in its mainloop only: not between this and the parking.
        while !self.flags.lower(self.place % FLAGS, self.number) {
            assert!(!hub.closed.get(), "cannot wait: this thread is exiting");
            let wait = Wait::begin(hub, waits_for);
            let _waiting = Waiting::new(post, self.place, wait.id());
            match wait.park(deadline) {
                Wake::Expired => return self.flags.lower(self.place % FLAGS, self.number),
                Wake::Closed => panic!("cannot wait: this thread is exiting"),
                _ => {}
            }
        }
        true
    }
}

/// Notes which wait a flag ends, until that is over.
struct Waiting<'a> {
    post: &'a Post,
    place: u32,
}

impl<'a> Waiting<'a> {
    fn new(post: &'a Post, place: u32, id: WaitId) -> Self {
        post.set_wait(place, Some(id));
        Self { post, place }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.post.set_wait(self.place, None);
    }
}

impl Native {
    fn raise(&self) -> bool {
        let raised =
            !self.closed.load(Ordering::Acquire) && !self.woken.swap(true, Ordering::AcqRel);
        if raised {
            self.thread.unpark();
        }
        raised
    }

    fn wait(&self, deadline: Deadline) -> bool {
        let clock = Clock::monotonic();
        while !self.woken.swap(false, Ordering::AcqRel) {
            match deadline.remaining(clock.now()) {
                None => thread::park(),
                Some(Duration::ZERO) => return self.woken.swap(false, Ordering::AcqRel),
                Some(rest) => thread::park_timeout(rest),
            }
        }
        true
    }
}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        match &self.0 {
            Kind::Green { post, flag, .. } => {
                flag.flags.retire(flag.place % FLAGS);
                post.vacate(flag.place);
            }
            Kind::Native(native) => native.closed.store(true, Ordering::Release),
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

/// Wakes one [`Waiter`], from any thread; made by [`Waiter::waker`].
pub struct Waker(Target);

#[derive(Clone)]
enum Target {
    Green(Flag),
    Native(Arc<Native>),
}

impl Waker {
    fn new(target: Target) -> Self {
        if let Target::Green(flag) = &target {
            flag.flags.inbox.enter();
        }
        Self(target)
    }

    /// Wakes the waiter. False if that was not needed, as it was woken before and has not run since,
    /// or not possible: the waiter is gone, or belongs to the process that this one was forked from.
    ///
    /// It may be called in a signal handler; see [`Waiter`].
    pub fn wake(&self) -> bool {
        match &self.0 {
            Target::Green(flag) => flag.raise(),
            Target::Native(native) => native.raise(),
        }
    }
}

impl Waker {
    /// As [`wake`](Self::wake), but not for a signal handler.
    pub(crate) fn wake_directly(&self) {
        match &self.0 {
            Target::Green(flag) => flag.raise_directly(),
            Target::Native(native) => {
                native.raise();
            }
        }
    }
}

impl Clone for Waker {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        if let Target::Green(flag) = &self.0 {
            flag.flags.inbox.leave();
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}
