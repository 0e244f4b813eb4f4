//! The end of a hub, with its thread.
//!
//! It is the first of the crate's thread-local destructors, and what it drops is the user's: calls, hooks,
//! messages. So everything that could be resumed by such code is put out of reach before.

use super::{Hub, Wake};
use crate::greenlet::{self, Greenlet};

impl Hub {
    /// Ends the hub of a thread that is exiting. The thread has no open hub any more, so nobody parks.
    pub(super) fn close(&self) {
        self.closed.set(true);
        // It returns through frames of its own, which run no code of the user's.
        let ours = self.last_mainloop().filter(|mainloop| self.can_finish(mainloop));
        greenlet::seal(ours.as_ref());
        if let Some(mainloop) = ours {
            mainloop.finish(Wake::Closed);
        }
        // From here on destructors of the user's run. The descriptor is not to be leaked with the
        // greenlets that still refer to the hub.
        drop(self.poller.take());
        self.remote.close();
        drop(self.observed.watch.take());
        drop(self.late.take_kills());
        let all = self.run_queue.borrow_mut().take_all();
        drop(all);
        self.drop_calls();
    }

    /// Whether the mainloop ends at once when it is resumed, now that the hub is closed. From inside
    /// another greenlet the whole process exits, and nothing is resumed.
    fn can_finish(&self, mainloop: &Greenlet<Wake>) -> bool {
        self.is_at_rest(mainloop) && greenlet::root::<()>().is_current()
    }

    /// Whether the mainloop is suspended with only its own frames on its stack.
    pub(super) fn is_at_rest(&self, mainloop: &Greenlet<Wake>) -> bool {
        self.is_between_turns.get() && !mainloop.is_dead() && !mainloop.is_traced()
    }
}
