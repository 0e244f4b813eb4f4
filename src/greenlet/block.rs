//! The control block of a greenlet, and the handle that all users' handles are made of.
//!
//! | stage | `awaits` | the context is |
//! |---|---|---|
//! | unstarted | the type of its first value | prepared: resuming it calls the entry function |
//! | suspended | the type its pending switch returns | saved: resuming it returns from that switch |
//! | running | stale | stale; this is the thread's current greenlet |
//! | dead | [`Nothing`] | gone, like the stack |
//!
//! So a greenlet other than the current one can be resumed exactly when `awaits` is not `Nothing`,
//! and then only with a value of that type.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use super::exit;
use super::thread::Thread;
use super::transfer;
use crate::arch::Context;
use crate::stack::{Span, Stack, overflow};

/// The type that nobody sends: what a dead greenlet awaits.
enum Nothing {}

/// How far a greenlet has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Unstarted,
    Started,
    Dead,
}

/// Everything the library knows of one greenlet. It outlives the stack for as long as there are
/// handles.
///
/// What a switch touches comes first: 48 bytes, the context at the block's own address. `awaits` is
/// read and written as one 16-byte word, which must not straddle two cache lines; it is aligned to
/// 16 bytes, as what the allocator returns is, and the two counts of an `Rc` before it.
#[repr(C)]
pub(super) struct Block {
    /// Written by the machine's switch only.
    pub(super) context: UnsafeCell<Context>,
    /// What may be sent to it while it is not the current greenlet.
    awaits: Cell<TypeId>,
    /// Where its result goes. None for a thread's root.
    parent: Cell<Option<Rc<Block>>>,
    /// Who waits for its death, and is told of it instead of the parent.
    pub(super) killer: Cell<Option<Rc<Block>>>,
    /// How many handles there are; parent links and the like do not count. A greenlet that is not
    /// dead has at least one, or is leaked: so its block and stack are there when it is resumed.
    handles: Cell<usize>,
    /// Given back when it ends. A root has none: it runs on the thread's own.
    stack: Cell<Option<Stack>>,
    pub(super) thread: Rc<Thread>,
    pub(super) name: Option<Box<str>>,
    /// Counts up over a thread's life; 0 is the root.
    pub(super) id: u64,
    /// Its place in the thread's registry.
    pub(super) place: Cell<usize>,
    pub(super) stage: Cell<Stage>,
    /// Whether it was killed when it could not unwind.
    pub(super) kill_is_pending: Cell<bool>,
    /// Whether it is unwound when its thread exits: nothing of the user's is on its stack.
    pub(super) ends_with_thread: Cell<bool>,
}

impl Block {
    pub(super) fn new(thread: Rc<Thread>, name: Option<Box<str>>, stage: Stage) -> Self {
        Self {
            context: UnsafeCell::new(Context::empty()),
            awaits: Cell::new(TypeId::of::<Nothing>()),
            parent: Cell::new(None),
            killer: Cell::new(None),
            handles: Cell::new(0),
            stack: Cell::new(None),
            id: thread.next_id(),
            thread,
            name,
            place: Cell::new(usize::MAX),
            stage: Cell::new(stage),
            kill_is_pending: Cell::new(false),
            ends_with_thread: Cell::new(false),
        }
    }

    pub(super) fn parent(&self) -> Option<Rc<Self>> {
        let parent = self.parent.take();
        let copy = parent.clone();
        self.parent.set(parent);
        copy
    }

    pub(super) fn set_parent(&self, parent: Rc<Self>) {
        self.parent.set(Some(parent));
    }

    pub(super) fn is_dead(&self) -> bool {
        self.stage.get() == Stage::Dead
    }

    pub(super) fn is_current(&self) -> bool {
        std::ptr::eq(self, transfer::current_ptr())
    }

    /// Whether it awaits values of type `T`; of no account while it runs.
    #[inline(always)]
    pub(super) fn takes<T: 'static>(&self) -> bool {
        self.awaits.get() == TypeId::of::<T>()
    }

    /// Declares that it will await a `T` when it does not run.
    #[inline(always)]
    pub(super) fn set_takes<T: 'static>(&self) {
        self.awaits.set(TypeId::of::<T>());
    }

    /// Declares that it cannot be resumed any more.
    pub(super) fn set_takes_nothing(&self) {
        self.set_takes::<Nothing>();
    }

    /// Gives it the stack that it will run on.
    pub(super) fn set_stack(&self, stack: Stack) {
        self.stack.set(Some(stack));
    }

    /// Takes its stack away for good.
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

    /// Whether it can be resumed, one way or another.
    pub(super) fn waits(&self) -> bool {
        !self.takes::<Nothing>() && !self.is_current()
    }
}

/// Has a greenlet that runs over its stack named before the process ends.
pub(super) fn report_overflows() {
    // SAFETY: `describe_current` reads a thread-local word that has neither an initialiser nor a
    // destructor, and through it what is not written while its greenlet is current: the stack
    // (`stack_span`), the name and the number, which never change. `format_args` allocates nothing.
    unsafe { overflow::report(describe_current) }
}

/// Passes on the stack of the current greenlet, and what to call it. Runs in a signal handler.
fn describe_current(tell: &dyn Fn(Span, fmt::Arguments<'_>)) {
    let block = transfer::current_ptr();
    if block.is_null() {
        return;
    }
    // SAFETY: the current greenlet's block is alive (`transfer::try_current`).
    let block = unsafe { &*block };
    let Some(span) = block.stack_span() else { return };
    match &block.name {
        Some(name) => tell(span, format_args!("{name}")),
        None => tell(span, format_args!("#{}", block.id)),
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.stage.get() {
            Stage::Dead => "dead",
            _ if self.is_current() => "current",
            Stage::Unstarted => "pending",
            Stage::Started => "suspended",
        };
        match (&self.name, self.id) {
            (Some(name), _) => write!(f, "Greenlet('{name}' {state}"),
            (None, 0) => write!(f, "Greenlet(main {state}"),
            (None, id) => write!(f, "Greenlet(#{id} {state}"),
        }?;
        match self.parent() {
            Some(parent) if parent.name.is_some() => {
                write!(f, ", parent '{}')", parent.name.as_deref().unwrap_or_default())
            }
            Some(parent) if parent.id != 0 => write!(f, ", parent #{})", parent.id),
            Some(_) => write!(f, ", parent main)"),
            None => write!(f, ")"),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // In a loop, as a chain of parents that only their children refer to may be longer than the
        // stack is deep.
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Rc::into_inner(parent).and_then(|last| last.parent.take());
        }
    }
}

/// A handle: while there is one, its greenlet is not killed. When the last one is dropped, it is.
pub(super) struct Handle(Rc<Block>);

impl Handle {
    pub(super) fn new(block: Rc<Block>) -> Self {
        block.handles.set(block.handles.get() + 1);
        Self(block)
    }

    pub(super) fn block(&self) -> &Rc<Block> {
        &self.0
    }

    /// Whether there is no other.
    pub(super) fn is_last(&self) -> bool {
        self.0.handles.get() == 1
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_last() {
            // While it still counts, so that the greenlet's own code, which may run now, does not
            // drop the last one.
            exit::last_handle(self);
        }
        self.0.handles.set(self.0.handles.get() - 1);
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(Rc::clone(&self.0))
    }
}

impl Deref for Handle {
    type Target = Block;

    #[inline(always)]
    fn deref(&self) -> &Block {
        &self.0
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}
