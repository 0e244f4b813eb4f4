//! A 4-ary min-heap of timers that says where it moves them, so that any of them can be taken out.
//!
//! Layer 4, sources. An entry is not less than its parent, the children of the entry at `i` are at
//! `4 * i + 1` and the three after it, and no two entries are equal. Four children instead of two
//! halve the depth, and so the places that are far apart in memory; the entries hold all that is
//! compared, so nothing else is read on the way.

use std::num::NonZeroU64;

use crate::clock::Deadline;

const ARITY: usize = 4;

/// A timer as the heap sees it: 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// When it is due.
    pub(super) deadline: Deadline,
    /// Which insertion it was: decides between equal deadlines, and is never used twice.
    pub(super) sequence: NonZeroU64,
    /// Where its payload is.
    pub(super) slot: u32,
}

impl Entry {
    /// Deadline and sequence in one number, which compares without a branch.
    fn key(&self) -> u128 {
        u128::from(self.deadline.rank()) << 64 | u128::from(self.sequence.get())
    }

    fn is_before(&self, other: &Entry) -> bool {
        self.key() < other.key()
    }
}

/// The heap. Who changes it passes `moved`, which is told the slot and the new position of every
/// entry that has come to stand somewhere else, the new one included.
#[derive(Debug)]
pub(super) struct Heap {
    entries: Vec<Entry>,
}

impl Heap {
    pub(super) const fn new() -> Heap {
        Heap { entries: Vec::new() }
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, entry: Entry, moved: impl FnMut(u32, usize)) {
        let position = self.entries.len();
        self.entries.push(entry);
        self.rise(position, entry, moved);
    }

    /// Takes an entry out.
    ///
    /// # Panics
    ///
    /// If there is none at `position`.
    pub(super) fn remove(&mut self, position: usize, moved: impl FnMut(u32, usize)) {
        let last = self.entries.pop().expect("an entry is removed from a heap that has it");
        if position == self.entries.len() {
            return;
        }
        if last.is_before(&self.entries[position]) {
            self.rise(position, last, moved);
        } else {
            self.sink(position, last, moved);
        }
    }

    /// The earliest entry.
    pub(super) fn first(&self) -> Option<Entry> {
        self.entries.first().copied()
    }

    /// All, in the heap's own order.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn get(&self, position: usize) -> Option<&Entry> {
        self.entries.get(position)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Gives memory back, down to the room for `capacity` entries.
    pub(super) fn shrink_to(&mut self, capacity: usize) {
        self.entries.shrink_to(capacity);
    }

    /// Puts `entry` at `position` or above it, and what was on its way one step down.
    // The compiler would not do it, and a tenth to a sixth of the time of a push or removal is in
    // it.
    #[inline(always)]
    fn rise(&mut self, mut position: usize, entry: Entry, mut moved: impl FnMut(u32, usize)) {
        while position > 0 {
            let parent_position = (position - 1) / ARITY;
            let parent = self.entries[parent_position];
            if parent.is_before(&entry) {
                break;
            }
            self.entries[position] = parent;
            moved(parent.slot, position);
            position = parent_position;
        }
        self.entries[position] = entry;
        moved(entry.slot, position);
    }

    /// Puts `entry` at `position` or below it, and what was on its way one step up.
    #[inline(always)]
    fn sink(&mut self, mut position: usize, entry: Entry, mut moved: impl FnMut(u32, usize)) {
        while let Some(child_position) = self.first_child(position) {
            let child = self.entries[child_position];
            if entry.is_before(&child) {
                break;
            }
            self.entries[position] = child;
            moved(child.slot, position);
            position = child_position;
        }
        self.entries[position] = entry;
        moved(entry.slot, position);
    }

    /// The position of the earliest child.
    fn first_child(&self, position: usize) -> Option<usize> {
        let start = position * ARITY + 1;
        if let Some(children) = self.entries.get(start..start + ARITY) {
            // Two pairs, then the winners: the pairs do not wait for each other.
            let earlier = |a: usize, b: usize| {
                if children[b].is_before(&children[a]) { b } else { a }
            };
            Some(start + earlier(earlier(0, 1), earlier(2, 3)))
        } else {
            (start..self.entries.len()).min_by_key(|child| self.entries[*child].key())
        }
    }
}
