//! Whether a descriptor is ready, asked of the kernel and not of a hub.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Fails with [`WouldBlock`](io::ErrorKind::WouldBlock) if `fd` has nothing to read or to accept.
///
/// For calls that have no flag of their own against blocking: `O_NONBLOCK` belongs to the file
/// description, and another process that shares it may have cleared it.
///
/// # Errors
///
/// That, and the kernel's.
pub(crate) fn check_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_ready(fd, true, false)? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// Whether `fd` is ready now, for reading or for writing as asked, or has failed or hung up.
/// `EBADF` if it is closed.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, reading: bool, writing: bool) -> io::Result<bool> {
    becomes_ready(fd.as_raw_fd(), (reading, writing), Some(Duration::ZERO))
}

/// Waits with the whole thread until `fd` is ready as in [`is_ready`], for at most `timeout` or for ever.
/// False if it is not.
pub(crate) fn becomes_ready(
    fd: RawFd,
    (reading, writing): (bool, bool),
    timeout: Option<Duration>,
) -> io::Result<bool> {
    // It never ends before its time because of rounding.
    let ms = |timeout: Duration| timeout.as_nanos().div_ceil(1_000_000);
    let timeout_ms = timeout.map_or(-1, |t| c_int::try_from(ms(t)).unwrap_or(c_int::MAX));
    let reading = if reading { libc::POLLIN | libc::POLLPRI | libc::POLLRDHUP } else { 0 };
    let writing = if writing { libc::POLLOUT } else { 0 };
    let mut asked = libc::pollfd { fd, events: reading | writing, revents: 0 };
    loop {
        // SAFETY: the pointer is valid for reading and writing one `pollfd`.
        match syscall!(poll(&raw mut asked, 1, timeout_ms)) {
            // By a signal, even if there is nothing to wait for.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    if asked.revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(asked.revents != 0)
}
