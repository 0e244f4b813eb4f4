//! Groups: when all of them are done, and who is told.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use crate::util::leak::guarded;
use stolon::coros::{TooFew, WaitGroup};
use stolon::hub;
use stolon::timeout::with_timeout;
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Waits for the group, and says so.
fn waiter(group: &WaitGroup, log: &Rc<RefCell<Vec<u32>>>, name: u32) -> GreenThread<()> {
    let (group, log) = (group.clone(), Rc::clone(log));
    spawn(move || {
        group.wait();
        log.borrow_mut().push(name);
    })
}

// eventlet's `coros.metaphore`.
#[test]
fn who_waits_for_a_group_goes_on_in_order_when_none_are_left() {
    guarded(|| {
        let (group, log) = (WaitGroup::new(), Rc::default());
        // Nobody waits for none.
        group.wait();
        group.inc(3);
        let waiters = [1, 2, 3].map(|name| waiter(&group, &log, name));
        sleep(NOW);
        assert_eq!((group.count(), group.waiting()), (3, 3));
        group.dec(2).unwrap();
        sleep(NOW);
        assert_eq!((group.count(), group.waiting()), (1, 3));
        group.dec(1).unwrap();
        // They are told, and have not run.
        assert_eq!((group.waiting(), log.borrow().len()), (0, 0));
        waiters.iter().for_each(GreenThread::wait);
        assert_eq!(*log.borrow(), [1, 2, 3]);
        group.wait();
    });
}

#[test]
fn fewer_than_none_cannot_be_left() {
    let group = WaitGroup::new();
    assert_eq!(group.dec(1), Err(TooFew));
    group.inc(2);
    assert_eq!((group.dec(3), group.count()), (Err(TooFew), 2));
    assert_eq!((group.dec(0), group.dec(2), group.count()), (Ok(()), Ok(()), 0));
    // Counted off by hand before it is dropped.
    let member = group.member();
    group.dec(1).unwrap();
    drop(member);
    assert_eq!(group.count(), 0);
}

#[test]
fn a_member_counts_until_it_is_dropped_however_that_happens() {
    guarded(|| {
        let group = WaitGroup::new();
        let spawned = |f: fn()| {
            let member = group.member();
            spawn(move || {
                let _member = member;
                f();
            })
        };
        let ends = spawned(|| sleep(NOW));
        let panics = spawned(|| resume_unwind(Box::new("on purpose")));
        let killed = spawned(|| sleep(HOUR));
        let never_runs = spawned(|| sleep(HOUR));
        assert_eq!((group.count(), never_runs.cancel()), (4, true));
        sleep(NOW);
        killed.kill();
        group.wait();
        assert_eq!(group.count(), 0);
        assert!(panics.join().is_err());
        ends.wait();
    });
}

#[test]
fn who_was_told_that_none_are_left_goes_on_though_more_are_counted_since() {
    guarded(|| {
        let (group, log) = (WaitGroup::new(), Rc::default());
        group.inc(1);
        let told = waiter(&group, &log, 1);
        sleep(NOW);
        group.dec(1).unwrap();
        group.inc(1);
        let later = waiter(&group, &log, 2);
        told.wait();
        sleep(NOW);
        assert_eq!((log.borrow().clone(), group.waiting()), (vec![1], 1));
        group.dec(1).unwrap();
        later.wait();
    });
}

#[test]
fn who_is_killed_or_gives_up_leaves_the_group_and_the_others_are_told() {
    guarded(|| {
        hub::simulated(3).in_order().run(|| {
            let (group, log) = (WaitGroup::new(), Rc::default());
            group.inc(1);
            let [first, killed, last] = [1, 2, 3].map(|name| waiter(&group, &log, name));
            assert!(!group.wait_timeout(MS));
            assert!(with_timeout(MS, || group.wait()).is_err());
            assert_eq!(group.waiting(), 3);
            killed.kill();
            assert_eq!(group.waiting(), 2);
            let gets_it = spawn({
                let group = group.clone();
                move || group.wait_timeout(HOUR)
            });
            sleep(NOW);
            group.dec(1).unwrap();
            // Told already: that harms nobody.
            first.kill();
            assert!(gets_it.wait());
            last.wait();
            assert_eq!(*log.borrow(), [3]);
            assert!(group.wait_timeout(NOW));
        });
    });
}
