//! The queue that the run queue is made of: first in, first out, in one piece of memory whose size is
//! a power of two, so that a turn costs a mask and no branch.

use std::iter;
use std::mem;

/// A queue of `T`s, each with an `N` beside it: apart from each other, so that the processor sees no
/// load that is wider than the store before it, which would stall it.
#[derive(Debug)]
pub(super) struct Ring<T, N> {
    /// As many as there is room for: none, or a power of two.
    slots: Box<[Slot<T, N>]>,
    /// How many were ever taken out, modulo 2^64: the place of the next is this modulo the room.
    taken: usize,
    len: usize,
}

#[derive(Debug, Default)]
struct Slot<T, N> {
    item: Option<T>,
    note: N,
}

impl<T, N: Copy + Default> Default for Ring<T, N> {
    fn default() -> Self {
        Self { slots: Box::default(), taken: 0, len: 0 }
    }
}

impl<T, N: Copy + Default> Ring<T, N> {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The one that is taken out next.
    #[inline(always)]
    pub(super) fn front(&self) -> Option<(&T, N)> {
        // There is nothing at its place if there is none, or no place at all.
        let slot = self.slots.get(self.place(self.taken))?;
        Some((slot.item.as_ref()?, slot.note))
    }

    /// The one that is taken out after `index` others.
    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        if index >= self.len {
            return None;
        }
        self.slots.get(self.place(self.taken.wrapping_add(index)))?.item.as_ref()
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(T, N)> {
        self.pop_if(|_, _| true)
    }

    /// Takes out the first, if `accept` takes it.
    #[inline(always)]
    pub(super) fn pop_if(&mut self, accept: impl FnOnce(&T, N) -> bool) -> Option<(T, N)> {
        let place = self.place(self.taken);
        let slot = self.slots.get_mut(place)?;
        if !accept(slot.item.as_ref()?, slot.note) {
            return None;
        }
        let item = slot.item.take()?;
        self.taken = self.taken.wrapping_add(1);
        self.len -= 1;
        Some((item, slot.note))
    }

    #[inline(always)]
    pub(super) fn push(&mut self, item: T, note: N) {
        if self.len == self.slots.len() {
            self.grow();
        }
        let place = self.place(self.taken.wrapping_add(self.len));
        self.len += 1;
        let slot = &mut self.slots[place];
        // There was none at that place: nothing to drop.
        mem::forget(slot.item.replace(item));
        slot.note = note;
    }

    /// Has the first and the one behind `index` others change places.
    pub(super) fn swap_first(&mut self, index: usize) {
        debug_assert!(index < self.len);
        let first = self.place(self.taken);
        let other = self.place(self.taken.wrapping_add(index));
        self.slots.swap(first, other);
    }

    /// Takes out the first, if `next` has another to put in for it.
    #[inline(always)]
    pub(super) fn rotate(&mut self, next: impl FnOnce(&T, N) -> Option<(T, N)>) -> Option<(T, N)> {
        // Where the first is, and the place behind the others: the same, if there is no room.
        let (front, back) = (self.place(self.taken), self.place(self.taken.wrapping_add(self.len)));
        let slots = &mut *self.slots;
        let Slot { item, note } = slots.get_mut(front)?;
        let (first, first_note) = (item.take()?, *note);
        let Some((last, last_note)) = next(&first, first_note) else {
            mem::forget(item.replace(first));
            return None;
        };
        self.taken = self.taken.wrapping_add(1);
        let slot = &mut slots[back];
        mem::forget(slot.item.replace(last));
        slot.note = last_note;
        Some((first, first_note))
    }

    /// All, in order, where they are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&T, N)> {
        (0..self.len).filter_map(|index| {
            let slot = self.slots.get(self.place(self.taken.wrapping_add(index)))?;
            Some((slot.item.as_ref()?, slot.note))
        })
    }

    /// All, in order.
    pub(super) fn into_items(mut self) -> impl Iterator<Item = T> {
        iter::from_fn(move || Some(self.pop()?.0))
    }

    #[inline(always)]
    fn place(&self, count: usize) -> usize {
        count & self.slots.len().wrapping_sub(1)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let room = (self.slots.len() * 2).max(16);
        let all = iter::from_fn(|| self.pop());
        let mut slots: Vec<_> = all.map(|(item, note)| Slot { item: Some(item), note }).collect();
        (self.taken, self.len) = (0, slots.len());
        slots.resize_with(room, || Slot { item: None, note: N::default() });
        self.slots = slots.into_boxed_slice();
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use quickcheck::quickcheck;
    use std::collections::VecDeque;

    quickcheck! {
        /// `None` pops, and zero rotates.
        fn it_is_a_queue(steps: Vec<Option<u8>>) -> bool {
            let (mut ring, mut model) = (Ring::default(), VecDeque::new());
            steps.into_iter().all(|step| {
                let same = match step {
                    Some(0) => {
                        let first = model.pop_front();
                        model.extend(first.map(|_| (0, 0)));
                        ring.rotate(|_, _| Some((0, 0))) == first
                    }
                    Some(item) => {
                        ring.push(item, item);
                        model.push_back((item, item));
                        true
                    }
                    None => ring.pop() == model.pop_front(),
                };
                same && ring.len() == model.len()
                    && ring.front().map(|(item, note)| (*item, note)) == model.front().copied()
                    && (0..3).all(|index| ring.get(index) == model.get(index).map(|(item, _)| item))
            })
        }
    }

    #[test]
    fn its_order_survives_growing_when_it_has_wrapped() {
        let mut ring = Ring::default();
        for item in 0..12 {
            ring.push(item, ());
        }
        for item in 0..10 {
            assert_eq!(ring.pop(), Some((item, ())));
        }
        for item in 12..40 {
            ring.push(item, ());
        }
        for item in 10..40 {
            assert_eq!(ring.pop(), Some((item, ())));
        }
        assert_eq!(ring.pop(), None);
    }
}
