//! Kills: greenlets that are made to unwind by others, and who goes on when.

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use super::in_hook::is_in_hook;
use super::waiter::UnderWay;
use super::{Hub, Wait, WaitsFor, Wake, current};
use crate::greenlet::{self, Greenlet, Scheduler, SwitchError};
use crate::quietly::quietly;

/// How often `killall` looks: for a second in all, and for some decades of simulated time.
const ROUNDS: u32 = 10;
const ROUNDS_SIMULATED: u32 = 40;

/// What unwinding carries.
type Payload = Box<dyn Any + Send>;

impl Hub {
    /// Makes a greenlet that is not the current one unwind now. The current one goes on at its next
    /// turn, or at once if it is the mainloop.
    pub(crate) fn exit_greenlet(self: &Rc<Self>, victim: &Greenlet<Wake>) {
        self.interrupt(victim, || victim.exit_now());
    }

    /// [`exit_greenlet`](Self::exit_greenlet) with a payload. The victim must not be unwinding.
    pub(crate) fn throw_into(self: &Rc<Self>, victim: &Greenlet<Wake>, payload: Payload) {
        self.interrupt(victim, || victim.throw_now(payload));
    }

    fn interrupt(
        self: &Rc<Self>,
        victim: &Greenlet<Wake>,
        raise: impl FnOnce() -> Option<Result<Wake, SwitchError<Wake>>>,
    ) {
        if self.kills_after_hook(victim) {
            return;
        }
        if greenlet::is_loop() {
            // It does not wait: whatever comes back, it is the mainloop that is resumed.
            self.raise_in(victim, raise);
            return;
        }
        self.refuse_in_call();
        let _away = self.note_unwinding();
        let _wait = UnderWay::stand_in_queue(self);
        if self.raise_in(victim, raise) {
            self.switch_away();
        }
    }

    /// In the panic hook, where nothing may be raised, notes that the greenlet is to be killed when that is
    /// over. Whether that is so.
    fn kills_after_hook(&self, victim: &Greenlet<Wake>) -> bool {
        let is_in_hook = is_in_hook();
        if is_in_hook {
            victim.set_pending_kill();
            self.note_late_kill(victim);
        }
        is_in_hook
    }

    /// Whether what came back is the end of a greenlet. Else that was dead before, or the current greenlet's
    /// turn has come.
    fn raise_in(
        &self,
        victim: &Greenlet<Wake>,
        raise: impl FnOnce() -> Option<Result<Wake, SwitchError<Wake>>>,
    ) -> bool {
        let has_ended = matches!(raise(), Some(Ok(Wake::Ended) | Err(_)));
        self.note_late_kill(victim);
        has_ended
    }

    /// Makes a greenlet unwind, and goes on when it is dead or waits again.
    fn end(self: &Rc<Self>, victim: &Greenlet<Wake>) {
        if self.kills_after_hook(victim) {
            return;
        }
        self.refuse_in_call();
        let _away = self.note_unwinding();
        let _wait = UnderWay::stand_in_queue(self);
        if self.raise_in(victim, || victim.exit_here()) && !victim.is_dead() {
            self.switch_away();
        }
    }
}

/// How greenlets are killed by those who do not wait for their death: the mainloop and `killall`.
pub(super) fn scheduler(hub: &Hub) -> Scheduler {
    let rounds = if hub.simulation.is_some() { ROUNDS_SIMULATED } else { ROUNDS };
    Scheduler::new::<Wake>(end, pause, rounds)
}

/// Ends a greenlet that waits, and returns when it is dead or waits again.
fn end(victim: &Greenlet) {
    let victim = victim.cast::<Wake>();
    match current::existing().filter(|_| !greenlet::is_loop()) {
        Some(hub) => hub.end(&victim),
        // What is meant for the loop meanwhile cannot be raised in a destructor of its.
        None if greenlet::is_unwinding() => quietly(|| _ = victim.exit_here::<Wake>()),
        None => drop(victim.exit_here::<Wake>()),
    }
}

/// Lets others run for a millisecond, and in each round for twice as long.
fn pause(round: u32) {
    if let Some(hub) = current::current() {
        let deadline = hub.deadline_after(Some(Duration::from_millis(1 << round)));
        Wait::begin(&hub, WaitsFor::Sleep).park(deadline);
    }
}
