//! A look at everything that a hub has, for reports.

use std::collections::HashMap;
use std::panic::Location;
use std::time::Duration;

use super::call_table::Deed;
use super::{Hub, WaitsFor};
use crate::clock::{Deadline, Time};
use crate::greenlet::{self, Greenlet};

/// How a greenlet is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Current,
    /// It stands in the hub's queue.
    Ready,
    /// It waits in the hub.
    Parked(Waiting),
    /// It has not started, and nothing in the hub will start it.
    Unstarted,
    /// It has switched to another greenlet, and waits to be switched to.
    Switched,
}

/// A wait in the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) waits_for: WaitsFor,
    /// What is left to its deadline, if it has one.
    pub(crate) left: Option<Duration>,
    /// How long it has lasted, to within a pass of the mainloop, if that was noted.
    pub(crate) lasted: Option<Duration>,
}

/// A timer that is set.
pub(crate) struct PendingTimer {
    /// What is left to its deadline.
    pub(crate) left: Duration,
    pub(crate) what: What,
}

/// What happens when a timer comes.
pub(crate) enum What {
    /// It wakes this greenlet; none if that one is gone.
    Wake(Option<Greenlet>),
    /// It calls what was scheduled there.
    Call(Option<&'static Location<'static>>),
}

/// All greenlets of a thread, the oldest first, and its timers, the next first.
pub(crate) struct Snapshot {
    pub(crate) greenlets: Vec<(Greenlet, State)>,
    pub(crate) timers: Vec<PendingTimer>,
}

impl Hub {
    /// A look at all greenlets of this thread and what they wait for.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let all = greenlet::all();
        let by_place: HashMap<u32, &Greenlet> = all.iter().map(|one| (one.place(), one)).collect();
        let mut pending: Vec<_> = {
            let timers = self.timers.borrow();
            timers.pending().map(|(deadline, due)| (deadline, *due)).collect()
        };
        pending.sort_by_key(|(deadline, _)| *deadline);
        let (mut timers, mut deadlines) = (Vec::new(), HashMap::new());
        for (deadline, due) in pending {
            let what = match due.deed() {
                Deed::Wake(wait) => {
                    let greenlet = by_place.get(&wait.place).copied();
                    let greenlet = greenlet.filter(|greenlet| wait.is_of(&greenlet.cast()));
                    if greenlet.is_some() {
                        deadlines.insert(wait.place, deadline);
                    }
                    What::Wake(greenlet.cloned())
                }
                Deed::Call(call) => What::Call(self.calls.borrow().place_of(call)),
            };
            if let Some(left) = deadline.remaining(now) {
                timers.push(PendingTimer { left, what });
            }
        }
        let states = self.states(now, &deadlines);
        let state_of = |greenlet: &Greenlet| match states.get(&greenlet.place()) {
            _ if greenlet.is_current() => State::Current,
            Some(state) => *state,
            None if greenlet.is_started() => State::Switched,
            None => State::Unstarted,
        };
        let states: Vec<State> = all.iter().map(state_of).collect();
        Snapshot { greenlets: all.into_iter().zip(states).collect(), timers }
    }

    /// How those are doing that wait in the hub, by their places.
    fn states(&self, now: Time, deadlines: &HashMap<u32, Deadline>) -> HashMap<u32, State> {
        let run_queue = self.run_queue.borrow();
        let mut states: HashMap<u32, State> = run_queue
            .parked()
            .map(|(greenlet, waits_for, since)| {
                let place = greenlet.place();
                let left = deadlines.get(&place).and_then(|deadline| deadline.remaining(now));
                let lasted = (since != Time::ZERO).then(|| now.since(since));
                (place, State::Parked(Waiting { waits_for, left, lasted }))
            })
            .collect();
        states.extend(run_queue.ready().map(|greenlet| (greenlet.place(), State::Ready)));
        states
    }

    /// Has each wait that begins from now on note the time, or not any more.
    pub(crate) fn set_notes_time(&self, notes_time: bool) {
        self.observed.notes_time.set(notes_time);
        self.observe_or_not();
    }

    /// Called when it has changed what is to be observed.
    pub(super) fn observe_or_not(&self) {
        let observed = &self.observed;
        observed.is_on.set(observed.notes_time.get() || self.is_watched());
        observed.noted_time.set(Time::ZERO);
        self.note_time();
    }

    /// Begins a pass of the mainloop.
    #[inline]
    pub(super) fn note_time(&self) {
        if self.observed.is_on.get() {
            self.observed.noted_time.set(self.clock.now());
        }
    }
}
