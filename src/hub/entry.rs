//! One registered descriptor, and what is known of each direction of it.

use std::cell::Cell;
use std::os::fd::RawFd;

use super::WaitId;
use crate::poller::{Event, Interest, Token};

/// The direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Read, Self::Write];

    /// Those of an interest.
    pub(super) fn all_of(interest: Interest) -> impl Iterator<Item = Self> {
        let read = interest.is_readable().then_some(Self::Read);
        read.into_iter().chain(interest.is_writable().then_some(Self::Write))
    }

    /// What one does in this direction.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Who uses a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// What closes the descriptor when it goes.
    Owner,
    /// A wait for a descriptor of somebody else's.
    Visitor,
}

/// What is known of one direction of a descriptor.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Whether an operation may succeed without waiting.
    ready: Cell<bool>,
    /// Less than was asked for does not mean drained: the peer or the network has ended this
    /// direction, so that no more edges will come, or has sent urgent data; or it never does.
    never_drained: Cell<bool>,
    /// The first in line, the only one whom readiness wakes. It keeps its place until it is done.
    waiter: Cell<Option<WaitId>>,
    /// Whether anyone waits behind the first: the table has them.
    pub(super) has_line: Cell<bool>,
}

impl Side {
    #[inline(always)]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.get()
    }

    #[inline(always)]
    pub(super) fn first(&self) -> Option<WaitId> {
        self.waiter.get()
    }

    /// Whether it is ready, and nobody waits for it.
    #[inline(always)]
    pub(super) fn is_free(&self) -> bool {
        self.ready.get() && self.waiter.get().is_none()
    }

    /// Notes that an operation would have blocked.
    pub(super) fn would_block(&self) {
        self.ready.set(false);
    }

    /// Notes that an operation moved less than it was asked to.
    #[inline(always)]
    pub(super) fn drained(&self) {
        self.ready.set(self.never_drained.get());
    }

    /// Notes that it may be ready, or even is for good, and returns the wait that ends by that.
    #[inline(always)]
    fn report(&self, ready: bool, for_good: bool) -> Option<WaitId> {
        if for_good {
            self.never_drained.set(true);
        }
        if !ready {
            return None;
        }
        self.ready.set(true);
        // The greenlet itself takes the waiter out: until it runs, the direction is still its own.
        self.waiter.get()
    }

    /// Has this wait be the first in line, or nobody.
    #[inline(always)]
    pub(super) fn set_first(&self, id: Option<WaitId>) {
        self.waiter.set(id);
    }
}

/// One registration. When it is over, nobody waits for it and it is never ready.
#[derive(Debug)]
pub(super) struct Entry {
    sides: [Side; 2],
    pub(super) fd: RawFd,
    pub(super) token: Token,
    owners: Cell<u32>,
    visitors: Cell<u32>,
    is_over: Cell<bool>,
}

impl Entry {
    /// A new registration.
    pub(super) fn new(fd: RawFd, token: Token, user: User) -> Self {
        let entry = Self {
            sides: Default::default(),
            fd,
            token,
            owners: Cell::new(0),
            visitors: Cell::new(0),
            is_over: Cell::new(false),
        };
        entry.share(user);
        entry
    }

    #[inline(always)]
    pub(super) fn side(&self, direction: Direction) -> &Side {
        &self.sides[direction as usize]
    }

    /// Whether the descriptor was closed.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Notes that of this descriptor less than was asked for never means drained.
    pub(super) fn is_never_drained(&self) {
        self.sides.iter().for_each(|side| side.never_drained.set(true));
    }

    /// Notes what an event says, and returns the waits that it ends.
    #[inline(always)]
    pub(super) fn report(&self, event: Event) -> [Option<WaitId>; 2] {
        let over = event.is_hangup() || event.is_error();
        let stops_short = over || event.is_read_closed() || event.is_urgent();
        let [read, write] = &self.sides;
        [read.report(event.is_readable(), stops_short), write.report(event.is_writable(), over)]
    }

    /// Notes that both directions are to be tried again, as no event will come, and returns the waits
    /// that this ends.
    pub(super) fn fail(&self) -> [Option<WaitId>; 2] {
        self.sides.each_ref().map(|side| side.report(true, true))
    }

    /// Ends it, and returns who waited first in both directions; nothing if it is over.
    pub(super) fn end(&self) -> Option<[Option<WaitId>; 2]> {
        if self.is_over.replace(true) {
            return None;
        }
        Some(self.sides.each_ref().map(|side| {
            side.ready.set(false);
            side.never_drained.set(false);
            side.has_line.set(false);
            side.waiter.take()
        }))
    }

    /// Notes that there may be more to read, or more room to write.
    #[cold]
    #[inline(never)]
    pub(super) fn not_drained(&self, direction: Direction) {
        self.side(direction).ready.set(!self.is_over());
    }

    fn count_of(&self, user: User) -> &Cell<u32> {
        match user {
            User::Owner => &self.owners,
            User::Visitor => &self.visitors,
        }
    }

    /// Counts another user.
    pub(super) fn share(&self, user: User) {
        let count = self.count_of(user);
        count.set(count.get() + 1);
    }

    /// Takes a user away, and says whether nobody is left who needs the registration: without an
    /// owner that closes it, a visitor does. False if it is over already.
    pub(super) fn leave(&self, user: User) -> bool {
        let count = self.count_of(user);
        count.set(count.get() - 1);
        let is_unused = self.owners.get() == 0 && (user == User::Owner || self.visitors.get() == 0);
        is_unused && !self.is_over()
    }
}
