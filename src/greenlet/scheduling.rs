//! What a scheduler needs of greenlets, and users do not: the hub's side of the layer.

use std::any::{Any, TypeId};

use super::block::{Block, Stage};
use super::exit;
use super::handle::Link;
use super::pending::Pending;
use super::transfer::{self, Signal};
use super::{Greenlet, SwitchError, thread, throw, unwinding};
use crate::arch;

const CACHE_LINE_BYTES: usize = 64;

/// So many cache lines of its stack a greenlet uses before its own function does.
const LINES_OF_START: usize = 5;

/// A greenlet as one knows it who does not keep it from being killed.
pub(crate) struct Acquaintance(Link);

impl Acquaintance {
    pub(crate) fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    /// The reference as the layer itself has it.
    #[inline(always)]
    pub(super) fn into_link(self) -> Link {
        self.0
    }
}

/// What the greenlets of a thread need to know of their scheduler.
#[derive(Clone, Copy)]
pub(crate) struct Scheduler {
    /// What its greenlets await while they are suspended in it.
    pub(super) type_id: &'static TypeId,
    pub(super) kill: fn(&Greenlet),
    pub(super) pause: fn(u32),
    pub(super) rounds: u32,
}

impl Scheduler {
    /// One whose greenlets await a `T` while they are suspended in it.
    ///
    /// `kill` makes a greenlet end, and returns when that is dead or waits again. The loop uses it, and so
    /// does [`killall`](super::killall), in up to `rounds` rounds. After each, `killall` calls `pause` with
    /// the number of the round, which lets other greenlets run, for longer each time.
    pub(crate) fn new<T: 'static>(kill: fn(&Greenlet), pause: fn(u32), rounds: u32) -> Self {
        Self { type_id: const { &TypeId::of::<T>() }, kill, pause, rounds }
    }
}

impl<T: 'static> Greenlet<T> {
    #[inline(always)]
    pub(crate) fn acquaintance(&self) -> Acquaintance {
        Acquaintance(self.handle.link())
    }

    /// Whether a `T` can be sent to it at once, unless it is the current greenlet.
    #[inline(always)]
    pub(crate) fn takes_its_type(&self) -> bool {
        self.handle.takes::<T>()
    }

    /// Kills it, if it waits, and goes on when it is dead, whoever is its parent.
    pub(crate) fn end(&self) {
        if self.handle.waits() {
            exit::end(&self.handle.link());
        }
    }

    /// Sends it its first value, on which it comes back at once.
    pub(crate) fn start_aside(&self, first: T) {
        unwinding::aside(|| drop(self.switch(first)));
    }

    /// Sends it its last value, on which it ends without waiting again; returns when it is dead, whoever
    /// is its parent.
    pub(crate) fn finish(&self, last: T) {
        exit::end_here(&self.handle.link(), || drop(self.switch(last)));
        debug_assert!(self.is_dead());
    }

    /// As [`switch`](Self::switch), but this handle is dropped before and not after it, if it is
    /// not the last one.
    #[inline(always)]
    pub(crate) fn switch_into(self, value: T) -> Result<T, SwitchError<T>> {
        self.switch_into_and(value, |resumed| resumed)
    }

    /// [`switch_into`](Self::switch_into), and passes what it returns to `then`: which the compiler
    /// can specialise for each way that leads there.
    #[inline(always)]
    pub(crate) fn switch_into_and<R>(
        self,
        value: T,
        then: impl Fn(Result<T, SwitchError<T>>) -> R,
    ) -> R {
        transfer::switch_into(self.handle, value, then)
    }

    /// Whether it has something to look after before it blocks: a late kill, or timeouts.
    #[inline(always)]
    pub(crate) fn has_pending(&self) -> bool {
        self.handle.pending.any()
    }

    /// Notes that it was killed when that could not be raised.
    pub(crate) fn set_pending_kill(&self) {
        self.handle.pending.set_kill(true);
    }

    /// Whether it was killed when it could not unwind, and has not been since.
    pub(crate) fn has_pending_kill(&self) -> bool {
        self.handle.pending.kill()
    }

    /// Whether a tracer is under way on its stack.
    pub(crate) fn is_traced(&self) -> bool {
        self.handle.pending.traced()
    }

    /// Whether it may be unwinding, while it is suspended.
    pub(crate) fn may_be_unwinding(&self) -> bool {
        unwinding::may_be(&self.handle)
    }

    /// Makes it the loop of a scheduler: it does not block.
    pub(crate) fn becomes_loop(&self, scheduler: Scheduler) {
        self.handle.thread.scheduler.set(Some(scheduler));
        self.handle.pending.set_loop();
    }

    /// Whether a `T` can be sent to it, unless it is the current greenlet, in one way or another.
    pub(crate) fn accepts_its_type(&self) -> bool {
        self.handle.accepts::<T>()
    }

    /// Lets it run to its end without anyone holding it: it holds itself.
    pub(crate) fn hold_itself(&self) {
        self.handle.set_own(self.handle.clone());
    }

    /// Its number, as in its `Debug`. Counts up over a thread's life; 0 is the root.
    pub(crate) fn id(&self) -> u64 {
        self.handle.id.get()
    }

    /// Its place among the greenlets of its thread: a small number, which another may have when its
    /// handles are gone.
    #[inline(always)]
    pub(crate) fn place(&self) -> u32 {
        self.handle.place
    }

    /// Numbers what it will wait for next. Of all greenlets that are ever at its place, none other
    /// has this turn, until the numbers start anew after 2^32 turns.
    #[inline(always)]
    pub(crate) fn begin_turn(&self) -> u32 {
        self.handle.begin_turn()
    }

    /// The number of its newest turn.
    #[inline(always)]
    pub(crate) fn turn(&self) -> u32 {
        self.handle.turn.get()
    }

    /// Has the processor fetch what a switch to it reads first.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        arch::prefetch(self.handle.as_ptr().cast());
    }

    /// Has the processor fetch so many cache lines of the innermost frames of this suspended greenlet; of
    /// one that has not started, what its start and its end touch. Its block is read for that: see
    /// [`prefetch`](Self::prefetch).
    #[inline(always)]
    pub(crate) fn prefetch_frames<const LINES: usize>(&self) {
        let frames = self.handle.stack_pointer();
        if self.handle.stage.get() != Stage::Unstarted {
            for line in 0..LINES {
                arch::prefetch(frames.wrapping_add(line * CACHE_LINE_BYTES));
            }
            return;
        }
        for line in 0..LINES_OF_START {
            arch::prefetch(frames.wrapping_sub(line * CACHE_LINE_BYTES));
        }
        let block: *const u8 = self.handle.as_ptr().cast();
        // Its first line is there, and what is attached to it lies behind the last.
        for line in 0..size_of::<Block>() / CACHE_LINE_BYTES {
            arch::prefetch(block.wrapping_add((line + 1) * CACHE_LINE_BYTES));
        }
    }

    /// Makes what ends in this dead greenlet, as its child, end in `heir` instead; unless that is
    /// one of its descendants by now.
    pub(crate) fn inherit<U: 'static>(&self, heir: &Greenlet<U>) {
        debug_assert!(self.is_dead());
        let _ = self.set_parent(heir);
    }

    /// As [`kill`](Self::kill), but returns when the current greenlet is next switched to with a
    /// `U`, and does nothing to a greenlet that is dead.
    pub(crate) fn exit_now<U: 'static>(&self) -> Option<Result<U, SwitchError<U>>> {
        let living = !self.is_dead();
        living.then(|| throw::signal(&self.handle, Signal::Kill))
    }

    /// As [`exit_now`](Self::exit_now), but its end comes to the current greenlet, if that still waits for
    /// it, and not to its parent.
    pub(crate) fn exit_here<U: 'static>(&self) -> Option<Result<U, SwitchError<U>>> {
        exit::end_here(&self.handle.link(), || self.exit_now())
    }
}

impl<T: 'static> Greenlet<T> {
    /// As [`throw`](Self::throw), but returns when the current greenlet is next switched to with a
    /// `U`, and does nothing to a greenlet that is dead.
    pub(crate) fn throw_now<U: 'static>(
        &self,
        payload: Box<dyn Any + Send>,
    ) -> Option<Result<U, SwitchError<U>>> {
        let living = !self.is_dead();
        living.then(|| {
            self.handle.pending.set_raised(true);
            throw::signal(&self.handle, Signal::Throw(payload))
        })
    }
}

/// The current greenlet, if the thread has one yet.
#[inline(always)]
pub(crate) fn try_current<T: 'static>() -> Option<Greenlet<T>> {
    transfer::try_current().map(Greenlet::from_handle)
}

/// The current greenlet, if the thread has one yet and it has nothing to look after before it
/// blocks.
#[inline(always)]
pub(crate) fn current_undisturbed<T: 'static>() -> Option<Greenlet<T>> {
    if has_pending() {
        return None;
    }
    try_current()
}

/// Whether the current greenlet has something to look after before it blocks: a late kill, or
/// timeouts.
#[inline(always)]
pub(crate) fn has_pending() -> bool {
    transfer::is_pending(Pending::any)
}

/// Whether the current greenlet has a note that it has timeouts.
pub(crate) fn has_timeouts() -> bool {
    transfer::is_pending(Pending::timeouts)
}

/// Makes that note, or takes it away.
pub(crate) fn set_has_timeouts(has_some: bool) {
    transfer::is_pending(|pending| {
        pending.set_timeouts(has_some);
        has_some
    });
}

/// A number of the current greenlet's that no other of its thread has, or has had.
pub(crate) fn id_of_current() -> u64 {
    thread::with_current(|current| current.id.get())
}

/// The current greenlet's place.
#[inline(always)]
pub(crate) fn place_of_current() -> u32 {
    thread::with_current(|current| current.place)
}

/// The current greenlet's place, and the number of its next turn, which begins.
#[inline(always)]
pub(crate) fn begin_turn_of_current() -> (u32, u32) {
    thread::with_current(|current| (current.place, current.begin_turn()))
}

/// The root of this thread's greenlets: the one that runs on the thread's own stack.
pub(crate) fn root<T: 'static>() -> Greenlet<T> {
    Greenlet::from_handle(thread::root_of(&thread::current()).handle())
}

/// Raises a kill that reached the current greenlet when it could not unwind, if it can now.
#[inline]
pub(crate) fn raise_pending_kill() {
    throw::raise_pending_kill();
}

/// Whether the current greenlet is the loop of a scheduler, which does not block.
#[inline]
pub(crate) fn is_loop() -> bool {
    transfer::is_pending(Pending::is_loop)
}

/// Notes that a timeout is about to be raised in the current greenlet.
pub(crate) fn set_raised() {
    transfer::with_pending(|pending| pending.set_raised(true));
}

/// Whether a kill or a timeout unwinds the current greenlet.
pub(crate) fn is_being_ended() -> bool {
    let was_raised = transfer::is_pending(Pending::raised);
    if was_raised && !unwinding::is_unwinding() {
        transfer::with_pending(|pending| pending.set_raised(false));
    }
    was_raised && unwinding::is_certain()
}

/// Sees to it that no greenlet of this thread is resumed or unwound any more, but for `ours`, as the thread
/// exits. Called by the first of the crate's thread-local destructors; runs no code of the user's.
pub(crate) fn seal<T: 'static>(ours: Option<&Greenlet<T>>) {
    thread::seal(ours.map(|ours| &ours.handle));
}

/// Whether greenlets of this thread can be resumed: it is not past that point in its exit.
pub(crate) fn is_thread_alive() -> bool {
    let is_sealed = |current: Option<&Block>| current.is_some_and(|c| c.thread.is_sealed());
    thread::is_alive() && !transfer::with_current(is_sealed)
}

/// Notes that what was raised in the current greenlet has been caught.
pub(crate) fn clear_raised() {
    transfer::with_pending(|pending| pending.set_raised(false));
}
