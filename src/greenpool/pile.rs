//! Piles: the results of what a pool runs, in the order in which it was spawned.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::resume_unwind;
use std::thread;

use super::GreenPool;
use crate::clock::Deadline;
use crate::greenthread::GreenThread;
use crate::hub::{self, Turn, Turnstile, WaitsFor};

/// Spawns into a pool and gives the results back in the order of the spawns, mirroring eventlet's
/// `GreenPile`.
///
/// It ends when as many results were taken as were spawned, so one who takes them while others spawn
/// may come to an end early; a new spawn gives it a next one.
///
/// ```
/// let pile = stolon::GreenPile::new(2);
/// for n in 1..=3 {
///     pile.spawn(move || n * n);
/// }
/// assert_eq!(pile.collect::<Vec<_>>(), [1, 4, 9]);
/// ```
///
/// Several greenlets may spawn, and take results, as `&GreenPile` is an iterator, too.
pub struct GreenPile<R: 'static> {
    pool: GreenPool,
    spawned: RefCell<VecDeque<GreenThread<R>>>,
    /// How many are about to be spawned, and may have to wait for a slot.
    spawning: Cell<usize>,
    /// Who waits for those.
    takers: Turnstile,
}

impl<R: 'static> GreenPile<R> {
    /// A pile with a pool of its own, of this size.
    pub fn new(size: usize) -> Self {
        Self::with_pool(&GreenPool::new(size))
    }

    /// A pile of what it spawns in `pool`.
    pub fn with_pool(pool: &GreenPool) -> Self {
        Self {
            pool: pool.clone(),
            spawned: RefCell::default(),
            spawning: Cell::new(0),
            takers: Turnstile::default(),
        }
    }

    /// Runs `f` in a new green thread of the pool, and piles up its result. Blocks as
    /// [`GreenPool::spawn`] does; if that is interrupted, nothing was spawned.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn spawn(&self, f: impl FnOnce() -> R + 'static) {
        let spawning = Spawning::new(self);
        let spawned = self.pool.spawn(f);
        self.spawned.borrow_mut().push_back(spawned);
        drop(spawning);
    }

    /// Waits for the next result; none if there will not be one.
    ///
    /// # Panics
    ///
    /// With the panic of what was spawned, at its place; the one after that goes on behind it. And as
    /// [`GreenPool::waitall`].
    pub fn next(&self) -> Option<R> {
        Some(self.next_result()?.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    /// As [`next`](Self::next), with a panic as a value.
    ///
    /// # Panics
    ///
    /// As [`GreenPool::waitall`].
    pub fn next_result(&self) -> Option<thread::Result<R>> {
        loop {
            let next = self.spawned.borrow_mut().pop_front();
            if let Some(green) = next {
                let mut taken = Taken { pile: self, green: Some(green) };
                taken.green.as_ref()?.wait_until(Deadline::NEVER);
                return taken.green.take().map(GreenThread::join);
            }
            if self.spawning.get() == 0 {
                return None;
            }
            let turn = hub::current().map(|hub| {
                self.takers.stand(&hub, WaitsFor::Pool, Deadline::NEVER, |_| self.tell())
            });
            let granted = matches!(turn, Some(Turn::Granted(_)));
            assert!(granted, "cannot wait for a pile: this thread is exiting");
        }
    }

    /// The pool that it spawns in.
    pub fn pool(&self) -> &GreenPool {
        &self.pool
    }

    /// Has who waits look again: one for each result that is there, or all if no more are coming.
    fn tell(&self) {
        if self.takers.len() == 0 {
            return;
        }
        let Some(hub) = hub::current() else { return };
        if self.spawning.get() == 0 {
            self.takers.grant_all(&hub);
        } else if !self.spawned.borrow().is_empty() {
            self.takers.grant(&hub);
        }
    }
}

impl<R: 'static> Iterator for GreenPile<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        Self::next(self)
    }
}

impl<R: 'static> Iterator for &GreenPile<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        GreenPile::next(self)
    }
}

impl<R: 'static> fmt::Debug for GreenPile<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let piled = self.spawned.borrow().len();
        f.debug_struct("GreenPile").field("pool", &self.pool).field("piled", &piled).finish()
    }
}

/// A spawn that is under way, until it has come to its end or is interrupted.
struct Spawning<'a, R: 'static>(&'a GreenPile<R>);

impl<'a, R: 'static> Spawning<'a, R> {
    fn new(pile: &'a GreenPile<R>) -> Self {
        pile.spawning.set(pile.spawning.get() + 1);
        Self(pile)
    }
}

impl<R: 'static> Drop for Spawning<'_, R> {
    fn drop(&mut self) {
        self.0.spawning.set(self.0.spawning.get() - 1);
        self.0.tell();
    }
}

/// The next of a pile, which goes back if who waits for it is killed.
struct Taken<'a, R: 'static> {
    pile: &'a GreenPile<R>,
    green: Option<GreenThread<R>>,
}

impl<R: 'static> Drop for Taken<'_, R> {
    fn drop(&mut self) {
        if let Some(green) = self.green.take() {
            self.pile.spawned.borrow_mut().push_front(green);
            self.pile.tell();
        }
    }
}
