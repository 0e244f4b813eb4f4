//! What goes wrong in a pool.

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Debug};
use std::mem;
use std::rc::Rc;

use super::Key;
use crate::greenlet::GreenletExit;
use crate::quietly::dispose;

/// What a task fails with: any error, of one's own or of what it depends on.
pub type Failure = Box<dyn Error>;

/// Why a key has no value, mirroring eventlet's exception of this name. What a task failed with comes
/// as the [`source`](Error::source), which may be another of these, of a key that the task depends on.
pub struct PropagateError<K> {
    inner: Rc<Inner<K>>,
}

struct Inner<K> {
    key: K,
    reason: Reason,
    /// What it was passed on from, if that is what it is.
    origin: fn(Failure) -> Option<PropagateError<K>>,
}

impl<K> Drop for Inner<K> {
    /// One after the other, what it failed with and so on: a chain may be longer than the stack.
    fn drop(&mut self) {
        let mut reason = mem::replace(&mut self.reason, Reason::Killed);
        while let Reason::Error(failure) = reason {
            let Some(mut next) = (self.origin)(failure) else { break };
            let Some(inner) = Rc::get_mut(&mut next.inner) else { break };
            reason = mem::replace(&mut inner.reason, Reason::Killed);
        }
    }
}

/// What ended a task without a value.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It returned an error.
    Error(Failure),
    /// It panicked, with this message if it had one.
    Panic(Option<String>),
    /// It was killed, by other means than [`DAGPool::kill`](super::DAGPool::kill).
    Killed,
}

impl Reason {
    pub(super) fn of_panic(payload: Box<dyn Any + Send>) -> Self {
        if payload.is::<GreenletExit>() {
            return Self::Killed;
        }
        let text = match payload.downcast_ref::<String>() {
            Some(text) => Some(text.clone()),
            None => payload.downcast_ref::<&str>().map(|text| String::from(*text)),
        };
        dispose(payload);
        Self::Panic(text)
    }
}

impl<K: Key> PropagateError<K> {
    pub(super) fn new(key: K, reason: Reason) -> Self {
        let origin = |failure: Failure| failure.downcast().ok().map(|error| *error);
        Self { inner: Rc::new(Inner { key, reason, origin }) }
    }
}

impl<K> PropagateError<K> {
    /// The key that has failed.
    pub fn key(&self) -> &K {
        &self.inner.key
    }

    /// What it failed with.
    pub fn reason(&self) -> &Reason {
        &self.inner.reason
    }
}

impl<K> Clone for PropagateError<K> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<K: Debug> Debug for PropagateError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PropagateError").field(self.key()).field(self.reason()).finish()
    }
}

impl<K: Debug> fmt::Display for PropagateError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.key())?;
        match self.reason() {
            Reason::Error(error) => write!(f, "failed: {error}"),
            Reason::Panic(Some(text)) => write!(f, "panicked: {text}"),
            Reason::Panic(None) => write!(f, "panicked"),
            Reason::Killed => write!(f, "was killed"),
        }
    }
}

impl<K: Debug> Error for PropagateError<K> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.reason() {
            Reason::Error(error) => Some(&**error),
            _ => None,
        }
    }
}

/// Why nothing was spawned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError<K> {
    /// This key has a value or a task already. Mirrors eventlet's `Collision`.
    Collision(K),
    /// These keys would wait for each other, each for the next: the last is the first again.
    Cycle(Vec<K>),
}

impl<K: Debug> fmt::Display for SpawnError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collision(key) => write!(f, "{key:?} has a value or a task already"),
            Self::Cycle(keys) => {
                write!(f, "a cycle of keys that depend on each other: ")?;
                for (at, key) in keys.iter().enumerate() {
                    write!(f, "{}{key:?}", if at == 0 { "" } else { " -> " })?;
                }
                Ok(())
            }
        }
    }
}

impl<K: Debug> Error for SpawnError<K> {}

/// A key that has a value or a task already, and what was to be posted to it. Mirrors eventlet's
/// `Collision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostError<K, V> {
    /// The key.
    pub key: K,
    /// What was not posted.
    pub value: V,
}

impl<K: Debug, V> fmt::Display for PostError<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} has a value or a task already", self.key)
    }
}

impl<K: Debug, V: Debug> Error for PostError<K, V> {}

/// A key without a task that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey<K>(pub K);

impl<K: Debug> fmt::Display for UnknownKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no task of {:?} runs", self.0)
    }
}

impl<K: Debug> Error for UnknownKey<K> {}
