//! Green threads: functions that run concurrently on one OS thread, scheduled by the hub.
//!
//! Layer 6. Mirrors eventlet's `greenthread` in the shape of `std::thread`: [`spawn`] only
//! schedules; the new green thread runs when the current one next blocks. A green thread that
//! nobody holds a handle to runs on.

mod end;
mod kill;
mod later;
mod links;
#[cfg(test)]
mod tests;
mod unhandled;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use crate::clock::Deadline;
use crate::greenlet::{self, Attachment, Greenlet, GreenletExit};
use crate::hub::{self, Wait, WaitsFor, Wake};
use crate::timeout::TimedOut;
use end::End;
pub use kill::kill;
pub use later::{spawn_after, spawn_after_local};
pub use links::LinkId;
use links::Rare;
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
        if let Some(Ok(value)) = &*self.shared.outcome.borrow() {
            return value.clone();
        }
        let Some(Err(failure)) = self.shared.outcome.take() else {
            panic!("the result of the green thread is gone");
        };
        let payload = failure.tell();
        *self.shared.outcome.borrow_mut() = Some(Err(Failure::copy(copy_of(&*payload))));
        resume_unwind(payload)
    }

    /// Waits for the green thread to end, and returns its result or the payload of its panic, as
    /// [`std::thread::JoinHandle::join`] does.
    pub fn join(self) -> thread::Result<R> {
        Shared::wait_for_end(&self.shared);
        let outcome = self.shared.outcome.borrow_mut().take();
        let outcome = outcome.unwrap_or_else(|| panic!("the result of the green thread is gone"));
        outcome.map_err(Failure::tell)
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
        shared.put(outcome.map_err(Failure::new));
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

/// What a green thread and its handle have in common.
struct Shared<R: 'static> {
    end: End,
    /// When it has ended, until the result is moved out.
    outcome: ManuallyDrop<RefCell<Option<Result<R, Failure>>>>,
    rare: ManuallyDrop<Rare<R>>,
}

impl<R: 'static> Drop for Shared<R> {
    /// Mostly nothing is left to be dropped.
    #[inline(always)]
    fn drop(&mut self) {
        let is_to_drop = match self.outcome.get_mut() {
            None => false,
            Some(Ok(_)) => mem::needs_drop::<R>(),
            Some(Err(_)) => true,
        };
        if is_to_drop || !self.rare.is_none() {
            self.drop_rest();
        }
    }
}

impl<R: 'static> Shared<R> {
    const fn new() -> Self {
        let outcome = ManuallyDrop::new(RefCell::new(None));
        Self { end: End::new(), outcome, rare: ManuallyDrop::new(Rare::new()) }
    }

    #[inline(never)]
    fn drop_rest(&self) {
        // Dropped even if the drop of the result panics.
        let _rare = self.rare.take();
        drop(self.outcome.take());
    }

    /// Notes what it has ended with, once.
    #[inline(always)]
    fn put(&self, outcome: Result<R, Failure>) {
        let before = self.outcome.replace(Some(outcome));
        debug_assert!(before.is_none(), "it ends once");
        mem::forget(before);
    }

    /// Called when that is there, by the green thread itself or by who killed it before it started.
    #[inline(always)]
    fn end(this: &Attachment<Self>) {
        if !this.rare.is_none() {
            Self::end_rare(this);
        }
        this.end.come();
    }

    #[inline(always)]
    fn wait_for_end(this: &Attachment<Self>) {
        if !Self::asks_itself(this) {
            this.end.wait();
        }
    }

    /// False if `deadline` passes before the end.
    fn wait_until(this: &Attachment<Self>, deadline: Deadline) -> bool {
        Self::asks_itself(this) || this.end.wait_until(deadline)
    }
}

/// Sees to it that a green thread that never runs ends all the same.
struct Ending<R: 'static> {
    /// None when it runs.
    shared: Option<Attachment<Shared<R>>>,
}

impl<R: 'static> Ending<R> {
    #[inline(always)]
    fn new(shared: Attachment<Shared<R>>) -> Self {
        Self { shared: Some(shared) }
    }

    /// Runs `f`, and ends with what that comes to.
    #[inline(always)]
    fn run(mut self, f: impl FnOnce() -> R) {
        let Some(shared) = self.shared.take() else { return };
        // The result goes to its place at once, and not through `catch_unwind`: to copy what was just
        // written in parts stalls the processor.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| shared.put(Ok(f())))) {
            shared.put(Err(Failure::new(payload)));
        }
        Shared::end(&shared);
        shared.let_go();
    }
}

impl<R: 'static> Shared<R> {
    #[cold]
    #[inline(never)]
    fn end_unstarted(this: &Attachment<Self>) {
        this.put(Err(Failure::new(Box::new(GreenletExit))));
        Self::end(this);
    }
}

impl<R: 'static> Drop for Ending<R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            Shared::end_unstarted(&shared);
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
