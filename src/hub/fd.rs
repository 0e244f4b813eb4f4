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

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use super::{Hub, Wait, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;
use crate::poller::{Event, Token};

/// The direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

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

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    ready: bool,
    /// Less than was asked for does not mean drained: the peer or the network has ended this
    /// direction, so that no more edges will come, or has sent urgent data.
    never_drained: bool,
    waiter: Option<WaitId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u32,
    /// While the place is taken.
    fd: Option<RawFd>,
    sides: [Side; 2],
}

/// The registered descriptors of one hub.
#[derive(Debug, Default)]
pub(super) struct FdTable {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    waiting: usize,
}

impl FdTable {
    fn insert(&mut self, fd: RawFd) -> Token {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 descriptors")
        });
        let slot = &mut self.slots[index as usize];
        slot.fd = Some(fd);
        Token::new(index, slot.generation)
    }

    /// Frees a registration's place. Events that are still under way for it find another
    /// generation.
    fn remove(&mut self, token: Token) {
        let generation = token.generation().wrapping_add(1);
        self.slots[token.slot() as usize] = Slot { generation, ..Slot::default() };
        self.vacant.push(token.slot());
    }

    fn side(&mut self, token: Token, direction: Direction) -> &mut Side {
        &mut self.slots[token.slot() as usize].sides[direction as usize]
    }

    /// Notes what an event says, and returns the waits that it ends.
    pub(super) fn dispatch(&mut self, event: &Event) -> [Option<WaitId>; 2] {
        let token = event.token();
        let Some(slot) = self.slots.get_mut(token.slot() as usize) else { return [None; 2] };
        if slot.generation != token.generation() {
            return [None; 2];
        }
        let over = event.is_hangup() || event.is_error();
        let stops_short = over || event.is_read_closed() || event.is_urgent();
        let happened = [(event.is_readable(), stops_short), (event.is_writable(), over)];
        let mut woken = [None; 2];
        for ((side, (ready, never)), woken) in slot.sides.iter_mut().zip(happened).zip(&mut woken) {
            side.never_drained |= never;
            if ready || never {
                side.ready = true;
                // The greenlet itself takes the waiter out: until it runs, the direction is still
                // its own.
                *woken = side.waiter;
            }
        }
        woken
    }

    /// All that are registered, and by what token.
    pub(super) fn registered(&self) -> impl Iterator<Item = (RawFd, Token)> {
        let slots = (0..).zip(&self.slots);
        slots.filter_map(|(index, slot)| Some((slot.fd?, Token::new(index, slot.generation))))
    }

    /// Has both directions tried again, as no event will come; returns the waits that this ends.
    pub(super) fn fail(&mut self, token: Token) -> [Option<WaitId>; 2] {
        self.slots[token.slot() as usize].sides.each_mut().map(|side| {
            (side.ready, side.never_drained) = (true, true);
            side.waiter
        })
    }

    pub(super) fn anyone_waits(&self) -> bool {
        self.waiting > 0
    }
}

/// A descriptor's place in its hub.
struct Registration {
    hub: Rc<Hub>,
    token: Token,
}

impl Registration {
    fn is_ready(&self, direction: Direction) -> bool {
        self.hub.fds.borrow_mut().side(self.token, direction).ready
    }

    /// Whether the current greenlet need not wait.
    ///
    /// # Errors
    ///
    /// When another greenlet waits in this direction already, or was woken and has not had its turn
    /// yet.
    fn may_go_ahead(&self, direction: Direction, fd: RawFd) -> io::Result<bool> {
        let mut fds = self.hub.fds.borrow_mut();
        let side = fds.side(self.token, direction);
        if side.waiter.is_some() { Err(second_waiter(direction, fd)) } else { Ok(side.ready) }
    }

    fn would_block(&self, direction: Direction) {
        self.hub.fds.borrow_mut().side(self.token, direction).ready = false;
    }

    fn drained(&self, direction: Direction) {
        let mut fds = self.hub.fds.borrow_mut();
        let side = fds.side(self.token, direction);
        side.ready = side.never_drained;
    }
}

/// Holds one direction of a descriptor for the greenlet that waits for it.
struct Waiting<'a> {
    registration: &'a Registration,
    direction: Direction,
}

impl<'a> Waiting<'a> {
    fn new(registration: &'a Registration, direction: Direction, id: WaitId) -> Self {
        let mut fds = registration.hub.fds.borrow_mut();
        fds.side(registration.token, direction).waiter = Some(id);
        fds.waiting += 1;
        Self { registration, direction }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut fds = self.registration.hub.fds.borrow_mut();
        fds.waiting -= 1;
        fds.side(self.registration.token, self.direction).waiter = None;
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

    fn deregister(&mut self) {
        if let Some(registration) = self.registration.take() {
            registration.hub.fds.borrow_mut().remove(registration.token);
            // The file may be shared with another descriptor and stay open: so it is taken out by
            // name. An error means that it is out already.
            let _ = registration.hub.with_poller(|poller| poller.delete(self.io().as_fd()));
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
    /// `op`'s own; `TimedOut` when `deadline` passes; and when another greenlet waits in this
    /// direction already.
    pub(crate) fn run<R>(
        &self,
        direction: Direction,
        deadline: impl FnOnce(&Hub) -> Deadline,
        mut op: impl FnMut(&S) -> io::Result<(R, Drained)>,
    ) -> io::Result<R> {
        let mut deadline = LazyDeadline::new(deadline);
        // Now and not afterwards, when to be killed meanwhile would lose what was read.
        self.spend_io();
        loop {
            if let Some(registration) = self.registration.get() {
                if !self.nonblocking.get() && !registration.may_go_ahead(direction, self.fd())? {
                    self.wait(registration, direction, deadline.get(&registration.hub))?;
                }
            }
            match op(self.io()) {
                Ok((result, drained)) => {
                    if let (Some(registration), Drained::Yes) = (self.registration.get(), drained) {
                        registration.drained(direction);
                    }
                    return Ok(result);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.nonblocking.get() => {
                    self.registration()?.would_block(direction);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until the descriptor is ready in `direction`, however that came about.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) fn wait_ready(&self, direction: Direction, deadline: Deadline) -> io::Result<()> {
        let registration = self.registration()?;
        while !registration.may_go_ahead(direction, self.fd())? {
            self.wait(registration, direction, deadline)?;
        }
        Ok(())
    }

    fn fd(&self) -> RawFd {
        self.io().as_fd().as_raw_fd()
    }

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
        let token = hub.fds.borrow_mut().insert(self.fd());
        let added = hub.with_poller(|poller| poller.add(self.io().as_fd(), token));
        if let Err(e) = added.and_then(|added| added) {
            hub.fds.borrow_mut().remove(token);
            return Err(e);
        }
        Ok(self.registration.get_or_init(|| Registration { hub, token }))
    }

    fn wait(
        &self,
        registration: &Registration,
        direction: Direction,
        deadline: Deadline,
    ) -> io::Result<()> {
        let waits_for = match direction {
            Direction::Read => WaitsFor::Readable(self.fd()),
            Direction::Write => WaitsFor::Writable(self.fd()),
        };
        let wait = Wait::begin(&registration.hub, waits_for);
        let _waiting = Waiting::new(registration, direction, wait.id());
        match wait.park(deadline) {
            Wake::Expired if !registration.is_ready(direction) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"))
            }
            Wake::Closed => Err(io::Error::other("cannot wait: this thread is exiting")),
            _ => Ok(()),
        }
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

fn second_waiter(direction: Direction, fd: RawFd) -> io::Error {
    let verb = match direction {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    io::Error::other(format!(
        "second simultaneous {verb} on descriptor {fd}: another greenlet waits for it already; \
         give each its own descriptor, or let one greenlet do all the {verb}ing"
    ))
}
