//! Pools of things that are few and worth keeping.
//!
//! Layer 6. Mirrors eventlet's `pools` and `db_pool`. A [`Pool`] makes items when they are asked for, up
//! to a number, lends them out, and has greenlets wait while all are lent; what is lent comes back when
//! its guard is dropped. A [`ConnectionPool`] does that for connections, which fail, go stale and die; a
//! [`DatabaseConnector`] has one of those for each database of each host.
//!
//! ```
//! use stolon::pools::Pool;
//!
//! let buffers = Pool::new(2, || Vec::<u8>::with_capacity(1024));
//! let mut one = buffers.get();
//! one.extend(b"hello");
//! let two = buffers.get();
//! assert_eq!(buffers.free(), 0);
//! assert!(buffers.try_get().is_none());
//! drop(one);
//! assert_eq!(buffers.get().len(), 5);
//! # drop(two);
//! ```

mod connection;
mod connection_builder;
mod connector;
mod error;
mod stock;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

pub use connection::{Connection, ConnectionPool, Manager};
pub use connection_builder::ConnectionPoolBuilder;
pub use connector::DatabaseConnector;
pub use error::{GetError, NoCredentials};
use stock::{Grant, Room, Stock};

/// A pool of items that are made when they are first needed, mirroring eventlet's `Pool`.
///
/// Clones are handles to the same pool. Who waits for an item gets one in the order in which they came;
/// if one is killed meanwhile, the next gets it.
pub struct Pool<T: 'static> {
    inner: Rc<Inner<T>>,
}

struct Inner<T> {
    stock: Stock<T>,
    create: Box<dyn Fn() -> T>,
}

impl<T: 'static> Pool<T> {
    /// A pool of up to `max_size` items, each made by `create`, which may block; [`PoolBuilder`] makes
    /// those that have some items from the start, or lend the newest first.
    pub fn new(max_size: usize, create: impl Fn() -> T + 'static) -> Self {
        PoolBuilder::new().max_size(max_size).build(create)
    }

    /// Lends an item: one that is free, or a new one if there are fewer than the pool may have. Else
    /// blocks the current greenlet until one comes back.
    ///
    /// # Panics
    ///
    /// With the panic of the function that makes items; the pool is then as before. When it has to wait
    /// and this is the hub's own loop, or the thread is exiting.
    pub fn get(&self) -> Item<T> {
        match self.inner.stock.take(None) {
            Some(grant) => self.lend(grant),
            None => unreachable!("it waits for ever"),
        }
    }

    /// As [`get`](Self::get), but waits no longer than `timeout` for an item to come back.
    ///
    /// # Panics
    ///
    /// As there; but while the thread exits it does not wait.
    pub fn get_timeout(&self, timeout: Duration) -> Option<Item<T>> {
        self.inner.stock.take(Some(timeout)).map(|grant| self.lend(grant))
    }

    /// As [`get`](Self::get), but does not wait for an item to come back.
    ///
    /// # Panics
    ///
    /// With the panic of the function that makes items.
    pub fn try_get(&self) -> Option<Item<T>> {
        self.inner.stock.try_take().map(|grant| self.lend(grant))
    }

    fn lend(&self, grant: Grant<T>) -> Item<T> {
        let item = match grant {
            Grant::Item(item) => item,
            Grant::Room => {
                let room = Room::new(&self.inner.stock);
                let item = (self.inner.create)();
                room.fill();
                item
            }
        };
        Item { pool: Rc::clone(&self.inner), item: Some(item) }
    }

    /// Changes how many items the pool may have, mirroring eventlet's `resize`. If there are more,
    /// those that are free are dropped now, and those that are lent when they come back.
    pub fn resize(&self, max_size: usize) {
        self.inner.stock.resize(max_size);
    }

    /// How many items the pool may have.
    pub fn max_size(&self) -> usize {
        self.inner.stock.max()
    }

    /// How many can be had without waiting, those included that would have to be made. Mirrors
    /// eventlet's `free`. Negative while more are lent than the pool may have since it was resized.
    pub fn free(&self) -> isize {
        self.inner.stock.free()
    }

    /// How many greenlets wait for an item, mirroring eventlet's `waiting`.
    pub fn waiting(&self) -> usize {
        self.inner.stock.waiting()
    }
}

impl<T: 'static> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<T: 'static> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max_size", &self.max_size())
            .field("free", &self.free())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// Makes pools that are not all default.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `build` is called"]
pub struct PoolBuilder {
    min_size: usize,
    max_size: usize,
    order_as_stack: bool,
}

impl PoolBuilder {
    /// For up to 4 items, of which none is made at once, and the oldest is lent first.
    pub fn new() -> Self {
        Self { min_size: 0, max_size: 4, order_as_stack: false }
    }

    /// So many items are made at once; by default none.
    pub fn min_size(mut self, min_size: usize) -> Self {
        self.min_size = min_size;
        self
    }

    /// How many items the pool may have; by default 4.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Whether the item that came back last is lent first. By default the one that came back first is.
    pub fn order_as_stack(mut self, order_as_stack: bool) -> Self {
        self.order_as_stack = order_as_stack;
        self
    }

    /// Makes the pool, whose items are made by `create`.
    ///
    /// # Panics
    ///
    /// With the panic of `create`, if there is a least size; and if that is beyond the largest.
    pub fn build<T: 'static>(self, create: impl Fn() -> T + 'static) -> Pool<T> {
        let Self { min_size, max_size, order_as_stack } = self;
        assert!(min_size <= max_size, "a pool of at least {min_size} and at most {max_size} items");
        let stock = Stock::new(max_size, order_as_stack);
        let pool = Pool { inner: Rc::new(Inner { stock, create: Box::new(create) }) };
        // All at once: each would be lent again else.
        let items: Vec<_> = (0..min_size).map(|_| pool.get()).collect();
        drop(items);
        pool
    }
}

impl Default for PoolBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// An item that is lent. Dropping it gives it back.
pub struct Item<T: 'static> {
    pool: Rc<Inner<T>>,
    /// Until it is given back or taken away.
    item: Option<T>,
}

const LENT: &str = "it is there until the guard is dropped";

impl<T: 'static> Item<T> {
    /// Takes the item away from its pool, which may make another in its place. Mirrors what eventlet's
    /// users do who put nothing back.
    pub fn detach(mut self) -> T {
        let item = self.item.take().expect(LENT);
        self.pool.stock.give_room();
        item
    }
}

impl<T: 'static> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().expect(LENT)
    }
}

impl<T: 'static> DerefMut for Item<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().expect(LENT)
    }
}

impl<T: 'static> Drop for Item<T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.pool.stock.give(item);
        }
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Item<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Item").field(&**self).finish()
    }
}

/// What a [`TokenPool`] lends.
#[derive(Debug)]
#[non_exhaustive]
pub struct Token;

/// A pool of tokens that mean nothing but the right to do something, mirroring eventlet's `TokenPool`.
pub type TokenPool = Pool<Token>;

impl TokenPool {
    /// A pool of so many tokens.
    pub fn tokens(max_size: usize) -> Self {
        Self::new(max_size, || Token)
    }
}
