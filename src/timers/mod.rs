//! Timers in the order in which they fall due, each of which can be cancelled at any time.
//!
//! Layer 4, sources; it knows `clock`'s words, and neither a clock nor what a timer is for: the
//! payload says that, and whoever takes it out acts on it.
//!
//! - Order: by deadline, and by insertion among equal deadlines.
//! - Cancelling really removes, in O(log n) like inserting, so memory follows the number of pending
//!   timers and not the number of those ever made.
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
//! # Memory
//!
//! A pending timer costs 24 bytes in the heap, and 4 in its slot beside the payload, padded: with a
//! payload of 16 bytes that has a value to spare for "none" (a box of a closure, say), 24 + 24 = 48
//! bytes, and with one that has not, 24 + 32 = 56. Growing doubles, as vectors do.
//!
//! Memory is given back when few timers are left of many: the heap's down to twice of what it
//! needs, and that of the slots behind the last one used. It is tried when the timers have become
//! an eighth of the slots, and an eighth of what was left by the last try, and so on, or none; and
//! as long as they are so few, once in as many removals as there are slots. A try walks over all
//! slots, which comes to a few of them for each timer inserted. Room for 1,024 timers is kept.

use std::fmt;
use std::num::NonZeroU64;

use crate::clock::{Deadline, Time};

mod heap;

use heap::{Entry, Heap};

/// Set in the position of a timer that is in the side list, and not in the heap.
const IN_SIDE_LIST: u32 = 1 << 31;

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
    heap: Heap,
    /// Inserted during the pass that is under way, or was left by a panic: not in the heap yet.
    side_list: Vec<Entry>,
    slots: Vec<Slot<P>>,
    /// The first vacant slot, or [`NO_SLOT`].
    vacant: u32,
    /// The number of the next insertion.
    next_sequence: NonZeroU64,
    /// Whether a pass is under way.
    in_pass: bool,
    /// With no more timers than this, memory is given back.
    few: usize,
    /// How many removals there have been since that was last tried.
    removals: usize,
}

struct Slot<P> {
    /// Of a pending timer, its position in the heap, or in the side list with [`IN_SIDE_LIST`]; of
    /// a vacant slot, the next vacant one, or [`NO_SLOT`].
    position: u32,
    /// `None` if the slot is vacant.
    payload: Option<P>,
}

impl<P> Timers<P> {
    /// What a pending timer takes, where vectors have no room to spare.
    pub(crate) const BYTES_EACH: usize = size_of::<Entry>() + size_of::<Slot<P>>();

    /// No timers, and no memory for them yet.
    pub const fn new() -> Timers<P> {
        Timers {
            heap: Heap::new(),
            side_list: Vec::new(),
            slots: Vec::new(),
            vacant: NO_SLOT,
            next_sequence: NonZeroU64::MIN,
            in_pass: false,
            few: 0,
            removals: 0,
        }
    }

    /// Adds a timer. With [`Deadline::NEVER`] it waits to be cancelled.
    ///
    /// # Panics
    ///
    /// If more than 2,147,483,647 timers are pending.
    pub fn insert(&mut self, deadline: Deadline, payload: P) -> TimerId {
        let sequence = self.next_sequence;
        // At one a nanosecond the numbers last for 584 years.
        self.next_sequence = sequence.saturating_add(1);
        let slot = self.occupy(payload);
        let entry = Entry { deadline, sequence, slot };
        if self.in_pass {
            self.slots[slot as usize].position = self.side_list.len() as u32 | IN_SIDE_LIST;
            self.side_list.push(entry);
        } else {
            self.heap.push(entry, note_position(&mut self.slots));
        }
        TimerId { sequence, slot }
    }

    /// Removes a timer and returns its payload; `None` if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<P> {
        let position = self.position(id)?;
        if position & IN_SIDE_LIST == 0 {
            self.heap.remove(position as usize, note_position(&mut self.slots));
        } else {
            let index = (position & !IN_SIDE_LIST) as usize;
            self.side_list.swap_remove(index);
            if let Some(moved) = self.side_list.get(index) {
                self.slots[moved.slot as usize].position = position;
            }
        }
        self.vacate(id.slot)
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
    pub fn pop_due(&mut self, now: Time) -> Option<P> {
        let first = self.heap.first()?;
        if !first.deadline.is_past(now) {
            return None;
        }
        self.heap.remove(0, note_position(&mut self.slots));
        self.vacate(first.slot)
    }

    /// Ends a pass: what was inserted since its beginning may fire from now on. Outside a pass it
    /// does nothing.
    pub fn end_pass(&mut self) {
        self.in_pass = false;
        while let Some(entry) = self.side_list.pop() {
            self.heap.push(entry, note_position(&mut self.slots));
        }
        if self.side_list.capacity() > KEPT {
            self.side_list.shrink_to(KEPT);
        }
    }

    /// The earliest deadline, of all timers; [`Deadline::NEVER`] if there are none.
    pub fn next_deadline(&self) -> Deadline {
        let in_heap = self.heap.first().map_or(Deadline::NEVER, |entry| entry.deadline);
        self.side_list.iter().map(|entry| entry.deadline).fold(in_heap, Deadline::min)
    }

    /// All pending timers, in no order.
    pub fn pending(&self) -> impl Iterator<Item = (Deadline, &P)> {
        let entries = self.heap.entries().iter().chain(&self.side_list);
        entries.filter_map(|entry| {
            let payload = self.slots[entry.slot as usize].payload.as_ref()?;
            Some((entry.deadline, payload))
        })
    }

    /// Whether the timer has neither fired nor been cancelled.
    pub fn is_pending(&self, id: TimerId) -> bool {
        self.position(id).is_some()
    }

    /// How many timers are pending.
    pub fn len(&self) -> usize {
        self.heap.len() + self.side_list.len()
    }

    /// Whether no timers are pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the timer is, if it is pending.
    ///
    /// A slot that is vacant or another timer's leads to another entry, if to any, and no two
    /// entries have the same sequence number.
    fn position(&self, id: TimerId) -> Option<u32> {
        let position = self.slots.get(id.slot as usize)?.position;
        let entry = if position & IN_SIDE_LIST == 0 {
            self.heap.get(position as usize)?
        } else {
            self.side_list.get((position & !IN_SIDE_LIST) as usize)?
        };
        (entry.sequence == id.sequence).then_some(position)
    }

    /// Finds a place for a payload. Its position is still to be noted.
    fn occupy(&mut self, payload: P) -> u32 {
        if let Some(slot) = self.slots.get_mut(self.vacant as usize) {
            slot.payload = Some(payload);
            return std::mem::replace(&mut self.vacant, slot.position);
        }
        let slot = self.slots.len() as u32;
        assert!(slot < IN_SIDE_LIST - 1, "more than 2,147,483,647 timers are pending");
        self.slots.push(Slot { position: NO_SLOT, payload: Some(payload) });
        self.few = self.slots.len() / FEW;
        slot
    }

    /// Takes the payload of a timer that is out of the heap and the side list.
    fn vacate(&mut self, slot: u32) -> Option<P> {
        let vacated = &mut self.slots[slot as usize];
        let payload = vacated.payload.take();
        vacated.position = std::mem::replace(&mut self.vacant, slot);
        self.removals += 1;
        if self.len() <= self.slots.len() / FEW && self.slots.len() > KEPT {
            self.give_back();
        }
        payload
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
                slot.position = std::mem::replace(&mut self.vacant, index as u32);
            }
        }
        self.slots.shrink_to(KEPT.max(2 * self.slots.len()));
        self.heap.shrink_to(KEPT.max(2 * self.heap.len()));
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

/// Writes the positions of entries that the heap moves into their slots.
fn note_position<P>(slots: &mut [Slot<P>]) -> impl FnMut(u32, usize) {
    |slot, position| slots[slot as usize].position = position as u32
}

#[cfg(test)]
mod tests;
