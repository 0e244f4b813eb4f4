//! What the unwinder knows of code: the tables by which it steps from a frame to its caller.
//!
//! The unwinder is the one that std links for its own backtraces.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::{ptr, slice};

/// The unwinding tables of one function: call frame information, as in a section `.eh_frame`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables<'a> {
    /// The address of the function's first instruction.
    pub(crate) start: usize,
    /// The description that several functions share (CIE), from its version on.
    pub(crate) common: &'a [u8],
    /// The function's own description (FDE), from the address of the function on.
    pub(crate) own: &'a [u8],
}

/// What [`_Unwind_Find_FDE`] says of the code that it has found.
#[repr(C)]
struct Bases {
    text: *const c_void,
    data: *const c_void,
    function: *const c_void,
}

unsafe extern "C" {
    // Exported by libgcc and by LLVM's libunwind.
    fn _Unwind_Find_FDE(address: *const c_void, bases: *mut Bases) -> *const u8;
}

/// Calls `look` with the tables of the code at `address`, which may be any number. None if the
/// unwinder knows of no tables there, or if their form is one that is not read here.
///
/// The tables are those of a library that is loaded. One that is unloaded on another thread during
/// this call takes them away, from every unwinder.
pub(crate) fn with_tables<R>(address: usize, look: impl FnOnce(Tables<'_>) -> R) -> Option<R> {
    let mut bases = Bases { text: ptr::null(), data: ptr::null(), function: ptr::null() };
    // SAFETY: the function compares the address with those of all loaded code, and reads nothing
    // there. It writes the structure, which has the layout that it expects.
    let own = unsafe { _Unwind_Find_FDE(ptr::without_provenance(address), &raw mut bases) };
    if own.is_null() {
        return None;
    }
    // SAFETY: the unwinder returns a description of a function, which is loaded.
    let (own, distance) = unsafe { record(own) }?;
    // The distance is counted back from its own place, behind the length.
    let common = own.as_ptr().wrapping_sub(size_of::<u32>()).wrapping_sub(distance);
    // SAFETY: so does each such description name the shared one, in the same section.
    let (common, mark) = unsafe { record(common) }?;
    // The mark of a shared one is 0.
    let tables = Tables { start: bases.function.addr(), common, own };
    (mark == 0 && distance != 0).then(|| look(tables))
}

/// The record of a table at `start`, behind its length and the number that follows it, and that
/// number. None if it has the long form, which libgcc does not read either.
///
/// # Safety
///
/// There is such a record, which stays as it is for `'a`.
unsafe fn record<'a>(start: *const u8) -> Option<(&'a [u8], usize)> {
    const WORD: usize = size_of::<u32>();
    // SAFETY: each record begins with two such numbers, by the caller's promise.
    let [length, number] = unsafe { start.cast::<[u32; 2]>().read_unaligned() };
    let length = (length as usize).checked_sub(WORD).filter(|_| length != u32::MAX)?;
    // SAFETY: the record goes on for as long as its first number says; the second one counts.
    Some((unsafe { slice::from_raw_parts(start.add(2 * WORD), length) }, number as usize))
}

/// The address and the CFA of each frame above that of the code at `code`, which is under way, as
/// the unwinder itself finds them.
#[cfg(test)]
pub(crate) fn frames_above(code: std::ops::Range<usize>) -> Vec<(usize, usize)> {
    use std::ffi::c_int;

    // Of the same unwinder.
    unsafe extern "C-unwind" {
        fn _Unwind_Backtrace(
            look: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(frame: *mut c_void) -> usize;
        fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
    }

    /// # Safety
    ///
    /// Called by the unwinder with a frame and the argument below.
    unsafe extern "C" fn look(frame: *mut c_void, argument: *mut c_void) -> c_int {
        // SAFETY: the caller's promise; nothing else refers to it during the walk.
        let found = unsafe { &mut *argument.cast::<Vec<(usize, usize)>>() };
        // SAFETY: the caller's promise.
        found.push(unsafe { (_Unwind_GetIP(frame), _Unwind_GetCFA(frame)) });
        // Go on.
        0
    }

    let mut found: Vec<(usize, usize)> = Vec::new();
    // SAFETY: `look` gets what it asks for.
    unsafe { _Unwind_Backtrace(look, (&raw mut found).cast()) };
    let last = found.iter().position(|(address, _)| code.contains(address));
    found.split_off(last.map_or(found.len(), |last| last + 1))
}
