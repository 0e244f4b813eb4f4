//! What a green thread and its handles have in common, and how it ends.

use std::cell::{Cell, RefCell};
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::end::End;
use super::links::Rare;
use super::unhandled::Failure;
use crate::clock::Deadline;
use crate::greenlet::{Attachment, GreenletExit};

/// What a green thread and its handle have in common.
///
/// Only [`put`](Self::put) needs stack for an `R`, and is called by the green thread itself: the rest
/// may run on the hub's own loop.
pub(super) struct Shared<R: 'static> {
    pub(super) end: End,
    /// What it returned, until that is moved out.
    pub(super) value: RefCell<Option<R>>,
    /// What it ended by instead.
    pub(super) failure: ManuallyDrop<Cell<Option<Failure>>>,
    pub(super) rare: ManuallyDrop<Rare<R>>,
}

impl<R: 'static> Drop for Shared<R> {
    /// Mostly nothing is left to be dropped. The value is dropped after this, where it lies.
    #[inline(always)]
    fn drop(&mut self) {
        if self.has_failed() || !self.rare.is_none() {
            self.drop_rest();
        }
    }
}

impl<R: 'static> Shared<R> {
    pub(super) const fn new() -> Self {
        Self {
            end: End::new(),
            value: RefCell::new(None),
            failure: ManuallyDrop::new(Cell::new(None)),
            rare: ManuallyDrop::new(Rare::new()),
        }
    }

    #[inline(never)]
    fn drop_rest(&self) {
        // Dropped even if the drop of the failure panics.
        let _rare = self.rare.take();
        drop(self.failure.take());
    }

    /// Notes what it has returned, once.
    #[inline(always)]
    pub(super) fn put(&self, value: R) {
        let before = self.value.replace(Some(value));
        debug_assert!(before.is_none(), "it ends once");
        mem::forget(before);
    }

    /// Notes what it has ended by, or by what else than was noted before.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.set(Some(failure));
    }

    #[inline(always)]
    pub(super) fn has_failed(&self) -> bool {
        let failure = self.failure.take();
        let has_failed = failure.is_some();
        // There was none meanwhile: nothing to drop.
        mem::forget(self.failure.replace(failure));
        has_failed
    }

    /// Called when that is there, by the green thread itself or by who killed it before it started.
    #[inline(always)]
    pub(super) fn end(this: &Attachment<Self>) {
        if !this.rare.is_none() {
            Self::end_rare(this);
        }
        this.end.come();
    }

    #[inline(always)]
    pub(super) fn wait_for_end(this: &Attachment<Self>) {
        if !Self::asks_itself(this) {
            this.end.wait();
        }
    }

    /// False if `deadline` passes before the end.
    pub(super) fn wait_until(this: &Attachment<Self>, deadline: Deadline) -> bool {
        Self::asks_itself(this) || this.end.wait_until(deadline)
    }
}

/// Sees to it that a green thread that never runs ends all the same.
pub(super) struct Ending<R: 'static> {
    /// None when it runs.
    pub(super) shared: Option<Attachment<Shared<R>>>,
}

impl<R: 'static> Ending<R> {
    #[inline(always)]
    pub(super) fn new(shared: Attachment<Shared<R>>) -> Self {
        Self { shared: Some(shared) }
    }

    /// Runs `f`, and ends with what that comes to.
    #[inline(always)]
    pub(super) fn run(mut self, f: impl FnOnce() -> R) {
        let Some(shared) = self.shared.take() else { return };
        // The result goes to its place at once, and not through `catch_unwind`: to copy what was just
        // written in parts stalls the processor.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| shared.put(f()))) {
            shared.fail(Failure::new(payload));
        }
        Shared::end(&shared);
        shared.let_go();
    }
}

impl<R: 'static> Shared<R> {
    #[cold]
    #[inline(never)]
    fn end_unstarted(this: &Attachment<Self>) {
        this.fail(Failure::new(Box::new(GreenletExit)));
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
