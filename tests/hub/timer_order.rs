//! Timers by the thousand, as programs have them, held against a sorted map.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quickcheck::{Arbitrary, Gen, QuickCheck};
use stolon::clock::{Deadline, Time};
use stolon::timers::{TimerId, Timers};

/// When those that a step sets are due, in nanoseconds after the latest moment so far.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// All at once.
    Equal(u64),
    /// Each later than the one before.
    Rising(u64),
    /// Each earlier than the one before.
    Falling(u64),
    /// In no order.
    Scattered(u64),
    /// Never.
    Never,
}

/// What is done so many times.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set(Due, usize),
    /// The one that was set first, of those that were not cancelled.
    CancelOldest(usize),
    CancelNewest(usize),
    CancelAny(usize),
    /// One is set, and the one that was set first is cancelled.
    Replace(Due, usize),
    /// What is due in so many nanoseconds, in one pass, in which each that fires sets another.
    Pass(u64),
    /// So many of the earliest, whenever they are due.
    Fire(usize),
}

impl Arbitrary for Due {
    fn arbitrary(gen_: &mut Gen) -> Self {
        let ns = 1_u64 << (u64::arbitrary(gen_) % 40);
        match u32::arbitrary(gen_) % 9 {
            0 => Self::Never,
            1 => Self::Equal(ns),
            2 => Self::Falling(ns),
            3..=5 => Self::Rising(ns),
            _ => Self::Scattered(ns),
        }
    }
}

impl Arbitrary for Step {
    fn arbitrary(gen_: &mut Gen) -> Self {
        let count = 1 << (u32::arbitrary(gen_) % 13);
        match u32::arbitrary(gen_) % 12 {
            0 => Self::CancelOldest(count),
            1 => Self::CancelNewest(count),
            2 => Self::CancelAny(count),
            3 | 4 => Self::Replace(Due::arbitrary(gen_), count),
            5 | 6 => Self::Pass(1 << (u64::arbitrary(gen_) % 40)),
            7 => Self::Fire(count),
            _ => Self::Set(Due::arbitrary(gen_), count),
        }
    }
}

/// The timers, and what they should be.
#[derive(Default)]
struct Both {
    timers: Timers<u64>,
    /// By deadline and number; the number is the payload.
    model: BTreeMap<(Deadline, u64), TimerId>,
    /// In the order in which they were set; some are not pending any more.
    set: VecDeque<(Deadline, u64)>,
    now_ns: u64,
    number: u64,
    random: u64,
}

impl Both {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    fn set(&mut self, due: Due, index: u64) {
        let after_ns = match due {
            Due::Equal(ns) => ns,
            Due::Rising(ns) => ns + index * 3,
            Due::Falling(ns) => ns.saturating_sub(index * 3),
            Due::Scattered(ns) => self.random() % ns,
            Due::Never => u64::MAX,
        };
        let deadline = Deadline::after(Time::from_ns(self.now_ns), Duration::from_nanos(after_ns));
        self.number += 1;
        let id = self.timers.insert(deadline, self.number);
        self.model.insert((deadline, self.number), id);
        self.set.push_back((deadline, self.number));
    }

    fn cancel(&mut self, key: Option<(Deadline, u64)>) {
        let Some(key) = key else { return };
        if let Some(id) = self.model.remove(&key) {
            assert!(self.timers.is_pending(id));
            assert_eq!(self.timers.cancel(id), Some(key.1));
            assert!(!self.timers.is_pending(id));
            assert_eq!(self.timers.cancel(id), None);
        }
    }

    fn cancel_any(&mut self) {
        if !self.set.is_empty() {
            let index = self.random() as usize % self.set.len();
            let key = self.set.swap_remove_back(index);
            self.cancel(key);
        }
    }

    /// The earliest fires, if it is due at `now`.
    fn fire(&mut self, now: Time) -> bool {
        let is_due = |(deadline, _): &(Deadline, u64)| deadline.is_past(now);
        let first = self.model.first_key_value().map(|(key, _)| *key).filter(is_due);
        assert_eq!(self.timers.pop_due(now), first.map(|(_, number)| number));
        if let Some(id) = first.and_then(|key| self.model.remove(&key)) {
            assert_eq!(self.timers.cancel(id), None);
        }
        first.is_some()
    }

    /// What is set meanwhile does not fire, but is there.
    fn pass(&mut self) {
        let now = Time::from_ns(self.now_ns);
        self.timers.begin_pass();
        let mut set_meanwhile = BTreeMap::new();
        while self.fire(now) {
            let before = self.model.len();
            self.set(Due::Equal(self.number % 2 * 1_000), 0);
            let last = self.set.back().copied().and_then(|key| self.model.remove_entry(&key));
            set_meanwhile.extend(last);
            assert_eq!(self.model.len(), before);
        }
        self.timers.end_pass();
        self.model.append(&mut set_meanwhile);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(due, count) => (0..count as u64).for_each(|index| self.set(due, index)),
            Step::CancelOldest(count) => (0..count).for_each(|_| {
                let key = self.set.pop_front();
                self.cancel(key);
            }),
            Step::CancelNewest(count) => (0..count).for_each(|_| {
                let key = self.set.pop_back();
                self.cancel(key);
            }),
            Step::CancelAny(count) => (0..count).for_each(|_| self.cancel_any()),
            Step::Replace(due, count) => (0..count as u64).for_each(|index| {
                self.set(due, index);
                let key = self.set.pop_front();
                self.cancel(key);
            }),
            Step::Pass(ns) => {
                self.now_ns += ns;
                self.pass();
            }
            Step::Fire(count) => {
                let end = Time::from_ns(u64::MAX - 1);
                (0..count).for_each(|_| {
                    self.fire(end);
                });
            }
        }
    }

    fn agree(&self) -> bool {
        let next = self.model.first_key_value().map_or(Deadline::NEVER, |(key, _)| key.0);
        let mut pending: Vec<_> = self.timers.pending().map(|(at, number)| (at, *number)).collect();
        pending.sort_unstable();
        self.timers.next_deadline() == next
            && self.timers.len() == self.model.len()
            && pending.iter().eq(self.model.keys())
    }
}

fn steps_agree(steps: Vec<Step>) -> bool {
    let mut both = Both { random: steps.len() as u64, ..Both::default() };
    let all = steps.into_iter().all(|step| {
        both.step(step);
        both.agree()
    });
    // The rest, in order.
    while both.fire(Time::from_ns(u64::MAX - 1)) {}
    all && both.agree()
}

#[test]
fn thousands_of_timers_do_what_those_of_a_sorted_map_do() {
    let tests = match () {
        () if cfg!(not(target_arch = "x86_64")) => 5,
        () if cfg!(debug_assertions) => 30,
        () => 300,
    };
    QuickCheck::new()
        .tests(tests)
        .rng(Gen::new(30))
        .quickcheck(steps_agree as fn(Vec<Step>) -> bool);
}

#[test]
fn many_fire_in_order_however_they_were_set() {
    for due in [Due::Equal(5), Due::Rising(5), Due::Falling(1 << 20), Due::Scattered(1 << 40)] {
        assert!(steps_agree(vec![Step::Set(due, 50_000), Step::CancelAny(1_000)]), "{due:?}");
    }
}
