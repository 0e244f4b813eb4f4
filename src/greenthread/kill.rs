//! How green threads are ended by others.

use std::panic::resume_unwind;

use super::{GreenThread, Payload};
use crate::greenlet::{self, Greenlet, GreenletExit};
use crate::hub::{self, Wake};

/// Ends a green thread that one has as a greenlet, as [`GreenThread::kill`] does, mirroring eventlet's
/// function of this name: for those of [`spawn_n`](super::spawn_n), which know themselves by
/// [`getcurrent`](super::getcurrent).
///
/// # Panics
///
/// As there.
pub fn kill<T: 'static>(greenlet: &Greenlet<T>) {
    raise(&greenlet.cast(), None);
}

impl<R: 'static> GreenThread<R> {
    /// Ends the green thread by raising [`GreenletExit`] where it waits, mirroring eventlet's
    /// `kill`.
    ///
    /// It runs at once, unwinds, and its destructors run; the caller goes on after all that are
    /// runnable now. One that has not started never does. On one that has ended it does nothing; on
    /// the current one it raises the exit.
    ///
    /// # Panics
    ///
    /// With [`GreenletExit`], if it is the current green thread. And where panics abort, if it has
    /// started: it cannot unwind there.
    pub fn kill(&self) {
        if self.is_dead() {
            return;
        }
        if self.call_off() {
            hub::yield_now();
        } else {
            raise(&self.shared.greenlet(), None);
        }
    }

    /// As [`kill`](Self::kill), with `payload` in place of the exit: it is what is raised where the
    /// green thread waits, and what those get who [`wait`](Self::wait) for it. Mirrors eventlet's
    /// `kill` with an exception.
    ///
    /// If the green thread has not started, or is unwinding already, what is raised in it is the exit all
    /// the same; those who wait get `payload`, unless it catches the exit.
    ///
    /// # Panics
    ///
    /// With `payload`, if it is the current green thread; and as `kill`.
    pub fn kill_with(&self, payload: Payload) {
        if self.is_dead() {
            return;
        }
        let greenlet = self.shared.greenlet::<Wake>();
        let is_later = !greenlet.is_started() || greenlet.may_be_unwinding();
        if is_later && !greenlet.is_current() && !payload.is::<GreenletExit>() {
            self.shared.rare.set_killed_with(payload);
            self.kill();
        } else {
            raise(&greenlet, Some(payload));
        }
    }

    /// Ends the green thread as [`kill`](Self::kill) does if it has not started, mirroring eventlet's
    /// `cancel`. Whether that was so.
    pub fn cancel(&self) -> bool {
        let is_pending = !self.is_dead() && !self.shared.greenlet::<Wake>().is_started();
        if is_pending {
            self.kill();
        }
        is_pending
    }

    /// Ends it, if it was put off and waits for its time.
    pub(crate) fn call_off(&self) -> bool {
        // Dropping what would start it ends it.
        self.shared.rare.take_start().is_some()
    }
}

/// Raises `payload`, or the exit, in a green thread that is not dead.
fn raise(greenlet: &Greenlet<Wake>, payload: Option<Payload>) {
    if greenlet.is_dead() {
        return;
    }
    let cannot_unwind = cfg!(panic = "abort") && greenlet.is_started();
    assert!(!cannot_unwind, "{greenlet:?} cannot be killed: panics abort here");
    if greenlet.is_current() {
        if greenlet::is_in_hook() {
            // Nothing may be raised there: it comes when the greenlet next waits.
            return greenlet.set_pending_kill();
        }
        greenlet::set_raised();
        resume_unwind(payload.unwrap_or_else(|| Box::new(GreenletExit)));
    }
    // A thread that is exiting ends it by itself.
    let Some(hub) = hub::current() else { return };
    match payload {
        Some(payload) if !payload.is::<GreenletExit>() => hub.throw_into(greenlet, payload),
        _ => hub.exit_greenlet(greenlet),
    }
}
