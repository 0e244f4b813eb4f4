//! Killing green threads: who runs when, what is unwound, what is left of the victim.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::on_drop::OnDrop;
use stolon::greenlet::{Greenlet, GreenletExit};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

type Log = Rc<RefCell<Vec<&'static str>>>;

/// Notes `what` when it is dropped.
fn noted(log: &Log, what: &'static str) -> OnDrop<impl FnMut() + use<>> {
    let log = Rc::clone(log);
    OnDrop(move || log.borrow_mut().push(what))
}

fn note(log: &Log, what: &'static str) {
    log.borrow_mut().push(what);
}

/// Whether waiting for it ends with the exit that a kill raises.
fn was_killed<R: Clone + 'static>(green: &GreenThread<R>) -> bool {
    let ended = catch_unwind(AssertUnwindSafe(|| green.wait()));
    ended.is_err_and(|payload| payload.is::<GreenletExit>())
}

// Who runs when.

#[test]
fn the_victim_runs_at_once_then_who_is_ready_then_the_killer() {
    guarded(|| {
        let log = Log::default();
        let in_victim = Rc::clone(&log);
        let victim = spawn(move || {
            let _noted = noted(&in_victim, "victim");
            sleep(HOUR);
        });
        sleep(NOW);
        let ready = Rc::clone(&log);
        spawn(move || note(&ready, "ready"));
        victim.kill();
        note(&log, "killer");
        assert_eq!(*log.borrow(), ["victim", "ready", "killer"]);
        assert!(victim.is_dead() && was_killed(&victim) && was_killed(&victim));
    });
}

#[test]
fn what_the_victim_makes_ready_runs_after_the_killer() {
    guarded(|| {
        let log = Log::default();
        let in_victim = Rc::clone(&log);
        let victim = spawn(move || {
            let late = Rc::clone(&in_victim);
            let _spawns = OnDrop(move || {
                let late = Rc::clone(&late);
                spawn(move || note(&late, "late"));
            });
            sleep(HOUR);
        });
        sleep(NOW);
        victim.kill();
        note(&log, "killer");
        sleep(NOW);
        assert_eq!(*log.borrow(), ["killer", "late"]);
    });
}

#[test]
fn one_that_has_not_started_never_does_and_drops_its_closure() {
    guarded(|| {
        let log = Log::default();
        let (dropped, ran) = (noted(&log, "dropped"), Rc::clone(&log));
        let victim = spawn(move || {
            let _dropped = dropped;
            note(&ran, "ran");
        });
        victim.kill();
        assert_eq!(*log.borrow(), ["dropped"]);
        assert!(victim.is_dead() && was_killed(&victim));
    });
}

#[test]
fn one_that_has_ended_keeps_its_result_and_nobody_yields() {
    guarded(|| {
        let log = Log::default();
        let ended = spawn(|| 7);
        assert_eq!(ended.wait(), 7);
        let other = Rc::clone(&log);
        spawn(move || note(&other, "other"));
        ended.kill();
        assert!(log.borrow().is_empty());
        assert_eq!(ended.wait(), 7);
    });
}

#[test]
fn killing_oneself_raises_and_leaves_no_wake_up_behind() {
    guarded(|| {
        let me = Rc::new(OnceCell::<GreenThread<Duration>>::new());
        let myself = Rc::clone(&me);
        let green = spawn(move || {
            let kill = AssertUnwindSafe(|| myself.get().unwrap().kill());
            assert!(catch_unwind(kill).unwrap_err().is::<GreenletExit>());
            let start = Instant::now();
            sleep(20 * MS);
            start.elapsed()
        });
        me.set(green).unwrap();
        let slept = me.get().unwrap().wait();
        assert!(slept >= 20 * MS, "{slept:?}");
    });
}

#[test]
fn two_that_kill_each_other_both_end() {
    guarded(|| {
        let first = Rc::new(OnceCell::<GreenThread<()>>::new());
        let killed_back = Rc::clone(&first);
        let second = Rc::new(spawn(move || {
            let _kills_back = OnDrop(|| killed_back.get().unwrap().kill());
            sleep(HOUR);
        }));
        let victim = Rc::clone(&second);
        first.set(spawn(move || victim.kill())).unwrap();
        assert!(was_killed(&second));
        // Its kill may come too late: it reaches it while the other unwinds.
        while !first.get().unwrap().is_dead() {
            sleep(MS);
        }
    });
}

#[test]
fn a_kill_is_not_lost_while_another_waits_in_its_destructor() {
    guarded(|| {
        let slow = spawn(|| {
            let _slow = OnDrop(|| sleep(20 * MS));
            sleep(HOUR);
        });
        let victim = spawn(|| sleep(HOUR));
        sleep(NOW);
        slow.kill();
        // It cannot unwind now: whether a greenlet unwinds is known by thread only.
        victim.kill();
        assert!(was_killed(&slow));
        assert!(was_killed(&victim));
    });
}

// What is left of a wait.

#[test]
fn a_killed_sleeper_leaves_no_timer() {
    guarded(|| {
        let sleeper = spawn(|| sleep(Duration::from_secs(10)));
        sleep(NOW);
        sleeper.kill();
        // With no timer left there is nothing to wait for, and that is reported at once.
        let lost = waits_for_itself();
        let start = Instant::now();
        assert!(catch_unwind(AssertUnwindSafe(|| lost.wait())).is_err());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        lost.kill();
    });
}

/// A green thread that nothing can ever wake.
fn waits_for_itself() -> Rc<GreenThread<()>> {
    let itself = Rc::new(OnceCell::<Rc<GreenThread<()>>>::new());
    let waited_for = Rc::clone(&itself);
    let green = Rc::new(spawn(move || {
        let green = Rc::clone(waited_for.get().unwrap());
        green.wait();
    }));
    assert!(itself.set(Rc::clone(&green)).is_ok());
    green
}

#[test]
fn a_wake_up_for_the_killed_wait_does_not_end_a_later_one() {
    guarded(|| {
        let gate = Rc::new(spawn(|| sleep(NOW)));
        let waited_for = Rc::clone(&gate);
        let victim = spawn(move || {
            let _ = catch_unwind(AssertUnwindSafe(|| waited_for.wait()));
            let start = Instant::now();
            sleep(20 * MS);
            start.elapsed()
        });
        while !gate.is_dead() {
            sleep(NOW);
        }
        // Spawned last and running now, it finds the victim woken, and not yet run.
        assert!(!victim.is_dead());
        victim.kill();
        assert!(victim.wait() >= 20 * MS);
    });
}

#[test]
fn one_that_waits_for_another_can_be_killed_and_the_other_runs_on() {
    guarded(|| {
        let other = Rc::new(spawn(|| {
            sleep(5 * MS);
            "well"
        }));
        let waited_for = Rc::clone(&other);
        let victim = spawn(move || waited_for.wait());
        sleep(NOW);
        victim.kill();
        assert!(was_killed(&victim));
        assert_eq!(other.wait(), "well");
    });
}

// A victim with a will of its own.

#[test]
fn one_that_catches_the_exit_goes_on_and_its_value_counts() {
    guarded(|| {
        let log = Log::default();
        let in_victim = Rc::clone(&log);
        let victim = spawn(move || {
            note(&in_victim, "start");
            assert!(catch_unwind(|| sleep(HOUR)).is_err());
            note(&in_victim, "caught");
            sleep(NOW);
            note(&in_victim, "finished");
            "ret"
        });
        sleep(NOW);
        assert_eq!(*log.borrow(), ["start"]);
        victim.kill();
        assert_eq!(*log.borrow(), ["start", "caught"]);
        assert_eq!(victim.wait(), "ret");
        assert_eq!(*log.borrow(), ["start", "caught", "finished"]);
    });
}

#[test]
fn one_that_catches_the_exit_can_be_killed_again() {
    guarded(|| {
        let victim = spawn(|| {
            assert!(catch_unwind(|| sleep(HOUR)).is_err());
            sleep(HOUR);
        });
        sleep(NOW);
        victim.kill();
        assert!(!victim.is_dead());
        victim.kill();
        assert!(was_killed(&victim));
    });
}

#[test]
fn a_destructor_may_sleep_while_the_exit_unwinds() {
    guarded(|| {
        let log = Log::default();
        let in_victim = Rc::clone(&log);
        let victim = spawn(move || {
            let _outer = noted(&in_victim, "outer");
            let _sleeps = OnDrop(|| {
                note(&in_victim, "goes to sleep");
                sleep(10 * MS);
                note(&in_victim, "wakes");
            });
            sleep(HOUR);
        });
        sleep(NOW);
        victim.kill();
        note(&log, "killer");
        assert!(!victim.is_dead());
        assert!(was_killed(&victim));
        assert_eq!(*log.borrow(), ["goes to sleep", "killer", "wakes", "outer"]);
    });
}

#[test]
fn one_that_unwinds_already_is_not_disturbed_by_another_kill() {
    guarded(|| {
        for panics in [false, true] {
            let slept = Rc::new(Cell::new(NOW));
            let sleeps = Rc::clone(&slept);
            let victim = spawn(move || {
                let _sleeps = OnDrop(|| {
                    let start = Instant::now();
                    sleep(20 * MS);
                    sleeps.set(start.elapsed());
                });
                assert!(!panics, "on its own");
                sleep(HOUR);
            });
            sleep(NOW);
            for _ in 0..3 {
                victim.kill();
                assert!(!victim.is_dead());
            }
            assert_eq!(was_killed(&victim), !panics);
            assert!(slept.get() >= 20 * MS, "{slept:?}");
        }
    });
}

#[test]
fn a_panic_in_the_destructor_of_an_unstarted_closure_harms_nobody() {
    guarded(|| {
        let other = spawn(|| {
            sleep(MS);
            "well"
        });
        let unkind = OnDrop(|| panic!("in the destructor of a closure"));
        let victim = spawn(move || {
            let _never = &unkind;
        });
        victim.kill();
        assert!(victim.is_dead());
        assert_eq!(other.wait(), "well");
    });
}

// What the victim has made.

#[test]
fn a_plain_greenlet_that_outlives_its_killed_maker_harms_nobody_by_its_end() {
    for panics in [false, true] {
        guarded(move || {
            let ended = Rc::new(Cell::new(false));
            let end = Rc::clone(&ended);
            let maker = spawn(move || {
                let plain = Greenlet::new(move |()| {
                    sleep(5 * MS);
                    end.set(true);
                    assert!(!panics, "with nobody to tell");
                });
                plain.switch(()).unwrap();
            });
            sleep(NOW);
            maker.kill();
            assert!(was_killed(&maker));
            sleep(20 * MS);
            assert!(ended.get());
            assert_eq!(spawn(|| 7).wait(), 7);
        });
    }
}

#[test]
fn a_thousand_are_killed_one_after_the_other() {
    guarded(|| {
        let unwound = Rc::new(Cell::new(0));
        let sleepers: Vec<_> = (0..1000)
            .map(|_| {
                let unwound = Rc::clone(&unwound);
                spawn(move || {
                    let _counts = OnDrop(|| unwound.set(unwound.get() + 1));
                    sleep(HOUR);
                })
            })
            .collect();
        sleep(NOW);
        sleepers.iter().for_each(GreenThread::kill);
        assert_eq!(unwound.get(), 1000);
        assert!(sleepers.iter().all(GreenThread::is_dead));
    });
}
