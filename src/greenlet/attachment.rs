//! Attachments: what the layer above keeps with a greenlet, in the memory of its control block.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use super::Greenlet;
use super::handle::Link;
use super::place::Room;

/// A shared reference to an `A` that was attached to a greenlet when it was made, as an `Rc<A>` is.
///
/// It does not keep the greenlet from being killed. The content is dropped with the last reference,
/// whatever has become of the greenlet.
pub(crate) struct Attachment<A: 'static> {
    block: Link,
    content: PhantomData<A>,
}

/// Whether an `A` has room in the block; else it goes to the heap, and its box into the block.
const fn fits<A>() -> bool {
    size_of::<A>() <= size_of::<Room>() && align_of::<A>() <= align_of::<Room>()
}

// A box always fits.
const _: () = assert!(fits::<*mut ()>());

impl<A: 'static> Attachment<A> {
    /// Attaches what `content` makes to a greenlet that has nothing attached to it. It is made where
    /// it is to be.
    #[inline(always)]
    pub(super) fn new(block: Link, content: impl FnOnce() -> A) -> Self {
        assert!(block.attachments.get() == 0, "one attachment to a greenlet");
        let room = block.room();
        // SAFETY: no attachment refers to the room, so nothing else does; what is written fits. If
        // `content` panics nothing is attached.
        unsafe {
            if const { fits::<A>() } {
                room.cast::<A>().write(content());
            } else {
                room.cast::<*mut A>().write(Box::into_raw(Box::new(content())));
            }
        }
        block.attachments.set(1);
        Self { block, content: PhantomData }
    }

    /// The greenlet that it is attached to.
    pub(crate) fn greenlet<T: 'static>(&self) -> Greenlet<T> {
        Greenlet::from_handle(self.block.handle())
    }

    /// Drops it, where others are likely to be left.
    #[inline(always)]
    pub(crate) fn let_go(self) {
        let left = self.block.attachments.get() - 1;
        if left > 0 {
            let this = ManuallyDrop::new(self);
            this.block.attachments.set(left);
            // Those that are left are links, too.
            this.block.links.set(this.block.links.get() - 1);
        }
    }

    /// The block that it is attached to.
    pub(super) fn block(&self) -> &Link {
        &self.block
    }

    #[inline]
    fn content(&self) -> *mut A {
        let room = self.block.room();
        if const { fits::<A>() } {
            room.cast()
        } else {
            // SAFETY: `new` wrote the address of the content there. It stays for as long as there
            // are attachments, of which this is one.
            unsafe { room.cast::<*mut A>().read() }
        }
    }
}

impl<A: 'static> Clone for Attachment<A> {
    #[inline]
    fn clone(&self) -> Self {
        // The link counts as well, and stops at an overflow.
        let block = self.block.clone();
        block.attachments.set(block.attachments.get() + 1);
        Self { block, content: PhantomData }
    }
}

impl<A: 'static> Deref for Attachment<A> {
    type Target = A;

    #[inline]
    fn deref(&self) -> &A {
        // SAFETY: `new` wrote the content, and it is dropped with the last attachment only.
        unsafe { &*self.content() }
    }
}

impl<A: 'static> Drop for Attachment<A> {
    #[inline(always)]
    fn drop(&mut self) {
        let left = self.block.attachments.get() - 1;
        self.block.attachments.set(left);
        if left == 0 {
            // SAFETY: this was the last attachment.
            unsafe { self.drop_content() };
        }
    }
}

impl<A: 'static> Attachment<A> {
    /// # Safety
    ///
    /// No attachment uses the content any more.
    #[inline]
    unsafe fn drop_content(&self) {
        let content = self.content();
        // SAFETY: `new` wrote it, and it is used no more. The block is held until it has been dropped,
        // by `self.block`.
        unsafe {
            if const { fits::<A>() } {
                content.drop_in_place();
            } else {
                drop(Box::from_raw(content));
            }
        }
    }
}
