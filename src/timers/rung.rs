//! One of the bags that are split when they come near.

use super::place::{Entry, Place, Slot};

/// Room for so many entries is never given back.
pub(super) const KEPT: usize = 1024;

#[derive(Debug)]
pub(super) struct Rung {
    /// No entry has a smaller key, and all that are nearer have.
    pub(super) from: u128,
    /// In no order.
    pub(super) entries: Vec<Entry>,
}

impl Rung {
    /// Adds an entry; `number` is that of the rung.
    #[inline]
    pub(super) fn push<P>(&mut self, number: usize, entry: Entry, slots: &mut [Slot<P>]) {
        slots[entry.slot as usize].put(Place::in_rung(number, self.entries.len()));
        self.entries.push(entry);
    }

    /// Takes the entry at `index` out, and has the last take its place.
    #[inline]
    pub(super) fn take_out<P>(&mut self, number: usize, index: usize, slots: &mut [Slot<P>]) {
        self.entries.swap_remove(index);
        if let Some(moved) = self.entries.get(index) {
            slots[moved.slot as usize].put(Place::in_rung(number, index));
        }
        if self.entries.capacity() > KEPT.max(4 * self.entries.len()) {
            give_back(&mut self.entries);
        }
    }
}

#[cold]
#[inline(never)]
fn give_back(entries: &mut Vec<Entry>) {
    entries.shrink_to(KEPT.max(2 * entries.len()));
}
