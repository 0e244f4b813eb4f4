//! Timers in an order that is made as late as it can be: the next few are sorted, and all others lie
//! in bags, each of which holds what is later than the bag before.
//!
//! Layer 4, sources. The first bag is called *far*, the others are *rungs*, the last due first, and what
//! is sorted is *near*:
//!
//! ```text
//!   far               rungs[0]              rungs[1]         near
//!   in no order       in no order           in no order      in order
//!   from `far_from`   from `rungs[0].from`  from [1].from    the earliest of all
//! ```
//!
//! - What is far stands nowhere but in its slot, and that is on a list. To remove it is to note that in
//!   the slot. The slot stays on the list until that is looked at, and if it is used for another timer
//!   that is far before that, as it mostly is, there is nothing to be done. So it is with timeouts, most of
//!   which are cancelled long before.
//! - A rung holds entries, which are in the memory that is read when it is split. To insert is to add one,
//!   and to remove is to have the last take the place: neither depends on how many there are.
//! - When all that was near is gone, the last rung is the next: as it is if it is small; else about a
//!   quarter of it, the earliest, becomes a rung of its own, and so on; without rungs, about a quarter of
//!   what is far. Whatever fires has been looked at a few times for each factor of four, in memory that is
//!   read in order. With a million timers a look at all of them takes a few milliseconds; there is one when
//!   a quarter of them has fired or was cancelled.
//! - What is due after all that is near, and before all else, is put at the end of what is near: timers of
//!   the same length are never sorted.
//! - When one comes between others and too many are near, those behind the widest gap go to the last
//!   rung, or are far from then on. If there are many already there is a new one. Rungs that are not twice
//!   as large as the one behind them are put together then: so few rungs that inserting may look at all of
//!   them.
//!
//! No two timers have the same key.

use std::mem;

use super::near::{NEAR_MOST, Near};
use super::place::{Entry, Kind, MOST_RUNGS, Place, Slot};
use super::rung::{KEPT, Rung};

/// From so many on, a rung takes nothing more of what was near.
const FULL: usize = 8 * NEAR_MOST;

/// How many of a rung are compared to find out where the earliest quarter of it ends: between the
/// `QUARTER`th and the next of them.
const SAMPLES: usize = 16;
const QUARTER: usize = 3;

/// So many empty vectors are kept for rungs to come.
const SPARES: usize = 2;

/// The ladder. Who changes it passes the slots of all timers, as places are noted there.
#[derive(Debug)]
pub(super) struct Ladder {
    /// The slots of those that are far, in no order, and of some that are not any more.
    far: Vec<u32>,
    /// No timer that is far has a smaller key, and all others have.
    far_from: u128,
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
            far: Vec::new(),
            far_from: u128::MAX,
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

    /// Whether a timer with this key is far.
    #[inline]
    pub(super) fn is_far(&self, key: u128) -> bool {
        key >= self.far_from
    }

    /// Counts a timer that is far, and whose slot is listed already.
    #[inline]
    pub(super) fn count_far(&mut self) {
        self.len += 1;
    }

    /// Forgets a timer that is far. Its slot stays on the list until that is looked at.
    #[inline]
    pub(super) fn remove_far(&mut self) {
        self.len -= 1;
    }

    /// Whether a timer with this key is to be due after all that is near, and before all else.
    #[inline]
    pub(super) fn is_next(&self, key: u128) -> bool {
        self.is_near(key) && self.near.is_last(key)
    }

    /// Adds what [is next](Self::is_next), and says where it is.
    #[inline]
    pub(super) fn append(&mut self, entry: Entry) -> Place {
        self.len += 1;
        self.near.push(entry)
    }

    #[inline]
    fn is_near(&self, key: u128) -> bool {
        key < self.rungs.last().map_or(self.far_from, |rung| rung.from)
    }

    /// Adds a timer.
    pub(super) fn insert<P>(&mut self, entry: Entry, slots: &mut [Slot<P>]) {
        let key = entry.key();
        if self.is_near(key) && self.near.len() >= NEAR_MOST && !self.near.is_last(key) {
            self.move_later(slots);
        }
        self.len += 1;
        if self.is_far(key) {
            self.put_far(entry.slot, slots);
        } else if let Some(number) = self.rungs.iter().position(|rung| key >= rung.from) {
            self.rungs[number].push(number, entry, slots);
        } else {
            slots[entry.slot as usize].put(self.near.insert(entry));
        }
    }

    fn put_far<P>(&mut self, number: u32, slots: &mut [Slot<P>]) {
        let slot = &mut slots[number as usize];
        if !slot.place.is_listed() {
            self.far.push(number);
        }
        slot.place = Place::FAR;
    }

    /// Takes a timer out, by its slot.
    pub(super) fn remove<P>(&mut self, number: u32, slots: &mut [Slot<P>]) {
        let place = slots[number as usize].place;
        self.len -= 1;
        match place.kind() {
            Kind::Rung(rung) => self.rungs[rung].take_out(rung, place.index(), slots),
            Kind::Near => {
                let index = self.near.find(place, number).expect("it is near");
                self.near.remove(index, slots);
                self.refill_if_empty(slots);
            }
            Kind::Far | Kind::Aside | Kind::Vacant => {}
        }
    }

    /// Takes the earliest entry out.
    #[inline]
    pub(super) fn remove_first<P>(&mut self, slots: &mut [Slot<P>]) {
        self.len -= 1;
        self.near.remove_first(slots);
        self.refill_if_empty(slots);
    }

    #[inline]
    fn refill_if_empty<P>(&mut self, slots: &mut [Slot<P>]) {
        if self.near.len() == 0 {
            self.refill(slots);
        }
    }

    /// Makes the earliest of the last rung near, as none is.
    #[cold]
    #[inline(never)]
    fn refill<P>(&mut self, slots: &mut [Slot<P>]) {
        while self.near.len() == 0 && (!self.rungs.is_empty() || self.split_far(slots)) {
            let Some(mut last) = self.rungs.pop() else { return };
            if last.entries.len() > NEAR_MOST && self.rungs.len() + 1 < MOST_RUNGS {
                self.split(last, slots);
            } else {
                self.near.refill(&mut last.entries, slots);
                self.keep_spare(last.entries);
            }
        }
    }

    /// Puts a rung back that was the last, and about a quarter of it behind it: the earliest.
    fn split<P>(&mut self, mut rung: Rung, slots: &mut [Slot<P>]) {
        let len = rung.entries.len();
        self.count_steps(len);
        let later = self.sample(|random| rung.entries[random % len].key()) + 1;
        let number = self.rungs.len();
        let mut quarter = Rung { from: mem::replace(&mut rung.from, later), entries: self.spare() };
        let mut index = 0;
        while let Some(entry) = rung.entries.get(index).copied() {
            if entry.key() >= later {
                index += 1;
                continue;
            }
            quarter.push(number + 1, entry, slots);
            rung.take_out(number, index, slots);
        }
        self.rungs.extend([rung, quarter]);
    }

    /// Makes about a quarter of what is far a rung, the only one: the earliest, or all if they are few.
    /// False if there is nothing.
    fn split_far<P>(&mut self, slots: &mut [Slot<P>]) -> bool {
        self.tidy_far(slots);
        let len = self.far.len();
        if len == 0 {
            self.far_from = u128::MAX;
            return false;
        }
        let far = mem::take(&mut self.far);
        let later = if len <= NEAR_MOST {
            u128::MAX
        } else {
            self.sample(|random| slots[far[random % len] as usize].key()) + 1
        };
        let mut rung =
            Rung { from: mem::replace(&mut self.far_from, later), entries: self.spare() };
        self.far = far;
        self.far.retain(|&number| {
            let slot = &mut slots[number as usize];
            if slot.key() >= later {
                return true;
            }
            slot.place = slot.place.unlisted();
            let entry = Entry { deadline: slot.deadline, sequence: slot.sequence, slot: number };
            rung.push(0, entry, slots);
            false
        });
        self.rungs.push(rung);
        true
    }

    /// Takes those off the list that are far no more, and gives memory back.
    pub(super) fn tidy_far<P>(&mut self, slots: &mut [Slot<P>]) {
        self.count_steps(self.far.len());
        self.far.retain(|&number| {
            let slot = &mut slots[number as usize];
            let is_far = slot.place == Place::FAR;
            if !is_far {
                slot.place = slot.place.unlisted();
            }
            is_far
        });
        if self.far.capacity() > KEPT.max(4 * self.far.len()) {
            self.far.shrink_to(KEPT.max(2 * self.far.len()));
        }
    }

    /// A key before which about a quarter of all are, or which is one of the quarter's last. `key` picks
    /// one of all by a random number.
    fn sample(&mut self, key: impl Fn(usize) -> u128) -> u128 {
        let mut samples = [0; SAMPLES];
        for sample in &mut samples {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            *sample = key(self.random as usize);
        }
        samples.sort_unstable();
        samples[QUARTER]
    }

    /// Moves what is near, but the first few, to the last rung, or to a new one, or far.
    #[cold]
    #[inline(never)]
    fn move_later<P>(&mut self, slots: &mut [Slot<P>]) {
        let (first, from) = self.near.widest_gap();
        let later = self.near.split_off(first, slots);
        self.count_steps(later.len());
        let is_full = |last: &Rung| last.entries.len() >= FULL;
        if self.rungs.last().map_or(self.far.len() >= FULL, is_full) {
            self.put_together(slots);
            let entries = self.spare();
            self.rungs.push(Rung { from, entries });
        }
        match self.rungs.len().checked_sub(1) {
            Some(number) => {
                let last = &mut self.rungs[number];
                last.from = from;
                later.into_iter().for_each(|entry| last.push(number, entry, slots));
            }
            None => {
                self.far_from = from;
                later.into_iter().for_each(|entry| self.put_far(entry.slot, slots));
            }
        }
    }

    /// Makes room for a new rung, and sees to it that there are few.
    fn put_together<P>(&mut self, slots: &mut [Slot<P>]) {
        while let Some(mut last) = self.rungs.pop() {
            let next = self.rungs.last().map_or(self.far.len(), |next| next.entries.len());
            if next >= 2 * last.entries.len() && self.rungs.len() + 1 < MOST_RUNGS {
                return self.rungs.push(last);
            }
            self.count_steps(last.entries.len());
            match self.rungs.len().checked_sub(1) {
                Some(number) => {
                    let next = &mut self.rungs[number];
                    next.from = last.from;
                    last.entries.drain(..).for_each(|entry| next.push(number, entry, slots));
                }
                None => {
                    self.far_from = last.from;
                    last.entries.drain(..).for_each(|entry| self.put_far(entry.slot, slots));
                }
            }
            self.keep_spare(last.entries);
        }
    }

    /// Room for a rung's entries.
    fn spare(&mut self) -> Vec<Entry> {
        self.spares.pop().unwrap_or_default()
    }

    fn count_steps(&mut self, _steps: usize) {
        #[cfg(test)]
        {
            self.steps += _steps;
        }
    }

    fn keep_spare(&mut self, mut spare: Vec<Entry>) {
        if self.spares.len() < SPARES && spare.capacity() <= KEPT {
            spare.clear();
            self.spares.push(spare);
        }
    }

    /// The room for entries in all vectors.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let rungs = self.rungs.iter().map(|rung| &rung.entries);
        rungs.chain(&self.spares).map(Vec::capacity).sum::<usize>()
            + self.near.capacity()
            + self.far.capacity()
    }

    /// Checks what holds between any two calls.
    #[cfg(test)]
    pub(super) fn check<P>(&self, slots: &[Slot<P>]) {
        self.near.check();
        assert_eq!(self.near.len() == 0, self.len == 0);
        let slots_listed = || (0..).zip(slots).filter(|(_, slot)| slot.place.is_listed());
        assert!(self.far.iter().all(|&number| slots[number as usize].place.is_listed()));
        assert_eq!(slots_listed().count(), self.far.len());
        let is_far = |slot: &&Slot<P>| slot.place.kind() == Kind::Far;
        let far = || slots.iter().filter(is_far);
        assert!(far().all(|slot| slot.place == Place::FAR && slot.key() >= self.far_from));
        let (mut end, mut len) = (self.far_from, far().count() + self.near.iter().count());
        for (number, rung) in self.rungs.iter().enumerate() {
            assert!(rung.from < end);
            for (index, entry) in rung.entries.iter().enumerate() {
                assert!((rung.from..end).contains(&entry.key()));
                let place = slots[entry.slot as usize].place.unlisted();
                assert_eq!(place, Place::in_rung(number, index));
            }
            len += rung.entries.len();
            end = rung.from;
        }
        assert!(self.near.iter().all(|entry| entry.key() < end));
        assert_eq!(self.len, len);
    }
}
