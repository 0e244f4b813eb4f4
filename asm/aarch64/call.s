// The stack switch on aarch64 as a function: src/arch/aarch64.rs includes it into `global_asm!`.
// Read asm/x86_64/call.s first; here are the differences.
//
//   in    x0, x1, x2, x3   as in switch.s     out   x0, x1  value and event
//   lost  what any function may lose (AAPCS64): x0-x17, v0-v7, v16-v31, the upper halves of v8-v15,
//         z and p registers, ffr. x18 is not touched.
//
//   left stack     | x30 x20 | x21 x22 | x23 x24 | x25 x26 | x27 x28 | d8 ... d15 | frames ...
//   lower        sp^                                                      higher
//
//   - sp stays a multiple of 16. The first `stp` moves it in the instruction that stores.

    .pushsection .text.stolon_0_1_switch, "ax", @progbits
    .globl  stolon_0_1_switch
    .hidden stolon_0_1_switch
    .type   stolon_0_1_switch, @function
    .p2align 4
stolon_0_1_switch:
    .cfi_startproc
    hint    #34
    stp     x30, x20, [sp, #-144]!
    .cfi_def_cfa_offset 144
    .cfi_offset x30, -144
    .cfi_offset x20, -136
    stp     x21, x22, [sp, #16]
    .cfi_offset x21, -128
    .cfi_offset x22, -120
    stp     x23, x24, [sp, #32]
    .cfi_offset x23, -112
    .cfi_offset x24, -104
    stp     x25, x26, [sp, #48]
    .cfi_offset x25, -96
    .cfi_offset x26, -88
    stp     x27, x28, [sp, #64]
    .cfi_offset x27, -80
    .cfi_offset x28, -72
    stp     d8, d9, [sp, #80]
    .cfi_offset d8, -64
    .cfi_offset d9, -56
    stp     d10, d11, [sp, #96]
    .cfi_offset d10, -48
    .cfi_offset d11, -40
    stp     d12, d13, [sp, #112]
    .cfi_offset d12, -32
    .cfi_offset d13, -24
    stp     d14, d15, [sp, #128]
    .cfi_offset d14, -16
    .cfi_offset d15, -8

    // All of switch.s.
    stolon_0_1_fragment

    mov     x0, x2
    mov     x1, x3
    ldp     d14, d15, [sp, #128]
    ldp     d12, d13, [sp, #112]
    ldp     d10, d11, [sp, #96]
    ldp     d8, d9, [sp, #80]
    ldp     x27, x28, [sp, #64]
    ldp     x25, x26, [sp, #48]
    ldp     x23, x24, [sp, #32]
    ldp     x21, x22, [sp, #16]
    // What was reloaded is still on the stack, so the CFI holds up to here.
    ldp     x30, x20, [sp], #144
    .cfi_def_cfa_offset 0
    .cfi_restore x30
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore d8
    .cfi_restore d9
    .cfi_restore d10
    .cfi_restore d11
    .cfi_restore d12
    .cfi_restore d13
    .cfi_restore d14
    .cfi_restore d15
    ret
    .cfi_endproc
    .size   stolon_0_1_switch, . - stolon_0_1_switch
    .popsection
    .purgem stolon_0_1_fragment
