//! How many unwindings are under way on a thread.
//!
//! [`std::thread::panicking`] says whether there are any, from a number that `std` keeps in a thread-local
//! word and shows nobody. This module finds the word and reads it; it never writes there. It looks at each
//! word of the thread's static thread-local memory inside nested unwindings of its own, and takes the one
//! that counts along: up by one with each that begins, down by one with each that ends, and not at all
//! with allocations, which other counters would count. If not exactly one word does, there is none, and
//! callers keep to `panicking`.
//!
//! Nothing is assumed of `std` but that it counts somewhere in memory that belongs to the thread. Should a
//! later version keep the number elsewhere, no word is found.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::thread::panicking;

/// What is known of the calling thread's word.
#[derive(Clone, Copy)]
enum Word {
    /// Nobody has looked for it.
    Unknown,
    /// There is none that counts unwindings.
    Missing,
    At(NonNull<usize>),
}

thread_local! {
    static WORD: Cell<Word> = const { Cell::new(Word::Unknown) };
}

/// The calling thread's word; or one that is never zero, where none is found. Looks for it, if nobody has yet
/// and the thread does not unwind: in a panic hook nothing may be unwound.
///
/// It is there for as long as the thread: the reference must not leave it.
pub(crate) fn word() -> &'static AtomicUsize {
    /// In place of one that is not found.
    static ANY: AtomicUsize = AtomicUsize::new(1);

    if matches!(WORD.get(), Word::Unknown) && !panicking() {
        WORD.set(find_again().or_else(find).map_or(Word::Missing, Word::At));
    }
    match WORD.get() {
        // SAFETY: as in `unwindings`; `std` writes it on this thread only, and not while it is read.
        Word::At(word) => unsafe { AtomicUsize::from_ptr(word.as_ptr()) },
        _ => &ANY,
    }
}

/// How many unwindings are under way on this thread, those of suspended stacks included; none if that
/// cannot be told, or nobody has looked for the [`word`].
pub(crate) fn unwindings() -> Option<usize> {
    let Word::At(word) = WORD.get() else { return None };
    // SAFETY: `find` had it from the range of this thread's own thread-local memory, which is there as
    // long as the thread, and `WORD` is this thread's.
    Some(unsafe { read(word) })
}

/// Whether nobody has looked for the word yet: the thread has been unwinding since it has had a hub.
pub(crate) fn is_unknown() -> bool {
    matches!(WORD.get(), Word::Unknown)
}

/// Whether this thread runs the panic hook. False if that cannot be told.
pub(crate) fn is_in_hook() -> bool {
    let Word::At(word) = WORD.get() else { return false };
    // SAFETY: `words` lists the one behind it, too, or it is not asked for: see `find`.
    let next = unsafe { read(word.add(1)) };
    // `std` keeps the two together, the flag as one byte.
    panicking() && next.to_le_bytes()[0] == 1
}

/// How far the word is from `WORD`, if both are of one module: then they are in each thread. Zero if that
/// is not known.
static DISTANCE: AtomicIsize = AtomicIsize::new(0);

/// Finds the word where it was in another thread, and sees whether it counts.
fn find_again() -> Option<NonNull<usize>> {
    let distance = DISTANCE.load(Ordering::Relaxed);
    let own = WORD.with(|word| std::ptr::from_ref(word).expose_provenance());
    let word = std::ptr::with_exposed_provenance_mut(own.checked_add_signed(distance)?);
    let word = NonNull::new(word).filter(|_| distance != 0)?;
    // SAFETY: both are of one module's thread-local memory, which lies together in each thread.
    let look = || unsafe { read(word) };
    let (before, mut meanwhile) = (look(), 0);
    while_unwinding(|| meanwhile = look());
    ([before, meanwhile, look()] == [0, 1, 0]).then_some(word)
}

/// Looks for the word. Unwinds a few times.
#[cold]
#[inline(never)]
fn find() -> Option<NonNull<usize>> {
    if cfg!(panic = "abort") {
        return None;
    }
    let ranges = ranges();
    let words = words(&ranges);
    let snapshots = RefCell::new(Vec::with_capacity(8));
    let look = || {
        // SAFETY: `words` lists words of this thread's thread-local memory.
        let values: Vec<usize> = words.iter().map(|word| unsafe { read(*word) }).collect();
        snapshots.borrow_mut().push(values);
    };
    let look_at_two = || {
        look();
        let live = black_box(Box::new([0u8; 100]));
        look();
        drop(live);
    };
    look_at_two();
    while_unwinding(|| {
        look_at_two();
        while_unwinding(look_at_two);
        look();
    });
    look();
    /// What an unwinding adds, at each look.
    const ADDED: [usize; 8] = [0, 0, 1, 1, 2, 2, 1, 0];
    let snapshots = snapshots.into_inner();
    let counts = |index: usize| {
        let follows = |(values, added): (&Vec<usize>, &usize)| values[index] == *added;
        // The word behind it is of the same module's.
        let has_next = words.get(index + 1) == Some(&words[index].map_addr(next_word));
        has_next && snapshots.iter().zip(&ADDED).all(follows)
    };
    let mut found = (0..words.len()).filter(|index| counts(*index));
    let word = found.next().map(|index| words[index]);
    let word = word.filter(|_| snapshots.len() == ADDED.len() && found.next().is_none())?;
    let own = WORD.with(|own| std::ptr::from_ref(own).addr());
    let has_both =
        |range: &Range<usize>| range.contains(&own) && range.contains(&word.addr().get());
    if ranges.iter().any(has_both) {
        DISTANCE.store((word.addr().get() as isize).wrapping_sub(own as isize), Ordering::Relaxed);
    }
    Some(word)
}

/// Runs `f` in a destructor while this thread unwinds, and ends that unwinding.
fn while_unwinding(f: impl FnMut()) {
    struct Run<F: FnMut()>(F);

    impl<F: FnMut()> Drop for Run<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    let ended = catch_unwind(AssertUnwindSafe(|| {
        let _run = Run(f);
        resume_unwind(Box::new(()));
    }));
    debug_assert!(ended.is_err());
}

/// The address of the next word.
fn next_word(address: NonZeroUsize) -> NonZeroUsize {
    address.saturating_add(size_of::<usize>())
}

/// # Safety
///
/// The word is one of [`words`] of the calling thread.
unsafe fn read(word: NonNull<usize>) -> usize {
    // SAFETY: by the caller's promise it is there, and aligned; whoever else reads or writes it does so on
    // this thread, not during the call, or atomically.
    unsafe { AtomicUsize::from_ptr(word.as_ptr()) }.load(Ordering::Relaxed)
}

/// The thread-local memory of this thread, module by module.
fn ranges() -> Vec<Range<usize>> {
    /// # Safety
    ///
    /// Called by `dl_iterate_phdr` with what it says of a module, and with the argument below.
    unsafe extern "C" fn add(
        module: *mut libc::dl_phdr_info,
        _: usize,
        ranges: *mut c_void,
    ) -> c_int {
        // SAFETY: the caller's promise.
        let (module, ranges) = unsafe { (&*module, &mut *ranges.cast::<Vec<Range<usize>>>()) };
        for index in 0..usize::from(module.dlpi_phnum) {
            // SAFETY: the module has that many headers.
            let header = unsafe { &*module.dlpi_phdr.add(index) };
            if header.p_type == libc::PT_TLS && !module.dlpi_tls_data.is_null() {
                let start = module.dlpi_tls_data.expose_provenance();
                ranges.push(start..start + header.p_memsz as usize);
            }
        }
        0
    }

    let mut ranges: Vec<Range<usize>> = Vec::new();
    // SAFETY: `add` gets what it asks for.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut ranges).cast()) };
    ranges
}

/// All words in these ranges.
fn words(ranges: &[Range<usize>]) -> Vec<NonNull<usize>> {
    const BYTES: usize = size_of::<usize>();
    let words = ranges.iter().flat_map(|range| {
        let first = range.start.next_multiple_of(BYTES);
        (first..range.end.saturating_sub(BYTES - 1)).step_by(BYTES)
    });
    words
        .filter_map(|address| NonNull::new(std::ptr::with_exposed_provenance_mut(address)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwindings_are_counted_as_they_begin_and_end() {
        word();
        assert_eq!(unwindings(), Some(0));
        while_unwinding(|| {
            assert_eq!(unwindings(), Some(1));
            while_unwinding(|| assert_eq!(unwindings(), Some(2)));
            assert_eq!(unwindings(), Some(1));
        });
        assert_eq!(unwindings(), Some(0));
    }

    #[test]
    fn nobody_looks_for_the_word_while_its_thread_unwinds() {
        let found = std::thread::spawn(|| {
            let mut found = Some(0);
            while_unwinding(|| {
                word();
                found = unwindings();
            });
            word();
            (found, unwindings())
        });
        assert_eq!(found.join().unwrap(), (None, Some(0)));
    }

    #[test]
    fn the_hook_is_told_apart_from_destructors() {
        // In a process of its own the hook could be replaced; here that of the test harness prints.
        word();
        assert!(!is_in_hook());
        while_unwinding(|| assert!(!is_in_hook()));
    }
}
