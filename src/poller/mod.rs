//! Waits for many descriptors at once: epoll, with tokens that tell old events from new ones.
//!
//! Layer 4, sources; it knows `sys` only, and nothing of greenlets. It serves a plain event loop as
//! well as the hub:
//!
//! ```
//! use std::io::Write;
//! use std::os::{fd::AsFd, unix::net::UnixStream};
//! use stolon::poller::{Events, Poller, Token};
//!
//! # fn main() -> std::io::Result<()> {
//! let (mut near, far) = UnixStream::pair()?;
//! let poller = Poller::new()?;
//! poller.add(far.as_fd(), Token::new(3, 1))?;
//! near.write_all(b"hello")?;
//!
//! let mut events = Events::new();
//! poller.wait(&mut events, None)?;
//! let event = events.get(0).unwrap();
//! assert!(event.is_readable() && event.token() == Token::new(3, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # What becomes of closed descriptors
//!
//! The kernel watches the open file behind a descriptor. It forgets it when the *last* descriptor
//! of that file is closed, so one that was never duplicated needs no [`delete`](Poller::delete).
//! If a duplicate is left (by `try_clone`, or by a child process), events go on coming with the old
//! token, and there is no descriptor any more to delete by: delete before closing then. If the same
//! file comes back under the same number, [`add`](Poller::add) puts the new token in the place of
//! the old one.
//!
//! # Child processes
//!
//! The child of a `fork` shares the poller with its parent: what one adds or deletes, the other
//! sees. A child makes a new one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::sys::{epoll, time};

mod alarm;
mod event;

use alarm::Alarm;

pub use event::{Event, Events, Interest, Iter, Token};

/// A set of watched descriptors.
///
/// Threads may share it: one waits, the others add, delete and notify. When several wait, an edge
/// goes to one of them.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    /// Made by the first who asks for it, and watched from then on.
    waker: OnceLock<Waker>,
    alarm: Alarm,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// When the process or the system is out of descriptors or memory.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create()?, waker: OnceLock::new(), alarm: Alarm::default() })
    }

    /// Watches `fd` in both directions, edge-triggered: [`Interest::BOTH`]. Adding once is enough
    /// for the life of the descriptor.
    ///
    /// If it is ready already, the next wait says so. If it is watched already, `token` replaces
    /// the former one, and a wait reports anew what it is ready for.
    ///
    /// # Errors
    ///
    /// As the kernel gives them, among others `EPERM` for what cannot be waited for, as it is
    /// always ready (regular files, directories), `EBADF` for a descriptor not open for input or
    /// output, `ELOOP` for a poller that would watch itself, and `ENOSPC` beyond
    /// `/proc/sys/fs/epoll/max_user_watches`. `InvalidInput` for a token whose slot is
    /// `u32::MAX`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.add_with(fd, token, Interest::BOTH)
    }

    /// As [`add`](Poller::add), by number.
    pub(crate) fn add_number(&self, fd: RawFd, token: Token) -> io::Result<()> {
        epoll::add_number(self.as_fd(), fd, Interest::BOTH.to_flags(), token.to_data())
    }

    /// Watches `fd` as `interest` says; otherwise like [`add`](Poller::add).
    ///
    /// # Errors
    ///
    /// As [`add`](Poller::add).
    pub fn add_with(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        check(token)?;
        let (flags, data) = (interest.to_flags(), token.to_data());
        match epoll::add(self.as_fd(), fd, flags, data) {
            // A descriptor of this number and file was closed while a duplicate lived on.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                epoll::modify(self.as_fd(), fd, flags, data)
            }
            result => result,
        }
    }

    /// Changes token and interest of a watched descriptor; a wait reports anew what it is ready
    /// for.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not watched; otherwise as [`add`](Poller::add).
    pub fn modify(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        check(token)?;
        epoll::modify(self.as_fd(), fd, interest.to_flags(), token.to_data())
    }

    /// Stops watching `fd`. Events that a wait has already brought stay where they are.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not watched; `EBADF`, `EPERM` as for [`add`](Poller::add).
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        epoll::delete(self.as_fd(), fd.as_raw_fd())
    }

    /// [`delete`](Poller::delete) by a number, which may be closed.
    pub(crate) fn delete_number(&self, fd: RawFd) -> io::Result<()> {
        epoll::delete(self.as_fd(), fd)
    }

    /// Waits until something happens, or someone [notifies](Poller::notify), or `timeout` is over
    /// (`None`: without limit; zero: looks and returns). What happened replaces what was in
    /// `events`.
    ///
    /// It never returns empty-handed before the timeout because of rounding, and returns as soon
    /// after it as the processor is there: its end is watched as a descriptor of its own, which the
    /// first timeout makes, as the kernel ends system calls some 50 us late. It does return
    /// empty-handed earlier when a signal handler has run, so that the caller can look what it left;
    /// who has a deadline computes the rest of the time and waits again.
    ///
    /// # Errors
    ///
    /// None that are known, for a poller that exists.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // What does not fit is more than 584 years: without limit.
        let timeout_ns = timeout.and_then(|timeout| u64::try_from(timeout.as_nanos()).ok());
        events.clear();
        match timeout_ns {
            Some(timeout_ns) if timeout_ns > 0 => self.wait_for(events, timeout_ns),
            _ => {
                let len = epoll::wait(self.as_fd(), events.buffer_mut(), timeout_ns)?;
                events.filled(len);
                Ok(())
            }
        }
    }

    /// [`wait`](Poller::wait) with a timeout, in stretches; `events` is empty.
    fn wait_for(&self, events: &mut Events, timeout_ns: u64) -> io::Result<()> {
        let mut now_ns = time::monotonic_ns();
        let end_ns = now_ns.saturating_add(timeout_ns);
        loop {
            let left_ns = end_ns - now_ns;
            let stretch_ns = alarm::stretch(left_ns);
            if stretch_ns == left_ns {
                self.alarm.set(self.as_fd(), now_ns, end_ns);
            }
            let len = epoll::wait(self.as_fd(), events.buffer_mut(), Some(stretch_ns))?;
            events.filled(len);
            if !events.is_empty() || events.is_notified() {
                return Ok(());
            }
            let stretch_end_ns = now_ns + stretch_ns;
            now_ns = time::monotonic_ns();
            let interrupted = len == 0 && now_ns < stretch_end_ns;
            if interrupted || now_ns >= end_ns {
                return Ok(());
            }
        }
    }

    /// Ends the wait of another thread, or the next one if nobody waits:
    /// [`Events::is_notified`] is true after it. Several before a wait count as one.
    ///
    /// # Errors
    ///
    /// As [`waker`](Poller::waker).
    pub fn notify(&self) -> io::Result<()> {
        self.waker()?.notify()
    }

    /// A handle that notifies this poller, for other threads to keep.
    ///
    /// # Errors
    ///
    /// The first call makes a descriptor, which can fail for lack of them.
    pub fn waker(&self) -> io::Result<Waker> {
        if let Some(waker) = self.waker.get() {
            return Ok(waker.clone());
        }
        self.adopt(Waker { eventfd: Arc::new(epoll::eventfd_create()?) })
    }

    /// Has `waker` notify this poller, which has none yet, whatever it notifies otherwise, and returns
    /// it.
    ///
    /// # Errors
    ///
    /// When there is no memory to watch it.
    pub(crate) fn adopt(&self, waker: Waker) -> io::Result<Waker> {
        // Watched before it is shown to anyone, so that no notification is missed. Every write to
        // an eventfd is a change, so nobody has to read it.
        let data = Token::RESERVED.to_data();
        epoll::add(self.as_fd(), waker.eventfd.as_fd(), epoll::IN | epoll::EDGE, data)?;
        // If another thread was faster, its waker stays, and this one is closed and forgotten.
        Ok(self.waker.get_or_init(|| waker).clone())
    }
}

/// A poller can be watched by another poller: it is readable while it has events.
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

/// Notifies one poller from any thread; made by [`Poller::waker`]. Cloning is cheap.
///
/// It may outlive the poller; notifying has no effect then.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    /// As [`Poller::notify`]. It may be called in a signal handler.
    ///
    /// # Errors
    ///
    /// None that are known, but in the child of a `fork` that closed all descriptors.
    pub fn notify(&self) -> io::Result<()> {
        epoll::eventfd_write(self.eventfd.as_fd())
    }
}

/// Refuses the tokens that the poller uses itself.
fn check(token: Token) -> io::Result<()> {
    if token.slot() == Token::RESERVED.slot() {
        let reason =
            "the slot u32::MAX is that of the poller's own descriptors; no other can have it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(())
}
