//! What can go wrong with a switch, and with moving a greenlet in the tree.

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
    /// Nothing can be raised in the target: the thread is exiting; or the program is built with
    /// `panic = "abort"`, where nothing unwinds. Nobody was switched.
    CannotUnwind,
}

impl<T> SwitchError<T> {
    /// The value that was not sent, if there is one.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::TypeMismatch { value } | Self::ThreadExiting { value } => Some(value),
            Self::Exited | Self::CannotUnwind => None,
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
            Self::CannotUnwind if cfg!(panic = "abort") => {
                write!(f, "the greenlet cannot be unwound, as panics abort in this program")
            }
            Self::CannotUnwind => write!(f, "the greenlet cannot be unwound any more"),
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

/// Why a greenlet did not get another parent. The tree is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentError {
    /// It would be an ancestor of its own.
    Cycle,
    /// It is its thread's root, which has no parent.
    Root,
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cycle => "cyclic parent chain",
            Self::Root => "the root of a thread cannot have a parent",
        })
    }
}

impl std::error::Error for ParentError {}

impl From<ParentError> for io::Error {
    fn from(error: ParentError) -> Self {
        Self::other(error)
    }
}
