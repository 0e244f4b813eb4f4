//! Time as the crate counts it: moments, deadlines, and the clock they are read from.
//!
//! Layer 0, ground; it knows `sys` only. A moment and a deadline are nanoseconds on one clock, in
//! eight bytes, ordered as numbers. A duration becomes a deadline as soon as it comes in, so that
//! waiting in several steps does not add up to more; "no limit" is a deadline too.

use std::cell::Cell;
use std::time::Duration;

use crate::sys;

/// A moment: nanoseconds since the clock's own beginning.
///
/// Moments of one clock can be compared; those of different clocks have nothing to do with each
/// other. The monotonic clock of a process is one clock, in all its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The clock's beginning; a simulated clock starts here.
    pub const ZERO: Time = Time(0);

    /// The moment `ns` nanoseconds after the beginning.
    pub const fn from_ns(ns: u64) -> Time {
        Time(ns)
    }

    /// Nanoseconds since the beginning.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The moment at which a wait is over, or [`Deadline::NEVER`], which is later than every moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(u64);

impl Deadline {
    /// No limit: the last deadline of all, and never past.
    pub const NEVER: Deadline = Deadline(u64::MAX);

    /// The deadline that is `moment`.
    pub const fn at(moment: Time) -> Deadline {
        Deadline(moment.0)
    }

    /// The deadline `timeout` after `now`: [`Deadline::NEVER`] if that is more than the 584 years
    /// that a deadline can express.
    pub const fn after(now: Time, timeout: Duration) -> Deadline {
        let sum_ns = now.0 as u128 + timeout.as_nanos();
        if sum_ns < u64::MAX as u128 { Deadline(sum_ns as u64) } else { Deadline::NEVER }
    }

    /// Whether there is no limit.
    pub const fn is_never(self) -> bool {
        self.0 == Deadline::NEVER.0
    }

    /// Whether the moment has come: true at the very nanosecond, and always false for
    /// [`Deadline::NEVER`].
    pub const fn is_past(self, now: Time) -> bool {
        self.0 <= now.0 && !self.is_never()
    }

    /// The time that is left, zero if the moment has come; `None` for [`Deadline::NEVER`].
    pub const fn remaining(self, now: Time) -> Option<Duration> {
        if self.is_never() {
            None
        } else {
            Some(Duration::from_nanos(self.0.saturating_sub(now.0)))
        }
    }

    /// A number with the same order.
    pub(crate) const fn rank(self) -> u64 {
        self.0
    }

    /// The moment; `None` for [`Deadline::NEVER`].
    pub const fn moment(self) -> Option<Time> {
        if self.is_never() { None } else { Some(Time(self.0)) }
    }
}

/// Where the time is read: from the system, or from a hand that was set.
///
/// A simulated clock stands still until [`advance_to`](Clock::advance_to) moves it, so that a
/// program that waits for hours can be run in no time, and twice alike.
#[derive(Debug)]
pub struct Clock(Source);

#[derive(Debug)]
enum Source {
    /// The system's monotonic clock.
    Monotonic,
    /// What the hand shows.
    Simulated(Cell<Time>),
}

impl Clock {
    /// The system's monotonic clock.
    pub const fn monotonic() -> Clock {
        Clock(Source::Monotonic)
    }

    /// A clock of its own that shows [`Time::ZERO`] until it is moved.
    pub const fn simulated() -> Clock {
        Clock(Source::Simulated(Cell::new(Time::ZERO)))
    }

    /// The time now.
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::Monotonic => Time(sys::time::monotonic_ns()),
            Source::Simulated(hand) => hand.get(),
        }
    }

    /// Whether the time is set by hand.
    pub const fn is_simulated(&self) -> bool {
        matches!(self.0, Source::Simulated(_))
    }

    /// Moves a simulated clock to `moment`; it never goes back, so an earlier moment changes
    /// nothing.
    ///
    /// # Panics
    ///
    /// If this is the system's clock, which nobody can move.
    pub fn advance_to(&self, moment: Time) {
        match &self.0 {
            Source::Monotonic => {
                panic!("the monotonic clock cannot be moved, only a simulated one")
            }
            Source::Simulated(hand) => hand.set(moment.max(hand.get())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_past_at_its_very_nanosecond() {
        let deadline = Deadline::after(Time::from_ns(40), Duration::from_nanos(2));
        assert!(!deadline.is_past(Time::from_ns(41)));
        assert!(deadline.is_past(Time::from_ns(42)));
        assert_eq!(deadline.remaining(Time::from_ns(41)), Some(Duration::from_nanos(1)));
        assert_eq!(deadline.remaining(Time::from_ns(50)), Some(Duration::ZERO));
        assert_eq!(deadline, Deadline::at(Time::from_ns(42)));
    }

    #[test]
    fn never_is_the_last_deadline_and_never_past() {
        let end = Time::from_ns(u64::MAX);
        assert!(!Deadline::NEVER.is_past(end));
        assert!(Deadline::at(Time::from_ns(u64::MAX - 1)) < Deadline::NEVER);
        assert_eq!(Deadline::NEVER.remaining(end), None);
        assert_eq!(Deadline::NEVER.moment(), None);
    }

    #[test]
    fn a_timeout_too_long_to_express_is_never() {
        assert!(Deadline::after(Time::ZERO, Duration::MAX).is_never());
        assert!(Deadline::after(Time::from_ns(u64::MAX), Duration::ZERO).is_never());
        assert!(Deadline::after(Time::from_ns(1), Duration::from_nanos(u64::MAX - 1)).is_never());
        assert!(!Deadline::after(Time::ZERO, Duration::from_nanos(u64::MAX - 1)).is_never());
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let clock = Clock::monotonic();
        let earlier = clock.now();
        let later = clock.now();
        assert!(earlier > Time::ZERO && later >= earlier);
        assert_eq!(earlier.since(later), Duration::ZERO);
    }

    #[test]
    fn a_simulated_clock_moves_by_hand_and_only_forward() {
        let clock = Clock::simulated();
        assert_eq!(clock.now(), Time::ZERO);
        clock.advance_to(Time::from_ns(7));
        clock.advance_to(Time::from_ns(3));
        assert_eq!(clock.now(), Time::from_ns(7));
    }

    #[test]
    #[should_panic(expected = "cannot be moved")]
    fn the_monotonic_clock_cannot_be_moved() {
        Clock::monotonic().advance_to(Time::ZERO);
    }
}
