// The first frame of every greenlet on aarch64: src/arch/aarch64.rs includes it into `global_asm!`.
// Read asm/x86_64/start.s first; here are the differences.
//
//   sp   top of the new stack, 16-byte aligned     x19  argument for the entry function
//   x29  the entry function                        x2   value, x3  event, as sent

    .pushsection .text.stolon_0_1_start, "ax", @progbits
    .globl  stolon_0_1_start
    .hidden stolon_0_1_start
    .type   stolon_0_1_start, @function
    .p2align 4
stolon_0_1_start:
    .cfi_startproc
    .cfi_undefined x30
    hint    #36
    mov     x0, x19
    mov     x1, x2
    mov     x2, x3
    mov     x9, x29
    mov     x29, xzr
    mov     x30, xzr
    blr     x9

    // x0: the departure. Its memory lies above sp, so no signal frame can have overwritten it.
    ldp     x1, x2, [x0, #{TO}]
    ldr     x3, [x0, #{EVENT}]
    ldp     x10, x9, [x1, #{SP}]
    ldp     x29, x19, [x1, #{FP}]
    mov     sp, x10
    br      x9
    .cfi_endproc
    .size   stolon_0_1_start, . - stolon_0_1_start
    .popsection
