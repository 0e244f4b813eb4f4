mod model;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

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
    timers.ladder.check(&timers.slots);
    let mut pending = 0;
    for (number, slot) in (0..).zip(&timers.slots) {
        assert_eq!(slot.payload.is_some(), slot.place.kind() != Kind::Vacant);
        let id = TimerId { sequence: slot.sequence, slot: number };
        assert_eq!(timers.is_pending(id), slot.payload.is_some());
        pending += usize::from(slot.payload.is_some());
    }
    for (index, entry) in timers.side_list.iter().enumerate() {
        let place = timers.slots[entry.slot as usize].place.unlisted();
        assert_eq!(place, Place::aside(index));
    }
    assert_eq!(pending, timers.len());

    let mut vacant = timers.vacant;
    for _ in pending..timers.slots.len() {
        let slot = &timers.slots[vacant as usize];
        assert!(slot.payload.is_none());
        vacant = slot.place.index() as u32;
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
    let slots = (size_of::<Slot<(u32, u32)>>(), size_of::<Slot<Box<dyn FnOnce()>>>());
    assert_eq!((slots, size_of::<Entry>()), ((32, 40), 24));
    assert_eq!(Timers::<(u32, u32)>::BYTES_EACH, 60);
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

#[test]
fn timers_of_one_length_that_are_cancelled_in_any_order_leave_no_memory_behind() {
    const MANY: u64 = 10_000;
    let stays = |ns: u64| ns % 100 == 0 || ns == MANY - 1;
    let mut timers = Timers::new();
    let ids: Vec<_> = (0..MANY).map(|ns| timers.insert(at(ns), ns)).collect();
    for number in (0..MANY).map(|number| number * 7_919 % MANY).filter(|ns| !stays(*ns)) {
        assert_eq!(timers.cancel(ids[number as usize]), Some(number));
    }
    check_invariants(&timers);
    assert!(timers.ladder.capacity() <= 2 * KEPT, "{}", timers.ladder.capacity());
    assert_eq!(
        fire(&mut timers, time(MANY)),
        (0..MANY).filter(|ns| stays(*ns)).collect::<Vec<_>>()
    );
}

#[test]
fn timers_that_are_far_and_cancelled_leave_no_memory_behind() {
    const MANY: u64 = 10_000;
    let mut timers = Timers::new();
    let soon: Vec<_> = (0..10).rev().map(|ns| timers.insert(at(ns), ns)).collect();
    for _ in 0..3 {
        let far = (0..MANY).map(|ns| timers.insert(at(MANY + ns * 7_919 % MANY), ns));
        for id in far.collect::<Vec<_>>() {
            assert!(timers.cancel(id).is_some());
        }
    }
    check_invariants(&timers);
    assert!(timers.slots.len() <= MANY as usize + 10);
    assert!(timers.ladder.capacity() <= 2 * MANY as usize + KEPT, "{}", timers.ladder.capacity());
    assert!(soon.iter().all(|id| timers.is_pending(*id)));
    assert_eq!(fire(&mut timers, time(MANY)), (0..10).collect::<Vec<_>>());
    // What was far then is the next now.
    timers.insert(at(3 * MANY), 1);
    check_invariants(&timers);
    assert_eq!(timers.next_deadline(), at(3 * MANY));
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
