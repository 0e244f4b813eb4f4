//! Greenlet-local values: what each greenlet has one of for itself.
//!
//! The values of a greenlet are kept with its block, each under the address of its [`Local`], and
//! dropped on its own stack when its function has ended, before anyone is told. Those of
//! `corolocal` are kept with them, under numbers.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::ptr;
use std::rc::{Rc, Weak};

use super::block::Block;
use super::thread;
use crate::quietly::quietly;

/// A value that each greenlet has one of, in the shape of [`std::thread::LocalKey`]. Mirrors
/// gevent's `local`, and greenlet's `gr_context`.
///
/// It is made when a greenlet first uses it, whatever the greenlet's parent has, and dropped when
/// the greenlet ends: after its function and before its parent is told, so by return, panic and
/// kill alike. The root of a thread has one, too, until the thread exits; the values of greenlets
/// that are leaked at that time are leaked with them.
///
/// | a destructor of such a value | rule |
/// |---|---|
/// | runs | on the greenlet's own stack, the value made last first; the greenlet is not dead yet |
/// | panics | the panic hook reports it, and it goes nowhere else |
/// | switches or blocks | may; the greenlet ends when it is resumed |
/// | is killed while it waits | unwinds; the values that are left are dropped all the same |
/// | uses another `Local` | may; what it makes is dropped, too |
/// | uses its own `Local` | panics: a greenlet makes one value in its life |
///
/// ```
/// use std::cell::Cell;
/// use stolon::greenlet::{Greenlet, Local};
///
/// static REQUEST: Local<Cell<u32>> = Local::new(|| Cell::new(0));
///
/// REQUEST.set(1);
/// Greenlet::new(|()| {
///     assert_eq!(REQUEST.get(), 0);
///     REQUEST.set(2);
/// })
/// .switch(())?;
/// assert_eq!(REQUEST.get(), 1);
/// # Ok::<(), stolon::greenlet::SwitchError<()>>(())
/// ```
pub struct Local<V: 'static> {
    init: fn() -> V,
}

/// Why there is no value: the current greenlet's has been dropped, as the greenlet is ending, or the
/// thread is past the point in its exit at which its greenlets ended. Mirrors
/// [`std::thread::AccessError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError;

/// What a greenlet has in its block.
#[derive(Default)]
pub(super) struct Locals {
    /// In the order in which they were made.
    values: Cell<Vec<Entry>>,
    /// Whether there have ever been any.
    exist: Cell<bool>,
    /// Whether all have been dropped, for good.
    have_ended: Cell<bool>,
}

struct Entry {
    /// Where the `Local` is, and the type of its value: two constants of different types may share
    /// an address.
    key: Key,
    /// None when it was dropped.
    value: Option<Rc<dyn Any>>,
    /// When this is gone, the value is of no use to anyone. None for what is a `static`'s.
    owner: Option<Weak<()>>,
}

/// Which value it is of those that a greenlet has.
pub(crate) type Key = (usize, TypeId);

impl<V: 'static> Local<V> {
    /// One whose values are made by `init`.
    pub const fn new(init: fn() -> V) -> Self {
        Self { init }
    }

    /// Calls `f` with the current greenlet's value, which is made if there is none yet.
    ///
    /// # Panics
    ///
    /// When the value has been dropped already, as the greenlet is ending. And on a thread that is
    /// past the point in its exit at which its greenlets ended. [`try_with`](Self::try_with) fails
    /// there. With a panic of the function that makes values; the next use tries again.
    pub fn with<R>(&'static self, f: impl FnOnce(&V) -> R) -> R {
        self.try_with(f).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`with`](Self::with), for what may run while its greenlet, or the thread, is ending.
    ///
    /// # Errors
    ///
    /// Where `with` panics. `f` is not called then.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&V) -> R) -> Result<R, AccessError> {
        let key = (ptr::from_ref(self).addr(), TypeId::of::<V>());
        let value = find_or_make(key, None, || Rc::new((self.init)()))?;
        Ok(f(&value))
    }
}

/// What the current greenlet has under `key`, or else what `make` makes, which it has from then on:
/// until it ends, or is given something else when the owner is gone.
pub(crate) fn find_or_make<V: 'static>(
    key: Key,
    owner: Option<&Rc<()>>,
    make: impl FnOnce() -> Rc<V>,
) -> Result<Rc<V>, AccessError> {
    if !thread::is_alive() {
        return Err(AccessError);
    }
    let current = thread::current();
    let value = match current.locals.get(key)? {
        Some(value) => value,
        None => {
            let made: Rc<dyn Any> = make();
            // Unless `make` itself has had one made by now.
            let other = current.locals.get(key)?;
            other.unwrap_or_else(|| current.locals.add(key, made, owner))
        }
    };
    // Nobody keeps the greenlet's end waiting for what is done with the value.
    drop(current);
    Ok(value.downcast().expect("the key has the type"))
}

/// The shorthands for values in cells, for a type of locals whose methods take such a `self`.
macro_rules! cell_methods {
    ($Local:ident $(, $life:lifetime)?) => {
        impl<V: 'static> $Local<Cell<V>> {
            /// The current greenlet's value.
            ///
            /// # Panics
            ///
            /// As [`with`](Self::with); so do the others.
            pub fn get(&$($life)? self) -> V
            where
                V: Copy,
            {
                self.with(Cell::get)
            }

            /// Gives the current greenlet another value.
            pub fn set(&$($life)? self, value: V) {
                self.with(|cell| cell.set(value));
            }

            /// Takes the current greenlet's value, and leaves the type's default.
            pub fn take(&$($life)? self) -> V
            where
                V: Default,
            {
                self.with(Cell::take)
            }

            /// Gives the current greenlet another value, and returns the one before.
            pub fn replace(&$($life)? self, value: V) -> V {
                self.with(|cell| cell.replace(value))
            }
        }

        impl<V: 'static> $Local<RefCell<V>> {
            /// Calls `f` with the current greenlet's value.
            ///
            /// # Panics
            ///
            /// As [`with`](Self::with), and when the value is borrowed mutably.
            pub fn with_borrow<R>(&$($life)? self, f: impl FnOnce(&V) -> R) -> R {
                self.with(|cell| f(&cell.borrow()))
            }

            /// Calls `f` with the current greenlet's value, which it may change.
            ///
            /// # Panics
            ///
            /// As [`with`](Self::with), and when the value is borrowed; so do the others.
            pub fn with_borrow_mut<R>(&$($life)? self, f: impl FnOnce(&mut V) -> R) -> R {
                self.with(|cell| f(&mut cell.borrow_mut()))
            }

            /// Gives the current greenlet another value.
            pub fn set(&$($life)? self, value: V) {
                // The one before is dropped when nothing is borrowed.
                drop(self.replace(value));
            }

            /// Takes the current greenlet's value, and leaves the type's default.
            pub fn take(&$($life)? self) -> V
            where
                V: Default,
            {
                self.with(RefCell::take)
            }

            /// Gives the current greenlet another value, and returns the one before.
            pub fn replace(&$($life)? self, value: V) -> V {
                self.with(|cell| cell.replace(value))
            }
        }
    };
}

pub(crate) use cell_methods;

cell_methods!(Local, 'static);

impl<V: 'static> fmt::Debug for Local<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the greenlet's local value has been dropped: it is ending, or its thread is")
    }
}

impl Error for AccessError {}

impl Locals {
    /// Lets `f` see the values; it must not panic, and run no code of the user's.
    fn with_values<R>(&self, f: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
        let mut values = self.values.take();
        let result = f(&mut values);
        self.values.set(values);
        result
    }

    fn get(&self, key: Key) -> Result<Option<Rc<dyn Any>>, AccessError> {
        if self.have_ended.get() {
            return Err(AccessError);
        }
        let found = self.with_values(|values| {
            values.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone())
        });
        found.map_or(Ok(None), |value| value.map(Some).ok_or(AccessError))
    }

    fn add(&self, key: Key, value: Rc<dyn Any>, owner: Option<&Rc<()>>) -> Rc<dyn Any> {
        self.exist.set(true);
        let owner = owner.map(Rc::downgrade);
        let entry = Entry { key, value: Some(Rc::clone(&value)), owner };
        self.with_values(|values| {
            if values.len() == values.capacity() {
                // The owners have taken out what there was: nothing of the user's is dropped.
                values.retain(|entry| !entry.is_of_no_use());
                values.reserve(values.len().max(1));
            }
            values.push(entry);
        });
        value
    }

    /// Makes them those of another greenlet, when they have ended or none was made.
    #[inline]
    pub(super) fn clear(&self) {
        if self.exist.get() && self.have_ended.get() {
            self.exist.set(false);
            drop(self.values.take());
        }
        self.have_ended.set(false);
    }

    /// Takes the value that was made last, of those that are left.
    fn take_last(&self) -> Option<Rc<dyn Any>> {
        self.with_values(|values| values.iter_mut().rev().find_map(|entry| entry.value.take()))
    }
}

impl Entry {
    fn is_of_no_use(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.strong_count() == 0)
    }
}

/// Drops the values of the current greenlet, which ends. It has none from then on.
#[inline]
pub(super) fn end(block: &Block) {
    if block.locals.exist.get() {
        drop_all(block);
    }
    block.locals.have_ended.set(true);
}

#[cold]
#[inline(never)]
fn drop_all(block: &Block) {
    while let Some(value) = block.locals.take_last() {
        quietly(|| drop(value));
    }
}
