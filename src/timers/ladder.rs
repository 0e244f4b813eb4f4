//! Timers in an order that is made as late as it can be: the next few are sorted, and all others lie
//! in bags, each of which holds what is later than the bag before.
//!
//! Layer 4, sources. The bags are *rungs*, the last due first, and what is sorted is called *near*:
//!
//! ```text
//!   rungs[0]              rungs[1]         rungs[2]    near
//!   in no order           in no order      no order    in order
//!   from `rungs[0].from`  from [1].from    from [2]    the earliest of all
//! ```
//!
//! - To insert is to add to a bag, and to remove is to have a bag's last take the place: neither
//!   depends on how many there are. So it is with timeouts, most of which are cancelled long before.
//! - When all that was near is gone, the last rung is the next: as it is if it is small; else about a
//!   quarter of it, the earliest, becomes a rung of its own, and so on. Whatever fires has been looked at
//!   a few times for each factor of four, in memory that is read in order. With a million timers a look
//!   at all of them takes a millisecond or two; there is one when a quarter of them has fired or was
//!   cancelled.
//! - What is due after all that is near, and before the last rung, is put at the end of what is near:
//!   timers of the same length are never sorted.
//! - When one comes between others and too many are near, those behind the widest gap go to the last
//!   rung. If that is large there is a new one. Rungs that are not twice as large as the one behind them
//!   are put together then: so few rungs that inserting may look at all of them.
//!
//! No two entries are equal.

use std::mem;
use std::num::NonZeroU64;

use super::near::{NEAR_MOST, Near};
use super::place::{Entry, MOST_RUNGS, Place};
use crate::clock::Deadline;

/// From so many on, a rung takes nothing more of what was near.
const FULL: usize = 8 * NEAR_MOST;

/// How many of a rung are compared to find out where the earliest quarter of it ends: between the
/// `QUARTER`th and the next of them.
const SAMPLES: usize = 16;
const QUARTER: usize = 3;

/// So many empty vectors are kept for rungs to come, of so many entries at most.
const SPARES: usize = 2;
const LARGEST_SPARE: usize = 1024;

#[derive(Debug)]
struct Rung {
    /// No entry has a smaller key, and all that are nearer have.
    from: u128,
    entries: Vec<Entry>,
}

/// The ladder. Who changes it passes `moved`, which is told the slot and the new place of every entry
/// that has come to be somewhere else, the new one included.
#[derive(Debug)]
pub(super) struct Ladder {
    rungs: Vec<Rung>,
    /// None are near only if there are none at all.
    near: Near,
    len: usize,
    spares: Vec<Vec<Entry>>,
    /// Decides which samples are taken (xorshift).
    random: u64,
    /// How many entries were looked at or moved.
    #[cfg(test)]
    pub(super) steps: usize,
}

impl Ladder {
    pub(super) const fn new() -> Self {
        Self {
            rungs: Vec::new(),
            near: Near::new(),
            len: 0,
            spares: Vec::new(),
            random: 0x9E37_79B9_7F4A_7C15,
            #[cfg(test)]
            steps: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The earliest entry.
    #[inline]
    pub(super) fn first(&self) -> Option<&Entry> {
        self.near.first()
    }

    /// All, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rungs.iter().flat_map(|rung| &rung.entries).chain(self.near.iter())
    }

    /// Adds an entry.
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: Entry, mut moved: impl FnMut(u32, Place)) {
        self.len += 1;
        let key = entry.key();
        // Most are set to be due late, and many of the others later than what was set before them.
        if self.rungs.first().is_some_and(|rung| key >= rung.from) {
            let rung = &mut self.rungs[0];
            moved(entry.slot, Place::in_rung(0, rung.entries.len()));
            rung.entries.push(entry);
        } else if self.is_near(key) && self.near.is_last(key) {
            moved(entry.slot, self.near.push(entry));
        } else {
            self.insert_between(entry.deadline, entry.sequence, entry.slot, moved);
        }
    }

    #[inline]
    fn is_near(&self, key: u128) -> bool {
        self.rungs.last().is_none_or(|rung| key < rung.from)
    }

    // By three words, so that the entry need not be in memory before it is where it belongs.
    #[inline(never)]
    fn insert_between(
        &mut self,
        deadline: Deadline,
        sequence: NonZeroU64,
        slot: u32,
        mut moved: impl FnMut(u32, Place),
    ) {
        let entry = Entry { deadline, sequence, slot };
        let key = entry.key();
        if self.is_near(key) && self.near.len() >= NEAR_MOST {
            self.move_later(&mut moved);
        }
        match self.rungs.iter_mut().enumerate().find(|(_, rung)| key >= rung.from) {
            Some((number, rung)) => {
                moved(entry.slot, Place::in_rung(number, rung.entries.len()));
                rung.entries.push(entry);
            }
            None => moved(entry.slot, self.near.insert(entry)),
        }
    }

    /// Whether the entry with this sequence number is at `place`.
    #[inline]
    pub(super) fn has(&self, place: Place, sequence: NonZeroU64) -> bool {
        if place.is_near() {
            return self.find_near(place, sequence).is_some();
        }
        let entry = self.rungs.get(place.rung()).and_then(|rung| rung.entries.get(place.index()));
        entry.is_some_and(|entry| entry.sequence == sequence)
    }

    /// Takes an entry out, if it is at `place` in a rung, and says whether it was; none if the place is
    /// in no rung.
    #[inline]
    pub(super) fn remove_from_rung(
        &mut self,
        place: Place,
        sequence: NonZeroU64,
        mut moved: impl FnMut(u32, Place),
    ) -> Option<bool> {
        let rung = self.rungs.get_mut(place.rung())?;
        let is_there = rung.entries.get(place.index()).is_some_and(|it| it.sequence == sequence);
        if is_there {
            self.len -= 1;
            take_out(&mut rung.entries, place, &mut moved);
        }
        Some(is_there)
    }

    /// Takes an entry out, if it is near, and says whether it was.
    pub(super) fn remove_near(
        &mut self,
        place: Place,
        sequence: NonZeroU64,
        mut moved: impl FnMut(u32, Place),
    ) -> bool {
        let Some(index) = self.find_near(place, sequence) else { return false };
        self.len -= 1;
        self.near.remove(index, &mut moved);
        self.refill_if_empty(moved);
        true
    }

    /// Takes the earliest entry out.
    #[inline]
    pub(super) fn remove_first(&mut self, mut moved: impl FnMut(u32, Place)) {
        self.len -= 1;
        self.near.remove_first(&mut moved);
        self.refill_if_empty(moved);
    }

    fn find_near(&self, place: Place, sequence: NonZeroU64) -> Option<usize> {
        self.near.find(place, |entry| entry.sequence == sequence && !entry.is_vacant())
    }

    #[inline]
    fn refill_if_empty(&mut self, moved: impl FnMut(u32, Place)) {
        if self.near.len() == 0 {
            self.refill(moved);
        }
    }

    /// Makes the earliest of the last rung near, as none is.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, mut moved: impl FnMut(u32, Place)) {
        while let Some(mut last) = self.rungs.pop() {
            if last.entries.len() > NEAR_MOST && self.rungs.len() + 1 < MOST_RUNGS {
                self.split(last, &mut moved);
                continue;
            }
            self.near.refill(&mut last.entries, &mut moved);
            self.keep_spare(last.entries);
            if self.near.len() > 0 {
                return;
            }
        }
    }

    /// Puts a rung back that was the last, and about a quarter of it behind it: the earliest.
    fn split(&mut self, mut rung: Rung, moved: &mut impl FnMut(u32, Place)) {
        self.count_steps(rung.entries.len());
        let last_of_quarter = self.sample(&rung.entries);
        let (number, later) = (self.rungs.len(), last_of_quarter + 1);
        let mut quarter = self.spares.pop().unwrap_or_default();
        let mut index = 0;
        while let Some(entry) = rung.entries.get(index).copied() {
            if entry.key() >= later {
                index += 1;
                continue;
            }
            moved(entry.slot, Place::in_rung(number + 1, quarter.len()));
            quarter.push(entry);
            take_out(&mut rung.entries, Place::in_rung(number, index), moved);
        }
        let from = mem::replace(&mut rung.from, later);
        self.rungs.extend([rung, Rung { from, entries: quarter }]);
    }

    /// The key of an entry before which about a quarter of all are.
    fn sample(&mut self, entries: &[Entry]) -> u128 {
        let mut samples = [0; SAMPLES];
        for sample in &mut samples {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            *sample = entries[self.random as usize % entries.len()].key();
        }
        samples.sort_unstable();
        samples[QUARTER]
    }

    /// Moves what is near, but the first few, to the last rung, or to a new one.
    #[cold]
    #[inline(never)]
    fn move_later(&mut self, mut moved: impl FnMut(u32, Place)) {
        if self.rungs.last().is_none_or(|last| last.entries.len() >= FULL) {
            self.put_together(&mut moved);
            let entries = self.spares.pop().unwrap_or_default();
            self.rungs.push(Rung { from: 0, entries });
        }
        let number = self.rungs.len() - 1;
        let last = &mut self.rungs[number];
        let (first, from) = self.near.widest_gap();
        last.from = from;
        let later = self.near.split_off(first, &mut moved);
        for entry in later {
            moved(entry.slot, Place::in_rung(number, last.entries.len()));
            last.entries.push(entry);
        }
    }

    /// Makes room for a new rung, and sees to it that there are few.
    fn put_together(&mut self, moved: &mut impl FnMut(u32, Place)) {
        while let [.., next, last] = &self.rungs[..] {
            if next.entries.len() >= 2 * last.entries.len() && self.rungs.len() < MOST_RUNGS {
                break;
            }
            let Some(Rung { from, mut entries }) = self.rungs.pop() else { break };
            let number = self.rungs.len() - 1;
            self.rungs[number].from = from;
            self.count_steps(entries.len());
            let rung = &mut self.rungs[number];
            for entry in entries.drain(..) {
                moved(entry.slot, Place::in_rung(number, rung.entries.len()));
                rung.entries.push(entry);
            }
            self.keep_spare(entries);
        }
    }

    fn count_steps(&mut self, _steps: usize) {
        #[cfg(test)]
        {
            self.steps += _steps;
        }
    }

    fn keep_spare(&mut self, mut spare: Vec<Entry>) {
        if self.spares.len() < SPARES && spare.capacity() <= LARGEST_SPARE {
            spare.clear();
            self.spares.push(spare);
        }
    }

    /// The room for entries in all vectors.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let rungs = self.rungs.iter().map(|rung| &rung.entries);
        rungs.chain(&self.spares).map(Vec::capacity).sum::<usize>() + self.near.capacity()
    }

    /// Checks what holds between any two calls.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.near.check();
        assert_eq!(self.near.len() == 0, self.len == 0);
        let mut end = u128::MAX;
        for rung in &self.rungs {
            assert!(rung.entries.iter().all(|entry| (rung.from..end).contains(&entry.key())));
            assert!(rung.from < end);
            end = rung.from;
        }
        assert!(self.near.iter().all(|entry| entry.key() < end));
        assert_eq!(self.len, self.entries().count());
    }
}

/// Takes the entry at `place` out of its rung, and has the last of it take the place.
///
/// Word by word: the last was often put there a moment ago, in words, and a processor waits when what
/// it reads is wider than what it is about to write.
#[inline]
fn take_out(entries: &mut Vec<Entry>, place: Place, moved: &mut impl FnMut(u32, Place)) {
    let Some(last) = entries.pop() else { return };
    if let Some(hole) = entries.get_mut(place.index()) {
        moved(last.slot, place);
        hole.slot = last.slot;
        hole.sequence = last.sequence;
        hole.deadline = last.deadline;
    }
    if entries.capacity() > LARGEST_SPARE.max(4 * entries.len()) {
        give_back(entries);
    }
}

#[cold]
#[inline(never)]
fn give_back(entries: &mut Vec<Entry>) {
    entries.shrink_to(LARGEST_SPARE.max(2 * entries.len()));
}
