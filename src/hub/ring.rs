//! The queue that the run queue is made of: first in, first out. Whoever is alone there, as when two
//! greenlets talk to each other, has a place of its own. The others are in one piece of memory whose size is a
//! power of two, so that a turn costs a mask and no branch.

use std::iter;
use std::mem;

/// A queue of `T`s, each with an `N` beside it: apart from each other, so that the processor sees no
/// load that is wider than the store before it, which would stall it.
#[derive(Debug)]
pub(super) struct Queue<T, N> {
    /// The first, if it came when there was none.
    first: Slot<T, N>,
    others: Ring<T, N>,
}

#[derive(Debug)]
struct Ring<T, N> {
    /// As many as there is room for: none, or a power of two.
    slots: Box<[Slot<T, N>]>,
    /// How many were ever taken out, modulo 2^64: the place of the next is this modulo the room.
    taken: usize,
    len: usize,
}

#[derive(Debug)]
struct Slot<T, N> {
    item: Option<T>,
    note: N,
}

impl<T, N: Copy + Default> Slot<T, N> {
    fn empty() -> Self {
        Self { item: None, note: N::default() }
    }

    #[inline(always)]
    fn get(&self) -> Option<(&T, N)> {
        Some((self.item.as_ref()?, self.note))
    }

    /// Fills it; it is empty.
    #[inline(always)]
    fn fill(&mut self, item: T, note: N) {
        // There was none: nothing to drop.
        mem::forget(self.item.replace(item));
        self.note = note;
    }

    /// Takes out what is in it, if `accept` takes that.
    #[inline(always)]
    fn take_if(&mut self, accept: impl FnOnce(&T, N) -> bool) -> Option<(T, N)> {
        let (item, note) = self.get()?;
        if accept(item, note) { Some((self.item.take()?, note)) } else { None }
    }

    /// Takes out what is in it, if `next` has another to put in for it.
    #[inline(always)]
    fn replace(&mut self, next: impl FnOnce(&T, N) -> Option<(T, N)>) -> Option<(T, N)> {
        let (first, first_note) = (self.item.take()?, self.note);
        let Some((last, last_note)) = next(&first, first_note) else {
            self.fill(first, first_note);
            return None;
        };
        self.fill(last, last_note);
        Some((first, first_note))
    }
}

impl<T, N: Copy + Default> Default for Queue<T, N> {
    fn default() -> Self {
        Self { first: Slot::empty(), others: Ring::default() }
    }
}

impl<T, N: Copy + Default> Queue<T, N> {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.item.is_some()) + self.others.len
    }

    /// Whether its length is above `len`, give or take one.
    #[inline(always)]
    pub(super) fn is_longer_than(&self, len: usize) -> bool {
        self.others.len > len
    }

    /// The one that is taken out next.
    #[inline(always)]
    pub(super) fn front(&self) -> Option<(&T, N)> {
        self.first.get().or_else(|| self.others.front())
    }

    /// Of those that have no place of their own, the one behind `index` others.
    #[inline(always)]
    pub(super) fn get_other(&self, index: usize) -> Option<&T> {
        self.others.get(index)
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(T, N)> {
        self.pop_if(|_, _| true)
    }

    /// Takes out the first, if `accept` takes it.
    #[inline(always)]
    pub(super) fn pop_if(&mut self, accept: impl FnOnce(&T, N) -> bool) -> Option<(T, N)> {
        if self.first.item.is_some() {
            return self.first.take_if(accept);
        }
        self.others.pop_if(accept)
    }

    #[inline(always)]
    pub(super) fn push(&mut self, item: T, note: N) {
        if self.first.item.is_none() && self.others.len == 0 {
            self.first.fill(item, note);
        } else {
            self.others.push(item, note);
        }
    }

    /// Has the first and the one behind `index` others change places.
    pub(super) fn swap_first(&mut self, index: usize) {
        debug_assert!(index < self.len());
        if self.first.item.is_none() {
            self.others.swap_first(index);
        } else if index > 0 {
            let other = self.others.place(self.others.taken.wrapping_add(index - 1));
            mem::swap(&mut self.first, &mut self.others.slots[other]);
        }
    }

    /// Takes out the first, if `next` has another to put in for it. With it comes how many are not in a
    /// place of their own.
    #[inline(always)]
    pub(super) fn rotate(
        &mut self,
        next: impl FnOnce(&T, N) -> Option<(T, N)>,
    ) -> Option<(T, N, usize)> {
        let with = |others: usize| move |(item, note): (T, N)| (item, note, others);
        match (&self.first.item, self.others.len) {
            (Some(_), 0) => self.first.replace(next).map(with(0)),
            (None, others @ 2..) => self.others.rotate(next).map(with(others)),
            (_, others) => self.move_and_rotate(next).map(with(others)),
        }
    }

    /// [`rotate`](Self::rotate), where the first leaves its own place, or the last gets there.
    #[inline(never)]
    fn move_and_rotate(&mut self, next: impl FnOnce(&T, N) -> Option<(T, N)>) -> Option<(T, N)> {
        let (first, note) = self.front()?;
        let (last, last_note) = next(first, note)?;
        let first = self.pop();
        self.push(last, last_note);
        first
    }

    /// All, in order, where they are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&T, N)> {
        self.first.get().into_iter().chain(self.others.iter())
    }

    /// All, in order.
    pub(super) fn into_items(mut self) -> impl Iterator<Item = T> {
        iter::from_fn(move || Some(self.pop()?.0))
    }
}

impl<T, N: Copy + Default> Default for Ring<T, N> {
    fn default() -> Self {
        Self { slots: Box::default(), taken: 0, len: 0 }
    }
}

impl<T, N: Copy + Default> Ring<T, N> {
    #[inline(always)]
    fn front(&self) -> Option<(&T, N)> {
        // There is nothing at its place if there is none, or no place at all.
        self.slots.get(self.place(self.taken))?.get()
    }

    #[inline(always)]
    fn get(&self, index: usize) -> Option<&T> {
        if index >= self.len {
            return None;
        }
        self.slots.get(self.place(self.taken.wrapping_add(index)))?.item.as_ref()
    }

    #[inline(always)]
    fn pop_if(&mut self, accept: impl FnOnce(&T, N) -> bool) -> Option<(T, N)> {
        let place = self.place(self.taken);
        let popped = self.slots.get_mut(place)?.take_if(accept)?;
        self.taken = self.taken.wrapping_add(1);
        self.len -= 1;
        Some(popped)
    }

    #[inline(always)]
    fn push(&mut self, item: T, note: N) {
        let place = self.place(self.taken.wrapping_add(self.len));
        match self.slots.get_mut(place) {
            Some(slot) if slot.item.is_none() => {
                slot.fill(item, note);
                self.len += 1;
            }
            // All places are taken.
            _ => self.push_more(item, note),
        }
    }

    #[cold]
    #[inline(never)]
    fn push_more(&mut self, item: T, note: N) {
        self.grow();
        self.push(item, note);
    }

    fn swap_first(&mut self, index: usize) {
        let first = self.place(self.taken);
        let other = self.place(self.taken.wrapping_add(index));
        self.slots.swap(first, other);
    }

    #[inline(always)]
    fn rotate(&mut self, next: impl FnOnce(&T, N) -> Option<(T, N)>) -> Option<(T, N)> {
        // Where the first is, and the place behind the others: the same, if there is no room.
        let (front, back) = (self.place(self.taken), self.place(self.taken.wrapping_add(self.len)));
        let slots = &mut *self.slots;
        let slot = slots.get_mut(front)?;
        let (first, first_note) = (slot.item.take()?, slot.note);
        let Some((last, last_note)) = next(&first, first_note) else {
            slot.fill(first, first_note);
            return None;
        };
        self.taken = self.taken.wrapping_add(1);
        slots[back].fill(last, last_note);
        Some((first, first_note))
    }

    fn iter(&self) -> impl Iterator<Item = (&T, N)> {
        (0..self.len)
            .filter_map(|index| self.slots.get(self.place(self.taken.wrapping_add(index)))?.get())
    }

    #[inline(always)]
    fn place(&self, count: usize) -> usize {
        count & self.slots.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let room = (self.slots.len() * 2).max(16);
        let all = iter::from_fn(|| self.pop_if(|_, _| true));
        let mut slots: Vec<_> = all.map(|(item, note)| Slot { item: Some(item), note }).collect();
        (self.taken, self.len) = (0, slots.len());
        slots.resize_with(room, Slot::empty);
        self.slots = slots.into_boxed_slice();
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use quickcheck::quickcheck;
    use std::collections::VecDeque;

    quickcheck! {
        /// `None` pops; a number says by its remainder what else is done.
        fn it_is_a_queue(steps: Vec<Option<u8>>) -> bool {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            steps.into_iter().all(|step| {
                let same = match step.map(|number| (number % 8, number)) {
                    None => queue.pop() == model.pop_front(),
                    Some((0..=1, number)) => {
                        let first = model.pop_front();
                        model.extend(first.map(|_| (number, number)));
                        queue.rotate(|_, _| Some((number, number))).map(|(n, m, _)| (n, m)) == first
                    }
                    Some((2, _)) => queue.rotate(|_, _| None).is_none(),
                    Some((3, _)) => queue.pop_if(|_, _| false).is_none(),
                    Some((4, number)) if !model.is_empty() => {
                        let other = usize::from(number) % model.len();
                        queue.swap_first(other);
                        model.swap(0, other);
                        true
                    }
                    Some((_, number)) => {
                        queue.push(number, number);
                        model.push_back((number, number));
                        true
                    }
                };
                same && queue.len() == model.len()
                    && queue.front().map(|(item, note)| (*item, note)) == model.front().copied()
                    && queue.iter().map(|(item, note)| (*item, note)).eq(model.iter().copied())
            })
        }
    }

    #[test]
    fn its_ring_is_in_order_behind_the_one_with_a_place_of_its_own() {
        let mut queue = Queue::default();
        for item in 0..4 {
            queue.push(item, ());
        }
        assert_eq!(
            [0, 1, 2, 3].map(|index| queue.get_other(index)),
            [Some(&1), Some(&2), Some(&3), None]
        );
        assert!(queue.is_longer_than(2) && !queue.is_longer_than(3));
    }

    #[test]
    fn its_order_survives_growing_when_it_has_wrapped() {
        let mut queue = Queue::default();
        for item in 0..12 {
            queue.push(item, ());
        }
        for item in 0..10 {
            assert_eq!(queue.pop(), Some((item, ())));
        }
        for item in 12..40 {
            queue.push(item, ());
        }
        for item in 10..40 {
            assert_eq!(queue.pop(), Some((item, ())));
        }
        assert_eq!(queue.pop(), None);
    }
}
