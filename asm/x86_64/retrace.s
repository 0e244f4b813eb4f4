// Lets an unwinder go on from registers in memory on x86_64: src/arch/x86_64.rs includes it into
// `global_asm!`.
//
//   extern "C" fn(registers: *const usize, run: extern "C" fn(*mut ()), argument: *mut ())
//
//   rdi  registers   in memory, in DWARF's order: rax rdx rcx rbx rsi rdi rbp rsp r8-r15 rip
//   rsi  run         what is called
//   rdx  argument    for it
//
// An ordinary function that calls `run(argument)` and returns. What it says of itself is no ordinary
// thing: that its caller's registers are those in memory. So a backtrace that is taken in `run` goes on
// where those registers were, as it does through the frame of a signal handler, and never comes to the
// true caller. `run` must not unwind.

    .pushsection .text.stolon_0_1_retrace, "ax", @progbits
    .globl  stolon_0_1_retrace
    .hidden stolon_0_1_retrace
    .type   stolon_0_1_retrace, @function
    .p2align 4
stolon_0_1_retrace:
    .cfi_startproc
    .cfi_signal_frame
    // All of them by expressions on rbx (DW_OP_breg3), which `run` preserves. The caller's frame begins
    // at what is found 56 bytes on: rsp.
    // DW_CFA_def_cfa_expression: DW_OP_breg3 56, DW_OP_deref
    .cfi_escape 0x0f, 3, 0x73, 56, 0x06
    // DW_CFA_expression, for each register: DW_OP_breg3 offset. Of two bytes from 64 on.
    .cfi_escape 0x10, 0, 2, 0x73, 0
    .cfi_escape 0x10, 1, 2, 0x73, 8
    .cfi_escape 0x10, 2, 2, 0x73, 16
    .cfi_escape 0x10, 3, 2, 0x73, 24
    .cfi_escape 0x10, 4, 2, 0x73, 32
    .cfi_escape 0x10, 5, 2, 0x73, 40
    .cfi_escape 0x10, 6, 2, 0x73, 48
    .cfi_escape 0x10, 8, 3, 0x73, 0xc0, 0
    .cfi_escape 0x10, 9, 3, 0x73, 0xc8, 0
    .cfi_escape 0x10, 10, 3, 0x73, 0xd0, 0
    .cfi_escape 0x10, 11, 3, 0x73, 0xd8, 0
    .cfi_escape 0x10, 12, 3, 0x73, 0xe0, 0
    .cfi_escape 0x10, 13, 3, 0x73, 0xe8, 0
    .cfi_escape 0x10, 14, 3, 0x73, 0xf0, 0
    .cfi_escape 0x10, 15, 3, 0x73, 0xf8, 0
    .cfi_escape 0x10, 16, 3, 0x73, 0x80, 1
    endbr64
    push    rbx
    mov     rbx, rdi
    mov     rdi, rdx
    call    rsi
    pop     rbx
    ret
    .cfi_endproc
    .size   stolon_0_1_retrace, . - stolon_0_1_retrace
    .popsection
