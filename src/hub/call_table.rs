//! The table of the calls that are scheduled on a hub: the functions, and who must be alive for them.

use std::mem;
use std::panic::Location;

use super::WaitId;
use crate::greenlet::Acquaintance;
use crate::timers::{TimerId, Timers};

/// Room for this many calls is never given back.
const KEPT: usize = 1024;

/// Calls are few if there are this many times as many places.
const FEW: usize = 8;

/// The payload of a timer: what is to be done when it fires. Two words, which stay in registers where an
/// enum would be put together in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// A greenlet's, or [`NOBODY`].
    place: u32,
    /// The greenlet's, or the place of a call in the table.
    turn: u32,
}

/// No greenlet's place.
const NOBODY: u32 = u32::MAX;

/// What a timer's payload says.
pub(super) enum Deed {
    /// Wake a greenlet.
    Wake(WaitId),
    /// Call what has this place in the table.
    Call(u32),
}

impl Due {
    /// To wake a greenlet.
    #[inline]
    pub(super) fn wake(wait: WaitId) -> Self {
        let WaitId { place, turn } = wait;
        debug_assert!(place != NOBODY);
        Self { place, turn }
    }

    /// To call what has this place in the table.
    #[inline]
    pub(super) fn call(index: u32) -> Self {
        Self { place: NOBODY, turn: index }
    }

    #[inline]
    pub(super) fn deed(self) -> Deed {
        if self.place == NOBODY {
            Deed::Call(self.turn)
        } else {
            Deed::Wake(WaitId { place: self.place, turn: self.turn })
        }
    }
}

// Of the 64 bytes that a pending timer may take; and calls cost those nothing who have none.
const _: () = assert!(Timers::<Due>::BYTES_EACH <= 60);
const _: () = assert!(Timers::<Due>::BYTES_EACH == Timers::<WaitId>::BYTES_EACH);

/// Names one call.
#[derive(Clone, Copy)]
pub(super) struct CallId {
    pub(super) index: u32,
    /// No other call ever has it, and none has zero.
    pub(super) number: u64,
}

/// A call that is pending.
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) timer: TimerId,
    /// Without whom it is not to be called.
    pub(super) owner: Option<Acquaintance>,
    /// Where it was scheduled.
    pub(super) place: &'static Location<'static>,
    pub(super) run: Box<dyn FnOnce()>,
}

/// The calls of one hub that are pending.
#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Option<Call>>,
    vacant: Vec<u32>,
    last_number: u64,
    /// With no more calls than this, memory is given back.
    few: usize,
    /// How many were removed since that was last tried.
    removals: usize,
}

impl Calls {
    /// Where a pending call was scheduled.
    pub(super) fn place_of(&self, index: u32) -> Option<&'static Location<'static>> {
        Some(self.slots.get(index as usize)?.as_ref()?.place)
    }

    pub(super) fn insert(&mut self, make: impl FnOnce(CallId) -> Call) -> CallId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.few = self.slots.len() / FEW;
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 calls")
        });
        self.last_number += 1;
        let id = CallId { index, number: self.last_number };
        self.slots[index as usize] = Some(make(id));
        id
    }

    pub(super) fn get(&mut self, id: CallId) -> Option<&mut Call> {
        let call = self.slots.get_mut(id.index as usize)?.as_mut();
        call.filter(|call| call.number == id.number)
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Call> {
        self.get(id)?;
        self.remove_at(id.index)
    }

    pub(super) fn remove_at(&mut self, index: u32) -> Option<Call> {
        let call = self.slots.get_mut(index as usize)?.take()?;
        self.vacant.push(index);
        self.removals += 1;
        let is_due = self.len() <= self.few || self.removals >= self.slots.len();
        if is_due && self.slots.len() > KEPT {
            self.give_back();
        }
        Some(call)
    }

    fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Gives back the memory behind the last pending call. That walks over all places, so it is tried
    /// when the calls have become an eighth of them, and an eighth of what was left by the last try, and
    /// so on; and once in as many removals as there are places.
    #[cold]
    #[inline(never)]
    fn give_back(&mut self) {
        // An eighth, rounded so that the last call has a try of its own.
        self.few = (self.len() + FEW - 2) / FEW;
        self.removals = 0;
        let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.vacant.retain(|&index| (index as usize) < used);
        self.slots.shrink_to(KEPT.max(2 * used));
        self.vacant.shrink_to(KEPT.max(2 * self.vacant.len()));
    }

    pub(super) fn take_all(&mut self) -> Vec<Call> {
        self.vacant = Vec::new();
        mem::take(&mut self.slots).into_iter().flatten().collect()
    }
}
