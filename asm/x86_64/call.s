// The stack switch on x86_64 as a function: src/arch/x86_64.rs includes it into `global_asm!` where
// the compiler may use registers that it cannot declare lost around an inline fragment (build.rs
// decides).
//
//   extern "C" fn(from: *mut Context, to: *const Context, value, event) -> (value, event)
//
//   in    rdi, rsi, rdx, rcx   as in switch.s: the same registers
//   out   rax, rdx             the value and event of whoever resumes this context later
//   lost  what any function may lose (System V AMD64 psABI), r16-r31 included
//
// What the fragment loses and a function must preserve is kept on the stack that is left:
//
//   left stack     | r15 r14 r13 r12 | return address | frames of the caller ...
//   lower       rsp^                                                     higher
//
//   - The stack pointer of a context that was left here is 8 below a multiple of 16. Nothing relies
//     on its alignment: whoever resumes the context only pops.
//   - `push` moves rsp before it stores, so a signal overwrites nothing.
//   - From the fragment's load of rsp to its jump the CFI does not fit the stack: that is so inline,
//     too.

    .pushsection .text.stolon_0_1_switch, "ax", @progbits
    .globl  stolon_0_1_switch
    .hidden stolon_0_1_switch
    .type   stolon_0_1_switch, @function
    .p2align 4
stolon_0_1_switch:
    .cfi_startproc
    endbr64
    push    r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r12, 0
    push    r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r13, 0
    push    r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r14, 0
    push    r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r15, 0

    // All of switch.s. It leaves, and goes on behind itself when this context is resumed.
    stolon_0_1_fragment

    mov     rax, rdx
    mov     rdx, rcx
    pop     r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore r15
    pop     r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore r14
    pop     r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore r13
    pop     r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore r12
    ret
    .cfi_endproc
    .size   stolon_0_1_switch, . - stolon_0_1_switch
    .popsection
    .purgem stolon_0_1_fragment
