//! Signals, received by reading a descriptor.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) const SIGHUP: i32 = libc::SIGHUP;
pub(crate) const SIGINT: i32 = libc::SIGINT;
pub(crate) const SIGQUIT: i32 = libc::SIGQUIT;
pub(crate) const SIGTERM: i32 = libc::SIGTERM;
pub(crate) const SIGUSR1: i32 = libc::SIGUSR1;
pub(crate) const SIGUSR2: i32 = libc::SIGUSR2;
pub(crate) const SIGCHLD: i32 = libc::SIGCHLD;

/// A set of signals.
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The set of `signals`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one of them is no signal's number.
    pub(crate) fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is written, not read.
        syscall!(sigemptyset(set.as_mut_ptr()))?;
        for &signal in signals {
            // SAFETY: the set was initialised above.
            syscall!(sigaddset(set.as_mut_ptr(), signal))?;
        }
        // SAFETY: as above.
        Ok(Self(unsafe { set.assume_init() }))
    }

    /// Blocks these signals' delivery to the calling thread, and returns what was blocked before.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn block(&self) -> io::Result<Self> {
        self.mask(libc::SIG_BLOCK)
    }

    /// Lets the calling thread have these signals again.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn unblock(&self) -> io::Result<()> {
        self.mask(libc::SIG_UNBLOCK).map(drop)
    }

    /// Whether a signal is in the set.
    pub(crate) fn contains(&self, signal: i32) -> bool {
        // SAFETY: `self` is a valid set; a number that is no signal's gives an error.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }

    fn mask(&self, how: libc::c_int) -> io::Result<Self> {
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `self` is a valid set, and there is room for the one before.
        let error = unsafe { libc::pthread_sigmask(how, &raw const self.0, before.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the call succeeded, so the set before was written.
        Ok(Self(unsafe { before.assume_init() }))
    }

    /// A non-blocking descriptor to read these signals from, while they are blocked.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        // SAFETY: `self` is a valid set.
        let fd = syscall!(signalfd(-1, &raw const self.0, flags))?;
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Reads the number of the next signal.
///
/// # Errors
///
/// `WouldBlock` when none is pending.
pub(crate) fn read(descriptor: BorrowedFd<'_>) -> io::Result<i32> {
    const INFO_BYTES: usize = size_of::<libc::signalfd_siginfo>();
    // A child process that has the descriptor, too, may have made it blocking.
    super::poll::check_readable(descriptor)?;
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    // SAFETY: there is room for as many bytes as are asked for.
    let bytes = syscall!(read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), INFO_BYTES))?;
    if bytes as usize != INFO_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the kernel wrote it whole.
    Ok(unsafe { info.assume_init() }.ssi_signo as i32)
}
