//! The operating system: the crate's only direct calls into libc live in this directory.
//!
//! Layer 0, ground: it imports nothing from the crate. Its functions speak in descriptors,
//! addresses, numbers and [`std::io::Result`]; the C library's types and constants do not leave it.
#![allow(unsafe_code)]

/// Calls the libc function named, and turns a negative return into the error that `errno` holds:
/// `let fd = syscall!(eventfd(0, flags))?;`.
///
/// Such a call is unsafe. The line above it opens with `SAFETY` and says why these arguments are
/// right, as for a block of one's own.
macro_rules! syscall {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: argued where the macro is used.
        let returned = unsafe { libc::$name($($argument),*) };
        if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(returned) }
    }};
}

pub(crate) mod epoll;
pub(crate) mod fault;
pub(crate) mod fork;
pub(crate) mod interrupt;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod net;
pub(crate) mod panic_count;
pub(crate) mod poll;
pub(crate) mod signal;
pub(crate) mod time;
pub(crate) mod timerfd;
#[cfg(not(stolon_faults))]
#[path = "no_trouble.rs"]
pub(crate) mod trouble;
#[cfg(stolon_faults)]
pub mod trouble;
pub(crate) mod unwind;
