//! Waits in the panic hook.
//!
//! `std` allows no other panic on a thread while the hook runs there, and loses count of unwindings that
//! begin meanwhile. So no other greenlet may run then, and what waits in a hook holds its whole thread.
//!
//! | a hook waits for | it |
//! |---|---|
//! | time | sleeps, and so does the thread |
//! | a descriptor | waits for it, and so does the thread |
//! | anything else | is told that nobody will come, as on a thread that exits: only other greenlets could |
//!
//! For the same reason nothing is raised in anyone: a green thread that a hook kills, and a greenlet whose
//! last handle it drops, are killed when the hook is over.

use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use super::{Hub, WaitsFor, Wake};
use crate::clock::Deadline;
use crate::sys::{self, poll};

/// Whether the current greenlet runs the panic hook.
#[inline]
pub(super) fn is_in_hook() -> bool {
    sys::panic_count::is_in_hook()
}

/// Whether a wait has to hold its thread. Also if it is the first of a thread that unwinds, which may be in
/// the hook.
pub(super) fn holds_thread(waits_for: WaitsFor) -> bool {
    let may_hold = waits_for == WaitsFor::Sleep || waits_for.is_io();
    is_in_hook() || (may_hold && thread::panicking() && sys::panic_count::is_unknown())
}

impl Hub {
    /// Waits without letting other greenlets run.
    #[cold]
    #[inline(never)]
    pub(super) fn hold_thread(&self, waits_for: WaitsFor, deadline: Deadline) -> Wake {
        let rest = deadline.remaining(self.now());
        match waits_for {
            // Its time is not the thread's.
            _ if self.simulation.is_some() => Wake::Expired,
            WaitsFor::Sleep => {
                thread::sleep(rest.unwrap_or(Duration::MAX));
                Wake::Expired
            }
            WaitsFor::Readable(fd) => hold_for(fd, (true, false), rest),
            WaitsFor::Writable(fd) => hold_for(fd, (false, true), rest),
            WaitsFor::Either(fd) => hold_for(fd, (true, true), rest),
            _ => Wake::Closed,
        }
    }
}

fn hold_for(fd: RawFd, directions: (bool, bool), timeout: Option<Duration>) -> Wake {
    match poll::becomes_ready(fd, directions, timeout) {
        Ok(false) => Wake::Expired,
        // An error shows when the operation is tried again.
        Ok(true) | Err(_) => Wake::Ready,
    }
}
