//! What a wait is called, and what it is for.

use std::fmt;
use std::os::fd::RawFd;

use super::Wake;
use crate::greenlet::{self, Greenlet};

/// Names one wait of one greenlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitId {
    /// The greenlet's place.
    pub(super) place: u32,
    /// Which of all the waits that were ever at that place.
    pub(super) turn: u32,
}

impl WaitId {
    /// Whether it is the newest wait of `greenlet`.
    pub(super) fn is_of(self, greenlet: &Greenlet<Wake>) -> bool {
        self.place == greenlet.place() && self.turn == greenlet.turn()
    }

    /// Begins a wait of `greenlet`; the one before is over.
    #[inline(always)]
    pub(super) fn begin(greenlet: &Greenlet<Wake>) -> Self {
        Self { place: greenlet.place(), turn: greenlet.begin_turn() }
    }

    /// The wait that `greenlet` has begun last.
    pub(super) fn newest_of(greenlet: &Greenlet<Wake>) -> Self {
        Self { place: greenlet.place(), turn: greenlet.turn() }
    }

    /// Begins a wait of the current greenlet.
    #[inline]
    pub(super) fn begin_current() -> Self {
        let (place, turn) = greenlet::begin_turn_of_current();
        Self { place, turn }
    }
}

/// What a greenlet waits for, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Time to pass.
    Sleep,
    /// A descriptor to become readable.
    Readable(RawFd),
    /// A descriptor to become writable.
    Writable(RawFd),
    /// A descriptor to become readable or writable.
    Either(RawFd),
    /// Another green thread to end.
    GreenThread,
    /// A function on another thread to end.
    Thread,
    /// A waker to be used.
    Waker,
    /// A message on a channel.
    Message,
    /// Room for a message on a channel.
    Room,
    /// The other end of a stream in memory to write or read.
    MemoryStream,
    /// An event to be sent.
    Event,
    /// A permit of a semaphore.
    Permit,
    /// Room for a permit in a capped semaphore.
    RoomForPermit,
    /// An item of a queue.
    Item,
    /// Room in a queue, or somebody to take the item.
    RoomForItem,
    /// All items of a queue to be done.
    TasksDone,
    /// A pool of green threads to have room for one more.
    Slot,
    /// Green threads of a pool to end.
    Pool,
    /// An item of a pool.
    PoolItem,
    /// A value of a `DAGPool`.
    Value,
    /// All members of a `WaitGroup` to be done.
    Members,
}

impl WaitsFor {
    /// Whether it is a descriptor, or a stream in memory.
    pub(super) fn is_io(self) -> bool {
        matches!(self, Self::Readable(_) | Self::Writable(_) | Self::Either(_) | Self::MemoryStream)
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sleep => write!(f, "a sleep to end"),
            Self::Readable(fd) => write!(f, "descriptor {fd} to become readable"),
            Self::Writable(fd) => write!(f, "descriptor {fd} to become writable"),
            Self::Either(fd) => write!(f, "descriptor {fd} to become readable or writable"),
            Self::GreenThread => write!(f, "a green thread to end"),
            Self::Thread => write!(f, "another thread to finish something"),
            Self::Waker => write!(f, "a waker"),
            Self::Message => write!(f, "a message on a channel"),
            Self::Room => write!(f, "room on a channel"),
            Self::MemoryStream => write!(f, "the other end of a stream in memory"),
            Self::Event => write!(f, "an event to be sent"),
            Self::Permit => write!(f, "a permit of a semaphore"),
            Self::RoomForPermit => write!(f, "room for a permit in a semaphore"),
            Self::Item => write!(f, "an item of a queue"),
            Self::RoomForItem => write!(f, "room in a queue"),
            Self::TasksDone => write!(f, "the items of a queue to be done"),
            Self::Slot => write!(f, "a slot of a pool"),
            Self::Pool => write!(f, "a pool's green threads to end"),
            Self::PoolItem => write!(f, "an item of a pool"),
            Self::Value => write!(f, "a value of a DAGPool"),
            Self::Members => write!(f, "the members of a group to be done"),
        }
    }
}
