// The stack switch on x86_64, an inline fragment: src/arch/x86_64.rs includes it into `asm!`.
//
// WARNING: read this whole file, start.s and src/arch/x86_64.rs before changing a line of one of them.
//
// Saves the running context into a `Context` and resumes the one in another. ABI: System V AMD64 psABI.
//
//   in    rdi  *mut Context    where to save the context that runs now
//         rsi  *const Context  the context to resume; may be the same
//         rdx  word            travels through untouched: the value
//         rcx  word            travels through untouched: the event (what the value means)
//   out   rdx, rcx             the value and event of whoever resumes this context later
//   lost  everything else but rsp, rbp and rbx: the compiler is told so, and keeps what is live at the
//         switch site in its own frame. rbp and rbx are saved here, as LLVM lends neither to `asm!`.
//
//         Context      +0 sp   +8 pc   +16 fp   +24 bx
//
//   - No `call` and no `ret`: the return-stack predictor stays in step with the frames above.
//   - An indirect jump and not `ret`: a `ret` to another stack is mispredicted each time.
//   - Nothing is stored below a stack pointer, ever: a signal may arrive between two instructions and its
//     frame overwrites what lies there. At each instruction rsp is one of the two stacks, and valid.
//   - MXCSR and the x87 control word are not saved: Rust code may not change them.

    lea     rax, [rip + 2f]
    mov     [rdi + {PC}], rax
    mov     [rdi + {SP}], rsp
    mov     [rdi + {FP}], rbp
    mov     [rdi + {BX}], rbx

    // The running context is whole in memory. From the next line on this is the other stack.
    mov     rsp, [rsi + {SP}]
    mov     rbp, [rsi + {FP}]
    mov     rbx, [rsi + {BX}]
    jmp     qword ptr [rsi + {PC}]

2:
    endbr64
