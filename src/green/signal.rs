//! Signals as something to wait for.
//!
//! std has nothing of the kind. A handler may do next to nothing; a green thread that waits for a
//! signal may do all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::clock::Deadline;
use crate::hub::{Direction, Drained, Short, Source};
use crate::sys::signal::{self, SignalSet};

/// Hang-up of the terminal; by custom, for daemons: read your configuration again.
pub const SIGHUP: i32 = signal::SIGHUP;
/// Interrupt from the keyboard.
pub const SIGINT: i32 = signal::SIGINT;
/// Quit from the keyboard.
pub const SIGQUIT: i32 = signal::SIGQUIT;
/// Request to terminate.
pub const SIGTERM: i32 = signal::SIGTERM;
/// For the program's own use.
pub const SIGUSR1: i32 = signal::SIGUSR1;
/// For the program's own use.
pub const SIGUSR2: i32 = signal::SIGUSR2;
/// A child process has ended or stopped.
pub const SIGCHLD: i32 = signal::SIGCHLD;

/// A set of signals that are waited for instead of handled.
///
/// While it exists they are blocked on the thread that made it, and on threads that this one
/// starts. A thread that was running before takes them as ever: so make this first, or block them
/// there, too. Dropping it unblocks those that it has blocked; one of them that nobody has waited
/// for is then delivered. Of two sets that share a signal drop the younger first.
///
/// ```no_run
/// use stolon::green::signal::{SIGINT, SIGTERM, Signals};
///
/// let signals = Signals::new(&[SIGINT, SIGTERM])?;
/// println!("stopped by signal {}", signals.wait()?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Signals {
    source: Source<OwnedFd>,
    /// Those that were not blocked before.
    blocked: SignalSet,
    numbers: Vec<i32>,
}

impl Signals {
    /// Blocks `signals` on this thread, to be waited for from now on.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if one of them is no signal's number; else the
    /// kernel's.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = SignalSet::new(signals)?;
        let source = Source::new(set.descriptor()?, Short::Nothing);
        let before = set.block()?;
        let blocked: Vec<i32> =
            signals.iter().copied().filter(|&signal| !before.contains(signal)).collect();
        let blocked = SignalSet::new(&blocked)?;
        Ok(Self { source, blocked, numbers: signals.to_vec() })
    }

    /// Waits for one of the signals, and returns its number. Several of one kind may arrive as one.
    ///
    /// # Errors
    ///
    /// When another greenlet waits here already, and the kernel's.
    pub fn wait(&self) -> io::Result<i32> {
        let read = |descriptor: &OwnedFd| Ok((signal::read(descriptor.as_fd())?, Drained::No));
        self.source.run(Direction::Read, |_| Deadline::NEVER, read)
    }
}

/// A `signalfd` in non-blocking mode, readable while one of the signals is pending: for a loop of one's
/// own, on a [`Poller`](crate::poller::Poller).
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.io().as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // A set that was accepted once is accepted again.
        let _ = self.blocked.unblock();
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signals").field(&self.numbers).finish()
    }
}
