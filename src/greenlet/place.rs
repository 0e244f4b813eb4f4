//! Where control blocks lie.
//!
//! In chunks of several: a block begins at a cache line of its own, and allocators lose up to a line
//! or more on each piece that has to. A chunk goes back when none of its places is taken.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;

use super::block::Block;

/// So many places are in one chunk. What looks for uses of freed memory is to see each block freed.
const SEATS: u32 = if cfg!(any(stolon_asan, stolon_valgrind)) { 1 } else { 32 };

/// Room for what the layer above attaches to a greenlet.
pub(super) type Room = MaybeUninit<[u64; 14]>;

/// A control block, and the room that comes with it.
#[repr(C)]
struct Place {
    block: Block,
    room: UnsafeCell<Room>,
    /// Which of its chunk's.
    seat: u32,
}

/// Before the places of a chunk.
#[repr(align(64))]
struct Chunk {
    /// A bit for each place that is free.
    free: Cell<u64>,
    /// Those with free places are linked.
    next: Cell<Option<NonNull<Chunk>>>,
    previous: Cell<Option<NonNull<Chunk>>>,
}

const CHUNK: Layout = {
    // So that places behind it are aligned as it is.
    assert!(align_of::<Place>() == align_of::<Chunk>() && SEATS <= u64::BITS);
    let bytes = size_of::<Chunk>() + SEATS as usize * size_of::<Place>();
    match Layout::from_size_align(bytes, align_of::<Chunk>()) {
        Ok(layout) => layout,
        Err(_) => panic!("too large"),
    }
};

/// The room beside a block.
///
/// # Safety
///
/// The block lies in a [`Nursery`].
#[inline(always)]
pub(super) unsafe fn room(block: NonNull<Block>) -> *mut Room {
    let place = block.cast::<Place>().as_ptr();
    // SAFETY: the block is the first in a place, which is there as a whole.
    UnsafeCell::raw_get(unsafe { &raw const (*place).room })
}

/// The chunks of one thread.
#[derive(Default)]
pub(super) struct Nursery {
    /// The first of those with free places.
    first: Cell<Option<NonNull<Chunk>>>,
}

impl Nursery {
    /// A place, with `block` in it.
    pub(super) fn add(&self, block: Block) -> NonNull<Block> {
        let chunk = self.first.get().unwrap_or_else(|| self.new_chunk());
        // SAFETY: what is linked is there, and only places are ever borrowed mutably.
        let head = unsafe { chunk.as_ref() };
        let seat = head.free.get().trailing_zeros();
        head.free.set(head.free.get() & !(1 << seat));
        if head.free.get() == 0 {
            self.unlink(head);
        }
        let offset = size_of::<Chunk>() + seat as usize * size_of::<Place>();
        // SAFETY: one of the places behind the chunk, and free: nothing refers to it.
        unsafe {
            let place = chunk.cast::<u8>().add(offset).cast::<Place>();
            (&raw mut (*place.as_ptr()).seat).write(seat);
            place.cast::<Block>().write(block);
            place.cast()
        }
    }

    /// Frees the place of a block.
    ///
    /// # Safety
    ///
    /// [`add`](Self::add) of the same nursery returned it, the block has been moved out, and nothing
    /// refers to the place any more.
    pub(super) unsafe fn free(&self, block: NonNull<Block>) {
        // SAFETY: the block is the first in its place, whose seat `add` has written and which lies so
        // many places behind the chunk; that is there as long as any of them is taken.
        let (chunk, seat) = unsafe {
            let seat = block.byte_add(offset_of!(Place, seat)).cast::<u32>().read();
            let offset = size_of::<Chunk>() + seat as usize * size_of::<Place>();
            (block.byte_sub(offset).cast::<Chunk>(), seat)
        };
        // SAFETY: as above, and only places are ever borrowed mutably.
        let head = unsafe { chunk.as_ref() };
        if head.free.get() == 0 {
            self.link(chunk);
        }
        head.free.set(head.free.get() | 1 << seat);
        if head.free.get().count_ones() == SEATS {
            self.unlink(head);
            // SAFETY: `new_chunk` allocated it, and nobody refers to it or has a place there.
            unsafe { dealloc(chunk.as_ptr().cast(), CHUNK) };
        }
    }

    #[cold]
    #[inline(never)]
    fn new_chunk(&self) -> NonNull<Chunk> {
        let all_free = u64::MAX >> (u64::BITS - SEATS);
        let head =
            Chunk { free: Cell::new(all_free), next: Cell::new(None), previous: Cell::new(None) };
        // SAFETY: the layout is not empty.
        let chunk = unsafe { alloc(CHUNK) };
        let Some(chunk) = NonNull::new(chunk.cast::<Chunk>()) else { handle_alloc_error(CHUNK) };
        // SAFETY: it is that large, aligned, and nobody else's.
        unsafe { chunk.write(head) };
        self.link(chunk);
        chunk
    }

    /// Makes a chunk that is not linked the first.
    fn link(&self, chunk: NonNull<Chunk>) {
        let next = self.first.replace(Some(chunk));
        // SAFETY: the caller's chunk and what is linked are there.
        unsafe {
            chunk.as_ref().next.set(next);
            chunk.as_ref().previous.set(None);
            if let Some(next) = next {
                next.as_ref().previous.set(Some(chunk));
            }
        }
    }

    fn unlink(&self, chunk: &Chunk) {
        let (next, previous) = (chunk.next.get(), chunk.previous.get());
        if let Some(next) = next {
            // SAFETY: what is linked is there.
            unsafe { next.as_ref() }.previous.set(previous);
        }
        match previous {
            // SAFETY: as above.
            Some(previous) => unsafe { previous.as_ref() }.next.set(next),
            None => self.first.set(next),
        }
    }
}
