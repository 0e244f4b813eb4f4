//! Greenlet-local values: one for each greenlet, dropped when it ends.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet, Local};
use stolon::stack::stack_counts;

static NUMBER: Local<Cell<i32>> = Local::new(|| Cell::new(1));
static NAMES: Local<RefCell<Vec<&'static str>>> = Local::new(RefCell::default);
static GUARD: Local<RefCell<Option<OnDrop>>> = Local::new(RefCell::default);
static OTHER_GUARD: Local<RefCell<Option<OnDrop>>> = Local::new(RefCell::default);

type Log = Rc<RefCell<Vec<&'static str>>>;

/// Calls a function when it is dropped.
struct OnDrop(Box<dyn FnMut()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Has `f` called when the current greenlet's value is dropped.
fn at_end(key: &'static Local<RefCell<Option<OnDrop>>>, f: impl FnMut() + 'static) {
    key.with_borrow_mut(|guard| *guard = Some(OnDrop(Box::new(f))));
}

fn says(log: &Log, text: &'static str) -> impl FnMut() + 'static {
    let log = Rc::clone(log);
    move || log.borrow_mut().push(text)
}

#[test]
fn each_greenlet_has_its_own_value_and_so_has_the_root() {
    let main = greenlet::current::<()>();
    let greenlets: Vec<_> = (10..15)
        .map(|n| {
            let main = main.clone();
            Greenlet::new(move |()| {
                assert_eq!(NUMBER.replace(n), 1);
                main.switch(()).unwrap();
                assert_eq!(NUMBER.get(), n);
                // Not inherited, either.
                Greenlet::new(|()| assert_eq!(NUMBER.get(), 1)).switch(()).unwrap();
            })
        })
        .collect();
    NUMBER.set(5);
    greenlets.iter().for_each(|greenlet| greenlet.switch(()).unwrap());
    greenlets.iter().rev().for_each(|greenlet| greenlet.switch(()).unwrap());
    assert_eq!(NUMBER.take(), 5);
    NAMES.with_borrow_mut(|names| names.push("main"));
    NAMES.with_borrow(|names| assert_eq!(names[..], ["main"]));
    assert_eq!(thread::spawn(|| NUMBER.get()).join().unwrap(), 1);
}

#[test]
fn a_value_in_a_ref_cell_is_set_and_taken_as_one_in_a_cell() {
    NAMES.set(vec!["a"]);
    assert_eq!(
        (NAMES.replace(vec!["b"]), NAMES.take(), NAMES.take()),
        (vec!["a"], vec!["b"], vec![])
    );
}

#[test]
fn what_has_been_dropped_can_be_asked_for_without_a_panic() {
    let log = Log::default();
    let mut note = says(&log, "refused");
    let greenlet = Greenlet::new(move |()| {
        at_end(&GUARD, move || {
            assert_eq!(GUARD.try_with(|_| ()), Err(greenlet::AccessError));
            assert_eq!(NUMBER.try_with(Cell::get), Ok(1), "another one can be made");
            note();
        });
    });
    greenlet.switch(()).unwrap();
    assert_eq!(log.take(), ["refused"]);
    assert_eq!(NUMBER.try_with(|_| ()), Ok(()));
    // On a thread whose greenlets have ended.
    static LATE: Mutex<Option<Result<i32, greenlet::AccessError>>> = Mutex::new(None);
    struct AsksLate;
    impl Drop for AsksLate {
        fn drop(&mut self) {
            *LATE.lock().unwrap() = Some(NUMBER.try_with(Cell::get));
        }
    }
    thread_local!(static ASKS_LATE: AsksLate = const { AsksLate });
    thread::spawn(|| {
        ASKS_LATE.with(|_| ());
        NUMBER.set(3);
    })
    .join()
    .unwrap();
    assert_eq!(*LATE.lock().unwrap(), Some(Err(greenlet::AccessError)));
}

#[test]
fn a_value_is_made_when_it_is_first_used_and_once() {
    static MADE: Mutex<u32> = Mutex::new(0);
    static COUNTED: Local<u32> = Local::new(|| {
        *MADE.lock().unwrap() += 1;
        7
    });
    Greenlet::new(|()| ()).switch(()).unwrap();
    assert_eq!(*MADE.lock().unwrap(), 0);
    assert_eq!(COUNTED.with(|n| *n) + COUNTED.with(|n| *n), 14);
    assert_eq!(*MADE.lock().unwrap(), 1);
}

#[test]
fn values_are_dropped_before_the_end_is_delivered_however_it_comes() {
    let log = Log::default();
    let guarded = |run: fn(Greenlet)| {
        let (main, log) = (greenlet::current::<()>(), Rc::clone(&log));
        Greenlet::new(move |()| {
            let current = greenlet::current::<()>();
            let mut note = says(&log, "dropped");
            at_end(&GUARD, move || {
                assert!(current.is_current() && !current.is_dead() && !thread::panicking());
                note();
            });
            run(main);
        })
    };
    let returns = guarded(|_| ());
    returns.switch(()).unwrap();
    assert_eq!(log.take(), ["dropped"]);
    let panics = guarded(|_| panic_any(1));
    assert!(catch_unwind(AssertUnwindSafe(|| panics.switch(()))).is_err());
    assert_eq!(log.take(), ["dropped"]);
    let killed = guarded(|main| drop(main.switch(())));
    killed.switch(()).unwrap();
    assert!(log.borrow().is_empty());
    assert!(killed.kill().is_err());
    assert_eq!(log.take(), ["dropped"]);
    let let_go_of = guarded(|main| main.switch(()).unwrap());
    let_go_of.switch(()).unwrap();
    drop((returns, panics, killed));
    // The guard's closure holds a handle: so by a kill again, and not by the drop of one.
    assert!(let_go_of.kill().is_err());
    assert_eq!(log.take(), ["dropped"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_greenlet_that_loses_its_last_handle_drops_its_values_before_the_drop_returns() {
    let log = Log::default();
    let (main, note) = (greenlet::current::<()>(), says(&log, "value"));
    let greenlet = Greenlet::new(move |()| {
        at_end(&GUARD, note);
        main.switch(()).unwrap();
    });
    greenlet.switch(()).unwrap();
    drop(greenlet);
    assert_eq!(log.take(), ["value"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn what_a_greenlet_that_never_runs_uses_in_its_captures_destructors_is_dropped() {
    let log = Log::default();
    let mut note = Some(says(&log, "value"));
    let captured = OnDrop(Box::new(move || at_end(&GUARD, note.take().unwrap())));
    let unstarted = Greenlet::new(move |()| drop(captured));
    drop(unstarted);
    assert_eq!(log.take(), ["value"]);
}

#[test]
fn values_are_dropped_after_the_function_and_the_last_made_first() {
    let log = Log::default();
    let notes = [says(&log, "frame"), says(&log, "old"), says(&log, "young")];
    let [frame, old, young] = notes;
    Greenlet::new(move |()| {
        let _frame = OnDrop(Box::new(frame));
        at_end(&GUARD, old);
        at_end(&OTHER_GUARD, young);
    })
    .switch(())
    .unwrap();
    assert_eq!(log.take(), ["frame", "young", "old"]);
}

#[test]
fn a_panic_of_a_values_destructor_goes_nowhere_and_the_others_are_dropped() {
    let log = Log::default();
    let old = says(&log, "old");
    let greenlet = Greenlet::new(move |n: i32| {
        at_end(&GUARD, old);
        at_end(&OTHER_GUARD, || panic!("in a destructor of a local value"));
        n
    });
    assert_eq!(greenlet.switch(3).unwrap(), 3);
    assert_eq!(log.take(), ["old"]);
    assert!(!thread::panicking());
}

#[test]
fn a_values_destructor_may_switch_and_the_greenlet_ends_when_it_is_resumed() {
    let log = Log::default();
    let old = says(&log, "old");
    let main = greenlet::current::<i32>();
    let greenlet = Greenlet::new(move |n: i32| {
        at_end(&GUARD, old);
        at_end(&OTHER_GUARD, move || assert_eq!(main.switch(50).unwrap(), 60));
        n
    });
    assert_eq!(greenlet.switch(3).unwrap(), 50);
    assert!(!greenlet.is_dead() && log.borrow().is_empty());
    // The result, at last.
    assert_eq!(greenlet.switch(60).unwrap(), 3);
    assert!(greenlet.is_dead());
    assert_eq!(log.take(), ["old"]);
}

#[test]
fn a_greenlet_killed_while_a_values_destructor_waits_drops_the_others() {
    let log = Log::default();
    let old = says(&log, "old");
    let main = greenlet::current::<()>();
    let greenlet = Greenlet::new(move |()| {
        at_end(&GUARD, old);
        at_end(&OTHER_GUARD, move || main.switch(()).unwrap());
    });
    greenlet.switch(()).unwrap();
    assert!(!greenlet.is_dead());
    drop(greenlet);
    assert_eq!(log.take(), ["old"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_values_destructor_may_make_another_value_but_not_its_own_again() {
    let log = Log::default();
    let (mut other, mut own) = (Some(says(&log, "other")), says(&log, "refused"));
    let greenlet = Greenlet::new(move |()| {
        at_end(&GUARD, move || {
            at_end(&OTHER_GUARD, other.take().unwrap());
            let again = catch_unwind(|| GUARD.with(|_| ()));
            assert!(again.is_err());
            own();
        });
    });
    greenlet.switch(()).unwrap();
    assert_eq!(log.take(), ["refused", "other"]);
}

#[test]
fn a_result_that_nobody_takes_finds_no_local_values_when_it_is_dropped() {
    let log = Log::default();
    let mut refused = says(&log, "refused");
    let unwanted = move || {
        assert!(catch_unwind(|| NUMBER.get()).is_err());
        refused();
    };
    let relay = Greenlet::new(move |()| {
        let child = Greenlet::new(move |_: Option<OnDrop>| Some(OnDrop(Box::new(unwanted))));
        // Its parent, this greenlet, waits for a unit.
        Greenlet::new(move |()| drop(child.switch(None))).switch(()).unwrap();
    });
    assert!(catch_unwind(AssertUnwindSafe(|| relay.switch(()))).is_err());
    assert_eq!(log.take(), ["refused"]);
}

#[test]
fn the_roots_values_are_dropped_when_the_thread_exits_and_those_of_leaked_greenlets_are_not() {
    static SAID: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    thread::spawn(|| {
        at_end(&GUARD, || SAID.lock().unwrap().push("root"));
        let main = greenlet::current::<()>();
        let leaked = Greenlet::new(move |()| {
            at_end(&GUARD, || SAID.lock().unwrap().push("leaked"));
            main.switch(()).unwrap();
        });
        leaked.switch(()).unwrap();
        std::mem::forget(leaked);
    })
    .join()
    .unwrap();
    assert_eq!(*SAID.lock().unwrap(), ["root"]);
}

#[test]
fn green_threads_have_values_of_their_own_and_drop_them_before_they_are_joined() {
    let log = Log::default();
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let note = says(&log, "dropped");
            stolon::spawn(move || {
                at_end(&GUARD, note);
                NUMBER.set(n);
                stolon::sleep(Duration::from_millis(1));
                NUMBER.get()
            })
        })
        .collect();
    let numbers: Vec<_> = threads.iter().map(|thread| thread.wait()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    stolon::sleep(Duration::ZERO);
    assert_eq!(log.borrow().len(), 3);
}

#[test]
fn a_greenlet_made_after_another_has_died_has_values_of_its_own() {
    for n in 0..100 {
        let greenlet = Greenlet::new(move |()| {
            assert_eq!(NUMBER.replace(n), 1);
            at_end(&GUARD, || ());
        });
        greenlet.switch(()).unwrap();
    }
}
