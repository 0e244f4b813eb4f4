//! Interrupting one thread of this process, to look at where it is.
//!
//! The signal is SIGURG: nothing happens where it comes unexpected, debuggers let it pass, and the C
//! library makes no use of it. A handler of this process's own is kept: it gets all that were not
//! sent from here.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How many registers there are, in the order of DWARF's numbers, and last where the thread was.
#[cfg(target_arch = "x86_64")]
const REGISTERS: usize = 17;
#[cfg(target_arch = "aarch64")]
const REGISTERS: usize = 33;

const SIGNAL: c_int = libc::SIGURG;

/// How the handlers of C look, with `SA_SIGINFO` and without. They may leave by an unwinding or by
/// `longjmp`.
type Action = unsafe extern "C-unwind" fn(c_int, *mut libc::siginfo_t, *mut c_void);
type PlainAction = unsafe extern "C-unwind" fn(c_int);

/// Looks at the registers of the thread that it runs on, and says whether that was asked for.
pub(crate) type Look = fn(&[usize; REGISTERS]) -> bool;

/// What the handler needs to know. Complete before it is installed, and never changed.
struct Watch {
    look: Look,
    previous: libc::sigaction,
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// From now on [`interrupt`] calls `look` on the thread that it names, on that one's signal stack.
/// Only the first call of the process has an effect.
///
/// # Errors
///
/// The kernel's.
///
/// # Safety
///
/// `look` is sound in a signal handler, whatever it interrupts on any thread: it does not allocate,
/// lock or unwind, and reads nothing that the interrupted code may be halfway through writing.
pub(crate) unsafe fn watch(look: Look) -> io::Result<()> {
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is installed, and there is room for what is.
    syscall!(sigaction(SIGNAL, ptr::null(), previous.as_mut_ptr()))?;
    // SAFETY: the call succeeded, so it has written the whole structure.
    let previous = unsafe { previous.assume_init() };
    if WATCH.set(Watch { look, previous }).is_err() {
        return Ok(());
    }
    let mut ours = previous;
    ours.sa_sigaction = on_signal as Action as usize;
    // No other handler comes in between, which might wait for who asks, or never return.
    // SAFETY: the mask is there, and is written whole.
    unsafe { libc::sigfillset(&raw mut ours.sa_mask) };
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `ours` is what the kernel gave for this signal, with a handler of the form that
    // `SA_SIGINFO` says; the handler finds `WATCH` complete.
    syscall!(sigaction(SIGNAL, &raw const ours, ptr::null_mut()))?;
    Ok(())
}

/// The handler.
///
/// # Safety
///
/// Called by the kernel, or with what the kernel called another handler with.
unsafe extern "C-unwind" fn on_signal(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(watch) = WATCH.get() else { return };
    // SAFETY: the address of the thread's own error number, which is there for as long as it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid context, aligned as its type asks for.
    let interrupted = unsafe { &*context.cast::<libc::ucontext_t>() };
    let is_ours = (watch.look)(&registers(interrupted));
    // SAFETY: as above.
    unsafe { *errno = before };
    let previous = watch.previous.sa_sigaction;
    if is_ours || previous == libc::SIG_DFL || previous == libc::SIG_IGN {
        return;
    }
    block_for(&watch.previous, interrupted);
    let function = ptr::with_exposed_provenance::<()>(previous);
    if watch.previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: whoever installed it with this flag said that it is such a function; it gets what
        // the kernel passed.
        unsafe { std::mem::transmute::<*const (), Action>(function)(signal, info, context) };
    } else {
        // SAFETY: as above, without the flag.
        unsafe { std::mem::transmute::<*const (), PlainAction>(function)(signal) };
    }
}

/// Blocks the signals that the kernel would have blocked for this handler, and no others. When the
/// handler returns the kernel blocks what it did before.
fn block_for(handler: &libc::sigaction, interrupted: &libc::ucontext_t) {
    let mut blocked = interrupted.uc_sigmask;
    for signal in 1..=libc::SIGRTMAX() {
        let itself = signal == SIGNAL && handler.sa_flags & libc::SA_NODEFER == 0;
        // SAFETY: the set is complete, and is read.
        if itself || unsafe { libc::sigismember(&raw const handler.sa_mask, signal) } == 1 {
            // SAFETY: the set is there, and the kernel has written it.
            unsafe { libc::sigaddset(&raw mut blocked, signal) };
        }
    }
    // SAFETY: a complete set, and no room for the one before is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut()) };
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> [usize; REGISTERS] {
    const ORDER: [c_int; REGISTERS] = [
        libc::REG_RAX,
        libc::REG_RDX,
        libc::REG_RCX,
        libc::REG_RBX,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_RBP,
        libc::REG_RSP,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
        libc::REG_RIP,
    ];
    ORDER.map(|register| context.uc_mcontext.gregs[register as usize] as usize)
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> [usize; REGISTERS] {
    let machine = &context.uc_mcontext;
    let mut registers = [0; REGISTERS];
    for (register, value) in registers.iter_mut().zip(machine.regs) {
        *register = value as usize;
    }
    registers[31] = machine.sp as usize;
    registers[32] = machine.pc as usize;
    registers
}

/// Interrupts a thread of this process.
///
/// # Errors
///
/// The kernel's, `ESRCH` if there is no such thread.
pub(crate) fn interrupt(thread: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    syscall!(syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL))?;
    Ok(())
}

/// The kernel's number of the calling thread. May be called in a signal handler.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: it takes nothing and returns a number.
    unsafe { libc::gettid() }
}

/// Waits while `word` is `value`, for as long as `timeout` or less.
pub(crate) fn wait_while(word: &AtomicU32, value: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: both addresses are valid for the call. Whatever it returns, the caller looks again.
    let _ = syscall!(syscall(libc::SYS_futex, word.as_ptr(), wait, value, &raw const timeout));
}

/// Ends [`wait_while`] on other threads. May be called in a signal handler.
pub(crate) fn wake_waiter(word: &AtomicU32) {
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the address is valid for the call.
    let _ = syscall!(syscall(libc::SYS_futex, word.as_ptr(), wake, 1));
}

/// Whether the processor checks return addresses that were signed, against the stack pointer among
/// others.
pub(crate) fn checks_return_addresses() -> bool {
    /// `HWCAP_PACA`. Not in every `libc` yet.
    const PACA: libc::c_ulong = 1 << 30;
    // SAFETY: a number in, a number out.
    cfg!(target_arch = "aarch64") && unsafe { libc::getauxval(libc::AT_HWCAP) } & PACA != 0
}
