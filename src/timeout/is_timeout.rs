//! Which errors and payloads mean that some time was over.

use std::any::Any;
use std::error::Error;
use std::io;
use std::sync::mpsc::RecvTimeoutError;

use super::TimedOut;

/// Errors that know whether they mean that some time was over, so that code for any of them can treat
/// timeouts apart: to try again, say. Mirrors eventlet's `wrap_is_timeout`, which marks a class of
/// one's own, and `is_timeout`, which asks any exception.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use stolon::timeout::{IsTimeout, with_timeout};
///
/// #[derive(Debug)]
/// enum FetchError {
///     Busy,
///     Io(io::Error),
/// }
///
/// impl IsTimeout for FetchError {
///     fn is_timeout(&self) -> bool {
///         match self {
///             Self::Busy => false,
///             Self::Io(e) => e.is_timeout(),
///         }
///     }
/// }
///
/// /// Does it once more if only the time was over.
/// fn twice<T, E: IsTimeout>(mut f: impl FnMut() -> Result<T, E>) -> Result<T, E> {
///     f().or_else(|e| if e.is_timeout() { f() } else { Err(e) })
/// }
///
/// let mut calls = 0;
/// let fetched = twice(|| {
///     calls += 1;
///     let slow = with_timeout(Duration::from_millis(1), || stolon::sleep(Duration::from_secs(60)));
///     slow.map_err(|e| FetchError::Io(e.into()))
/// });
/// assert!(fetched.unwrap_err().is_timeout() && calls == 2);
/// assert!(twice(|| Err::<(), _>(FetchError::Busy)).is_err());
/// ```
pub trait IsTimeout {
    /// Whether this means that some time was over.
    fn is_timeout(&self) -> bool;
}

/// Always.
impl IsTimeout for TimedOut {
    fn is_timeout(&self) -> bool {
        true
    }
}

/// If it is of the kind [`TimedOut`](io::ErrorKind::TimedOut).
impl IsTimeout for io::Error {
    fn is_timeout(&self) -> bool {
        self.kind() == io::ErrorKind::TimedOut
    }
}

impl IsTimeout for RecvTimeoutError {
    fn is_timeout(&self) -> bool {
        *self == Self::Timeout
    }
}

/// If it, or one of its sources, is a [`TimedOut`] or an [`io::Error`] or [`RecvTimeoutError`] that
/// means it. Types of one's own cannot be recognised behind `dyn`.
impl IsTimeout for dyn Error + 'static {
    fn is_timeout(&self) -> bool {
        let mut next = Some(self);
        while let Some(error) = next {
            let io = error.downcast_ref::<io::Error>().is_some_and(IsTimeout::is_timeout);
            let receiving = error.downcast_ref::<RecvTimeoutError>();
            if io || error.is::<TimedOut>() || receiving.is_some_and(IsTimeout::is_timeout) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// As that of `dyn Error`.
impl IsTimeout for dyn Error + Send + Sync + 'static {
    fn is_timeout(&self) -> bool {
        let error: &(dyn Error + 'static) = self;
        error.is_timeout()
    }
}

/// Whether a panic's payload, or an error, is that of a timeout: a [`TimedOut`], or an
/// [`io::Error`] of the kind [`TimedOut`](io::ErrorKind::TimedOut). Mirrors eventlet's `is_timeout`.
///
/// Errors whose types are known are asked by [`IsTimeout`].
pub fn is_timeout(payload: &dyn Any) -> bool {
    payload.is::<TimedOut>()
        || payload.downcast_ref::<io::Error>().is_some_and(IsTimeout::is_timeout)
}
