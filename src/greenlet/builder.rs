//! Making greenlets with a name, a stack size or a parent of one's own choice.

use std::io;
use std::panic::Location;

use super::attachment::Attachment;
use super::block::Stage;
use super::entry::{self, Successor};
use super::handle::Link;
use super::scheduling::Acquaintance;
use super::{Greenlet, thread, tracing};
use crate::stack::{self, Stack};

/// Makes greenlets that are not all default: [`Greenlet::builder`].
///
/// ```
/// use stolon::greenlet::Greenlet;
///
/// let named = Greenlet::builder().name("worker").stack_bytes(64 * 1024).build(|()| ())?;
/// assert_eq!(named.name(), Some("worker"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "it does nothing until `build` is called"]
pub struct Builder<T: 'static = ()> {
    name: Option<Box<str>>,
    stack_bytes: Option<usize>,
    parent: Option<Greenlet<T>>,
}

impl<T: 'static> Builder<T> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { name: None, stack_bytes: None, parent: None }
    }

    /// Names the greenlet, for messages and `Debug`.
    #[inline(always)]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// The least size of its stack, in bytes, rounded up to whole pages and to
    /// [`MIN_STACK_BYTES`](crate::stack::MIN_STACK_BYTES); the default is
    /// [`default_stack_bytes`](crate::stack::default_stack_bytes).
    #[inline(always)]
    pub fn stack_bytes(mut self, stack_bytes: usize) -> Self {
        self.stack_bytes = Some(stack_bytes);
        self
    }

    /// Who gets its result; by default the greenlet that calls [`build`](Self::build). It is not
    /// kept alive by its children: they count as no handles.
    #[inline(always)]
    pub fn parent<U: 'static>(mut self, parent: &Greenlet<U>) -> Self {
        self.parent = Some(parent.cast());
        self
    }

    /// Makes the greenlet. It runs `run` when it is first switched to.
    ///
    /// # Errors
    ///
    /// When no stack can be had, with the limit that was hit named, and when the stack is too small
    /// for what `run` captures.
    ///
    /// # Panics
    ///
    /// When the thread is past the point in its exit at which its greenlets ended.
    #[inline(always)]
    #[track_caller]
    pub fn build(self, run: impl FnOnce(T) -> T + 'static) -> io::Result<Greenlet<T>> {
        Ok(self.prepare(None, entry::Parent, |_| (run, ()))?.0)
    }

    /// As [`build`](Self::build), with another parent than it was told; and with somebody else for
    /// whom it leaves when it has ended, if `successor` says so.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn build_child(
        self,
        parent: Acquaintance,
        successor: impl Successor<T>,
        run: impl FnOnce(T) -> T + 'static,
    ) -> io::Result<Greenlet<T>> {
        Ok(self.prepare(Some(parent), successor, |_| (run, ()))?.0)
    }

    /// As [`build_child`](Self::build_child), and attaches what `content` makes to the greenlet.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn build_with<A: 'static, F: FnOnce(T) -> T + 'static>(
        self,
        parent: Acquaintance,
        successor: impl Successor<T>,
        content: impl FnOnce() -> A,
        run: impl FnOnce(Attachment<A>) -> F,
    ) -> io::Result<(Greenlet<T>, Attachment<A>)> {
        self.prepare(Some(parent), successor, |block| {
            let attachment = Attachment::new(block.clone(), content);
            (run(attachment.clone()), attachment)
        })
    }

    /// A block with what `content` makes attached to it, for a greenlet that is made later, by
    /// [`build_reserved`](Self::build_reserved), or never. It has no stack until then, and nothing can
    /// be sent to it.
    #[track_caller]
    pub(crate) fn reserve<A: 'static>(self, content: impl FnOnce() -> A) -> Attachment<A> {
        let current = thread::current();
        let block = Link::new(&current.thread, self.name, Some(current.link()));
        block.made_at.set(Some(Location::caller()));
        Attachment::new(block, content)
    }

    /// As [`build`](Self::build), of a block that was reserved, which has its name already.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// When the block's greenlet has been made before.
    pub(crate) fn build_reserved<A: 'static>(
        self,
        reserved: &Attachment<A>,
        run: impl FnOnce(T) -> T + 'static,
    ) -> io::Result<Greenlet<T>> {
        let block = reserved.block();
        // Nobody else writes to the context of a block that has neither stack nor past.
        let is_new = block.stage.get() == Stage::Unstarted && block.stack_span().is_none();
        assert!(is_new, "a greenlet is made once");
        let current = thread::current();
        current.thread.reap();
        let stack_bytes = self.stack_bytes.unwrap_or_else(stack::default_stack_bytes);
        let stack = Stack::new(&current.thread.arenas, stack_bytes)?;
        block.set_parent(match &self.parent {
            Some(parent) => parent.handle.link(),
            None => current.link(),
        });
        entry::prepare(block, stack, run, entry::Parent)?;
        tracing::begins(block);
        Ok(Greenlet::from_handle(block.handle()))
    }

    /// Makes the greenlet of what `run` makes for its block, and passes on what else it makes.
    #[inline(always)]
    #[track_caller]
    fn prepare<F: FnOnce(T) -> T + 'static, A>(
        self,
        instead: Option<Acquaintance>,
        successor: impl Successor<T>,
        run: impl FnOnce(&Link) -> (F, A),
    ) -> io::Result<(Greenlet<T>, A)> {
        let Self { name, stack_bytes, parent } = self;
        let made_at = Location::caller();
        let stack = thread::with_current(|current| {
            current.thread.reap();
            let stack_bytes = stack_bytes.unwrap_or_else(stack::default_stack_bytes);
            Stack::new(&current.thread.arenas, stack_bytes)
        })?;
        let parent = match (instead, parent) {
            (Some(parent), _) => parent.into_link(),
            (None, Some(parent)) => parent.handle.link(),
            (None, None) => thread::current().link(),
        };
        let block = thread::with_current(|current| Link::new(&current.thread, name, Some(parent)));
        block.made_at.set(Some(made_at));
        let (run, made) = run(&block);
        entry::prepare(&block, stack, run, successor)?;
        tracing::begins(&block);
        Ok((Greenlet::from_handle(block.into_handle()), made))
    }
}

impl<T: 'static> Greenlet<T> {
    /// Notes that it was made on behalf of somebody at `place`.
    pub(crate) fn set_made_at(&self, place: &'static Location<'static>) {
        self.handle.made_at.set(Some(place));
    }
}
