//! What stands in the ladder, and where.

use std::num::NonZeroU64;

use crate::clock::Deadline;

/// There are so many rungs at most; of such a size that each is twice that of the one behind it, they
/// would hold more timers than a place can tell apart.
pub(super) const MOST_RUNGS: usize = 30;

/// A timer as the ladder sees it: 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// When it is due.
    pub(super) deadline: Deadline,
    /// Which insertion it was: decides between equal deadlines, and is never used twice.
    pub(super) sequence: NonZeroU64,
    /// Where its payload is.
    pub(super) slot: u32,
}

/// In place of the slot of an entry that is none any more.
const NO_SLOT: u32 = u32::MAX;

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
    pub(super) fn key(&self) -> u128 {
        u128::from(self.deadline.rank()) << 64 | u128::from(self.sequence.get())
    }
}

/// Where an entry is: its rung in the upper bits and its index there, or that it is near, or that it
/// is somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(pub(super) u32);

impl Place {
    const INDEX_BITS: u32 = 27;

    /// One more than the largest index.
    pub(super) const INDICES: u32 = 1 << Self::INDEX_BITS;

    /// Near, so many places behind the one with the number `base`.
    #[inline]
    pub(super) fn near(base: u32, index: usize) -> Self {
        let index = base.wrapping_add(index as u32) & (Self::INDICES - 1);
        Self((MOST_RUNGS as u32) << Self::INDEX_BITS | index)
    }

    #[inline]
    pub(super) fn is_near(self) -> bool {
        self.rung() == MOST_RUNGS
    }

    /// How many places behind the one with the number `base`.
    pub(super) fn index_after(self, base: u32) -> usize {
        (self.0.wrapping_sub(base) & (Self::INDICES - 1)) as usize
    }

    /// Not in the ladder, but at an index of something else.
    pub(super) const fn elsewhere(index: usize) -> Self {
        Self((MOST_RUNGS as u32 + 1) << Self::INDEX_BITS | index as u32)
    }

    /// The index if it is not in the ladder.
    pub(super) fn index_elsewhere(self) -> Option<usize> {
        (self.rung() > MOST_RUNGS).then_some(self.index())
    }

    #[inline]
    pub(super) fn in_rung(rung: usize, index: usize) -> Self {
        Self((rung as u32) << Self::INDEX_BITS | index as u32)
    }

    #[inline]
    pub(super) fn rung(self) -> usize {
        (self.0 >> Self::INDEX_BITS) as usize
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.0 & (Self::INDICES - 1)) as usize
    }
}
