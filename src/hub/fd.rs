//! Waiting for descriptors.
//!
//! A descriptor is registered once, edge-triggered, both ways, when an operation on it first would
//! block. From then on the hub remembers for each direction whether it may be ready, and an
//! operation is only tried when it may:
//!
//! | | ready |
//! |---|---|
//! | an event says so | yes |
//! | an operation would have blocked | no |
//! | a read or write moved less than was asked for | no, with two exceptions |
//!
//! The exceptions: when the peer has closed, the next read says so; and urgent data stop a read
//! short of what follows.
//!
//! So a request that arrives whole and is answered at once costs one read and one write.
//!
//! Who has to wait takes a place in the direction's line and keeps it until its operation is done.
//! Unless `debug::hub_prevent_multiple_readers(false)` was called, there is one place, and who comes
//! second gets an error. With more, readiness wakes the first alone; when that one goes, the next is
//! first, and is woken if there may be something left.

use std::cell::{Cell, OnceCell};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use super::fd_table::{Ahead, FdTable, User};
use super::registration::{closed, exiting, is_always_ready, timed_out};
use super::{Direction, Hub, Wait, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;
use crate::poller::Token;

/// Whether an operation has left nothing more to read, or no more room to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    Yes,
    No,
}

impl Drained {
    /// A stream is drained when it moved less than it was asked to.
    pub(crate) fn after(moved: usize, asked: usize) -> Self {
        if moved < asked { Self::Yes } else { Self::No }
    }
}

/// A descriptor's place in its hub.
struct Registration {
    hub: Rc<Hub>,
    token: Token,
    fd: RawFd,
}

impl Registration {
    /// Whether the direction is ready, and nobody waits for it. If the registration is over it is not.
    #[inline(always)]
    fn is_free(&self, direction: Direction) -> bool {
        let mut fds = self.hub.fds.borrow_mut();
        let side = fds.side(self.token, direction);
        side.is_some_and(|side| side.ready && side.first().is_none())
    }

    /// Begins a wait of the current greenlet and gives it a place in line, if it has to wait.
    ///
    /// # Errors
    ///
    /// When the descriptor was closed; and when another greenlet waits in this direction already,
    /// or was woken and has not had its turn yet, unless they may line up.
    #[inline(always)]
    fn line_up(&self, direction: Direction) -> io::Result<Option<Place<'_>>> {
        let mut fds = self.hub.fds.borrow_mut();
        let nobody_waits = !fds.anyone_waits();
        match fds.line_up_unless_ready(self.token, direction, WaitId::begin_current) {
            Ahead::Nothing => Ok(None),
            Ahead::Wait(id) => {
                if nobody_waits {
                    self.hub.first_waits();
                }
                Ok(Some(Place { registration: self, direction, id }))
            }
            Ahead::Other(first) => Err(self.hub.second_waiter(direction, self.fd, first)),
            Ahead::Closed => Err(self.closed()),
        }
    }

    /// # Errors
    ///
    /// When the descriptor was closed.
    fn check_open(&self) -> io::Result<()> {
        let is_open = self.hub.fds.borrow_mut().side(self.token, Direction::Read).is_some();
        if is_open { Ok(()) } else { Err(self.closed()) }
    }

    #[cold]
    fn closed(&self) -> io::Error {
        closed(self.fd)
    }

    fn would_block(&self, direction: Direction) {
        if let Some(side) = self.hub.fds.borrow_mut().side(self.token, direction) {
            side.ready = false;
        }
    }

    fn drained(&self, direction: Direction) {
        if let Some(side) = self.hub.fds.borrow_mut().side(self.token, direction) {
            side.ready = side.never_drained;
        }
    }

    #[cold]
    fn not_drained(&self, direction: Direction) {
        if let Some(side) = self.hub.fds.borrow_mut().side(self.token, direction) {
            side.ready = true;
        }
    }
}

/// A place in one direction's line. Its greenlet keeps it until it is done with its operation, or
/// killed; what it leaves is for the next one.
struct Place<'a> {
    registration: &'a Registration,
    direction: Direction,
    id: WaitId,
}

impl Place<'_> {
    /// Begins another wait of its greenlet here, if it has to wait once more, and says whether it has.
    #[cold]
    fn keep(&mut self) -> io::Result<bool> {
        let Registration { hub, token, .. } = self.registration;
        let mut fds = hub.fds.borrow_mut();
        match fds.side(*token, self.direction) {
            None => Err(self.registration.closed()),
            Some(side) if side.ready => Ok(false),
            Some(_) => {
                let id = WaitId::begin_current();
                fds.take_over(*token, self.direction, self.id, id);
                self.id = id;
                Ok(true)
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Registration { hub, token, .. } = self.registration;
        let mut fds = hub.fds.borrow_mut();
        if let Some(next) = fds.step_out(*token, self.direction, self.id) {
            if fds.side(*token, self.direction).is_some_and(|side| side.ready) {
                hub.wake(next, Wake::Ready);
            }
        }
    }
}

/// A non-blocking descriptor whose operations block the greenlet instead of the thread.
pub(crate) struct Source<S: AsFd> {
    /// Closed after it was taken out of the hub.
    registration: OnceCell<Registration>,
    /// Whether the user asked for `WouldBlock` instead of waiting.
    nonblocking: Cell<bool>,
    /// None only when it was taken out to outlive this.
    io: Option<S>,
}

impl<S: AsFd> Source<S> {
    /// Takes a descriptor that is in non-blocking mode.
    pub(crate) fn new(io: S) -> Self {
        Self { registration: OnceCell::new(), nonblocking: Cell::new(false), io: Some(io) }
    }

    pub(crate) fn io(&self) -> &S {
        self.io.as_ref().expect("it is taken out at the end only")
    }

    /// Takes the descriptor out of the hub.
    pub(crate) fn into_io(mut self) -> S {
        self.deregister();
        self.io.take().expect("it is taken out once")
    }

    /// Whoever waits for it, by its number, finds it closed.
    fn deregister(&mut self) {
        if let Some(registration) = self.registration.take() {
            registration.hub.deregister(registration.token, User::Owner);
        }
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.set(nonblocking);
    }

    /// Runs `op` until it does not block, and waits for the descriptor meanwhile. `op` also says
    /// whether the descriptor is drained.
    ///
    /// # Errors
    ///
    /// `op`'s own; `TimedOut` when `deadline` passes; `NotConnected` when the descriptor is closed
    /// ([`notify_close`](super::notify_close)); and when another greenlet waits in this direction
    /// already.
    pub(crate) fn run<R>(
        &self,
        direction: Direction,
        deadline: impl FnOnce(&Hub) -> Deadline,
        mut op: impl FnMut(&S) -> io::Result<(R, Drained)>,
    ) -> io::Result<R> {
        let mut deadline = LazyDeadline::new(deadline);
        let mut place = None;
        // Now and not afterwards, when to be killed meanwhile would lose what was read.
        self.spend_io();
        loop {
            let mut is_noted = false;
            if let Some(registration) = self.registration.get() {
                if self.nonblocking.get() {
                    registration.check_open()?;
                } else if place.is_some() || !registration.is_free(direction) {
                    let deadline = deadline.get(&registration.hub);
                    is_noted = wait(registration, direction, deadline, &mut place)?;
                }
            }
            let done = op(self.io());
            if let Some(registration) = self.registration.get() {
                match &done {
                    Ok((_, Drained::Yes)) if is_noted => {}
                    Ok((_, Drained::Yes)) => registration.drained(direction),
                    _ if is_noted => registration.not_drained(direction),
                    _ => {}
                }
            }
            match done {
                Ok((result, _)) => return Ok(result),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.nonblocking.get() => {
                    self.registration()?.would_block(direction);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until the descriptor is ready in `direction`, however that came about. One that cannot
    /// be waited for, as a regular file, always is.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) fn wait_ready(&self, direction: Direction, deadline: Deadline) -> io::Result<()> {
        let registration = match self.registration() {
            Err(e) if is_always_ready(&e) => return Ok(()),
            registration => registration?,
        };
        let mut place = None;
        loop {
            if wait(registration, direction, deadline, &mut place)? {
                registration.not_drained(direction);
            }
            let side_is_ready = |fds: &mut FdTable| {
                fds.side(registration.token, direction).is_some_and(|side| side.ready)
            };
            if side_is_ready(&mut registration.hub.fds.borrow_mut()) {
                return Ok(());
            }
        }
    }

    #[inline(always)]
    fn spend_io(&self) {
        match self.registration.get() {
            Some(registration) => registration.hub.spend_io(),
            // Not registered yet, as it never had to wait: all the more reason to count. Without a
            // hub there is nobody to give a turn to.
            None => {
                if let Ok(hub) = super::try_current() {
                    hub.spend_io();
                }
            }
        }
    }

    fn registration(&self) -> io::Result<&Registration> {
        if let Some(registration) = self.registration.get() {
            return Ok(registration);
        }
        let hub = super::try_current()?;
        let fd = self.io().as_fd();
        let token = hub.register(fd, User::Owner)?;
        let fd = fd.as_raw_fd();
        Ok(self.registration.get_or_init(|| Registration { hub, token, fd }))
    }
}

/// Waits at a place in a direction's line, which is taken if there is none yet, until the descriptor may
/// be ready; not at all if it may be now.
///
/// Says whether it is noted already that it is drained by what the greenlet does next: so it is if that
/// one was alone, as nobody runs before it has done it. It has no place any more then.
///
/// # Errors
///
/// When the descriptor was closed, the deadline has passed or the thread exits; and when another
/// greenlet waits in this direction already, or was woken and has not had its turn yet, unless they may
/// line up.
#[inline(never)]
fn wait<'a>(
    registration: &'a Registration,
    direction: Direction,
    deadline: Deadline,
    place: &mut Option<Place<'a>>,
) -> io::Result<bool> {
    if registration.hub.closed.get() {
        // The thread's greenlets may be gone, too: there is nobody to begin a wait.
        return Err(exiting());
    }
    let id = match place {
        Some(place) => {
            if !place.keep()? {
                return Ok(false);
            }
            place.id
        }
        None => match registration.line_up(direction)? {
            Some(taken) => place.insert(taken).id,
            None => return Ok(false),
        },
    };
    let waits_for = match direction {
        Direction::Read => WaitsFor::Readable(registration.fd),
        Direction::Write => WaitsFor::Writable(registration.fd),
    };
    let wake = Wait::begun(id, waits_for).park_inline(deadline);
    let mut fds = registration.hub.fds.borrow_mut();
    if wake == Wake::Ready && fds.step_out_alone(registration.token, direction, id) {
        // With nobody behind it, there is no place to keep: it tries before anyone else runs.
        mem::forget(place.take());
        return Ok(true);
    }
    match fds.side(registration.token, direction) {
        _ if wake == Wake::Closed => Err(exiting()),
        None => Err(registration.closed()),
        // Who comes later in line is not helped by what the first was woken for.
        Some(side) if wake == Wake::Expired && !(side.ready && side.first() == Some(id)) => {
            Err(timed_out())
        }
        Some(_) => Ok(false),
    }
}

impl<S: AsFd> Drop for Source<S> {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// Reads the clock only if there is something to wait for.
struct LazyDeadline<F> {
    make: Option<F>,
    made: Deadline,
}

impl<F: FnOnce(&Hub) -> Deadline> LazyDeadline<F> {
    fn new(make: F) -> Self {
        Self { make: Some(make), made: Deadline::NEVER }
    }

    fn get(&mut self, hub: &Hub) -> Deadline {
        if let Some(make) = self.make.take() {
            self.made = make(hub);
        }
        self.made
    }
}
