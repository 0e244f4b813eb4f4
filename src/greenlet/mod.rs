//! Greenlets: stackful coroutines in a tree, switched by hand.
//!
//! Layer 3. Knows stacks and the machine; knows no hub. A greenlet is a function with a stack of
//! its own. It runs when it is switched to, until it switches to another or ends; nothing else ever
//! suspends it. Greenlets of a thread form a tree whose root is the thread itself. A greenlet's end
//! goes to its parent: its result as the value of the parent's pending
//! [`switch`](Greenlet::switch), its panic as a panic there.
//!
//! ```
//! use stolon::greenlet::{self, Greenlet};
//!
//! let main = greenlet::current::<i32>();
//! let double = Greenlet::new(move |mut n: i32| {
//!     while n < 100 {
//!         n = main.switch(n * 2).unwrap();
//!     }
//!     n
//! });
//! assert_eq!(double.switch(4).unwrap(), 8);
//! assert_eq!(double.switch(21).unwrap(), 42);
//! assert_eq!(double.switch(100).unwrap(), 100);
//! assert!(double.is_dead());
//! ```
//!
//! # What becomes of a greenlet
//!
//! | it ends | rule |
//! |---|---|
//! | by its function's return | the value goes to its parent, as the result of the parent's pending switch or as the argument of its function |
//! | with a value that its parent does not wait for | that is a panic in the parent, which tells both |
//! | by a panic | it goes on in the parent, out of its pending switch, payload intact; a parent that has not started ends by it |
//! | by [`GreenletExit`] | the parent's switch returns [`SwitchError::Exited`]; a parent that has not started ends as well |
//! | its parent is dead | the parent's parent takes its place, and so on up to the root |
//! | by running over its stack | its name and its stack's size go to stderr, and the process aborts |
//!
//! | its last handle is dropped | rule |
//! |---|---|
//! | it has not started | the function is dropped and never runs |
//! | it is suspended | [`GreenletExit`] unwinds it from its pending switch, destructors run; the drop returns when it is dead |
//! | it runs | it goes on; if it waits later, it is killed when the thread next makes a greenlet, but not unwound when the thread exits |
//! | its child still lives | a parent link is no handle: it is killed; what the child ends with goes to the nearest living ancestor |
//! | a handle to it lies on its own stack | that one was not the last: it lives until [`killall`], or is leaked with its thread |
//! | it returns or panics instead of exiting | its value is dropped; a panic is reported by the panic hook, and goes nowhere else |
//! | it catches the exit and switches | the dropper takes no value, so a switch to it fails; if something else wakes the dropper, the greenlet belongs to its thread until it ends |
//!
//! | it is killed or thrown into | rule |
//! |---|---|
//! | it has not started | the function is dropped at once and never runs; its parent gets the payload, or is told of the exit |
//! | it is suspended | its pending switch unwinds; if it catches that, it goes on |
//! | it is current | it unwinds at once |
//! | it is dead | the payload is raised in the nearest living ancestor, or that is told of the exit again |
//! | it is its thread's root | as any other; what nobody catches ends the thread |
//! | it is a green thread or the hub's loop | it unwinds in good order, but the hub does not switch back to who threw; a loop that has ended is replaced |
//! | killed while it unwinds | its pending switch returns [`SwitchError::Exited`], as nothing unwinds twice; if it lives on, the kill comes when it next blocks in a hub |
//! | thrown into while it unwinds | the payload is raised in its destructor, which must catch it: else the process aborts, as by any panic there |
//!
//! | its destructors, while it unwinds | rule |
//! |---|---|
//! | switch, make greenlets, spawn, block | as at any other time; the greenlet that killed or dropped it waits, unless something else wakes it; the hub's loop goes on at once, and [`killall`] after a second |
//! | meanwhile timeouts and kills of other greenlets | are raised when they are due |
//! | meanwhile its own timeouts and kills | are raised when it next blocks after its unwinding has ended |
//! | wait for a descriptor, while a kill or a timeout unwinds it | the wait fails with [`TimedOut`](std::io::ErrorKind::TimedOut) after a second; a panic of its own sets no limit |
//! | switch by hand to another greenlet; or have got control by such a switch last, before a panic | then it cannot be told which of them unwinds: until nobody unwinds any more, all greenlets of the thread are taken to, and timeouts and kills of those that begin to wait meanwhile come afterwards |
//! | meanwhile [`std::thread::panicking`] is | true in all greenlets of the thread, as it counts by thread; panics are caught as ever |
//! | meanwhile a lock of `std` is | poisoned if it was taken before and is released then, by any greenlet of the thread |
//!
//! | the panic hook | rule |
//! |---|---|
//! | waits for time or a descriptor | holds its whole thread: `std` allows no other panic on the thread meanwhile |
//! | waits for anything else | is told that nobody will come, as on a thread that exits: a wait that has no error for that panics, which ends the process |
//! | kills a green thread, or drops a last handle | that one is killed when the hook is over; [`kill`](Greenlet::kill) and [`throw`](Greenlet::throw) fail |
//!
//! | all ends | rule |
//! |---|---|
//! | its thread exits | what never started is dropped; what did is not unwound but leaked, stack included, and counts as dead: [`killall`] first ends it in good order |
//! | destructors of thread-local values run after that | switches, kills and throws fail, and no greenlet starts |
//! | the process exits, from whichever greenlet | as the thread that calls `exit`, or returns from `main`; other threads run on until the process is gone |
//! | `panic = "abort"` | nothing is unwound: what is suspended when its last handle is dropped is leaked, stack included, and counts as dead; [`kill`](Greenlet::kill) and [`throw`](Greenlet::throw) fail, unless only greenlets that have not started end by a kill |
//!
//! Beyond greenlet's own: [`scope()`] for greenlets that borrow, [`iter()`] for generators, [`Local`]
//! for values that each greenlet has for itself. To look at what happens: [`settrace`], [`all`],
//! [`Greenlet::backtrace`].
#![doc = ""]
#![doc = include_str!("../../docs/guarantee.md")]

mod about;
mod attachment;
mod block;
mod builder;
mod entry;
mod error;
mod exit;
mod generator;
mod handle;
mod introspect;
mod local;
mod pending;
mod place;
mod scheduling;
mod scope;
mod thread;
mod throw;
#[cfg(test)]
pub(crate) mod trace;
mod tracing;
mod transfer;
mod tree;
mod unwinding;

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

pub(crate) use about::allow_samples;
pub(crate) use attachment::Attachment;
use block::Stage;
pub use builder::Builder;
pub(crate) use entry::Successor;
pub use error::{ParentError, SwitchError};
pub use exit::GreenletExit;
pub use generator::{Iter, Yielder, iter};
use handle::Handle;
pub use introspect::all;
pub use local::{AccessError, Local};
pub(crate) use local::{cell_methods, find_or_make};
pub(crate) use scheduling::{
    Acquaintance, Scheduler, begin_turn_of_current, clear_raised, current_undisturbed,
    has_timeouts, id_of_current, is_being_ended, is_loop, is_thread_alive, place_of_current,
    raise_pending_kill, root, seal, set_has_timeouts, set_raised, try_current,
};
pub use scope::{Scope, scope};
pub use tracing::{TraceEvent, Tracer, cleartrace, gettrace, settrace};
pub(crate) use unwinding::{Away, is_in_hook, is_unwinding, settle};

/// A handle to a greenlet that is switched to with values of type `T`, mirroring greenlet's
/// `greenlet`.
///
/// Handles are cheap to clone and compare equal if they are of one greenlet. They cannot leave
/// their thread:
///
/// ```compile_fail,E0277
/// let greenlet = stolon::greenlet::Greenlet::new(|()| ());
/// std::thread::spawn(move || greenlet.switch(()));
/// ```
///
/// and what a greenlet runs cannot borrow from the outside, as the greenlet may outlive it:
///
/// ```compile_fail,E0597
/// let greenlet = {
///     let text = String::from("gone");
///     let borrowed = text.as_str();
///     stolon::greenlet::Greenlet::new(move |()| println!("{borrowed}"))
/// };
/// ```
pub struct Greenlet<T: 'static = ()> {
    handle: Handle,
    takes: PhantomData<fn(T) -> T>,
}

impl<T: 'static> Greenlet<T> {
    /// A greenlet that will run `run` when it is first switched to, a child of the current one.
    ///
    /// The first switch's value becomes `run`'s argument, and what `run` returns goes to the
    /// parent.
    ///
    /// # Panics
    ///
    /// When no stack can be had, as [`std::thread::spawn`] does; [`Builder::build`] returns the
    /// error instead.
    #[track_caller]
    pub fn new(run: impl FnOnce(T) -> T + 'static) -> Self {
        Self::builder().build(run).expect("no greenlet could be made")
    }

    /// For a greenlet with a name, a stack of another size or another parent.
    #[inline(always)]
    pub fn builder() -> Builder<T> {
        Builder::new()
    }

    /// Sends `value` to this greenlet, which runs, and returns what the current greenlet is next
    /// switched to with.
    ///
    /// Mirrors greenlet's `switch`. To a greenlet that has not started, `value` is the argument of
    /// its function; to a suspended one, the result of its pending `switch`. To a dead greenlet the
    /// value goes to the nearest ancestor that is not dead. To the current greenlet it returns the
    /// value at once.
    ///
    /// # Errors
    ///
    /// [`SwitchError::TypeMismatch`] when the target waits for another type: nobody was switched,
    /// and the value is handed back. [`SwitchError::Exited`] when control came back without a
    /// value, because a child of the current greenlet was ended by [`GreenletExit`].
    ///
    /// # Panics
    ///
    /// With the panic of a child of the current greenlet that ended so meanwhile; it goes on here.
    /// And unwinds with [`GreenletExit`] when the current greenlet is killed.
    #[inline(always)]
    pub fn switch(&self, value: T) -> Result<T, SwitchError<T>> {
        transfer::switch(&self.handle, value)
    }

    /// The greenlet that gets this one's result; none for a thread's root.
    pub fn parent<U: 'static>(&self) -> Option<Greenlet<U>> {
        self.handle.parent().map(|parent| Greenlet::from_handle(parent.handle()))
    }

    /// Whether it has ended. A greenlet that has not started has not.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.handle.is_dead()
    }

    /// Whether it has been switched to at least once, or has ended.
    #[inline]
    pub fn is_started(&self) -> bool {
        self.handle.stage.get() != Stage::Unstarted
    }

    /// Whether it has started and not ended; greenlet's truth value.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.handle.stage.get() == Stage::Started
    }

    /// Whether it is the one that runs now.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.handle.is_current()
    }

    /// The name it was given, if any.
    pub fn name(&self) -> Option<&str> {
        self.handle.name()
    }

    /// Where in the program it was made: the call of [`new`](Self::new), [`Builder::build`] or
    /// [`spawn`](crate::greenthread::spawn). None for a thread's root.
    ///
    /// ```
    /// let greenlet = stolon::greenlet::Greenlet::new(|()| ());
    /// assert!(greenlet.made_at().is_some_and(|place| place.file() == file!()));
    /// ```
    pub fn made_at(&self) -> Option<&'static Location<'static>> {
        self.handle.made_at.get()
    }

    /// How much of its stack has ever been used, in bytes, for choosing
    /// [`stack_bytes`](Builder::stack_bytes). None for a thread's root, for a dead greenlet, and
    /// where the kernel does not tell.
    ///
    /// It is the distance from the top of the stack to the deepest page that is in memory. So it
    /// counts whole pages, leaves out what was swapped out, and is all of the stack in a process that
    /// locks its memory ([`mlockall(2)`]). A stack is used again when its greenlet has ended, and
    /// keeps its pages for a while: then this tells how deep any of its greenlets has been. For a
    /// number of this greenlet's own, make it on a new thread, whose stacks are all new, and before
    /// any other has ended.
    ///
    /// ```
    /// use stolon::greenlet::{self, Greenlet};
    ///
    /// let deep = Greenlet::new(|()| {
    ///     std::hint::black_box([1u8; 50_000]);
    ///     println!("{:?} bytes of stack", greenlet::current::<()>().stack_used());
    /// });
    /// deep.switch(()).unwrap();
    /// ```
    ///
    /// [`mlockall(2)`]: https://man7.org/linux/man-pages/man2/mlock.2.html
    pub fn stack_used(&self) -> Option<usize> {
        self.handle.stack_span()?.used_bytes()
    }

    /// The same greenlet as one to send values of another type to. Whether it takes them is checked
    /// at each switch.
    pub fn cast<U: 'static>(&self) -> Greenlet<U> {
        Greenlet::from_handle(self.handle.clone())
    }

    #[inline]
    fn from_handle(handle: Handle) -> Self {
        Self { handle, takes: PhantomData }
    }
}

/// The greenlet that runs now, mirroring greenlet's `getcurrent`.
///
/// On a thread's own stack it is the thread's root, which has no parent and is not dead before the
/// thread is. `T` is the type to send to it by this handle.
///
/// # Panics
///
/// In destructors of thread-local values that run after the thread's greenlets have ended.
#[inline]
pub fn current<T: 'static>() -> Greenlet<T> {
    Greenlet::from_handle(thread::current())
}

/// Kills all greenlets of this thread, the youngest first, mirroring gevent's `killall`.
///
/// Each unwinds with [`GreenletExit`], and its destructors run. Call it at the end of a thread whose
/// greenlets hold what must not be leaked; green threads are greenlets, too. On a thread with a hub, one
/// that catches the exit or waits in a destructor is waited for, and killed again, for a second in all,
/// and is left alone then.
///
/// # Panics
///
/// When it is not called on the thread's root. And with what is thrown at the root meanwhile.
pub fn killall() {
    thread::killall();
}

impl<T: 'static> Clone for Greenlet<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), takes: PhantomData }
    }
}

impl<T: 'static, U: 'static> PartialEq<Greenlet<U>> for Greenlet<T> {
    fn eq(&self, other: &Greenlet<U>) -> bool {
        self.handle == other.handle
    }
}

impl<T: 'static> Eq for Greenlet<T> {}

impl<T: 'static> fmt::Debug for Greenlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.handle, f)
    }
}
