//! How greenlets end: by return, by panic, by losing their last handle, with their thread. None
//! leaves anything.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;

use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use stolon::stack::stack_counts;

/// Notes its name when it is dropped.
struct Noted(&'static str, Log);

type Log = Rc<RefCell<Vec<&'static str>>>;

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

/// A greenlet that is suspended with something to drop.
fn suspended(name: &'static str, log: &Log) -> Greenlet {
    let (main, log) = (greenlet::current::<()>(), Rc::clone(log));
    let greenlet = Greenlet::new(move |()| {
        let _noted = Noted(name, log);
        main.switch(()).unwrap();
        unreachable!("nobody resumes it");
    });
    greenlet.switch(()).unwrap();
    greenlet
}

fn text_of(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().expect("a text").to_string(),
    }
}

#[test]
fn a_panic_goes_on_in_the_parent_with_its_payload() {
    let child = Greenlet::new(|n: i32| if n > 0 { std::panic::panic_any(n * 2) } else { n });
    let payload = catch_unwind(AssertUnwindSafe(|| child.switch(21))).unwrap_err();
    assert_eq!(*payload.downcast::<i32>().unwrap(), 42);
    assert!(child.is_dead());
    assert_eq!(child.switch(1).unwrap(), 1);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_climbs_through_parents_that_do_not_catch_it() {
    let log = Log::default();
    let middle = Greenlet::new({
        let log = Rc::clone(&log);
        move |()| {
            let _noted = Noted("middle", log);
            Greenlet::new(|()| panic!("from below")).switch(()).unwrap();
        }
    });
    let payload = catch_unwind(AssertUnwindSafe(|| middle.switch(()))).unwrap_err();
    assert_eq!(text_of(payload), "from below");
    assert_eq!(*log.borrow(), ["middle"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_goes_to_the_parent_and_not_to_who_switched() {
    let child = Greenlet::new(|()| panic!("for the parent"));
    let switcher = Greenlet::new({
        let child = child.clone();
        move |()| child.switch(()).unwrap()
    });
    let payload = catch_unwind(AssertUnwindSafe(|| switcher.switch(()))).unwrap_err();
    assert_eq!(text_of(payload), "for the parent");
    assert!(child.is_dead() && switcher.is_active());
    switcher.switch(()).unwrap();
    assert!(switcher.is_dead());
}

#[test]
fn a_panic_kills_unstarted_parents_on_its_way() {
    let log = Log::default();
    let parent = Greenlet::builder()
        .build({
            let noted = Noted("closure", Rc::clone(&log));
            move |()| {
                let _noted = &noted;
                unreachable!("it never starts")
            }
        })
        .unwrap();
    let child = Greenlet::builder().parent(&parent).build(|()| panic!("early")).unwrap();
    let payload = catch_unwind(AssertUnwindSafe(|| child.switch(()))).unwrap_err();
    assert_eq!(text_of(payload), "early");
    assert!(child.is_dead() && parent.is_dead());
    assert_eq!(*log.borrow(), ["closure"]);
}

#[test]
fn an_exit_that_leaves_the_closure_is_reported_and_no_panic() {
    let child =
        Greenlet::new(|n: i32| if n > 0 { resume_unwind(Box::new(GreenletExit)) } else { n });
    assert!(matches!(child.switch(1), Err(SwitchError::Exited)));
    assert!(child.is_dead());
}

#[test]
fn a_result_that_the_parent_cannot_take_becomes_a_panic_there() {
    let middle = Greenlet::new(|n: i32| {
        let text = Greenlet::new(|text: String| text);
        // Its parent is this greenlet, which will wait for an `i32` when the text ends.
        let relay = Greenlet::builder().build(move |_| {
            text.switch(String::from("for nobody")).unwrap();
            0
        });
        relay.unwrap().switch(n).unwrap()
    });
    let payload = catch_unwind(AssertUnwindSafe(|| middle.switch(1))).unwrap_err();
    assert!(text_of(payload).contains("String"));
}

#[test]
fn dropping_the_last_handle_runs_the_destructors_at_once_and_once() {
    let log = Log::default();
    let (first, second) = (suspended("first", &log), suspended("second", &log));
    let other_handle = first.clone();
    drop(first);
    assert!(log.borrow().is_empty());
    drop(other_handle);
    assert_eq!(*log.borrow(), ["first"]);
    drop(second);
    assert_eq!(*log.borrow(), ["first", "second"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn an_unstarted_greenlet_is_dropped_without_running() {
    let log = Log::default();
    let noted = Noted("captured", Rc::clone(&log));
    let greenlet = Greenlet::new(move |()| {
        let _noted = noted;
        unreachable!("it never starts")
    });
    assert_eq!(stack_counts().in_use, 1);
    drop(greenlet);
    assert_eq!(*log.borrow(), ["captured"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_while_dropped_stays_with_the_victim() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("not expected");
            }
        }
    }
    let main = greenlet::current::<()>();
    let greenlet = Greenlet::new(move |()| {
        let _panics = Panics;
        let exit = catch_unwind(AssertUnwindSafe(|| main.switch(())));
        assert!(exit.unwrap_err().is::<GreenletExit>());
        panic!("instead of the exit");
    });
    greenlet.switch(()).unwrap();
    drop(greenlet);
    assert!(!thread::panicking());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_greenlet_that_swallows_the_exit_and_returns_is_dead_all_the_same() {
    let main = greenlet::current::<i32>();
    let greenlet = Greenlet::new(move |_: i32| {
        let exit = catch_unwind(AssertUnwindSafe(|| main.switch(1)));
        assert!(exit.is_err());
        99
    });
    assert_eq!(greenlet.switch(0).unwrap(), 1);
    drop(greenlet);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn destructors_may_switch_while_their_greenlet_is_dropped() {
    struct Switches(Greenlet<i32>, Rc<RefCell<Vec<i32>>>);
    impl Drop for Switches {
        fn drop(&mut self) {
            let got = self.0.switch(20).unwrap();
            self.1.borrow_mut().push(got);
        }
    }
    let got = Rc::new(RefCell::new(Vec::new()));
    let victim = Greenlet::new({
        let (main, got) = (greenlet::current::<i32>(), Rc::clone(&got));
        move |n: i32| {
            // A helper that is the victim's child: its result comes back to the victim.
            let helper = Greenlet::new(|n: i32| n + 1);
            let _switches = Switches(helper, got);
            main.switch(n).unwrap()
        }
    });
    assert_eq!(victim.switch(5).unwrap(), 5);
    drop(victim);
    assert_eq!(*got.borrow(), [21]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_greenlet_let_go_of_while_it_runs_is_killed_when_the_thread_next_makes_one() {
    let log = Log::default();
    let slot: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let greenlet = Greenlet::new({
        let (main, log, slot) = (greenlet::current::<()>(), Rc::clone(&log), Rc::clone(&slot));
        move |()| {
            let _noted = Noted("orphan", log);
            main.switch(()).unwrap();
            // The last handle goes, but the greenlet does not: it runs.
            slot.borrow_mut().take();
            main.switch(()).unwrap();
        }
    });
    greenlet.switch(()).unwrap();
    *slot.borrow_mut() = Some(greenlet);
    let borrowed = slot.borrow().clone().unwrap();
    let resumer = Greenlet::new(move |()| borrowed.switch(()).unwrap());
    resumer.switch(()).unwrap();
    drop(resumer);
    assert!(log.borrow().is_empty() || *log.borrow() == ["orphan"]);
    drop(Greenlet::new(|()| ()));
    assert_eq!(*log.borrow(), ["orphan"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_long_chain_of_parents_is_dropped_without_deep_recursion() {
    let count = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    let mut last = Greenlet::new(|()| ());
    for _ in 0..count {
        last = Greenlet::builder()
            .parent(&last)
            .stack_bytes(stolon::stack::MIN_STACK_BYTES)
            .build(|()| ())
            .unwrap();
    }
    drop(last);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn making_and_ending_many_greenlets_takes_no_more_stacks_than_live_at_once() {
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 100_000 };
    for round in 0..rounds {
        assert_eq!(Greenlet::new(|n: usize| n).switch(round).unwrap(), round);
    }
    let counts = stack_counts();
    assert!(counts.in_use == 0 && counts.free <= 2, "{counts:?}");
}

#[test]
fn a_stack_too_large_to_map_is_a_clear_error_and_nothing_is_made() {
    for stack_bytes in [usize::MAX, usize::MAX / 2, 1 << 55] {
        let error = Greenlet::builder().stack_bytes(stack_bytes).build(|()| ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
    }
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_closure_too_large_for_the_stack_goes_to_the_heap() {
    let large = [7u8; 100_000];
    let greenlet = Greenlet::builder()
        .stack_bytes(stolon::stack::MIN_STACK_BYTES * 16)
        .build(move |n: usize| usize::from(large[n]))
        .unwrap();
    assert_eq!(greenlet.switch(99_999).unwrap(), 7);
}
