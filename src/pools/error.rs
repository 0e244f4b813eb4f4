//! What goes wrong with connections.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::timeout::IsTimeout;

/// Why [`ConnectionPool::get`](super::ConnectionPool::get) has none.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError<E> {
    /// The manager could not open one.
    Connect(E),
    /// Opening one took longer than this, the pool's timeout. Mirrors eventlet's `ConnectTimeout`.
    ConnectTimeout(Duration),
    /// None came back in this time, the caller's timeout.
    Exhausted(Duration),
}

impl<E: fmt::Display> fmt::Display for GetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(e) => write!(f, "no connection could be opened: {e}"),
            Self::ConnectTimeout(timeout) => {
                write!(f, "no connection could be opened in {timeout:?}")
            }
            Self::Exhausted(timeout) => write!(f, "no connection came back in {timeout:?}"),
        }
    }
}

impl<E: Error + 'static> Error for GetError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(e) => Some(e),
            _ => None,
        }
    }
}

/// If opening one took too long, or none came back in time, or the manager's error means that.
impl<E: IsTimeout> IsTimeout for GetError<E> {
    fn is_timeout(&self) -> bool {
        match self {
            Self::Connect(e) => e.is_timeout(),
            Self::ConnectTimeout(_) | Self::Exhausted(_) => true,
        }
    }
}

/// Why [`DatabaseConnector::get`](super::DatabaseConnector::get) has no pool: it was told no credentials
/// for this host, and no default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCredentials {
    pub(super) host: String,
}

impl NoCredentials {
    /// The host that there are none for.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no credentials for the host `{}`, and no default ones", self.host)
    }
}

impl Error for NoCredentials {}
