//! Throw: what is raised in a greenlet by another one, where it arrives, and what it does there.
//!
//! | the target | a payload | an exit |
//! |---|---|---|
//! | current | is raised at once | is raised at once |
//! | suspended | is raised at its pending switch | is raised at its pending switch |
//! | not started | ends it, and goes on in its parent | ends it, and is reported to its parent |
//! | dead | goes to the nearest living ancestor | is reported to the nearest living ancestor |
//!
//! What goes on in a parent, or is reported there, meets it in one of these states in turn. A
//! report makes a pending switch return [`SwitchError::Exited`]; a parent that has not started has
//! no value to start with then, and ends as well.

use std::any::Any;
use std::panic::resume_unwind;

use super::block::{Block, Stage};
use super::handle::{Handle, Link};
use super::pending::Pending;
use super::tracing;
use super::transfer::{self, Arrival, Signal};
use super::tree::nearest_living_ancestor;
use super::{Greenlet, GreenletExit, SwitchError, unwinding};

impl<T: 'static> Greenlet<T> {
    /// Raises `payload` in this greenlet, out of its pending [`switch`](Self::switch), and returns
    /// what the current greenlet is next switched to with. Mirrors greenlet's `throw`.
    ///
    /// It unwinds there as a panic that calls no panic hook; if nothing catches it, it goes on in
    /// the parent. A greenlet that has not started ends at once: its function is dropped and does
    /// not run, and the payload goes to its parent. For a dead greenlet the payload goes to the
    /// nearest ancestor that is not dead. In the current greenlet it is raised at once.
    ///
    /// A [`GreenletExit`] does what [`kill`](Self::kill) does.
    ///
    /// A greenlet that waits in a destructor while it unwinds should not be thrown into: a payload
    /// that leaves the destructor aborts the process, as any panic does there. If what it waits for
    /// is the death of a greenlet that it drops, the payload is lost.
    ///
    /// As with `switch`, someone has to switch back. A green thread ends in its hub, which does
    /// not know who threw: use [`GreenThread::kill`](crate::GreenThread::kill) for those.
    ///
    /// ```
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    /// use stolon::greenlet::{self, Greenlet};
    ///
    /// let main = greenlet::current::<i32>();
    /// let careful = Greenlet::new(move |n| {
    ///     let thrown = catch_unwind(AssertUnwindSafe(|| main.switch(n))).unwrap_err();
    ///     *thrown.downcast::<i32>().unwrap() + 1
    /// });
    /// careful.switch(0).unwrap();
    /// assert_eq!(careful.throw(Box::new(41)).unwrap(), 42);
    /// ```
    ///
    /// # Errors
    ///
    /// [`SwitchError::CannotUnwind`] when nothing can be raised in it: nobody was switched, and the
    /// payload is dropped. [`SwitchError::Exited`] as from `switch`.
    ///
    /// # Panics
    ///
    /// As `switch`: also with `payload`, if that comes back here.
    pub fn throw(&self, payload: Box<dyn Any + Send>) -> Result<T, SwitchError<T>> {
        let is_exit = payload.is::<GreenletExit>();
        signal(&self.handle, if is_exit { Signal::Kill } else { Signal::Throw(payload) })
    }

    /// Makes this greenlet unwind with [`GreenletExit`], out of its pending
    /// [`switch`](Self::switch), and returns what the current greenlet is next switched to with.
    /// Mirrors greenlet's `throw` without arguments.
    ///
    /// Its destructors run. When it has ended, its parent's switch returns
    /// [`SwitchError::Exited`]: if the parent is the current greenlet, this call. One that has not
    /// started ends without running. If it is dead already, the nearest ancestor that is not is
    /// told so again.
    ///
    /// A greenlet that catches the exit lives on, and what it does next decides what this returns.
    /// While it unwinds it cannot be killed: its pending switch returns `Exited`, and the kill comes
    /// when it next blocks in a hub.
    ///
    /// # Errors
    ///
    /// [`SwitchError::Exited`], when a child of the current greenlet has ended by this.
    /// [`SwitchError::CannotUnwind`] as from [`throw`](Self::throw).
    ///
    /// # Panics
    ///
    /// As `switch`. And unwinds with `GreenletExit`, if this is the current greenlet.
    pub fn kill(&self) -> Result<T, SwitchError<T>> {
        signal(&self.handle, Signal::Kill)
    }
}

/// Raises something in a greenlet, wherever that leads; returns what reaches the current one next.
pub(super) fn signal<T: 'static>(to: &Handle, signal: Signal) -> Result<T, SwitchError<T>> {
    if !to.is_dead() {
        return signal_living(&to.link(), signal);
    }
    // It has ended, so an exit is news and no order.
    let signal = if matches!(signal, Signal::Kill) { Signal::Exit } else { signal };
    match nearest_living_ancestor(to) {
        Some(ancestor) => signal_living(&ancestor, signal),
        None => Err(SwitchError::CannotUnwind),
    }
}

fn signal_living<T: 'static>(to: &Link, signal: Signal) -> Result<T, SwitchError<T>> {
    let cannot_unwind = cfg!(panic = "abort") || unwinding::is_in_hook();
    if cannot_unwind && unwinds(to, &signal) {
        return Err(SwitchError::CannotUnwind);
    }
    if to.is_current() {
        return tracing::stays(match signal {
            Signal::Throw(payload) => Arrival::Throw(payload),
            Signal::Kill => Arrival::Kill,
            Signal::Exit => Arrival::Exit,
        });
    }
    if to.waits() && !to.thread.is_sealed() {
        raise(transfer::signal(to, signal))
    } else {
        Err(SwitchError::CannotUnwind)
    }
}

/// What an arrival without a value does to the greenlet it reached.
///
/// A greenlet that unwinds cannot be killed until that is over: its switch fails, and the kill is
/// noted. A child's panic goes on, as any panic does in a destructor.
#[cold]
#[inline(never)]
pub(super) fn raise<T>(arrival: Arrival<T>) -> Result<T, SwitchError<T>> {
    if !matches!(arrival, Arrival::Value(_)) {
        unwinding::came_from_who_notes();
    }
    match arrival {
        Arrival::Value(value) => Ok(value),
        Arrival::Exit => Err(SwitchError::Exited),
        Arrival::Throw(payload) => resume_unwind(payload),
        Arrival::Kill => {
            transfer::with_pending(|pending| pending.set_kill(true));
            raise_pending_kill();
            Err(SwitchError::Exited)
        }
    }
}

/// Raises a kill that reached the current greenlet when it could not unwind, if it can now.
#[inline]
pub(super) fn raise_pending_kill() {
    if transfer::is_pending(Pending::kill) {
        raise_late_kill();
    }
}

#[cold]
#[inline(never)]
fn raise_late_kill() {
    if !unwinding::is_unwinding() {
        unwinding::settle();
        transfer::with_pending(|pending| {
            pending.set_kill(false);
            pending.set_raised(true);
        });
        resume_unwind(Box::new(GreenletExit));
    }
}

/// Whether anyone has to unwind. What ends a greenlet that has not started goes on to one that has.
fn unwinds(to: &Block, signal: &Signal) -> bool {
    match signal {
        Signal::Throw(_) => true,
        Signal::Kill => to.stage.get() == Stage::Started,
        Signal::Exit => false,
    }
}
