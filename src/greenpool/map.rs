//! `imap` and `starmap`: a function over many items, in a pool, with the results in order.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;

use super::GreenPool;
use crate::clock::Deadline;
use crate::greenthread::{self, GreenThread};

/// The results of [`GreenPool::imap`], in the order of the items. `next` waits for the next one, and
/// panics where the function did.
#[must_use = "it does nothing until results are asked for"]
pub struct Imap<F, I: Iterator, R: 'static> {
    pool: GreenPool,
    f: Rc<F>,
    /// None when it has come to its end.
    items: Option<I>,
    /// Taken out of them, and waits for a slot.
    taken: Option<I::Item>,
    /// Under way, or ended and not asked for.
    ahead: VecDeque<GreenThread<R>>,
}

impl<F, I, R> Imap<F, I, R>
where
    F: Fn(I::Item) -> R + 'static,
    I: Iterator<Item: 'static>,
    R: 'static,
{
    pub(super) fn new(pool: GreenPool, f: F, items: I) -> Self {
        Self { pool, f: Rc::new(f), items: Some(items), taken: None, ahead: VecDeque::new() }
    }

    /// The same results, with panics as values.
    pub fn results(self) -> Results<F, I, R> {
        Results(self)
    }

    fn next_result(&mut self) -> Option<thread::Result<R>> {
        self.spawn_ahead();
        // It stays where it is if this greenlet is killed while it waits.
        self.ahead.front()?.wait_until(Deadline::NEVER);
        self.ahead.pop_front().map(GreenThread::join)
    }

    /// Spawns as many as may be ahead; but no more than one if the next result is there: `items` may
    /// be slow.
    fn spawn_ahead(&mut self) {
        let limit = self.pool.size().max(1);
        let has_room = |this: &Self| {
            this.ahead.is_empty() || (this.ahead.len() < limit && this.pool.free() > 0)
        };
        while has_room(self) && self.spawn_next() {
            if self.ahead.front().is_some_and(GreenThread::is_dead) {
                break;
            }
        }
    }

    /// False if there are no more items.
    fn spawn_next(&mut self) -> bool {
        if self.taken.is_none() {
            self.taken = self.next_item();
            if self.taken.is_none() {
                return false;
            }
        }
        // The item stays where it is if this greenlet is killed while it waits, or its time is over.
        let slot = self.pool.slot();
        let Some(item) = self.taken.take() else { return false };
        let f = Rc::clone(&self.f);
        self.ahead.push_back(GreenPool::spawn_in(slot, move || f(item)));
        true
    }

    /// None if there are no more, or if that is a panic, which comes in the place of a result.
    fn next_item(&mut self) -> Option<I::Item> {
        let items = self.items.as_mut()?;
        let next = match catch_unwind(AssertUnwindSafe(|| items.next())) {
            Ok(next) => next,
            Err(payload) if greenthread::is_meant_for_all(&*payload) => resume_unwind(payload),
            Err(payload) => {
                self.ahead.push_back(GreenThread::ended(Err(payload)));
                None
            }
        };
        if next.is_none() {
            self.items = None;
        }
        next
    }
}

impl<F, I, R> Iterator for Imap<F, I, R>
where
    F: Fn(I::Item) -> R + 'static,
    I: Iterator<Item: 'static>,
    R: 'static,
{
    type Item = R;

    fn next(&mut self) -> Option<R> {
        Some(self.next_result()?.unwrap_or_else(|payload| resume_unwind(payload)))
    }
}

impl<F, I: Iterator, R: 'static> fmt::Debug for Imap<F, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ahead = self.ahead.len();
        f.debug_struct("Imap").field("pool", &self.pool).field("ahead", &ahead).finish()
    }
}

/// [`Imap::results`].
#[derive(Debug)]
#[must_use = "it does nothing until results are asked for"]
pub struct Results<F, I: Iterator, R: 'static>(Imap<F, I, R>);

impl<F, I, R> Iterator for Results<F, I, R>
where
    F: Fn(I::Item) -> R + 'static,
    I: Iterator<Item: 'static>,
    R: 'static,
{
    type Item = thread::Result<R>;

    fn next(&mut self) -> Option<thread::Result<R>> {
        self.0.next_result()
    }
}

/// A function that can be called with a tuple of its arguments: all `Fn` with up to six.
pub trait StarFn<Arguments> {
    /// What it returns.
    type Output;

    /// Calls it.
    fn call(&self, arguments: Arguments) -> Self::Output;
}

macro_rules! star_fn {
    ($($argument:ident),+) => {
        impl<Function, Output, $($argument),+> StarFn<($($argument,)+)> for Function
        where
            Function: Fn($($argument),+) -> Output,
        {
            type Output = Output;

            #[allow(non_snake_case, reason = "the arguments are named as their types")]
            fn call(&self, ($($argument,)+): ($($argument,)+)) -> Output {
                self($($argument),+)
            }
        }
    };
}

star_fn!(A);
star_fn!(A, B);
star_fn!(A, B, C);
star_fn!(A, B, C, D);
star_fn!(A, B, C, D, E);
star_fn!(A, B, C, D, E, F);
