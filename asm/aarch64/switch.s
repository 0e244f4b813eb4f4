// The stack switch on aarch64, an inline fragment: src/arch/aarch64.rs includes it into `asm!`.
//
// WARNING: read this whole file, start.s and src/arch/aarch64.rs before changing a line of one of them.
// Read asm/x86_64/switch.s first; here are the differences. ABI: AAPCS64.
//
//   in    x0  *mut Context, x1  *const Context, x2  value, x3  event
//   out   x2, x3
//   lost  everything else but sp, x29 (frame pointer) and x19 (LLVM's base pointer), which are saved here.
//         That d8-d15 are among the lost makes the compiler save those it needs in its own frame.
//
//         Context      +0 sp   +8 pc   +16 fp   +24 bx (holds x19)
//
//   - `bti j` is written as the hint that older assemblers and processors take for a no-op.
//   - FPCR is not saved: Rust code may not change it.

    adr     x9, 2f
    mov     x10, sp
    stp     x10, x9, [x0, #{SP}]
    stp     x29, x19, [x0, #{FP}]

    // The running context is whole in memory. sp becomes the other stack's below.
    ldp     x10, x9, [x1, #{SP}]
    ldp     x29, x19, [x1, #{FP}]
    mov     sp, x10
    br      x9

2:
    hint    #36
