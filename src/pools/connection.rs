//! Pools of connections, which are opened, checked, cleaned and closed in time.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::GetError;
use super::connection_builder::ConnectionPoolBuilder;
use super::stock::{Grant, Room, Stock};
use crate::clock::Deadline;
use crate::greenthread::{self, GreenThread};
use crate::hub::{self, Hub};
use crate::quietly::dispose;

/// How a [`ConnectionPool`] opens, checks and cleans its connections. Each of these may block.
/// Connections are closed by being dropped.
pub trait Manager: 'static {
    /// What is pooled.
    type Connection: 'static;
    /// Why none can be opened.
    type Error: 'static;

    /// Opens a connection. It runs in a green thread of its own, which is killed when the pool's
    /// timeout is over.
    ///
    /// # Errors
    ///
    /// When none could be opened: [`ConnectionPool::get`] fails with this.
    fn connect(&self) -> Result<Self::Connection, Self::Error>;

    /// Whether a connection that was idle can still be used, asked before it is lent again. If not, it
    /// is closed and another is opened. By default all can.
    fn is_healthy(&self, connection: &mut Self::Connection) -> bool {
        let _ = connection;
        true
    }

    /// Makes a connection that comes back ready for the next user, as by a rollback, and says whether
    /// that worked; if not, or if it panics, the connection is closed. By default it does nothing.
    fn clean(&self, connection: &mut Self::Connection) -> bool {
        let _ = connection;
        true
    }
}

/// A pool of connections, mirroring eventlet's `db_pool.ConnectionPool`.
///
/// Clones are handles to the same pool. The connection that came back last is lent first, so that the
/// others become idle and are closed when they have been for long enough; that happens by itself, in a
/// green thread.
///
/// ```
/// use std::io;
/// use stolon::green::net::TcpStream;
/// use stolon::pools::{ConnectionPoolBuilder, Manager};
///
/// struct Server(&'static str);
///
/// impl Manager for Server {
///     type Connection = TcpStream;
///     type Error = io::Error;
///
///     fn connect(&self) -> io::Result<TcpStream> {
///         TcpStream::connect(self.0)
///     }
/// }
///
/// let pool = ConnectionPoolBuilder::new().max_size(8).build(Server("127.0.0.1:1"));
/// assert!(pool.get().is_err());
/// assert_eq!(pool.free(), 8);
/// ```
pub struct ConnectionPool<M: Manager> {
    inner: Rc<Inner<M>>,
}

struct Inner<M: Manager> {
    manager: M,
    stock: Stock<Idle<M::Connection>>,
    max_idle: Option<Duration>,
    max_age: Option<Duration>,
    connect_timeout: Option<Duration>,
    /// Closes what has been idle for too long, and when.
    closer: RefCell<Option<GreenThread<()>>>,
    closes_at: Cell<Deadline>,
}

/// A connection that is not lent.
struct Idle<C> {
    connection: C,
    /// When it is too old.
    expires: Deadline,
    /// When it has been idle for too long.
    closes: Deadline,
}

impl<C> Idle<C> {
    fn is_over(&self, now: Deadline) -> bool {
        self.expires <= now || self.closes <= now
    }
}

fn now(hub: &Hub) -> Deadline {
    hub.deadline_after(Some(Duration::ZERO))
}

impl<M: Manager> ConnectionPool<M> {
    /// A pool with the sizes and times that eventlet's has; [`ConnectionPoolBuilder`] makes others.
    pub fn new(manager: M) -> Self {
        ConnectionPoolBuilder::new().build(manager)
    }

    pub(super) fn with(manager: M, options: &ConnectionPoolBuilder) -> Self {
        let inner = Inner {
            manager,
            stock: Stock::new(options.max_size, true),
            max_idle: options.max_idle,
            max_age: options.max_age,
            connect_timeout: options.connect_timeout,
            closer: RefCell::new(None),
            closes_at: Cell::new(Deadline::NEVER),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Lends a connection: one that is free and healthy, or a new one if there are fewer than the pool
    /// may have. Else blocks the current greenlet until one comes back.
    ///
    /// # Errors
    ///
    /// When a new one could not be opened, or not in time. The pool is then as before.
    ///
    /// # Panics
    ///
    /// With a panic of the manager; the pool is then as before. When it has to wait and this is the
    /// hub's own loop, or the thread is exiting.
    pub fn get(&self) -> Result<Connection<M>, GetError<M::Error>> {
        let grant = self.inner.stock.take(None);
        self.lend(grant.expect("without a timeout it waits for ever"))
    }

    /// As [`get`](Self::get), but waits no longer than `timeout` for one to come back.
    ///
    /// # Errors
    ///
    /// As there, and [`GetError::Exhausted`].
    ///
    /// # Panics
    ///
    /// As there; but while the thread exits it does not wait.
    pub fn get_timeout(&self, timeout: Duration) -> Result<Connection<M>, GetError<M::Error>> {
        match self.inner.stock.take(Some(timeout)) {
            Some(grant) => self.lend(grant),
            None => Err(GetError::Exhausted(timeout)),
        }
    }

    fn lend(&self, grant: Grant<Idle<M::Connection>>) -> Result<Connection<M>, GetError<M::Error>> {
        let room = Room::new(&self.inner.stock);
        let lent = match grant {
            Grant::Item(idle) => self.inner.checked(idle),
            Grant::Room => None,
        };
        let (connection, expires) = match lent {
            Some(Idle { connection, expires, .. }) => (connection, expires),
            None => self.inner.open()?,
        };
        room.fill();
        Ok(Connection { pool: Rc::clone(&self.inner), connection: Some(connection), expires })
    }

    /// Closes all connections that are free. Those that are lent come back as ever.
    pub fn clear(&self) {
        drop(self.inner.stock.remove_free(|_| true));
    }

    /// As [`Pool::resize`](super::Pool::resize).
    pub fn resize(&self, max_size: usize) {
        self.inner.stock.resize(max_size);
    }

    /// As [`Pool::free`](super::Pool::free).
    pub fn free(&self) -> isize {
        self.inner.stock.free()
    }

    /// How many greenlets wait for a connection.
    pub fn waiting(&self) -> usize {
        self.inner.stock.waiting()
    }
}

impl<M: Manager> Clone for ConnectionPool<M> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<M: Manager> fmt::Debug for ConnectionPool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool")
            .field("max_size", &self.inner.stock.max())
            .field("free", &self.free())
            .field("waiting", &self.waiting())
            .finish()
    }
}

impl<M: Manager> Inner<M> {
    /// The connection, unless it is too old or not healthy: then it is closed.
    fn checked(&self, mut idle: Idle<M::Connection>) -> Option<Idle<M::Connection>> {
        let is_over = hub::current().is_some_and(|hub| idle.is_over(now(&hub)));
        (!is_over && self.manager.is_healthy(&mut idle.connection)).then_some(idle)
    }

    /// A new connection, and when it is too old.
    fn open(self: &Rc<Self>) -> Result<(M::Connection, Deadline), GetError<M::Error>> {
        let connection = match self.connect_timeout {
            Some(timeout) => self.connect_in(timeout)?,
            None => self.connect()?,
        };
        let expires = hub::current().map(|hub| self.end_of(&hub, self.max_age));
        Ok((connection, expires.unwrap_or(Deadline::NEVER)))
    }

    fn end_of(&self, hub: &Hub, limit: Option<Duration>) -> Deadline {
        limit.map_or(Deadline::NEVER, |limit| hub.deadline_after(Some(limit)))
    }

    fn connect(&self) -> Result<M::Connection, GetError<M::Error>> {
        self.manager.connect().map_err(GetError::Connect)
    }

    fn connect_in(self: &Rc<Self>, timeout: Duration) -> Result<M::Connection, GetError<M::Error>> {
        let Some(hub) = hub::current() else { return self.connect() };
        let deadline = hub.deadline_after(Some(timeout));
        let inner = Rc::clone(self);
        let mut opening = Opening(Some(greenthread::spawn(move || inner.connect())));
        let has_ended = opening.0.as_ref().is_some_and(|green| green.wait_until(deadline));
        if !has_ended {
            return Err(GetError::ConnectTimeout(timeout));
        }
        let opened = opening.0.take().expect("it was just there");
        opened.join().unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Takes a connection back.
    fn give(self: &Rc<Self>, mut connection: M::Connection, expires: Deadline) {
        let room = Room::new(&self.stock);
        let cleaned = catch_unwind(AssertUnwindSafe(|| self.manager.clean(&mut connection)));
        let is_clean = match cleaned {
            Ok(is_clean) => is_clean,
            Err(payload) if greenthread::is_meant_for_all(&*payload) => {
                drop((connection, room));
                resume_unwind(payload);
            }
            // The panic hook has reported it.
            Err(payload) => {
                dispose(payload);
                false
            }
        };
        let Some(hub) = hub::current().filter(|_| is_clean) else { return };
        let idle = Idle { connection, expires, closes: self.end_of(&hub, self.max_idle) };
        if !idle.is_over(now(&hub)) {
            room.fill();
            self.stock.give(idle);
            self.close_in_time(&hub);
        }
    }

    /// Sees to it that what is free is closed when it has been idle for too long.
    fn close_in_time(self: &Rc<Self>, hub: &Hub) {
        let first = self.stock.first_free(|idle| idle.closes.min(idle.expires));
        let Some(first) = first.filter(|first| *first < self.closes_at.get()) else { return };
        self.closes_at.set(first);
        let inner = Rc::downgrade(self);
        let delay = first.remaining(hub.now()).unwrap_or(Duration::MAX);
        let closer = greenthread::spawn_after(delay, move || close_over(&inner));
        let before = self.closer.replace(Some(closer));
        if let Some(before) = before {
            before.call_off();
        }
    }
}

/// Closes what has been idle for too long, and sees to the rest.
fn close_over<M: Manager>(inner: &Weak<Inner<M>>) {
    let (Some(inner), Some(hub)) = (inner.upgrade(), hub::current()) else { return };
    inner.closes_at.set(Deadline::NEVER);
    let now = now(&hub);
    let over = inner.stock.remove_free(|idle| idle.is_over(now));
    inner.close_in_time(&hub);
    drop(over);
}

impl<M: Manager> Drop for Inner<M> {
    fn drop(&mut self) {
        if let Some(closer) = self.closer.take() {
            closer.call_off();
        }
    }
}

/// A connection that is being opened. Whoever waits for it may give up.
struct Opening<T: 'static>(Option<GreenThread<T>>);

impl<T: 'static> Drop for Opening<T> {
    fn drop(&mut self) {
        // Where panics abort it cannot be killed: it runs on, and what it opens is closed.
        if let Some(green) = self.0.take().filter(|_| cfg!(panic = "unwind")) {
            green.kill();
        }
    }
}

/// A connection that is lent. Dropping it gives it back.
pub struct Connection<M: Manager> {
    pool: Rc<Inner<M>>,
    /// Until it is given back or discarded.
    connection: Option<M::Connection>,
    expires: Deadline,
}

const LENT: &str = "it is there until the guard is dropped";

impl<M: Manager> Connection<M> {
    /// Closes the connection, which the pool may replace by a new one: for one that is broken.
    pub fn discard(mut self) {
        let connection = self.connection.take();
        self.pool.stock.give_room();
        drop(connection);
    }
}

impl<M: Manager> Deref for Connection<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        self.connection.as_ref().expect(LENT)
    }
}

impl<M: Manager> DerefMut for Connection<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        self.connection.as_mut().expect(LENT)
    }
}

impl<M: Manager> Drop for Connection<M> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give(connection, self.expires);
        }
    }
}

impl<M: Manager<Connection: fmt::Debug>> fmt::Debug for Connection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&**self).finish()
    }
}
