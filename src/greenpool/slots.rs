//! The slots of a pool: how many are taken, by whom, and who waits for one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::clock::Deadline;
use crate::greenlet;
use crate::hub::{self, Turn, Turnstile, WaitsFor};

/// A pool's slots.
///
/// While any is free nobody stands in line, but those whose deadline has passed.
#[derive(Debug)]
pub(super) struct Slots {
    size: Cell<usize>,
    taken: Cell<usize>,
    members: RefCell<Places>,
    /// Who waits for a slot.
    spawners: Turnstile,
    /// Who waits for the pool to be idle.
    waiters: Turnstile,
    /// False if nobody waits, for one or the other.
    may_be_awaited: Cell<bool>,
}

impl Slots {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size: Cell::new(size),
            taken: Cell::new(0),
            members: RefCell::default(),
            spawners: Turnstile::default(),
            waiters: Turnstile::default(),
            may_be_awaited: Cell::new(false),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size.get()
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    pub(super) fn waiting(&self) -> usize {
        self.spawners.len()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.taken.get() >= self.size.get()
    }

    /// Whether the current greenlet is a member.
    pub(super) fn runs_current(&self) -> bool {
        self.members.borrow().contains(greenlet::place_of_current())
    }

    /// Takes a slot, and waits for one if need be.
    #[inline]
    pub(super) fn take(this: &Rc<Self>) -> Slot {
        if this.is_full() {
            this.wait_for_slot();
        } else {
            this.taken.set(this.taken.get() + 1);
        }
        Slot { slots: Rc::clone(this), member: Cell::new(None) }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_slot(&self) {
        self.may_be_awaited.set(true);
        let turn = hub::current().map(|hub| {
            self.spawners.stand(&hub, WaitsFor::Slot, Deadline::NEVER, |turn| match turn {
                Turn::Granted(_) => self.release(),
                Turn::Missed => self.tell_if_idle(),
            })
        });
        let granted = matches!(turn, Some(Turn::Granted(_)));
        assert!(granted, "cannot wait for a slot of a pool: this thread is exiting");
    }

    /// Gives a slot back, or to the next in line.
    #[inline]
    fn release(&self) {
        if self.may_be_awaited.get() {
            self.release_to_others();
        } else {
            self.taken.set(self.taken.get() - 1);
        }
    }

    #[inline(never)]
    fn release_to_others(&self) {
        if self.taken.get() > self.size.get() || !self.grant() {
            self.taken.set(self.taken.get() - 1);
            self.tell_if_idle();
        }
        self.may_be_awaited.set(self.spawners.len() + self.waiters.len() > 0);
    }

    fn grant(&self) -> bool {
        self.spawners.len() > 0
            && hub::current().is_some_and(|hub| self.spawners.grant(&hub).is_some())
    }

    pub(super) fn resize(&self, size: usize) {
        self.size.set(size);
        while !self.is_full() && self.grant() {
            self.taken.set(self.taken.get() + 1);
        }
    }

    fn is_idle(&self) -> bool {
        self.taken.get() == 0 && self.spawners.len() == 0
    }

    fn tell_if_idle(&self) {
        if self.waiters.len() > 0 && self.is_idle() {
            if let Some(hub) = hub::current() {
                self.waiters.grant_all(&hub);
            }
        }
    }

    pub(super) fn wait_until_idle(&self) {
        while !self.is_idle() {
            self.may_be_awaited.set(true);
            let turn = hub::current()
                .map(|hub| self.waiters.stand(&hub, WaitsFor::Pool, Deadline::NEVER, |_| ()));
            let granted = matches!(turn, Some(Turn::Granted(_)));
            assert!(granted, "cannot wait for a pool: this thread is exiting");
        }
    }
}

/// A slot that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Rc<Slots>,
    /// The place of the greenlet that is a member by this.
    member: Cell<Option<u32>>,
}

impl Slot {
    /// Makes the current greenlet a member.
    #[inline(always)]
    pub(super) fn enter(&self) {
        let place = greenlet::place_of_current();
        self.slots.members.borrow_mut().insert(place);
        self.member.set(Some(place));
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        if let Some(place) = self.member.get() {
            self.slots.members.borrow_mut().remove(place);
        }
        self.slots.release();
    }
}

/// A set of greenlets by their places, which are small numbers: a bit for each.
#[derive(Debug, Default)]
struct Places(Vec<u64>);

impl Places {
    fn contains(&self, place: u32) -> bool {
        let (word, bit) = Self::position(place);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    #[inline]
    fn insert(&mut self, place: u32) {
        let (word, bit) = Self::position(place);
        match self.0.get_mut(word) {
            Some(bits) => *bits |= bit,
            None => self.insert_last(word, bit),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_last(&mut self, word: usize, bit: u64) {
        self.0.resize(word, 0);
        self.0.push(bit);
    }

    #[inline]
    fn remove(&mut self, place: u32) {
        let (word, bit) = Self::position(place);
        self.0[word] &= !bit;
    }

    #[inline]
    fn position(place: u32) -> (usize, u64) {
        ((place / u64::BITS) as usize, 1 << (place % u64::BITS))
    }
}
