//! What a hub counts of itself: at each pass of the mainloop, and nothing at a switch.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::Hub;
use super::watchdog::Watch;
use crate::clock::{Deadline, Time};

/// A timer is late that comes so much after its deadline.
const LATE: Duration = Duration::from_millis(1);

/// How a thread's hub is doing: [`stats`].
///
/// The *lag* is how much later than its deadline the first timer came in each pass of the mainloop in
/// which any did: what a greenlet that holds the hub for long costs all others. Without timers it is
/// not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The lag in the last pass in which a timer came.
    pub lag_last: Duration,
    /// The greatest lag there ever was.
    pub lag_max: Duration,
    /// The mean of all lags.
    pub lag_mean: Duration,
    /// Passes of the mainloop in which timers came.
    pub timer_passes: u64,
    /// Those of them in which the first timer came more than a millisecond late.
    pub timers_late: u64,
    /// How often a greenlet was given the turn.
    pub switches: u64,
    /// How often the kernel was asked for events.
    pub polls: u64,
    /// Greenlets that can run and wait for their turn.
    pub ready: usize,
    /// Greenlets that wait for something.
    pub parked: usize,
    /// Those of them that wait for a descriptor.
    pub descriptors: usize,
    /// Timers that are set.
    pub timers: usize,
}

/// What a hub does to be observed.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) counts: Counts,
    /// Whether there is anything to do for the fields below.
    pub(super) is_on: Cell<bool>,
    /// When the mainloop last began a pass; zero unless someone wants to know how long waits last.
    pub(super) noted_time: Cell<Time>,
    pub(super) notes_time: Cell<bool>,
    /// While someone asks that nobody hold the hub for long.
    pub(super) watch: RefCell<Option<Watch>>,
}

/// What [`Stats`] are made of.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Without those of the turns that are being handed out.
    switches: Cell<u64>,
    /// How many turns there were to hand out when they were last counted.
    turns: Cell<u32>,
    polls: Cell<u64>,
    timer_passes: Cell<u64>,
    timers_late: Cell<u64>,
    lag_last: Cell<Duration>,
    lag_max: Cell<Duration>,
    lag_sum: Cell<Duration>,
}

impl Counts {
    /// The kernel was asked for events.
    pub(super) fn polled(&self) {
        self.polls.set(self.polls.get() + 1);
    }

    /// So many turns were handed out one by one.
    pub(super) fn add_turns(&self, turns: u32) {
        self.switches.set(self.switches.get() + u64::from(turns));
    }

    /// So many turns are to be handed out, by anybody.
    pub(super) fn turns_begin(&self, turns: u32) {
        self.turns.set(turns);
    }

    /// So many of them are left.
    pub(super) fn turns_end(&self, left: u32) {
        self.add_turns(self.turns.replace(left).saturating_sub(left));
    }

    /// Notes how late the timers are of a pass that begins.
    pub(super) fn look_at_lag(&self, first: Deadline, now: Time) {
        let Some(deadline) = first.moment().filter(|_| first.is_past(now)) else { return };
        let lag = now.since(deadline);
        self.timer_passes.set(self.timer_passes.get() + 1);
        self.timers_late.set(self.timers_late.get() + u64::from(lag > LATE));
        self.lag_last.set(lag);
        self.lag_max.set(self.lag_max.get().max(lag));
        self.lag_sum.set(self.lag_sum.get().saturating_add(lag));
    }
}

/// How this thread's hub is doing. All is zero on a thread that has none yet.
///
/// To keep this up costs nothing at a switch. Asking takes a walk over all greenlets that wait.
///
/// ```
/// let before = stolon::hub::stats();
/// stolon::sleep(std::time::Duration::from_millis(1));
/// let after = stolon::hub::stats();
/// assert!(after.switches > before.switches && after.timer_passes > before.timer_passes);
/// ```
pub fn stats() -> Stats {
    super::existing().map(|hub| hub.stats()).unwrap_or_default()
}

impl Hub {
    pub(super) fn stats(&self) -> Stats {
        let counts = &self.observed.counts;
        let passes = counts.timer_passes.get();
        // Those that were handed out since.
        let taken = counts.turns.get().saturating_sub(self.budget.get());
        let sum_ns = counts.lag_sum.get().as_nanos();
        let mean_ns = sum_ns.checked_div(u128::from(passes)).unwrap_or(0);
        let run_queue = self.run_queue.borrow();
        Stats {
            lag_last: counts.lag_last.get(),
            lag_max: counts.lag_max.get(),
            lag_mean: Duration::from_nanos(u64::try_from(mean_ns).unwrap_or(u64::MAX)),
            timer_passes: passes,
            timers_late: counts.timers_late.get(),
            switches: counts.switches.get() + u64::from(taken),
            polls: counts.polls.get(),
            ready: run_queue.len(),
            parked: run_queue.parked().count(),
            descriptors: self.fds.waiting(),
            timers: self.timers.borrow().len(),
        }
    }
}
