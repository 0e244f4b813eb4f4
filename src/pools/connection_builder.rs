//! The options of pools of connections.

use std::time::Duration;

use super::{ConnectionPool, Manager};

/// Makes pools of connections with sizes and times of one's own.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `build` is called"]
pub struct ConnectionPoolBuilder {
    pub(super) max_size: usize,
    pub(super) max_idle: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
}

impl Default for ConnectionPoolBuilder {
    fn default() -> Self {
        Self {
            max_size: 4,
            max_idle: Some(Duration::from_secs(10)),
            max_age: Some(Duration::from_secs(30)),
            connect_timeout: Some(Duration::from_secs(5)),
        }
    }
}

impl ConnectionPoolBuilder {
    /// With the sizes and times that eventlet's pool has.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections the pool may have; by default 4.
    pub fn max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// A connection is closed that nobody has used for so long; by default for 10 seconds. With zero
    /// each is closed when it comes back, with `None` none for this.
    pub fn max_idle(mut self, max_idle: impl Into<Option<Duration>>) -> Self {
        self.max_idle = max_idle.into();
        self
    }

    /// A connection is closed that was opened so long ago, when nobody uses it; by default 30 seconds.
    /// With zero each is closed when it comes back, with `None` none for this.
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.max_age = max_age.into();
        self
    }

    /// How long opening a connection may take; by default 5 seconds. With `None` as long as it takes.
    pub fn connect_timeout(mut self, connect_timeout: impl Into<Option<Duration>>) -> Self {
        self.connect_timeout = connect_timeout.into();
        self
    }

    /// Makes the pool. It has no connections yet.
    pub fn build<M: Manager>(self, manager: M) -> ConnectionPool<M> {
        ConnectionPool::with(manager, &self)
    }
}
