//! Timers of the kernel's that are descriptors.
//!
//! Layer 0, ground. A moment is in nanoseconds on the clock that [`monotonic_ns`] reads. Such a timer
//! fires at its moment, where the timeout of a system call may be late by the thread's timer slack:
//! 50 us unless somebody has changed it, and a thousandth of a long one.
//!
//! [`monotonic_ns`]: super::time::monotonic_ns

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

const NS_PER_S: u64 = 1_000_000_000;

/// Makes a timer that is not armed, does not block, and is closed on exec.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: the call takes no pointers.
    let fd = syscall!(timerfd_create(libc::CLOCK_MONOTONIC, flags))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has a timer become readable at `moment_ns`, at once if that is past, and not at the moment that was
/// set before.
pub(crate) fn arm(timer: BorrowedFd<'_>, moment_ns: u64) -> io::Result<()> {
    // Zero would disarm it.
    let moment_ns = moment_ns.max(1);
    let value = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec {
            tv_sec: (moment_ns / NS_PER_S) as libc::time_t,
            tv_nsec: (moment_ns % NS_PER_S) as libc::c_long,
        },
    };
    let absolute = libc::TFD_TIMER_ABSTIME;
    // SAFETY: the pointer is valid for reading one `itimerspec`; a null one asks for no old value.
    syscall!(timerfd_settime(timer.as_raw_fd(), absolute, &raw const value, ptr::null_mut()))?;
    Ok(())
}
