//! Scopes: greenlets that borrow from the stack of the one that made them.
//!
//! Sound because [`scope`] returns, or unwinds, only when all greenlets of the scope are dead, their
//! frames and captures gone. It counts on nothing but its own list of them: handles may be
//! forgotten, or outlive the scope, in which case they are handles to dead greenlets. Where it
//! cannot have them dead it does not return: it waits, and if that is no use, ends the process. To
//! leak them, as greenlets without a scope are leaked, would not do: there may be threads, in a
//! `std::thread::scope` of theirs, that still use what they borrowed.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::abort;

use super::block::{AtExit, Stage};
use super::generator::{self, Iter, Yielder};
use super::handle::Link;
use super::pending::Pending;
use super::transfer::{self, Arrival, Payload};
use super::unwinding::{is_in_hook, is_unwinding};
use super::{Builder, Greenlet, exit, thread, throw};
use crate::quietly::dispose;

/// How often a greenlet that goes on in spite of it is killed at the end of its scope.
const MAX_KILLS: usize = 100;

/// Where greenlets are made that may borrow what lives for `'env`: see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    members: RefCell<Vec<Link>>,
    // Invariant in both, as `std::thread::Scope` is.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Calls `f` with a scope, in which greenlets can be made that borrow from here. When `f` returns or
/// unwinds, those that have not ended are killed, the youngest first; so none outlives the scope.
/// In the shape of [`std::thread::scope`].
///
/// ```
/// use stolon::greenlet;
///
/// let text = String::from("borrowed");
/// let mut seen = Vec::new();
/// let main = greenlet::current::<usize>();
/// greenlet::scope(|scope| {
///     let reader = scope.greenlet(|at: usize| {
///         seen.push(&text[at..]);
///         main.switch(text.len()).unwrap()
///     });
///     assert_eq!(reader.switch(3).unwrap(), 8);
/// });
/// assert_eq!(seen, ["rowed"]);
/// ```
///
/// | | rule |
/// |---|---|
/// | a greenlet of the scope panics | as everywhere: it goes on in its parent |
/// | it panics while it is killed at the end | reported by the panic hook, and goes nowhere else |
/// | its destructors switch or block then | the scope waits; other greenlets run meanwhile |
/// | it catches the exit, and waits again | the scope waits; if something else lets the scope's owner go on it is killed again, and the process aborts if that is no use a hundred times |
/// | something is thrown at who waits for the end | it is raised when the scope has ended; of several the first; a panic of `f` comes before them |
/// | its owner is killed while it waits for the end, however often | the exit is raised when the scope has ended |
/// | the scope ends in a destructor of its owner's, which unwinds | its greenlets unwind as well; if it cannot be told who unwinds, their pending switches return [`SwitchError::Exited`](super::SwitchError::Exited) until they end |
/// | it ends in a call on the hub's loop, and a greenlet of it waits in a destructor | the loop cannot wait: the process aborts |
/// | a handle is forgotten or outlives the scope | no matter: the greenlet is dead |
/// | the thread exits inside of the scope | the scope never ends, and its greenlets are leaked with its frame |
/// | `panic = "abort"`, or it is in the panic hook, and one is suspended at the end | the process aborts |
///
/// # What does not compile
///
/// A greenlet that borrows what the scope's own closure has, which is gone before it:
///
/// ```compile_fail,E0597
/// stolon::greenlet::scope(|scope| {
///     let text = String::from("gone");
///     let borrowed = &text;
///     scope.greenlet(move |()| println!("{borrowed}"));
/// });
/// ```
///
/// One that is used while what it borrows is changed or moved:
///
/// ```compile_fail,E0502
/// let mut text = String::new();
/// stolon::greenlet::scope(|scope| {
///     scope.greenlet(|()| println!("{text}"));
///     text.push('!');
/// });
/// ```
///
/// A borrow that is returned from it, or sent out of it; values are `'static`:
///
/// ```compile_fail,E0597
/// let text = String::from("short-lived");
/// stolon::greenlet::scope(|scope| {
///     scope.greenlet(|_: &'static str| text.as_str());
/// });
/// ```
///
/// And one that is sent to another thread, together with its scope or alone:
///
/// ```compile_fail,E0277
/// stolon::greenlet::scope(|scope| {
///     let greenlet = scope.greenlet(|()| ());
///     std::thread::scope(|threads| {
///         threads.spawn(|| greenlet.switch(()));
///     });
/// });
/// ```
///
/// ```compile_fail,E0277
/// stolon::greenlet::scope(|scope| {
///     std::thread::scope(|threads| {
///         threads.spawn(|| drop(scope.greenlet(|()| ())));
///     });
/// });
/// ```
///
/// # Panics
///
/// With the panic of `f`, and with what else the table says.
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    let scope = Scope { members: RefCell::default(), scope: PhantomData, env: PhantomData };
    // Caught, so that its greenlets can unwind: a thread that does cannot start another unwinding.
    let returned = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let raised = scope.end();
    match (returned, raised) {
        (Err(payload), raised) => {
            if let Some(raised) = raised {
                dispose(raised);
            }
            resume_unwind(payload)
        }
        (Ok(_), Some(payload)) if !is_unwinding() => resume_unwind(payload),
        (Ok(value), raised) => {
            // The panic hook has reported it.
            if let Some(raised) = raised {
                dispose(raised);
            }
            throw::raise_pending_kill();
            value
        }
    }
}

impl<'scope> Scope<'scope, '_> {
    /// As [`Greenlet::new`], for a function that may borrow.
    ///
    /// # Panics
    ///
    /// When no stack can be had.
    #[track_caller]
    pub fn greenlet<T: 'static>(&'scope self, run: impl FnOnce(T) -> T + 'scope) -> Greenlet<T> {
        self.build(Greenlet::builder(), run).expect("no greenlet could be made")
    }

    /// As [`Builder::build`], for a function that may borrow.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    #[track_caller]
    pub fn build<T: 'static>(
        &'scope self,
        builder: Builder<T>,
        run: impl FnOnce(T) -> T + 'scope,
    ) -> io::Result<Greenlet<T>> {
        let run: Box<dyn FnOnce(T) -> T + 'scope> = Box::new(run);
        // SAFETY: the two types differ in a lifetime only. The function, and all that it makes of what
        // it borrows, is gone when its greenlet is dead, and `'scope` lasts until then: `scope`
        // returns when all its members are. A greenlet's values, payloads and local values outlive
        // it, but are 'static.
        let run: Box<dyn FnOnce(T) -> T> = unsafe { mem::transmute(run) };
        let greenlet = builder.build(run)?;
        // If the thread exits, `scope` does not return, and what was borrowed may still be gone.
        greenlet.handle.at_exit.set(AtExit::Leaked);
        // Nothing runs in between that could end the scope.
        self.admit(greenlet.handle.link());
        Ok(greenlet)
    }

    /// As [`iter`](super::iter()), for a generator that may borrow.
    ///
    /// ```
    /// let text = String::from("one two three");
    /// let lengths = stolon::greenlet::scope(|scope| {
    ///     let lengths = scope.iter(|yielder| {
    ///         text.split(' ').for_each(|word| yielder.yield_(word.len()));
    ///     });
    ///     lengths.collect::<Vec<_>>()
    /// });
    /// assert_eq!(lengths, [3, 3, 5]);
    /// ```
    ///
    /// # Panics
    ///
    /// When no stack can be had.
    #[track_caller]
    pub fn iter<V: 'static>(&'scope self, run: impl FnOnce(&Yielder<V>) + 'scope) -> Iter<V> {
        Iter::of(self.greenlet(generator::body(run)))
    }

    fn admit(&self, member: Link) {
        let mut members = self.members.borrow_mut();
        if members.len() == members.capacity() {
            // So that the list grows with those that live, not with those that ever did.
            members.retain(|member| !member.has_ended());
        }
        members.push(member);
    }
}

impl Scope<'_, '_> {
    /// Kills all members, and returns when they are dead; with what was thrown here meanwhile.
    fn end(&self) -> Option<Payload> {
        let no_way_out = AbortsOnDrop;
        let mut raised = None;
        loop {
            // One by one: a destructor may make others.
            let Some(member) = self.members.borrow_mut().pop() else { break };
            let mut kills = 0;
            while kills < MAX_KILLS && !cannot_be_killed(&member) {
                if transfer::is_pending(Pending::is_loop) && !member.thread.is_sealed() {
                    // It does not wait.
                    let ended = catch_unwind(AssertUnwindSafe(|| exit::end(&member)));
                    raised = raised.or(ended.err());
                    kills += 1;
                    continue;
                }
                match exit::kill_for(&member) {
                    // Not for a kill that has not been raised, as the member unwinds already.
                    Arrival::Value(_) | Arrival::Exit => {
                        kills += usize::from(!member.pending.kill());
                    }
                    // That is for the scope's owner, and says nothing of the member.
                    Arrival::Throw(payload) if raised.is_none() => raised = Some(payload),
                    Arrival::Throw(payload) => dispose(payload),
                    Arrival::Kill => thread::current().pending.set_kill(true),
                }
            }
            if !member.has_ended() {
                eprintln!("{:?} cannot be made to end, and its scope has ended", *member);
                abort();
            }
        }
        mem::forget(no_way_out);
        raised
    }
}

/// Whether it has ended, was leaked, or would not unwind.
fn cannot_be_killed(member: &Link) -> bool {
    let cannot_unwind = cfg!(panic = "abort") || is_in_hook();
    !member.waits() || (cannot_unwind && member.stage.get() == Stage::Started)
}

/// Sees to it that nothing unwinds past greenlets that are not dead.
struct AbortsOnDrop;

impl Drop for AbortsOnDrop {
    fn drop(&mut self) {
        abort();
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
