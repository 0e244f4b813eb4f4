//! Timers in the order in which they fall due, each of which can be cancelled at any time.
//!
//! Layer 4, sources; it knows `clock`'s words, and neither a clock nor what a timer is for: the
//! payload says that, and whoever takes it out acts on it.
//!
//! - Order: by deadline, and by insertion among equal deadlines.
//! - Cancelling really removes, so memory follows the number of pending timers and not the number of
//!   those ever made.
//! - An identity is good for one timer only, for ever: that of a timer which has fired or was
//!   cancelled means nothing any more, whatever its place is used for since.
//! - What is inserted during a pass does not belong to it, however early its deadline: a timer that
//!   inserts another cannot keep a pass from ending.
//!
//! ```
//! # use stolon::clock::{Deadline, Time};
//! # use stolon::timers::Timers;
//! let at = |ns| Deadline::at(Time::from_ns(ns));
//! let mut timers = Timers::new();
//! timers.insert(at(20), "late");
//! let cancelled = timers.insert(at(10), "cancelled");
//! timers.insert(at(10), "early");
//! assert_eq!(timers.cancel(cancelled), Some("cancelled"));
//!
//! timers.begin_pass();
//! assert_eq!(timers.pop_due(Time::from_ns(15)), Some("early"));
//! assert_eq!(timers.pop_due(Time::from_ns(15)), None);
//! timers.end_pass();
//! assert_eq!(timers.next_deadline(), at(20));
//! ```
//!
//! # Cost
//!
//! Most timers are timeouts that are cancelled long before. So inserting and cancelling one that is due
//! late takes the same few instructions however many there are, and what is sorted is only what is due
//! next. The order of all others is found out bit by bit, as time comes to them: all in all that is some
//! steps for each factor of four in their number, but not evenly spread. Of a million timers that all are
//! due late, one in so many calls looks at all of them, for a millisecond or two.
//!
//! # Memory
//!
//! A pending timer costs 24 bytes where it stands, and 4 in its slot beside the payload, padded: with a
//! payload of 16 bytes that has a value to spare for "none" (a box of a closure, say), 24 + 24 = 48
//! bytes, and with one that has not, 24 + 32 = 56. Growing doubles, as vectors do.
//!
//! Memory is given back when few timers are left of many: where they stand when they have become a
//! quarter, and that of the slots behind the last one used. That is tried when the timers have become
//! an eighth of the slots, and an eighth of what was left by the last try, and so on, or none; and
//! as long as they are so few, once in as many removals as there are slots. A try walks over all
//! slots, which comes to a few of them for each timer inserted. Room for 1,024 timers is kept, and that
//! where they stand is kept up to three times.

use std::fmt;
use std::mem;
use std::num::NonZeroU64;

use crate::clock::{Deadline, Time};

mod ladder;
mod near;
mod place;

use ladder::Ladder;
use place::{Entry, Place};

/// In place of a vacant slot: there is none.
const NO_SLOT: u32 = u32::MAX;

/// Room for this many timers is never given back.
const KEPT: usize = 1024;

/// Timers are few if there are this many times as many slots.
const FEW: usize = 8;

/// Names one timer. It means nothing to another set of timers than the one that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    /// Which insertion it was; no other timer ever has the number.
    sequence: NonZeroU64,
    slot: u32,
}

/// A set of pending timers.
pub struct Timers<P> {
    ladder: Ladder,
    /// Inserted during the pass that is under way, or was left by a panic: not in the ladder yet.
    side_list: Vec<Entry>,
    slots: Vec<Slot<P>>,
    /// The first vacant slot, or [`NO_SLOT`].
    vacant: u32,
    /// The number of the next insertion.
    next_sequence: NonZeroU64,
    /// Whether a pass is under way.
    in_pass: bool,
    /// With fewer in the ladder than this, it is looked at whether memory can be given back.
    look_below: usize,
    /// With no more timers than this, it is.
    few: usize,
    /// How many removals there have been since that was last tried.
    removals: usize,
}

struct Slot<P> {
    /// Of a pending timer, where it is in the ladder, or its index in the side list; of a vacant
    /// slot, the number of the next vacant one, or [`NO_SLOT`].
    place: Place,
    /// `None` if the slot is vacant.
    payload: Option<P>,
}

impl<P> Timers<P> {
    /// What a pending timer takes, where vectors have no room to spare.
    pub(crate) const BYTES_EACH: usize = size_of::<Entry>() + size_of::<Slot<P>>();

    /// No timers, and no memory for them yet.
    pub const fn new() -> Timers<P> {
        Timers {
            ladder: Ladder::new(),
            side_list: Vec::new(),
            slots: Vec::new(),
            vacant: NO_SLOT,
            next_sequence: NonZeroU64::MIN,
            in_pass: false,
            look_below: 0,
            few: 0,
            removals: 0,
        }
    }

    /// Adds a timer. With [`Deadline::NEVER`] it waits to be cancelled.
    ///
    /// # Panics
    ///
    /// If more than 134,217,728 timers are pending.
    #[inline(always)]
    pub fn insert(&mut self, deadline: Deadline, payload: P) -> TimerId {
        let sequence = self.next_sequence;
        // At one a nanosecond the numbers last for 584 years.
        self.next_sequence = sequence.saturating_add(1);
        let slot = self.occupy(payload);
        let entry = Entry { deadline, sequence, slot };
        if self.in_pass {
            self.insert_aside(deadline, sequence, slot);
        } else {
            self.ladder.insert(entry, note_place(&mut self.slots));
        }
        TimerId { sequence, slot }
    }

    #[inline(never)]
    fn insert_aside(&mut self, deadline: Deadline, sequence: NonZeroU64, slot: u32) {
        self.slots[slot as usize].place = Place::elsewhere(self.side_list.len());
        self.side_list.push(Entry { deadline, sequence, slot });
    }

    /// Removes a timer and returns its payload; `None` if it has fired or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, id: TimerId) -> Option<P> {
        let place = self.slots.get(id.slot as usize)?.place;
        let noted = note_place(&mut self.slots);
        let is_out = match self.ladder.remove_from_rung(place, id.sequence, noted) {
            Some(is_out) => is_out,
            None => self.remove_otherwise(place, id.sequence),
        };
        if is_out { self.vacate(id.slot) } else { None }
    }

    /// Takes out what is in no rung, if it is anywhere: the slot may be vacant, or a younger timer's.
    #[inline(never)]
    fn remove_otherwise(&mut self, place: Place, sequence: NonZeroU64) -> bool {
        let Some(index) = place.index_elsewhere() else {
            return self.ladder.remove_near(place, sequence, note_place(&mut self.slots));
        };
        let is_there = self.side_list.get(index).is_some_and(|entry| entry.sequence == sequence);
        if is_there {
            self.side_list.swap_remove(index);
            if let Some(moved) = self.side_list.get(index) {
                self.slots[moved.slot as usize].place = Place::elsewhere(index);
            }
        }
        is_there
    }

    /// Begins a pass: what is inserted from now until [`end_pass`](Timers::end_pass) does not fire
    /// before. A pass that was not ended, because of a panic, ends here.
    pub fn begin_pass(&mut self) {
        self.end_pass();
        self.in_pass = true;
    }

    /// Removes the first timer that is due `now` and returns its payload; `None` if no more are.
    ///
    /// Every timer that was pending when the pass began and is due comes exactly once, unless it is
    /// cancelled first. Outside a pass it works too, but what is inserted meanwhile takes part.
    #[inline]
    pub fn pop_due(&mut self, now: Time) -> Option<P> {
        let first = self.ladder.first()?;
        if !first.deadline.is_past(now) {
            return None;
        }
        let slot = first.slot;
        self.ladder.remove_first(note_place(&mut self.slots));
        self.vacate(slot)
    }

    /// Ends a pass: what was inserted since its beginning may fire from now on. Outside a pass it
    /// does nothing.
    pub fn end_pass(&mut self) {
        self.in_pass = false;
        if self.side_list.is_empty() {
            return;
        }
        // In the order in which they were inserted.
        let mut side_list = mem::take(&mut self.side_list);
        for entry in side_list.drain(..) {
            self.ladder.insert(entry, note_place(&mut self.slots));
        }
        side_list.shrink_to(KEPT);
        self.side_list = side_list;
    }

    /// The earliest deadline, of all timers; [`Deadline::NEVER`] if there are none.
    #[inline]
    pub fn next_deadline(&self) -> Deadline {
        let in_ladder = self.ladder.first().map_or(Deadline::NEVER, |entry| entry.deadline);
        self.side_list.iter().map(|entry| entry.deadline).fold(in_ladder, Deadline::min)
    }

    /// All pending timers, in no order.
    pub fn pending(&self) -> impl Iterator<Item = (Deadline, &P)> {
        let entries = self.ladder.entries().chain(&self.side_list);
        entries.filter_map(|entry| {
            let payload = self.slots[entry.slot as usize].payload.as_ref()?;
            Some((entry.deadline, payload))
        })
    }

    /// Whether the timer has neither fired nor been cancelled.
    pub fn is_pending(&self, id: TimerId) -> bool {
        // A slot that is vacant or another timer's leads to another entry, if to any, and no two
        // entries have the same sequence number.
        let Some(Slot { place, .. }) = self.slots.get(id.slot as usize) else { return false };
        match place.index_elsewhere() {
            None => self.ladder.has(*place, id.sequence),
            Some(index) => {
                self.side_list.get(index).is_some_and(|entry| entry.sequence == id.sequence)
            }
        }
    }

    /// How many timers are pending.
    #[inline]
    pub fn len(&self) -> usize {
        self.ladder.len() + self.side_list.len()
    }

    /// Whether no timers are pending.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds a slot for a payload. Its place is still to be noted.
    #[inline]
    fn occupy(&mut self, payload: P) -> u32 {
        let number = self.vacant;
        let Some(slot) = self.slots.get_mut(number as usize) else { return self.add_slot(payload) };
        self.vacant = slot.place.0;
        // There was none.
        mem::forget(slot.payload.replace(payload));
        number
    }

    #[inline(never)]
    fn add_slot(&mut self, payload: P) -> u32 {
        let slot = self.slots.len() as u32;
        assert!(slot < Place::INDICES, "more than 134,217,728 timers are pending");
        self.slots.push(Slot { place: Place(NO_SLOT), payload: Some(payload) });
        self.few = self.slots.len() / FEW;
        self.look_below = self.look_below_for_slots();
        slot
    }

    /// Takes the payload of a timer that is out of the ladder and the side list.
    #[inline]
    fn vacate(&mut self, slot: u32) -> Option<P> {
        let vacated = &mut self.slots[slot as usize];
        let payload = vacated.payload.take();
        vacated.place = Place(mem::replace(&mut self.vacant, slot));
        self.removals += 1;
        if self.ladder.len() < self.look_below {
            self.give_back();
        }
        payload
    }

    fn look_below_for_slots(&self) -> usize {
        if self.slots.len() > KEPT { self.slots.len() / FEW + 1 } else { 0 }
    }

    /// Gives memory back, as the module's documentation says.
    #[cold]
    fn give_back(&mut self) {
        if self.len() > self.few && self.removals < self.slots.len() {
            return;
        }
        let used = self.slots.iter().rposition(|slot| slot.payload.is_some());
        self.slots.truncate(used.map_or(0, |last| last + 1));
        // The vacant ones are linked anew, the lowest first, so that the high ones stay vacant.
        self.vacant = NO_SLOT;
        for (index, slot) in self.slots.iter_mut().enumerate().rev() {
            if slot.payload.is_none() {
                slot.place = Place(mem::replace(&mut self.vacant, index as u32));
            }
        }
        self.slots.shrink_to(KEPT.max(2 * self.slots.len()));
        self.look_below = self.look_below_for_slots();
        // An eighth, rounded so that the last timer has a try of its own.
        self.few = (self.len() + FEW - 2) / FEW;
        self.removals = 0;
    }
}

impl<P> Default for Timers<P> {
    fn default() -> Timers<P> {
        Timers::new()
    }
}

impl<P> fmt::Debug for Timers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

/// Writes the new places of entries that the ladder moves into their slots.
#[inline]
fn note_place<P>(slots: &mut [Slot<P>]) -> impl FnMut(u32, Place) {
    |slot, place| slots[slot as usize].place = place
}

#[cfg(test)]
mod tests;
