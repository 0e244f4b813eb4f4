//! Semaphores, mirroring eventlet's `semaphore`: so many may do something at a time, and the others
//! wait for their turn.
//!
//! Layer 6. A semaphore is a handle; its clones are handles to the same one.
//!
//! ```
//! use stolon::semaphore::Semaphore;
//!
//! let doors = Semaphore::new(2);
//! let guests: Vec<_> = (0..5)
//!     .map(|guest| {
//!         let doors = doors.clone();
//!         stolon::spawn(move || {
//!             let _open = doors.access();
//!             stolon::sleep(std::time::Duration::from_millis(1));
//!             guest
//!         })
//!     })
//!     .collect();
//! assert_eq!(guests.iter().map(|guest| guest.wait()).sum::<i32>(), 10);
//! assert_eq!(doors.balance(), 2);
//! ```
//!
//! Permits are given in the order in which greenlets came for them, with and without a timeout. One
//! that is released goes to the first who waits, and to nobody else: what does not wait gets none that
//! is another's. Who is killed or gives up before its turn passes on what was meant for it.
//!
//! Releasing never switches, but for the capped semaphore at its limit. What need not wait can be
//! called anywhere, in the hub's own loop too. What has to wait panics there, and while its thread
//! exits, unless it has a timeout: then it gives up at once.

mod capped;
mod permits;

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::hub::WaitsFor;
pub use capped::CappedSemaphore;
use permits::Permits;

/// A count of permits, which greenlets take and give back. Mirrors eventlet's class of this name; the
/// guards are those of the semaphore that `std` once had.
#[derive(Clone)]
pub struct Semaphore {
    permits: Rc<Permits>,
}

/// A permit of a [`Semaphore`], which is released when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it releases the permit"]
pub struct SemaphoreGuard<'a> {
    semaphore: &'a Semaphore,
}

impl Semaphore {
    /// One with so many permits.
    ///
    /// # Panics
    ///
    /// With more than `isize::MAX`.
    pub fn new(permits: usize) -> Self {
        Self { permits: Rc::new(Permits::new(permits)) }
    }

    /// Takes a permit, or waits for one. Mirrors eventlet's `acquire`.
    ///
    /// # Panics
    ///
    /// When it has to wait on the hub's own loop, or while the thread exits.
    #[inline]
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

    /// Takes a permit if one is left, and says whether it has. Mirrors `acquire(blocking=False)`.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.permits.try_acquire()
    }

    /// Gives a permit back, or another one. Mirrors eventlet's `release`.
    ///
    /// # Panics
    ///
    /// When there were more than `isize::MAX`.
    #[inline]
    pub fn release(&self) {
        self.permits.release();
    }

    /// As [`acquire`](Self::acquire), for as long as the guard is there.
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub fn access(&self) -> SemaphoreGuard<'_> {
        self.acquire();
        SemaphoreGuard { semaphore: self }
    }

    /// As [`acquire_timeout`](Self::acquire_timeout), for as long as the guard is there.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn access_timeout(&self, timeout: Duration) -> Option<SemaphoreGuard<'_>> {
        // Not before it is acquired: dropping a guard releases.
        self.acquire_timeout(timeout).then(|| SemaphoreGuard { semaphore: self })
    }

    /// As [`try_acquire`](Self::try_acquire), for as long as the guard is there.
    pub fn try_access(&self) -> Option<SemaphoreGuard<'_>> {
        self.try_acquire().then(|| SemaphoreGuard { semaphore: self })
    }

    /// Whether no permit is left. Mirrors eventlet's `locked`.
    pub fn locked(&self) -> bool {
        self.permits.are_gone()
    }

    /// How many permits are left; or as a negative number, how many greenlets wait for one. Mirrors
    /// eventlet's `balance`.
    pub fn balance(&self) -> isize {
        self.permits.balance()
    }

    #[inline]
    fn acquire_within(&self, timeout: Option<Duration>) -> bool {
        self.permits.acquire(timeout, WaitsFor::Permit, |came| {
            if came {
                self.release();
            }
        })
    }
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        self.semaphore.release();
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("balance", &self.balance()).finish()
    }
}

/// A [`Semaphore`] that does not take back more permits than are out. Mirrors eventlet's class of this
/// name.
///
/// ```
/// use stolon::semaphore::{BoundedSemaphore, ReleasedTooOften};
///
/// let semaphore = BoundedSemaphore::new(1);
/// semaphore.acquire();
/// assert_eq!(semaphore.release(), Ok(()));
/// assert_eq!(semaphore.release(), Err(ReleasedTooOften));
/// ```
#[derive(Clone)]
pub struct BoundedSemaphore {
    semaphore: Semaphore,
    /// How many permits are out.
    held: Rc<Cell<usize>>,
}

/// A permit of a [`BoundedSemaphore`], which is released when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it releases the permit"]
pub struct BoundedSemaphoreGuard<'a> {
    semaphore: &'a BoundedSemaphore,
}

/// Why a permit was not taken back: all are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedTooOften;

impl BoundedSemaphore {
    /// One with so many permits.
    ///
    /// # Panics
    ///
    /// With more than `isize::MAX`.
    pub fn new(permits: usize) -> Self {
        Self { semaphore: Semaphore::new(permits), held: Rc::default() }
    }

    /// As [`Semaphore::acquire`].
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub fn acquire(&self) {
        self.semaphore.acquire();
        self.note(true);
    }

    /// As [`Semaphore::acquire_timeout`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn acquire_timeout(&self, timeout: Duration) -> bool {
        self.note(self.semaphore.acquire_timeout(timeout))
    }

    /// As [`Semaphore::try_acquire`].
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.note(self.semaphore.try_acquire())
    }

    /// Gives a permit back. Mirrors eventlet's `release`.
    ///
    /// # Errors
    ///
    /// When none is out: then there are as many as at the beginning, and it stays so.
    #[inline]
    pub fn release(&self) -> Result<(), ReleasedTooOften> {
        self.held.set(self.held.get().checked_sub(1).ok_or(ReleasedTooOften)?);
        self.semaphore.release();
        Ok(())
    }

    /// As [`Semaphore::access`]. If the permit is released by hand meanwhile, the guard releases none.
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub fn access(&self) -> BoundedSemaphoreGuard<'_> {
        self.acquire();
        BoundedSemaphoreGuard { semaphore: self }
    }

    /// As [`Semaphore::access_timeout`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn access_timeout(&self, timeout: Duration) -> Option<BoundedSemaphoreGuard<'_>> {
        self.acquire_timeout(timeout).then(|| BoundedSemaphoreGuard { semaphore: self })
    }

    /// As [`Semaphore::try_access`].
    pub fn try_access(&self) -> Option<BoundedSemaphoreGuard<'_>> {
        self.try_acquire().then(|| BoundedSemaphoreGuard { semaphore: self })
    }

    /// As [`Semaphore::locked`].
    pub fn locked(&self) -> bool {
        self.semaphore.locked()
    }

    /// As [`Semaphore::balance`].
    pub fn balance(&self) -> isize {
        self.semaphore.balance()
    }

    /// Counts a permit that has come.
    #[inline]
    fn note(&self, came: bool) -> bool {
        self.held.set(self.held.get() + usize::from(came));
        came
    }
}

impl Drop for BoundedSemaphoreGuard<'_> {
    fn drop(&mut self) {
        // An error: somebody else has released it.
        let _ = self.semaphore.release();
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore").field("balance", &self.balance()).finish()
    }
}

impl fmt::Display for ReleasedTooOften {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("semaphore released too many times")
    }
}

impl Error for ReleasedTooOften {}
