//! Notices that this process is the child of a `fork`.
//!
//! The C library runs a handler in each child, which adds one to a counter; so to ask costs one load
//! and no system call. A child that was made by the bare system call `clone`, past the C library, is
//! not noticed.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between this process and the first one that watched.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Has every fork from now on counted; calls after the first do nothing.
///
/// # Errors
///
/// When there is no memory for the handler.
pub(crate) fn watch() -> io::Result<()> {
    static WATCHED: OnceLock<libc::c_int> = OnceLock::new();
    let error = *WATCHED.get_or_init(|| {
        // SAFETY: the handler is a function of this program, and does nothing but add to an atomic
        // number, which the child of a process with several threads may do.
        unsafe { libc::pthread_atfork(None, None, Some(count_one)) }
    });
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// How many forks have been counted. It may be asked in a signal handler.
#[inline]
pub(crate) fn count() -> u32 {
    // No other thread writes it: the child has one when its handler runs.
    FORKS.load(Ordering::Relaxed)
}

extern "C" fn count_one() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A value of each process. A child has one of its own: its parent's belongs with threads that are not
/// there, one of which may have been about to change it.
///
/// Forks have to be [watched](watch) for that.
pub(crate) struct PerProcess<T: 'static> {
    value: T,
    child: OnceLock<Box<Self>>,
}

impl<T: Default> PerProcess<T> {
    /// With the value of the first process.
    pub(crate) const fn new(value: T) -> Self {
        Self { value, child: OnceLock::new() }
    }

    /// This process's own, made if there is none yet.
    pub(crate) fn get(&'static self) -> &'static T {
        let mut process = self;
        for _ in 0..count() {
            process = process.child.get_or_init(|| Box::new(Self::new(T::default())));
        }
        &process.value
    }

    /// This process's own, if there is one. It may be asked in a signal handler.
    pub(crate) fn existing(&'static self) -> Option<&'static T> {
        (0..count())
            .try_fold(self, |process, _| process.child.get().map(|child| &**child))
            .map(|process| &process.value)
    }
}
