//! Faults: who is told of them first, the stack that a signal handler runs on, and raw output.
//!
//! A handler of this process's own is kept: it gets all faults that do not end the process here.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

/// What the kernel raises for an access to memory that is not there.
const FAULTS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// The least stack that the kernel itself needs to deliver a signal. Not in every `libc` yet.
const AT_MINSIGSTKSZ: libc::c_ulong = 51;

/// How the handlers of C look, with `SA_SIGINFO` and without. They may leave by an unwinding or by
/// `longjmp`.
type Action = unsafe extern "C-unwind" fn(c_int, *mut libc::siginfo_t, *mut c_void);
type PlainAction = unsafe extern "C-unwind" fn(c_int);

/// What the handler needs to know. Complete before the first handler is installed, and never
/// changed.
struct Watch {
    look: fn(usize),
    previous: [libc::sigaction; FAULTS.len()],
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// From now on calls `look` with the address of each fault, on the thread that faulted and on its
/// signal stack. If `look` returns, the fault takes the way that it would have taken before this
/// call. Only the first call of the process has an effect.
///
/// # Errors
///
/// The kernel's.
///
/// # Safety
///
/// `look` is sound in a signal handler, whatever it interrupts on any thread: it does not allocate,
/// lock or unwind, and reads nothing that the interrupted code may be halfway through writing.
pub(crate) unsafe fn watch(look: fn(usize)) -> io::Result<()> {
    let previous = [action_of(FAULTS[0])?, action_of(FAULTS[1])?];
    let watch = Watch { look, previous };
    if WATCH.set(watch).is_err() {
        return Ok(());
    }
    for (signal, previous) in FAULTS.into_iter().zip(&previous) {
        let mut ours = *previous;
        ours.sa_sigaction = on_fault as Action as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if is_function(previous) {
            // Its mask and these are as it asked for them, as it will be called.
            ours.sa_flags |= previous.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
        }
        // SAFETY: `ours` is what the kernel gave for this signal, with a handler of the form that
        // `SA_SIGINFO` says; the handler finds `WATCH` complete.
        syscall!(sigaction(signal, &raw const ours, ptr::null_mut()))?;
    }
    Ok(())
}

fn action_of(signal: c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is installed, and there is room for what is.
    syscall!(sigaction(signal, ptr::null(), action.as_mut_ptr()))?;
    // SAFETY: the call succeeded, so it has written the whole structure.
    Ok(unsafe { action.assume_init() })
}

fn is_function(action: &libc::sigaction) -> bool {
    action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
}

/// The handler.
///
/// # Safety
///
/// Called by the kernel, or with what the kernel called another handler with.
unsafe extern "C-unwind" fn on_fault(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(watch) = WATCH.get() else { return };
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid record.
    let info_ref = unsafe { &*info };
    // Otherwise it was sent by a process, and has no address.
    let is_fault = info_ref.si_code > 0;
    if is_fault {
        // SAFETY: the record of a SIGSEGV or SIGBUS from the kernel has this field.
        (watch.look)(unsafe { info_ref.si_addr() }.addr());
    }
    let previous = &watch.previous[usize::from(signal != FAULTS[0])];
    if !is_function(previous) {
        // The kernel does not let a fault be ignored either.
        if is_fault || previous.sa_sigaction == libc::SIG_DFL {
            set_default(signal);
        }
        if !is_fault && previous.sa_sigaction == libc::SIG_DFL {
            // It would not come by itself again, as a fault does. It is blocked, or else ends the
            // process here.
            // SAFETY: a number and nothing else.
            unsafe { libc::raise(signal) };
        }
        return;
    }
    if previous.sa_flags & libc::SA_RESETHAND != 0 {
        set_default(signal);
    }
    let function = ptr::with_exposed_provenance::<()>(previous.sa_sigaction);
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: whoever installed it with this flag said that it is such a function; it gets what
        // the kernel passed.
        unsafe { std::mem::transmute::<*const (), Action>(function)(signal, info, context) };
    } else {
        // SAFETY: as above, without the flag.
        unsafe { std::mem::transmute::<*const (), PlainAction>(function)(signal) };
    }
}

/// Gives a signal its default action, which ends the process.
fn set_default(signal: c_int) {
    // SAFETY: all zeros is a valid `sigaction`: an empty mask, no flags, and `SIG_DFL`.
    let action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: a valid action for a valid signal.
    let _ = syscall!(sigaction(signal, &raw const action, ptr::null_mut()));
}

/// How many bytes a stack for signal handlers must have at least: what the kernel needs, and room
/// for the handler.
pub(crate) fn min_signal_stack_bytes() -> usize {
    const HANDLER_BYTES: usize = 32 * 1024;
    // SAFETY: a number in, a number out: 0 if the kernel does not say.
    let kernel_bytes = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
    kernel_bytes + HANDLER_BYTES
}

/// The lowest address of the calling thread's stack for signal handlers, if it has one.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn signal_stack() -> io::Result<Option<*mut u8>> {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: nothing is set, and there is room for what is.
    syscall!(sigaltstack(ptr::null(), stack.as_mut_ptr()))?;
    // SAFETY: the call succeeded, so it has written the whole structure.
    let stack = unsafe { stack.assume_init() };
    Ok((stack.ss_flags & libc::SS_DISABLE == 0).then_some(stack.ss_sp.cast()))
}

/// Has the calling thread's signal handlers run on the range from `bottom`, if they ask for a stack
/// of their own.
///
/// # Errors
///
/// The kernel's, `EPERM` while such a handler runs.
///
/// # Safety
///
/// The range is mapped and nobody else's, until [`unset_signal_stack`] has succeeded on this thread
/// or the thread has ended.
pub(crate) unsafe fn set_signal_stack(bottom: *mut u8, bytes: usize) -> io::Result<()> {
    let stack = libc::stack_t { ss_sp: bottom.cast(), ss_flags: 0, ss_size: bytes };
    // SAFETY: the range is as the caller promises.
    syscall!(sigaltstack(&raw const stack, ptr::null_mut()))?;
    Ok(())
}

/// Has the calling thread's signal handlers run on whatever stack they interrupt.
///
/// # Errors
///
/// The kernel's, `EPERM` while a handler runs on the one that is set.
pub(crate) fn unset_signal_stack() -> io::Result<()> {
    let stack =
        libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: usize::MAX };
    // SAFETY: no memory is named.
    syscall!(sigaltstack(&raw const stack, ptr::null_mut()))?;
    Ok(())
}

/// Writes to descriptor 2 from a signal handler: no lock is taken, and nothing is allocated.
///
/// Text is collected, as other threads may write at the same time, and written when it is dropped.
pub(crate) struct RawStderr {
    bytes: [u8; 256],
    filled: usize,
}

impl RawStderr {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 256], filled: 0 }
    }

    fn flush(&mut self) {
        let mut rest = &self.bytes[..self.filled];
        self.filled = 0;
        while !rest.is_empty() {
            // SAFETY: the bytes are ours and initialised.
            match syscall!(write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len())) {
                Ok(0) => return,
                Ok(written) => rest = rest.get(written as usize..).unwrap_or_default(),
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                // There is nobody to tell.
                Err(_) => return,
            }
        }
    }
}

impl fmt::Write for RawStderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.filled == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.filled] = byte;
            self.filled += 1;
        }
        Ok(())
    }
}

impl Drop for RawStderr {
    fn drop(&mut self) {
        self.flush();
    }
}
