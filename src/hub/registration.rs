//! How descriptors get into the hub and out of it, and what goes wrong with them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

use super::entry::{Entry, User};
use super::{Direction, Hub, WaitId, Wake};
use crate::poller::{Interest, Poller};

impl Hub {
    /// Registers a descriptor, or counts another user of its registration and has the poller report
    /// anew what it is ready for.
    ///
    /// If the number was registered for a file that was closed behind the hub's back, those who wait
    /// for that one are woken first.
    ///
    /// # Errors
    ///
    /// As [`Poller::add`](crate::poller::Poller::add); nothing is registered then.
    pub(super) fn register(&self, fd: BorrowedFd<'_>, user: User) -> io::Result<Rc<Entry>> {
        if let Some(known) = self.fds.find(fd.as_raw_fd()) {
            let modify = |poller: &Poller| poller.modify(fd, known.token, Interest::BOTH);
            if self.with_poller(modify)?.is_ok() {
                known.share(user);
                return Ok(known);
            }
            // The kernel watches no such descriptor any more.
            self.end_registration(&known);
        }
        let entry = self.fds.insert(fd.as_raw_fd(), user);
        let added = self.with_poller(|poller| poller.add(fd, entry.token)).and_then(|added| added);
        if added.is_err() {
            self.fds.remove(&entry);
        }
        added.map(|()| entry)
    }

    /// Takes a user of a registration away, and ends it if nobody needs it any more.
    pub(super) fn deregister(&self, entry: &Entry, user: User) {
        if entry.leave(user) {
            self.end_registration(entry);
        }
    }

    /// Ends a registration, and wakes all that wait for its descriptor: they find it closed.
    pub(super) fn end_registration(&self, entry: &Entry) {
        let Some(left) = self.fds.remove(entry) else { return };
        // The file may be shared with another descriptor and stay open: so it is taken out by name.
        // An error means that it is out already.
        let _ = self.with_poller(|poller| poller.delete_number(entry.fd));
        for wait in left {
            self.wake(wait, Wake::Ready);
        }
    }

    /// The error of a greenlet that comes second, which names the first.
    #[cold]
    #[inline(never)]
    pub(super) fn second_waiter(
        &self,
        direction: Direction,
        fd: RawFd,
        first: WaitId,
    ) -> io::Error {
        let verb = direction.verb();
        let queue = self.run_queue.borrow();
        let who = queue.find(first).map_or_else(|| "another greenlet".into(), |g| format!("{g:?}"));
        io::Error::other(format!(
            "second simultaneous {verb} on descriptor {fd}: {who} waits for it already; \
             give each its own descriptor, let one greenlet do all the {verb}ing, or let them line \
             up by `debug::hub_prevent_multiple_readers(false)`"
        ))
    }
}

/// The error of who waits for a descriptor that is closed, or uses a socket whose was.
#[cold]
#[inline(never)]
pub(super) fn closed(fd: RawFd) -> io::Error {
    let text = format!("descriptor {fd} was closed behind the hub's back or by another greenlet");
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// Whether a poller refuses a descriptor as it is always ready, like a regular file.
pub(super) fn is_always_ready(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cold]
#[inline(never)]
pub(super) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out")
}

#[cold]
#[inline(never)]
pub(super) fn exiting() -> io::Error {
    io::Error::other("cannot wait for a descriptor: this thread is exiting")
}

#[cfg(test)]
mod tests {
    use super::User;
    use crate::hub;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn what_cannot_be_registered_leaves_nothing_in_the_table() {
        let (hub, file) = (hub::try_current().unwrap(), File::open("/proc/self/exe").unwrap());
        for user in [User::Owner, User::Visitor, User::Visitor] {
            assert!(hub.register(file.as_fd(), user).is_err());
            assert_eq!(hub.fds.registered().len(), 0);
        }
    }
}
