//! Tracing: who gave up control, who got it, and how.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError, TraceEvent};
use stolon::stack::stack_counts;

type Log = Rc<RefCell<Vec<String>>>;

fn name_of(greenlet: &Greenlet) -> String {
    greenlet.name().unwrap_or("main").to_owned()
}

/// Starts to trace into a log, which is emptied when it is read.
fn traced() -> Log {
    let log = Log::default();
    let writes = Rc::clone(&log);
    greenlet::settrace(move |event, origin, target| {
        assert!(target.is_current(), "the tracer runs in the target");
        writes.borrow_mut().push(format!("{event} {}->{}", name_of(origin), name_of(target)));
    });
    log
}

fn named<T: 'static>(name: &str, run: impl FnOnce(T) -> T + 'static) -> Greenlet<T> {
    Greenlet::builder().name(name).build(run).unwrap()
}

/// A greenlet that takes numbers and sends each back, plus one.
fn counter(name: &str) -> Greenlet<i32> {
    let main = greenlet::current::<i32>();
    named(name, move |mut n| {
        loop {
            n = main.switch(n + 1).unwrap();
        }
    })
}

#[test]
fn gl_25_a_result_is_a_switch_to_the_parent_and_a_panic_a_throw() {
    let log = traced();
    named("g1", |()| ()).switch(()).unwrap();
    let g2 = named("g2", |()| panic_any(2));
    assert!(catch_unwind(AssertUnwindSafe(|| g2.switch(()))).is_err());
    greenlet::cleartrace();
    assert_eq!(
        log.take(),
        ["switch main->g1", "switch g1->main", "switch main->g2", "throw g2->main"]
    );
    named("g3", |()| ()).switch(()).unwrap();
    assert!(log.take().is_empty());
}

#[test]
fn values_of_every_shape_arrive_unchanged_while_traced() {
    fn echo<T: Clone + PartialEq + std::fmt::Debug + 'static>(value: T) {
        let main = greenlet::current::<T>();
        let echo = Greenlet::new(move |mut value: T| {
            for _ in 0..3 {
                value = main.switch(value).unwrap();
            }
            value
        });
        for _ in 0..4 {
            assert_eq!(echo.switch(value.clone()).unwrap(), value);
        }
        assert!(echo.is_dead());
    }
    let log = traced();
    echo(());
    echo(7u8);
    echo([1u64; 40]);
    echo(String::from("text"));
    echo(Some(Rc::new(3)));
    greenlet::cleartrace();
    assert_eq!(log.borrow().len(), 5 * 8);
}

#[test]
fn a_tracer_sees_greenlets_that_waited_before_it_was_set_and_none_after_it_is_gone() {
    let (early, unstarted) = (counter("early"), counter("unstarted"));
    assert_eq!(early.switch(1).unwrap(), 2);
    let log = traced();
    assert_eq!(early.switch(2).unwrap(), 3);
    assert_eq!(unstarted.switch(2).unwrap(), 3);
    let late = counter("late");
    assert_eq!(late.switch(4).unwrap(), 5);
    let seen = [
        ["switch main->early", "switch early->main"],
        ["switch main->unstarted", "switch unstarted->main"],
        ["switch main->late", "switch late->main"],
    ];
    assert_eq!(log.take(), seen.concat());
    greenlet::cleartrace();
    for greenlet in [early, unstarted, late] {
        assert_eq!(greenlet.switch(5).unwrap(), 6);
    }
    assert!(log.take().is_empty());
}

#[test]
fn a_tracer_may_be_set_and_cleared_from_any_greenlet() {
    let log = Log::default();
    let (main, writes) = (greenlet::current::<()>(), Rc::clone(&log));
    let inner = named("inner", move |()| {
        greenlet::settrace(move |event, origin, target| {
            writes.borrow_mut().push(format!("{event} {}->{}", name_of(origin), name_of(target)));
        });
        main.switch(()).unwrap();
        greenlet::cleartrace();
        main.switch(()).unwrap();
    });
    inner.switch(()).unwrap();
    inner.switch(()).unwrap();
    inner.switch(()).unwrap();
    assert!(inner.is_dead());
    assert_eq!(log.take(), ["switch inner->main", "switch main->inner"]);
}

#[test]
fn a_switch_to_oneself_and_one_to_a_dead_greenlet_are_traced() {
    let dead = named("dead", |n: i32| n);
    dead.switch(1).unwrap();
    let main = greenlet::current::<i32>();
    let log = traced();
    assert_eq!(main.switch(5).unwrap(), 5);
    assert_eq!(dead.switch(6).unwrap(), 6);
    let parent = counter("parent");
    let child = Greenlet::builder().name("child").parent(&parent).build(|n: i32| n).unwrap();
    parent.switch(0).unwrap();
    // Its end goes to its parent, which sends the sum here.
    assert_eq!(child.switch(7).unwrap(), 8);
    log.take();
    assert_eq!(child.switch(9).unwrap(), 10);
    assert_eq!(log.take(), ["switch main->parent", "switch parent->main"]);
    greenlet::cleartrace();
}

#[test]
fn throws_and_kills_are_throws_and_the_end_by_an_exit_is_a_switch() {
    let log = traced();
    let victim = counter("victim");
    victim.switch(0).unwrap();
    log.take();
    assert!(matches!(victim.kill(), Err(SwitchError::Exited)));
    assert_eq!(log.take(), ["throw main->victim", "switch victim->main"]);
    let victim = counter("victim");
    victim.switch(0).unwrap();
    log.take();
    let thrown = catch_unwind(AssertUnwindSafe(|| victim.throw(Box::new(3))));
    assert_eq!(*thrown.unwrap_err().downcast::<i32>().unwrap(), 3);
    assert_eq!(log.take(), ["throw main->victim", "throw victim->main"]);
    // Into one that has not started, and into oneself.
    let unstarted = counter("unstarted");
    assert!(catch_unwind(AssertUnwindSafe(|| unstarted.throw(Box::new(3)))).is_err());
    assert_eq!(log.take(), ["throw main->unstarted", "throw unstarted->main"]);
    let main = greenlet::current::<()>();
    assert!(catch_unwind(AssertUnwindSafe(|| main.throw(Box::new(3)))).is_err());
    assert_eq!(log.take(), ["throw main->main"]);
    // By the drop of the last handle.
    let dropped = counter("dropped");
    dropped.switch(0).unwrap();
    log.take();
    drop(dropped);
    assert_eq!(log.take(), ["throw main->dropped", "switch dropped->main"]);
    greenlet::cleartrace();
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn settrace_returns_the_tracer_before_and_gettrace_the_one_that_is_set() {
    assert!(greenlet::gettrace().is_none() && greenlet::cleartrace().is_none());
    assert!(greenlet::settrace(|_, _, _| ()).is_none());
    let first = greenlet::gettrace().unwrap();
    // The same one again, by way of another.
    let again = Rc::clone(&first);
    let before = greenlet::settrace(move |event, origin, target| again(event, origin, target));
    assert!(Rc::ptr_eq(&first, &before.unwrap()));
    assert_eq!(counter("any").switch(1).unwrap(), 2);
    assert!(greenlet::cleartrace().is_some() && greenlet::gettrace().is_none());
    thread::spawn(|| assert!(greenlet::gettrace().is_none())).join().unwrap();
}

#[test]
fn gl_27_a_tracer_may_switch_and_what_is_delivered_is_what_was_sent() {
    let side = counter("side");
    assert_eq!(side.switch(0).unwrap(), 1);
    let main = greenlet::current::<i32>();
    let busy = Rc::new(Cell::new(false));
    let switched = Rc::new(Cell::new(0));
    let tracer = {
        let (busy, switched) = (Rc::clone(&busy), Rc::clone(&switched));
        move |_: TraceEvent, _: &Greenlet, target: &Greenlet| {
            // Only where the one who answers, main, is the target.
            if target.parent::<()>().is_none() && !busy.replace(true) {
                switched.set(side.switch(100).unwrap());
                busy.set(false);
            }
        }
    };
    greenlet::settrace(tracer);
    let text = [5u64; 20];
    let large = named("large", move |value: [u64; 20]| value);
    assert_eq!(large.switch(text).unwrap(), text);
    assert_eq!(switched.get(), 101);
    assert_eq!(main.switch(3).unwrap(), 3);
    drop(greenlet::cleartrace());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_tracer_that_panics_is_removed_and_its_panic_is_raised_in_the_target() {
    struct Counted(Rc<Cell<u32>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let main = greenlet::current::<Option<Counted>>();
    let target = Greenlet::new(move |_| {
        let payload = catch_unwind(AssertUnwindSafe(|| main.switch(None).map(drop))).unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "from the tracer");
        None
    });
    target.switch(None).unwrap();
    greenlet::settrace(|_, _, _| panic_any("from the tracer"));
    // It replaces the value, which is dropped.
    assert!(target.switch(Some(Counted(Rc::clone(&dropped)))).unwrap().is_none());
    assert_eq!(dropped.get(), 1);
    assert!(target.is_dead() && greenlet::gettrace().is_none());
    // In one that has not started: it never runs, and its parent gets the panic.
    greenlet::settrace(|_, _, _| panic_any(7));
    let unstarted = Greenlet::new(|()| unreachable!("it never runs"));
    let payload = catch_unwind(AssertUnwindSafe(|| unstarted.switch(()))).unwrap_err();
    assert_eq!(*payload.downcast::<i32>().unwrap(), 7);
    assert!(unstarted.is_dead() && greenlet::gettrace().is_none());
}

#[test]
fn a_greenlet_that_is_killed_while_the_tracer_waits_in_it_ends_and_the_tracer_stays() {
    let main = greenlet::current::<()>();
    let first = Cell::new(true);
    greenlet::settrace(move |_, _, target| {
        if target.name() == Some("victim") && first.replace(false) {
            drop(main.switch(()));
        }
    });
    let victim = named("victim", |()| unreachable!("the tracer is where it ends"));
    victim.switch(()).unwrap();
    assert!(matches!(victim.kill(), Err(SwitchError::Exited)) && victim.is_dead());
    assert!(greenlet::cleartrace().is_some());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn green_threads_run_as_ever_while_traced() {
    let log = traced();
    let threads: Vec<_> = (0..3)
        .map(|n| {
            stolon::spawn(move || {
                for _ in 0..3 {
                    stolon::sleep(Duration::ZERO);
                }
                n
            })
        })
        .collect();
    let results: Vec<_> = threads.iter().map(|thread| thread.wait()).collect();
    assert_eq!(results, [0, 1, 2]);
    let killed = stolon::spawn(|| stolon::sleep(Duration::from_secs(3600)));
    stolon::sleep(Duration::ZERO);
    killed.kill();
    assert!(killed.join().unwrap_err().is::<GreenletExit>());
    greenlet::cleartrace();
    assert!(log.borrow().len() > 12);
}

#[test]
fn a_tracer_may_block_in_a_green_thread_that_is_thrown_out_of_its_wait() {
    let waiting = stolon::spawn(|| stolon::sleep(Duration::from_secs(3600)));
    stolon::sleep(Duration::ZERO);
    let blocked = Rc::new(Cell::new(0));
    let counts = Rc::clone(&blocked);
    greenlet::settrace(move |event, _, _| {
        if event == TraceEvent::Throw {
            stolon::sleep(Duration::from_millis(1));
            counts.set(counts.get() + 1);
        }
    });
    waiting.kill();
    greenlet::cleartrace();
    assert!(waiting.join().unwrap_err().is::<GreenletExit>());
    assert_eq!(blocked.get(), 1);
}

#[test]
fn a_thread_may_exit_with_a_tracer() {
    thread::spawn(|| {
        let kept = greenlet::current::<()>();
        // It keeps a handle to the root, which keeps the thread that keeps it.
        greenlet::settrace(move |_, _, _| assert!(!kept.is_dead()));
        counter("any").switch(1).unwrap();
        let unstarted = Greenlet::new(|()| ());
        std::mem::forget(unstarted);
    })
    .join()
    .unwrap();
}
