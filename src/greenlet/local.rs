//! Greenlet-local values: what each greenlet has one of for itself.
//!
//! The values of a greenlet are kept with its block, each under the address of its [`Local`], and
//! dropped on its own stack when its function has ended, before anyone is told.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr;
use std::rc::Rc;

use super::block::Block;
use super::exit::quietly;
use super::thread;

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
    key: (usize, TypeId),
    /// None when it was dropped.
    value: Option<Rc<dyn Any>>,
}

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
    /// past the point in its exit at which its greenlets ended.
    pub fn with<R>(&'static self, f: impl FnOnce(&V) -> R) -> R {
        let current = thread::current();
        let key = (ptr::from_ref(self).addr(), TypeId::of::<V>());
        let value = current.locals.get(key).unwrap_or_else(|| {
            let made: Rc<dyn Any> = Rc::new((self.init)());
            // Unless `init` itself has made one by now.
            current.locals.get(key).unwrap_or_else(|| current.locals.add(key, made))
        });
        // Nobody keeps the greenlet's end waiting for `f`.
        drop(current);
        f(value.downcast_ref().expect("the key has the type"))
    }
}

impl<V: 'static> Local<Cell<V>> {
    /// The current greenlet's value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with); so do the others.
    pub fn get(&'static self) -> V
    where
        V: Copy,
    {
        self.with(Cell::get)
    }

    /// Gives the current greenlet another value.
    pub fn set(&'static self, value: V) {
        self.with(|cell| cell.set(value));
    }

    /// Takes the current greenlet's value, and leaves the type's default.
    pub fn take(&'static self) -> V
    where
        V: Default,
    {
        self.with(Cell::take)
    }

    /// Gives the current greenlet another value, and returns the one before.
    pub fn replace(&'static self, value: V) -> V {
        self.with(|cell| cell.replace(value))
    }
}

impl<V: 'static> Local<RefCell<V>> {
    /// Calls `f` with the current greenlet's value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed mutably.
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&V) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the current greenlet's value, which it may change.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed.
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut V) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }
}

impl<V: 'static> fmt::Debug for Local<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Locals {
    /// Lets `f` see the values; it must not panic, and run no code of the user's.
    fn with_values<R>(&self, f: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
        let mut values = self.values.take();
        let result = f(&mut values);
        self.values.set(values);
        result
    }

    fn get(&self, key: (usize, TypeId)) -> Option<Rc<dyn Any>> {
        assert!(!self.have_ended.get(), "the greenlet's local values have been dropped");
        let found = self.with_values(|values| {
            values.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone())
        });
        found.map(|value| value.expect("this local value of the greenlet has been dropped"))
    }

    fn add(&self, key: (usize, TypeId), value: Rc<dyn Any>) -> Rc<dyn Any> {
        self.exist.set(true);
        self.with_values(|values| values.push(Entry { key, value: Some(Rc::clone(&value)) }));
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
