//! What all queues do: a store of items, a line of those who wait for one, and a line of those who
//! wait for room, each with its item.
//!
//! Items that are there, in the store or in the hands of a putter, are *available*. As many getters
//! as there are such items are *called* (taken out of the line and woken), and they are those who
//! would be the first of it. A called getter takes an item when its turn comes. If it is killed
//! instead, the next one is called. If `get_nowait` is quicker, or a putter gives up, the last who was
//! called goes back to its place. So no item is ever on its way: it is in the store, with its putter,
//! or with who got it.
//!
//! A putter's item goes into the store, or to a getter, from its place in the line, and the putter is
//! taken out of the line and woken. So who finds itself out of the line has put its item.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::mem;
use std::time::Duration;

use super::store::Store;
use super::waits::{Getting, Joining, Putting};
use super::{Empty, Full, TooManyDone};
use crate::clock::Deadline;
use crate::hub::{self, Line, Wait, WaitId, WaitsFor, Wake};

pub(super) struct Core<S: Store> {
    state: RefCell<State<S>>,
    /// Who waits until all items are done.
    joiners: RefCell<Line<WaitId>>,
    unfinished: Cell<usize>,
}

pub(super) struct State<S: Store> {
    store: S,
    /// How many items it holds at most. The greatest number there is: no limit.
    maxsize: usize,
    pub(super) getters: Line<WaitId>,
    /// Those who have been called and have not run since, no more than there are items.
    pub(super) called: Line<WaitId>,
    pub(super) putters: Line<Putter<S::Item>>,
}

pub(super) struct Putter<T> {
    wait: WaitId,
    pub(super) item: T,
}

impl<S: Store> State<S> {
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.store.len() < self.maxsize
    }

    #[inline(always)]
    fn available(&self) -> usize {
        self.store.len() + self.putters.len()
    }
}

impl<S: Store> Core<S> {
    pub(super) fn new(maxsize: Option<usize>) -> Self {
        let state = State {
            store: S::new(),
            maxsize: maxsize.unwrap_or(usize::MAX),
            getters: Line::new(),
            called: Line::new(),
            putters: Line::new(),
        };
        Self { state: RefCell::new(state), joiners: RefCell::default(), unfinished: Cell::new(0) }
    }

    /// Only `Ord` of the user's ever runs while it is borrowed.
    #[inline(always)]
    pub(super) fn state(&self) -> RefMut<'_, State<S>> {
        let state = self.state.try_borrow_mut();
        state.expect("a priority queue cannot be used while it compares its items")
    }

    /// Puts an item into the store.
    #[inline(always)]
    fn store(&self, state: &mut State<S>, item: S::Item) {
        // First, as a comparison of items may panic, and the item stays in the store then.
        self.unfinished.set(self.unfinished.get() + 1);
        let stored = Stored { core: self, state };
        stored.state.store.push(item);
        std::mem::forget(stored);
    }

    /// Moves items of putters into the store, as far as there is room.
    #[inline(always)]
    fn admit(&self, state: &mut State<S>) {
        if self.admit_one(state) && !state.putters.is_empty() {
            self.admit_others(state);
        }
    }

    #[inline(always)]
    fn admit_one(&self, state: &mut State<S>) -> bool {
        if !state.has_room() {
            return false;
        }
        let Some(Putter { wait, item }) = state.putters.take_first() else { return false };
        wake(wait);
        self.store(state, item);
        true
    }

    #[inline(never)]
    fn admit_others(&self, state: &mut State<S>) {
        while self.admit_one(state) {}
    }

    /// Calls getters, as far as there are items for them.
    #[inline(always)]
    pub(super) fn call(&self, state: &mut State<S>) {
        if self.call_one(state) && !state.getters.is_empty() {
            self.call_others(state);
        }
    }

    #[inline(always)]
    fn call_one(&self, state: &mut State<S>) -> bool {
        if state.getters.is_empty() || state.called.len() >= state.available() {
            return false;
        }
        let Some((ticket, getter)) = state.getters.take_first_with_ticket() else { return false };
        state.called.join_again(ticket, getter);
        // If it stands in the queue already, it finds out when it runs.
        wake(getter);
        true
    }

    #[inline(never)]
    fn call_others(&self, state: &mut State<S>) {
        while self.call_one(state) {}
    }

    /// Sends getters back, if items are gone that they were called for.
    #[inline]
    pub(super) fn call_back(&self, state: &mut State<S>) {
        while state.called.len() > state.available() {
            let Some((ticket, getter)) = state.called.take_last_with_ticket() else { break };
            state.getters.join_again(ticket, getter);
        }
    }

    /// Takes an item out, if any is available.
    #[inline(always)]
    fn take(&self, state: &mut State<S>) -> Option<S::Item> {
        if let Some(item) = state.store.pop() {
            if !state.putters.is_empty() {
                self.admit(state);
            }
            return Some(item);
        }
        let Putter { wait, item } = state.putters.take_first()?;
        self.unfinished.set(self.unfinished.get() + 1);
        wake(wait);
        Some(item)
    }

    pub(super) fn put_nowait(&self, item: S::Item) -> Result<(), Full<S::Item>> {
        let mut state = self.state();
        // Who waits in the line has no item yet, and needs no room for this one.
        if !state.has_room() && state.getters.is_empty() {
            return Err(Full(item));
        }
        self.store(&mut state, item);
        self.call(&mut state);
        Ok(())
    }

    #[inline]
    pub(super) fn put(
        &self,
        item: S::Item,
        timeout: Option<Duration>,
    ) -> Result<(), Full<S::Item>> {
        let mut state = self.state();
        if !state.has_room() {
            return self.wait_to_put(item, state, timeout);
        }
        self.store(&mut state, item);
        self.call(&mut state);
        Ok(())
    }

    #[inline]
    fn wait_to_put(
        &self,
        item: S::Item,
        mut state: RefMut<'_, State<S>>,
        timeout: Option<Duration>,
    ) -> Result<(), Full<S::Item>> {
        let Some(wait) = Wait::try_begin(WaitsFor::RoomForItem) else {
            drop(state);
            return nobody_waits(timeout, Err(Full(item)));
        };
        let ticket = state.putters.join(Putter { wait: wait.id(), item });
        self.call(&mut state);
        drop(state);
        let putting = Putting { core: self, ticket };
        let wake = wait.park_inline(hub::deadline_after(timeout));
        if wake == Wake::Ready {
            // Woken by who took it out of the line.
            mem::forget(putting);
            return Ok(());
        }
        match putting.leave() {
            None => Ok(()),
            Some(item) if wake == Wake::Closed => nobody_waits(timeout, Err(Full(item))),
            Some(item) => Err(Full(item)),
        }
    }

    pub(super) fn get_nowait(&self) -> Result<S::Item, Empty> {
        let mut state = self.state();
        let item = self.take(&mut state);
        self.call_back(&mut state);
        item.ok_or(Empty)
    }

    #[inline]
    pub(super) fn get(&self, timeout: Option<Duration>) -> Result<S::Item, Empty> {
        let mut state = self.state();
        // As many as were called are spoken for.
        if state.available() > state.called.len() {
            return self.take(&mut state).ok_or(Empty);
        }
        self.wait_to_get(state, timeout)
    }

    #[inline]
    fn wait_to_get(
        &self,
        mut state: RefMut<'_, State<S>>,
        timeout: Option<Duration>,
    ) -> Result<S::Item, Empty> {
        let Some(wait) = Wait::try_begin(WaitsFor::Item) else {
            drop(state);
            return nobody_waits(timeout, Err(Empty));
        };
        let ticket = state.getters.join(wait.id());
        drop(state);
        let getting = Getting { core: self, ticket };
        let deadline = hub::deadline_after(timeout);
        let wake = wait.park_inline(deadline);
        let mut state = self.state();
        if wake == Wake::Ready && state.called.leave_first(ticket).is_some() {
            if let Some(item) = self.take(&mut state) {
                mem::forget(getting);
                return Ok(item);
            }
        }
        drop(state);
        self.go_on_getting(getting, wake, deadline, timeout)
    }

    /// The rest of a wait that ended otherwise than by the turn of the first who was called.
    #[cold]
    #[inline(never)]
    fn go_on_getting<'a>(
        &'a self,
        mut getting: Getting<'a, S>,
        mut wake: Wake,
        deadline: Deadline,
        timeout: Option<Duration>,
    ) -> Result<S::Item, Empty> {
        loop {
            let ticket = getting.ticket;
            let was_called = getting.end();
            if was_called {
                if let Some(item) = self.take(&mut self.state()) {
                    return Ok(item);
                }
            }
            match wake {
                // It was called back.
                Wake::Ready => {}
                Wake::Closed => return nobody_waits(timeout, Err(Empty)),
                _ => return Err(Empty),
            }
            let Some(wait) = Wait::try_begin(WaitsFor::Item) else {
                return nobody_waits(timeout, Err(Empty));
            };
            self.state().getters.join_again(ticket, wait.id());
            getting = Getting { core: self, ticket };
            wake = wait.park(deadline);
        }
    }

    pub(super) fn qsize(&self) -> usize {
        let state = self.state();
        let stored = state.store.len();
        // What goes from hand to hand lies in the store until its getter runs.
        if state.maxsize == 0 { stored.saturating_sub(state.called.len()) } else { stored }
    }

    pub(super) fn maxsize(&self) -> Option<usize> {
        Some(self.state().maxsize).filter(|maxsize| *maxsize < usize::MAX)
    }

    pub(super) fn is_full(&self) -> bool {
        let size = self.qsize();
        self.maxsize().is_some_and(|maxsize| size >= maxsize)
    }

    pub(super) fn resize(&self, maxsize: Option<usize>) {
        let mut state = self.state();
        state.maxsize = maxsize.unwrap_or(usize::MAX);
        self.admit(&mut state);
    }

    pub(super) fn putting(&self) -> usize {
        self.state().putters.len()
    }

    pub(super) fn getting(&self) -> usize {
        let state = self.state();
        state.getters.len() + state.called.len()
    }

    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.get()
    }

    pub(super) fn task_done(&self) -> Result<(), TooManyDone> {
        let left = self.unfinished.get().checked_sub(1).ok_or(TooManyDone)?;
        self.unfinished.set(left);
        if left == 0 {
            let next = || self.joiners.borrow_mut().take_first();
            while let Some(joiner) = next() {
                wake(joiner);
            }
        }
        Ok(())
    }

    /// Whether all were done in time.
    pub(super) fn join(&self, timeout: Option<Duration>) -> bool {
        if self.unfinished.get() == 0 {
            return true;
        }
        let Some(wait) = Wait::try_begin(WaitsFor::TasksDone) else {
            return nobody_waits(timeout, false);
        };
        let joiners = &self.joiners;
        let ticket = joiners.borrow_mut().join(wait.id());
        let joining = Joining { joiners, ticket };
        let wake = wait.park(hub::deadline_after(timeout));
        let all_done = joining.end();
        if !all_done && wake == Wake::Closed { nobody_waits(timeout, false) } else { all_done }
    }

    pub(super) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("maxsize", &self.maxsize())
            .field("qsize", &self.qsize())
            .field("getting", &self.getting())
            .field("putting", &self.putting())
            .finish_non_exhaustive()
    }
}

#[inline(always)]
fn wake(wait: WaitId) {
    hub::wake(wait, Wake::Ready);
}

/// What a wait comes to while the thread exits.
fn nobody_waits<R>(timeout: Option<Duration>, in_vain: R) -> R {
    assert!(timeout.is_some(), "cannot wait for a queue: this thread is exiting");
    in_vain
}

/// An item that is being stored. If a comparison panics, it is there all the same, for who waits.
struct Stored<'a, S: Store> {
    core: &'a Core<S>,
    state: &'a mut State<S>,
}

impl<S: Store> Drop for Stored<'_, S> {
    fn drop(&mut self) {
        self.core.call(self.state);
    }
}
