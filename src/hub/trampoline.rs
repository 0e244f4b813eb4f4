//! Waiting for descriptors that are not the hub's own, and news of their end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use super::entry::{Entry, User};
use super::registration::{closed, exiting, is_always_ready, timed_out};
use super::{Direction, Hub, Wait, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;
use crate::poller::{Interest, Poller};
use crate::sys;

/// Blocks the current greenlet, and no other, until a descriptor is ready, mirroring eventlet's
/// `trampoline`.
///
/// Any descriptor will do, in blocking mode too: a pipe, a socket of another crate, an eventfd, a
/// green socket. It is ready if it is so now, whether that is news or not; with both directions in
/// `interest`, if it is so in one of them. An error or a hang-up makes it ready in both. What cannot
/// be waited for, as a regular file, is always ready. Others have a turn in any case. Whether
/// `interest` says [`level`](Interest::level) makes no difference.
///
/// It is a hint: another process may have read what was there, so the descriptor is best in
/// non-blocking mode.
///
/// ```
/// use std::io::{Read, Write};
/// use stolon::{hub, poller::Interest};
///
/// let (mut reader, mut writer) = std::io::pipe()?;
/// stolon::spawn(move || writer.write_all(b"byte").unwrap());
/// hub::trampoline(&reader, Interest::READABLE, None)?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "byte");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`TimedOut`](io::ErrorKind::TimedOut) when it is not ready after `timeout` (`None`: without
/// limit; zero: after others had a turn). [`NotConnected`](io::ErrorKind::NotConnected) when it is
/// closed meanwhile, if the hub is told ([`notify_close`]) or finds out, as its number is waited for
/// again and is another file's. `EBADF` if it is not open. When another greenlet waits for the
/// descriptor in the same direction already; `debug::hub_prevent_multiple_readers` says more. And
/// when the thread has no hub, as it exits or none can be made.
///
/// # Panics
///
/// When it is called on the hub's own loop.
pub fn trampoline(fd: impl AsFd, interest: Interest, timeout: Option<Duration>) -> io::Result<()> {
    let hub = super::try_current()?;
    match Visit::begin(&hub, fd.as_fd(), interest) {
        Ok(visit) => visit.wait(hub.deadline_after(timeout)),
        Err(e) if is_always_ready(&e) => {
            super::yield_now();
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Tells this thread's hub that a descriptor is about to be closed, mirroring eventlet's
/// `notify_close`, which does nothing.
///
/// All greenlets of the thread that wait for it run again, readers and then writers in the order in
/// which they came, and get an error of the kind [`NotConnected`](io::ErrorKind::NotConnected). A green socket that has waited
/// before is of no use from then on: each operation gets that error, as the number may be another
/// file's. What closes by itself, as dropping a green socket does, need not be told of. Call this
/// before closing: afterwards the number may be used again already.
///
/// Hubs of other threads are not told. A number that nobody knows of is fine.
pub fn notify_close(fd: RawFd) {
    if let Some(hub) = super::existing() {
        if let Some(entry) = hub.fds.find(fd) {
            hub.end_registration(&entry);
        }
    }
}

/// Whether a second greenlet that waits for a descriptor in one direction is refused, on this
/// thread's hub.
pub(crate) fn prevent_multiple_readers(prevent: bool) {
    if let Some(hub) = super::current() {
        hub.fds.lines_up.set(!prevent);
    }
}

/// A descriptor's stay in the hub for one wait. Dropping it leaves nothing behind.
struct Visit<'a> {
    hub: &'a Rc<Hub>,
    fd: BorrowedFd<'a>,
    interest: Interest,
    entry: Rc<Entry>,
    /// Its place in line, from the moment that it waits.
    id: Option<WaitId>,
}

impl<'a> Visit<'a> {
    fn begin(hub: &'a Rc<Hub>, fd: BorrowedFd<'a>, interest: Interest) -> io::Result<Self> {
        let entry = hub.register(fd, User::Visitor)?;
        let visit = Self { hub, fd, interest, entry, id: None };
        if !hub.fds.lines_up.get() {
            for direction in Direction::all_of(interest) {
                if let Some(first) = visit.entry.side(direction).first() {
                    return Err(hub.second_waiter(direction, fd.as_raw_fd(), first));
                }
            }
        }
        Ok(visit)
    }

    fn wait(mut self, deadline: Deadline) -> io::Result<()> {
        let number = self.fd.as_raw_fd();
        let waits_for = match (self.interest.is_readable(), self.interest.is_writable()) {
            (true, true) => WaitsFor::Either(number),
            (false, _) => WaitsFor::Writable(number),
            (true, false) => WaitsFor::Readable(number),
        };
        let wait = Wait::begin(self.hub, waits_for);
        self.line_up(wait.id());
        match wait.park(deadline) {
            Wake::Closed => Err(exiting()),
            _ if self.entry.is_over() => Err(closed(number)),
            Wake::Expired if !self.is_ready()? => Err(timed_out()),
            _ => Ok(()),
        }
    }

    fn line_up(&mut self, id: WaitId) {
        self.hub.note_waiter();
        for direction in Direction::all_of(self.interest) {
            self.hub.fds.line_up(&self.entry, direction, id);
        }
        self.id = Some(id);
    }

    /// Whether the descriptor is ready in a direction in which nobody came before. The poller may
    /// not have been asked since the wait began.
    fn is_ready(&self) -> io::Result<bool> {
        let is_first = |direction| self.entry.side(direction).first() == self.id;
        let reading = self.interest.is_readable() && is_first(Direction::Read);
        let writing = self.interest.is_writable() && is_first(Direction::Write);
        Ok((reading || writing) && sys::poll::is_ready(self.fd, reading, writing)?)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut is_anyone_next = false;
        if let Some(id) = self.id {
            for direction in Direction::all_of(self.interest) {
                is_anyone_next |= self.hub.fds.step_out(&self.entry, direction, id).is_some();
            }
        }
        self.hub.deregister(&self.entry, User::Visitor);
        if is_anyone_next {
            // What this one leaves, if anything, is to be reported to the next.
            let rearm = |poller: &Poller| poller.modify(self.fd, self.entry.token, Interest::BOTH);
            let _ = self.hub.with_poller(rearm);
        }
    }
}
