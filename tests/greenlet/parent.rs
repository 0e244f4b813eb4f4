//! Moving greenlets in the tree, and what passes dead parents over.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;

use stolon::greenlet::{self, Greenlet, ParentError, SwitchError};
use stolon::stack::stack_counts;

/// A greenlet that sends its argument here, and ends with ten times what it is resumed with.
fn tenfold() -> Greenlet<i32> {
    let main = greenlet::current::<i32>();
    let greenlet = Greenlet::new(move |n| main.switch(n).unwrap() * 10);
    greenlet.switch(0).unwrap();
    greenlet
}

fn child_of(parent: &Greenlet<i32>) -> Greenlet<i32> {
    Greenlet::builder().parent(parent).build(|n| n + 1).unwrap()
}

fn dead_child_of(parent: &Greenlet<i32>) -> Greenlet<i32> {
    let dead = Greenlet::new(|n| n);
    dead.switch(0).unwrap();
    dead.set_parent(parent).unwrap();
    dead
}

// What is refused.

#[test]
fn a_cycle_is_refused_and_the_tree_stays_as_it_was() {
    // GL-13.
    let first = tenfold();
    let second = child_of(&first);
    let third = child_of(&second);
    for (child, parent) in [(&first, &third), (&first, &second), (&second, &third)] {
        assert_eq!(child.set_parent(parent), Err(ParentError::Cycle));
    }
    for greenlet in [&first, &second, &third] {
        assert_eq!(greenlet.set_parent(greenlet), Err(ParentError::Cycle));
    }
    let parents = [&first, &second, &third].map(|greenlet| greenlet.parent::<i32>());
    assert_eq!(parents, [Some(greenlet::current()), Some(first), Some(second)]);
    // Its result goes all the way up.
    assert_eq!(third.switch(1).unwrap(), 30);
}

#[test]
fn a_cycle_through_dead_greenlets_is_one_too() {
    let main = greenlet::current::<i32>();
    let top = dead_child_of(&main);
    let middle = dead_child_of(&top);
    let bottom = child_of(&middle);
    assert_eq!(top.set_parent(&bottom), Err(ParentError::Cycle));
    assert_eq!(top.set_parent(&middle), Err(ParentError::Cycle));
    // Nothing goes round in circles.
    assert_eq!(bottom.switch(1).unwrap(), 2);
    assert_eq!(middle.switch(3).unwrap(), 3);
}

#[test]
fn the_root_gets_no_parent() {
    // GL-13.
    let main = greenlet::current::<i32>();
    let other = tenfold();
    assert_eq!(main.set_parent(&other), Err(ParentError::Root));
    assert_eq!(main.set_parent(&main), Err(ParentError::Root));
    assert_eq!(main.parent::<i32>(), None);
    assert_eq!(other.switch(2).unwrap(), 20);
}

#[test]
fn errors_say_what_is_wrong() {
    let main = greenlet::current::<()>();
    let child = Greenlet::new(|()| ());
    let [cycle, root] = [child.set_parent(&child), main.set_parent(&child)].map(Result::unwrap_err);
    assert_eq!(cycle.to_string(), "cyclic parent chain");
    assert_eq!(root.to_string(), "the root of a thread cannot have a parent");
    let error: Box<dyn std::error::Error + Send + Sync> = root.into();
    assert!(error.downcast::<ParentError>().is_ok());
}

// What is accepted.

#[test]
fn the_new_parent_gets_the_result_and_the_old_one_nothing() {
    let old = tenfold();
    let child = child_of(&old);
    child.set_parent(&greenlet::current::<i32>()).unwrap();
    assert_eq!(child.switch(1).unwrap(), 2);
    assert!(child.is_dead() && old.is_active());
    assert_eq!(old.switch(1).unwrap(), 10);
}

#[test]
fn a_suspended_greenlet_may_be_moved_wherever_it_waits() {
    // In a switch to its parent, to another greenlet, in a throw, and while it drops another.
    let waits: [fn(Greenlet<i32>); 4] = [
        |main| drop(main.switch(0)),
        |main| {
            let other = Greenlet::builder().parent(&main).build(|n| n).unwrap();
            drop(other.switch(0));
        },
        |main| {
            let other = Greenlet::<i32>::builder().parent(&main).build(|n| n).unwrap();
            other.set_parent(&main).unwrap();
            drop(catch_unwind(AssertUnwindSafe(|| other.throw(Box::new("to main")))));
        },
        |main| {
            let myself = greenlet::current::<i32>();
            let stubborn = Greenlet::new(move |_: i32| {
                drop(catch_unwind(AssertUnwindSafe(|| myself.switch(0))));
                drop(main.switch(0));
                0
            });
            stubborn.switch(0).unwrap();
            drop(stubborn);
        },
    ];
    for wait in waits {
        let main = greenlet::current::<i32>();
        let parent = tenfold();
        let child = Greenlet::new(move |_| {
            wait(main);
            4
        });
        drop(catch_unwind(AssertUnwindSafe(|| child.switch(0))));
        assert!(child.is_active());
        child.set_parent(&parent).unwrap();
        // A child of its own that ends wakes it, whatever it waits for: this one takes any word.
        let waker = Greenlet::<i32>::builder().parent(&child).build(|n| n).unwrap();
        assert_eq!(waker.kill().unwrap(), 40);
        assert!(child.is_dead() && parent.is_dead());
    }
}

#[test]
fn the_current_greenlet_may_move_itself() {
    let other = tenfold();
    let child = Greenlet::new({
        let other = other.clone();
        move |n| {
            greenlet::current::<i32>().set_parent(&other).unwrap();
            n
        }
    });
    assert_eq!(child.switch(5).unwrap(), 50);
    assert!(child.is_dead() && other.is_dead());
}

#[test]
fn a_dead_parent_is_allowed_and_passed_over() {
    let ancestor = tenfold();
    let dead = dead_child_of(&ancestor);
    let child = Greenlet::new(|n: i32| n + 1);
    child.set_parent(&dead).unwrap();
    assert_eq!(child.parent::<i32>(), Some(dead));
    assert_eq!(child.switch(1).unwrap(), 20);
    assert!(ancestor.is_dead());
}

#[test]
fn a_chain_of_dead_parents_is_passed_over_up_to_the_root() {
    let main = greenlet::current::<i32>();
    let mut last = dead_child_of(&main);
    let mut chain = vec![last.clone()];
    for _ in 0..100 {
        last = dead_child_of(&last);
        chain.push(last.clone());
    }
    let (value, panic, exit) = (child_of(&last), child_of(&last), child_of(&last));
    assert_eq!(value.switch(1).unwrap(), 2);
    let thrown = catch_unwind(AssertUnwindSafe(|| panic.throw(Box::new(7))));
    assert_eq!(*thrown.unwrap_err().downcast::<i32>().unwrap(), 7);
    assert!(matches!(exit.kill(), Err(SwitchError::Exited)));
    // What is sent to the dead themselves as well.
    assert_eq!(last.switch(5).unwrap(), 5);
    // The chain may be moved as a whole.
    let other = tenfold();
    chain[0].set_parent(&other).unwrap();
    assert_eq!(last.switch(5).unwrap(), 50);
}

#[test]
fn a_dead_greenlet_that_is_moved_below_an_unstarted_one_starts_it_when_it_is_switched_to() {
    // GL-10.
    let parent = Greenlet::new(|n: i32| n * 3);
    let dead = dead_child_of(&parent);
    assert!(!parent.is_started());
    assert_eq!(dead.switch(2).unwrap(), 6);
    assert!(parent.is_dead());
}

#[test]
fn a_panic_goes_to_who_is_the_parent_when_it_leaves() {
    // GL-03, with another parent than at birth.
    let log = Rc::new(RefCell::new(Vec::new()));
    let main = greenlet::current::<i32>();
    let parent = Greenlet::new({
        let (main, log) = (main.clone(), Rc::clone(&log));
        move |n| {
            let panic = catch_unwind(AssertUnwindSafe(|| main.switch(n))).unwrap_err();
            log.borrow_mut().push(*panic.downcast::<&str>().unwrap());
            std::panic::resume_unwind(Box::new("seen once"));
        }
    });
    let child = Greenlet::new(move |n| {
        main.switch(n).unwrap();
        panic_any("from the child")
    });
    parent.switch(0).unwrap();
    child.switch(0).unwrap();
    child.set_parent(&parent).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| child.switch(0))).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "seen once");
    assert_eq!(*log.borrow(), ["from the child"]);
    assert!(child.is_dead() && parent.is_dead());
    assert_eq!(child.switch(9).unwrap(), 9);
}

#[test]
fn a_parent_whose_last_handle_goes_is_killed_though_it_has_children() {
    let parent = tenfold();
    let child = child_of(&parent);
    let watched = Rc::new(());
    let grandparent = Greenlet::new({
        let (watched, main) = (Rc::clone(&watched), greenlet::current::<i32>());
        move |n| {
            let _watched = watched;
            main.switch(n).unwrap()
        }
    });
    grandparent.switch(0).unwrap();
    parent.set_parent(&grandparent).unwrap();
    drop(parent);
    assert!(child.parent::<i32>().unwrap().is_dead());
    drop(grandparent);
    assert_eq!(Rc::strong_count(&watched), 1);
    assert_eq!(child.switch(1).unwrap(), 2);
    drop(child);
    assert_eq!(stack_counts().in_use, 0);
}
