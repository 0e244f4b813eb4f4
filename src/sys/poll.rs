//! Whether a descriptor is ready at this moment.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Fails with [`WouldBlock`](io::ErrorKind::WouldBlock) if `fd` has nothing to read or to accept.
///
/// For calls that have no flag of their own against blocking: `O_NONBLOCK` belongs to the file
/// description, and another process that shares it may have cleared it.
///
/// # Errors
///
/// That, and the kernel's.
pub(crate) fn check_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel reads and writes one `pollfd`, which lives through the call.
    match syscall!(poll(&raw mut asked, 1, 0))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
