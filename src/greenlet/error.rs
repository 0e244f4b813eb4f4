//! What can go wrong with a switch.

use std::any::type_name;
use std::fmt;
use std::io;

/// Why a switch did not return a value.
#[non_exhaustive]
pub enum SwitchError<T> {
    /// The target waits for a value of another type. Nobody was switched.
    TypeMismatch {
        /// The value that was not sent.
        value: T,
    },
    /// Control came back, but no value: a child of the current greenlet was ended by
    /// [`GreenletExit`](super::GreenletExit).
    Exited,
    /// The thread is exiting, and the target cannot be resumed any more.
    ThreadExiting {
        /// The value that was not sent.
        value: T,
    },
}

impl<T> SwitchError<T> {
    /// The value that was not sent, if there is one.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::TypeMismatch { value } | Self::ThreadExiting { value } => Some(value),
            Self::Exited => None,
        }
    }
}

impl<T> fmt::Display for SwitchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TypeMismatch { .. } => {
                write!(
                    f,
                    "the greenlet waits for a value of another type than {}",
                    type_name::<T>()
                )
            }
            Self::Exited => write!(f, "a child greenlet was ended by GreenletExit"),
            Self::ThreadExiting { .. } => write!(f, "the thread's greenlets have ended"),
        }
    }
}

impl<T> fmt::Debug for SwitchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwitchError({self})")
    }
}

impl<T> std::error::Error for SwitchError<T> {}

impl<T> From<SwitchError<T>> for io::Error {
    fn from(error: SwitchError<T>) -> Self {
        Self::other(error.to_string())
    }
}
