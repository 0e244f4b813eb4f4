//! Small helpers for programs, after eventlet's module of this name.
//!
//! Layer 7.

mod serve;
mod server;

use std::io;

use crate::sys;
pub use serve::{
    StopServe, connect, connect_from, listen, listen_reuse_port, listen_with_backlog, serve,
};
pub use server::{Server, ServerBuilder, Stopped, Stopper};

/// Raises the process's limit on open descriptors as far as it may go by itself, and returns it:
/// the soft `RLIMIT_NOFILE` becomes the hard one. A server of many connections does this first.
///
/// # Errors
///
/// The kernel's.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    sys::limits::raise_descriptor_limit()
}
