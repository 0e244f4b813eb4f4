//! Greenlet operations on the greenlets that a hub runs: its green threads and its mainloop. None
//! of them breaks the hub, and whoever can go on does. And what plain greenlets ask of a hub.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::util::leak::counting_stacks;
use stolon::greenlet::{self, Greenlet, GreenletExit, SwitchError};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A green thread that runs `f`, and the greenlet that it is.
fn started<R: 'static>(f: impl FnOnce() -> R + 'static) -> (GreenThread<R>, Greenlet) {
    let cell: Rc<RefCell<Option<Greenlet>>> = Rc::default();
    let green = spawn({
        let cell = Rc::clone(&cell);
        move || {
            *cell.borrow_mut() = Some(greenlet::current());
            f()
        }
    });
    sleep(NOW);
    let greenlet = cell.take().expect("it has started");
    (green, greenlet)
}

/// The hub's mainloop, which is the parent of every green thread.
fn mainloop() -> Greenlet {
    spawn(|| greenlet::current::<()>().parent::<()>().unwrap()).join().unwrap()
}

/// Waits in its destructor until it may go on.
struct WaitsOnDrop(Rc<Cell<bool>>);

impl Drop for WaitsOnDrop {
    fn drop(&mut self) {
        while !self.0.get() {
            sleep(MS);
        }
    }
}

/// Runs `f`, which leaves main; a little later a green thread switches back.
fn until_woken<R>(f: impl FnOnce() -> R) -> R {
    let main = greenlet::current::<()>();
    let waker = spawn(move || {
        sleep(MS);
        drop(main.switch(()));
    });
    let result = f();
    waker.kill();
    result
}

fn text_of(payload: Box<dyn std::any::Any + Send>) -> String {
    *payload.downcast::<String>().expect("a text")
}

#[test]
fn what_is_thrown_into_a_green_thread_is_what_it_ends_with() {
    counting_stacks(|| {
        let (green, greenlet) = started(|| sleep(HOUR));
        until_woken(|| greenlet.throw(Box::new(5))).unwrap();
        assert_eq!(*green.join().unwrap_err().downcast::<i32>().unwrap(), 5);
        let (green, greenlet) = started(|| sleep(HOUR));
        until_woken(|| greenlet.kill()).unwrap();
        assert!(green.join().unwrap_err().is::<GreenletExit>());
    });
}

#[test]
fn a_thrower_that_nobody_can_wake_is_told_so() {
    counting_stacks(|| {
        let (green, greenlet) = started(|| sleep(HOUR));
        let report = catch_unwind(AssertUnwindSafe(|| greenlet.throw(Box::new(5))));
        assert!(text_of(report.unwrap_err()).contains("would block forever"));
        assert!(green.is_dead());
        spawn(|| sleep(MS)).join().unwrap();
    });
}

#[test]
fn a_green_thread_that_catches_what_is_thrown_blocks_again_as_before() {
    counting_stacks(|| {
        let (green, greenlet) = started(|| {
            let thrown = catch_unwind(|| sleep(HOUR)).unwrap_err();
            sleep(MS);
            *thrown.downcast::<i32>().unwrap()
        });
        until_woken(|| greenlet.throw(Box::new(5))).unwrap();
        assert_eq!(green.join().unwrap(), 5);
    });
}

#[test]
fn one_thrown_out_of_its_turn_is_not_resumed_by_that_turn() {
    counting_stacks(|| {
        let main = greenlet::current::<()>();
        let (green, greenlet) = started(move || {
            // It stands in the run queue, and still does when it waits for main.
            assert!(catch_unwind(|| sleep(NOW)).is_err());
            main.switch(()).unwrap();
            3
        });
        greenlet.throw(Box::new(5)).unwrap();
        assert!(greenlet.is_active());
        sleep(NOW);
        sleep(MS);
        assert!(!green.is_dead());
        until_woken(|| greenlet.switch(())).unwrap();
        assert_eq!(green.join().unwrap(), 3);
    });
}

#[test]
fn a_kill_of_one_that_is_parked_while_another_unwinds_is_late_and_not_lost() {
    counting_stacks(|| {
        let (victim, victims) = started(|| sleep(HOUR));
        let may_end = Rc::new(Cell::new(false));
        let waits = WaitsOnDrop(Rc::clone(&may_end));
        let (unwinding, unwindings) = started(move || {
            let _waits = waits;
            sleep(HOUR);
        });
        until_woken(|| unwindings.kill()).unwrap();
        assert!(std::thread::panicking() && !unwinding.is_dead());
        until_woken(|| victims.kill()).unwrap();
        assert!(!victim.is_dead());
        may_end.set(true);
        assert!(unwinding.join().unwrap_err().is::<GreenletExit>());
        assert!(victim.join().unwrap_err().is::<GreenletExit>());
    });
}

#[test]
fn a_green_thread_may_throw_into_another() {
    counting_stacks(|| {
        let (victim, greenlet) = started(|| sleep(HOUR));
        let (thrower, throws) = started(move || drop(greenlet.throw(Box::new(5))));
        assert!(victim.is_dead() && !thrower.is_dead());
        assert_eq!(*victim.join().unwrap_err().downcast::<i32>().unwrap(), 5);
        // Nobody has switched back to it, so it waits; it can be killed like any other.
        thrower.kill();
        assert!(throws.is_dead());
    });
}

#[test]
fn what_is_thrown_at_the_mainloop_disturbs_nobody() {
    counting_stacks(|| {
        let mainloop = mainloop();
        let (sleeper, _) = started(|| {
            sleep(2 * MS);
            7
        });
        until_woken(|| mainloop.throw(Box::new("ignored"))).unwrap();
        assert!(!mainloop.is_dead());
        assert_eq!(sleeper.join().unwrap(), 7);
    });
}

#[test]
fn a_mainloop_that_is_killed_is_replaced_and_its_green_threads_end_in_the_new_one() {
    counting_stacks(|| {
        let old = mainloop();
        let (sleeper, greenlet) = started(|| {
            sleep(2 * MS);
            7
        });
        assert!(matches!(old.kill(), Err(SwitchError::Exited)));
        assert!(old.is_dead());
        assert_eq!(sleeper.join().unwrap(), 7);
        assert!(greenlet.is_dead());
        let new = mainloop();
        assert!(new != old && !new.is_dead());
        // Killed by one of its children.
        let (killer, _) = started(move || drop(new.kill()));
        spawn(|| sleep(MS)).join().unwrap();
        killer.kill();
    });
}

#[test]
fn a_green_thread_may_get_another_parent_and_its_end_still_counts() {
    counting_stacks(|| {
        let main = greenlet::current::<()>();
        let (green, greenlet) = started(|| {
            sleep(MS);
            7
        });
        greenlet.set_parent(&main).unwrap();
        assert_eq!(green.join().unwrap(), 7);
        spawn(|| sleep(MS)).join().unwrap();
    });
}

#[test]
fn a_mainloop_may_get_another_parent_that_hears_of_its_end() {
    counting_stacks(|| {
        let main = greenlet::current::<&str>();
        let heir = Greenlet::new(move |text| {
            assert!(matches!(main.switch(text), Err(SwitchError::Exited)));
            "heard"
        });
        heir.switch("").unwrap();
        let mainloop = mainloop();
        mainloop.set_parent(&heir).unwrap();
        assert_eq!(mainloop.cast::<&str>().kill().unwrap(), "heard");
        spawn(|| sleep(MS)).join().unwrap();
    });
}

#[test]
fn a_destructor_may_spawn_and_block_while_its_greenlet_unwinds() {
    struct SpawnsAndBlocks(Rc<Cell<i32>>);
    impl Drop for SpawnsAndBlocks {
        fn drop(&mut self) {
            sleep(MS);
            let green = spawn(|| {
                sleep(MS);
                7
            });
            self.0.set(green.join().unwrap());
        }
    }
    counting_stacks(|| {
        let got = Rc::new(Cell::new(0));
        let main = greenlet::current::<()>();
        let greenlet = Greenlet::new({
            let got = Rc::clone(&got);
            move |()| {
                let _spawns_and_blocks = SpawnsAndBlocks(got);
                main.switch(()).unwrap();
            }
        });
        greenlet.switch(()).unwrap();
        drop(greenlet);
        assert_eq!(got.get(), 7);
        assert!(!std::thread::panicking());
    });
}
