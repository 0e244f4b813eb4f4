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
//! next, and only if it does not come in order, as timers of the same length do. The order of all others
//! is found out bit by bit, as time comes to them: all in all that is some steps for each factor of four
//! in their number, but not evenly spread. Of a million timers that all are due late, one in so many
//! calls looks at all of them, for a few milliseconds.
//!
//! # Memory
//!
//! A timer that is due late costs a slot and 4 bytes. A slot has 20 bytes beside the payload, padded: with
//! a payload of 8 bytes, as the hub's, that is 36 bytes in all, and with a box of a closure 44. Before it
//! fires it has for some time an entry of 24 bytes besides: so the hub's cost at most 60. Growing
//! doubles, as vectors do.
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
mod rung;

use ladder::Ladder;
use place::{Entry, Kind, NO_SLOT, Place, Slot};

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
    /// How many removals there have been since that was last tried, of those when timers were few.
    removals: usize,
}

impl<P> Timers<P> {
    /// What a pending timer takes at most, where vectors have no room to spare: a slot, a place on the
    /// list of those that are far, and an entry when it is far no more.
    pub(crate) const BYTES_EACH: usize =
        size_of::<Slot<P>>() + size_of::<u32>() + size_of::<Entry>();

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
    /// If more than 134,217,727 timers are pending.
    #[inline(always)]
    pub fn insert(&mut self, deadline: Deadline, payload: P) -> TimerId {
        let sequence = self.next_sequence;
        // At one a nanosecond the numbers last for 584 years.
        self.next_sequence = sequence.saturating_add(1);
        if self.vacant == NO_SLOT {
            self.add_slot();
        }
        let number = self.vacant;
        let slot = &mut self.slots[number as usize];
        self.vacant = slot.place.index() as u32;
        slot.deadline = deadline;
        slot.sequence = sequence;
        // There was none.
        mem::forget(slot.payload.replace(payload));
        // Most are set to be due late, and many of the others later than what was set before them.
        let entry = Entry { deadline, sequence, slot: number };
        if self.in_pass {
            self.place(deadline, sequence, number);
        } else if self.ladder.is_far(entry.key()) && slot.place.is_listed() {
            self.ladder.count_far();
            slot.place = Place::FAR;
        } else if self.ladder.is_next(entry.key()) {
            slot.put(self.ladder.append(entry));
        } else {
            self.place(deadline, sequence, number);
        }
        TimerId { sequence, slot: number }
    }

    // By three words, so that the entry need not be in memory before it is where it belongs.
    #[inline(never)]
    fn place(&mut self, deadline: Deadline, sequence: NonZeroU64, number: u32) {
        let entry = Entry { deadline, sequence, slot: number };
        if self.in_pass {
            self.slots[number as usize].put(Place::aside(self.side_list.len()));
            self.side_list.push(entry);
        } else {
            self.ladder.insert(entry, &mut self.slots);
        }
    }

    /// Removes a timer and returns its payload; `None` if it has fired or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, id: TimerId) -> Option<P> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.sequence != id.sequence {
            return None;
        }
        if slot.place == Place::FAR {
            self.ladder.remove_far();
        } else if slot.payload.is_some() {
            self.remove(id.slot);
        } else {
            return None;
        }
        self.vacate(id.slot)
    }

    /// Takes a timer out that is not far, if its slot is not vacant.
    #[inline(never)]
    fn remove(&mut self, number: u32) {
        let place = self.slots[number as usize].place;
        if place.kind() != Kind::Aside {
            return self.ladder.remove(number, &mut self.slots);
        }
        let index = place.index();
        self.side_list.swap_remove(index);
        if let Some(moved) = self.side_list.get(index) {
            self.slots[moved.slot as usize].put(Place::aside(index));
        }
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
        let number = first.slot;
        self.ladder.remove_first(&mut self.slots);
        self.vacate(number)
    }

    /// The payload of the first timer that is due `now`, which [`pop_due`](Self::pop_due) would remove.
    #[inline]
    pub fn first_due(&self, now: Time) -> Option<&P> {
        let first = self.ladder.first().filter(|first| first.deadline.is_past(now))?;
        self.slots[first.slot as usize].payload.as_ref()
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
            self.ladder.insert(entry, &mut self.slots);
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
        self.slots.iter().filter_map(|slot| Some((slot.deadline, slot.payload.as_ref()?)))
    }

    /// Whether the timer has neither fired nor been cancelled.
    pub fn is_pending(&self, id: TimerId) -> bool {
        self.slots.get(id.slot as usize).is_some_and(|slot| slot.holds(id.sequence))
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

    /// Adds a vacant slot, where none is.
    #[cold]
    #[inline(never)]
    fn add_slot(&mut self) {
        let number = self.slots.len() as u32;
        assert!(number < NO_SLOT, "more than 134,217,727 timers are pending");
        let (deadline, sequence) = (Deadline::NEVER, NonZeroU64::MIN);
        let place = Place::vacant(mem::replace(&mut self.vacant, number));
        self.slots.push(Slot { deadline, sequence, place, payload: None });
        self.few = self.slots.len() / FEW;
        self.look_below = self.look_below_for_slots();
    }

    /// Takes the payload of a timer that is out of the ladder and the side list.
    #[inline]
    fn vacate(&mut self, number: u32) -> Option<P> {
        let slot = &mut self.slots[number as usize];
        let payload = slot.payload.take();
        slot.put(Place::vacant(mem::replace(&mut self.vacant, number)));
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
    #[inline(never)]
    fn give_back(&mut self) {
        self.removals += 1;
        if self.len() > self.few && self.removals < self.slots.len() {
            return;
        }
        self.ladder.tidy_far(&mut self.slots);
        let used = self.slots.iter().rposition(|slot| slot.payload.is_some());
        self.slots.truncate(used.map_or(0, |last| last + 1));
        // The vacant ones are linked anew, the lowest first, so that the high ones stay vacant.
        self.vacant = NO_SLOT;
        for (index, slot) in self.slots.iter_mut().enumerate().rev() {
            if slot.payload.is_none() {
                slot.put(Place::vacant(mem::replace(&mut self.vacant, index as u32)));
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

#[cfg(test)]
mod tests;
