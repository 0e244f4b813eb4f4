//! The kernel as it is. With `--cfg stolon_faults`, `trouble.rs` stands here instead.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

/// A kind of system call.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Read,
    Write,
    Accept,
    Socket,
    Wait,
}

/// Whether a call fails before it is made.
#[inline(always)]
pub(crate) fn fails(_call: Call, _fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    Ok(())
}

/// How much of `len` bytes a call may move.
#[inline(always)]
pub(crate) fn at_most(_call: Call, _fd: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    Ok(len)
}

/// What a `connect` that went so returns.
#[inline(always)]
pub(crate) fn connected(result: io::Result<()>) -> io::Result<()> {
    result
}

/// Notes what an epoll instance watches a descriptor for.
#[inline(always)]
pub(crate) fn watches(_epoll: BorrowedFd<'_>, _fd: RawFd, _flags: u32, _data: u64) {}

/// Notes that a descriptor is watched no more.
#[inline(always)]
pub(crate) fn watches_no_more(_fd: RawFd) {}
