//! The two kinds of reference to a control block.
//!
//! | | counts in | while there is one |
//! |---|---|---|
//! | [`Handle`] | `handles` | the greenlet is not killed, and the block stays |
//! | [`Link`] | `links` | the block stays |
//!
//! Both are one pointer, and cost one increment to copy. With the last of either kind the block goes
//! to its thread, which uses it for the next greenlet.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::process::abort;
use std::ptr::NonNull;
use std::rc::Rc;

use super::block::Block;
use super::exit;
use super::place::{self, Room};
use super::thread::Thread;

/// A block that nothing refers to, to be used again.
pub(super) struct Spare(NonNull<Block>);

impl Spare {
    #[cold]
    #[inline(never)]
    fn new(thread: &Rc<Thread>) -> Self {
        let spare = Self(thread.nursery.add(Block::new(thread)));
        // SAFETY: nothing else refers to the block yet, and it is freed by `drop` only.
        let block = unsafe { spare.0.as_ref() };
        block.thread.registry.places.borrow_mut()[block.place as usize] = Some(spare.0);
        spare
    }
}

impl Drop for Spare {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: nothing else refers to the block, and nobody will: it is moved out.
        let block = unsafe { self.0.read() };
        // SAFETY: `new` had it from its thread's nursery.
        unsafe { block.thread.nursery.free(self.0) };
        let (registry, number) = (&block.thread.registry, block.place);
        registry.places.borrow_mut()[number as usize] = None;
        registry.vacant.borrow_mut().push((number, block.turn.get()));
    }
}

/// All blocks of a thread, by their places: those of its greenlets, and the spare ones.
#[derive(Default)]
pub(super) struct Registry {
    /// Entered by `Spare::new`, and taken out by its `drop`, which frees the block.
    places: RefCell<Vec<Option<NonNull<Block>>>>,
    /// Places that no block has, and the last turn of whoever was there.
    vacant: RefCell<Vec<(u32, u32)>>,
}

impl Registry {
    /// A place for a new block, and the last turn of whoever was there.
    pub(super) fn new_place(&self) -> (u32, u32) {
        self.vacant.borrow_mut().pop().unwrap_or_else(|| {
            let mut places = self.places.borrow_mut();
            places.push(None);
            (u32::try_from(places.len() - 1).expect("fewer than 2^32 greenlets"), 0)
        })
    }

    /// The greenlets that are not dead, the youngest first; without the root.
    pub(super) fn living(&self) -> Vec<Link> {
        let places = self.places.borrow();
        let mut living = Vec::new();
        for block in places.iter().skip(1).flatten() {
            // SAFETY: the block is there for as long as it is entered.
            let is_living = unsafe { block.as_ref() }.is_living();
            if is_living {
                let link = ManuallyDrop::new(Link(*block));
                living.push(Link::clone(&link));
            }
        }
        living.sort_by_key(|block| std::cmp::Reverse(block.id.get()));
        living
    }
}

/// Keeps the control block in memory, and nothing more: what a child has of its parent.
pub(super) struct Link(NonNull<Block>);

/// Keeps the greenlet from being killed: what users have. When the last one is dropped, it is.
pub(super) struct Handle(NonNull<Block>);

impl Link {
    /// The only reference so far to the block of a new greenlet.
    #[inline(always)]
    pub(super) fn new(thread: &Rc<Thread>, name: Option<Box<str>>, parent: Option<Link>) -> Self {
        let spare = thread.spare().unwrap_or_else(|| Spare::new(thread));
        let link = Self(ManuallyDrop::new(spare).0);
        link.renew(name, parent);
        link.links.set(1);
        link
    }

    /// The room beside the block.
    #[inline(always)]
    pub(super) fn room(&self) -> *mut Room {
        // SAFETY: all blocks lie in their thread's nursery.
        unsafe { place::room(self.0) }
    }

    /// The reference as an address, which [`from_raw`](Self::from_raw) takes back.
    pub(super) fn into_raw(self) -> *const Block {
        ManuallyDrop::new(self).as_ptr()
    }

    /// Undoes [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    ///
    /// Once for each address that it gave.
    pub(super) unsafe fn from_raw(block: *const Block) -> Self {
        // SAFETY: the caller's promise: it came from a reference, so it is not null.
        Self(unsafe { NonNull::new_unchecked(block.cast_mut()) })
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *const Block {
        self.0.as_ptr()
    }

    /// A handle to the same greenlet.
    #[inline(always)]
    pub(super) fn handle(&self) -> Handle {
        count_up(&self.handles);
        Handle(self.0)
    }

    /// A handle in place of the link.
    #[inline(always)]
    pub(super) fn into_handle(self) -> Handle {
        let this = ManuallyDrop::new(self);
        let handle = this.handle();
        this.links.set(this.links.get() - 1);
        handle
    }

    /// Gives the reference up. The block, if it was the last one.
    #[inline(always)]
    fn release(self) -> Option<NonNull<Block>> {
        let this = ManuallyDrop::new(self);
        this.links.set(this.links.get() - 1);
        this.is_unreferenced().then_some(this.0)
    }
}

impl Handle {
    /// A handle to a greenlet whose block is known by its address.
    ///
    /// # Safety
    ///
    /// The address was got from a `Link` or a `Handle`, and the block has not been freed.
    #[inline(always)]
    pub(super) unsafe fn from_ptr(block: *const Block) -> Self {
        // SAFETY: the caller's promise: it came from a reference, so it is not null.
        let handle = Self(unsafe { NonNull::new_unchecked(block.cast_mut()) });
        count_up(&handle.handles);
        handle
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *const Block {
        self.0.as_ptr()
    }

    #[inline(always)]
    pub(super) fn link(&self) -> Link {
        count_up(&self.links);
        Link(self.0)
    }

    /// Drops a handle to a greenlet that is dead: nobody is killed for want of it.
    #[inline(always)]
    pub(super) fn drop_of_dead(self) {
        debug_assert!(self.is_dead());
        let this = ManuallyDrop::new(self);
        this.handles.set(this.handles.get() - 1);
        if this.is_unreferenced() {
            // SAFETY: this was the last reference of either kind, and it is gone.
            unsafe { free(this.0) };
        }
    }

    /// Drops it; but if it is the last one, gives it to `keep`.
    #[inline(always)]
    pub(super) fn let_go(self, keep: impl FnOnce(Self)) {
        if self.is_last() {
            return keep(self);
        }
        let this = ManuallyDrop::new(self);
        this.handles.set(this.handles.get() - 1);
    }

    /// Whether there is no other.
    #[inline(always)]
    pub(super) fn is_last(&self) -> bool {
        self.handles.get() == 1
    }
}

impl Clone for Link {
    #[inline(always)]
    fn clone(&self) -> Self {
        count_up(&self.links);
        Self(self.0)
    }
}

impl Clone for Handle {
    #[inline(always)]
    fn clone(&self) -> Self {
        count_up(&self.handles);
        Self(self.0)
    }
}

impl Drop for Link {
    #[inline]
    fn drop(&mut self) {
        self.links.set(self.links.get() - 1);
        if self.is_unreferenced() {
            // SAFETY: this was the last reference of either kind, and it is gone.
            unsafe { free(self.0) };
        }
    }
}

impl Drop for Handle {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_last() {
            return drop_last(self.0);
        }
        self.handles.set(self.handles.get() - 1);
    }
}

/// By value, so that the handle need not have an address where it is dropped.
#[cold]
#[inline(never)]
fn drop_last(block: NonNull<Block>) {
    /// On every way out, an unwinding included.
    struct Released(NonNull<Block>);

    impl Drop for Released {
        fn drop(&mut self) {
            let last = ManuallyDrop::new(Handle(self.0));
            last.handles.set(last.handles.get() - 1);
            if last.is_unreferenced() {
                // SAFETY: this was the last reference of either kind, and it is gone.
                unsafe { free(self.0) };
            }
        }
    }

    let last = ManuallyDrop::new(Handle(block));
    let _released = Released(block);
    // While it still counts, so that the greenlet's own code, which may run now, does not drop the
    // last one.
    exit::last_handle(&last);
}

/// Frees a block, and those of its ancestors that only their children refer to.
///
/// # Safety
///
/// Nothing refers to the block any more.
unsafe fn free(block: NonNull<Block>) {
    // SAFETY: the caller's promise.
    if let Some(ancestor) = unsafe { free_one(block) } {
        // SAFETY: nothing refers to that one any more.
        unsafe { free_chain(ancestor) };
    }
}

/// In a loop, as a chain of them may be longer than the stack is deep.
///
/// # Safety
///
/// As of [`free`].
#[cold]
#[inline(never)]
unsafe fn free_chain(block: NonNull<Block>) {
    let mut last = Some(block);
    while let Some(block) = last {
        // SAFETY: the caller's promise; and nothing refers to its ancestor any more.
        last = unsafe { free_one(block) };
    }
}

/// Frees a block, and returns its parent's, if nothing else referred to that.
///
/// # Safety
///
/// Nothing refers to the block any more.
#[inline(always)]
unsafe fn free_one(block: NonNull<Block>) -> Option<NonNull<Block>> {
    let spare = Spare(block);
    // SAFETY: nothing refers to the block, so it is `spare`'s, and there for as long.
    let block = unsafe { block.as_ref() };
    let parent = block.take_parent().and_then(Link::release);
    // No code of the user's runs: what is attached to it went with its last reference.
    block.clear();
    if let Some(spare) = block.thread.keep(spare) {
        drop(block.thread.keep_more(spare));
    }
    parent
}

#[inline(always)]
fn count_up(count: &Cell<usize>) {
    let counted = count.get().wrapping_add(1);
    count.set(counted);
    if counted == 0 {
        // So many were forgotten that the count would be wrong.
        abort();
    }
}

impl Deref for Link {
    type Target = Block;

    #[inline(always)]
    fn deref(&self) -> &Block {
        // SAFETY: the block is there for as long as this reference counts, and is never borrowed
        // mutably.
        unsafe { self.0.as_ref() }
    }
}

impl Deref for Handle {
    type Target = Block;

    #[inline(always)]
    fn deref(&self) -> &Block {
        // SAFETY: as for `Link`.
        unsafe { self.0.as_ref() }
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
