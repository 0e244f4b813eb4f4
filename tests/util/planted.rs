//! Values planted in every register that a called function has to preserve.
#![allow(unsafe_code, reason = "planting values in registers takes assembly")]

use std::arch::global_asm;

use stolon::greenlet::Greenlet;

// planted(f, argument, pattern): fills every callee-saved register with `pattern` plus its own
// number, calls f(argument), and returns how many of the registers were not the same afterwards.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".hidden stolon_test_planted",
    ".globl stolon_test_planted",
    "stolon_test_planted:",
    ".cfi_startproc",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdx",
    ".cfi_adjust_cfa_offset 56",
    "mov rax, rdi",
    "mov rdi, rsi",
    "lea rbx, [rdx + 1]",
    "lea rbp, [rdx + 2]",
    "lea r12, [rdx + 3]",
    "lea r13, [rdx + 4]",
    "lea r14, [rdx + 5]",
    "lea r15, [rdx + 6]",
    "call rax",
    "pop rdx",
    "xor eax, eax",
    ".irp reg, rbx, rbp, r12, r13, r14, r15",
    "inc rdx",
    "cmp \\reg, rdx",
    "je 2f",
    "inc eax",
    "2:",
    ".endr",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".cfi_endproc",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".hidden stolon_test_planted",
    ".globl stolon_test_planted",
    "stolon_test_planted:",
    ".cfi_startproc",
    "stp x29, x30, [sp, #-176]!",
    ".cfi_def_cfa_offset 176",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    "stp d8, d9, [sp, #96]",
    "stp d10, d11, [sp, #112]",
    "stp d12, d13, [sp, #128]",
    "stp d14, d15, [sp, #144]",
    "str x2, [sp, #160]",
    "mov x9, x0",
    "mov x0, x1",
    ".irp reg, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29",
    "add x2, x2, #1",
    "mov x\\reg, x2",
    ".endr",
    ".irp reg, 8, 9, 10, 11, 12, 13, 14, 15",
    "add x2, x2, #1",
    "fmov d\\reg, x2",
    ".endr",
    "blr x9",
    "ldr x2, [sp, #160]",
    "mov x0, #0",
    ".irp reg, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29",
    "add x2, x2, #1",
    "cmp x\\reg, x2",
    "cinc x0, x0, ne",
    ".endr",
    ".irp reg, 8, 9, 10, 11, 12, 13, 14, 15",
    "add x2, x2, #1",
    "fmov x3, d\\reg",
    "cmp x3, x2",
    "cinc x0, x0, ne",
    ".endr",
    "ldp x19, x20, [sp, #16]",
    "ldp x21, x22, [sp, #32]",
    "ldp x23, x24, [sp, #48]",
    "ldp x25, x26, [sp, #64]",
    "ldp x27, x28, [sp, #80]",
    "ldp d8, d9, [sp, #96]",
    "ldp d10, d11, [sp, #112]",
    "ldp d12, d13, [sp, #128]",
    "ldp d14, d15, [sp, #144]",
    "ldp x29, x30, [sp], #176",
    "ret",
    ".cfi_endproc",
);

unsafe extern "C" {
    /// # Safety
    ///
    /// `f` preserves what a C function has to, but for what the caller wants to see noticed.
    #[allow(improper_ctypes, reason = "only the address of the greenlet goes through")]
    pub fn stolon_test_planted(
        f: extern "C" fn(&Greenlet),
        argument: &Greenlet,
        pattern: usize,
    ) -> usize;
}

/// Switches to `other` between planting and looking; returns how many registers have changed.
pub fn switch_with_planted_registers(other: &Greenlet, pattern: usize) -> usize {
    extern "C" fn switch(other: &Greenlet) {
        other.switch(()).expect("the other takes it");
    }
    // SAFETY: it preserves what a C function has to, and calls `switch` as one.
    unsafe { stolon_test_planted(switch, other, pattern) }
}
