//! The items of a pool: how many there are, which are free, and who waits for one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use crate::clock::Deadline;
use crate::hub::{self, Turn, Turnstile, WaitId, WaitsFor};

/// Items, or room for more of them.
///
/// While an item is free, or there is room, nobody stands in line but those whose deadline has passed.
pub(super) struct Stock<T> {
    max: Cell<usize>,
    /// How many items there are or are being made, lent ones included.
    count: Cell<usize>,
    free: RefCell<VecDeque<T>>,
    as_stack: bool,
    line: Turnstile,
    /// For those who have left the line with a grant, and have not run yet.
    granted: RefCell<Vec<(WaitId, Grant<T>)>>,
}

/// What who asks for an item gets.
pub(super) enum Grant<T> {
    Item(T),
    /// Room for an item, to make it: it counts already.
    Room,
}

impl<T> Stock<T> {
    pub(super) fn new(max: usize, as_stack: bool) -> Self {
        Self {
            max: Cell::new(max),
            count: Cell::new(0),
            free: RefCell::default(),
            as_stack,
            line: Turnstile::default(),
            granted: RefCell::default(),
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max.get()
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    pub(super) fn free(&self) -> isize {
        let signed = |n: usize| isize::try_from(n).unwrap_or(isize::MAX);
        signed(self.max.get()) - signed(self.count.get()) + signed(self.free.borrow().len())
    }

    /// An item that is free, or room for one.
    pub(super) fn try_take(&self) -> Option<Grant<T>> {
        if let Some(item) = self.free.borrow_mut().pop_front() {
            return Some(Grant::Item(item));
        }
        let has_room = self.count.get() < self.max.get();
        has_room.then(|| {
            self.count.set(self.count.get() + 1);
            Grant::Room
        })
    }

    /// As [`try_take`](Self::try_take), but waits, if need be; no longer than `timeout`.
    pub(super) fn take(&self, timeout: Option<Duration>) -> Option<Grant<T>> {
        self.try_take().or_else(|| self.wait(timeout))
    }

    fn wait(&self, timeout: Option<Duration>) -> Option<Grant<T>> {
        let Some(hub) = hub::current() else { return in_vain(timeout) };
        let deadline = hub.deadline_after(timeout);
        let turn = self.line.stand(&hub, WaitsFor::PoolItem, deadline, |turn| {
            if let Turn::Granted(id) = turn {
                match self.collect(id) {
                    Grant::Item(item) => self.give(item),
                    Grant::Room => self.give_room(),
                }
            }
        });
        match turn {
            Turn::Granted(id) => Some(self.collect(id)),
            Turn::Missed => in_vain(timeout),
        }
    }

    /// What was granted to a wait.
    fn collect(&self, id: WaitId) -> Grant<T> {
        let mut granted = self.granted.borrow_mut();
        let at = granted.iter().position(|(to, _)| *to == id).expect("granted with its turn");
        granted.remove(at).1
    }

    /// Takes an item back, for the next in line, or to be free; drops it if there are too many.
    pub(super) fn give(&self, item: T) {
        if self.count.get() > self.max.get() {
            // Before it is dropped, which may block.
            self.count.set(self.count.get() - 1);
            return drop(item);
        }
        let Some(id) = self.grant() else {
            let mut free = self.free.borrow_mut();
            return if self.as_stack { free.push_front(item) } else { free.push_back(item) };
        };
        self.granted.borrow_mut().push((id, Grant::Item(item)));
    }

    /// Takes room back, as an item is no more, or could not be made.
    pub(super) fn give_room(&self) {
        let next = if self.count.get() <= self.max.get() { self.grant() } else { None };
        match next {
            Some(id) => self.granted.borrow_mut().push((id, Grant::Room)),
            None => self.count.set(self.count.get() - 1),
        }
    }

    fn grant(&self) -> Option<WaitId> {
        if self.line.len() == 0 { None } else { self.line.grant(&*hub::current()?) }
    }

    pub(super) fn resize(&self, max: usize) {
        self.max.set(max);
        while self.count.get() < max {
            let Some(id) = self.grant() else { return };
            self.count.set(self.count.get() + 1);
            self.granted.borrow_mut().push((id, Grant::Room));
        }
        while self.count.get() > self.max.get() {
            // Each is dropped when nothing is borrowed, as that may block.
            let Some(item) = self.free.borrow_mut().pop_back() else { return };
            self.count.set(self.count.get() - 1);
            drop(item);
        }
    }

    /// Takes those out of the free ones that `is_over` says are, and returns them; their room is free.
    pub(super) fn remove_free(&self, is_over: impl Fn(&T) -> bool) -> Vec<T> {
        let mut free = self.free.borrow_mut();
        let (over, kept): (Vec<_>, VecDeque<_>) = mem::take(&mut *free).into_iter().fold(
            (Vec::new(), VecDeque::new()),
            |(mut over, mut kept), item| {
                if is_over(&item) {
                    over.push(item)
                } else {
                    kept.push_back(item)
                }
                (over, kept)
            },
        );
        *free = kept;
        self.count.set(self.count.get() - over.len());
        over
    }

    /// The least of what `key` says of the free ones.
    pub(super) fn first_free(&self, key: impl Fn(&T) -> Deadline) -> Option<Deadline> {
        self.free.borrow().iter().map(key).min()
    }
}

/// What a wait comes to that has missed its turn, or cannot begin as the thread is exiting.
fn in_vain<R>(timeout: Option<Duration>) -> Option<R> {
    assert!(timeout.is_some(), "cannot wait for an item of a pool: this thread is exiting");
    None
}

/// Room for an item that is being made: given back if that fails.
pub(super) struct Room<'a, T>(Option<&'a Stock<T>>);

impl<'a, T> Room<'a, T> {
    /// For room that was granted.
    pub(super) fn new(stock: &'a Stock<T>) -> Self {
        Self(Some(stock))
    }

    /// The item is there.
    pub(super) fn fill(mut self) {
        self.0 = None;
    }
}

impl<T> Drop for Room<'_, T> {
    fn drop(&mut self) {
        if let Some(stock) = self.0 {
            stock.give_room();
        }
    }
}
