//! The switch as a function, where the crate is built with `--cfg stolon_call_switch`.
//!
//! An `asm!` block can declare those registers lost that the compiler has names for. A call loses
//! all that the ABI lets it, r16-r31 of APX included. `build.rs` decides; `asm/<arch>/call.s` is
//! the routine, made around the same fragment.
#![allow(unsafe_code)]

use super::{Context, Word};

/// What a context is resumed with, as C returns it: in two registers.
#[repr(C)]
struct Received {
    value: Word,
    event: usize,
}

unsafe extern "C" {
    // Of both contexts it knows the first four words.
    fn stolon_0_1_switch(from: *mut (), to: *const (), value: Word, event: usize) -> Received;
}

/// As the machine's own `switch`. Not inlined: the symbol is hidden, and a switch site may be
/// compiled into another shared library.
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(crate) unsafe fn switch(
    from: *mut Context,
    to: *const Context,
    value: Word,
    event: usize,
) -> (Word, usize) {
    // SAFETY: the routine touches only `*from` and `*to`, valid by the caller's promise, and leaves
    // for code that waits to be resumed. It returns once for each time that this context is
    // resumed, with the registers restored that a function preserves, and does not unwind.
    let received = unsafe { stolon_0_1_switch(from.cast(), to.cast(), value, event) };
    (received.value, received.event)
}
