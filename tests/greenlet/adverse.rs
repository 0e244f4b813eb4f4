//! Programs that go out of their way to break the greenlet layer, all of them safe ones. Each did
//! so once, or would have.

use std::cell::RefCell;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::Duration;

use stolon::greenlet::{self, Greenlet, GreenletExit};
use stolon::{sleep, spawn};

const MS: Duration = Duration::from_millis(1);

/// A greenlet that has switched back here once, and would end next.
fn suspended() -> Greenlet {
    let main = greenlet::current::<()>();
    let greenlet = Greenlet::new(move |()| drop(main.switch(())));
    greenlet.switch(()).unwrap();
    greenlet
}

#[test]
fn a_parent_that_ends_while_an_unwanted_result_is_dropped_gets_nothing() {
    struct Switches(Greenlet);
    impl Drop for Switches {
        fn drop(&mut self) {
            self.0.switch(()).unwrap();
        }
    }
    let parent = suspended();
    let child = Greenlet::<Option<Switches>>::builder()
        .parent(&parent)
        .build({
            let parent = parent.clone();
            move |_| Some(Switches(parent))
        })
        .unwrap();
    // Main must wait for a `()` to get what the parent ends with: so something between starts it.
    let between = Greenlet::new({
        let child = child.clone();
        move |()| drop(child.switch(None))
    });
    between.switch(()).unwrap();
    assert!(parent.is_dead() && !child.is_dead());
    // The child waits in the destructor. It goes on, and its parent is dead: main gets its panic.
    let end = catch_unwind(AssertUnwindSafe(|| child.cast::<()>().switch(())));
    assert!(end.is_err() && child.is_dead());
}

#[test]
fn a_victim_that_refuses_to_die_outlives_its_killer_and_ends_by_itself() {
    let main = greenlet::current::<()>();
    let child: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let victim = Greenlet::new({
        let (main, child) = (main.clone(), Rc::clone(&child));
        move |()| {
            let exit = catch_unwind(AssertUnwindSafe(|| main.switch(()))).unwrap_err();
            assert!(exit.is::<GreenletExit>());
            // Its end is what resumes the victim next.
            *child.borrow_mut() = Some(Greenlet::new(|()| ()));
            main.switch(()).unwrap();
        }
    });
    victim.switch(()).unwrap();
    let killer = Greenlet::new(move |()| {
        assert!(catch_unwind(AssertUnwindSafe(|| drop(victim))).is_err());
        let helper = Greenlet::new(move |text: String| {
            main.switch(()).unwrap();
            text
        });
        assert_eq!(helper.switch(String::from("a string")).unwrap(), "a string");
    });
    // The victim refuses, and switches to main.
    killer.switch(()).unwrap();
    // The killer awaits a death. A child of it that panics is what wakes it instead.
    let other = Greenlet::builder().parent(&killer).build(|()| panic_any("wake up")).unwrap();
    other.switch(()).unwrap();
    assert!(!killer.is_dead());
    // The victim's child ends, then the victim, a child of main's. Its death is no string.
    let child = child.borrow_mut().take().unwrap();
    child.switch(()).unwrap();
    assert!(!killer.is_dead());
}

/// A greenlet that has switched back here once. Thrown out of that, it leaves a child of its in
/// `child`, whose end resumes it, switches back here again, and ends next.
fn reluctant(child: &Rc<RefCell<Option<Greenlet>>>) -> Greenlet {
    let (main, child) = (greenlet::current::<()>(), Rc::clone(child));
    let greenlet = Greenlet::new(move |()| {
        assert!(catch_unwind(AssertUnwindSafe(|| main.switch(()))).is_err());
        *child.borrow_mut() = Some(Greenlet::new(|()| ()));
        main.switch(()).unwrap();
    });
    greenlet.switch(()).unwrap();
    greenlet
}

#[test]
fn the_death_of_who_was_given_up_is_not_taken_for_that_of_the_next_victim() {
    let end = |child: &Rc<RefCell<Option<Greenlet>>>| {
        let child = child.borrow_mut().take().unwrap();
        child.switch(()).unwrap();
    };
    let [first_child, second_child]: [Rc<RefCell<Option<Greenlet>>>; 2] = Default::default();
    let [first, second] = [&first_child, &second_child].map(reluctant);
    let log: Rc<RefCell<Vec<&str>>> = Rc::default();
    let killer = Greenlet::new({
        let log = Rc::clone(&log);
        move |()| {
            assert!(catch_unwind(AssertUnwindSafe(|| drop(first))).is_err());
            log.borrow_mut().push("gave up");
            drop(second);
            log.borrow_mut().push("second is dead");
        }
    });
    killer.switch(()).unwrap();
    let other = Greenlet::builder().parent(&killer).build(|()| panic_any("wake up")).unwrap();
    // The killer's second victim refuses, too.
    other.switch(()).unwrap();
    end(&first_child);
    assert_eq!(*log.borrow(), ["gave up"]);
    end(&second_child);
    assert_eq!(*log.borrow(), ["gave up", "second is dead"]);
    assert!(killer.is_dead());
}

#[test]
fn greenlets_that_hold_each_others_last_handle_end_both() {
    let main = greenlet::current::<()>();
    let cell: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let killer = Greenlet::new({
        let cell = Rc::clone(&cell);
        move |()| drop(cell.borrow_mut().take())
    });
    let watched = killer.clone();
    let victim = Greenlet::new(move |()| {
        let killer = killer;
        main.switch(()).unwrap();
        drop(killer.switch(()));
    });
    victim.switch(()).unwrap();
    *cell.borrow_mut() = Some(victim.clone());
    drop(victim.switch(()));
    drop(victim);
    assert!(watched.is_dead());
    assert_eq!(stolon::stack::stack_counts().in_use, 0);
}

#[test]
fn a_dropper_that_something_else_wakes_does_not_disturb_its_victims_destructor() {
    struct Slow(Rc<RefCell<u32>>);
    impl Drop for Slow {
        fn drop(&mut self) {
            sleep(30 * MS);
            *self.0.borrow_mut() += 1;
        }
    }
    let done = Rc::new(RefCell::new(0));
    let main = greenlet::current::<()>();
    let victim = Greenlet::new({
        let (main, done) = (main.clone(), Rc::clone(&done));
        move |()| {
            let _slow = Slow(done);
            drop(main.switch(()));
        }
    });
    victim.switch(()).unwrap();
    // A child of main that ends with what main does not take while it awaits a death.
    let helper = Greenlet::new(|()| sleep(10 * MS));
    spawn(move || drop(main.switch(())));
    helper.switch(()).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(victim))).is_err());
    assert_eq!(*done.borrow(), 0);
    sleep(50 * MS);
    assert_eq!(*done.borrow(), 1);
}

#[test]
fn a_green_thread_that_is_killed_twice_is_unwound_once() {
    struct Slow(Rc<RefCell<u32>>);
    impl Drop for Slow {
        fn drop(&mut self) {
            sleep(MS);
            *self.0.borrow_mut() += 1;
        }
    }
    let done = Rc::new(RefCell::new(0));
    let slow = Slow(Rc::clone(&done));
    let green = spawn(move || {
        let _slow = slow;
        sleep(1000 * MS);
    });
    sleep(Duration::ZERO);
    green.kill();
    green.kill();
    assert!(green.join().unwrap_err().is::<GreenletExit>());
    assert_eq!(*done.borrow(), 1);
}

#[test]
fn a_greenlet_that_only_the_hub_holds_may_wait_in_its_destructor() {
    struct Slow(Rc<RefCell<u32>>);
    impl Drop for Slow {
        fn drop(&mut self) {
            sleep(2 * MS);
            *self.0.borrow_mut() += 1;
        }
    }
    let done = Rc::new(RefCell::new(0));
    let main = greenlet::current::<()>();
    let parked = Greenlet::new({
        let (main, done) = (main.clone(), Rc::clone(&done));
        move |()| {
            let _slow = Slow(done);
            sleep(5 * MS);
            drop(main.switch(()));
        }
    });
    spawn(move || drop(main.switch(())));
    parked.switch(()).unwrap();
    drop(parked);
    // Main waits in a plain switch; the hub resumes the greenlet, and that one switches here.
    let other = Greenlet::new(|()| sleep(1000 * MS));
    other.switch(()).unwrap();
    // Nobody holds it now. It is killed when the thread next makes a greenlet.
    spawn(|| ()).wait();
    sleep(10 * MS);
    assert_eq!(*done.borrow(), 1);
}

#[test]
fn what_debug_writes_to_may_wait() {
    struct Slow(String);
    impl Write for Slow {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            sleep(2 * MS);
            self.0.push_str(text);
            Ok(())
        }
    }
    let green = spawn(|| sleep(MS));
    let mut slow = Slow(String::new());
    write!(slow, "{green:?}").unwrap();
    assert!(slow.0.starts_with("GreenThread("), "{}", slow.0);
    green.wait();
}

#[test]
fn values_too_large_for_the_stack_are_refused_and_not_fatal() {
    let error = Greenlet::<[u8; 100_000]>::builder().build(|bytes| bytes).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("box them"), "{error}");
    // As large as is let through: it must really fit.
    let echo = Greenlet::new(|bytes: [u8; 4096]| bytes);
    assert_eq!(echo.switch([7; 4096]).unwrap(), [7; 4096]);
}
