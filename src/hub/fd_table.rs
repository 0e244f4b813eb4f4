//! The registered descriptors of one hub: who waits for which, and what is known of each.
//!
//! A descriptor is known by its number and has a slot. Its token, slot and generation, stands for
//! one registration: when that is over, because the descriptor was closed or its number is another
//! file's now, the slot has the next generation, and whoever holds the old token finds nothing.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
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

/// What becomes of one who wants to use a direction.
pub(super) enum Ahead {
    /// It goes ahead.
    Nothing,
    /// It has to wait, and has a place in line.
    Wait(WaitId),
    /// Another one waits already, and nobody may line up.
    Other(WaitId),
    /// The registration is over.
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Side {
    /// Whether an operation may succeed without waiting.
    pub(super) ready: bool,
    /// Less than was asked for does not mean drained: the peer or the network has ended this
    /// direction, so that no more edges will come, or has sent urgent data.
    pub(super) never_drained: bool,
    /// The first in line, the only one whom readiness wakes. It keeps its place until it is done.
    waiter: Option<WaitId>,
}

impl Side {
    #[inline]
    pub(super) fn first(&self) -> Option<WaitId> {
        self.waiter
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    fd: RawFd,
    owners: u32,
    visitors: u32,
    sides: [Side; 2],
}

impl Slot {
    fn count_of(&mut self, user: User) -> &mut u32 {
        match user {
            User::Owner => &mut self.owners,
            User::Visitor => &mut self.visitors,
        }
    }
}

/// The registered descriptors of one hub.
#[derive(Debug, Default)]
pub(super) struct FdTable {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_fd: BTreeMap<RawFd, u32>,
    /// Who waits behind the first, by slot and direction; there are only lines of one or more.
    lines: BTreeMap<(u32, Direction), VecDeque<WaitId>>,
    /// How many waits there are in all directions.
    waiting: usize,
    /// Whether several greenlets may wait in one direction of a descriptor, in a line.
    pub(super) lines_up: bool,
}

impl FdTable {
    /// The token of a registered number.
    pub(super) fn token_of(&self, fd: RawFd) -> Option<Token> {
        let index = *self.by_fd.get(&fd)?;
        Some(Token::new(index, self.slots[index as usize].generation))
    }

    /// Registers a number that is not registered.
    pub(super) fn insert(&mut self, fd: RawFd, user: User) -> Token {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 descriptors")
        });
        self.by_fd.insert(fd, index);
        let slot = &mut self.slots[index as usize];
        slot.fd = fd;
        *slot.count_of(user) = 1;
        Token::new(index, slot.generation)
    }

    /// Counts another user of a registration.
    pub(super) fn share(&mut self, token: Token, user: User) {
        if let Some(slot) = self.slot(token) {
            *slot.count_of(user) += 1;
        }
    }

    /// Takes a user away, and says whether nobody is left who needs the registration: without an
    /// owner that closes it, a visitor does.
    pub(super) fn leave(&mut self, token: Token, user: User) -> bool {
        let Some(slot) = self.slot(token) else { return false };
        *slot.count_of(user) -= 1;
        slot.owners == 0 && (user == User::Owner || slot.visitors == 0)
    }

    /// Ends a registration, and returns its number and who waited; nothing if it is over. Events
    /// that are still under way for it find another generation.
    pub(super) fn remove(&mut self, token: Token) -> Option<(RawFd, Vec<WaitId>)> {
        let slot = self.slot(token)?;
        let ended = mem::take(slot);
        slot.generation = token.generation().wrapping_add(1);
        let mut left = Vec::new();
        for (direction, side) in [Direction::Read, Direction::Write].into_iter().zip(ended.sides) {
            left.extend(side.first());
            if !self.lines.is_empty() {
                let line = self.lines.remove(&(token.slot(), direction));
                left.extend(line.into_iter().flatten());
            }
        }
        self.by_fd.remove(&ended.fd);
        self.vacant.push(token.slot());
        self.waiting -= left.len();
        Some((ended.fd, left))
    }

    #[inline]
    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.slot() as usize)?;
        (slot.generation == token.generation()).then_some(slot)
    }

    /// One direction of a registration; none if that is over.
    #[inline]
    pub(super) fn side(&mut self, token: Token, direction: Direction) -> Option<&mut Side> {
        Some(&mut self.slot(token)?.sides[direction as usize])
    }

    /// Puts a wait, which `begin` begins, at the end of a direction's line: unless the direction is ready
    /// and nobody waits for it.
    #[inline]
    pub(super) fn line_up_unless_ready(
        &mut self,
        token: Token,
        direction: Direction,
        begin: impl FnOnce() -> WaitId,
    ) -> Ahead {
        let lines_up = self.lines_up;
        let Some(side) = self.side(token, direction) else { return Ahead::Closed };
        match side.waiter {
            Some(first) if !lines_up => return Ahead::Other(first),
            Some(_) => {
                let id = begin();
                self.line_up_behind(token, direction, id);
                self.waiting += 1;
                return Ahead::Wait(id);
            }
            None if side.ready => return Ahead::Nothing,
            None => {}
        }
        let id = begin();
        side.waiter = Some(id);
        self.waiting += 1;
        Ahead::Wait(id)
    }

    /// Puts a wait at the end of a direction's line.
    #[inline]
    pub(super) fn line_up(&mut self, token: Token, direction: Direction, id: WaitId) {
        let Some(side) = self.side(token, direction) else { return };
        if side.waiter.is_none() {
            side.waiter = Some(id);
        } else {
            self.line_up_behind(token, direction, id);
        }
        self.waiting += 1;
    }

    #[cold]
    fn line_up_behind(&mut self, token: Token, direction: Direction, id: WaitId) {
        self.lines.entry((token.slot(), direction)).or_default().push_back(id);
    }

    /// Has another wait of the same greenlet stand where `old` stands.
    pub(super) fn take_over(
        &mut self,
        token: Token,
        direction: Direction,
        old: WaitId,
        new: WaitId,
    ) {
        let Some(side) = self.side(token, direction) else { return };
        if side.waiter == Some(old) {
            side.waiter = Some(new);
        } else if let Some(line) = self.lines.get_mut(&(token.slot(), direction)) {
            line.iter_mut().filter(|id| **id == old).for_each(|id| *id = new);
        }
    }

    /// Takes a wait out of a direction's line if it is alone there, and notes that the direction is
    /// drained by what its greenlet does now; false if it is not alone, or the registration is over.
    #[inline]
    pub(super) fn step_out_alone(
        &mut self,
        token: Token,
        direction: Direction,
        id: WaitId,
    ) -> bool {
        let no_lines = self.lines.is_empty();
        let Some(side) = self.side(token, direction) else { return false };
        let is_alone = no_lines && side.waiter == Some(id);
        if is_alone {
            side.waiter = None;
            side.ready = side.never_drained;
            self.waiting -= 1;
        }
        is_alone
    }

    /// Takes a wait out of a direction's line. If it was the first and there is a next one, that is
    /// returned: it is the first now.
    #[inline]
    pub(super) fn step_out(
        &mut self,
        token: Token,
        direction: Direction,
        id: WaitId,
    ) -> Option<WaitId> {
        let side = self.side(token, direction)?;
        let was_first = side.waiter == Some(id);
        if was_first {
            side.waiter = None;
        }
        // Nobody steps out twice: the registration is the same, and who holds the place goes once.
        self.waiting -= 1;
        if self.lines.is_empty() { None } else { self.close_up(token, direction, id, was_first) }
    }

    /// Lets the line behind one that stepped out close up.
    #[cold]
    fn close_up(
        &mut self,
        token: Token,
        direction: Direction,
        id: WaitId,
        was_first: bool,
    ) -> Option<WaitId> {
        let key = (token.slot(), direction);
        let line = self.lines.get_mut(&key)?;
        let promoted = if was_first {
            line.pop_front()
        } else {
            line.retain(|other| *other != id);
            None
        };
        if line.is_empty() {
            self.lines.remove(&key);
        }
        if promoted.is_some() {
            self.side(token, direction)?.waiter = promoted;
        }
        promoted
    }

    /// Notes what an event says, and returns the waits that it ends.
    pub(super) fn dispatch(&mut self, event: &Event) -> [Option<WaitId>; 2] {
        let Some(slot) = self.slot(event.token()) else { return [None; 2] };
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
        let token = |index: u32| Token::new(index, self.slots[index as usize].generation);
        self.by_fd.iter().map(move |(fd, index)| (*fd, token(*index)))
    }

    /// Has both directions tried again, as no event will come; returns the waits that this ends.
    pub(super) fn fail(&mut self, token: Token) -> Vec<WaitId> {
        let mut woken = Vec::new();
        for direction in [Direction::Read, Direction::Write] {
            if let Some(side) = self.side(token, direction) {
                (side.ready, side.never_drained) = (true, true);
                woken.extend(side.waiter);
            }
            woken.extend(self.lines.get(&(token.slot(), direction)).into_iter().flatten());
        }
        woken
    }

    /// How many greenlets wait for a descriptor.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn anyone_waits(&self) -> bool {
        self.waiting > 0
    }
}
