//! Who waits for what, and who can run: the hub's table of waits and its queue of runnable
//! greenlets.
//!
//! Each wait of a greenlet has a [`WaitId`] of its own. A wake-up names the wait that it ends; when
//! that wait is over already (it was woken, timed out, or its greenlet was killed) the wake-up
//! finds another generation and does nothing. So nothing that was meant for an earlier wait ever
//! ends a later one.
//!
//! | a wait is | until |
//! |---|---|
//! | begun | the greenlet parks, or stands in the queue at once |
//! | parked | someone wakes it |
//! | woken: it stands in the queue | its turn comes |
//! | over | its place is used for another wait |

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::RawFd;

use super::Wake;
use crate::greenlet::Greenlet;

/// Names one wait of one greenlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitId {
    index: u32,
    generation: u32,
}

/// What a greenlet waits for, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Its next turn.
    Turn,
    /// Time to pass.
    Sleep,
    /// A descriptor to become readable.
    Readable(RawFd),
    /// A descriptor to become writable.
    Writable(RawFd),
    /// Another green thread to end.
    GreenThread,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn => write!(f, "its turn"),
            Self::Sleep => write!(f, "a sleep to end"),
            Self::Readable(fd) => write!(f, "descriptor {fd} to become readable"),
            Self::Writable(fd) => write!(f, "descriptor {fd} to become writable"),
            Self::GreenThread => write!(f, "a green thread to end"),
        }
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    waits_for: WaitsFor,
    /// While it is parked.
    parked: Option<Greenlet<Wake>>,
}

/// A greenlet in the queue, and what it is to be told when its turn comes.
#[derive(Debug)]
struct Runnable {
    greenlet: Greenlet<Wake>,
    wake: Wake,
    /// The wait that has ended by this; none for a first run.
    wait: Option<WaitId>,
}

/// What came out of the queue.
pub(super) enum Next {
    /// A greenlet to resume.
    Run(Greenlet<Wake>, Wake),
    /// One that has ended, or was killed and does not wait for its turn any more: to be dropped.
    /// Not here, as its destructors may come back to the queue.
    Stale(Greenlet<Wake>),
    /// Nothing: the queue is empty, or its first is not accepted.
    Nothing,
}

/// The waits of one hub's greenlets, and the runnable ones in the order in which they were woken.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    queue: VecDeque<Runnable>,
}

impl RunQueue {
    /// Begins a wait.
    #[inline]
    pub(super) fn begin(&mut self, waits_for: WaitsFor) -> WaitId {
        if let Some(index) = self.vacant.pop() {
            let slot = &mut self.slots[index as usize];
            slot.waits_for = waits_for;
            return WaitId { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 waits");
        self.slots.push(Slot { generation: 0, waits_for, parked: None });
        WaitId { index, generation: 0 }
    }

    /// Ends a wait, whatever has become of it. Wake-ups for it do nothing from now on. Returns its
    /// greenlet if it was still parked.
    #[inline]
    pub(super) fn end(&mut self, id: WaitId) -> Option<Greenlet<Wake>> {
        let slot = self.slot(id)?;
        slot.generation = slot.generation.wrapping_add(1);
        let parked = slot.parked.take();
        self.vacant.push(id.index);
        parked
    }

    /// Notes that the wait's greenlet parks now.
    pub(super) fn park(&mut self, id: WaitId, greenlet: Greenlet<Wake>) {
        if let Some(slot) = self.slot(id) {
            debug_assert!(slot.parked.is_none(), "a wait is parked once");
            slot.parked = Some(greenlet);
        }
    }

    /// Makes the wait's greenlet runnable, behind all that are. False if the wait is not parked any
    /// more.
    pub(super) fn wake(&mut self, id: WaitId, wake: Wake) -> bool {
        match self.slot(id).and_then(|slot| slot.parked.take()) {
            Some(greenlet) => {
                self.queue.push_back(Runnable { greenlet, wake, wait: Some(id) });
                true
            }
            None => false,
        }
    }

    /// Puts a greenlet into the queue that does not park first.
    #[inline]
    pub(super) fn push(&mut self, greenlet: Greenlet<Wake>, wake: Wake, wait: Option<WaitId>) {
        self.queue.push_back(Runnable { greenlet, wake, wait });
    }

    /// Takes the next runnable greenlet out of the queue, if `accept` takes it; else it stays.
    #[inline]
    pub(super) fn next_if(&mut self, accept: impl Fn(&Greenlet<Wake>) -> bool) -> Next {
        let Some(first) = self.queue.front() else { return Next::Nothing };
        let waits = first.wait.is_none_or(|id| self.is_pending(id)) && !first.greenlet.is_dead();
        if waits && !accept(&first.greenlet) {
            return Next::Nothing;
        }
        match self.queue.pop_front() {
            Some(Runnable { greenlet, wake, .. }) if waits => Next::Run(greenlet, wake),
            Some(Runnable { greenlet, .. }) => Next::Stale(greenlet),
            None => Next::Nothing,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// All greenlets that are parked, and what for.
    pub(super) fn parked(&self) -> impl Iterator<Item = (&Greenlet<Wake>, WaitsFor)> {
        self.slots.iter().filter_map(|slot| Some((slot.parked.as_ref()?, slot.waits_for)))
    }

    #[inline]
    fn is_pending(&self, id: WaitId) -> bool {
        self.slots.get(id.index as usize).is_some_and(|slot| slot.generation == id.generation)
    }

    #[inline]
    fn slot(&mut self, id: WaitId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)
    }
}
