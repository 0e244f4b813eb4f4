//! Shows in which registers the compiler keeps values across a switch. `build.rs` compiles this to
//! assembly, with the flags of the build, and looks for registers that the clobbers do not name.
#![no_std]

/// Has more words to keep than there are registers that the clobbers do not name.
///
/// # Safety
///
/// None: it is compiled and never called.
#[no_mangle]
pub unsafe fn stolon_probe(words: &mut [u64; 24]) {
    let mut values = [0; 24];
    let mut index = 0;
    while index < 24 {
        values[index] = unsafe { core::ptr::read_volatile(&words[index]) };
        index += 1;
    }
    unsafe {
        // As in src/arch/x86_64.rs.
        core::arch::asm!(
            "",
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("sysv64"),
        );
    }
    index = 0;
    while index < 24 {
        unsafe { core::ptr::write_volatile(&mut words[index], values[index]) };
        index += 1;
    }
}
