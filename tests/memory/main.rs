//! What is taken from the heap, and given back.
#![allow(unsafe_code)]

#[path = "../util/mod.rs"]
mod util;

mod calls;
mod payloads;
mod queues;
mod spawns;
mod timeouts;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// What this thread has taken and not given back, and the most that it ever was, in bytes.
    /// Less than nothing if it gave back what another one took.
    static TAKEN: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with counts for each thread.
struct Counting;

fn count(taken: usize, given_back: usize) {
    TAKEN.set(TAKEN.get() + taken as isize - given_back as isize);
    MOST.set(MOST.get().max(TAKEN.get()));
}

// SAFETY: it is the system's; counting neither allocates nor panics, and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How many allocations this thread makes while `f` runs.
fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// How many bytes this thread has taken beyond those that it gives back, from now on.
fn taken_since() -> impl Fn() -> usize {
    let before = TAKEN.get();
    move || usize::try_from(TAKEN.get() - before).unwrap_or(0)
}

/// By how many bytes this thread's part of the heap is larger at its largest, while `f` runs.
fn growth(f: impl FnOnce()) -> usize {
    let before = TAKEN.get();
    MOST.set(before);
    f();
    (MOST.get() - before) as usize
}

#[test]
fn the_counts_count() {
    assert_eq!(allocations(|| drop(Box::new(1_u8))), 1);
    assert_eq!(growth(|| drop(vec![0_u8; 5_000])), 5_000);
    let taken = taken_since();
    let kept = vec![0_u8; 5_000];
    assert_eq!(taken(), 5_000);
    drop(kept);
    assert_eq!(taken(), 0);
}
