//! Links: functions that a green thread calls when it has ended.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::later::Later;
use super::unhandled::Failure;
use super::{GreenThread, Payload, Shared};
use crate::greenlet::Attachment;
use crate::quietly::{dispose, quietly};

/// Names a link of one green thread: what [`GreenThread::unlink`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(u64);

type Link<R> = Box<dyn FnOnce(&GreenThread<R>)>;

/// What few green threads have, so that it takes no more than a word of the others.
pub(super) struct Rare<R: 'static>(Cell<Option<Box<Content<R>>>>);

struct Content<R: 'static> {
    next_id: u64,
    links: VecDeque<(LinkId, Link<R>)>,
    /// What somebody killed it with, if that could not be raised in it.
    killed_with: Option<Payload>,
    /// What will start it, while it is put off. Dropping it ends it unstarted.
    start: Option<Later>,
}

impl<R: 'static> Rare<R> {
    pub(super) const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Whether there is none of it.
    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        let content = self.0.take();
        let is_none = content.is_none();
        // There was none meanwhile: nothing to drop.
        mem::forget(self.0.replace(content));
        is_none
    }

    /// All of it.
    pub(super) fn take(&self) -> Self {
        Self(Cell::new(self.0.take()))
    }

    /// Runs `f`, which is none of the user's code, on it.
    fn with<T>(&self, f: impl FnOnce(&mut Content<R>) -> T) -> T {
        let mut content = self.0.take().unwrap_or_else(|| {
            Box::new(Content { next_id: 0, links: VecDeque::new(), killed_with: None, start: None })
        });
        let result = f(&mut content);
        self.0.set(Some(content));
        result
    }

    /// What will start the green thread, if it is put off.
    pub(super) fn take_start(&self) -> Option<Later> {
        if self.is_none() { None } else { self.with(|content| content.start.take()) }
    }

    /// Puts it off.
    pub(super) fn set_start(&self, start: Later) {
        self.with(|content| content.start = Some(start));
    }

    /// Has `payload` be what the green thread ended by, in place of an exit.
    pub(super) fn set_killed_with(&self, payload: Payload) {
        let before = self.with(|content| content.killed_with.replace(payload));
        quietly(|| drop(before));
    }
}

impl<R: 'static> GreenThread<R> {
    /// Has `f` called with this handle when the green thread has ended, mirroring eventlet's `link`.
    ///
    /// The green thread calls it itself, before anyone who waits goes on; [`wait`](Self::wait) returns
    /// at once there. Links are called in the order in which they were added, those that links add
    /// included. If the green thread has ended already, `f` is called here and now.
    ///
    /// A link that panics, or is killed while it blocks, ends by that and keeps no other from being
    /// called: the panic goes to the [hook](super::set_unhandled_hook). While links block, those who
    /// wait for the green thread do, too.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let (answer, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    /// let green = stolon::spawn(|| 42);
    /// let to = Rc::clone(&seen);
    /// green.link(move |ended| to.set(ended.wait()));
    /// answer.set(green.wait());
    /// assert_eq!((answer.get(), seen.get()), (42, 42));
    /// ```
    ///
    /// # Panics
    ///
    /// With the panic of `f`, if it is called at once.
    pub fn link(&self, f: impl FnOnce(&GreenThread<R>) + 'static) -> LinkId {
        let has_ended = self.shared.end.has_come();
        let add = |content: &mut Content<R>| {
            let id = LinkId(content.next_id);
            content.next_id += 1;
            id
        };
        let id = self.shared.rare.with(add);
        if has_ended {
            f(self);
        } else {
            let link: Link<R> = Box::new(f);
            self.shared.rare.with(|content| content.links.push_back((id, link)));
        }
        id
    }

    /// Has a link not called, mirroring eventlet's `unlink`. Whether there was such a link that had
    /// not been called.
    pub fn unlink(&self, link: LinkId) -> bool {
        if self.shared.rare.is_none() {
            return false;
        }
        // Dropped when nothing is borrowed.
        let removed = self.shared.rare.with(|content| {
            let at = content.links.iter().position(|(id, _)| *id == link)?;
            content.links.remove(at)
        });
        removed.is_some()
    }
}

impl<R: 'static> Shared<R> {
    /// What else happens at the end of a green thread, between its result and those who wait.
    #[cold]
    #[inline(never)]
    pub(super) fn end_rare(this: &Attachment<Self>) {
        if let Some(payload) = this.rare.with(|content| content.killed_with.take()) {
            match this.failure.take() {
                Some(failure) if failure.is_exit() => this.fail(Failure::new(payload)),
                // It has caught the exit.
                failure => {
                    this.failure.set(failure);
                    dispose(payload);
                }
            }
        }
        let ended = GreenThread { shared: this.clone() };
        while let Some((_, link)) = this.rare.with(|content| content.links.pop_front()) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| link(&ended))) {
                drop(Failure::new(payload));
            }
        }
    }

    /// Whether its links run now, and it is one of them that asks: the result is there.
    pub(super) fn asks_itself(this: &Attachment<Self>) -> bool {
        !this.rare.is_none()
            && (this.has_failed() || this.value.borrow().is_some())
            && this.greenlet::<()>().is_current()
    }
}
