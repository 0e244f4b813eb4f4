//! Scopes: greenlets that borrow, and are dead when their scope is over, however that comes.

use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::util::crash::{complaint, crash};
use crate::util::on_drop::OnDrop;
use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use stolon::stack::stack_counts;
use stolon::{sleep, spawn};

const MS: Duration = Duration::from_millis(1);

fn payload_of<R>(f: impl FnOnce() -> R) -> i32 {
    let payload = catch_unwind(AssertUnwindSafe(|| drop(f()))).unwrap_err();
    *payload.downcast::<i32>().expect("a number")
}

#[test]
fn greenlets_of_a_scope_borrow_from_outside_and_end_with_it() {
    let main = greenlet::current::<i32>();
    let (mut total, dropped) = (0, Cell::new(0));
    let handle = greenlet::scope(|scope| {
        let adds = scope.greenlet(|mut n: i32| {
            let _counts = OnDrop(|| dropped.set(dropped.get() + 1));
            loop {
                total += n;
                n = main.switch(total).unwrap();
            }
        });
        assert_eq!((adds.switch(3).unwrap(), adds.switch(4).unwrap()), (3, 7));
        assert_eq!(dropped.get(), 0);
        adds
    });
    assert!(handle.is_dead());
    assert_eq!((total, dropped.get()), (7, 1));
    // What is sent to it now comes back.
    assert_eq!(handle.switch(8).unwrap(), 8);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn those_that_have_not_ended_are_killed_the_youngest_first() {
    let log = RefCell::new(Vec::new());
    let main = greenlet::current::<()>();
    greenlet::scope(|scope| {
        for name in ["first", "second", "unstarted"] {
            let (main, log) = (&main, &log);
            let notes = OnDrop(move || log.borrow_mut().push(name));
            let greenlet = scope.greenlet(move |()| {
                let _notes = notes;
                drop(main.switch(()));
            });
            if name != "unstarted" {
                greenlet.switch(()).unwrap();
            }
            std::mem::forget(greenlet);
        }
        assert!(log.borrow().is_empty());
    });
    assert_eq!(log.take(), ["unstarted", "second", "first"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_greenlet_that_loses_its_last_handle_ends_before_its_scope() {
    let dropped = Cell::new(false);
    let main = greenlet::current::<()>();
    greenlet::scope(|scope| {
        let greenlet = scope.greenlet(|()| {
            let _notes = OnDrop(|| dropped.set(true));
            drop(main.switch(()));
        });
        greenlet.switch(()).unwrap();
        drop(greenlet);
        assert!(dropped.get());
        // Thousands of them leave nothing behind in the scope.
        for n in 0..5000 {
            assert_eq!(scope.greenlet(|n: u32| n).switch(n).unwrap(), n);
        }
        assert_eq!(stack_counts().in_use, 0);
    });
}

#[test]
fn a_panic_ends_the_scope_and_its_greenlets_unwind_before_it_goes_on() {
    let (ended, main) = (Cell::new(false), greenlet::current::<()>());
    let code = payload_of(|| {
        greenlet::scope(|scope| {
            let waits = scope.greenlet(|()| {
                let _notes = OnDrop(|| ended.set(true));
                main.switch(()).unwrap();
            });
            waits.switch(()).unwrap();
            std::mem::forget(waits);
            panic_any(3);
        })
    });
    assert_eq!((code, ended.get()), (3, true));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_panic_of_a_greenlet_goes_on_in_its_parent_as_everywhere() {
    let code = payload_of(|| {
        greenlet::scope(|scope| scope.greenlet(|()| panic_any(4)).switch(()).unwrap());
    });
    assert_eq!(code, 4);
}

#[test]
fn a_panic_of_one_that_is_killed_goes_nowhere() {
    let main = greenlet::current::<()>();
    let value = greenlet::scope(|scope| {
        let panics = scope.greenlet(|()| {
            assert!(catch_unwind(AssertUnwindSafe(|| main.switch(()))).is_err());
            panic!("instead of the exit");
        });
        panics.switch(()).unwrap();
        std::mem::forget(panics);
        5
    });
    assert_eq!(value, 5);
    assert!(!thread::panicking());
}

#[test]
fn a_kill_of_who_is_in_the_scope_ends_its_greenlets_first() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let main = greenlet::current::<()>();
    let owner = Greenlet::new({
        let (log, main) = (Rc::clone(&log), main.clone());
        move |()| {
            let borrowed = OnDrop(|| log.borrow_mut().push("borrowed"));
            greenlet::scope(|scope| {
                let waits = scope.greenlet(|()| {
                    let _used = OnDrop(|| {
                        let _still_there = &borrowed;
                        log.borrow_mut().push("used");
                    });
                    main.switch(()).unwrap();
                });
                waits.switch(()).unwrap();
                std::mem::forget(waits);
                unreachable!("it is killed before");
            });
        }
    });
    owner.switch(()).unwrap();
    drop(owner);
    // The inner one switched to main; the owner waits in its switch to it.
    assert_eq!(*log.borrow(), ["used", "borrowed"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn scopes_nest_and_greenlets_of_a_scope_make_others_in_it() {
    let (main, count) = (greenlet::current::<()>(), Cell::new(0));
    greenlet::scope(|outer| {
        let first = outer.greenlet(|()| {
            let _notes = OnDrop(|| count.set(count.get() + 1));
            let own = Cell::new(7);
            greenlet::scope(|inner| {
                let waits = inner.greenlet(|()| {
                    let _notes = OnDrop(|| count.set(count.get() + own.get()));
                    drop(main.switch(()));
                });
                std::mem::forget(outer.greenlet(|()| unreachable!("never started")));
                waits.switch(()).unwrap();
                std::mem::forget(waits);
            });
        });
        first.switch(()).unwrap();
        std::mem::forget(first);
    });
    assert_eq!(count.get(), 8);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_destructor_may_make_another_greenlet_in_the_scope_that_ends() {
    let main = greenlet::current::<()>();
    let late = Cell::new(false);
    greenlet::scope(|scope| {
        let waits = scope.greenlet(|()| {
            let _makes = OnDrop(|| {
                let notes = OnDrop(|| late.set(true));
                std::mem::forget(scope.greenlet(move |()| drop(notes)));
            });
            drop(main.switch(()));
        });
        waits.switch(()).unwrap();
        std::mem::forget(waits);
    });
    assert!(late.get());
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_scope_waits_for_destructors_that_block() {
    let done = Cell::new(false);
    let others = spawn(|| (0..3).for_each(|_| sleep(MS)));
    let main = greenlet::current::<()>();
    greenlet::scope(|scope| {
        let blocks = scope.greenlet(|()| {
            let _slow = OnDrop(|| {
                sleep(10 * MS);
                done.set(true);
            });
            sleep(3600 * 1000 * MS);
        });
        spawn(move || drop(main.switch(())));
        blocks.switch(()).unwrap();
        std::mem::forget(blocks);
    });
    assert!(done.get());
    others.wait();
}

#[test]
fn green_threads_may_have_scopes_and_be_killed_in_them() {
    let ended = Rc::new(Cell::new(0));
    let counts = Rc::clone(&ended);
    let green = spawn(move || {
        greenlet::scope(|scope| {
            let blocks = scope.greenlet(|()| {
                let _notes = OnDrop(|| counts.set(counts.get() + 1));
                sleep(3600 * 1000 * MS);
            });
            blocks.switch(()).unwrap();
        });
    });
    sleep(MS);
    green.kill();
    assert!(green.join().unwrap_err().is::<GreenletExit>());
    assert_eq!(ended.get(), 1);
}

/// Control goes to the root without a value, whatever it waits for.
fn report_to_root() -> Result<(), SwitchError<()>> {
    let root = greenlet::all().swap_remove(0);
    let exits = |()| resume_unwind(Box::new(GreenletExit));
    Greenlet::builder().parent(&root).build(exits).unwrap().switch(())
}

#[test]
fn one_that_catches_the_exit_is_killed_again() {
    let kills = Cell::new(0);
    let main = greenlet::current::<()>();
    greenlet::scope(|scope| {
        let stubborn = scope.greenlet(|()| {
            while kills.get() < 5 {
                let wait = || if kills.get() == 0 { main.switch(()) } else { report_to_root() };
                let exit = catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
                assert!(exit.is::<GreenletExit>());
                kills.set(kills.get() + 1);
            }
        });
        stubborn.switch(()).unwrap();
        std::mem::forget(stubborn);
    });
    assert_eq!(kills.get(), 5);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn what_is_thrown_at_who_waits_for_the_end_is_raised_when_the_scope_has_ended() {
    let main = greenlet::current::<()>();
    let ended = Cell::new(false);
    let code = payload_of(|| {
        greenlet::scope(|scope| {
            let waits = scope.greenlet(|()| {
                let _notes = OnDrop(|| {
                    // A child of main's that panics reaches main, which waits for this one here.
                    let root = greenlet::all().swap_remove(0);
                    let panics = Greenlet::builder().parent(&root).build(|()| panic_any(6));
                    drop(panics.unwrap().switch(()));
                    ended.set(true);
                });
                drop(main.switch(()));
            });
            waits.switch(()).unwrap();
            std::mem::forget(waits);
        });
    });
    assert_eq!((code, ended.get()), (6, true));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_scope_that_ends_while_the_thread_unwinds_is_over_too() {
    let main = greenlet::current::<()>();
    let ended = Cell::new(0);
    let code = payload_of(|| {
        let _scope_in_a_destructor = OnDrop(|| {
            greenlet::scope(|scope| {
                let waits = scope.greenlet(|()| {
                    let _notes = OnDrop(|| ended.set(ended.get() + 1));
                    // It is not unwound, but told.
                    assert!(matches!(main.switch(()), Err(SwitchError::Exited)));
                });
                waits.switch(()).unwrap();
                std::mem::forget(waits);
            });
        });
        panic_any(7);
    });
    assert_eq!((code, ended.get()), (7, 1));
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn handles_that_get_out_by_another_way_are_handles_to_the_dead() {
    let smuggled: RefCell<Vec<Greenlet>> = RefCell::default();
    let main = greenlet::current::<()>();
    greenlet::scope(|scope| {
        let own = scope.greenlet(|()| {
            let current = greenlet::current::<()>();
            smuggled.borrow_mut().push(current.clone());
            let child = Greenlet::new(move |()| drop(current));
            smuggled.borrow_mut().push(child.parent().unwrap());
            smuggled.borrow_mut().push(child);
            main.switch(()).unwrap();
        });
        own.switch(()).unwrap();
        smuggled.borrow_mut().extend(greenlet::all().into_iter().skip(1));
        smuggled.borrow_mut().push(own.cast::<u8>().cast());
    });
    let smuggled = smuggled.into_inner();
    let children: Vec<_> = smuggled.iter().filter(|greenlet| !greenlet.is_dead()).collect();
    // Only the one that is of no scope lives, and its end comes here, past the dead.
    assert!(children.iter().all(|child| *child == children[0]));
    children[0].switch(()).unwrap();
    assert!(smuggled.iter().all(Greenlet::is_dead));
}

#[test]
fn killall_ends_greenlets_of_scopes_too() {
    thread::spawn(|| {
        let ended = Rc::new(Cell::new(0));
        let counts = Rc::clone(&ended);
        let main = greenlet::current::<()>();
        let owner = Greenlet::new(move |()| {
            let counts = &counts;
            greenlet::scope(|scope| {
                let waits = scope.greenlet(|()| {
                    let _notes = OnDrop(|| counts.set(counts.get() + 1));
                    main.switch(()).unwrap();
                });
                waits.switch(()).unwrap();
            });
        });
        owner.switch(()).unwrap();
        greenlet::killall();
        assert_eq!((ended.get(), owner.is_dead()), (1, true));
        assert_eq!(stack_counts().in_use, 0);
    })
    .join()
    .unwrap();
}

#[test]
fn a_thread_may_exit_while_a_greenlet_of_its_is_in_a_scope() {
    thread::spawn(|| {
        let main = greenlet::current::<()>();
        let owner = Greenlet::new(move |()| {
            let text = String::from("leaked with the frame");
            greenlet::scope(|scope| {
                let waits = scope.greenlet(|()| {
                    let _unused = OnDrop(|| unreachable!("{text}"));
                    main.switch(()).unwrap();
                });
                waits.switch(()).unwrap();
            });
        });
        owner.switch(()).unwrap();
        std::mem::forget(owner);
    })
    .join()
    .unwrap();
}

#[test]
fn generators_of_a_scope_borrow() {
    let words = String::from("a bb ccc");
    let late = greenlet::scope(|scope| {
        let mut lengths = scope.iter(|yielder| {
            words.split(' ').for_each(|word| yielder.yield_(word.len()));
        });
        assert_eq!((lengths.next(), lengths.next()), (Some(1), Some(2)));
        lengths
    });
    // It has ended with the scope.
    assert_eq!(late.count(), 0);
}

#[test]
fn one_that_cannot_be_made_to_end_ends_the_process() {
    const NAME: &str = "one_that_cannot_be_made_to_end_ends_the_process";
    let output = crash(NAME, || {
        let main = greenlet::current::<()>();
        greenlet::scope(|scope| {
            let builder = Greenlet::builder().name("stubborn");
            let stubborn = scope.build(builder, |()| {
                let _ = catch_unwind(AssertUnwindSafe(|| main.switch(())));
                loop {
                    let _ = catch_unwind(AssertUnwindSafe(report_to_root));
                }
            });
            stubborn.unwrap().switch(()).unwrap();
        });
        println!("the scope has ended");
    });
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(complaint(&output)[0].contains("'stubborn'"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("the scope has ended"));
}

#[test]
fn a_kill_of_who_waits_for_the_end_of_its_scope_comes_when_it_has_ended() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let main = greenlet::current::<()>();
    let owner = Greenlet::new({
        let log = Rc::clone(&log);
        move |()| {
            let _borrowed = OnDrop(|| log.borrow_mut().push("borrowed"));
            greenlet::scope(|scope| {
                let waits = scope.greenlet(|()| {
                    let _slow = OnDrop(|| {
                        drop(main.switch(()));
                        log.borrow_mut().push("ended");
                    });
                    drop(main.switch(()));
                });
                waits.switch(()).unwrap();
                std::mem::forget(waits);
            });
            unreachable!("it was killed");
        }
    });
    owner.switch(()).unwrap();
    // The scope ends, and a destructor in it waits.
    owner.switch(()).unwrap();
    assert!(log.borrow().is_empty());
    assert!(matches!(owner.kill(), Err(SwitchError::Exited)) && owner.is_dead());
    assert_eq!(*log.borrow(), ["ended", "borrowed"]);
    assert_eq!(stack_counts().in_use, 0);
}

#[test]
fn a_scope_waits_for_its_members_however_often_its_owner_is_killed() {
    let flushed = Rc::new(Cell::new(false));
    let noted = Rc::clone(&flushed);
    let owner = spawn(move || {
        greenlet::scope(|scope| {
            let me = greenlet::current::<()>();
            let member: Greenlet = scope.greenlet(move |()| {
                let _flushes = OnDrop(|| {
                    (0..300).for_each(|_| sleep(MS / 10));
                    noted.set(true);
                });
                drop(me.switch(()));
            });
            member.switch(()).unwrap();
            sleep(3600 * 1000 * MS);
        });
    });
    sleep(Duration::ZERO);
    let mut kills = 0;
    while !owner.is_dead() {
        owner.kill();
        kills += 1;
        sleep(Duration::ZERO);
    }
    assert!(flushed.get() && kills > 100, "{kills} kills");
    assert!(owner.join().unwrap_err().is::<GreenletExit>());
}

#[test]
fn ends_of_other_children_of_its_owner_do_not_hurry_a_scope() {
    let main = greenlet::current::<()>();
    let children: Vec<Greenlet> = (0..150)
        .map(|_| {
            let main = main.clone();
            let child = Greenlet::new(move |()| drop(main.switch(())));
            child.switch(()).unwrap();
            child
        })
        .collect();
    let flushed = Cell::new(false);
    greenlet::scope(|scope| {
        let member = scope.greenlet(|()| {
            let _flushes = OnDrop(|| {
                sleep(20 * MS);
                flushed.set(true);
            });
            drop(main.switch(()));
        });
        member.switch(()).unwrap();
        std::mem::forget(member);
        spawn(move || {
            sleep(MS);
            children.iter().for_each(stolon::greenthread::kill);
        });
    });
    assert!(flushed.get());
}

#[test]
fn a_scope_is_told_of_an_end_that_another_greenlet_has_given_up_to_wait_for() {
    let main = greenlet::current::<()>();
    let slot: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let owner = Greenlet::new({
        let slot = Rc::clone(&slot);
        move |()| {
            greenlet::scope(|scope| {
                let builder = Greenlet::builder().name("member").parent(&main);
                let member = scope.build(builder, |()| {
                    let _slow = OnDrop(|| (0..2).for_each(|_| drop(main.switch(()))));
                    drop(main.switch(()));
                });
                let member = member.unwrap();
                member.switch(()).unwrap();
                *slot.borrow_mut() = Some(member);
                main.switch(()).unwrap();
            });
        }
    });
    owner.switch(()).unwrap();
    owner.switch(()).unwrap();
    let killer = Greenlet::new(move |()| drop(slot.take()));
    // The member's destructor waits, for the first time; then the scope ends, and kills it too.
    killer.switch(()).unwrap();
    owner.switch(()).unwrap();
    // The first killer goes on.
    let exits = |()| resume_unwind(Box::new(GreenletExit));
    Greenlet::builder().parent(&killer).build(exits).unwrap().switch(()).unwrap();
    assert!(killer.is_dead() && !owner.is_dead());
    let all = greenlet::all();
    all.iter().find(|greenlet| greenlet.name() == Some("member")).unwrap().switch(()).unwrap();
    assert!(owner.is_dead());
    drop(all);
    assert_eq!(stack_counts().in_use, 0);
}
