//! Pools of connections to many databases, each by who asks for what.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use super::connection::{ConnectionPool, Manager};
use super::connection_builder::ConnectionPoolBuilder;
use super::error::NoCredentials;

/// The host whose credentials count for all that have none of their own.
const DEFAULT: &str = "default";

/// One pool of connections for each database of each host, mirroring eventlet's
/// `db_pool.DatabaseConnector`. Each is made when it is first asked for.
///
/// Credentials are of a type `C` of the user's, and so is what opens connections: the manager, which is
/// made of the host's name, the database's name and the host's credentials. Clones are handles to the
/// same pools.
///
/// ```
/// use stolon::pools::{DatabaseConnector, Manager};
///
/// /// Opens connections that are only told of.
/// struct Opens(String);
///
/// impl Manager for Opens {
///     type Connection = String;
///     type Error = std::convert::Infallible;
///
///     fn connect(&self) -> Result<String, Self::Error> {
///         Ok(self.0.clone())
///     }
/// }
///
/// let credentials = [("db1", "root:secret"), ("default", "guest")];
/// let databases = DatabaseConnector::new(credentials, |host, name, user: &&str| {
///     Opens(format!("{user}@{host}/{name}"))
/// });
/// assert_eq!(*databases.get("db1", "users")?.get().unwrap(), "root:secret@db1/users");
/// assert_eq!(*databases.get("db2", "stock")?.get().unwrap(), "guest@db2/stock");
/// # Ok::<(), stolon::pools::NoCredentials>(())
/// ```
pub struct DatabaseConnector<C: 'static, M: Manager> {
    inner: Rc<Inner<C, M>>,
}

/// What makes a manager of a host, a database and credentials.
type Make<C, M> = dyn Fn(&str, &str, &C) -> M;

struct Inner<C, M: Manager> {
    credentials: HashMap<String, C>,
    make: Box<Make<C, M>>,
    options: ConnectionPoolBuilder,
    /// By host, and then by database.
    pools: RefCell<HashMap<String, HashMap<String, ConnectionPool<M>>>>,
}

impl<C: 'static, M: Manager> DatabaseConnector<C, M> {
    /// For hosts with these credentials, and pools with the sizes and times that eventlet's have. Those
    /// of a host named `default` count for all that are not named. `make` is called with a host, a
    /// database and credentials.
    pub fn new(
        credentials: impl IntoIterator<Item = (impl Into<String>, C)>,
        make: impl Fn(&str, &str, &C) -> M + 'static,
    ) -> Self {
        Self::with_pools(ConnectionPoolBuilder::new(), credentials, make)
    }

    /// As [`new`](Self::new), with pools as `options` builds them.
    pub fn with_pools(
        options: ConnectionPoolBuilder,
        credentials: impl IntoIterator<Item = (impl Into<String>, C)>,
        make: impl Fn(&str, &str, &C) -> M + 'static,
    ) -> Self {
        let credentials = credentials.into_iter().map(|(host, of_it)| (host.into(), of_it));
        let inner = Inner {
            credentials: credentials.collect(),
            make: Box::new(make),
            options,
            pools: RefCell::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// The credentials for a host: its own, or else those of `default`. Mirrors eventlet's
    /// `credentials_for`.
    pub fn credentials_for(&self, host: &str) -> Option<&C> {
        let credentials = &self.inner.credentials;
        credentials.get(host).or_else(|| credentials.get(DEFAULT))
    }

    /// The pool of connections to a database, mirroring eventlet's `get`: the same one each time, until
    /// it is [removed](Self::remove). To make it opens no connection.
    ///
    /// # Errors
    ///
    /// When there are no credentials for the host.
    ///
    /// # Panics
    ///
    /// With a panic of the function that makes managers; the next call tries again.
    pub fn get(&self, host: &str, database: &str) -> Result<ConnectionPool<M>, NoCredentials> {
        let inner = &*self.inner;
        if let Some(pool) = inner.pools.borrow().get(host).and_then(|pools| pools.get(database)) {
            return Ok(pool.clone());
        }
        let credentials =
            self.credentials_for(host).ok_or_else(|| NoCredentials { host: host.to_owned() })?;
        let made = inner.options.clone().build((inner.make)(host, database, credentials));
        let mut pools = inner.pools.borrow_mut();
        let of_host = pools.entry(host.to_owned()).or_default();
        // Unless another greenlet has had one made while this was: then that is it. What is too much
        // goes when nothing is borrowed.
        let pool = of_host.entry(database.to_owned()).or_insert_with(|| made.clone()).clone();
        drop(pools);
        Ok(pool)
    }

    /// Forgets the pool of a database, and returns it: what it has lent comes back to it as ever, and
    /// its connections are closed with its last handle. The next [`get`](Self::get) makes another.
    pub fn remove(&self, host: &str, database: &str) -> Option<ConnectionPool<M>> {
        let mut pools = self.inner.pools.borrow_mut();
        let of_host = pools.get_mut(host)?;
        let removed = of_host.remove(database);
        if of_host.is_empty() {
            pools.remove(host);
        }
        removed
    }

    /// How many pools there are.
    pub fn len(&self) -> usize {
        self.inner.pools.borrow().values().map(HashMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<C: 'static, M: Manager> Clone for DatabaseConnector<C, M> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

/// Without the credentials.
impl<C: 'static, M: Manager> fmt::Debug for DatabaseConnector<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConnector").field("pools", &self.len()).finish_non_exhaustive()
    }
}
