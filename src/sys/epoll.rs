//! The epoll and eventfd system calls, as safe functions over borrowed descriptors.
//!
//! Layer 0, ground. A wait takes its timeout in nanoseconds wherever the kernel has `epoll_pwait2`
//! (Linux 5.11), and in milliseconds, rounded up, elsewhere; it never ends before its time because
//! of rounding. `--cfg stolon_force_epoll_wait` takes the second way on every kernel.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::trouble::{self, Call};

/// There is something to read, or a connection to accept.
pub(crate) const IN: u32 = libc::EPOLLIN as u32;
/// There is room to write.
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;
/// There is urgent data, or another exceptional condition.
pub(crate) const PRI: u32 = libc::EPOLLPRI as u32;
/// The descriptor has failed. Reported whether asked for or not.
pub(crate) const ERR: u32 = libc::EPOLLERR as u32;
/// Both directions are closed. Reported whether asked for or not.
pub(crate) const HUP: u32 = libc::EPOLLHUP as u32;
/// The peer will send no more.
pub(crate) const RDHUP: u32 = libc::EPOLLRDHUP as u32;
/// Report changes instead of states.
pub(crate) const EDGE: u32 = libc::EPOLLET as u32;

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Set once `epoll_pwait2` turned out to be missing or forbidden; it is not tried again.
static PWAIT2_MISSING: AtomicBool = AtomicBool::new(cfg!(stolon_force_epoll_wait));

/// One event, laid out as the kernel writes it (packed on x86_64).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct RawEvent(libc::epoll_event);

impl RawEvent {
    /// An event that says nothing, to be written over.
    pub(crate) const EMPTY: RawEvent = RawEvent(libc::epoll_event { events: 0, u64: 0 });

    /// The flags that are set: [`IN`], [`OUT`] and so on.
    pub(crate) fn flags(self) -> u32 {
        self.0.events
    }

    /// The number given when the descriptor was added.
    pub(crate) fn data(self) -> u64 {
        self.0.u64
    }
}

/// Makes an epoll instance, closed on exec.
pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = syscall!(epoll_create1(libc::EPOLL_CLOEXEC))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts watching `fd` for `flags`. `EEXIST` if it is watched already.
pub(crate) fn add(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    flags: u32,
    data: u64,
) -> io::Result<()> {
    add_number(epoll, fd.as_raw_fd(), flags, data)
}

/// As [`add`]; `EBADF` if there is no such descriptor.
pub(crate) fn add_number(
    epoll: BorrowedFd<'_>,
    fd: RawFd,
    flags: u32,
    data: u64,
) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, flags, data)
}

/// Replaces flags and data of a watched `fd`. `ENOENT` if it is not watched.
pub(crate) fn modify(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    flags: u32,
    data: u64,
) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd.as_raw_fd(), flags, data)
}

/// Stops watching `fd`, which may be closed. `ENOENT` if it is not watched.
pub(crate) fn delete(epoll: BorrowedFd<'_>, fd: RawFd) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_DEL, fd, 0, 0)
}

/// Waits for events, at most `timeout_ns` nanoseconds (`None`: without limit), and writes them to
/// the front of `events`. Returns how many there are.
///
/// None means that the time is over, that a signal was handled, or that the fallback's longest
/// timeout (24 days) ran out: who has a deadline must look at the clock.
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [RawEvent],
    timeout_ns: Option<u64>,
) -> io::Result<usize> {
    let result = trouble::fails(Call::Wait, None).and_then(|()| match timeout_ns {
        None => wait_ms(epoll, events, -1),
        Some(0) => wait_ms(epoll, events, 0),
        Some(timeout_ns) if PWAIT2_MISSING.load(Ordering::Relaxed) => {
            wait_ms(epoll, events, round_up_to_ms(timeout_ns))
        }
        Some(timeout_ns) => match wait_ns(epoll, events, timeout_ns) {
            Err(error) if is_missing(&error) => {
                PWAIT2_MISSING.store(true, Ordering::Relaxed);
                wait_ms(epoll, events, round_up_to_ms(timeout_ns))
            }
            result => result,
        },
    });
    match result {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        result => result,
    }
}

/// Makes an eventfd that counts from zero, does not block, and is closed on exec.
pub(crate) fn eventfd_create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = syscall!(eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd, which wakes whoever watches it. Safe in a signal handler.
pub(crate) fn eventfd_write(eventfd: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1u64;
    // SAFETY: the pointer is valid for reading the eight bytes that the length says.
    syscall!(write(eventfd.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)))?;
    Ok(())
}

fn control(
    epoll: BorrowedFd<'_>,
    operation: c_int,
    fd: RawFd,
    flags: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: flags, u64: data };
    // SAFETY: the pointer is valid for reading one event, and is not kept after the call.
    syscall!(epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event))?;
    if operation == libc::EPOLL_CTL_DEL {
        trouble::watches_no_more(fd);
    } else {
        trouble::watches(epoll, fd, flags, data);
    }
    Ok(())
}

/// `epoll_pwait2`, called by number: C libraries older than the kernel do not have it.
fn wait_ns(epoll: BorrowedFd<'_>, events: &mut [RawEvent], timeout_ns: u64) -> io::Result<usize> {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / NS_PER_S) as libc::time_t,
        tv_nsec: (timeout_ns % NS_PER_S) as libc::c_long,
    };
    // SAFETY: `RawEvent` is laid out as `epoll_event`, so the first pointer is valid for writing as
    // many events as the number after it says, or more; `timeout` is a valid `timespec`, laid out
    // as the kernel's on 64-bit targets; a null signal mask is allowed, and its size then ignored.
    let count = syscall!(syscall(
        libc::SYS_epoll_pwait2,
        epoll.as_raw_fd(),
        events.as_mut_ptr(),
        capacity(events),
        &raw const timeout,
        ptr::null::<libc::sigset_t>(),
        0usize,
    ))?;
    Ok(count as usize)
}

/// `epoll_wait`; a timeout of -1 ms is without limit.
fn wait_ms(epoll: BorrowedFd<'_>, events: &mut [RawEvent], timeout_ms: c_int) -> io::Result<usize> {
    let (first, capacity) = (events.as_mut_ptr().cast(), capacity(events));
    // SAFETY: `RawEvent` is laid out as `epoll_event`, so the pointer is valid for writing as many
    // events as the number after it says, or more.
    let count = syscall!(epoll_wait(epoll.as_raw_fd(), first, capacity, timeout_ms))?;
    Ok(count as usize)
}

/// The room in `events`, as the system calls take it.
fn capacity(events: &[RawEvent]) -> c_int {
    c_int::try_from(events.len()).unwrap_or(c_int::MAX)
}

/// The shortest whole milliseconds that are not less; the longest there are, if that is too much.
fn round_up_to_ms(timeout_ns: u64) -> c_int {
    c_int::try_from(timeout_ns.div_ceil(NS_PER_MS)).unwrap_or(c_int::MAX)
}

/// Whether `epoll_pwait2` does not exist (`ENOSYS`), or a filter of system calls forbids it
/// (`EPERM`).
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up_never_down() {
        assert_eq!(round_up_to_ms(1), 1);
        assert_eq!(round_up_to_ms(NS_PER_MS), 1);
        assert_eq!(round_up_to_ms(NS_PER_MS + 1), 2);
        assert_eq!(round_up_to_ms(u64::MAX), c_int::MAX);
    }

    #[test]
    fn only_a_missing_system_call_counts_as_missing() {
        assert!(is_missing(&io::Error::from_raw_os_error(libc::ENOSYS)));
        assert!(is_missing(&io::Error::from_raw_os_error(libc::EPERM)));
        assert!(!is_missing(&io::Error::from_raw_os_error(libc::EINTR)));
        assert!(!is_missing(&io::Error::from_raw_os_error(libc::EINVAL)));
    }
}
