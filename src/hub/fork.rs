//! A hub in the child of a `fork`.
//!
//! The child has the thread that forked, with its greenlets and timers, and no other. Its poller is
//! still the parent's: what the one adds or deletes there, the other sees. So before the child uses it
//! for the first time it makes one of its own, and registers there what was registered. Who waited for
//! a descriptor goes on waiting for it, now in both processes. The child's copy of the parent's poller
//! is closed first, so that there is a descriptor for its own.
//!
//! What was shared with other threads is left alone, as one of them may have been about to change it,
//! and is not here to finish that: handles and wakers from before the fork are of no use in the
//! child, and say so.

use std::io;

use super::{Hub, Wake};
use crate::poller::Poller;
pub(super) use crate::sys::fork::{count, watch};

impl Hub {
    /// Runs `f` on the poller, which is this process's own.
    ///
    /// # Errors
    ///
    /// When no epoll instance can be made in a child, and when the thread is exiting.
    pub(super) fn with_poller<R>(&self, f: impl FnOnce(&Poller) -> R) -> io::Result<R> {
        self.renew_after_fork()?;
        match &*self.poller.borrow() {
            Some(poller) => Ok(f(poller)),
            None => Err(io::Error::other("no hub: this thread is exiting")),
        }
    }

    /// Sees to it that the hub is this process's own.
    ///
    /// # Errors
    ///
    /// When no epoll instance can be made; the next call tries again.
    #[inline]
    pub(super) fn renew_after_fork(&self) -> io::Result<()> {
        if self.forks.get() == count() { Ok(()) } else { self.renew() }
    }

    #[cold]
    #[inline(never)]
    fn renew(&self) -> io::Result<()> {
        if !self.closed.get() {
            drop(self.poller.take());
            let poller = Poller::new()?;
            self.remote.renew(&poller)?;
            for entry in self.fds.registered() {
                // What was closed by number, say by a child that closes all it does not know, will
                // say so when it is tried.
                if poller.add_number(entry.fd, entry.token).is_err() {
                    for wait in self.fds.fail(&entry) {
                        self.wake(wait, Wake::Ready);
                    }
                }
            }
            self.poller.replace(Some(poller));
        }
        self.forget_watch();
        self.forks.set(count());
        Ok(())
    }
}
