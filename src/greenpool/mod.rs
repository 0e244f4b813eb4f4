//! Pools of green threads: so many at once and no more.
//!
//! Layer 6. Mirrors eventlet's `greenpool`. A [`GreenPool`] has a number of slots; each green thread
//! that it spawns takes one, and [`spawn`](GreenPool::spawn) waits for one to be free. A [`GreenPile`]
//! gives back the results of what it spawned, in that order.
//!
//! ```
//! use stolon::{GreenPool, sleep};
//! use std::time::Duration;
//!
//! let pool = GreenPool::new(10);
//! let squares = pool.imap(
//!     |n: u64| {
//!         sleep(Duration::from_millis(n % 3));
//!         n * n
//!     },
//!     0..100,
//! );
//! assert_eq!(squares.sum::<u64>(), 328_350);
//! ```

mod map;
mod pile;
mod slots;

use std::error::Error;
use std::fmt;
use std::io;
use std::rc::Rc;

use crate::greenthread::{self, GreenThread};
pub use map::{Imap, Results, StarFn};
pub use pile::GreenPile;
use slots::{Slot, Slots};

/// The size of pools that nobody has chosen one for, which is eventlet's.
const DEFAULT_SIZE: usize = 1000;

/// A pool that runs at most so many green threads at once, mirroring eventlet's `GreenPool`.
///
/// Clones are handles to the same pool. What it runs goes on when the last of them is dropped.
///
/// A *member* is a green thread that the pool has spawned, from its start to the end of its function.
/// The slot is free again before anyone is told of the end, and at once if it is killed before it has
/// started. Who waits for a slot gets it in the order in which they came; if it is killed meanwhile,
/// the next one does.
#[derive(Clone)]
pub struct GreenPool {
    slots: Rc<Slots>,
}

impl GreenPool {
    /// A pool for `size` green threads at once. In one of size 0 every spawn waits until it is
    /// resized.
    pub fn new(size: usize) -> Self {
        Self { slots: Rc::new(Slots::new(size)) }
    }

    /// Runs `f` in a new green thread when there is room for one, mirroring eventlet's `spawn`: if the
    /// pool is full, blocks the current greenlet until a member ends.
    ///
    /// A member that spawns while the pool is full would wait for itself in the end. So its `f` runs
    /// here and now, in its place, and the handle is that of a green thread that has ended; if `f`
    /// panics, [`wait`](GreenThread::wait) does. A kill of the member, or a timeout, unwinds both.
    ///
    /// # Panics
    ///
    /// When no stack can be had. When the pool is full and this is the hub's own loop, or the thread is
    /// exiting.
    pub fn spawn<R: 'static>(&self, f: impl FnOnce() -> R + 'static) -> GreenThread<R> {
        Self::spawn_in(self.slot(), f)
    }

    /// A slot, which is waited for if need be; none for a member of the full pool, which runs in its own
    /// place what it would spawn.
    #[inline]
    fn slot(&self) -> Option<Slot> {
        let runs_here = self.slots.is_full() && self.slots.runs_current();
        (!runs_here).then(|| Slots::take(&self.slots))
    }

    fn spawn_in<R: 'static>(slot: Option<Slot>, f: impl FnOnce() -> R + 'static) -> GreenThread<R> {
        let Some(slot) = slot else { return GreenThread::run_here(f) };
        let task = Task { slot, f };
        greenthread::spawn(move || task.run())
    }

    /// As [`spawn`](Self::spawn), for what nobody waits for, mirroring eventlet's `spawn_n`. A panic
    /// goes to the hook of [`set_unhandled_hook`](greenthread::set_unhandled_hook).
    ///
    /// # Panics
    ///
    /// As `spawn`.
    pub fn spawn_n(&self, f: impl FnOnce() + 'static) {
        self.try_spawn_n(f).expect("no green thread could be made");
    }

    /// As [`spawn_n`](Self::spawn_n), but returns the error when no stack can be had.
    pub(crate) fn try_spawn_n(&self, f: impl FnOnce() + 'static) -> io::Result<()> {
        let Some(slot) = self.slot() else {
            drop(GreenThread::run_here(f));
            return Ok(());
        };
        let task = Task { slot, f };
        greenthread::Builder::new().spawn_n(move || task.run())
    }

    /// Calls `f` with each of the items, in members of this pool, and returns the results in the order
    /// of the items, mirroring eventlet's `imap`.
    ///
    /// It is lazy: items are taken and members spawned when a result is asked for, and at most as many
    /// as the pool has slots are under way or wait to be asked for. So memory is bounded, and so is
    /// what `items` is ahead. If other work has taken all slots, it goes on as soon as it has one.
    ///
    /// Where `f` panicked for an item, `next` does, and the one after that goes on behind it; use
    /// [`Imap::results`] to get results and panics as values. A panic of `items` itself is raised at
    /// its place, and ends the iteration. Dropped half-way, what is under way runs on.
    pub fn imap<F, I, R>(&self, f: F, items: I) -> Imap<F, I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: 'static>,
        R: 'static,
    {
        Imap::new(self.clone(), f, items.into_iter())
    }

    /// As [`imap`](Self::imap), for an `f` of several arguments and items that are tuples of them,
    /// mirroring eventlet's `starmap`.
    ///
    /// ```
    /// let pool = stolon::GreenPool::new(2);
    /// let sums = pool.starmap(|a: i32, b: i32| a + b, [(1, 2), (3, 4)]);
    /// assert_eq!(sums.collect::<Vec<_>>(), [3, 7]);
    /// ```
    pub fn starmap<F, I, R>(
        &self,
        f: F,
        items: I,
    ) -> Imap<impl Fn(I::Item) -> R + use<F, I, R>, I::IntoIter, R>
    where
        F: StarFn<I::Item, Output = R> + 'static,
        I: IntoIterator<Item: 'static>,
        R: 'static,
    {
        self.imap(move |arguments| f.call(arguments), items)
    }

    /// Waits until no member is left and nobody waits to spawn one, mirroring eventlet's `waitall`.
    /// Those that are spawned meanwhile are waited for, too.
    ///
    /// # Errors
    ///
    /// [`InsidePool`], at once, when a member calls it: it would wait for itself.
    ///
    /// # Panics
    ///
    /// When it has to wait and this is the hub's own loop, or the thread is exiting.
    pub fn waitall(&self) -> Result<(), InsidePool> {
        if self.slots.runs_current() {
            return Err(InsidePool(()));
        }
        self.slots.wait_until_idle();
        Ok(())
    }

    /// Changes the number of slots, mirroring eventlet's `resize`. Who waits for one gets those that
    /// are new. If there are fewer, members run on, and as many of their slots are not used again.
    pub fn resize(&self, size: usize) {
        self.slots.resize(size);
    }

    /// The number of slots.
    pub fn size(&self) -> usize {
        self.slots.size()
    }

    /// How many more can be spawned without waiting, mirroring eventlet's `free`. Negative while more
    /// are running than the pool has slots since it was resized.
    pub fn free(&self) -> isize {
        // Sizes beyond `isize::MAX` are without bound in effect.
        let [size, taken] = [self.size(), self.running()];
        if size >= taken {
            isize::try_from(size - taken).unwrap_or(isize::MAX)
        } else {
            isize::try_from(taken - size).map_or(isize::MIN, |missing| -missing)
        }
    }

    /// How many slots are taken: by members, by green threads that will be when they start, and by
    /// who waited for one and will spawn when its turn comes. Mirrors eventlet's `running`.
    pub fn running(&self) -> usize {
        self.slots.taken()
    }

    /// How many greenlets wait for a slot, mirroring eventlet's `waiting`.
    pub fn waiting(&self) -> usize {
        self.slots.waiting()
    }
}

impl Default for GreenPool {
    /// A pool of size 1000.
    fn default() -> Self {
        Self::new(DEFAULT_SIZE)
    }
}

impl fmt::Debug for GreenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenPool")
            .field("size", &self.size())
            .field("running", &self.running())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// What [`GreenPool::waitall`] fails with: a member of the pool cannot wait for the pool to be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsidePool(());

impl fmt::Display for InsidePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("waitall was called by a green thread of the pool, which would wait for itself")
    }
}

impl Error for InsidePool {}

/// What a member runs. One that never starts gives its slot back before what it holds is dropped.
struct Task<F> {
    slot: Slot,
    f: F,
}

impl<F> Task<F> {
    #[inline]
    fn run<R>(self) -> R
    where
        F: FnOnce() -> R,
    {
        let Self { slot, f } = self;
        slot.enter();
        let result = f();
        drop(slot);
        result
    }
}
