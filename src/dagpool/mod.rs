//! Green threads that depend on each other's results.
//!
//! Layer 6. Mirrors eventlet's `dagpool`. A [`DAGPool`] has values by key: some it is given, others are
//! what green threads return that it spawns. Each of those says which keys it depends on, and gets
//! their values as they come.
//!
//! ```
//! use stolon::dagpool::{DAGPool, Failure};
//!
//! let pool = DAGPool::new([("a", 2), ("b", 3)]);
//! pool.spawn("sum", ["a", "product"], |_, values| {
//!     let mut sum = 0;
//!     for value in values {
//!         sum += value?.1;
//!     }
//!     Ok::<_, Failure>(sum)
//! })?;
//! pool.spawn("product", ["a", "b"], |_, values| {
//!     let values = values.map(|value| Ok(value?.1)).collect::<Result<Vec<i32>, Failure>>()?;
//!     Ok::<_, Failure>(values.iter().product())
//! })?;
//! assert_eq!(pool.wait_for(&"sum")?, 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keys are compared, hashed, cloned and dropped while the pool is in use: those functions must neither
//! block nor use the pool.

mod error;
mod graph;
mod values;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::greenthread;
pub use error::{Failure, PostError, PropagateError, Reason, SpawnError, UnknownKey};
use graph::{Graph, Task};
pub use values::{Failures, Successes, Values};

/// What a task, or who posts, has for a key.
type Outcome<K, V> = Result<Rc<V>, PropagateError<K>>;

/// What keys must be able to do.
pub trait Key: Clone + Debug + Eq + Hash + 'static {}

impl<K: Clone + Debug + Eq + Hash + 'static> Key for K {}

/// Values by key, and green threads that make them of one another, mirroring eventlet's `DAGPool`.
///
/// Clones are handles to the same pool. Who waits for a key that is never spawned nor posted waits for
/// ever.
pub struct DAGPool<K: Key, V: 'static> {
    graph: Rc<RefCell<Graph<K, V>>>,
}

impl<K: Key, V: Clone + 'static> DAGPool<K, V> {
    /// A pool with some values from the start.
    pub fn new(preload: impl IntoIterator<Item = (K, V)>) -> Self {
        let pool = Self { graph: Rc::new(RefCell::new(Graph::new())) };
        for (key, value) in preload {
            // Of several values for a key the last one counts, as in a map.
            drop(pool.graph.borrow_mut().set(key, Ok(Rc::new(value))));
        }
        pool
    }

    /// Runs `f` in a new green thread, with `key` and the values of what it depends on, as they come;
    /// what it returns becomes the value of `key`. Mirrors eventlet's `spawn`.
    ///
    /// It starts at once, and waits when it asks for a value that is not there yet. An error that it
    /// returns, and a panic, becomes the [`PropagateError`] of `key`, which all get who ask for it:
    /// a task that passes on with `?` what its dependencies failed with fails by that in turn.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Collision`] if the key has a value or a task already, and [`SpawnError::Cycle`] if
    /// it would wait for itself in the end. Then nothing is spawned.
    ///
    /// # Panics
    ///
    /// When no stack can be had.
    pub fn spawn<E: Into<Failure>>(
        &self,
        key: K,
        depends: impl IntoIterator<Item = K>,
        f: impl FnOnce(K, Values<K, V>) -> Result<V, E> + 'static,
    ) -> Result<(), SpawnError<K>> {
        let depends: Vec<K> = depends.into_iter().collect();
        self.graph.borrow_mut().plan(vec![(key.clone(), depends.clone())])?;
        self.start(self.ending(&key), key, depends, f);
        Ok(())
    }

    /// As [`spawn`](Self::spawn) for each key of `depends`, which has what that depends on. Mirrors
    /// eventlet's `spawn_many`.
    ///
    /// # Errors
    ///
    /// As there, for the first key; then none of them is spawned.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn spawn_many<E: Into<Failure>, D: IntoIterator<Item = K>>(
        &self,
        depends: impl IntoIterator<Item = (K, D)>,
        f: impl Fn(K, Values<K, V>) -> Result<V, E> + 'static,
    ) -> Result<(), SpawnError<K>> {
        let tasks: Vec<(K, Vec<K>)> =
            depends.into_iter().map(|(key, keys)| (key, keys.into_iter().collect())).collect();
        self.graph.borrow_mut().plan(tasks.clone())?;
        let f = Rc::new(f);
        // Of all of them first: if there is no stack for one, none of the rest is waited for in vain.
        let endings: Vec<_> = tasks.iter().map(|(key, _)| self.ending(key)).collect();
        for (ending, (key, depends)) in endings.into_iter().zip(tasks) {
            let f = Rc::clone(&f);
            self.start(ending, key, depends, move |key, values| f(key, values));
        }
        Ok(())
    }

    /// The end of a task that is planned.
    fn ending(&self, key: &K) -> Ending<K, V> {
        let number = self.graph.borrow().number_of(key);
        Ending { pool: self.clone(), key: Some(key.clone()), number }
    }

    fn start<E: Into<Failure>>(
        &self,
        ending: Ending<K, V>,
        key: K,
        depends: Vec<K>,
        f: impl FnOnce(K, Values<K, V>) -> Result<V, E> + 'static,
    ) {
        let number = ending.number;
        let values = self.wait_each(depends);
        let green = greenthread::Builder::new().spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| f(key, values).map_err(Into::into)));
            ending.end(match ran {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(Reason::Error(error)),
                Err(payload) => Err(Reason::of_panic(payload)),
            });
        });
        let green = green.unwrap_or_else(|e| panic!("no green thread could be made: {e}"));
        self.graph.borrow_mut().set_green(number, green);
    }

    /// Sets the value of `key`, mirroring eventlet's `post`: for who is not a task of this pool, or for
    /// the task of `key`, whose result is dropped then.
    ///
    /// # Errors
    ///
    /// [`PostError`], with the value, if the key has a value, or a task, and this is not its.
    pub fn post(&self, key: K, value: V) -> Result<(), PostError<K, V>> {
        self.try_post(key, value, false)
    }

    /// As [`post`](Self::post), but replaces a value. Who has taken the one before keeps it. Mirrors
    /// eventlet's `post` with `replace=True`.
    ///
    /// # Errors
    ///
    /// [`PostError`], with the value, if the key has a task, and this is not its.
    pub fn replace(&self, key: K, value: V) -> Result<(), PostError<K, V>> {
        self.try_post(key, value, true)
    }

    /// As [`post`](Self::post), but has the key fail, mirroring eventlet's `post` of a
    /// `PropagateError`.
    ///
    /// # Errors
    ///
    /// As there, with the error.
    pub fn post_failure(
        &self,
        key: K,
        failure: impl Into<Failure>,
    ) -> Result<(), PostError<K, Failure>> {
        let failure = failure.into();
        let checked = self.graph.borrow().check_post(&key, false);
        if let Err(key) = checked {
            return Err(PostError { key, value: failure });
        }
        self.set(key.clone(), Err(PropagateError::new(key, Reason::Error(failure))));
        Ok(())
    }

    fn try_post(&self, key: K, value: V, replaces: bool) -> Result<(), PostError<K, V>> {
        let checked = self.graph.borrow().check_post(&key, replaces);
        if let Err(key) = checked {
            return Err(PostError { key, value });
        }
        self.set(key, Ok(Rc::new(value)));
        Ok(())
    }

    /// Sets what a key has, and drops what it had when nothing is borrowed.
    fn set(&self, key: K, outcome: Outcome<K, V>) {
        let before = self.graph.borrow_mut().set(key, outcome);
        drop(before);
    }

    /// Kills the task of `key` and forgets the key, which can be spawned or posted afterwards. Mirrors
    /// eventlet's `kill`. Who waits for the key waits on.
    ///
    /// # Errors
    ///
    /// [`UnknownKey`] if no task of that key runs.
    ///
    /// # Panics
    ///
    /// As [`GreenThread::kill`](greenthread::GreenThread::kill).
    pub fn kill(&self, key: &K) -> Result<(), UnknownKey<K>> {
        let task = self.graph.borrow_mut().remove_task(key);
        match task {
            Some(Task { green, .. }) => {
                if let Some(green) = green {
                    green.kill();
                }
                Ok(())
            }
            None => Err(UnknownKey(key.clone())),
        }
    }

    /// Waits for the values of `keys`, mirroring eventlet's `wait`.
    ///
    /// # Errors
    ///
    /// The first failure that comes.
    ///
    /// # Panics
    ///
    /// When it has to wait and this is the hub's own loop, or the thread is exiting.
    pub fn wait(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<HashMap<K, V>, PropagateError<K>> {
        self.wait_each(keys).collect()
    }

    /// Waits for the values of all keys that have one, or a task, or that a task waits for; those that
    /// are spawned meanwhile are waited for, too. Mirrors eventlet's `waitall`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// As there.
    pub fn waitall(&self) -> Result<HashMap<K, V>, PropagateError<K>> {
        loop {
            let known = self.graph.borrow().known();
            let values = self.wait(known)?;
            if self.graph.borrow().known().iter().all(|key| values.contains_key(key)) {
                return Ok(values);
            }
        }
    }

    /// The values of `keys` as they come: first those that are there, without waiting, and then each
    /// when it is posted or its task has ended. Mirrors eventlet's `wait_each`.
    ///
    /// `next` panics as [`wait`](Self::wait).
    pub fn wait_each(&self, keys: impl IntoIterator<Item = K>) -> Values<K, V> {
        Values::new(&self.graph, keys.into_iter().collect())
    }

    /// As [`wait_each`](Self::wait_each), for those that do not fail.
    pub fn wait_each_success(&self, keys: impl IntoIterator<Item = K>) -> Successes<K, V> {
        Successes(self.wait_each(keys))
    }

    /// As [`wait_each`](Self::wait_each), for those that fail.
    pub fn wait_each_exception(&self, keys: impl IntoIterator<Item = K>) -> Failures<K, V> {
        Failures(self.wait_each(keys))
    }

    /// Waits for the value of one key, mirroring eventlet's `pool[key]`.
    ///
    /// # Errors
    ///
    /// What the key failed with.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(&self, key: &K) -> Result<V, PropagateError<K>> {
        let value = self.wait_each(iter::once(key.clone())).next();
        value.expect("one for the key").map(|(_, value)| value)
    }

    /// The value of a key, or what it failed with; none if it has none yet. Mirrors eventlet's `get`.
    pub fn get(&self, key: &K) -> Option<Result<V, PropagateError<K>>> {
        let outcome = self.graph.borrow().get(key);
        outcome.map(|outcome| outcome.map(|value| V::clone(&value)))
    }

    /// The keys that have a value, or have failed, in no order. Mirrors eventlet's `keys`.
    pub fn keys(&self) -> Vec<K> {
        self.graph.borrow().keys()
    }

    /// The values that are there, mirroring eventlet's `items`.
    ///
    /// # Errors
    ///
    /// The failure of a key, if any has failed.
    pub fn items(&self) -> Result<HashMap<K, V>, PropagateError<K>> {
        let keys = self.keys();
        keys.into_iter().filter_map(|key| Some((self.get(&key)?, key))).map(with_key).collect()
    }

    /// How many tasks have not ended, mirroring eventlet's `running`.
    pub fn running(&self) -> usize {
        self.graph.borrow().running_keys().len()
    }

    /// Their keys, in the order in which they were spawned. Mirrors eventlet's `running_keys`.
    pub fn running_keys(&self) -> Vec<K> {
        self.graph.borrow().running_keys()
    }

    /// How many tasks depend on a key that has no value yet. Mirrors eventlet's `waiting`.
    pub fn waiting(&self) -> usize {
        let graph = self.graph.borrow();
        graph.running_keys().iter().filter(|key| !graph.waiting_for(key).is_empty()).count()
    }

    /// The keys without a value that the task of `key` depends on; none if there is no such task.
    /// Mirrors eventlet's `waiting_for`.
    pub fn waiting_for(&self, key: &K) -> Vec<K> {
        self.graph.borrow().waiting_for(key)
    }
}

fn with_key<K, V, E>((value, key): (Result<V, E>, K)) -> Result<(K, V), E> {
    value.map(|value| (key, value))
}

impl<K: Key, V: 'static> Clone for DAGPool<K, V> {
    fn clone(&self) -> Self {
        Self { graph: Rc::clone(&self.graph) }
    }
}

impl<K: Key, V: 'static> Debug for DAGPool<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = self.graph.borrow();
        let (keys, running) = (graph.keys(), graph.running_keys());
        // Not while it is borrowed: to write may block.
        drop(graph);
        f.debug_struct("DAGPool").field("keys", &keys).field("running", &running).finish()
    }
}

/// Sees to it that a task ends, if it is killed before it starts, too.
struct Ending<K: Key, V: Clone + 'static> {
    pool: DAGPool<K, V>,
    key: Option<K>,
    number: u64,
}

impl<K: Key, V: Clone + 'static> Ending<K, V> {
    fn end(mut self, result: Result<V, Reason>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<V, Reason>) {
        let Some(key) = self.key.take() else { return };
        // None if it was killed and forgotten; another may have its key by now.
        let task = self.pool.graph.borrow_mut().take_task(self.number);
        if task.is_some() && self.pool.graph.borrow().get(&key).is_none() {
            let failed = |reason| PropagateError::new(key.clone(), reason);
            self.pool.set(key.clone(), result.map(Rc::new).map_err(failed));
        }
        drop(task);
    }
}

impl<K: Key, V: Clone + 'static> Drop for Ending<K, V> {
    fn drop(&mut self) {
        self.settle(Err(Reason::Killed));
    }
}
