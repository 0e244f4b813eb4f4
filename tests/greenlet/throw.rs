//! Throwing into greenlets and killing them, in whatever state they are: where it arrives, and who
//! is dead then.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use stolon::stack::stack_counts;

type Payload = Box<dyn Any + Send>;

/// What is thrown in these tests.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Thrown(u32);

/// What `f` unwinds with.
fn raised_by<R>(f: impl FnOnce() -> R) -> Payload {
    catch_unwind(AssertUnwindSafe(f)).err().expect("it unwinds")
}

/// The number in what `f` unwinds with.
fn thrown_by<R>(f: impl FnOnce() -> R) -> u32 {
    raised_by(f).downcast::<Thrown>().expect("what was thrown, unchanged").0
}

fn throw<T: 'static>(to: &Greenlet<T>, number: u32) -> Result<T, SwitchError<T>> {
    to.throw(Box::new(Thrown(number)))
}

fn exited<T>(result: Result<T, SwitchError<T>>) -> bool {
    matches!(result, Err(SwitchError::Exited))
}

/// A greenlet that has switched here once, and lets everything out.
fn suspended() -> Greenlet {
    let main = greenlet::current::<()>();
    let greenlet = Greenlet::new(move |()| {
        main.switch(()).unwrap();
    });
    greenlet.switch(()).unwrap();
    greenlet
}

/// A greenlet that has switched here once, catches what is thrown then, and ends with its number.
fn catching() -> Greenlet<u32> {
    let main = greenlet::current::<u32>();
    let greenlet = Greenlet::new(move |n| thrown_by(|| main.switch(n)));
    greenlet.switch(0).unwrap();
    greenlet
}

fn unstarted_below<T: 'static>(parent: &Greenlet<impl Sized + 'static>) -> Greenlet<T> {
    Greenlet::builder().parent(parent).build(|_| unreachable!("it never runs")).unwrap()
}

// Into suspended ones.

#[test]
fn a_payload_is_raised_at_the_pending_switch_and_destructors_run() {
    struct Noted(Rc<Cell<bool>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let main = greenlet::current::<()>();
    let target = Greenlet::new({
        let noted = Noted(Rc::clone(&dropped));
        move |()| {
            let _noted = noted;
            main.switch(()).unwrap();
        }
    });
    target.switch(()).unwrap();
    assert_eq!(thrown_by(|| throw(&target, 1)), 1);
    assert!(dropped.get() && target.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn one_that_catches_what_is_thrown_goes_on_and_the_thrower_gets_what_it_sends() {
    let target = catching();
    assert_eq!(throw(&target, 7).unwrap(), 7);
    assert!(target.is_dead());
}

#[test]
fn whatever_a_greenlet_waits_for_it_can_be_thrown_into() {
    let target = suspended().cast::<String>();
    assert!(matches!(target.switch(String::new()), Err(SwitchError::TypeMismatch { .. })));
    assert_eq!(thrown_by(|| throw(&target, 3)), 3);
    let target = suspended().cast::<String>();
    assert!(exited(target.kill()));
}

#[test]
fn a_child_that_does_not_catch_passes_it_to_its_parent_who_may() {
    // GL-06.
    let parent = catching();
    let child = Greenlet::builder()
        .parent(&parent)
        .build({
            let main = greenlet::current::<u32>();
            move |n| main.switch(n).unwrap()
        })
        .unwrap();
    child.switch(1).unwrap();
    assert_eq!(throw(&child, 5).unwrap(), 5);
    assert!(child.is_dead() && parent.is_dead());
}

#[test]
fn killing_twice_reports_the_exit_twice() {
    // GL-07.
    let victim = suspended();
    assert!(exited(victim.kill()));
    assert!(victim.is_dead());
    assert!(exited(victim.kill()));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn throwing_an_exit_is_killing() {
    let victim = suspended();
    assert!(exited(victim.throw(Box::new(GreenletExit))));
    assert!(victim.is_dead());
    assert!(exited(victim.throw(Box::new(GreenletExit))));
}

#[test]
fn one_that_catches_the_exit_and_switches_lives_on_and_its_killer_gets_the_value() {
    // GL-08.
    let main = greenlet::current::<i32>();
    let stubborn = Greenlet::new(move |n| {
        let exit = raised_by(|| main.switch(n));
        assert!(exit.is::<GreenletExit>());
        main.switch(10).unwrap() + 1
    });
    stubborn.switch(0).unwrap();
    assert_eq!(stubborn.kill().unwrap(), 10);
    assert!(stubborn.is_active());
    assert_eq!(stubborn.switch(20).unwrap(), 21);
    assert!(stubborn.is_dead());
}

#[test]
fn what_a_killed_greenlet_panics_with_goes_to_its_parent() {
    let main = greenlet::current::<()>();
    let victim = Greenlet::new(move |()| {
        raised_by(|| main.switch(()));
        panic_any(Thrown(9));
    });
    victim.switch(()).unwrap();
    assert_eq!(thrown_by(|| victim.kill()), 9);
    assert!(victim.is_dead());
}

#[test]
fn what_is_thrown_goes_to_the_targets_parent_and_not_to_the_thrower() {
    let target = suspended();
    let thrower = Greenlet::new({
        let target = target.clone();
        move |()| {
            assert!(exited(throw(&target, 2)), "what it is resumed by later");
        }
    });
    assert_eq!(thrown_by(|| thrower.switch(())), 2);
    assert!(target.is_dead() && thrower.is_active());
    // The thrower waits in its throw as in a switch.
    let child = unstarted_below::<()>(&thrower);
    child.kill().unwrap();
    assert!(thrower.is_dead());
}

#[test]
fn an_exit_goes_to_the_victims_parent_and_not_to_the_killer() {
    let parent = Greenlet::new({
        let main = greenlet::current::<&str>();
        move |text| {
            assert!(exited(main.switch(text)));
            "told"
        }
    });
    parent.switch("").unwrap();
    let victim = unstarted_below::<()>(&parent);
    let killer = Greenlet::new({
        let victim = victim.clone();
        move |_: &str| {
            drop(victim.kill());
            unreachable!("nobody resumes it");
        }
    });
    assert_eq!(killer.switch("").unwrap(), "told");
    assert!(victim.is_dead() && parent.is_dead() && killer.is_active());
}

// Into those that have not started.

#[test]
fn an_unstarted_target_and_its_unstarted_parent_die_without_running() {
    // GL-04.
    let main = greenlet::current::<()>();
    let parent = unstarted_below::<()>(&main);
    let child = unstarted_below::<String>(&parent);
    assert_eq!(thrown_by(|| throw(&child, 4)), 4);
    assert!(child.is_dead() && parent.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn what_is_thrown_into_an_unstarted_target_is_raised_in_its_suspended_parent() {
    // GL-05.
    let parent = catching();
    let child = unstarted_below::<()>(&parent).cast::<u32>();
    assert_eq!(throw(&child, 6).unwrap(), 6);
    assert!(child.is_dead() && parent.is_dead());
}

#[test]
fn the_closure_of_an_unstarted_target_is_dropped_at_once_and_once() {
    let alive = Rc::new(());
    let capture = |alive: &Rc<()>| {
        let alive = Rc::clone(alive);
        Greenlet::new(move |()| drop(alive))
    };
    let (thrown, killed) = (capture(&alive), capture(&alive));
    assert_eq!(Rc::strong_count(&alive), 3);
    assert_eq!(thrown_by(|| throw(&thrown, 1)), 1);
    assert_eq!(Rc::strong_count(&alive), 2);
    assert!(exited(killed.kill()));
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(thrown.is_dead() && killed.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn an_exit_that_reaches_an_unstarted_parent_ends_it_too() {
    let main = greenlet::current::<()>();
    let grandparent = unstarted_below::<()>(&main);
    let parent = unstarted_below::<()>(&grandparent);
    let child = unstarted_below::<()>(&parent);
    assert!(exited(child.kill()));
    assert!(child.is_dead() && parent.is_dead() && grandparent.is_dead());
}

// Into the current one.

#[test]
fn what_is_thrown_at_oneself_is_raised_at_once() {
    // GL-35.
    let main = greenlet::current::<()>();
    assert_eq!(thrown_by(|| throw(&main, 1)), 1);
    assert!(raised_by(|| main.kill()).is::<GreenletExit>());
    let inner = Greenlet::new(|()| {
        let myself = greenlet::current::<()>();
        assert_eq!(thrown_by(|| throw(&myself, 2)), 2);
        drop(myself.kill());
        unreachable!("it unwinds");
    });
    assert!(exited(inner.switch(())));
    assert!(inner.is_dead());
}

// Into dead ones.

#[test]
fn what_is_thrown_into_a_dead_greenlet_is_raised_in_its_nearest_living_ancestor() {
    let main = greenlet::current::<()>();
    let dead = Greenlet::new(|()| ());
    dead.switch(()).unwrap();
    // That is this one.
    assert_eq!(thrown_by(|| throw(&dead, 1)), 1);

    let ancestor = catching();
    let (parent, child) = (unstarted_below::<u32>(&main), unstarted_below::<u32>(&main));
    for greenlet in [&parent, &child] {
        assert!(exited(greenlet.kill()));
    }
    parent.set_parent(&ancestor).unwrap();
    child.set_parent(&parent).unwrap();
    assert_eq!(throw(&child, 8).unwrap(), 8);
    assert!(ancestor.is_dead());
}

#[test]
fn killing_a_dead_greenlet_reports_the_exit_to_its_nearest_living_ancestor() {
    let main = greenlet::current::<u32>();
    let ancestor = Greenlet::new(move |n| {
        assert!(exited(main.switch(n)), "it is told, and not ended");
        3
    });
    ancestor.switch(0).unwrap();
    let dead = Greenlet::new(|n: u32| n);
    dead.switch(0).unwrap();
    dead.set_parent(&ancestor).unwrap();
    assert_eq!(dead.kill().unwrap(), 3);
    assert!(ancestor.is_dead());
    assert!(exited(dead.kill()), "now this greenlet is the nearest");
}

#[test]
fn what_is_thrown_into_a_dead_child_of_an_unstarted_parent_ends_that_without_running() {
    for is_exit in [false, true] {
        let parent = unstarted_below::<()>(&greenlet::current::<()>());
        let dead = Greenlet::new(|()| ());
        dead.switch(()).unwrap();
        dead.set_parent(&parent).unwrap();
        if is_exit {
            assert!(exited(dead.kill()));
        } else {
            assert_eq!(thrown_by(|| throw(&dead, 1)), 1);
        }
        assert!(parent.is_dead());
    }
}

// Into a thread's root.

#[test]
fn what_is_thrown_at_the_root_is_raised_at_its_pending_switch() {
    let main = greenlet::current::<()>();
    let child = Greenlet::new(move |()| drop(throw(&main, 3)));
    assert_eq!(thrown_by(|| child.switch(())), 3);
    assert!(child.is_active() && !greenlet::current::<()>().is_dead());
    let child = Greenlet::new({
        let main = greenlet::current::<()>();
        move |()| drop(main.kill())
    });
    assert!(raised_by(|| child.switch(())).is::<GreenletExit>());
}

#[test]
fn an_exit_that_leaves_a_threads_root_is_what_join_returns() {
    let thread = thread::spawn(|| {
        let root = greenlet::current::<()>();
        drop(Greenlet::new(move |()| drop(root.kill())).switch(()));
    });
    assert!(thread.join().unwrap_err().is::<GreenletExit>());
}

#[test]
fn each_thread_has_a_root_of_its_own_to_throw_at() {
    let threads: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let root = greenlet::current::<()>();
                let child = Greenlet::new(move |()| drop(throw(&root, number)));
                thrown_by(|| child.switch(()))
            })
        })
        .collect();
    let numbers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
}

// Payloads.

#[test]
fn a_payload_that_is_thrown_is_dropped_as_often_as_it_was_made() {
    struct Counted(#[allow(dead_code)] Arc<()>);
    let alive = Arc::new(());
    let payload = || Box::new(Counted(Arc::clone(&alive)));
    let targets = [suspended(), Greenlet::new(|()| ()), Greenlet::new(|()| ())];
    targets[2].switch(()).unwrap();
    for target in &targets {
        let caught = raised_by(|| target.throw(payload()));
        assert_eq!(Arc::strong_count(&alive), 2);
        assert!(raised_by(|| resume_unwind(caught)).is::<Counted>());
    }
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn what_is_thrown_calls_no_panic_hook() {
    const NAME: &str = "what_is_thrown_calls_no_panic_hook";
    if crate::util::child::is_child() {
        std::panic::set_hook(Box::new(|_| println!("the hook was called")));
        let target = suspended();
        assert_eq!(thrown_by(|| throw(&target, 1)), 1);
        assert!(exited(suspended().kill()));
        println!("came here");
        return;
    }
    let text = crate::util::child::text_of(&crate::util::child::run(NAME));
    assert!(text.contains("came here") && !text.contains("was called"), "{text}");
}

// While the thread is at its end.

#[test]
fn at_the_end_of_a_thread_nothing_is_raised_any_more() {
    static RAN: AtomicBool = AtomicBool::new(false);
    struct Late(RefCell<Vec<Greenlet>>);
    impl Drop for Late {
        fn drop(&mut self) {
            for handle in self.0.take() {
                assert!(matches!(handle.kill(), Err(SwitchError::CannotUnwind)), "{handle:?}");
                assert!(matches!(throw(&handle, 1), Err(SwitchError::CannotUnwind)));
                assert_eq!(handle.switch(()).unwrap_err().into_value(), Some(()));
            }
            RAN.store(true, Ordering::SeqCst);
        }
    }
    thread_local! {
        // Registered before the library's own, so destroyed after it.
        static LATE: Late = const { Late(RefCell::new(Vec::new())) };
    }
    let thread = thread::spawn(|| {
        LATE.with(|_| ());
        let (root, started, unstarted) =
            (greenlet::current::<()>(), suspended(), Greenlet::new(|()| ()));
        LATE.with(|late| late.0.borrow_mut().extend([root, started, unstarted]));
    });
    thread.join().unwrap();
    assert!(RAN.load(Ordering::SeqCst));
}
