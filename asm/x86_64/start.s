// The first frame of every greenlet on x86_64: src/arch/x86_64.rs includes it into `global_asm!`.
//
// A new context's pc points here, so the first switch to it arrives with
//
//   rsp  top of the new stack, 16-byte aligned     rbx  argument for the entry function
//   rbp  the entry function                        rdx  value, rcx  event, as sent
//
//   new stack      | free ...................... | record of the greenlet |
//   lower                                     rsp^                    higher
//
// It calls  entry(argument, value, event) -> *const Departure  and then resumes the context that the
// departure names. The entry function returns like any other; only this frame never does. Debuggers and
// unwinders stop here: the return address is declared undefined, and the frame-pointer chain ends in 0.
//
//         Departure    +0 to (a *const Context)   +8 value   +16 event

    .pushsection .text.stolon_0_1_start, "ax", @progbits
    .globl  stolon_0_1_start
    .hidden stolon_0_1_start
    .type   stolon_0_1_start, @function
    .p2align 4
stolon_0_1_start:
    .cfi_startproc
    .cfi_undefined rip
    endbr64
    mov     rdi, rbx
    mov     rsi, rdx
    mov     rdx, rcx
    mov     rax, rbp
    xor     ebp, ebp
    call    rax

    // rax: the departure. Its memory lies above rsp, so no signal frame can have overwritten it.
    mov     rsi, [rax + {TO}]
    mov     rdx, [rax + {VALUE}]
    mov     rcx, [rax + {EVENT}]
    mov     rsp, [rsi + {SP}]
    mov     rbp, [rsi + {FP}]
    mov     rbx, [rsi + {BX}]
    jmp     qword ptr [rsi + {PC}]
    .cfi_endproc
    .size   stolon_0_1_start, . - stolon_0_1_start
    .popsection
