//! The timers that are due next, in order.

use std::mem;

use super::place::{Entry, Place, Slot};

/// So many at most where something is inserted between others. In tests few, so that a few timers are
/// on many rungs.
pub(super) const NEAR_MOST: usize = if cfg!(test) { 4 } else { 128 };

/// Room for so many is never given back.
const KEPT: usize = 1024;

/// Entries in order, earliest first. What is later than all others, as is each of many timeouts of the
/// same length, is put behind them, however many there are. What is put between others moves some, so
/// this is for [`NEAR_MOST`] at most.
///
/// What is cancelled leaves a vacant place. There are no more of them than of those that are pending, or
/// than `NEAR_MOST`.
#[derive(Debug)]
pub(super) struct Near {
    /// Those before `gone` are not there any more. Of the others some are vacant, but neither the first
    /// nor the last.
    entries: Vec<Entry>,
    gone: usize,
    vacant: usize,
    /// The number that the place of the first of `entries` has. It wraps.
    base: u32,
}

impl Near {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), gone: 0, vacant: 0, base: 0 }
    }

    /// How many places there are, vacant ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.gone
    }

    /// The earliest.
    #[inline]
    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.get(self.gone)
    }

    /// All that are pending, in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries[self.gone..].iter().filter(|entry| !entry.is_vacant())
    }

    /// Where to part the first few of at least [`NEAR_MOST`] from the rest: how many they are, and a key
    /// between. It is where the gap is widest, so that what is set again and again for a time soon, with
    /// nothing else there, stays on one side.
    pub(super) fn widest_gap(&self) -> (usize, u128) {
        let key = |distance: usize| self.entries[self.gone + distance].key();
        let gaps = (NEAR_MOST / 4..NEAR_MOST).map(|at| (key(at) - key(at - 1), at));
        let (gap, at) = gaps.max().expect("there are some");
        (at, key(at) - gap / 2)
    }

    /// Whether an entry with this key would be the last.
    #[inline]
    pub(super) fn is_last(&self, key: u128) -> bool {
        self.entries.last().is_none_or(|last| last.key() < key)
    }

    /// Adds what [is the last](Self::is_last).
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) -> Place {
        if self.entries.len() == self.entries.capacity() {
            self.make_room();
        }
        let place = self.place(self.entries.len());
        self.entries.push(entry);
        place
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) {
        if self.gone >= self.entries.len() / 2 {
            self.forget_gone();
        }
    }

    /// Adds an entry anywhere. Others may be a few places away from theirs then.
    pub(super) fn insert(&mut self, entry: Entry) -> Place {
        let key = entry.key();
        if self.is_last(key) {
            return self.push(entry);
        }
        let earlier = self.entries[self.gone..].partition_point(|other| other.key() < key);
        let index = self.gone + earlier;
        if self.gone > 0 && earlier < self.entries.len() - index {
            self.entries.copy_within(self.gone..index, self.gone - 1);
            self.gone -= 1;
            self.entries[index - 1] = entry;
            return self.place(index - 1);
        }
        self.entries.insert(index, entry);
        self.place(index)
    }

    /// The index of the entry of a slot whose place was this when it came, or it was here.
    pub(super) fn find(&self, place: Place, slot: u32) -> Option<usize> {
        let index = place.index_after(self.base);
        let is_its = |entry: &Entry| entry.slot == slot;
        if index >= self.gone && self.entries.get(index).is_some_and(is_its) {
            return Some(index);
        }
        // It was moved when it was one of the few, and is none of those behind them.
        let mut few = self.entries[self.gone..].iter().take(NEAR_MOST + 1);
        Some(self.gone + few.position(is_its)?)
    }

    /// Takes out the first.
    #[inline]
    pub(super) fn remove_first<P>(&mut self, slots: &mut [Slot<P>]) {
        self.gone += 1;
        if self.vacant > 0 || self.gone % KEPT == 0 {
            self.tidy(slots);
        }
    }

    /// Takes out what [`find`](Self::find) has found.
    pub(super) fn remove<P>(&mut self, index: usize, slots: &mut [Slot<P>]) {
        if index == self.gone {
            return self.remove_first(slots);
        }
        self.entries[index].vacate();
        self.vacant += 1;
        self.tidy(slots);
    }

    /// Leaves no vacant place at either end, and few between, and gives memory back.
    #[inline(never)]
    fn tidy<P>(&mut self, slots: &mut [Slot<P>]) {
        while self.entries.get(self.gone).is_some_and(Entry::is_vacant) {
            self.gone += 1;
            self.vacant -= 1;
        }
        while self.len() > 0 && self.entries.last().is_some_and(Entry::is_vacant) {
            self.entries.pop();
            self.vacant -= 1;
        }
        if self.vacant > NEAR_MOST.max(self.len() / 2) {
            self.close_up(slots);
        }
        if self.entries.capacity() > KEPT.max(4 * self.len()) {
            self.forget_gone();
            self.entries.shrink_to(KEPT.max(2 * self.entries.len()));
        }
    }

    fn forget_gone(&mut self) {
        self.base = self.base.wrapping_add(self.gone as u32);
        self.entries.drain(..mem::take(&mut self.gone));
    }

    /// Leaves no vacant place.
    #[cold]
    #[inline(never)]
    fn close_up<P>(&mut self, slots: &mut [Slot<P>]) {
        self.forget_gone();
        self.entries.retain(|entry| !entry.is_vacant());
        self.vacant = 0;
        for (index, entry) in self.entries.iter().enumerate() {
            slots[entry.slot as usize].put(self.place(index));
        }
    }

    /// Takes out all but the first so many, places included.
    pub(super) fn split_off<P>(&mut self, first: usize, slots: &mut [Slot<P>]) -> Vec<Entry> {
        let mut later = self.entries.split_off(self.gone + first);
        let len = later.len();
        later.retain(|entry| !entry.is_vacant());
        self.vacant -= len - later.len();
        self.tidy(slots);
        later
    }

    /// Takes in a rung's entries, where none are, and leaves an empty vector.
    pub(super) fn refill<P>(&mut self, entries: &mut Vec<Entry>, slots: &mut [Slot<P>]) {
        self.entries.clear();
        self.gone = 0;
        mem::swap(&mut self.entries, entries);
        self.entries.sort_unstable_by_key(Entry::key);
        for (index, entry) in self.entries.iter().enumerate() {
            slots[entry.slot as usize].put(self.place(index));
        }
    }

    fn place(&self, index: usize) -> Place {
        Place::near(self.base, index)
    }

    /// The room that there is.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Checks what holds between any two calls; none is empty only if all timers are.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let entries = &self.entries[self.gone..];
        assert!(entries.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        let vacant = |entry: &&Entry| entry.is_vacant();
        assert_eq!(entries.iter().filter(vacant).count(), self.vacant);
        assert!(self.vacant <= NEAR_MOST.max(entries.len() / 2));
        assert!(!entries.first().iter().chain(&entries.last()).any(vacant));
    }
}
