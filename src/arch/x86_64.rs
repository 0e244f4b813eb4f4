//! x86_64: the Rust side of `asm/x86_64/`.
#![allow(unsafe_code)]

#[cfg(not(stolon_call_switch))]
use std::arch::asm;
use std::arch::global_asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::mem::offset_of;

#[cfg(not(stolon_call_switch))]
use super::Word;
#[cfg(stolon_call_switch)]
pub(crate) use super::call::switch;
use super::{Context, Departure};

/// Alignment of a stack pointer where a function is called, in bytes.
pub(crate) const STACK_ALIGNMENT: usize = 16;

/// How many [`Registers`](super::Registers) there are, in DWARF's order: rax rdx rcx rbx rsi rdi rbp rsp r8-r15 rip.
pub(crate) const REGISTERS: usize = 17;

/// Where the stack pointer stands among them: rsp.
pub(crate) const STACK_POINTER: usize = 7;

/// How many of them are columns of unwinding tables: all.
pub(crate) const COLUMNS: usize = REGISTERS;

/// The column of the return address.
pub(crate) const RETURN_ADDRESS: usize = 16;

/// Where the address of the context that is resumed stands among them during a switch: rsi.
pub(crate) const RESUMED: usize = 4;

global_asm!(
    include_str!("../../asm/x86_64/start.s"),
    TO = const offset_of!(Departure, to),
    VALUE = const offset_of!(Departure, value),
    EVENT = const offset_of!(Departure, event),
    SP = const offset_of!(Context, sp),
    PC = const offset_of!(Context, pc),
    FP = const offset_of!(Context, fp),
    BX = const offset_of!(Context, bx),
);

global_asm!(include_str!("../../asm/x86_64/retrace.s"));

// The fragment becomes a macro, so that the text of the function around it stands in one file.
#[cfg(stolon_call_switch)]
global_asm!(
    ".macro stolon_0_1_fragment",
    include_str!("../../asm/x86_64/switch.s"),
    ".endm",
    include_str!("../../asm/x86_64/call.s"),
    SP = const offset_of!(Context, sp),
    PC = const offset_of!(Context, pc),
    FP = const offset_of!(Context, fp),
    BX = const offset_of!(Context, bx),
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
    // Without `nostack`: so the compiler keeps nothing below rsp, where signals would overwrite it.
    // SAFETY: the fragment touches only `*from` and `*to`, valid by the caller's promise, and
    // leaves for code that waits to be resumed. When it comes back, rsp, rbp and rbx are as before
    // and all the rest is declared lost.
    unsafe {
        asm!(
            include_str!("../../asm/x86_64/switch.s"),
            SP = const offset_of!(Context, sp),
            PC = const offset_of!(Context, pc),
            FP = const offset_of!(Context, fp),
            BX = const offset_of!(Context, bx),
            inout("rdi") from => _,
            inout("rsi") to => _,
            inout("rdx") value => received_value,
            inout("rcx") event => received_event,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("sysv64"),
        );
    }
    (received_value, received_event)
}

/// Has the processor fetch the cache line at `address`, which may be any.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    // SAFETY: a hint: it reads nothing that a program could see, and does not fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}
