//! stolon's machine layer alone: the fragment that it ships, with nothing around it.
//!
//! The crate does not export it. So the fragment is included here from where the crate has it, with
//! the operands that `src/arch/` gives it; only the start of a new context is the bench's own.

use std::arch::{asm, global_asm};
use std::mem::offset_of;
use std::ptr;

use crate::bodies::{Body, Suspend};
use crate::coroutine::{self, Coroutine};
use crate::figure::{Figure, Ours};
use crate::measure::Contender;
use crate::slab::Slot;

/// As in `src/arch/mod.rs`.
#[repr(C)]
struct Context {
    sp: *mut u8,
    pc: *const u8,
    fp: *mut u8,
    bx: *mut u8,
}

impl Context {
    const fn empty() -> Self {
        let null = ptr::null_mut();
        Self { sp: null, pc: null, fp: null, bx: null }
    }
}

// Calls (rbp or x29)(rbx or x19, value), which does not return.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.peers_machine_start, \"ax\", @progbits",
    ".hidden peers_machine_start",
    "peers_machine_start:",
    "endbr64",
    "mov rdi, rbx",
    "mov rsi, rdx",
    "mov rax, rbp",
    "xor ebp, ebp",
    "call rax",
    "ud2",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.peers_machine_start, \"ax\", @progbits",
    ".hidden peers_machine_start",
    "peers_machine_start:",
    "hint #36",
    "mov x0, x19",
    "mov x1, x2",
    "mov x9, x29",
    "mov x29, xzr",
    "blr x9",
    "brk #1",
    ".popsection",
);

unsafe extern "C" {
    fn peers_machine_start();
}

/// Saves the running context to `from` and resumes `to`.
///
/// # Safety
///
/// As that of `switch` in `src/arch/`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn switch(from: *mut Context, to: *const Context, value: usize) -> usize {
    let received;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            include_str!("../../../../asm/x86_64/switch.s"),
            SP = const offset_of!(Context, sp),
            PC = const offset_of!(Context, pc),
            FP = const offset_of!(Context, fp),
            BX = const offset_of!(Context, bx),
            inout("rdi") from => _,
            inout("rsi") to => _,
            inout("rdx") value => received,
            inout("rcx") 0_usize => _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("sysv64"),
        );
    }
    received
}

/// Saves the running context to `from` and resumes `to`.
///
/// # Safety
///
/// As that of `switch` in `src/arch/`.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn switch(from: *mut Context, to: *const Context, value: usize) -> usize {
    let received;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            include_str!("../../../../asm/aarch64/switch.s"),
            SP = const offset_of!(Context, sp),
            FP = const offset_of!(Context, fp),
            inout("x0") from => _,
            inout("x1") to => _,
            inout("x2") value => received,
            inout("x3") 0_usize => _,
            out("x20") _, out("x21") _, out("x22") _, out("x23") _, out("x24") _,
            out("x25") _, out("x26") _, out("x27") _, out("x28") _,
            clobber_abi("C"),
        );
    }
    received
}

/// Two contexts: the driver's and the one that it resumes.
#[repr(align(64))]
struct Pair {
    driver: Context,
    inside: Context,
    body: Body,
}

pub struct Machine {
    pair: *mut Pair,
    _stack: Slot,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` and freed nowhere else; the context is never resumed.
        drop(unsafe { Box::from_raw(self.pair) });
    }
}

struct Inside(*mut Pair);

impl Suspend for Inside {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        // SAFETY: the driver waits in `resume`, and the pair lives as long as anyone resumes.
        unsafe { switch(&raw mut (*self.0).inside, &raw const (*self.0).driver, value) }
    }
}

extern "C" fn entry(pair: *mut Pair, value: usize) -> ! {
    // SAFETY: the argument that `new` prepared.
    let body = unsafe { (*pair).body };
    body.run(&mut Inside(pair), value)
}

impl Coroutine for Machine {
    type Stack = Slot;

    const OWN_STACKS: usize = 1;

    fn stack() -> Result<Slot, String> {
        Slot::many(1, 1)?.pop().ok_or_else(|| String::from("no stack"))
    }

    fn stack_from(slot: Slot) -> Result<Slot, String> {
        Ok(slot)
    }

    fn new(stack: Slot, body: Body) -> Self {
        let pair = Box::new(Pair { driver: Context::empty(), inside: Context::empty(), body });
        let pair = Box::into_raw(pair);
        let inside = Context {
            sp: stack.top(),
            pc: peers_machine_start as *const u8,
            fp: entry as *mut u8,
            bx: pair.cast(),
        };
        // SAFETY: just made, and nobody else has it.
        unsafe { (*pair).inside = inside };
        Self { pair, _stack: stack }
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        // SAFETY: the context was prepared, or waits in `suspend`, and its stack is kept.
        unsafe { switch(&raw mut (*self.pair).driver, &raw const (*self.pair).inside, value) }
    }
}

/// A ring on stacks with tops at so many different cache lines of a page.
pub fn ring(
    figure: Figure,
    count: usize,
    shuffled: bool,
    colours: usize,
) -> Result<Contender, String> {
    let ring = coroutine::many::<Machine>(Slot::many(count, colours)?, shuffled);
    Ok(coroutine::ring(figure.per_iteration(Ours::Machine), ring))
}
