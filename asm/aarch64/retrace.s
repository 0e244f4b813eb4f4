// Lets an unwinder go on from registers in memory on aarch64: src/arch/aarch64.rs includes it into
// `global_asm!`. Read asm/x86_64/retrace.s first; here are the differences.
//
//   x0  registers   in memory, in DWARF's order: x0-x30 sp, and then pc
//   x1  run, x2  argument
//
// x30 is a register of the caller's like any other, as it was interrupted and has called nobody. Where
// it was lies in a column of its own, 96, which unwinders keep for the frames of signal handlers.

    .pushsection .text.stolon_0_1_retrace, "ax", @progbits
    .globl  stolon_0_1_retrace
    .hidden stolon_0_1_retrace
    .type   stolon_0_1_retrace, @function
    .p2align 4
stolon_0_1_retrace:
    .cfi_startproc
    .cfi_signal_frame
    .cfi_return_column 96
    // All of them by expressions on x19 (DW_OP_breg19, 0x83). sp is found 248 bytes on.
    .cfi_escape 0x0f, 4, 0x83, 0xf8, 1, 0x06
    .cfi_escape 0x10, 0, 2, 0x83, 0
    .cfi_escape 0x10, 1, 2, 0x83, 8
    .cfi_escape 0x10, 2, 2, 0x83, 16
    .cfi_escape 0x10, 3, 2, 0x83, 24
    .cfi_escape 0x10, 4, 2, 0x83, 32
    .cfi_escape 0x10, 5, 2, 0x83, 40
    .cfi_escape 0x10, 6, 2, 0x83, 48
    .cfi_escape 0x10, 7, 2, 0x83, 56
    .cfi_escape 0x10, 8, 3, 0x83, 0xc0, 0
    .cfi_escape 0x10, 9, 3, 0x83, 0xc8, 0
    .cfi_escape 0x10, 10, 3, 0x83, 0xd0, 0
    .cfi_escape 0x10, 11, 3, 0x83, 0xd8, 0
    .cfi_escape 0x10, 12, 3, 0x83, 0xe0, 0
    .cfi_escape 0x10, 13, 3, 0x83, 0xe8, 0
    .cfi_escape 0x10, 14, 3, 0x83, 0xf0, 0
    .cfi_escape 0x10, 15, 3, 0x83, 0xf8, 0
    .cfi_escape 0x10, 16, 3, 0x83, 0x80, 1
    .cfi_escape 0x10, 17, 3, 0x83, 0x88, 1
    .cfi_escape 0x10, 18, 3, 0x83, 0x90, 1
    .cfi_escape 0x10, 19, 3, 0x83, 0x98, 1
    .cfi_escape 0x10, 20, 3, 0x83, 0xa0, 1
    .cfi_escape 0x10, 21, 3, 0x83, 0xa8, 1
    .cfi_escape 0x10, 22, 3, 0x83, 0xb0, 1
    .cfi_escape 0x10, 23, 3, 0x83, 0xb8, 1
    .cfi_escape 0x10, 24, 3, 0x83, 0xc0, 1
    .cfi_escape 0x10, 25, 3, 0x83, 0xc8, 1
    .cfi_escape 0x10, 26, 3, 0x83, 0xd0, 1
    .cfi_escape 0x10, 27, 3, 0x83, 0xd8, 1
    .cfi_escape 0x10, 28, 3, 0x83, 0xe0, 1
    .cfi_escape 0x10, 29, 3, 0x83, 0xe8, 1
    .cfi_escape 0x10, 30, 3, 0x83, 0xf0, 1
    .cfi_escape 0x10, 96, 3, 0x83, 0x80, 2
    hint    #34
    stp     x29, x30, [sp, #-32]!
    str     x19, [sp, #16]
    mov     x29, sp
    mov     x19, x0
    mov     x0, x2
    blr     x1
    ldr     x19, [sp, #16]
    ldp     x29, x30, [sp], #32
    ret
    .cfi_endproc
    .size   stolon_0_1_retrace, . - stolon_0_1_retrace
    .popsection
