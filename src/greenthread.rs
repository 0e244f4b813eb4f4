//! Green threads: functions that run concurrently on one OS thread, scheduled by the hub.
//!
//! Layer 6. Mirrors eventlet's `greenthread` in the shape of `std::thread`: [`spawn`] only
//! schedules; the new green thread runs when the current one next blocks. A green thread that
//! nobody holds a handle to runs on.

mod end;
mod kill;
mod later;
mod links;
mod shared;
#[cfg(test)]
mod tests;
mod unhandled;

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use crate::clock::Deadline;
use crate::greenlet::{self, Attachment, Greenlet, GreenletExit};
use crate::hub::{self, Wait, WaitsFor, Wake};
use crate::timeout::TimedOut;
pub use kill::kill;
pub use later::{spawn_after, spawn_after_local};
pub use links::LinkId;
use shared::{Ending, Shared};
use unhandled::Failure;
pub use unhandled::{Unhandled, UnhandledHook, set_unhandled_hook};

/// What unwinding carries.
type Payload = Box<dyn Any + Send>;

/// Runs `f` in a new green thread, mirroring eventlet's `spawn` and [`std::thread::spawn`].
///
/// It starts when the current greenlet next blocks, after those that are runnable already.
///
/// ```
/// let answer = stolon::spawn(|| 6 * 7);
/// assert_eq!(answer.wait(), 42);
/// ```
///
/// # Panics
///
/// When no stack can be had; [`Builder::spawn`] returns the error instead.
#[inline]
#[track_caller]
pub fn spawn<R: 'static>(f: impl FnOnce() -> R + 'static) -> GreenThread<R> {
    Builder::new().spawn(f).expect("no green thread could be made")
}

/// Runs `f` in a new green thread that nobody waits for, mirroring eventlet's `spawn_n`: there is no
/// handle, and no place for a result.
///
/// It starts as those of [`spawn`] do. The panic hook reports a panic, which ends the green thread and
/// nothing else, and goes to the hook of [`set_unhandled_hook`].
///
/// # Panics
///
/// When no stack can be had; [`Builder::spawn_n`] returns the error instead.
#[inline]
#[track_caller]
pub fn spawn_n(f: impl FnOnce() + 'static) {
    Builder::new().spawn_n(f).expect("no green thread could be made");
}

/// Blocks the current greenlet, and no other, for at least `duration`, mirroring eventlet's
/// `sleep`.
///
/// A duration of zero lets every other runnable greenlet run once. While the thread exits it
/// returns at once.
///
/// # Panics
///
/// When it is called on the hub's own loop, and when the thread's hub cannot be made.
#[inline(always)]
pub fn sleep(duration: Duration) {
    if duration.is_zero() { hub::yield_now() } else { sleep_for(duration) }
}

/// The greenlet that runs now, mirroring eventlet's `getcurrent`.
pub fn getcurrent() -> Greenlet {
    greenlet::current()
}

fn sleep_for(duration: Duration) {
    let deadline = hub::deadline_after(Some(duration));
    if let Some(wait) = Wait::try_begin(WaitsFor::Sleep) {
        wait.park(deadline);
    }
}

/// Makes green threads with a name or a stack of another size, as [`std::thread::Builder`] does
/// threads.
#[derive(Debug)]
#[must_use = "it does nothing until `spawn` is called"]
pub struct Builder {
    greenlet: greenlet::Builder<Wake>,
}

impl Builder {
    /// With no name and a stack of the default size.
    #[inline(always)]
    pub fn new() -> Self {
        Self { greenlet: Greenlet::builder() }
    }

    /// Names the green thread, for messages and `Debug`.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { greenlet: self.greenlet.name(name) }
    }

    /// The least size of its stack, in bytes.
    pub fn stack_bytes(self, stack_bytes: usize) -> Self {
        Self { greenlet: self.greenlet.stack_bytes(stack_bytes) }
    }

    /// Runs `f` in a new green thread, as [`spawn`] does.
    ///
    /// # Errors
    ///
    /// When no stack can be had or the thread's hub cannot be made.
    #[inline(always)]
    #[track_caller]
    pub fn spawn<R: 'static>(self, f: impl FnOnce() -> R + 'static) -> io::Result<GreenThread<R>> {
        let (greenlet, shared) = self.greenlet.build_with(
            hub::mainloop_as_parent()?,
            hub::NextOne,
            || const { Shared::new() },
            |shared| {
                let ending = Ending::new(shared);
                move |_: Wake| {
                    ending.run(f);
                    Wake::Ended
                }
            },
        )?;
        greenlet.hold_itself();
        hub::start(greenlet);
        Ok(GreenThread { shared })
    }

    /// Runs `f` in a new green thread that nobody waits for, as [`spawn_n`] does.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    #[inline(always)]
    #[track_caller]
    pub fn spawn_n(self, f: impl FnOnce() + 'static) -> io::Result<()> {
        let run = |_| {
            unhandled::run(f);
            Wake::Ended
        };
        let parent = hub::mainloop_as_parent()?;
        let greenlet = self.greenlet.build_child(parent, hub::NextOne, run)?;
        greenlet.hold_itself();
        hub::start(greenlet);
        Ok(())
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// A handle to a green thread that ends with an `R`, mirroring eventlet's `GreenThread`.
///
/// Dropping it detaches the green thread, which runs on.
pub struct GreenThread<R: 'static> {
    shared: Attachment<Shared<R>>,
}

impl<R: 'static> GreenThread<R> {
    /// Waits for the green thread to end, and returns a copy of what it returned, every time it is
    /// called and to any number of waiters. Mirrors eventlet's `wait`.
    ///
    /// # Panics
    ///
    /// With the green thread's panic if it ended by one: with its own payload the first time, later
    /// with a copy if it is a string, and else with a string that says so. With [`GreenletExit`] if
    /// it was killed.
    pub fn wait(&self) -> R
    where
        R: Clone,
    {
        Shared::wait_for_end(&self.shared);
        if let Some(value) = &*self.shared.value.borrow() {
            return value.clone();
        }
        let Some(failure) = self.shared.failure.take() else {
            panic!("the result of the green thread is gone");
        };
        let payload = failure.tell();
        self.shared.failure.set(Some(Failure::copy(copy_of(&*payload))));
        resume_unwind(payload)
    }

    /// Waits for the green thread to end, and returns its result or the payload of its panic, as
    /// [`std::thread::JoinHandle::join`] does.
    pub fn join(self) -> thread::Result<R> {
        Shared::wait_for_end(&self.shared);
        let value = self.shared.value.borrow_mut().take();
        value.ok_or_else(|| match self.shared.failure.take() {
            Some(failure) => failure.tell(),
            None => panic!("the result of the green thread is gone"),
        })
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.shared.end.has_come()
    }
}

impl<R: 'static> GreenThread<R> {
    /// Runs `f` here and now, and returns the handle to a green thread that has ended as `f` has. An
    /// exit, or a timeout, goes on: it is this greenlet that is meant.
    pub(crate) fn run_here(f: impl FnOnce() -> R) -> Self {
        match catch_unwind(AssertUnwindSafe(f)) {
            Err(payload) if is_meant_for_all(&*payload) => resume_unwind(payload),
            outcome => Self::ended(outcome),
        }
    }

    /// A handle to a green thread that has ended.
    pub(crate) fn ended(outcome: thread::Result<R>) -> Self {
        let shared = Greenlet::<Wake>::builder().reserve(Shared::new);
        match outcome {
            Ok(value) => shared.put(value),
            Err(payload) => shared.fail(Failure::new(payload)),
        }
        Shared::end(&shared);
        Self { shared }
    }

    /// Whether it runs now.
    pub(crate) fn is_current(&self) -> bool {
        self.shared.greenlet::<Wake>().is_current()
    }

    /// Waits for it to end, and takes nothing. False if `deadline` passes before that.
    pub(crate) fn wait_until(&self, deadline: Deadline) -> bool {
        Shared::wait_until(&self.shared, deadline)
    }
}

impl<R: 'static> fmt::Debug for GreenThread<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shared.end.has_come() {
            write!(f, "GreenThread(dead)")
        } else {
            write!(f, "GreenThread({:?})", self.shared.greenlet::<Wake>())
        }
    }
}

/// Whether somebody else may wait for what unwinds the current greenlet: an exit, or a timeout.
pub(crate) fn is_meant_for_all(payload: &(dyn Any + Send)) -> bool {
    payload.is::<GreenletExit>() || payload.is::<TimedOut>()
}

/// The next best thing to a copy of a panic's payload.
fn copy_of(payload: &(dyn Any + Send)) -> Box<dyn Any + Send> {
    if payload.is::<GreenletExit>() {
        Box::new(GreenletExit)
    } else if let Some(text) = payload.downcast_ref::<&'static str>() {
        Box::new(*text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Box::new(text.clone())
    } else {
        Box::new("a green thread panicked; its payload went to who waited for it first")
    }
}
