//! Tells valgrind of stacks, where the crate is built with `--cfg stolon_valgrind`.
//!
//! It takes a move of the stack pointer for a large frame that is made or freed, and what a frame
//! holds for gone with it, unless both ends are in stacks that it was told of. The requests are
//! instructions that do nothing on a processor.
#![allow(unsafe_code)]

use std::arch::asm;

// From valgrind.h and memcheck.h, which promise not to change them.
const STACK_REGISTER: usize = 0x1501;
const STACK_DEREGISTER: usize = 0x1502;
const MAKE_MEM_UNDEFINED: usize = 0x4d43_0001;

/// A stack that valgrind knows of, until this is dropped.
#[derive(Debug)]
pub(crate) struct KnownStack {
    id: usize,
}

impl KnownStack {
    /// Of the addresses from `bottom` up to `top`.
    pub(crate) fn new(bottom: usize, top: usize) -> Self {
        Self { id: request(STACK_REGISTER, [bottom, top - 1]) }
    }
}

impl Drop for KnownStack {
    fn drop(&mut self) {
        request(STACK_DEREGISTER, [self.id, 0]);
    }
}

/// Says that what lies in a free stack is nobody's, and that all of it may be written.
pub(crate) fn forget_content(bottom: usize, top: usize) {
    request(MAKE_MEM_UNDEFINED, [bottom, top - bottom]);
}

/// Returns valgrind's answer; 0 without valgrind.
fn request(code: usize, [first, second]: [usize; 2]) -> usize {
    let words = [code, first, second, 0, 0, 0];
    let mut answer = 0;
    // SAFETY: four rotations by two times 64 bits leave the register as it was, and an exchange of a
    // register with itself does nothing. Under valgrind the request reads the words, and changes no
    // memory of ours.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") words.as_ptr(),
            inout("rdx") answer,
            options(nostack),
        );
    }
    // SAFETY: as on x86_64.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") words.as_ptr(),
            inout("x3") answer,
            options(nostack),
        );
    }
    answer
}
