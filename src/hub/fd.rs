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
//! | a read or write moved less than was asked for | no, with three exceptions |
//!
//! The exceptions: when the peer has closed, the next read says so; urgent data stop a read short of
//! what follows; and of sockets other than plain TCP ones a read may always stop short, say at the
//! end of a datagram.
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
use std::os::fd::AsFd;
use std::rc::Rc;

use super::entry::{Entry, Side, User};
use super::registration::{closed, exiting, is_always_ready, timed_out};
use super::{Direction, Hub, Wait, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;

/// Whether an operation has left nothing more to read, or no more room to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    Yes,
    No,
}

/// What it means that a read or write of a descriptor moved less than it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// That it is drained, as of TCP.
    Drained,
    /// Nothing.
    Nothing,
}

impl Drained {
    /// What is to be said of an operation on a stream. If a short one means nothing, the hub takes no
    /// notice of it.
    pub(crate) fn after(moved: usize, asked: usize) -> Self {
        if moved < asked { Self::Yes } else { Self::No }
    }
}

/// A descriptor's place in its hub.
struct Registration {
    hub: Rc<Hub>,
    entry: Rc<Entry>,
}

impl Registration {
    #[inline(always)]
    fn side(&self, direction: Direction) -> &Side {
        self.entry.side(direction)
    }

    /// Begins a wait of the current greenlet, and gives it a place in line.
    ///
    /// # Errors
    ///
    /// When the descriptor was closed; and when another greenlet waits in this direction already,
    /// or was woken and has not had its turn yet, unless they may line up.
    #[inline(always)]
    fn line_up(&self, direction: Direction) -> io::Result<(Place<'_>, Wait)> {
        let Self { hub, entry } = self;
        self.check_open()?;
        let first = self.side(direction).first();
        if let Some(first) = first.filter(|_| !hub.fds.lines_up.get()) {
            return Err(hub.second_waiter(direction, entry.fd, first));
        }
        let wait = Wait::begin(hub, waits_for(entry, direction));
        hub.note_waiter();
        hub.fds.line_up(entry, direction, wait.id());
        Ok((Place { registration: self, direction, id: wait.id() }, wait))
    }

    /// # Errors
    ///
    /// When the descriptor was closed.
    #[inline(always)]
    fn check_open(&self) -> io::Result<()> {
        if self.entry.is_over() { Err(closed(self.entry.fd)) } else { Ok(()) }
    }
}

fn waits_for(entry: &Entry, direction: Direction) -> WaitsFor {
    match direction {
        Direction::Read => WaitsFor::Readable(entry.fd),
        Direction::Write => WaitsFor::Writable(entry.fd),
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
    /// Waits here once more, if the descriptor is not ready, on a hub that is not closed.
    ///
    /// # Errors
    ///
    /// As [`wait`].
    #[cold]
    #[inline(never)]
    fn wait(mut self: Box<Self>, deadline: Deadline) -> io::Result<Option<Box<Self>>> {
        let Registration { hub, entry } = self.registration;
        self.registration.check_open()?;
        if entry.side(self.direction).is_ready() {
            return Ok(Some(self));
        }
        let wait = Wait::begin(hub, waits_for(entry, self.direction));
        hub.fds.take_over(entry, self.direction, self.id, wait.id());
        self.id = wait.id();
        let wake = wait.park(deadline);
        self.check(wake)?;
        Ok(Some(self))
    }

    /// What comes of a wait here that has ended by `wake`.
    #[cold]
    #[inline(never)]
    fn keep(self, wake: Wake) -> io::Result<Option<Box<Self>>> {
        self.check(wake)?;
        Ok(Some(Box::new(self)))
    }

    fn check(&self, wake: Wake) -> io::Result<()> {
        if wake == Wake::Closed {
            return Err(exiting());
        }
        self.registration.check_open()?;
        let side = self.registration.side(self.direction);
        // Who comes later in line is not helped by what the first was woken for.
        if wake == Wake::Expired && !(side.is_ready() && side.first() == Some(self.id)) {
            return Err(timed_out());
        }
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Registration { hub, entry } = self.registration;
        if let Some(next) = hub.fds.step_out(entry, self.direction, self.id) {
            if entry.side(self.direction).is_ready() {
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
    /// What a short read or write of it means.
    short: Short,
    /// None only when it was taken out to outlive this.
    io: Option<S>,
}

impl<S: AsFd> Source<S> {
    /// Takes a descriptor that is in non-blocking mode.
    pub(crate) fn new(io: S, short: Short) -> Self {
        Self { registration: OnceCell::new(), nonblocking: Cell::new(false), short, io: Some(io) }
    }

    /// What a short read or write of it means.
    pub(crate) fn short(&self) -> Short {
        self.short
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
            registration.hub.deregister(&registration.entry, User::Owner);
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
    #[inline(always)]
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
                } else if place.is_some() || !registration.side(direction).is_free() {
                    let deadline = deadline.get(&registration.hub);
                    place = wait(registration, direction, deadline, place)?;
                    is_noted = place.is_none();
                }
            }
            let done = op(self.io());
            if let Some(Registration { entry, .. }) = self.registration.get() {
                match &done {
                    Ok((_, Drained::Yes)) if is_noted => {}
                    Ok((_, Drained::Yes)) => entry.side(direction).drained(),
                    _ if is_noted => entry.not_drained(direction),
                    _ => {}
                }
            }
            match done {
                Ok((result, _)) => return Ok(result),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.nonblocking.get() => {
                    self.registration()?.side(direction).would_block();
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
        while place.is_some() || !registration.side(direction).is_free() {
            place = wait(registration, direction, deadline, place)?;
            if place.is_none() {
                // Nothing has been read or written.
                registration.entry.not_drained(direction);
            } else if registration.side(direction).is_ready() {
                break;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn spend_io(&self) {
        match self.registration.get() {
            Some(registration) => registration.hub.spend_io(),
            None => spend_io_unregistered(),
        }
    }

    #[inline(never)]
    fn registration(&self) -> io::Result<&Registration> {
        if let Some(registration) = self.registration.get() {
            return Ok(registration);
        }
        let hub = super::try_current()?;
        let entry = hub.register(self.io().as_fd(), User::Owner)?;
        if self.short == Short::Nothing {
            entry.is_never_drained();
        }
        Ok(self.registration.get_or_init(|| Registration { hub, entry }))
    }
}

/// A descriptor that is not registered yet never had to wait: all the more reason to count. Without a hub
/// there is nobody to give a turn to.
#[inline(never)]
fn spend_io_unregistered() {
    if let Ok(hub) = super::try_current() {
        hub.spend_io();
    }
}

/// Waits at a place in a direction's line until the descriptor may be ready. Who has no place yet takes one,
/// and waits, as the direction is not free; who has one waits only if it is not ready by now.
///
/// If there is no place afterwards, its greenlet was alone, and nobody runs before it has done its
/// operation: it is noted already that the descriptor is drained by that.
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
    place: Option<Box<Place<'a>>>,
) -> io::Result<Option<Box<Place<'a>>>> {
    let Registration { hub, entry } = registration;
    if hub.closed.get() {
        // The thread's greenlets may be gone, too: there is nobody to begin a wait.
        return Err(exiting());
    }
    if let Some(place) = place {
        return place.wait(deadline);
    }
    let (place, wait) = registration.line_up(direction)?;
    let wake = hub.park(wait, deadline);
    // With nobody behind it, there is no place to keep: it tries before anyone else runs.
    if wake == Wake::Ready && hub.fds.step_out_alone(entry, direction, place.id) {
        mem::forget(place);
        return Ok(None);
    }
    place.keep(wake)
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

    #[inline(always)]
    fn get(&mut self, hub: &Hub) -> Deadline {
        if let Some(make) = self.make.take() {
            self.made = make(hub);
        }
        self.made
    }
}
