//! Whether the current greenlet unwinds, or another one of its thread that is suspended.
//!
//! `std` counts the unwindings of a thread ([`std::thread::panicking`]), and the destructors that an
//! unwinding runs may switch and block. So while one greenlet waits in a destructor, `panicking` is true
//! in all of them. What may be raised in a greenlet depends on that greenlet alone: a kill or a timeout
//! that left a destructor would abort the process, and one that is raised in a greenlet which does not
//! unwind is harmless, whatever others do.
//!
//! The count itself tells them apart (`sys/panic_count.rs`). Each greenlet that is suspended while the
//! count is not zero *notes* how many of the unwindings are its own ([`Away`]): the count, less what all
//! others have noted. What is left of the count for the current greenlet are its own unwindings.
//!
//! | where a greenlet is suspended | its unwindings are noted |
//! |---|---|
//! | in the scheduler: it waits, yields, kills | yes |
//! | it throws, kills, or drops a last handle | yes |
//! | it asks a generator, or yields an item | yes |
//! | it switches to another greenlet by hand | no: a switch would have to ask each time |
//!
//! The last row is why the count does not always tell: the unwindings of a greenlet that switched by hand
//! in a destructor would be taken for those of the greenlet that it switched to. A greenlet that gets
//! control in this way was suspended with another type than the scheduler's, or has just started with one.
//! If such a greenlet asks, notes or ends, the count is *unclear* until nobody on the thread unwinds. It is
//! always unclear on a thread without a hub, where greenlets are switched by hand only.
//!
//! While the count is unclear, and where it is not found, all greenlets of the thread are taken to unwind
//! as long as `panicking` is true: what is to be raised in them waits.

use std::cell::Cell;
use std::thread::panicking;

use super::block::Block;
use super::{thread, transfer};
use crate::sys::panic_count;

/// What a thread knows of the unwindings of its greenlets.
#[derive(Default)]
pub(super) struct Unwindings {
    /// How many are of greenlets that are suspended: what all blocks together have noted.
    noted: Cell<usize>,
    /// Whether an unwinding may be of a greenlet that has not noted it.
    unclear: Cell<bool>,
}

/// Whether the current greenlet unwinds: nothing may be raised in it then. Also true in the panic hook, and
/// where that cannot be told, and any greenlet of the thread unwinds.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    panicking() && is_current_unwinding()
}

/// Whether the thread runs the panic hook: `std` would lose count if anything was raised. Also true where
/// that cannot be told, as the thread has been unwinding since it has had greenlets.
pub(crate) fn is_in_hook() -> bool {
    panicking() && (panic_count::is_in_hook() || panic_count::is_unknown())
}

#[cold]
#[inline(never)]
fn is_current_unwinding() -> bool {
    is_in_hook()
        || transfer::with_current(|current| current.is_none_or(|current| own(current) != Some(0)))
}

/// Whether the current greenlet unwinds for certain.
pub(super) fn is_certain() -> bool {
    panicking()
        && transfer::with_current(|current| current.and_then(own).is_some_and(|own| own > 0))
}

/// Whether a greenlet that is suspended may be unwinding.
pub(super) fn may_be(block: &Block) -> bool {
    let is_clear = || transfer::with_current(|current| current.and_then(own).is_some());
    let is_noted = block.unwindings.get() > 0;
    panicking() && (is_in_hook() || is_noted || !took_from_scheduler(block) || !is_clear())
}

/// Forgets what was noted or unclear, if nobody unwinds.
pub(crate) fn settle() {
    let Some(current) = transfer::try_current().filter(|_| !panicking()) else { return };
    panic_count::word();
    let unwindings = &current.thread.unwindings;
    unwindings.unclear.set(false);
    if unwindings.noted.replace(0) != 0 {
        // One was noted for another greenlet than its own after all.
        let living = current.thread.registry.living();
        let root = thread::root_of(&current);
        living.iter().chain([&root]).for_each(|block| block.unwindings.set(0));
    }
}

/// How many unwindings are the current greenlet's own, if that can be told.
fn own(current: &Block) -> Option<usize> {
    let unwindings = &current.thread.unwindings;
    // Without one, greenlets are switched by hand only.
    current.thread.scheduler.get()?;
    if !took_from_scheduler(current) {
        unwindings.unclear.set(true);
    }
    if unwindings.unclear.get() {
        return None;
    }
    let others = unwindings.noted.get() - current.unwindings.get() as usize;
    panic_count::unwindings()?.checked_sub(others)
}

/// Whether a greenlet is suspended in the scheduler, or was when it was last suspended.
fn took_from_scheduler(block: &Block) -> bool {
    block.took(block.thread.scheduler.get().map(|scheduler| scheduler.type_id))
}

/// Called when the current greenlet ends: the greenlet that gets control next trusts that this one has
/// noted what unwinds.
#[inline(always)]
pub(super) fn ends(block: &Block) {
    if panicking() {
        ends_while_unwinding(block);
    }
}

#[cold]
#[inline(never)]
fn ends_while_unwinding(block: &Block) {
    if !took_from_scheduler(block) {
        block.thread.unwindings.unclear.set(true);
    }
}

/// Called when the current greenlet has got control from one that has noted its unwindings: by a signal,
/// or by a type that nobody sends by hand.
#[inline]
pub(super) fn came_from_who_notes() {
    transfer::with_current(|current| current.map(Block::set_takes_nothing));
}

/// Runs `f`, which switches and comes back on behalf of the crate: the current greenlet has got control as it
/// had before.
pub(super) fn aside<R>(f: impl FnOnce() -> R) -> R {
    let before = transfer::with_current(|current| current.map(Block::awaits));
    let result = f();
    transfer::with_current(|current| current.zip(before).map(|(c, id)| c.set_awaits(id)));
    result
}

/// While the current greenlet is suspended that may be unwinding: its unwindings are noted as its own.
pub(crate) struct Away {
    /// What was noted before, further up on the same stack.
    before: u32,
}

impl Away {
    /// Notes the unwindings of the current greenlet, if the thread unwinds at all.
    #[inline]
    pub(crate) fn if_unwinding() -> Option<Self> {
        if panicking() { Self::note() } else { None }
    }

    #[cold]
    #[inline(never)]
    fn note() -> Option<Self> {
        transfer::with_current(|current| {
            let current = current?;
            let own = u32::try_from(own(current)?).ok()?;
            let before = current.unwindings.get();
            set_noted(current, own);
            Some(Self { before })
        })
    }
}

impl Drop for Away {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        transfer::with_current(|current| {
            if let Some(current) = current {
                // The note is zero by now, if the thread was settled meanwhile.
                set_noted(current, self.before.min(current.unwindings.get()));
            }
        });
    }
}

fn set_noted(block: &Block, own: u32) {
    let noted = &block.thread.unwindings.noted;
    noted.set(noted.get() - block.unwindings.replace(own) as usize + own as usize);
}
