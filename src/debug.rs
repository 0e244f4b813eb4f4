//! For the operator of a process that is stuck, or slow: who holds the hub, who waits for what.
//!
//! Layer 8. Mirrors eventlet's `debug`.
//!
//! | to | see |
//! |---|---|
//! | be told of a green thread that does not let others run | [`hub_blocking_detection`] |
//! | see all green threads, what each waits for and where | [`dump()`], [`dump_on_sigquit`] |
//! | see the descriptors and timers that are waited for | [`format_hub_listeners`], [`format_hub_timers`] |
//! | know whether the hub keeps up | [`hub::stats`] |
//! | have several wait for one descriptor | [`hub_prevent_multiple_readers`] |

mod dump;
mod quit;

use std::io;
use std::time::Duration;

pub use dump::{Dump, dump, format_hub_listeners, format_hub_timers};
pub use quit::dump_on_sigquit;

use crate::hub;
pub use crate::hub::{Blocked, set_blocking_hook, take_blocking_hook};

/// Has a thread of its own report, while it is stuck, each greenlet that holds this thread's hub
/// longer than `limit`; with `None`, no more. Mirrors eventlet's function of that name, which uses an
/// alarm signal and raises an error in the green thread.
///
/// A greenlet holds the hub from the moment when it gets the turn until it blocks, calls
/// [`sleep`](crate::sleep), or ends. Each hold is reported once, with the greenlet's name and
/// number, where it was spawned, and a backtrace of where it is now: to stderr, or to what
/// [`set_blocking_hook`] was given. Threads are watched one by one: call it on each. While 16
/// reports are under way no other begins, and a hold that is noticed then is not reported.
///
/// It is made for production. While it is on, all hand-overs go through the hub's loop, which reads
/// the clock for each: some 100 ns. The stuck greenlet is found by `SIGURG`, sent to its thread at
/// the time of the report only. To do nothing is that signal's default; a system call of C code
/// that it interrupts may return early, with `EINTR`, as it may by any signal. Where the signal is
/// blocked, or has been given another handler since, the report says less. The backtrace ends
/// early, or is missing, where the thread was in code that cannot be unwound: without unwinding
/// tables, or inside an unwinder. In the child of a `fork` detection is off until it is asked for
/// there.
///
/// ```no_run
/// # use std::time::Duration;
/// stolon::debug::hub_blocking_detection(Some(Duration::from_millis(100)))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When the hub or the watching thread cannot be made, and when this thread is exiting.
pub fn hub_blocking_detection(limit: Option<Duration>) -> io::Result<()> {
    hub::try_current()?.set_watch(limit)
}

/// Whether a greenlet that would wait for a descriptor in a direction in which another one waits
/// already gets an error, mirroring eventlet's function of this name. It is so from the beginning,
/// as two that read from one stream have each other's bytes.
///
/// With `false`, on this thread, they line up instead: when the descriptor becomes ready, the first
/// in line runs, and it alone; when it has done its operation, was killed or ran out of time, the
/// next one is first, and runs if there may be something left. Greenlets that wait in line stay there
/// whatever is set later.
pub fn hub_prevent_multiple_readers(state: bool) {
    hub::prevent_multiple_readers(state);
}
