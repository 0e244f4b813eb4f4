//! The semaphore with a limit, which makes who releases wait, too.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::permits::Permits;
use crate::hub::WaitsFor;

/// A semaphore that holds no more permits than its limit: who releases another waits until one is
/// taken. Mirrors eventlet's class of this name.
///
/// Who waits to take one makes room for one at once. So with a limit of 0 each release meets an
/// acquire:
///
/// ```
/// use stolon::semaphore::CappedSemaphore;
///
/// let meeting = CappedSemaphore::new(0, 0);
/// let other = meeting.clone();
/// let green = stolon::spawn(move || other.release());
/// meeting.acquire();
/// green.wait();
/// assert_eq!(meeting.balance(), 0);
/// ```
///
/// | a greenlet is killed, or its time is over | rule |
/// |---|---|
/// | as it waits to acquire | it leaves, and the room that it made goes with it |
/// | as its permit has come, before it runs | killed, it passes the permit on, to the next who waits or into the count, above the limit if need be; with its time over it has acquired |
/// | as it waits to release | it leaves, and its permit goes with it |
/// | as its permit was taken, before it runs | it has released |
#[derive(Clone)]
pub struct CappedSemaphore {
    halves: Rc<Halves>,
}

struct Halves {
    /// What can be acquired.
    permits: Permits,
    /// How many more can be released.
    room: Permits,
    limit: usize,
}

impl CappedSemaphore {
    /// One with so many permits, that holds so many at most.
    ///
    /// # Panics
    ///
    /// When there are more permits than the limit, or the limit is above half of `isize::MAX`: each who
    /// waits counts beside it.
    pub fn new(permits: usize, limit: usize) -> Self {
        let is_countable = limit <= isize::MAX as usize / 2;
        assert!(is_countable, "a semaphore with a limit has one of at most isize::MAX / 2");
        let Some(room) = limit.checked_sub(permits) else {
            panic!("a semaphore cannot have {permits} permits with a limit of {limit}");
        };
        let (permits, room) = (Permits::new(permits), Permits::new(room));
        Self { halves: Rc::new(Halves { permits, room, limit }) }
    }

    /// Takes a permit, or waits for one. Mirrors eventlet's `acquire`.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop, or while the thread exits.
    pub fn acquire(&self) {
        self.acquire_within(None);
    }

    /// Takes a permit, or waits for one no longer than `timeout`, and says whether it came.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop.
    pub fn acquire_timeout(&self, timeout: Duration) -> bool {
        self.acquire_within(Some(timeout))
    }

    /// Takes a permit if one is there, and says whether it has.
    pub fn try_acquire(&self) -> bool {
        let Halves { permits, room, .. } = &*self.halves;
        let acquired = permits.try_acquire();
        if acquired {
            room.release();
        }
        acquired
    }

    /// Gives a permit back; at the limit it waits until one is taken. Mirrors eventlet's `release`.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop, or while the thread exits.
    pub fn release(&self) {
        self.release_within(None);
    }

    /// As [`release`](Self::release), but waits no longer than `timeout`; says whether the permit was
    /// given back.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop.
    pub fn release_timeout(&self, timeout: Duration) -> bool {
        self.release_within(Some(timeout))
    }

    /// Gives a permit back, unless the limit is reached; says whether it has.
    pub fn try_release(&self) -> bool {
        let Halves { permits, room, .. } = &*self.halves;
        let released = room.try_acquire();
        if released {
            permits.release();
        }
        released
    }

    /// Whether an acquire would wait. Mirrors eventlet's `locked`.
    pub fn locked(&self) -> bool {
        self.halves.permits.are_gone()
    }

    /// Whether a release would wait. Mirrors eventlet's `bounded`.
    pub fn bounded(&self) -> bool {
        self.halves.room.are_gone()
    }

    /// The permits that are there, less the room for more; those who wait for one or the other count as
    /// one less of it. Mirrors eventlet's `balance`.
    pub fn balance(&self) -> isize {
        self.halves.permits.balance() - self.halves.room.balance()
    }

    fn acquire_within(&self, timeout: Option<Duration>) -> bool {
        let Halves { permits, room, .. } = &*self.halves;
        room.release();
        let acquired = permits.acquire(timeout, WaitsFor::Permit, |came| {
            room.take_back();
            if came {
                permits.release();
            }
        });
        if !acquired {
            room.take_back();
        }
        acquired
    }

    fn release_within(&self, timeout: Option<Duration>) -> bool {
        let Halves { permits, room, .. } = &*self.halves;
        permits.release();
        let released = room.acquire(timeout, WaitsFor::RoomForPermit, |came| {
            if !came {
                permits.take_back();
            }
        });
        if !released {
            permits.take_back();
        }
        released
    }
}

impl fmt::Debug for CappedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CappedSemaphore")
            .field("balance", &self.balance())
            .field("limit", &self.halves.limit)
            .finish()
    }
}
