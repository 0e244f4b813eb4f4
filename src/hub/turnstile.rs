//! Turnstiles: greenlets that wait in line for their turn at something, first come, first served.
//!
//! Who is *granted* its turn leaves the line at that moment, and runs later. If it unwinds instead, as
//! somebody has killed it meanwhile, it says so, and what it was granted goes to the next.

use std::cell::RefCell;
use std::rc::Rc;

use super::line::{Line, Ticket};
use super::{Hub, Wait, WaitId, WaitsFor, Wake};
use crate::clock::Deadline;

/// Greenlets that stand in line.
#[derive(Debug, Default)]
pub(crate) struct Turnstile(RefCell<Lines>);

#[derive(Debug, Default)]
struct Lines {
    waiting: Line<WaitId>,
    /// Those who were passed over, as their deadline has passed and they cannot be woken again. They
    /// leave when they run.
    late: Line<()>,
}

/// What a greenlet leaves a line with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// With what it waited for, under the identity of its wait.
    Granted(WaitId),
    /// With nothing: its deadline has passed, or its thread is exiting.
    Missed,
}

impl Turnstile {
    /// How many stand in line.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let lines = self.0.borrow();
        lines.waiting.len() + lines.late.len()
    }

    /// Has the current greenlet stand in line until it is granted its turn, or `deadline` has passed.
    /// However it leaves the line but to go on with what it was granted, by unwinding too, `give_up` is
    /// told with what.
    ///
    /// # Panics
    ///
    /// As [`Wait::park`].
    pub(crate) fn stand(
        &self,
        hub: &Rc<Hub>,
        waits_for: WaitsFor,
        deadline: Deadline,
        give_up: impl FnOnce(Turn),
    ) -> Turn {
        let wait = Wait::begin(hub, waits_for);
        let id = wait.id();
        let ticket = self.0.borrow_mut().waiting.join(id);
        let mut standing = Standing { turnstile: self, ticket, id, give_up: Some(give_up) };
        wait.park(deadline);
        if !self.leave(ticket) {
            standing.give_up = None;
            return Turn::Granted(id);
        }
        // It has left, so its guard would take its turn for granted.
        if let Some(give_up) = standing.give_up.take() {
            give_up(Turn::Missed);
        }
        Turn::Missed
    }

    /// Grants the first in line its turn. `None` if nobody waits.
    pub(crate) fn grant(&self, hub: &Hub) -> Option<WaitId> {
        let mut lines = self.0.borrow_mut();
        loop {
            let (ticket, id) = lines.waiting.take_first_with_ticket()?;
            if hub.wake(id, Wake::Ready) {
                return Some(id);
            }
            lines.late.join_again(ticket, ());
        }
    }

    /// Grants everyone in line their turn.
    pub(crate) fn grant_all(&self, hub: &Hub) {
        while self.grant(hub).is_some() {}
    }

    /// Whether one was still in line.
    fn leave(&self, ticket: Ticket) -> bool {
        let mut lines = self.0.borrow_mut();
        lines.waiting.leave(ticket).is_some() || lines.late.leave(ticket).is_some()
    }
}

/// A greenlet in a line, until it goes on.
struct Standing<'a, F: FnOnce(Turn)> {
    turnstile: &'a Turnstile,
    ticket: Ticket,
    id: WaitId,
    give_up: Option<F>,
}

impl<F: FnOnce(Turn)> Drop for Standing<'_, F> {
    fn drop(&mut self) {
        let Some(give_up) = self.give_up.take() else { return };
        let missed = self.turnstile.leave(self.ticket);
        give_up(if missed { Turn::Missed } else { Turn::Granted(self.id) });
    }
}
