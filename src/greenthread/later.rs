//! Green threads that start later: until then they have no stack.

use std::time::Duration;

use super::unhandled::Failure;
use super::{Ending, GreenThread, Shared};
use crate::greenlet::Greenlet;
use crate::hub::{self, Timer, Wake};

/// Runs `f` in a new green thread when `delay` has passed, mirroring eventlet's `spawn_after`.
///
/// The handle is there at once, to wait for it, or to [`cancel`](GreenThread::cancel) it before its
/// time. It starts whether or not the current greenlet is still there by then. If no stack can be had
/// then, it ends with a panic that says so.
///
/// ```
/// use std::time::Duration;
///
/// let late = stolon::spawn_after(Duration::from_millis(1), || "late");
/// let never = stolon::spawn_after(Duration::from_secs(3600), || "never");
/// assert_eq!(late.wait(), "late");
/// assert!(never.cancel());
/// ```
///
/// # Panics
///
/// When the thread's hub cannot be made, and when the thread is exiting.
#[track_caller]
pub fn spawn_after<R: 'static>(delay: Duration, f: impl FnOnce() -> R + 'static) -> GreenThread<R> {
    put_off(delay, Owner::Nobody, f)
}

/// As [`spawn_after`], but if the current greenlet has ended by then, the new one ends by
/// [`GreenletExit`](crate::greenlet::GreenletExit) and `f` does not run, but is dropped
/// on the hub's own loop, where its links run, too. Mirrors eventlet's `spawn_after_local`.
///
/// # Panics
///
/// As `spawn_after`.
#[track_caller]
pub fn spawn_after_local<R: 'static>(
    delay: Duration,
    f: impl FnOnce() -> R + 'static,
) -> GreenThread<R> {
    put_off(delay, Owner::Current, f)
}

/// Functions larger than this, in bytes, go to the heap at once: the hub's own loop, whose stack may be
/// small, moves what it starts.
const MAX_MOVED_BYTES: usize = 128;

/// Without whom a green thread is not to start.
enum Owner {
    Nobody,
    Current,
}

#[track_caller]
fn put_off<R: 'static, F: FnOnce() -> R + 'static>(
    delay: Duration,
    owner: Owner,
    f: F,
) -> GreenThread<R> {
    if const { size_of::<F>() > MAX_MOVED_BYTES } {
        let on_heap: Box<dyn FnOnce() -> R> = Box::new(f);
        schedule(delay, owner, on_heap)
    } else {
        schedule(delay, owner, f)
    }
}

#[track_caller]
fn schedule<R: 'static>(
    delay: Duration,
    owner: Owner,
    f: impl FnOnce() -> R + 'static,
) -> GreenThread<R> {
    let shared = Greenlet::<Wake>::builder().reserve(Shared::new);
    let starter = Starter { f, ending: Ending::new(shared.clone()) };
    // If it is dropped instead, that ends it.
    let start = move || starter.start();
    let timer = match owner {
        Owner::Nobody => hub::schedule_call_global(delay, start),
        Owner::Current => hub::schedule_call_local(delay, start),
    };
    if timer.is_pending() {
        shared.rare.set_start(Later(timer));
    }
    GreenThread { shared }
}

/// A green thread to be.
struct Starter<F, R: 'static> {
    f: F,
    ending: Ending<R>,
}

impl<F: FnOnce() -> R + 'static, R: 'static> Starter<F, R> {
    fn start(self) {
        let Self { f, ending } = self;
        // It is put off no more.
        let Some(shared) = ending.shared.clone() else { return };
        drop(shared.rare.take_start());
        let Some(hub) = hub::current() else { return };
        let made = hub.mainloop().and_then(|mainloop| {
            Greenlet::<Wake>::builder().parent(&mainloop).build_reserved(&shared, move |_| {
                ending.run(f);
                Wake::Ended
            })
        });
        match made {
            Ok(greenlet) => {
                greenlet.hold_itself();
                hub::start(greenlet);
            }
            Err(e) => {
                // It has ended by an exit, as it was dropped. Nobody has been told yet.
                let text = format!("no green thread could be made: {e}");
                shared.fail(Failure::new(Box::new(text)));
            }
        }
    }
}

/// A start that is scheduled, until this is dropped.
pub(super) struct Later(Timer);

impl Drop for Later {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
