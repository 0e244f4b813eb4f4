//! Overflow: what is said of a greenlet that runs over its stack, before the process is aborted.
//!
//! An access to a stack's guard is a fault, and the handler of faults asks whether the guard is that
//! of the greenlet that runs on the thread. All other faults go to the handler that was there
//! before, std's for one, which knows the stacks of threads.
//!
//! A handler cannot run on the stack that is full, so each thread needs another one for it. std gives
//! one to the threads that it starts; [`SignalStack`] is for all others.
#![allow(unsafe_code)]

use std::fmt::{self, Write};
use std::marker::PhantomData;
use std::process::abort;
use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw};

use super::Span;
use crate::sys::{fault, memory};

/// Calls its argument with the stack of the current greenlet and what to call it, unless the thread
/// is on a stack of its own.
pub(crate) type Describe = fn(&dyn Fn(Span, fmt::Arguments<'_>));

static DESCRIBE: OnceLock<Describe> = OnceLock::new();

/// Has overflows reported from now on, in the whole process. Only the first call has an effect.
///
/// Where the kernel refuses, an overflow still ends the process, without a word.
///
/// # Safety
///
/// `describe` is sound in a signal handler, whatever it interrupts on any thread: it does not
/// allocate, lock or unwind, and reads nothing that the interrupted code may be halfway through
/// writing.
pub(crate) unsafe fn report(describe: Describe) {
    DESCRIBE.get_or_init(|| {
        // SAFETY: `on_fault` reads a `OnceLock`, which takes no lock, compares numbers, and formats
        // strings and integers into a buffer on its stack; `describe` is as the caller promises.
        let _ = unsafe { fault::watch(on_fault) };
        describe
    });
}

/// Ends the process if `address` is in the guard of the current greenlet's stack.
fn on_fault(address: usize) {
    let Some(describe) = DESCRIBE.get() else { return };
    describe(&|stack, name| {
        if stack.guard().contains(&address) {
            let kib = stack.page_bytes() / 1024;
            let mut line = fault::RawStderr::new();
            let _ = writeln!(line, "\ngreenlet '{name}' has overflowed its stack ({kib} KiB)");
            drop(line);
            abort();
        }
    });
}

/// A stack for signal handlers, on a thread that had none. Taken back when it is dropped.
#[derive(Debug)]
pub(crate) struct SignalStack {
    /// Empty if it could not be taken back: then it is leaked.
    map: Option<MmapRaw>,
    /// Not `Send`: it is this thread's.
    thread: PhantomData<*mut ()>,
}

impl SignalStack {
    /// Sees to it that the thread has one; none if it had one already, or can have none. It must be
    /// dropped on the same thread.
    pub(crate) fn ensure() -> Option<Self> {
        if !matches!(fault::signal_stack(), Ok(None)) {
            return None;
        }
        let page_bytes = memory::page_bytes();
        let bytes = fault::min_signal_stack_bytes().next_multiple_of(page_bytes);
        let map = MmapOptions::new().len(page_bytes + bytes).stack().map_anon().ok()?;
        let map = MmapRaw::from(map);
        // SAFETY: the mapping is new, and nobody uses its lowest page.
        unsafe { memory::protect(map.as_mut_ptr(), page_bytes) }.ok()?;
        let stack = Self { map: Some(map), thread: PhantomData };
        // SAFETY: the range is the mapping above its guard. It is unmapped by `drop` alone, which is
        // called on this thread, as the type is not `Send`, and keeps it if it is still set.
        unsafe { fault::set_signal_stack(stack.bottom()?, bytes) }.ok()?;
        Some(stack)
    }

    fn bottom(&self) -> Option<*mut u8> {
        self.map.as_ref().map(|map| map.as_mut_ptr().wrapping_add(memory::page_bytes()))
    }
}

impl Drop for SignalStack {
    /// If someone has set another one since, or a handler runs on it now, it stays mapped.
    fn drop(&mut self) {
        let is_set =
            matches!(fault::signal_stack(), Ok(set) if set.is_some() && set == self.bottom());
        if !is_set || fault::unset_signal_stack().is_err() {
            std::mem::forget(self.map.take());
        }
    }
}
