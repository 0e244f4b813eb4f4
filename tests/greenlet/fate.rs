//! What becomes of greenlets whose end is disturbed: they refuse it, panic meanwhile, or their
//! destructors do things of their own. Each test holds one rule of the table in `greenlet`'s
//! documentation; `docs/semantics-greenlet.md` has the tests of the other rules, too.

use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;

use crate::util::child::{self, text_of};
use crate::util::crash::{complaint, crash};
use crate::util::on_drop::OnDrop;
use crate::util::server::is_emulated;
use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use stolon::stack::{MIN_STACK_BYTES, stack_counts};

/// A greenlet that has switched here once, and calls `f` in a destructor when it unwinds.
fn calling_on_unwind(f: impl FnMut() + 'static) -> Greenlet {
    let main = greenlet::current::<()>();
    let greenlet = Greenlet::new(move |()| {
        let _calls = OnDrop(f);
        main.switch(()).unwrap();
    });
    greenlet.switch(()).unwrap();
    greenlet
}

/// A greenlet that unwinds, and has switched here from a destructor; it goes on when it is switched
/// to.
fn waiting_in_a_destructor() -> Greenlet {
    let main = greenlet::current::<()>();
    let greenlet = calling_on_unwind(move || drop(main.switch(())));
    greenlet.kill().unwrap();
    assert!(greenlet.is_active() && thread::panicking());
    greenlet
}

fn unwinds<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

// Handles.

#[test]
fn a_handle_on_its_own_stack_keeps_a_greenlet_until_killall() {
    let unwound = Rc::new(Cell::new(false));
    let keeps_itself = Greenlet::new({
        let (main, unwound) = (greenlet::current::<()>(), Rc::clone(&unwound));
        move |()| {
            let _notes = OnDrop(|| unwound.set(true));
            let _myself = greenlet::current::<()>();
            main.switch(()).unwrap();
        }
    });
    keeps_itself.switch(()).unwrap();
    drop(keeps_itself);
    drop(Greenlet::new(|()| ()));
    assert!(!unwound.get());
    greenlet::killall();
    assert!(unwound.get());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_handle_taken_while_it_unwinds_is_one_to_a_dead_greenlet_afterwards() {
    // GL-34, as far as it can be: there are no weak handles.
    let taken: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let in_greenlet = Rc::clone(&taken);
    let greenlet = calling_on_unwind(move || {
        *in_greenlet.borrow_mut() = Some(greenlet::current());
    });
    drop(greenlet);
    let taken = taken.take().unwrap();
    assert!(taken.is_dead());
    assert!(matches!(taken.kill(), Err(SwitchError::Exited)));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn twenty_thousand_that_are_dropped_are_each_unwound_once() {
    // GL-30.
    let count = if is_emulated() { 2_000 } else { 20_000 };
    let unwound = Rc::new(Cell::new(0));
    let suspended: Vec<_> = (0..count)
        .map(|_| {
            let (main, unwound) = (greenlet::current::<()>(), Rc::clone(&unwound));
            let builder = Greenlet::builder().stack_bytes(4 * MIN_STACK_BYTES);
            let run = move |()| {
                let _counts = OnDrop(|| unwound.set(unwound.get() + 1));
                main.switch(()).unwrap();
            };
            let greenlet = builder.build(run).unwrap();
            greenlet.switch(()).unwrap();
            greenlet
        })
        .collect();
    assert_eq!((unwound.get(), stack_counts().in_use), (0, count));
    drop(suspended);
    assert_eq!((unwound.get(), stack_counts().in_use), (count, 0));
}

#[test]
fn after_a_stack_could_not_be_had_the_next_one_can() {
    // GL-32.
    let mut runs = 0;
    let make = |stack_bytes| Greenlet::<i32>::builder().stack_bytes(stack_bytes).build(|n| n + 1);
    for stack_bytes in [1 << 55, 1 << 16, 1 << 55, 1 << 16] {
        if let Ok(greenlet) = make(stack_bytes) {
            runs = greenlet.switch(runs).unwrap();
        }
    }
    assert_eq!(runs, 2);
}

// Those that refuse to die.

#[test]
fn one_that_catches_the_exit_of_a_drop_has_nothing_to_send_its_dropper() {
    let main = greenlet::current::<i32>();
    let refused = Rc::new(Cell::new(None));
    let greenlet = Greenlet::new({
        let refused = Rc::clone(&refused);
        move |n| {
            assert!(unwinds(|| main.switch(n)));
            // The dropper waits for a death, and takes no value.
            refused.set(main.switch(9).unwrap_err().into_value());
            n
        }
    });
    greenlet.switch(0).unwrap();
    drop(greenlet);
    assert_eq!(refused.get(), Some(9));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_while_dropped_is_reported_once_and_the_dropper_goes_on() {
    // GL-16.
    const NAME: &str = "a_panic_while_dropped_is_reported_once_and_the_dropper_goes_on";
    if child::is_child() {
        std::panic::set_hook(Box::new(|_| println!("one report")));
        let main = greenlet::current::<()>();
        let greenlet = Greenlet::new(move |()| {
            assert!(unwinds(|| main.switch(())));
            panic!("instead of the exit");
        });
        greenlet.switch(()).unwrap();
        drop(greenlet);
        println!("the dropper goes on");
        return;
    }
    let output = child::run(NAME);
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("one report").count(), 1, "{text}");
    assert!(text.contains("the dropper goes on"), "{text}");
}

#[test]
fn what_is_thrown_into_one_that_is_being_dropped_goes_nowhere_else() {
    let main = greenlet::current::<()>();
    let slot: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let victim = Greenlet::new({
        let slot = Rc::clone(&slot);
        move |()| {
            assert!(unwinds(|| main.switch(())));
            *slot.borrow_mut() = Some(greenlet::current());
            main.switch(()).unwrap();
        }
    });
    victim.switch(()).unwrap();
    let dropper = Greenlet::new(|()| drop(victim));
    dropper.switch(()).unwrap();
    let victim = slot.take().unwrap();
    assert!(victim.is_active() && dropper.is_active());
    // The dropper has waited for this, and its own end comes here.
    victim.throw(Box::new(5)).unwrap();
    assert!(victim.is_dead() && dropper.is_dead());
    assert_eq!(stack_counts().in_use, 0);
}

// Killed while something unwinds.

#[test]
fn one_killed_while_it_unwinds_is_told_by_its_pending_switch_and_unwinds_once() {
    let main = greenlet::current::<()>();
    let told = Rc::new(Cell::new(0));
    let greenlet = calling_on_unwind({
        let told = Rc::clone(&told);
        move || {
            assert!(matches!(main.switch(()), Err(SwitchError::Exited)));
            told.set(told.get() + 1);
        }
    });
    greenlet.kill().unwrap();
    assert!(matches!(greenlet.kill(), Err(SwitchError::Exited)));
    assert!(greenlet.is_dead() && !thread::panicking());
    assert_eq!(told.get(), 1);
}

#[test]
fn one_killed_while_another_unwinds_is_told_by_its_pending_switch() {
    let unwinding = waiting_in_a_destructor();
    let main = greenlet::current::<()>();
    let victim = Greenlet::new(move |()| {
        assert!(matches!(main.switch(()), Err(SwitchError::Exited)));
        main.switch(()).unwrap();
    });
    victim.switch(()).unwrap();
    victim.kill().unwrap();
    assert!(victim.is_active());
    assert!(matches!(unwinding.switch(()), Err(SwitchError::Exited)));
    assert!(unwinding.is_dead() && !thread::panicking());
    victim.switch(()).unwrap();
    assert!(victim.is_dead());
}

#[test]
fn one_dropped_by_a_panic_is_told_by_its_pending_switch_and_the_panic_goes_on() {
    let told = Rc::new(Cell::new(false));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let (main, told) = (greenlet::current::<()>(), Rc::clone(&told));
        let greenlet = Greenlet::new(move |()| {
            told.set(matches!(main.switch(()), Err(SwitchError::Exited)));
        });
        greenlet.switch(()).unwrap();
        panic_any("drops the greenlet");
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "drops the greenlet");
    assert!(told.get() && !thread::panicking());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_payload_thrown_into_an_unwinding_destructor_may_be_caught_there() {
    let main = greenlet::current::<()>();
    let caught = Rc::new(Cell::new(0));
    let greenlet = calling_on_unwind({
        let caught = Rc::clone(&caught);
        move || {
            let payload = catch_unwind(AssertUnwindSafe(|| main.switch(()))).unwrap_err();
            caught.set(*payload.downcast::<i32>().unwrap());
        }
    });
    greenlet.kill().unwrap();
    assert!(matches!(greenlet.throw(Box::new(5)), Err(SwitchError::Exited)));
    assert!(greenlet.is_dead() && !thread::panicking());
    assert_eq!(caught.get(), 5);
}

#[test]
fn a_payload_that_leaves_an_unwinding_destructor_aborts_the_process() {
    const NAME: &str = "a_payload_that_leaves_an_unwinding_destructor_aborts_the_process";
    let output = crash(NAME, || {
        drop(waiting_in_a_destructor().throw(Box::new(5)));
    });
    assert_eq!(output.status.signal(), Some(6), "{}", text_of(&output));
    let complaint = complaint(&output).join("\n");
    assert!(complaint.contains("panic in a destructor during cleanup"), "{complaint}");
}

#[test]
fn a_payload_for_one_that_waits_for_a_death_while_it_unwinds_is_lost() {
    let main = greenlet::current::<()>();
    let stubborn = Greenlet::new({
        let main = main.clone();
        move |()| {
            assert!(matches!(main.switch(()), Err(SwitchError::Exited)));
            main.switch(()).unwrap();
        }
    });
    stubborn.switch(()).unwrap();
    let stubborn = Cell::new(Some(stubborn));
    let dropper = calling_on_unwind(move || drop(stubborn.take()));
    dropper.kill().unwrap();
    assert!(dropper.is_active() && thread::panicking());
    // It gives up on the greenlet that it drops, and ends by the exit after all.
    assert!(matches!(dropper.throw(Box::new(5)), Err(SwitchError::Exited)));
    assert!(dropper.is_dead() && !thread::panicking());
    greenlet::killall();
    assert_eq!(stack_counts().in_use, 0);
}

// What destructors may do, and what `std` thinks of it.

#[test]
fn a_destructor_may_make_greenlets_while_its_greenlet_unwinds() {
    let sum = Rc::new(Cell::new(0));
    let greenlet = calling_on_unwind({
        let sum = Rc::clone(&sum);
        move || {
            let main = greenlet::current::<i32>();
            let helper = Greenlet::new(move |n| main.switch(n + 1).unwrap() + 2);
            sum.set(helper.switch(10).unwrap() + helper.switch(20).unwrap());
            // One that panics on its own stack, one that is killed, and one that never starts.
            assert!(unwinds(|| Greenlet::new(|()| panic_any(1)).switch(())));
            let exits = Greenlet::new(|()| resume_unwind(Box::new(GreenletExit)));
            assert!(matches!(exits.switch(()), Err(SwitchError::Exited)));
            drop(Greenlet::new(|()| ()));
        }
    });
    drop(greenlet);
    assert_eq!(sum.get(), 11 + 22);
    assert!(!thread::panicking());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn while_one_waits_in_a_destructor_all_greenlets_of_its_thread_are_panicking() {
    let unwinding = waiting_in_a_destructor();
    let other = Greenlet::new(|()| {
        assert!(thread::panicking());
        // Panics are caught as ever, and change nothing.
        assert!(unwinds(|| panic_any(1)) && thread::panicking());
    });
    other.switch(()).unwrap();
    assert!(!thread::spawn(thread::panicking).join().unwrap());
    assert!(matches!(unwinding.switch(()), Err(SwitchError::Exited)));
    assert!(unwinding.is_dead() && !thread::panicking());
}

#[test]
fn a_lock_released_while_another_waits_in_a_destructor_is_poisoned_unless_taken_meanwhile() {
    let [before, meanwhile, after] = [0, 1, 2].map(Mutex::new);
    let guard = before.lock();
    let unwinding = waiting_in_a_destructor();
    drop(guard);
    drop(meanwhile.lock());
    let guard = after.lock();
    assert!(matches!(unwinding.switch(()), Err(SwitchError::Exited)));
    drop(guard);
    assert!(before.is_poisoned() && !meanwhile.is_poisoned() && !after.is_poisoned());
}

#[test]
fn a_panic_that_is_caught_is_no_other_greenlets_business() {
    // GL-23.
    let first = catch_unwind(|| panic_any("first")).unwrap_err();
    let other = Greenlet::new(|()| {
        assert!(!thread::panicking());
        assert!(unwinds(|| panic_any("second")));
    });
    other.switch(()).unwrap();
    assert_eq!(*first.downcast::<&str>().unwrap(), "first");
    assert!(!thread::panicking());
}
