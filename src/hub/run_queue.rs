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
//! | begun | the greenlet parks, or is woken first |
//! | parked | someone wakes it |
//! | runnable: it stands in the queue | its turn comes |
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
    /// Its first run.
    Start,
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
            Self::Start => write!(f, "its first run"),
            Self::Turn => write!(f, "its turn"),
            Self::Sleep => write!(f, "a sleep to end"),
            Self::Readable(fd) => write!(f, "descriptor {fd} to become readable"),
            Self::Writable(fd) => write!(f, "descriptor {fd} to become writable"),
            Self::GreenThread => write!(f, "a green thread to end"),
        }
    }
}

#[derive(Debug)]
enum State {
    Begun,
    Parked(Greenlet<Wake>),
    Runnable(Greenlet<Wake>, Wake),
    Over,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    waits_for: WaitsFor,
    state: State,
}

/// The waits of one hub's greenlets, and the runnable ones in the order in which they were woken.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    queue: VecDeque<WaitId>,
}

impl RunQueue {
    /// Begins a wait.
    pub(super) fn begin(&mut self, waits_for: WaitsFor) -> WaitId {
        if let Some(index) = self.vacant.pop() {
            let slot = &mut self.slots[index as usize];
            slot.state = State::Begun;
            slot.waits_for = waits_for;
            return WaitId { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 waits");
        self.slots.push(Slot { generation: 0, waits_for, state: State::Begun });
        WaitId { index, generation: 0 }
    }

    /// Ends a wait, whatever has become of it. Wake-ups for it do nothing from now on.
    pub(super) fn end(&mut self, id: WaitId) {
        let Some(slot) = self.slot(id) else { return };
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Over;
        self.vacant.push(id.index);
    }

    /// Notes that the wait's greenlet parks now.
    pub(super) fn park(&mut self, id: WaitId, greenlet: Greenlet<Wake>) {
        if let Some(slot) = self.slot(id) {
            match slot.state {
                State::Begun => slot.state = State::Parked(greenlet),
                _ => unreachable!("a wait is parked once"),
            }
        }
    }

    /// Makes the wait's greenlet runnable, behind all that are. False if the wait is not parked any
    /// more.
    pub(super) fn wake(&mut self, id: WaitId, wake: Wake) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        match std::mem::replace(&mut slot.state, State::Over) {
            State::Parked(greenlet) => {
                slot.state = State::Runnable(greenlet, wake);
                self.queue.push_back(id);
                true
            }
            other => {
                slot.state = other;
                false
            }
        }
    }

    /// Takes the next runnable greenlet out of the queue, if `accept` takes it; else it stays.
    pub(super) fn next_if(
        &mut self,
        accept: impl Fn(&Greenlet<Wake>) -> bool,
    ) -> Option<(Greenlet<Wake>, Wake)> {
        while let Some(&id) = self.queue.front() {
            // A wait that ended while it stood in the queue: its greenlet was killed.
            let Some(slot) = self.slot(id) else {
                self.queue.pop_front();
                continue;
            };
            match std::mem::replace(&mut slot.state, State::Over) {
                State::Runnable(greenlet, _) if greenlet.is_dead() => {
                    self.queue.pop_front();
                    self.end(id);
                }
                State::Runnable(greenlet, wake) if accept(&greenlet) => {
                    self.queue.pop_front();
                    if wake == Wake::Start {
                        // Nobody else will: its wait was begun on its behalf.
                        self.end(id);
                    }
                    return Some((greenlet, wake));
                }
                State::Runnable(greenlet, wake) => {
                    slot.state = State::Runnable(greenlet, wake);
                    return None;
                }
                _ => unreachable!("only runnable waits stand in the queue"),
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// All greenlets that are parked, and what for.
    pub(super) fn parked(&self) -> impl Iterator<Item = (&Greenlet<Wake>, WaitsFor)> {
        self.slots.iter().filter_map(|slot| match &slot.state {
            State::Parked(greenlet) => Some((greenlet, slot.waits_for)),
            _ => None,
        })
    }

    fn slot(&mut self, id: WaitId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)
    }
}
