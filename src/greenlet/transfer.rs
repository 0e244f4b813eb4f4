//! Transfer: the one place where control leaves one greenlet for another, and arrives.
//!
//! A transfer carries an [`Event`] and a word. What the word is depends on the event:
//!
//! | event | word | the receiver |
//! |---|---|---|
//! | value | the value itself if it fits, else the address of it on the sender's stack | returns it |
//! | throw | a `Box<Box<dyn Any + Send>>`, raw | unwinds with that payload |
//! | kill | none | unwinds with [`GreenletExit`](super::GreenletExit) |
//! | exit | none: a child of the receiver ended by it | reports it |
//! | visit | the address of a request (`introspect.rs`); none back | answers, and waits on |
//! | traced | as of a value | returns it when its thread's tracer has seen it |
//!
//! The sender of a large value stays suspended, or dead with its stack untouched, until the
//! receiver's next instruction has read it: nothing runs on the thread in between.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;

use super::block::Block;
use super::handle::{Handle, Link};
use super::pending::Pending;
use super::throw::raise;
use super::tracing;
use super::tree::nearest_living_ancestor;
use super::unwinding::Away;
use super::{SwitchError, introspect, thread};
use crate::arch::{self, Context, Word};

/// What a panic carries.
pub(super) type Payload = Box<dyn Any + Send>;

/// What a word in flight means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Event {
    Value = 0,
    Throw = 1,
    Kill = 2,
    Exit = 3,
    /// A value, sent on a thread that is traced.
    Traced = 4,
    /// To a suspended greenlet, which sends it back.
    Visit = 5,
}

/// What reached a greenlet that takes values of type `T`.
pub(super) enum Arrival<T> {
    Value(T),
    Throw(Payload),
    Kill,
    Exit,
}

/// What one greenlet can send to another in place of a value.
pub(super) enum Signal {
    Throw(Payload),
    Kill,
    Exit,
}

thread_local! {
    /// The greenlet that runs now; null before the first one of the thread is made and after the
    /// thread's guard is gone. No destructor, so that it can be read to the very end of the thread.
    static CURRENT: Cell<*const Block> = const { Cell::new(ptr::null()) };
}

/// The block of the current greenlet, or null.
#[inline(always)]
pub(super) fn current_ptr() -> *const Block {
    CURRENT.with(Cell::get)
}

#[inline(always)]
fn set_current(block: *const Block) {
    // Not by `LocalKey::set`, which is not inlined.
    CURRENT.with(|current| current.set(block));
}

/// Makes `root` the current greenlet of a thread that has none: the one that runs on the thread's
/// own stack.
pub(super) fn enter_root(root: Link) {
    assert!(current_ptr().is_null(), "a thread has one root");
    // The reference is CURRENT's own from here on, until `leave_root`.
    set_current(root.into_raw());
}

/// Undoes [`enter_root`]. The thread has no current greenlet afterwards, so none may be left that
/// awaits anything.
pub(super) fn leave_root(root: &Handle) {
    assert!(root.is_current(), "only the root can leave");
    set_current(ptr::null());
    // SAFETY: `enter_root` made a raw reference of the root's, and this gives it back, once:
    // CURRENT was not null.
    drop(unsafe { Link::from_raw(root.as_ptr()) });
}

/// Makes `to` the current greenlet, for one that ends and departs for it: for what is returned.
///
/// # Safety
///
/// `to` is alive and waits. The caller leaves for it without saving itself, and makes no use of the
/// current greenlet before it has.
#[inline(always)]
pub(super) unsafe fn depart_for(to: *const Block) -> *const Context {
    set_current(to);
    // SAFETY: the caller's promise.
    let to = unsafe { &*to };
    #[cfg(test)]
    super::trace::note(to);
    to.context.get()
}

/// The current greenlet, if the thread has one yet.
#[inline(always)]
pub(super) fn try_current() -> Option<Handle> {
    let block = current_ptr();
    if block.is_null() {
        return None;
    }
    // SAFETY: the address came out of a `Link` or a `Handle`, and the block of the current greenlet
    // has not been freed: dropping the last handle to it leaves it among its thread's orphans
    // (`exit::last_handle`); the root's is CURRENT's.
    Some(unsafe { Handle::from_ptr(block) })
}

/// Lets `f` see the current greenlet, if the thread has one yet.
#[inline(always)]
pub(super) fn with_current<R>(f: impl FnOnce(Option<&Block>) -> R) -> R {
    // SAFETY: the block of the current greenlet is there (`try_current`), and this frame is on its
    // stack: so it is whenever `f` runs, even if `f` switches and is resumed. The root's is there until
    // `leave_root`, which comes when the thread's own stack has been left, or never returns to it.
    f(unsafe { current_ptr().as_ref() })
}

/// Whether values of type `T` travel in the word itself.
const fn fits_word<T>() -> bool {
    size_of::<T>() <= size_of::<Word>() && align_of::<T>() <= align_of::<Word>()
}

/// The word that stands for `value`. For a value that does not fit it is its address.
#[inline(always)]
pub(super) fn pack<T>(value: *const T) -> Word {
    if const { fits_word::<T>() } {
        let mut word = Word::uninit();
        // SAFETY: a `T` is no larger and no more aligned than the word, and all callers pass a
        // valid value, which they do not use again. Padding and pointers survive, as both sides are
        // copied untyped.
        unsafe { ptr::copy_nonoverlapping(value, word.as_mut_ptr().cast::<T>(), 1) };
        word
    } else {
        MaybeUninit::new(value.cast_mut().cast())
    }
}

/// The value that a word stands for.
///
/// # Safety
///
/// The word was made by [`pack`] from a value of type `T` that is still where it was, and that
/// nobody else will take out.
#[inline(always)]
pub(super) unsafe fn unpack<T>(word: Word) -> T {
    if const { fits_word::<T>() } {
        // SAFETY: the word's first bytes are a `T`, by the caller's promise.
        unsafe { ptr::read(word.as_ptr().cast::<T>()) }
    } else {
        // SAFETY: the word is the address of a `T` that is valid and nobody else's, by the caller's
        // promise.
        unsafe { ptr::read(word.assume_init().cast::<T>().cast_const()) }
    }
}

impl<T: 'static> Arrival<T> {
    /// Takes delivery of what a switch returned or an entry function was called with.
    ///
    /// # Safety
    ///
    /// `word` and `event` have just been received by a greenlet that takes values of type `T`, and
    /// are read once.
    #[inline(always)]
    pub(super) unsafe fn receive(word: Word, event: usize) -> Self {
        if event == Event::Value as usize {
            // SAFETY: senders check that the receiver takes their type, so the word was packed from
            // a `T`; the sender has not run since it packed it.
            return Self::Value(unsafe { unpack(word) });
        }
        // SAFETY: the caller's promise.
        unsafe { Self::receive_other(word, event) }
    }

    /// [`receive`](Self::receive) of anything but a plain value.
    ///
    /// # Safety
    ///
    /// As there.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn receive_other(mut word: Word, mut event: usize) -> Self {
        while event == Event::Visit as usize {
            // SAFETY: the caller's promise.
            (word, event) = unsafe { introspect::receive::<T>(word) };
        }
        tracing::arrives(if event == Event::Throw as usize {
            // SAFETY: a throw's word is a `Box<Payload>` made raw by `pack_payload`, received once.
            Self::Throw(*unsafe { Box::from_raw(word.assume_init().cast::<Payload>()) })
        } else if event == Event::Traced as usize || event == Event::Value as usize {
            // SAFETY: as in `receive`.
            Self::Value(unsafe { unpack(word) })
        } else if event == Event::Kill as usize {
            Self::Kill
        } else {
            Self::Exit
        })
    }
}

/// The word of a throw.
pub(super) fn pack_payload(payload: Payload) -> Word {
    MaybeUninit::new(Box::into_raw(Box::new(payload)).cast())
}

/// Sends `value` to `to`, which gets control, and returns what the current greenlet is next
/// switched to with.
#[inline(always)]
pub(super) fn switch<T: 'static>(to: &Handle, value: T) -> Result<T, SwitchError<T>> {
    if !to.takes::<T>() || to.is_current() {
        return switch_slow(to.clone(), value);
    }
    // SAFETY: checked; the caller holds the reference meanwhile.
    unsafe { send(to.as_ptr(), value) }
}

/// As [`switch`], but lets go of `to` first, if there are other handles: a greenlet that waits for
/// long does not keep the one it switched to. Passes the result to `then`.
#[inline(always)]
pub(super) fn switch_into<T: 'static, R>(
    to: Handle,
    value: T,
    then: impl Fn(Result<T, SwitchError<T>>) -> R,
) -> R {
    if !to.takes::<T>() || to.is_current() {
        return then(switch_slow(to, value));
    }
    let block = to.as_ptr();
    // The last one is dropped while its greenlet runs, so to say, and not by us when we come back.
    to.let_go(thread::adopt_orphan);
    // SAFETY: checked; another handle is left, and the block becomes the current greenlet's before
    // anything runs that could drop that one.
    unsafe { send_and(block, value, then) }
}

/// Sends `value` to a greenlet that awaits a `T`.
///
/// # Safety
///
/// `to` is alive, takes a `T` and is not the current greenlet.
#[inline(always)]
unsafe fn send<T: 'static>(to: *const Block, value: T) -> Result<T, SwitchError<T>> {
    // SAFETY: the caller's promise.
    unsafe { send_and(to, value, |received| received) }
}

/// [`send`], and passes what it returns to `then`.
///
/// # Safety
///
/// As there.
#[inline(always)]
unsafe fn send_and<T: 'static, R>(
    to: *const Block,
    value: T,
    then: impl Fn(Result<T, SwitchError<T>>) -> R,
) -> R {
    let value = ManuallyDrop::new(value);
    // SAFETY: `to` is of this thread (blocks are not `Send`), and by the caller's promise it awaits
    // a `T` and is not the current greenlet: so it is suspended or unstarted. `value` stays where
    // it is until this greenlet is resumed, and is not used again.
    let (word, event) = unsafe { transfer::<T>(to, pack(&raw const *value), Event::Value) };
    if event == Event::Value as usize {
        // SAFETY: senders check that the receiver takes their type, so the word was packed from a
        // `T`; the sender has not run since it packed it.
        return then(Ok(unsafe { unpack(word) }));
    }
    // SAFETY: this greenlet awaited a `T` and has just been resumed.
    then(raise(unsafe { Arrival::receive_other(word, event) }))
}

/// Switching to oneself, to a dead greenlet, or to one whose pending switch takes another type.
#[cold]
#[inline(never)]
fn switch_slow<T: 'static>(to: Handle, value: T) -> Result<T, SwitchError<T>> {
    if !to.is_dead() {
        let link = to.link();
        if !link.is_current() && link.accepts::<T>() {
            // As in `switch_into`.
            to.let_go(thread::adopt_orphan);
        }
        return switch_to_living(&link, value);
    }
    match nearest_living_ancestor(&to) {
        Some(ancestor) => switch_to_living(&ancestor, value),
        None => Err(SwitchError::ThreadExiting { value }),
    }
}

fn switch_to_living<T: 'static>(to: &Link, value: T) -> Result<T, SwitchError<T>> {
    if to.is_current() {
        tracing::stays(Arrival::Value(value))
    } else if to.takes::<T>() {
        // SAFETY: checked; the caller holds the reference meanwhile.
        unsafe { send(to.as_ptr(), value) }
    } else if to.accepts::<T>() {
        let value = ManuallyDrop::new(value);
        // SAFETY: as in `send_and`, with another name for a value.
        let (word, event) =
            unsafe { transfer::<T>(to.as_ptr(), pack(&raw const *value), Event::Traced) };
        // SAFETY: this greenlet awaited a `T` and has just been resumed.
        raise(unsafe { Arrival::receive(word, event) })
    } else if to.waits() && !to.thread.is_sealed() {
        Err(SwitchError::TypeMismatch { value })
    } else {
        Err(SwitchError::ThreadExiting { value })
    }
}

/// Resumes a suspended greenlet, or starts a new one, by something other than a value; returns what
/// reaches the current greenlet next. `T` is what may be sent here meanwhile.
///
/// # Panics
///
/// If `to` does not wait for anything: it is the current greenlet, or dead.
pub(super) fn signal<T: 'static>(to: &Link, signal: Signal) -> Arrival<T> {
    assert!(to.waits(), "only a greenlet that waits can be resumed");
    let _away = Away::if_unwinding();
    let (word, event) = match signal {
        Signal::Throw(payload) => (pack_payload(payload), Event::Throw),
        Signal::Kill => (Word::uninit(), Event::Kill),
        Signal::Exit => (Word::uninit(), Event::Exit),
    };
    // SAFETY: `to` waits for something, so it is suspended or unstarted, not this greenlet, and of
    // this thread. The word is what the event asks for, and every receiver takes these events.
    let (word, event) = unsafe { transfer::<T>(to.as_ptr(), word, event) };
    // SAFETY: this greenlet awaited a `T` and has just been resumed.
    unsafe { Arrival::receive(word, event) }
}

/// Asks the current greenlet, if the thread has one, what it has to look after before it blocks.
#[inline(always)]
pub(super) fn is_pending(what: impl FnOnce(&Pending) -> bool) -> bool {
    with_current(|current| current.is_some_and(|current| what(&current.pending)))
}

/// Changes what the current greenlet, if the thread has one, has to look after.
pub(super) fn with_pending(change: impl FnOnce(&Pending)) {
    with_current(|current| current.map(|current| change(&current.pending)));
}

/// Leaves the current greenlet for `to`, and returns what it is next resumed with.
///
/// # Safety
///
/// `to` is alive, belongs to this thread, is not the current greenlet, and `to` waits; `word` and
/// `event` are of the kinds listed in the module's table, a value of the type that `to` awaits.
#[inline(always)]
pub(super) unsafe fn transfer<T: 'static>(
    to: *const Block,
    word: Word,
    event: Event,
) -> (Word, usize) {
    let from = current_ptr();
    // SAFETY: a thread with a greenlet that awaits something has a current one (`leave_root`); its
    // block is alive (see `try_current`) and stays so while it is suspended, held by whoever can
    // resume it.
    let from = unsafe { &*from };
    from.set_takes::<T>();
    // Not in a switch: there the compiler sees that the event is a plain value.
    if event != Event::Value {
        tracing::leaves(event);
    }
    set_current(to);
    #[cfg(test)]
    // SAFETY: the caller's promise: it is alive.
    super::trace::note(unsafe { &*to });
    // SAFETY: `from` is saved here and nowhere else until it is resumed, which it can be as it is
    // not CURRENT any more. `to` waited, so its context was saved or prepared and not resumed
    // since; now that it is CURRENT nobody resumes it again. Its stack is mapped as long as it is
    // not dead, and blocks never change thread.
    unsafe {
        let to = UnsafeCell::raw_get(&raw const (*to).context);
        arch::switch(from.context.get(), to, word, event as usize)
    }
}
