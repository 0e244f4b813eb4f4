//! Values as they come.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::rc::Rc;

use super::graph::Graph;
use super::{Key, PropagateError};
use crate::clock::Deadline;
use crate::hub::{self, Wait, WaitId, WaitsFor, Wake};

/// Where the keys arrive that have got a value, for one who waits for them.
pub(super) struct Mailbox<K> {
    arrived: RefCell<VecDeque<K>>,
    wait: Cell<Option<WaitId>>,
}

impl<K> Mailbox<K> {
    pub(super) fn put(&self, key: K) {
        self.arrived.borrow_mut().push_back(key);
        if let (Some(wait), Some(hub)) = (self.wait.take(), hub::current()) {
            hub.wake(wait, Wake::Ready);
        }
    }
}

/// The values of some keys, as they come: [`DAGPool::wait_each`](super::DAGPool::wait_each). Those
/// that have failed come as errors.
#[must_use = "it waits for nothing until values are asked for"]
pub struct Values<K: Key, V: 'static> {
    graph: Rc<RefCell<Graph<K, V>>>,
    mailbox: Rc<Mailbox<K>>,
    /// How many have not been asked for.
    left: usize,
}

impl<K: Key, V: 'static> Values<K, V> {
    /// Each key counts once.
    pub(super) fn new(graph: &Rc<RefCell<Graph<K, V>>>, keys: Vec<K>) -> Self {
        let mailbox = Rc::new(Mailbox { arrived: RefCell::default(), wait: Cell::new(None) });
        let mut seen = HashSet::new();
        let keys: Vec<K> = keys.into_iter().filter(|key| seen.insert(key.clone())).collect();
        let left = keys.len();
        let mut open = graph.borrow_mut();
        for key in keys {
            if open.get(&key).is_some() {
                mailbox.arrived.borrow_mut().push_back(key);
            } else {
                open.subscribe(key, &mailbox);
            }
        }
        drop(open);
        Self { graph: Rc::clone(graph), mailbox, left }
    }

    /// Waits for a key to arrive.
    fn next_key(&self) -> K {
        loop {
            if let Some(key) = self.mailbox.arrived.borrow_mut().pop_front() {
                return key;
            }
            let woken = hub::current().map(|hub| {
                let wait = Wait::begin(&hub, WaitsFor::Value);
                self.mailbox.wait.set(Some(wait.id()));
                wait.park(Deadline::NEVER)
            });
            let is_there = !matches!(woken, None | Some(Wake::Closed));
            assert!(is_there, "cannot wait for a value: this thread is exiting");
        }
    }
}

impl<K: Key, V: Clone + 'static> Iterator for Values<K, V> {
    type Item = Result<(K, V), PropagateError<K>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left.checked_sub(1)?;
        let key = self.next_key();
        self.left -= 1;
        let outcome = self.graph.borrow().get(&key).expect("it has arrived");
        Some(outcome.map(|value| (key, V::clone(&value))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K: Key, V: 'static> fmt::Debug for Values<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The values of those keys that do not fail.
#[derive(Debug)]
#[must_use = "it waits for nothing until values are asked for"]
pub struct Successes<K: Key, V: 'static>(pub(super) Values<K, V>);

impl<K: Key, V: Clone + 'static> Iterator for Successes<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        self.0.find_map(Result::ok)
    }
}

/// The errors of those keys that fail.
#[derive(Debug)]
#[must_use = "it waits for nothing until values are asked for"]
pub struct Failures<K: Key, V: 'static>(pub(super) Values<K, V>);

impl<K: Key, V: Clone + 'static> Iterator for Failures<K, V> {
    type Item = (K, PropagateError<K>);

    fn next(&mut self) -> Option<(K, PropagateError<K>)> {
        self.0.find_map(|value| value.err().map(|error| (error.key().clone(), error)))
    }
}
