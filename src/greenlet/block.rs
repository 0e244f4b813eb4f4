//! The control block of a greenlet.
//!
//! | stage | `awaits` | the context is |
//! |---|---|---|
//! | unstarted | the type of its first value | prepared: resuming it calls the entry function |
//! | suspended | the type its pending switch returns | saved: resuming it returns from that switch |
//! | running | stale | stale; this is the thread's current greenlet |
//! | dead | [`Nothing`] | gone, like the stack |
//!
//! So a greenlet other than the current one can be resumed exactly when `awaits` is not `Nothing`,
//! and then only with a value of that type. While its thread is traced, another field has that type,
//! and `awaits` one that nobody sends.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::cell::{Cell, UnsafeCell};
use std::mem::forget;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;

use super::handle::{Handle, Link};
use super::local::Locals;
use super::pending::Pending;
use super::thread::Thread;
use super::transfer;
use crate::arch::Context;
use crate::stack::{Span, Stack};

/// The type that nobody sends: what a dead greenlet awaits.
enum Nothing {}

/// Another one: what the greenlets of a traced thread seem to await.
enum Disguise {}

/// Another one: what a greenlet awaits that never starts, as its thread exits. It can only be dropped.
enum Sealed {}

/// How far a greenlet has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Unstarted,
    Started,
    Dead,
}

/// What becomes of a greenlet when its thread exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtExit {
    /// It is dropped if it has not started, and leaked if it has.
    Dropped,
    /// It is leaked, as even its function may borrow what is gone by then.
    Leaked,
}

/// Everything the library knows of one greenlet. It outlives the stack for as long as there are
/// references, which are counted in the block itself (`handle.rs`).
///
/// What a switch and the run queue touch is the first cache line.
#[repr(C, align(64))]
pub(super) struct Block {
    /// Written by the machine's switch only.
    pub(super) context: UnsafeCell<Context>,
    /// What may be sent to it while it is not the current greenlet. One address stands for one
    /// type only; one type may have several addresses.
    awaits: Cell<&'static TypeId>,
    /// How many [`Handle`]s there are. A greenlet that is not dead has at least one, or is leaked:
    /// so its block and stack are there when it is resumed.
    pub(super) handles: Cell<usize>,
    /// Its place in the thread's registry, for as long as the block is there. The root's is 0.
    pub(super) place: u32,
    /// The number of its newest turn (`Greenlet::begin_turn`). Goes on from greenlet to greenlet.
    pub(super) turn: Cell<u32>,
    pub(super) stage: Cell<Stage>,
    pub(super) pending: Pending,
    pub(super) at_exit: Cell<AtExit>,
    /// How many unwindings are under way on its stack, while it is suspended and that was noted
    /// (`unwinding.rs`).
    pub(super) unwindings: Cell<u32>,
    /// How many [`Link`]s there are.
    pub(super) links: Cell<usize>,
    /// Where its result goes. None for a thread's root.
    parent: Cell<Option<Link>>,
    /// Who waits for its death, and is told of it instead of the parent.
    pub(super) killer: Cell<Option<Link>>,
    /// Its own handle, if it is to run without anyone else's.
    pub(super) own: Cell<Option<Handle>>,
    /// Given back when it ends. A root has none: it runs on the thread's own.
    stack: Cell<Option<Stack>>,
    pub(super) thread: Rc<Thread>,
    /// How many refer to what is in `room`.
    pub(super) attachments: Cell<usize>,
    /// Boxed twice, as few have one: it takes one word of the others.
    name: Cell<Option<Box<Box<str>>>>,
    /// Counts up over a thread's life; 0 is the root.
    pub(super) id: Cell<u64>,
    /// Where it was made. None for a thread's root.
    pub(super) made_at: Cell<Option<&'static Location<'static>>>,
    /// What it really awaits, when it is disguised.
    awaits_really: Cell<Option<&'static TypeId>>,
    pub(super) locals: Locals,
}

// Three cache lines, and what is attached begins with the next.
const _: () = assert!(size_of::<Block>() == 192 || cfg!(stolon_asan));

impl Block {
    /// A block at a place of its own, for a greenlet to be.
    #[cold]
    #[inline(never)]
    pub(super) fn new(thread: &Rc<Thread>) -> Self {
        let (place, turn) = thread.registry.new_place();
        Self {
            context: UnsafeCell::new(Context::empty()),
            awaits: Cell::new(const { &TypeId::of::<Nothing>() }),
            handles: Cell::new(0),
            place,
            turn: Cell::new(turn),
            stage: Cell::new(Stage::Dead),
            pending: Pending::default(),
            at_exit: Cell::new(AtExit::Dropped),
            unwindings: Cell::new(0),
            links: Cell::new(0),
            parent: Cell::new(None),
            killer: Cell::new(None),
            own: Cell::new(None),
            stack: Cell::new(None),
            thread: Rc::clone(thread),
            attachments: Cell::new(0),
            name: Cell::new(None),
            id: Cell::new(0),
            made_at: Cell::new(None),
            awaits_really: Cell::new(None),
            locals: Locals::default(),
        }
    }

    /// Makes it the block of a greenlet that is to be made: nothing refers to it.
    #[inline(always)]
    pub(super) fn renew(&self, name: Option<Box<str>>, parent: Option<Link>) {
        if let Some(name) = name {
            self.name.set(Some(Box::new(name)));
        }
        fill(&self.parent, parent);
        self.id.set(self.thread.next_id());
        self.stage.set(Stage::Unstarted);
    }

    /// Gives up what a dead greenlet still has, or one that could not be made: that has no stack, and
    /// awaits nothing.
    #[inline(always)]
    pub(super) fn clear(&self) {
        debug_assert!(self.stack_span().is_none() && self.takes::<Nothing>());
        if self.name().is_some() {
            self.name.set(None);
        }
        self.pending.clear();
        self.at_exit.set(AtExit::Dropped);
        self.awaits_really.set(None);
        self.locals.clear();
    }

    #[inline]
    pub(super) fn name(&self) -> Option<&str> {
        // SAFETY: blocks are not `Sync`, and the cell is written only while nothing refers to the
        // block (`renew`, `clear`): so not during the borrow, which a reference is needed for.
        unsafe { &*self.name.as_ptr() }.as_deref().map(|name| &**name)
    }

    /// Numbers its next turn.
    #[inline(always)]
    pub(super) fn begin_turn(&self) -> u32 {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        turn
    }

    /// Whether there is no reference to it.
    #[inline(always)]
    pub(super) fn is_unreferenced(&self) -> bool {
        self.handles.get() == 0 && self.links.get() == 0
    }

    #[inline]
    pub(super) fn parent(&self) -> Option<Link> {
        // SAFETY: blocks are not `Sync`, and nothing below writes to the cell: `clone` only counts.
        unsafe { &*self.parent.as_ptr() }.clone()
    }

    /// The parent, without another reference to it.
    ///
    /// # Safety
    ///
    /// It is not used after another parent was set, or this one taken, or the block given up.
    #[inline(always)]
    pub(super) unsafe fn parent_ref(&self) -> Option<&Block> {
        // SAFETY: blocks are not `Sync`, and the caller's promise: nobody writes to the cell.
        unsafe { &*self.parent.as_ptr() }.as_deref()
    }

    #[inline]
    pub(super) fn set_parent(&self, parent: Link) {
        self.parent.set(Some(parent));
    }

    #[inline]
    pub(super) fn take_parent(&self) -> Option<Link> {
        self.parent.take()
    }

    /// Whether someone waits for its death.
    #[inline]
    pub(super) fn has_killer(&self) -> bool {
        // SAFETY: blocks are not `Sync`, and nothing below writes to the cell.
        unsafe { &*self.killer.as_ptr() }.is_some()
    }

    #[inline(always)]
    pub(super) fn is_dead(&self) -> bool {
        self.stage.get() == Stage::Dead
    }

    /// Whether there is a greenlet, neither dead nor still to be made: it has a stack.
    pub(super) fn is_living(&self) -> bool {
        !self.is_dead() && self.stack_span().is_some()
    }

    /// Whether it is dead, and was not just leaked: nothing is on its stack any more.
    pub(super) fn has_ended(&self) -> bool {
        self.is_dead() && self.stack_span().is_none()
    }

    #[inline(always)]
    pub(super) fn is_current(&self) -> bool {
        ptr::eq(self, transfer::current_ptr())
    }

    /// Whether it awaits values of type `T`; of no account while it runs.
    #[inline(always)]
    pub(super) fn takes<T: 'static>(&self) -> bool {
        ptr::eq(self.awaits.get(), const { &TypeId::of::<T>() })
            || self.takes_type(&TypeId::of::<T>())
    }

    /// As [`takes`](Self::takes), where the type may have another address.
    #[cold]
    #[inline(never)]
    fn takes_type(&self, id: &TypeId) -> bool {
        self.awaits.get() == id
    }

    /// Whether values of type `T` may be sent to it: as [`takes`](Self::takes), and also while its
    /// thread is traced.
    pub(super) fn accepts<T: 'static>(&self) -> bool {
        let really = self.awaits_really.get();
        self.takes::<T>() || (self.takes::<Disguise>() && really == Some(&TypeId::of::<T>()))
    }

    /// Has it seem to await what nobody sends, if it awaits anything. Of no account while it runs.
    pub(super) fn disguise(&self) {
        if !self.takes::<Nothing>() && !self.takes::<Disguise>() {
            self.awaits_really.set(Some(self.awaits.get()));
            self.set_takes::<Disguise>();
        }
    }

    /// Undoes [`disguise`](Self::disguise).
    pub(super) fn undisguise(&self) {
        if self.takes::<Disguise>() {
            self.awaits.set(self.awaits_really.get().expect("noted by `disguise`"));
        }
    }

    /// Sees to it that it never starts. It still waits, so that it can be made to end: then its function
    /// is dropped.
    pub(super) fn seal(&self) {
        self.set_takes::<Sealed>();
    }

    /// Whether it awaits values of this type, as [`takes`](Self::takes); of one that runs, whether it did
    /// when it was last suspended, or nothing if it never was.
    pub(super) fn took(&self, id: Option<&TypeId>) -> bool {
        let is_disguised = self.takes::<Disguise>();
        let awaits = if is_disguised { self.awaits_really.get() } else { Some(self.awaits.get()) };
        self.takes::<Nothing>() || awaits == id
    }

    /// What it awaits, to be given back to [`set_awaits`](Self::set_awaits).
    pub(super) fn awaits(&self) -> &'static TypeId {
        self.awaits.get()
    }

    pub(super) fn set_awaits(&self, id: &'static TypeId) {
        self.awaits.set(id);
    }

    /// Declares that it will await a `T` when it does not run.
    #[inline(always)]
    pub(super) fn set_takes<T: 'static>(&self) {
        self.awaits.set(const { &TypeId::of::<T>() });
    }

    /// Declares that it cannot be resumed any more.
    pub(super) fn set_takes_nothing(&self) {
        self.set_takes::<Nothing>();
    }

    /// Gives it the stack that it will run on.
    #[inline]
    pub(super) fn set_stack(&self, stack: Stack) {
        fill(&self.stack, Some(stack));
    }

    /// Gives it a handle to itself, which it has not had.
    #[inline]
    pub(super) fn set_own(&self, own: Handle) {
        fill(&self.own, Some(own));
    }

    /// Takes its stack away for good.
    #[inline]
    pub(super) fn take_stack(&self) -> Option<Stack> {
        self.stack.take()
    }

    /// Where its stack lies; none for a thread's root, and when it is dead.
    pub(super) fn stack_span(&self) -> Option<Span> {
        // SAFETY: blocks are not `Sync`, and nothing below writes to the cell: `span` only reads.
        // A signal handler that asks does so for the current greenlet, and the cell is not written
        // while its greenlet is current: `set_stack` comes before it starts, `take_stack` after
        // another has become current.
        unsafe { &*self.stack.as_ptr() }.as_ref().map(Stack::span)
    }

    /// How much of its stack is left below the innermost frame, in bytes, while it does not run; none
    /// for a thread's root, and when it is dead.
    pub(super) fn free_bytes(&self) -> Option<usize> {
        Some(self.stack_span()?.bytes_below(self.stack_pointer()))
    }

    /// Where the innermost frame of a greenlet that does not run begins.
    #[inline(always)]
    pub(super) fn stack_pointer(&self) -> *const u8 {
        // SAFETY: blocks are not `Sync`, and the machine's switch, which writes the context, does not
        // run now.
        unsafe { &*self.context.get() }.stack_pointer()
    }

    /// Whether it can be resumed, one way or another.
    pub(super) fn waits(&self) -> bool {
        !self.takes::<Nothing>() && !self.is_current()
    }
}

/// Sets what was none, so that there is nothing to drop.
#[inline(always)]
fn fill<T>(cell: &Cell<Option<T>>, value: Option<T>) {
    let before = cell.replace(value);
    debug_assert!(before.is_none());
    forget(before);
}
