//! In which order a queue's items come out.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::mem;

pub(super) trait Store {
    type Item;

    fn new() -> Self;
    fn push(&mut self, item: Self::Item);
    fn pop(&mut self) -> Option<Self::Item>;
    fn len(&self) -> usize;
}

/// First in, first out. An item that lies there alone, as all do that are taken as fast as they come,
/// takes no memory of its own.
pub(super) struct Fifo<T> {
    len: usize,
    /// The first, if it came when there was none.
    first: Option<T>,
    others: VecDeque<T>,
}

impl<T> Store for Fifo<T> {
    type Item = T;

    fn new() -> Self {
        Self { len: 0, first: None, others: VecDeque::new() }
    }

    #[inline(always)]
    fn push(&mut self, item: T) {
        if self.len == 0 {
            // There was none: nothing to drop.
            mem::forget(self.first.replace(item));
        } else {
            self.others.push_back(item);
        }
        self.len += 1;
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<T> {
        let first = self.first.take().or_else(|| self.others.pop_front())?;
        self.len -= 1;
        Some(first)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }
}

/// Last in, first out.
pub(super) struct Lifo<T>(Vec<T>);

impl<T> Store for Lifo<T> {
    type Item = T;

    fn new() -> Self {
        Self(Vec::new())
    }

    fn push(&mut self, item: T) {
        self.0.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The least first, and of equals the one that came first.
pub(super) struct Lowest<T> {
    heap: BinaryHeap<Reverse<Numbered<T>>>,
    next: u64,
}

struct Numbered<T> {
    item: T,
    number: u64,
}

impl<T: Ord> Store for Lowest<T> {
    type Item = T;

    fn new() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }

    fn push(&mut self, item: T) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Reverse(Numbered { item, number }));
    }

    fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|Reverse(numbered)| numbered.item)
    }

    fn len(&self) -> usize {
        self.heap.len()
    }
}

impl<T: Ord> Ord for Numbered<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.item.cmp(&other.item).then(self.number.cmp(&other.number))
    }
}

impl<T: Ord> PartialOrd for Numbered<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Numbered<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for Numbered<T> {}
