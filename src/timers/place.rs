//! Where a timer is: its slot, its entry if it has one, and the place of that.

use std::num::NonZeroU64;

use crate::clock::Deadline;

/// There are so many rungs at most. Each is about a quarter of the one before it, or half of it, so
/// there is hardly ever one too few.
pub(super) const MOST_RUNGS: usize = 12;

/// In place of a slot's number: there is none.
pub(super) const NO_SLOT: u32 = Place::INDICES - 1;

/// What is known of a timer. Its number is part of the timer's identity, so it stays where it is.
pub(super) struct Slot<P> {
    /// When it is due.
    pub(super) deadline: Deadline,
    /// Which insertion it was: decides between equal deadlines, and is never used twice.
    pub(super) sequence: NonZeroU64,
    pub(super) place: Place,
    /// `None` if the slot is vacant.
    pub(super) payload: Option<P>,
}

/// A timer that is not far, as the ladder sees it: 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) deadline: Deadline,
    pub(super) sequence: NonZeroU64,
    /// The number of its slot.
    pub(super) slot: u32,
}

/// Where a timer is, and whether its slot is on the list of those that are far, or were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl<P> Slot<P> {
    /// As of [`Entry::key`].
    #[inline]
    pub(super) fn key(&self) -> u128 {
        key(self.deadline, self.sequence)
    }

    /// Notes another place.
    #[inline]
    pub(super) fn put(&mut self, place: Place) {
        self.place = Place(place.0 | self.place.0 & Place::LISTED);
    }

    /// Whether it holds the timer that this insertion has made.
    #[inline]
    pub(super) fn holds(&self, sequence: NonZeroU64) -> bool {
        self.sequence == sequence && self.payload.is_some()
    }
}

impl Entry {
    /// Leaves a place that keeps its order.
    pub(super) fn vacate(&mut self) {
        self.slot = NO_SLOT;
    }

    #[inline]
    pub(super) fn is_vacant(&self) -> bool {
        self.slot == NO_SLOT
    }

    /// Deadline and sequence in one number, which compares without a branch.
    #[inline]
    pub(super) fn key(&self) -> u128 {
        key(self.deadline, self.sequence)
    }
}

#[inline]
pub(super) fn key(deadline: Deadline, sequence: NonZeroU64) -> u128 {
    u128::from(deadline.rank()) << 64 | u128::from(sequence.get())
}

/// The upper bits of a place say what its lower bits are the index of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry of this rung.
    Rung(usize),
    Near,
    Far,
    /// An entry of the side list.
    Aside,
    /// The slot is vacant, and that is the index of the next vacant one.
    Vacant,
}

impl Place {
    const INDEX_BITS: u32 = 27;

    /// One more than the largest index.
    pub(super) const INDICES: u32 = 1 << Self::INDEX_BITS;

    const LISTED: u32 = 1 << 31;

    /// A place of a timer that is far: its slot is listed.
    pub(super) const FAR: Self = Self(Self::of(MOST_RUNGS + 1, 0).0 | Self::LISTED);

    #[inline]
    const fn of(kind: usize, index: u32) -> Self {
        Self((kind as u32) << Self::INDEX_BITS | index)
    }

    #[inline]
    pub(super) fn in_rung(rung: usize, index: usize) -> Self {
        Self::of(rung, index as u32)
    }

    /// Near, so many places behind the one with the number `base`.
    #[inline]
    pub(super) fn near(base: u32, index: usize) -> Self {
        Self::of(MOST_RUNGS, base.wrapping_add(index as u32) & (Self::INDICES - 1))
    }

    pub(super) fn aside(index: usize) -> Self {
        Self::of(MOST_RUNGS + 2, index as u32)
    }

    #[inline]
    pub(super) fn vacant(next: u32) -> Self {
        Self::of(MOST_RUNGS + 3, next)
    }

    pub(super) fn kind(self) -> Kind {
        const NEAR: usize = MOST_RUNGS;
        match ((self.0 & !Self::LISTED) >> Self::INDEX_BITS) as usize {
            NEAR => Kind::Near,
            kind if kind == NEAR + 1 => Kind::Far,
            kind if kind == NEAR + 2 => Kind::Aside,
            kind if kind == NEAR + 3 => Kind::Vacant,
            rung => Kind::Rung(rung),
        }
    }

    #[inline]
    pub(super) fn is_listed(self) -> bool {
        self.0 & Self::LISTED != 0
    }

    /// The same, but not listed.
    pub(super) fn unlisted(self) -> Self {
        Self(self.0 & !Self::LISTED)
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.0 & (Self::INDICES - 1)) as usize
    }

    /// How many places behind the one with the number `base`.
    pub(super) fn index_after(self, base: u32) -> usize {
        (self.0.wrapping_sub(base) & (Self::INDICES - 1)) as usize
    }
}
