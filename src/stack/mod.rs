//! Stacks: guarded, pooled pieces of large mappings.
//!
//! Layer 2. Knows `sys` and the machine's stack alignment. A `Stack` is the right to run on one
//! slot of an arena; dropping it gives the slot back to be reused, last in first out. Each thread
//! has its own arenas, one for each stack size in use, and no lock is taken.
//!
//! ```text
//!                   one slot of an arena (stride_bytes)
//!   | guard, faults | ........ free ........ | frames in use | colour |
//!   ^ slot          ^ bottom                            top ^        ^ slot end
//! ```
//!
//! The colour moves tops of neighbouring stacks apart by cache lines, so that they do not all
//! compete for the same few cache sets; it never costs a second page.

mod arena;
pub(crate) mod overflow;
pub(crate) mod sample;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(stolon_valgrind)]
use crate::arch::valgrind::KnownStack;
use crate::sys;
use arena::Arena;

/// The smallest stack that can be asked for, in bytes; smaller requests are raised to it.
pub const MIN_STACK_BYTES: usize = 16 * 1024;

/// The size of stacks where none is asked for, in bytes, guard included.
const DEFAULT_SLOT_BYTES: usize = 256 * 1024;

/// The size where none is asked for, in bytes; 0 as long as it was neither told nor worked out.
static PROCESS_DEFAULT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Sets the size of the stacks of all greenlets that are made from now on and ask for no size, in
/// bytes.
///
/// It is rounded up to whole pages, and to [`MIN_STACK_BYTES`] at least. Only address space is
/// taken at first: memory follows as far down as a stack is really used.
pub fn set_default_stack_bytes(stack_bytes: usize) {
    PROCESS_DEFAULT_BYTES.store(stack_bytes.max(MIN_STACK_BYTES), Ordering::Relaxed);
}

/// The size of a greenlet's stack where none is asked for, in bytes.
///
/// 236 KiB on x86_64 and 188 KiB on aarch64, unless [`set_default_stack_bytes`] said otherwise:
/// with its guard and a page less, so that the distance between stacks is no power of two, a stack
/// then takes 252 KiB of addresses.
#[inline]
pub fn default_stack_bytes() -> usize {
    match PROCESS_DEFAULT_BYTES.load(Ordering::Relaxed) {
        0 => first_default_stack_bytes(),
        bytes => bytes,
    }
}

/// [`default_stack_bytes`] as long as the process was not told, which is noted so that it need not be
/// worked out again.
#[cold]
#[inline(never)]
fn first_default_stack_bytes() -> usize {
    let bytes = DEFAULT_SLOT_BYTES - arena::GUARD_BYTES - sys::memory::page_bytes();
    let noted =
        PROCESS_DEFAULT_BYTES.compare_exchange(0, bytes, Ordering::Relaxed, Ordering::Relaxed);
    noted.map_or_else(|told| told, |_| bytes)
}

/// How many stacks of this thread are in use, and how many are kept for reuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackCounts {
    /// Stacks that belong to a greenlet now.
    pub in_use: usize,
    /// Stacks that were used and wait to be used again.
    pub free: usize,
}

/// Counts this thread's stacks, for tests of leaks and for tuning.
pub fn stack_counts() -> StackCounts {
    let mut sum = StackCounts::default();
    if let Some(arenas) = Arenas::of_thread() {
        for arena in arenas.all.borrow().iter() {
            let counts = arena.counts();
            sum.in_use += counts.in_use;
            sum.free += counts.free;
        }
        let last = arenas.last.take();
        let free = usize::from(last.is_some());
        arenas.last.set(last);
        sum.in_use -= free;
        sum.free += free;
    }
    sum
}

/// One thread's arenas, one for each stack size in use.
///
/// Whoever runs on one of their stacks must see to it that they outlive the run: a stack that is
/// given back by the greenlet that still stands on it is no use if the mapping goes with it.
#[derive(Default)]
pub(crate) struct Arenas {
    all: RefCell<Vec<Rc<Arena>>>,
    /// The stack that was given back last, which is taken next if it has the size.
    last: Cell<Option<Stack>>,
}

thread_local! {
    static ARENAS: Rc<Arenas> = Rc::default();

    /// The thread's own stack, which valgrind does not know of by itself.
    #[cfg(stolon_valgrind)]
    static OWN: Option<KnownStack> =
        sys::memory::thread_stack().map(|(bottom, top)| KnownStack::new(bottom, top)).ok();
}

impl Arenas {
    /// This thread's arenas; none when it is past the point in its exit where it has them.
    pub(crate) fn of_thread() -> Option<Rc<Self>> {
        #[cfg(stolon_valgrind)]
        let _ = OWN.try_with(|_| ());
        ARENAS.try_with(Rc::clone).ok()
    }

    /// Takes a stack back. As when it is dropped, the caller may still stand on it.
    #[inline]
    pub(crate) fn give(&self, stack: Stack) {
        drop(self.last.replace(Some(stack)));
    }
}

/// The exclusive right to use one slot of an arena.
pub(crate) struct Stack {
    top: *mut u8,
    arena: Rc<Arena>,
}

impl Stack {
    /// Takes a stack of at least `stack_bytes`.
    ///
    /// # Errors
    ///
    /// The kernel's when no memory can be mapped or guarded, with the limit that was hit named.
    #[inline]
    pub(crate) fn new(arenas: &Arenas, stack_bytes: usize) -> io::Result<Self> {
        if let Some(last) = arenas.last.take() {
            if last.arena.takes_again(last.top, stack_bytes) {
                return Ok(last);
            }
        }
        Self::take_other(arenas, stack_bytes)
    }

    /// A stack that is not the last that was given back.
    #[inline(never)]
    fn take_other(arenas: &Arenas, stack_bytes: usize) -> io::Result<Self> {
        for arena in &*arenas.all.borrow() {
            if arena.was_asked_for(stack_bytes) {
                let Some(top) = arena.take_warm() else { break };
                return Ok(Self { top, arena: Rc::clone(arena) });
            }
        }
        Self::take_cold(arenas, stack_bytes)
    }

    #[cold]
    #[inline(never)]
    fn take_cold(arenas: &Arenas, stack_bytes: usize) -> io::Result<Self> {
        let (arena, top) = Arena::take_from(&mut arenas.all.borrow_mut(), stack_bytes)?;
        Ok(Self { top, arena })
    }

    /// The highest address of the stack: the first thing pushed lies below it. Aligned to a cache
    /// line.
    #[inline]
    pub(crate) fn top(&self) -> *mut u8 {
        self.top
    }

    /// How many bytes can be used below [`top`](Self::top).
    pub(crate) fn usable_bytes(&self) -> usize {
        self.arena.usable_bytes(self.top)
    }

    /// Where it lies.
    pub(crate) fn span(&self) -> Span {
        let top = self.top.addr();
        Span { bottom: top - self.usable_bytes(), top }
    }
}

/// The addresses of a stack: numbers only, which may outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    bottom: usize,
    top: usize,
}

impl Span {
    /// The calling thread's own stack.
    ///
    /// # Errors
    ///
    /// When the C library cannot find out.
    pub(crate) fn of_thread() -> io::Result<Self> {
        let (bottom, top) = sys::memory::thread_stack()?;
        Ok(Self { bottom, top })
    }

    /// The lowest address.
    #[cfg(stolon_asan)]
    pub(crate) fn bottom(self) -> usize {
        self.bottom
    }

    /// The addresses that fault, below the bottom.
    fn guard(self) -> Range<usize> {
        self.bottom - arena::guard_bytes()..self.bottom
    }

    /// How many bytes its pages have, those of the colour included.
    fn page_bytes(self) -> usize {
        (self.top - self.bottom).next_multiple_of(sys::memory::page_bytes())
    }

    /// How many bytes there are from `address` down to the bottom.
    pub(crate) fn bytes_below(self, address: *const u8) -> usize {
        address.addr().saturating_sub(self.bottom)
    }

    /// How far down from the top there is memory, in bytes, to a whole page. None if the kernel does
    /// not say.
    pub(crate) fn used_bytes(self) -> Option<usize> {
        let lowest = sys::memory::lowest_resident(self.bottom, self.page_bytes()).ok()?;
        Some(self.top - lowest.unwrap_or(self.top))
    }
}

impl Drop for Stack {
    /// The memory stays as it is until another stack is taken or given back, so a greenlet may give
    /// its own stack back while it still stands on it, as long as it leaves before either happens
    /// and someone keeps the [`Arenas`].
    #[inline]
    fn drop(&mut self) {
        self.arena.give(self.top);
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("top", &self.top)
            .field("bytes", &self.usable_bytes())
            .finish()
    }
}
