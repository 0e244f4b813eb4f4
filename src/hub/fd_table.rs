//! The registered descriptors of one hub: who waits for which, and what is known of each.
//!
//! A descriptor is known by its number and has an [`Entry`], which its owner and its visitors share with
//! the table. The poller knows it by its token, slot and generation: when the registration is over,
//! because the descriptor was closed or its number is another file's now, the slot has the next
//! generation, so that events which are still under way find nothing; and who has the entry finds it
//! over.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::rc::Rc;

use super::WaitId;
use super::entry::{Direction, Entry, User};
use crate::poller::{Event, Token};

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<Rc<Entry>>>,
    /// The next tokens of those that are none.
    vacant: Vec<Token>,
    by_fd: BTreeMap<RawFd, u32>,
}

/// The registered descriptors of one hub.
#[derive(Debug, Default)]
pub(super) struct FdTable {
    slots: RefCell<Slots>,
    /// Who waits behind the first, by slot and direction; there are only lines of one or more.
    lines: RefCell<BTreeMap<(u32, Direction), VecDeque<WaitId>>>,
    /// How many waits there are in all directions.
    waiting: Cell<usize>,
    /// Whether several greenlets may wait in one direction of a descriptor, in a line.
    pub(super) lines_up: Cell<bool>,
}

impl FdTable {
    /// What is registered for a number.
    pub(super) fn find(&self, fd: RawFd) -> Option<Rc<Entry>> {
        let slots = self.slots.borrow();
        let slot = *slots.by_fd.get(&fd)?;
        slots.entries[slot as usize].clone()
    }

    /// Registers a number that is not registered.
    pub(super) fn insert(&self, fd: RawFd, user: User) -> Rc<Entry> {
        let mut slots = self.slots.borrow_mut();
        let token = slots.vacant.pop().unwrap_or_else(|| {
            slots.entries.push(None);
            let slot = u32::try_from(slots.entries.len() - 1);
            Token::new(slot.expect("fewer than 2^32 descriptors"), 0)
        });
        let entry = Rc::new(Entry::new(fd, token, user));
        slots.by_fd.insert(fd, token.slot());
        slots.entries[token.slot() as usize] = Some(Rc::clone(&entry));
        entry
    }

    /// Ends a registration, and returns who waited; nothing if it is over. Events that are still under
    /// way for it find another token.
    pub(super) fn remove(&self, entry: &Entry) -> Option<Vec<WaitId>> {
        let first = entry.end()?;
        let Entry { fd, token, .. } = *entry;
        let mut left = Vec::new();
        for (direction, first) in Direction::BOTH.into_iter().zip(first) {
            left.extend(first);
            let line = self.lines.borrow_mut().remove(&(token.slot(), direction));
            left.extend(line.into_iter().flatten());
        }
        self.waiting.set(self.waiting.get() - left.len());
        let mut slots = self.slots.borrow_mut();
        slots.by_fd.remove(&fd);
        slots.vacant.push(Token::new(token.slot(), token.generation().wrapping_add(1)));
        slots.entries[token.slot() as usize] = None;
        Some(left)
    }

    /// Puts a wait at the end of a direction's line, if the registration is not over.
    #[inline(always)]
    pub(super) fn line_up(&self, entry: &Entry, direction: Direction, id: WaitId) {
        if entry.is_over() {
            return;
        }
        let side = entry.side(direction);
        if side.first().is_none() {
            side.set_first(Some(id));
        } else {
            self.line_up_behind(entry, direction, id);
        }
        self.waiting.set(self.waiting.get() + 1);
    }

    #[cold]
    #[inline(never)]
    fn line_up_behind(&self, entry: &Entry, direction: Direction, id: WaitId) {
        let mut lines = self.lines.borrow_mut();
        lines.entry((entry.token.slot(), direction)).or_default().push_back(id);
        entry.side(direction).has_line.set(true);
    }

    /// Has another wait of the same greenlet stand where `old` stands.
    pub(super) fn take_over(&self, entry: &Entry, direction: Direction, old: WaitId, new: WaitId) {
        let side = entry.side(direction);
        if side.first() == Some(old) {
            side.set_first(Some(new));
        } else if let Some(line) = self.lines.borrow_mut().get_mut(&(entry.token.slot(), direction))
        {
            line.iter_mut().filter(|id| **id == old).for_each(|id| *id = new);
        }
    }

    /// Takes the wait `id` out of a direction's line if it is alone there, and notes that the direction
    /// is drained by what its greenlet does now; false if it is not alone, or the registration is over.
    #[inline(always)]
    pub(super) fn step_out_alone(&self, entry: &Entry, direction: Direction, id: WaitId) -> bool {
        let side = entry.side(direction);
        // Where there is no line, who waits is first.
        if side.first().is_none() || side.has_line.get() {
            return false;
        }
        debug_assert_eq!(side.first(), Some(id));
        side.set_first(None);
        side.drained();
        self.waiting.set(self.waiting.get() - 1);
        true
    }

    /// Takes a wait out of a direction's line. If it was the first and there is a next one, that is
    /// returned: it is the first now.
    #[inline]
    pub(super) fn step_out(
        &self,
        entry: &Entry,
        direction: Direction,
        id: WaitId,
    ) -> Option<WaitId> {
        if entry.is_over() {
            return None;
        }
        let side = entry.side(direction);
        let was_first = side.first() == Some(id);
        if was_first {
            side.set_first(None);
        }
        // Nobody steps out twice: the registration is the same, and who holds the place goes once.
        self.waiting.set(self.waiting.get() - 1);
        if !side.has_line.get() {
            return None;
        }
        self.close_up(entry, direction, id, was_first)
    }

    /// Lets the line behind one that stepped out close up.
    #[cold]
    #[inline(never)]
    fn close_up(
        &self,
        entry: &Entry,
        direction: Direction,
        id: WaitId,
        was_first: bool,
    ) -> Option<WaitId> {
        let key = (entry.token.slot(), direction);
        let mut lines = self.lines.borrow_mut();
        let line = lines.get_mut(&key)?;
        let promoted = if was_first {
            line.pop_front()
        } else {
            line.retain(|other| *other != id);
            None
        };
        let side = entry.side(direction);
        if line.is_empty() {
            lines.remove(&key);
            side.has_line.set(false);
        }
        if promoted.is_some() {
            side.set_first(promoted);
        }
        promoted
    }

    /// Notes what events say, and calls `wake` with the waits that they end.
    #[inline(always)]
    pub(super) fn dispatch(
        &self,
        events: impl Iterator<Item = Event>,
        mut wake: impl FnMut(WaitId),
    ) {
        let slots = self.slots.borrow();
        for event in events {
            let token = event.token();
            let entry = slots.entries.get(token.slot() as usize).and_then(Option::as_ref);
            let Some(entry) = entry.filter(|entry| entry.token == token) else { continue };
            let [reader, writer] = entry.report(event);
            if let Some(reader) = reader {
                wake(reader);
            }
            if let Some(writer) = writer {
                wake(writer);
            }
        }
    }

    /// All that are registered.
    pub(super) fn registered(&self) -> Vec<Rc<Entry>> {
        let slots = self.slots.borrow();
        slots.by_fd.values().filter_map(|slot| slots.entries[*slot as usize].clone()).collect()
    }

    /// Has both directions tried again, as no event will come; returns the waits that this ends.
    pub(super) fn fail(&self, entry: &Entry) -> Vec<WaitId> {
        let mut woken = Vec::new();
        for (direction, first) in Direction::BOTH.into_iter().zip(entry.fail()) {
            woken.extend(first);
            let lines = self.lines.borrow();
            woken.extend(lines.get(&(entry.token.slot(), direction)).into_iter().flatten());
        }
        woken
    }

    /// How many greenlets wait for a descriptor.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    #[inline(always)]
    pub(super) fn anyone_waits(&self) -> bool {
        self.waiting.get() > 0
    }
}
