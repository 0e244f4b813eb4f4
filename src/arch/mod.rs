//! The machine layer: switching stacks, in raw pointers only.
//!
//! Layer 1. It knows no other module of the crate: no stack type, no greenlet.
//!
//! Each architecture has one file here and four in `asm/`, and each file has the same items in the
//! same order:
//!
//! | item | is |
//! |---|---|
//! | [`Context`] | the registers of a suspended context that the switch itself saves |
//! | [`Departure`] | whom a context that ends resumes, and with what |
//! | [`STACK_ALIGNMENT`] | alignment of the stack pointer that [`Context::prepare`] takes |
//! | [`Context::prepare`] | makes a context that will call an entry function on a new stack |
//! | [`switch`] | saves the running context and resumes another; inlined at each switch site, or a call |
//! | [`prefetch`] | has the processor fetch a cache line |
//! | [`Registers`] | all registers of an interrupted thread |
//! | [`COLUMNS`], [`RETURN_ADDRESS`] | which of them unwinding tables speak of |
//! | [`retrace`] | runs a function whose backtrace goes on from such registers |
//!
//! A switch carries two words: a value and an *event*, which tells the receiver what the value
//! means. The machine layer interprets neither.
//!
//! # Registers across a switch
//!
//! *Preserved* registers have their values again when the context is resumed. *Lost* ones do not,
//! and the compiler is told so. *Untouched* ones have whatever the thread has in them.
//! `clobber_abi` names registers whether or not the target has them; the tables include what it
//! leaves out.
//!
//! | x86_64 | is | because |
//! |---|---|---|
//! | rsp, rbp, rbx | preserved | the fragment saves them |
//! | rax, rcx, rdx, rsi, rdi, r8-r15, flags | lost | operands of the `asm!` block or `clobber_abi` name them |
//! | xmm, ymm, zmm 0-31, k0-k7, st and mm 0-7, tmm0-tmm7 | lost | `clobber_abi` names them |
//! | r16-r31 (APX) | lost in a call | `clobber_abi` does not name them, so `build.rs` chooses the call where the compiler uses them |
//! | configuration of tiles (AMX) | untouched | the compiler does not set it; any function may lose it |
//! | MXCSR's and x87's control | untouched | Rust code may not change them |
//! | fs, gs, pkru | untouched | they belong to the thread |
//! | shadow stack pointer (CET) | untouched | `build.rs` refuses the flags that ask for shadow stacks |
//!
//! | aarch64 | is | because |
//! |---|---|---|
//! | sp, x29, x19 | preserved | the fragment saves them |
//! | x0-x17, x20-x28, x30, flags | lost | operands of the `asm!` block or `clobber_abi` name them |
//! | x18 | lost, or untouched | `clobber_abi` names it unless the target reserves it; then it belongs to the thread |
//! | v0-v31, z0-z31, p0-p15 | lost | `clobber_abi` names p and the lower part of z, and the compiler keeps no value in an upper part alone |
//! | ffr (SVE), FPMR, ZA and ZT0 (SME) | untouched | the compiler keeps no value in them, and any function may lose them, ZA by its own rules |
//! | streaming mode, `TPIDR2_EL0` (SME) | untouched | the compiler does not enter the mode, so it is off |
//! | FPCR | untouched | Rust code may not change it |
//! | `TPIDR_EL0` | untouched | it belongs to the thread |
//! | guarded control stack pointer, x18 as shadow call stack | untouched | `build.rs` refuses the flags that ask for them |
//!
//! In a call (`--cfg stolon_call_switch`) the ABI decides. The routine preserves what a function
//! has to preserve, and the compiler takes all other registers for lost, those of future processors
//! included. No switch may happen while assembly or intrinsics have a mode set or an untouched
//! register in use. The documentation of `greenlet` asks that of users.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(stolon_asan)]
mod asan;
#[cfg(stolon_call_switch)]
mod call;
#[cfg(stolon_valgrind)]
pub(crate) mod valgrind;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as machine;
#[cfg(stolon_asan)]
pub(crate) use asan::switch;
#[cfg(not(stolon_asan))]
pub(crate) use machine::switch;
pub(crate) use machine::{
    COLUMNS, RESUMED, RETURN_ADDRESS, STACK_ALIGNMENT, STACK_POINTER, prefetch,
};
#[cfg(target_arch = "x86_64")]
use x86_64 as machine;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("stolon has no machine layer for this architecture");

/// One machine word in flight. It may be uninitialised, and keeps the provenance of a pointer.
pub(crate) type Word = MaybeUninit<*mut ()>;

/// The registers of a thread that was interrupted, in the order of DWARF's numbers, and last where it
/// was.
pub(crate) type Registers = [usize; machine::REGISTERS];

/// What a context's first frame calls: `(argument, value, event)`. It returns where to go when it
/// is done.
///
/// It must not unwind. The departure it returns must lie above the stack pointer that was given to
/// [`Context::prepare`], or outside that stack.
pub(crate) type Entry = unsafe extern "C" fn(*mut (), Word, usize) -> *const Departure;

/// The registers of a suspended context that the switch saves; everything else lies in its frame.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Context {
    sp: *mut u8,
    pc: *const u8,
    /// Frame pointer (rbp, x29); the entry function in a context that has not run yet.
    fp: *mut u8,
    /// The register that LLVM keeps for itself (rbx, x19); the entry's argument before the first
    /// run.
    bx: *mut u8,
    /// What the sanitizer knows of it.
    #[cfg(stolon_asan)]
    fiber: asan::Fiber,
}

/// How a context ends: it resumes `to` and hands over two words. Nothing of the ending context is
/// saved.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Departure {
    pub(crate) to: *const Context,
    pub(crate) value: Word,
    pub(crate) event: usize,
}

// The assembly reads these in pairs (`ldp`, `stp`).
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Context>() == 32 || cfg!(stolon_asan));
    assert!(size_of::<Departure>() == 24);
    assert!(offset_of!(Context, pc) == offset_of!(Context, sp) + 8);
    assert!(offset_of!(Context, bx) == offset_of!(Context, fp) + 8);
    assert!(offset_of!(Departure, value) == offset_of!(Departure, to) + 8);
};

// The symbols in `asm/` carry the version's incompatible part, so that two versions can be linked
// into one program.
const _: () = {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(
        matches!((major.as_bytes(), minor.as_bytes()), (b"0", b"1")),
        "rename stolon_0_1_* in asm/ and src/arch/ after the new version"
    );
};

impl Context {
    /// A context that holds nothing yet: it can be saved into, not resumed.
    pub(crate) const fn empty() -> Self {
        let null = std::ptr::null_mut();
        Self {
            sp: null,
            pc: null,
            fp: null,
            bx: null,
            #[cfg(stolon_asan)]
            fiber: asan::Fiber::empty(),
        }
    }

    /// Where the frames of a suspended context begin.
    #[inline(always)]
    pub(crate) fn stack_pointer(&self) -> *const u8 {
        self.sp
    }

    /// Makes this a context that, when first resumed, calls `entry(argument, value, event)` on the
    /// stack that ends at `top`.
    ///
    /// `top` must be a multiple of [`STACK_ALIGNMENT`].
    pub(crate) fn prepare(&mut self, top: *mut u8, entry: Entry, argument: *mut ()) {
        debug_assert_eq!(top.addr() % STACK_ALIGNMENT, 0);
        *self = Self::empty();
        (self.sp, self.pc) = (top, machine::start_address());
        (self.fp, self.bx) = (entry as *mut u8, argument.cast());
    }
}

/// Where the frame is, among the addresses of code, that [`retrace`] puts between `run` and the
/// registers.
#[cfg(test)]
pub(crate) fn retrace_code() -> std::ops::Range<usize> {
    /// More than the routine has.
    const BYTES: usize = 64;
    let start = machine::stolon_0_1_retrace as *const () as usize;
    start..start + BYTES
}

/// Runs `run`, whose backtraces go on, behind the frames of this call, from `registers` as if they
/// were its caller's.
///
/// # Safety
///
/// - What an unwinder reads that follows the unwinding tables from `registers` can be read: the
///   frames on the stack that they point into, or those of a copy that they were moved to.
/// - `run` does not panic.
pub(crate) unsafe fn retrace(registers: &Registers, run: &mut dyn FnMut()) {
    /// # Safety
    ///
    /// The argument points to what `retrace` passes on.
    unsafe extern "C" fn call(run: *mut ()) {
        // SAFETY: the caller's promise.
        unsafe { (*run.cast::<&mut dyn FnMut()>())() }
    }

    let mut run = run;
    // SAFETY: the routine calls `call` once, with the address of `run`, which is there meanwhile, and
    // returns. What it says to unwinders holds by the caller's promise.
    unsafe { machine::stolon_0_1_retrace(registers.as_ptr(), call, (&raw mut run).cast()) }
}
