//! One thread's stacks of one size: large mappings cut into slots, and the free slots.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};

use super::{MIN_STACK_BYTES, StackCounts};
use crate::arch::STACK_ALIGNMENT;
#[cfg(stolon_valgrind)]
use crate::arch::valgrind::{self, KnownStack};
use crate::sys::limits::MemoryLimit;
use crate::sys::memory;

/// How much below each stack faults on access. C code is not always compiled to touch each page on
/// its way down: on aarch64 it may skip 64 KiB at a time.
#[cfg(target_arch = "x86_64")]
pub(super) const GUARD_BYTES: usize = 16 * 1024;
#[cfg(target_arch = "aarch64")]
pub(super) const GUARD_BYTES: usize = 64 * 1024;

/// Tops are spread over this many cache lines of the top page.
const COLOURS: usize = 16;
const CACHE_LINE_BYTES: usize = 64;

/// The first mapping of an arena has this many slots, each further one twice as many as the one
/// before.
const FIRST_CHUNK_SLOTS: usize = 64;
const MAX_CHUNK_SLOTS: usize = 64 * 1024;

/// So many free stacks keep their pages. When there are more, the half that was freed longest ago
/// gives them back.
const MAX_WARM: usize = 1024;

/// What a free stack keeps of its pages, below its top, when it has been trimmed. Most greenlets
/// never go deeper, so that their stacks are taken and given back without a page fault.
const KEPT_BYTES: usize = 32 * 1024;

/// About each time that so many stacks have been taken, a few of the free ones give back what they
/// have below [`KEPT_BYTES`]: one that ran deep once would otherwise keep it for as long as it is
/// used again.
const TAKES_PER_TRIM: u64 = 1024;
/// The system call takes as long as ten times to make a greenlet and end it.
const STACKS_PER_TRIM: usize = 4;

/// Where memory is limited, stacks leave so much of it: whoever is told that there is no more has a
/// use for some.
const LEFT_OVER_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(CACHE_LINE_BYTES % STACK_ALIGNMENT == 0);

/// How the guards of an arena are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// `MADV_GUARD_INSTALL`: no mapping is split.
    Markers,
    /// `mprotect`: two mappings for each stack.
    Protection,
}

/// One mapping, and how much of it has been handed out for the first time.
struct Chunk {
    map: MmapRaw,
    slots: usize,
    carved: usize,
    #[cfg(stolon_valgrind)]
    known: Vec<KnownStack>,
}

/// This thread's stacks of one size.
pub(super) struct Arena {
    stride_bytes: usize,
    /// How many bytes were asked for when it last served.
    asked_bytes: Cell<usize>,
    guard: Cell<Guard>,
    chunks: RefCell<Vec<Chunk>>,
    /// Tops of free slots whose pages are resident, the one freed last at the end.
    warm: RefCell<Vec<*mut u8>>,
    /// Tops of free slots of which no more than [`KEPT_BYTES`] are resident.
    trimmed: RefCell<Vec<*mut u8>>,
    /// Tops of free slots that gave their pages back.
    cold: RefCell<Vec<*mut u8>>,
    /// How many stacks are taken yet before free ones are trimmed; negative when it is time to.
    takes_to_trim: Cell<isize>,
    /// Where among the warm ones they were trimmed last, as a fraction of 2^64.
    trim_place: Cell<u64>,
}

impl Arena {
    /// A slot for a stack of at least `stack_bytes`, by its top, and the arena that it is of. The
    /// arena is added to `arenas` if it is the first of its size.
    pub(super) fn take_from(
        arenas: &mut Vec<Rc<Self>>,
        stack_bytes: usize,
    ) -> io::Result<(Rc<Self>, *mut u8)> {
        let page_bytes = memory::page_bytes();
        // Beyond the address space: fails as a mapping, with the kernel's word for it.
        let stride_bytes = stack_bytes
            .max(MIN_STACK_BYTES)
            .checked_next_multiple_of(page_bytes)
            .and_then(|bytes| bytes.checked_add(guard_bytes()))
            .unwrap_or(usize::MAX / 2 / page_bytes * page_bytes);
        if let Some(arena) = arenas.iter().find(|arena| arena.stride_bytes == stride_bytes) {
            arena.asked_bytes.set(stack_bytes);
            return Ok((Rc::clone(arena), arena.take()?));
        }
        let arena = Rc::new(Self::new(stride_bytes));
        arena.asked_bytes.set(stack_bytes);
        let top = arena.take()?;
        arenas.push(Rc::clone(&arena));
        Ok((arena, top))
    }

    fn new(stride_bytes: usize) -> Self {
        let guard = if cfg!(stolon_force_mprotect) { Guard::Protection } else { Guard::Markers };
        Self {
            stride_bytes,
            asked_bytes: Cell::new(0),
            guard: Cell::new(guard),
            chunks: RefCell::default(),
            // At once, so that taking and giving back makes no calls of the allocator later.
            warm: RefCell::new(Vec::with_capacity(MAX_WARM)),
            trimmed: RefCell::new(Vec::with_capacity(MAX_WARM)),
            cold: RefCell::default(),
            takes_to_trim: Cell::new(TAKES_PER_TRIM as isize),
            trim_place: Cell::new(0),
        }
    }

    /// Whether stacks of so many bytes are known to be its.
    #[inline]
    pub(super) fn was_asked_for(&self, stack_bytes: usize) -> bool {
        self.asked_bytes.get() == stack_bytes
    }

    /// Whether a slot that is free and in no list may be handed out for a stack of so many bytes: not
    /// when it is time to [`take`](Self::take) one.
    #[inline]
    pub(super) fn takes_again(&self, top: *mut u8, stack_bytes: usize) -> bool {
        let takes_again = self.was_asked_for(stack_bytes) && !self.is_time_to_trim();
        if takes_again {
            self.forget_content(top);
        }
        takes_again
    }

    /// Hands out a slot whose pages are resident, by its top; none also when it is time to
    /// [`take`](Self::take) one.
    #[inline]
    pub(super) fn take_warm(&self) -> Option<*mut u8> {
        if self.is_time_to_trim() {
            return None;
        }
        let top = self.warm.borrow_mut().pop()?;
        self.forget_content(top);
        Some(top)
    }

    /// Has valgrind take a slot that is handed out for one that was never written.
    #[inline(always)]
    fn forget_content(&self, top: *mut u8) {
        #[cfg(stolon_valgrind)]
        valgrind::forget_content(top.addr() - self.usable_bytes(top), top.addr());
        #[cfg(not(stolon_valgrind))]
        let _ = top;
    }

    /// Counts a stack that is about to be taken.
    #[inline]
    fn is_time_to_trim(&self) -> bool {
        let left = self.takes_to_trim.get().wrapping_sub(1);
        self.takes_to_trim.set(left);
        left < 0
    }

    /// Hands out a slot, by its top.
    fn take(&self) -> io::Result<*mut u8> {
        if self.is_time_to_trim() {
            self.trim();
        }
        let free = [&self.warm, &self.trimmed, &self.cold];
        let top = match free.into_iter().find_map(|tops| tops.borrow_mut().pop()) {
            Some(top) => top,
            None => self.carve()?,
        };
        self.forget_content(top);
        Ok(top)
    }

    /// Takes a slot back. The caller may still stand on it: nothing in it is touched now.
    #[inline(never)]
    pub(super) fn give(&self, top: *mut u8) {
        let mut warm = self.warm.borrow_mut();
        if warm.len() >= MAX_WARM {
            self.cool(&mut warm);
        }
        warm.push(top);
    }

    /// Has the half of the warm slots that was freed longest ago give their pages back. Not the
    /// last: that one may have been given back by a greenlet that has not left it yet.
    #[cold]
    #[inline(never)]
    fn cool(&self, warm: &mut Vec<*mut u8>) {
        let mut cold = self.cold.borrow_mut();
        for top in warm.drain(..MAX_WARM / 2) {
            self.give_back(top, 0);
            cold.push(top);
        }
    }

    pub(super) fn usable_bytes(&self, top: *mut u8) -> usize {
        let past_slot_end = memory::page_bytes() - 1;
        let slot_end = (top.addr() + past_slot_end) & !past_slot_end;
        self.stride_bytes - guard_bytes() - (slot_end - top.addr())
    }

    pub(super) fn counts(&self) -> StackCounts {
        let free = [&self.warm, &self.trimmed, &self.cold];
        let free = free.into_iter().map(|tops| tops.borrow().len()).sum();
        let carved: usize = self.chunks.borrow().iter().map(|chunk| chunk.carved).sum();
        StackCounts { in_use: carved - free, free }
    }

    /// A slot that was never used before, guarded.
    fn carve(&self) -> io::Result<*mut u8> {
        let mut chunks = self.chunks.borrow_mut();
        if chunks.last().is_none_or(|chunk| chunk.carved == chunk.slots) {
            let slots = chunks.last().map_or(FIRST_CHUNK_SLOTS, |chunk| chunk.slots * 2);
            chunks.push(self.map(slots.min(MAX_CHUNK_SLOTS))?);
        }
        let chunk = chunks.last_mut().expect("a chunk was pushed if there was none");
        let offset = chunk.carved * self.stride_bytes;
        // SAFETY: `carved < slots`, so this slot lies within the mapping of `slots * stride_bytes`
        // bytes.
        let slot = unsafe { chunk.map.as_mut_ptr().add(offset) };
        // SAFETY: the slot has never been handed out, so nobody uses its lowest bytes.
        if let Err(e) = unsafe { self.install_guard(slot) } {
            if chunk.carved == 0 {
                // It was mapped for this slot, and is no use.
                chunks.pop();
            }
            return Err(e);
        }
        #[cfg(stolon_valgrind)]
        chunk.known.push(KnownStack::new(slot.addr(), slot.addr() + self.stride_bytes));
        let colour_bytes = chunk.carved % COLOURS * CACHE_LINE_BYTES;
        chunk.carved += 1;
        // SAFETY: the colour is less than a page, and a slot is at least MIN_STACK_BYTES long.
        Ok(unsafe { slot.add(self.stride_bytes - colour_bytes) })
    }

    /// Maps a chunk of at most `slots` slots; fewer where limits on address space leave no room for
    /// so many, and something else beside them.
    fn map(&self, mut slots: usize) -> io::Result<Chunk> {
        let mut left_over = None;
        loop {
            let mapped = slots
                .checked_mul(self.stride_bytes)
                .filter(|&bytes| bytes <= isize::MAX as usize)
                .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
                .and_then(map_stacks);
            match mapped {
                Ok(map) => {
                    // A kernel without huge pages refuses the advice, and needs none.
                    let _ = map.advise(Advice::NoHugePage);
                    return Ok(Chunk {
                        map: map.into(),
                        slots,
                        carved: 0,
                        #[cfg(stolon_valgrind)]
                        known: Vec::new(),
                    });
                }
                Err(e) if slots == 1 => return Err(no_memory(self.stride_bytes, &e)),
                // No more than the first time, so that not all is taken that is left.
                Err(_) => {
                    slots = if slots > FIRST_CHUNK_SLOTS { FIRST_CHUNK_SLOTS } else { slots / 2 }
                }
            }
            if left_over.is_none() {
                let map = map_stacks(LEFT_OVER_BYTES);
                left_over = Some(map.map_err(|e| no_memory(self.stride_bytes, &e))?);
            }
        }
    }

    /// Makes the lowest bytes of a slot fault.
    ///
    /// # Safety
    ///
    /// `slot` is the lowest address of a slot of this arena, and nobody uses its guard's range.
    unsafe fn install_guard(&self, slot: *mut u8) -> io::Result<()> {
        if self.guard.get() == Guard::Markers {
            // SAFETY: the caller's promise.
            let installed = unsafe { memory::install_guard_markers(slot, guard_bytes()) };
            // Some emulators accept advice that they do not know and do nothing: so look.
            if installed.is_ok() && !memory::is_readable(slot) {
                return Ok(());
            }
            self.guard.set(Guard::Protection);
        }
        // SAFETY: the caller's promise.
        unsafe { memory::protect(slot, guard_bytes()) }.map_err(|e| no_guard(&e))
    }

    /// Trims a few of the warm slots. Called when a stack is taken: nobody stands on a free one
    /// then.
    #[cold]
    #[inline(never)]
    fn trim(&self) {
        // Multiples of the golden ratio, as fractions of 2^64, lie all over the place: so each has
        // its turn, in whatever order and in crowds of whatever size they are used.
        let place = self.trim_place.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.trim_place.set(place);
        self.takes_to_trim.set((TAKES_PER_TRIM / 2 + place % TAKES_PER_TRIM) as isize);
        let (mut warm, mut trimmed) = (self.warm.borrow_mut(), self.trimmed.borrow_mut());
        let count = warm.len().min(STACKS_PER_TRIM);
        let places = (warm.len() - count + 1) as u128;
        let start = ((u128::from(place) * places) >> 64) as usize;
        for top in warm.drain(start..start + count) {
            if trimmed.len() < MAX_WARM {
                self.give_back(top, KEPT_BYTES);
                trimmed.push(top);
            } else {
                self.give_back(top, 0);
                self.cold.borrow_mut().push(top);
            }
        }
    }

    /// Gives a free slot's pages back to the kernel, but for so many bytes below its end.
    fn give_back(&self, top: *mut u8, kept_bytes: usize) {
        let page_bytes = memory::page_bytes();
        let bytes = self.usable_bytes(top);
        let bottom = top.wrapping_sub(bytes);
        let given_bytes = bytes
            .next_multiple_of(page_bytes)
            .saturating_sub(kept_bytes.next_multiple_of(page_bytes));
        if given_bytes > 0 {
            // SAFETY: the slot is free and nobody stands on it: whoever gave it back has left it
            // since (`Stack`'s `drop`). The range is of its pages above the guard. A refusal
            // (locked memory) costs memory, nothing else.
            let _ = unsafe { memory::give_back(bottom, given_bytes) };
        }
    }
}

/// Anonymous memory, for which no swap is set aside.
fn map_stacks(bytes: usize) -> io::Result<MmapMut> {
    MmapOptions::new().len(bytes).stack().no_reserve_swap().map_anon()
}

pub(super) fn guard_bytes() -> usize {
    GUARD_BYTES.next_multiple_of(memory::page_bytes())
}

fn no_memory(stride_bytes: usize, source: &io::Error) -> io::Error {
    let limit = MemoryLimit::on_bytes(stride_bytes).map_or_else(
        || "see RLIMIT_AS, vm.overcommit_memory and vm.max_map_count".to_owned(),
        |limit| limit.to_string(),
    );
    let text = format!(
        "no address space for a stack of {} KiB, guard included ({limit}): {source}",
        stride_bytes / 1024
    );
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}

fn no_guard(source: &io::Error) -> io::Error {
    let limit = MemoryLimit::on_mappings().map_or_else(
        || "a process may have vm.max_map_count of them".to_owned(),
        |limit| limit.to_string(),
    );
    let text = format!(
        "a stack could not be guarded: each guard splits a mapping here, and {limit}: {source}"
    );
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}
