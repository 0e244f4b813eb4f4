//! Resource limits of the process.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// Raises the soft limit on open descriptors to the hard one, and returns it.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the kernel writes one `rlimit`.
    syscall!(getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()))?;
    // SAFETY: the call succeeded.
    let mut limit = unsafe { limit.assume_init() };
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one `rlimit`.
        syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}
