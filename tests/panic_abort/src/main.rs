//! What becomes of greenlets where panics abort: each function checks one rule, and is named after
//! it. With an argument, the program does what aborts it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use stolon::stack::stack_counts;
use stolon::timeout::with_timeout;

/// Counts how often it is dropped.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// A greenlet that holds something, has switched here once, and ends with what it is sent.
fn suspended(dropped: &Rc<Cell<u32>>) -> Greenlet<u32> {
    let (main, counted) = (greenlet::current::<u32>(), Counted(Rc::clone(dropped)));
    let greenlet = Greenlet::new(move |n| {
        let _counted = counted;
        main.switch(n).unwrap()
    });
    greenlet.switch(0).unwrap();
    greenlet
}

fn unstarted(dropped: &Rc<Cell<u32>>) -> Greenlet<u32> {
    let counted = Counted(Rc::clone(dropped));
    Greenlet::new(move |_| {
        let _counted = &counted;
        unreachable!("it never runs")
    })
}

fn cannot_unwind(result: Result<u32, SwitchError<u32>>) -> bool {
    matches!(result, Err(SwitchError::CannotUnwind))
}

fn dropping_a_suspended_greenlet_leaks_it_and_its_stack() {
    let (dropped, before) = (Rc::default(), stack_counts().in_use);
    drop(suspended(&dropped));
    assert_eq!((dropped.get(), stack_counts().in_use), (0, before + 1));
}

fn dropping_or_killing_an_unstarted_greenlet_drops_its_closure() {
    let (dropped, before) = (Rc::default(), stack_counts().in_use);
    drop(unstarted(&dropped));
    assert_eq!(dropped.get(), 1);
    let killed = unstarted(&dropped);
    assert!(matches!(killed.kill(), Err(SwitchError::Exited)));
    assert!(killed.is_dead());
    assert!(matches!(killed.kill(), Err(SwitchError::Exited)));
    assert_eq!((dropped.get(), stack_counts().in_use), (2, before));
}

fn killing_a_started_greenlet_is_an_error_and_it_goes_on_as_before() {
    let (dropped, before) = (Rc::default(), stack_counts().in_use);
    let greenlet = suspended(&dropped);
    assert!(cannot_unwind(greenlet.kill()));
    assert!(cannot_unwind(greenlet.throw(Box::new(GreenletExit))));
    assert!(cannot_unwind(greenlet.throw(Box::new("a payload"))));
    assert!(cannot_unwind(greenlet::current().kill()));
    assert!(greenlet.is_active() && dropped.get() == 0);
    assert_eq!(greenlet.switch(7).unwrap(), 7);
    assert_eq!((dropped.get(), stack_counts().in_use), (1, before));
}

fn a_payload_is_thrown_nowhere_as_it_would_end_in_a_started_greenlet() {
    let dropped = Rc::default();
    let greenlet = unstarted(&dropped);
    assert!(cannot_unwind(greenlet.throw(Box::new("a payload"))));
    assert!(!greenlet.is_started() && dropped.get() == 0);
    let dead = Greenlet::new(|n: u32| n);
    dead.switch(0).unwrap();
    assert!(cannot_unwind(dead.throw(Box::new("a payload"))));
    let text = dead.throw(Box::new("a payload")).unwrap_err().to_string();
    assert!(text.contains("panics abort"), "{text}");
}

fn killall_leaks_what_has_started_and_drops_what_has_not() {
    let dropped = Rc::default();
    let kept = [suspended(&dropped), unstarted(&dropped)];
    greenlet::killall();
    assert_eq!(dropped.get(), 1);
    assert!(kept.iter().all(Greenlet::is_dead));
    // As to any dead one: it goes to the nearest ancestor that is not.
    assert_eq!(kept[0].switch(1).unwrap(), 1);
}

fn a_scope_ends_whose_greenlets_have_ended_or_not_started() {
    let (dropped, before) = (Rc::default(), stack_counts().in_use);
    greenlet::scope(|scope| {
        assert_eq!(scope.greenlet(|n: u32| n).switch(3).unwrap(), 3);
        let counted = Counted(Rc::clone(&dropped));
        std::mem::forget(scope.greenlet(|()| drop(counted)));
    });
    assert_eq!((dropped.get(), stack_counts().in_use), (1, before));
}

fn a_scope_of_a_suspended_greenlet_does_not_end(is_leaked: bool) {
    let main = greenlet::current::<()>();
    greenlet::scope(|scope| {
        let suspended = scope.greenlet(|()| main.switch(()).unwrap());
        suspended.switch(()).unwrap();
        if is_leaked {
            drop(suspended);
        } else {
            std::mem::forget(suspended);
        }
    });
    println!("the scope has ended");
}

fn a_timeout_that_does_not_expire_in_a_wait_does_no_harm() {
    let ms = Duration::from_millis(1);
    assert_eq!(with_timeout(60_000 * ms, || stolon::sleep(ms)), Ok(()));
    assert_eq!(with_timeout(ms, || std::thread::sleep(2 * ms)), Ok(()));
    assert!(!stolon::semaphore::Semaphore::new(0).acquire_timeout(ms));
}

fn a_timeout_that_expires_in_a_wait_ends_the_process() {
    let ms = Duration::from_millis(1);
    let ended = with_timeout(ms, || stolon::sleep(60_000 * ms));
    println!("it has ended: {ended:?}");
}

fn main() {
    assert!(cfg!(panic = "abort"));
    match std::env::args().nth(1).as_deref() {
        Some("panic") => return drop(Greenlet::new(|()| panic!("in a greenlet")).switch(())),
        Some("scope") => return a_scope_of_a_suspended_greenlet_does_not_end(false),
        Some("timeout") => return a_timeout_that_expires_in_a_wait_ends_the_process(),
        Some("leak") => return a_scope_of_a_suspended_greenlet_does_not_end(true),
        _ => {}
    }
    dropping_a_suspended_greenlet_leaks_it_and_its_stack();
    dropping_or_killing_an_unstarted_greenlet_drops_its_closure();
    killing_a_started_greenlet_is_an_error_and_it_goes_on_as_before();
    a_payload_is_thrown_nowhere_as_it_would_end_in_a_started_greenlet();
    killall_leaks_what_has_started_and_drops_what_has_not();
    a_scope_ends_whose_greenlets_have_ended_or_not_started();
    a_timeout_that_does_not_expire_in_a_wait_does_no_harm();
    println!("all rules hold");
}
