use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::*;

fn time(ns: u64) -> Time {
    Time::from_ns(ns)
}

fn at(ns: u64) -> Deadline {
    Deadline::at(time(ns))
}

/// What a pass at `now` fires.
fn fire<P>(timers: &mut Timers<P>, now: Time) -> Vec<P> {
    timers.begin_pass();
    let fired = std::iter::from_fn(|| timers.pop_due(now)).collect();
    timers.end_pass();
    fired
}

/// Checks what holds between any two calls.
fn check_invariants<P>(timers: &Timers<P>) {
    timers.ladder.check();
    let mut pending = 0;
    for entry in timers.ladder.entries().chain(&timers.side_list) {
        let slot = &timers.slots[entry.slot as usize];
        assert!(slot.payload.is_some());
        assert!(timers.is_pending(TimerId { sequence: entry.sequence, slot: entry.slot }));
        pending += 1;
    }
    assert_eq!(pending, timers.len());

    let mut vacant = timers.vacant;
    for _ in pending..timers.slots.len() {
        let slot = &timers.slots[vacant as usize];
        assert!(slot.payload.is_none());
        vacant = slot.place.0;
    }
    assert_eq!(vacant, NO_SLOT);
}

#[test]
fn timers_fire_by_deadline_and_equal_ones_by_insertion() {
    let mut timers = Timers::new();
    for (deadline, name) in [(at(20), "c"), (at(10), "a"), (at(10), "b"), (at(30), "d")] {
        timers.insert(deadline, name);
    }
    assert_eq!(timers.next_deadline(), at(10));
    assert_eq!(fire(&mut timers, time(9)), Vec::<&str>::new());
    assert_eq!(fire(&mut timers, time(20)), ["a", "b", "c"]);
    assert_eq!((timers.len(), timers.next_deadline()), (1, at(30)));
}

#[test]
fn a_cancelled_timer_never_fires() {
    let mut timers = Timers::new();
    let id = timers.insert(at(10), 1);
    timers.insert(at(10), 2);
    assert!(timers.is_pending(id));
    assert_eq!(timers.cancel(id), Some(1));
    assert!(!timers.is_pending(id));
    assert_eq!(fire(&mut timers, time(10)), [2]);
}

#[test]
fn cancelling_again_or_after_firing_does_nothing() {
    let mut timers = Timers::new();
    let (cancelled, fired) = (timers.insert(at(1), 1), timers.insert(at(1), 2));
    timers.cancel(cancelled);
    fire(&mut timers, time(1));
    assert_eq!((timers.cancel(cancelled), timers.cancel(fired)), (None, None));
    // Others have their places now.
    let (third, fourth) = (timers.insert(at(1), 3), timers.insert(at(1), 4));
    assert_eq!((timers.cancel(cancelled), timers.cancel(fired)), (None, None));
    assert!(timers.is_pending(third) && timers.is_pending(fourth));
}

#[test]
fn a_timer_without_a_deadline_sorts_last_and_never_fires() {
    let mut timers = Timers::new();
    let never = timers.insert(Deadline::NEVER, "never");
    timers.insert(at(u64::MAX - 1), "late");
    assert_eq!(fire(&mut timers, time(u64::MAX)), ["late"]);
    assert_eq!((timers.len(), timers.next_deadline()), (1, Deadline::NEVER));
    assert_eq!(timers.cancel(never), Some("never"));
    assert_eq!(timers.next_deadline(), Deadline::NEVER);
}

#[test]
fn a_timer_inserted_during_a_pass_waits_for_the_next() {
    let mut timers = Timers::new();
    timers.insert(at(5), "first");
    timers.insert(at(7), "second");
    timers.begin_pass();
    assert_eq!(timers.pop_due(time(10)), Some("first"));
    let inserted = timers.insert(at(1), "inserted");
    assert!(timers.is_pending(inserted));
    assert_eq!(timers.pop_due(time(10)), Some("second"));
    assert_eq!(timers.pop_due(time(10)), None);
    timers.end_pass();
    assert_eq!(timers.next_deadline(), at(1));
    assert_eq!(fire(&mut timers, time(10)), ["inserted"]);
}

#[test]
fn a_timer_inserted_during_a_pass_can_be_cancelled_in_it() {
    let mut timers = Timers::new();
    timers.begin_pass();
    let ids = [1, 2, 3].map(|payload| timers.insert(at(payload), payload));
    assert_eq!(timers.cancel(ids[0]), Some(1));
    assert_eq!(timers.cancel(ids[0]), None);
    check_invariants(&timers);
    timers.end_pass();
    assert_eq!(timers.cancel(ids[2]), Some(3));
    assert_eq!(fire(&mut timers, time(9)), [2]);
}

#[test]
fn a_pass_that_was_not_ended_loses_no_timer() {
    let mut timers = Timers::new();
    timers.insert(at(2), "before");
    timers.begin_pass();
    timers.insert(at(1), "during");
    // Here the callback of a timer would have panicked.
    assert_eq!((timers.len(), timers.next_deadline()), (2, at(1)));
    assert_eq!(fire(&mut timers, time(2)), ["during", "before"]);
}

#[test]
fn payloads_are_dropped_once_with_the_timers() {
    let payload = Rc::new(());
    let mut timers = Timers::new();
    let id = timers.insert(at(1), payload.clone());
    timers.insert(at(2), payload.clone());
    timers.begin_pass();
    timers.insert(at(3), payload.clone());
    drop(timers.cancel(id));
    assert_eq!(Rc::strong_count(&payload), 3);
    drop(timers);
    assert_eq!(Rc::strong_count(&payload), 1);
}

#[test]
fn a_pending_timer_takes_no_more_than_the_documented_bytes() {
    let with_niche = size_of::<Entry>() + size_of::<Slot<Box<dyn FnOnce()>>>();
    let without_niche = size_of::<Entry>() + size_of::<Slot<(u64, u64)>>();
    assert_eq!((with_niche, without_niche), (48, 56));
    assert_eq!(size_of::<Option<TimerId>>(), 16);
}

#[test]
fn inserting_and_cancelling_for_ever_takes_no_more_memory() {
    let mut timers = Timers::new();
    let mut live = VecDeque::new();
    for round in 0..1_000_000_u64 {
        live.push_back(timers.insert(Deadline::after(time(round), Duration::from_secs(30)), ()));
        if live.len() > 100 {
            timers.cancel(live.pop_front().unwrap()).unwrap();
        }
    }
    assert_eq!((timers.len(), timers.slots.len()), (100, 101));
}

#[test]
fn memory_is_given_back_when_few_of_many_timers_are_left() {
    const MANY: u64 = 100_000;
    let mut timers = Timers::new();
    let ids: Vec<_> = (0..MANY).map(|ns| timers.insert(at(ns), ns)).collect();
    let (low, high) = (ids[3], ids[MANY as usize - 1]);

    // One in the last slot holds the slots, and nothing else.
    for id in &ids[..MANY as usize - 1] {
        timers.cancel(*id);
    }
    check_invariants(&timers);
    assert_eq!((timers.len(), timers.slots.len()), (1, MANY as usize));
    assert!(timers.ladder.capacity() < MANY as usize / 4);
    assert_eq!(timers.cancel(high), Some(MANY - 1));
    assert!(timers.slots.is_empty() && timers.slots.capacity() == KEPT);
    assert!(timers.ladder.capacity() <= 3 * KEPT);

    // One in a low slot holds neither; and no place is given to two.
    let ids: Vec<_> = (0..MANY).map(|ns| timers.insert(at(ns), ns)).collect();
    for id in &ids[1..] {
        timers.cancel(*id);
    }
    check_invariants(&timers);
    assert!(timers.slots.len() < MANY as usize / 4);
    assert!(timers.is_pending(ids[0]) && !timers.is_pending(low) && !timers.is_pending(high));
    assert_eq!(fire(&mut timers, time(MANY)), [0]);
}

#[test]
fn memory_held_by_one_high_slot_is_given_back_in_time_after_it_is_free() {
    const MANY: usize = 100_000;
    let mut timers = Timers::new();
    let ids: Vec<_> = (0..MANY).map(|_| timers.insert(at(1), ())).collect();
    for id in &ids[1_000..MANY - 1] {
        timers.cancel(*id);
    }
    timers.cancel(ids[MANY - 1]);
    assert_eq!((timers.len(), timers.slots.len()), (1_000, MANY));
    for _ in 0..MANY {
        let id = timers.insert(at(1), ());
        timers.cancel(id);
    }
    check_invariants(&timers);
    assert!(timers.slots.len() < 2_000);
}

/// A step is a look at an entry of a rung that is split, or the move of one to another rung.
#[test]
fn no_pattern_of_calls_takes_more_than_some_steps_for_each() {
    const STAY: usize = 30_000;
    /// When the call of a number is for, and whether it sets a timer; else one fires.
    type Pattern = fn(u64) -> (u64, bool);
    let patterns: [(&str, Pattern); 4] = [
        // Bursts of what is due before all others, and is gone before the next burst.
        ("bursts", |n| (n, n % 200 < 100)),
        ("each is the earliest", |n| (u64::MAX / 2 - n, n % 3 > 0)),
        ("each is the latest", |n| (u64::MAX / 2 + n, n % 3 > 0)),
        ("each is somewhere", |n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n % 2 > 0)),
    ];
    for (name, pattern) in patterns {
        let mut timers = Timers::new();
        for ns in 0..STAY as u64 {
            timers.insert(at((1 << 62) + ns.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (1 << 40)), ());
        }
        let set = timers.ladder.steps;
        assert!(set < 20 * STAY, "{name}: {set} to set them");
        for n in 0..STAY as u64 {
            match pattern(n) {
                (ns, true) => drop(timers.insert(at(ns), ())),
                _ => drop(timers.pop_due(time(u64::MAX))),
            }
        }
        let steps = timers.ladder.steps - set;
        assert!(steps < 50 * STAY, "{name}: {steps}");
        while timers.pop_due(time(u64::MAX)).is_some() {}
        let steps = timers.ladder.steps - set;
        assert!(steps < 150 * STAY, "{name}: {steps} when all have fired");
    }
}

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

#[test]
fn any_calls_have_the_effect_they_have_on_a_sorted_map() {
    QuickCheck::new()
        .tests(500)
        .rng(Gen::new(200))
        .quickcheck(agrees_with_the_model as fn(Vec<Call>) -> bool);
}
