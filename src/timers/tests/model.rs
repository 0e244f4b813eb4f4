//! Random programs of calls, on timers and on a sorted map.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::{Deadline, Time, Timers, at, check_invariants, time};

/// One call, to be made on the timers and on the model.
#[derive(Clone, Debug)]
enum Call {
    Insert(Deadline),
    /// The id given by the insertion of this number, modulo their count.
    Cancel(usize),
    BeginPass,
    PopDue(Time),
    EndPass,
}

impl Arbitrary for Call {
    fn arbitrary(gen_: &mut Gen) -> Call {
        // Few different times, so that many are equal.
        let ns = u64::arbitrary(gen_) % 8;
        match u32::arbitrary(gen_) % 16 {
            0 => Call::Insert(Deadline::NEVER),
            1..=6 => Call::Insert(at(ns)),
            7..=9 => Call::Cancel(usize::arbitrary(gen_)),
            10 => Call::BeginPass,
            11..=14 => Call::PopDue(time(ns)),
            _ => Call::EndPass,
        }
    }
}

/// The same rules on a sorted map, with the number of the insertion for a payload.
#[derive(Default)]
struct Model {
    pending: BTreeSet<(Deadline, usize)>,
    inserted_in_pass: BTreeSet<(Deadline, usize)>,
    in_pass: bool,
}

impl Model {
    fn insert(&mut self, deadline: Deadline, number: usize) {
        let set = if self.in_pass { &mut self.inserted_in_pass } else { &mut self.pending };
        set.insert((deadline, number));
    }

    fn cancel(&mut self, number: usize) -> Option<usize> {
        let before = self.len();
        self.pending.retain(|key| key.1 != number);
        self.inserted_in_pass.retain(|key| key.1 != number);
        (self.len() < before).then_some(number)
    }

    fn pop_due(&mut self, now: Time) -> Option<usize> {
        let (deadline, number) = *self.pending.first()?;
        if deadline == Deadline::NEVER || deadline > Deadline::at(now) {
            return None;
        }
        self.pending.pop_first();
        Some(number)
    }

    fn end_pass(&mut self) {
        self.pending.append(&mut self.inserted_in_pass);
        self.in_pass = false;
    }

    fn len(&self) -> usize {
        self.pending.len() + self.inserted_in_pass.len()
    }
}

/// Makes the calls on both, and compares all that can be asked.
fn agrees_with_the_model(calls: Vec<Call>) -> bool {
    let mut timers = Timers::new();
    let mut model = Model::default();
    let mut ids = Vec::new();
    for call in calls {
        match call {
            Call::Insert(deadline) => {
                model.insert(deadline, ids.len());
                ids.push(timers.insert(deadline, ids.len()));
            }
            Call::Cancel(choice) => {
                if let Some(count) = NonZeroUsize::new(ids.len()) {
                    let number = choice % count;
                    assert_eq!(timers.cancel(ids[number]), model.cancel(number));
                }
            }
            Call::BeginPass => {
                timers.begin_pass();
                model.end_pass();
                model.in_pass = true;
            }
            Call::PopDue(now) => assert_eq!(timers.pop_due(now), model.pop_due(now)),
            Call::EndPass => {
                timers.end_pass();
                model.end_pass();
            }
        }
        check_invariants(&timers);
        assert_eq!((timers.len(), timers.is_empty()), (model.len(), model.len() == 0));
        let pending: BTreeMap<usize, Deadline> = model
            .pending
            .iter()
            .chain(&model.inserted_in_pass)
            .map(|(deadline, number)| (*number, *deadline))
            .collect();
        let next_deadline = pending.values().min().copied();
        assert_eq!(timers.next_deadline(), next_deadline.unwrap_or(Deadline::NEVER));
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(timers.is_pending(*id), pending.contains_key(&number));
        }
    }
    true
}

/// The same, where time goes on with each call and all timers have one of two lengths, so that most are
/// due after those that were set before.
fn agrees_with_the_model_on_two_lengths(calls: Vec<Call>) -> bool {
    let at_call = |(now, call)| match call {
        Call::Insert(deadline) if deadline < at(6) => Call::Insert(at(now + 40)),
        Call::Insert(_) => Call::Insert(at(now + 400)),
        Call::PopDue(_) => Call::PopDue(time(now)),
        other => other,
    };
    agrees_with_the_model((0..).zip(calls).map(at_call).collect())
}

#[test]
fn any_calls_on_timers_of_two_lengths_have_the_effect_they_have_on_a_sorted_map() {
    QuickCheck::new()
        .tests(100)
        .rng(Gen::new(200))
        .quickcheck(agrees_with_the_model_on_two_lengths as fn(Vec<Call>) -> bool);
}

#[test]
fn any_calls_have_the_effect_they_have_on_a_sorted_map() {
    QuickCheck::new()
        .tests(500)
        .rng(Gen::new(200))
        .quickcheck(agrees_with_the_model as fn(Vec<Call>) -> bool);
}
