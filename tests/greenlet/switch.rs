//! Switching: who runs, and what value it gets.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use stolon::greenlet::{self, Greenlet, SwitchError};

#[test]
fn control_alternates_between_parent_and_child() {
    let log = Rc::new(RefCell::new(Vec::new()));
    log.borrow_mut().push(0);
    let child = Greenlet::new({
        let log = Rc::clone(&log);
        move |()| {
            log.borrow_mut().push(1);
            greenlet::current::<()>().parent::<()>().unwrap().switch(()).unwrap();
            log.borrow_mut().push(3);
        }
    });
    child.switch(()).unwrap();
    log.borrow_mut().push(2);
    child.switch(()).unwrap();
    log.borrow_mut().push(4);
    assert_eq!(*log.borrow(), [0, 1, 2, 3, 4]);
}

#[test]
fn each_child_is_dead_right_after_its_own_last_switch() {
    let pause = |()| greenlet::current::<()>().parent::<()>().unwrap().switch(()).unwrap();
    let (g, h) = (Greenlet::new(pause), Greenlet::new(pause));
    g.switch(()).unwrap();
    h.switch(()).unwrap();
    assert!(g.is_active() && h.is_active());
    h.switch(()).unwrap();
    assert!(h.is_dead() && !g.is_dead());
    g.switch(()).unwrap();
    assert!(g.is_dead());
}

#[test]
fn the_first_value_is_the_argument_and_later_ones_are_results_of_switch() {
    let main = greenlet::current::<i32>();
    let echo = Greenlet::new(move |first: i32| {
        assert_eq!(first, 1);
        assert_eq!(main.switch(10).unwrap(), 2);
        assert_eq!(main.switch(20).unwrap(), 3);
        30
    });
    assert_eq!([1, 2, 3].map(|n| echo.switch(n).unwrap()), [10, 20, 30]);
}

/// Sends `value` to a greenlet that keeps it over a switch, returns it, and gets it back unchanged.
fn round_trip<T: Clone + PartialEq + Debug + 'static>(value: T) {
    let main = greenlet::current::<T>();
    let keeper = Greenlet::new(move |first: T| {
        let second = main.switch(first.clone()).unwrap();
        assert_eq!(first, second);
        second
    });
    assert_eq!(keeper.switch(value.clone()).unwrap(), value);
    assert_eq!(keeper.switch(value.clone()).unwrap(), value);
    assert!(keeper.is_dead());
}

#[test]
fn values_of_every_shape_arrive_unchanged() {
    #[derive(Clone, PartialEq, Debug)]
    #[repr(align(128))]
    struct OverAligned(u8, [u64; 3]);

    round_trip(());
    round_trip(7u8);
    round_trip((1u8, 2u32));
    round_trip(u64::MAX);
    round_trip(-1.5f64);
    round_trip('ß');
    round_trip("text");
    round_trip(u128::MAX);
    round_trip(String::from("owned"));
    round_trip(Box::new(5));
    round_trip(Rc::new(RefCell::new(vec![1, 2])));
    round_trip(Some(vec![String::from("nested")]));
    round_trip([3u64; 100]);
    round_trip(OverAligned(1, [2, 3, 4]));
}

#[test]
fn as_many_values_are_dropped_as_are_made() {
    struct Counted(Rc<Cell<i32>>);
    impl Counted {
        fn new(alive: &Rc<Cell<i32>>) -> Self {
            alive.set(alive.get() + 1);
            Self(Rc::clone(alive))
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    let alive = Rc::new(Cell::new(0));
    let main = greenlet::current::<(Counted, [u64; 4])>();
    let sink = Greenlet::new(move |mut got: (Counted, [u64; 4])| {
        for _ in 0..99 {
            got = main.switch((Counted::new(&got.0.0), got.1)).unwrap();
        }
        got
    });
    for round in 0..100 {
        let (got, numbers) = sink.switch((Counted::new(&alive), [round; 4])).unwrap();
        assert_eq!(numbers, [round; 4]);
        drop(got);
    }
    assert!(sink.is_dead());
    assert_eq!(alive.get(), 0);
}

#[test]
fn a_value_sent_to_oneself_comes_back_at_once() {
    assert_eq!(greenlet::current::<i32>().switch(5).unwrap(), 5);
    let inner = Greenlet::new(|n: i32| greenlet::current::<i32>().switch(n + 1).unwrap());
    assert_eq!(inner.switch(1).unwrap(), 2);
}

#[test]
fn a_value_of_another_type_is_handed_back_and_nobody_switched() {
    let runs = Rc::new(Cell::new(0));
    let takes_text = Greenlet::new({
        let runs = Rc::clone(&runs);
        move |text: String| {
            runs.set(runs.get() + 1);
            text
        }
    });
    let error = takes_text.cast::<Vec<u8>>().switch(vec![1, 2]).unwrap_err();
    assert!(matches!(error, SwitchError::TypeMismatch { .. }));
    assert!(error.to_string().contains("Vec<u8>"), "{error}");
    assert_eq!(error.into_value(), Some(vec![1, 2]));
    assert!(runs.get() == 0 && !takes_text.is_started());
    assert_eq!(takes_text.switch("now".into()).unwrap(), "now");
}

#[test]
fn what_a_suspended_greenlet_takes_is_the_type_of_its_pending_switch() {
    let main = greenlet::current::<u8>();
    let changing = Greenlet::new(move |n: u64| {
        assert_eq!(main.switch(3).unwrap(), 4);
        n + 1
    });
    // It starts with a `u64`, and waits for a `u8` then. `main` waits for a `u8` as long as it
    // sends `u8`s, so the first step goes by a greenlet between the two.
    let between = Greenlet::new({
        let changing = changing.clone();
        move |n: u8| {
            changing.switch(u64::from(n)).unwrap();
            unreachable!("its parent gets the result")
        }
    });
    assert_eq!(between.switch(9).unwrap(), 3);
    assert!(changing.switch(1).is_err());
    // It ends with a `u64`, which the parent does not take: a panic there.
    let end = catch_unwind(AssertUnwindSafe(|| changing.cast::<u8>().switch(4)));
    assert!(end.unwrap_err().downcast_ref::<String>().unwrap().contains("u64"));
}

#[test]
fn a_dead_greenlets_value_goes_to_its_nearest_living_ancestor() {
    let dead = Greenlet::new(|n: i32| n);
    dead.switch(0).unwrap();
    // Its parent is this greenlet, which gets the value at once.
    assert_eq!(dead.switch(7).unwrap(), 7);

    let log = Rc::new(RefCell::new(Vec::new()));
    let main = greenlet::current::<i32>();
    let grandparent = Greenlet::new({
        let log = Rc::clone(&log);
        move |mut n: i32| {
            loop {
                log.borrow_mut().push(n);
                n = main.switch(-n).unwrap();
            }
        }
    });
    let parent = Greenlet::builder().parent(&grandparent).build(|n: i32| n).unwrap();
    let child = Greenlet::builder().parent(&parent).build(|n: i32| n).unwrap();
    // The unstarted parent is started with the child's result; its own goes on to the grandparent.
    assert_eq!(child.switch(1).unwrap(), -1);
    assert!(child.is_dead() && parent.is_dead());
    assert_eq!(child.switch(2).unwrap(), -2);
    assert_eq!(*log.borrow(), [1, 2]);
}

#[test]
fn who_switched_to_a_greenlet_is_not_who_gets_its_result() {
    let main = greenlet::current::<i32>();
    let child_of_main = Greenlet::new(|n: i32| n * 10);
    let switcher = Greenlet::new({
        let child = child_of_main.clone();
        move |n: i32| child.switch(n).unwrap() + 1
    });
    assert_eq!(switcher.switch(4).unwrap(), 40);
    assert!(child_of_main.is_dead() && switcher.is_active());
    assert_eq!(switcher.switch(5).unwrap(), 6);
    assert_eq!(child_of_main.parent::<i32>(), Some(main));
}

#[test]
fn the_root_has_no_parent_and_is_current_on_the_threads_own_stack() {
    let root = greenlet::current::<()>();
    assert!(root.is_current() && root.is_active() && !root.is_dead());
    assert_eq!(root.parent::<()>(), None);
    let in_child = root.clone();
    let child = Greenlet::new(move |()| {
        let child = greenlet::current::<()>();
        assert!(child.is_current() && !in_child.is_current());
        assert_eq!(child.parent::<()>(), Some(in_child));
    });
    child.switch(()).unwrap();
}

#[test]
fn debug_tells_name_state_and_parent() {
    let main = greenlet::current::<()>();
    let named = Greenlet::builder().name("worker").build(|()| ()).unwrap();
    let inner = Greenlet::builder().parent(&named).name("inner").build(|()| ()).unwrap();
    assert_eq!(format!("{main:?}"), "Greenlet(main current)");
    assert_eq!(format!("{named:?}"), "Greenlet('worker' pending, parent main)");
    assert_eq!(format!("{inner:?}"), "Greenlet('inner' pending, parent 'worker')");
    named.switch(()).unwrap();
    assert_eq!(format!("{named:?}"), "Greenlet('worker' dead, parent main)");
}
