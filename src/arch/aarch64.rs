//! aarch64: the Rust side of `asm/aarch64/`. Read `x86_64.rs` first; differences are commented.
#![allow(unsafe_code)]

use std::arch::{asm, global_asm};
use std::mem::offset_of;

#[cfg(not(stolon_call_switch))]
use super::Word;
#[cfg(stolon_call_switch)]
pub(crate) use super::call::switch;
use super::{Context, Departure};

/// Alignment of a stack pointer, in bytes; here the hardware checks it at each access through sp.
pub(crate) const STACK_ALIGNMENT: usize = 16;

/// How many [`Registers`](super::Registers) there are, in DWARF's order: x0-x30 sp pc.
pub(crate) const REGISTERS: usize = 33;

/// Where the stack pointer stands among them: sp.
pub(crate) const STACK_POINTER: usize = 31;

/// How many of them are columns of unwinding tables: all but pc.
pub(crate) const COLUMNS: usize = 32;

/// The column of the return address: x30.
pub(crate) const RETURN_ADDRESS: usize = 30;

/// Where the address of the context that is resumed stands among them during a switch: x1.
pub(crate) const RESUMED: usize = 1;

// No VALUE and PC: the assembly reads them in a pair with TO and SP.
global_asm!(
    include_str!("../../asm/aarch64/start.s"),
    TO = const offset_of!(Departure, to),
    EVENT = const offset_of!(Departure, event),
    SP = const offset_of!(Context, sp),
    FP = const offset_of!(Context, fp),
);

global_asm!(include_str!("../../asm/aarch64/retrace.s"));

// The fragment becomes a macro, so that the text of the function around it stands in one file.
#[cfg(stolon_call_switch)]
global_asm!(
    ".macro stolon_0_1_fragment",
    include_str!("../../asm/aarch64/switch.s"),
    ".endm",
    include_str!("../../asm/aarch64/call.s"),
    SP = const offset_of!(Context, sp),
    FP = const offset_of!(Context, fp),
);

unsafe extern "C" {
    // Not a function in Rust's sense: it takes its inputs in registers that no ABI passes them in.
    fn stolon_0_1_start();

    pub(super) fn stolon_0_1_retrace(
        registers: *const usize,
        run: unsafe extern "C" fn(*mut ()),
        argument: *mut (),
    );
}

/// The code that a prepared context starts with.
pub(super) fn start_address() -> *const u8 {
    stolon_0_1_start as *const u8
}

/// Saves the running context to `from`, resumes `to`, and returns what this context is next resumed
/// with.
///
/// # Safety
///
/// - `from` is valid for writes until this context has been resumed, and is the only record of it.
/// - `to` was saved by `switch` and not resumed since, or was prepared and not resumed since; or it
///   is `from`.
/// - The stack that `to` points into is mapped and nobody else runs on it.
/// - Both belong to the calling thread.
/// - `value` and `event` are what the code at `to`'s resume point expects.
#[cfg(not(stolon_call_switch))]
#[inline(always)]
pub(crate) unsafe fn switch(
    from: *mut Context,
    to: *const Context,
    value: Word,
    event: usize,
) -> (Word, usize) {
    let (received_value, received_event);
    // Without `nostack`, as on x86_64.
    // SAFETY: the fragment touches only `*from` and `*to`, valid by the caller's promise, and
    // leaves for code that waits to be resumed. When it comes back, sp, x29 and x19 are as before
    // and all the rest is declared lost: the "C" ABI's clobbers are x0-x18, x30 and every vector
    // register whole, d8-d15 included.
    unsafe {
        asm!(
            include_str!("../../asm/aarch64/switch.s"),
            SP = const offset_of!(Context, sp),
            FP = const offset_of!(Context, fp),
            inout("x0") from => _,
            inout("x1") to => _,
            inout("x2") value => received_value,
            inout("x3") event => received_event,
            out("x20") _, out("x21") _, out("x22") _, out("x23") _, out("x24") _,
            out("x25") _, out("x26") _, out("x27") _, out("x28") _,
            clobber_abi("C"),
        );
    }
    (received_value, received_event)
}

/// Has the processor fetch the cache line at `address`, which may be any.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    // SAFETY: a hint: it reads nothing that a program could see, and does not fault.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
}
