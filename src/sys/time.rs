//! Reads the monotonic clock.
//!
//! Layer 0, ground. The clock never goes back, and is the one that waits are measured by.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Nanoseconds since some moment before this process began (`CLOCK_MONOTONIC`).
///
/// # Panics
///
/// If the system has no monotonic clock, which no supported Linux does.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid for writing one `timespec`.
    syscall!(clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()))
        .expect("the system has a monotonic clock");
    // SAFETY: the call succeeded, so it has written the whole structure.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
