//! From the first of the crate's own thread-local destructors on, nothing that has started is resumed or
//! unwound, whatever code of the user's the destructors run.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::thread::{self, LocalKey};
use std::time::{Duration, Instant};

use stolon::greenlet::{self, Greenlet, SwitchError};
use stolon::{hub, sleep, spawn};

use crate::references::{Gone, outlives_nothing_thread_local, refer_to, tells_if_outlived};
use crate::util::child;
use crate::util::leak::{alone, guarded};
use crate::util::on_drop::OnDrop;

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);

type Value = &'static LocalKey<Gone>;

/// A greenlet that is suspended with a reference into `value`, which is younger than the thread's hub.
fn inside(value: Value) -> Greenlet {
    sleep(NOW);
    let main = greenlet::current::<()>();
    let inside = Greenlet::new(move |()| refer_to(value, |_| drop(main.switch(()))));
    inside.switch(()).unwrap();
    inside
}

// What the hub drops as it closes.

#[test]
fn a_pending_call_that_is_dropped_unwinds_nothing() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let inside = inside(value);
            hub::schedule_call_global(HOUR, move || drop(inside));
        });
    });
}

#[test]
fn a_green_thread_that_was_put_off_unwinds_nothing() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let inside = inside(value);
            stolon::spawn_after(HOUR, move || drop(inside));
        });
    });
}

#[test]
fn an_error_hook_that_is_dropped_unwinds_nothing() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            let inside = inside(value);
            hub::set_error_hook(move |_| {
                let _captured = &inside;
            });
        });
    });
}

#[test]
fn a_generator_that_is_dropped_in_a_pending_call_is_not_unwound() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            sleep(NOW);
            let mut items = greenlet::iter(move |y| refer_to(value, |_| y.yield_(1)));
            assert_eq!(items.next(), Some(1));
            hub::schedule_call_global(HOUR, move || drop(items));
        });
    });
}

#[test]
fn a_message_that_was_not_read_kills_nobody() {
    thread_local!(static VICTIM: Cell<Option<&'static Greenlet>> = const { Cell::new(None) });
    alone(|| {
        outlives_nothing_thread_local(|value| {
            VICTIM.set(Some(Box::leak(Box::new(inside(value)))));
            let kills = OnDrop(|| {
                if let Some(victim) = VICTIM.get() {
                    let _ = victim.kill();
                    let _ = victim.throw(Box::new(1));
                    let _ = victim.switch(());
                }
            });
            hub::handle().run(move || drop(kills)).unwrap();
        });
    });
}

#[test]
fn a_mainloop_with_a_call_on_its_stack_is_not_unwound() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            sleep(NOW);
            let main = greenlet::current::<()>();
            let to_main = Greenlet::new(move |()| drop(main.switch(())));
            hub::schedule_call_global(NOW, move || {
                refer_to(value, |_| drop(to_main.switch(())));
            });
            let sleeper = Greenlet::new(|()| sleep(HOUR));
            // The call switches here, and the thread ends.
            sleeper.switch(()).unwrap();
            std::mem::forget(sleeper);
        });
    });
}

#[test]
fn a_mainloop_that_waits_in_a_call_for_a_kill_is_not_resumed() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            sleep(NOW);
            let main = greenlet::current::<()>();
            let slow = spawn(move || {
                let _switches = OnDrop(|| drop(main.switch(())));
                sleep(HOUR);
            });
            hub::schedule_call_global(Duration::from_millis(1), move || {
                refer_to(value, |_| slow.kill());
            });
            let waits = Greenlet::new(|()| sleep(HOUR));
            waits.switch(()).unwrap();
            std::mem::forget(waits);
        });
    });
}

#[test]
fn a_mainloop_with_a_tracer_on_its_stack_is_not_unwound() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            sleep(NOW);
            let found = Rc::new(RefCell::new(None::<Greenlet>));
            let in_green = Rc::clone(&found);
            spawn(move || *in_green.borrow_mut() = greenlet::current::<()>().parent()).wait();
            let (mainloop, root) = (found.take().unwrap(), greenlet::current::<()>());
            let sleeper = Greenlet::new(|()| sleep(HOUR));
            spawn(|| ());
            let is_first = Cell::new(true);
            greenlet::settrace(move |_, _, target| {
                if *target == mainloop && is_first.replace(false) {
                    refer_to(value, |_| drop(root.switch(())));
                }
            });
            sleeper.switch(()).unwrap();
            assert!(greenlet::gettrace().is_some());
            std::mem::forget(sleeper);
        });
    });
}

#[test]
fn a_mainloop_that_drops_what_a_tracer_had_is_not_resumed() {
    alone(|| {
        outlives_nothing_thread_local(|value| {
            sleep(NOW);
            let found = Rc::new(RefCell::new(None::<Greenlet>));
            let in_green = Rc::clone(&found);
            spawn(move || *in_green.borrow_mut() = greenlet::current::<()>().parent()).wait();
            let (mainloop, root) = (found.take().unwrap(), greenlet::current::<()>());
            // In its destructor it leaves the mainloop, which kills it, for the root.
            let to_root = root.clone();
            let leaves = Greenlet::new(move |()| {
                let _leaves = OnDrop(|| drop(to_root.switch(())));
                drop(root.switch(()));
            });
            leaves.switch(()).unwrap();
            let leaves = Cell::new(Some(leaves));
            let captured = OnDrop(move || refer_to(value, |_| drop(leaves.take())));
            let sleeper = Greenlet::new(|()| sleep(HOUR));
            spawn(|| ());
            greenlet::settrace(move |_, _, target| {
                let _captured = &captured;
                assert!(*target != mainloop, "on purpose");
            });
            sleeper.switch(()).unwrap();
            std::mem::forget(sleeper);
        });
    });
}

#[test]
fn a_thread_that_ends_while_its_mainloop_kills_waits_for_no_timer() {
    alone(|| {
        let start = Instant::now();
        let thread = thread::spawn(|| {
            sleep(NOW);
            spawn(|| sleep(HOUR));
            let victim = Greenlet::new(|()| sleep(HOUR));
            // A switch by hand in a destructor, so that the kill of another is late.
            spawn(|| {
                let _by_hand = OnDrop(|| {
                    let me = greenlet::current::<()>();
                    let back = Greenlet::new(move |()| {
                        sleep(NOW);
                        drop(me.switch(()));
                    });
                    back.switch(()).unwrap();
                    sleep(20 * Duration::from_millis(1));
                });
                std::panic::resume_unwind(Box::new("unwinds"));
            });
            let killed = victim.clone();
            spawn(move || {
                sleep(Duration::from_millis(5));
                stolon::greenthread::kill(&killed);
            });
            // It is a child of this one, which goes on in the middle of the mainloop's kill.
            assert!(matches!(victim.switch(()), Err(SwitchError::Exited)));
        });
        thread.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    });
}

// What thread-local destructors of the user's do that run between and after the crate's own.

/// Runs `make` on a thread, and `late` with what that made in a thread-local destructor which runs when
/// the hub is closed and the thread's greenlets are still there.
fn between<T: 'static>(make: fn() -> T, late: fn(T)) {
    struct Late<T: 'static>(Option<T>, fn(T));
    impl<T> Drop for Late<T> {
        fn drop(&mut self) {
            (self.1)(self.0.take().unwrap());
        }
    }
    thread_local!(static LATE: RefCell<Option<Box<dyn std::any::Any>>> = const { RefCell::new(None) });
    thread::spawn(move || {
        // In this order: the greenlets, then this value, then the hub.
        greenlet::current::<()>();
        LATE.with(|_| ());
        let made = make();
        LATE.set(Some(Box::new(Late(Some(made), late))));
    })
    .join()
    .unwrap();
}

#[test]
fn after_the_hub_has_gone_nobody_can_be_resumed_or_killed() {
    alone(|| {
        fn make() -> Greenlet {
            sleep(NOW);
            let main = greenlet::current::<()>();
            let waits = Greenlet::new(move |()| {
                let _never = OnDrop(|| println!("unwound"));
                drop(main.switch(()));
                unreachable!("resumed");
            });
            waits.switch(()).unwrap();
            waits
        }
        between(make, |waits| {
            assert!(waits.is_dead());
            assert!(matches!(waits.switch(()), Ok(())), "the current greenlet stands in for it");
            assert!(matches!(waits.kill(), Err(SwitchError::Exited)));
        });
    });
}

#[test]
fn after_the_hub_has_gone_a_new_greenlet_does_not_start() {
    alone(|| {
        between(
            || sleep(NOW),
            |()| {
                let dropped = Rc::new(Cell::new(0));
                let count = Rc::clone(&dropped);
                let notes = OnDrop(move || count.set(count.get() + 1));
                let late = Greenlet::new(move |()| {
                    let _notes = &notes;
                    unreachable!("started");
                });
                assert!(matches!(late.switch(()), Err(SwitchError::ThreadExiting { .. })));
                assert!(matches!(late.kill(), Err(SwitchError::CannotUnwind)));
                assert!(!late.is_started() && dropped.get() == 0);
                // Its function is dropped with it all the same.
                drop(late);
                assert_eq!(dropped.get(), 1);
                assert_eq!(greenlet::iter(|y| y.yield_(1)).next(), None::<i32>);
            },
        );
    });
}

#[test]
fn a_destructor_that_runs_on_a_stack_of_its_own_can_switch_to_nobody() {
    alone(|| {
        between(
            || {
                sleep(NOW);
                let main = greenlet::current::<()>();
                let switches = OnDrop(move || {
                    assert!(main.switch(()).is_err());
                    assert!(main.kill().is_err());
                    sleep(HOUR);
                });
                Greenlet::new(move |()| {
                    let _switches = &switches;
                })
            },
            drop,
        );
    });
}

// The process.

/// What a child prints that runs `body` and exits.
fn ends_in_order(name: &str, body: impl FnOnce(Value)) {
    if child::is_child() {
        body(tells_if_outlived());
        std::process::exit(0);
    }
    guarded({
        let name = name.to_owned();
        move || {
            let output = child::run_in(file!(), &name);
            let text = child::text_of(&output);
            assert!(output.status.success() && text.contains("in order"), "{text}");
        }
    });
}

#[test]
fn a_process_that_exits_in_a_green_thread_unwinds_nothing() {
    ends_in_order("a_process_that_exits_in_a_green_thread_unwinds_nothing", |value| {
        let inside = inside(value);
        hub::schedule_call_global(HOUR, move || drop(inside));
        spawn(|| std::process::exit(0)).wait();
    });
}

#[test]
fn a_process_that_exits_on_its_main_greenlet_unwinds_nothing() {
    ends_in_order("a_process_that_exits_on_its_main_greenlet_unwinds_nothing", |value| {
        let inside = inside(value);
        hub::set_error_hook(move |_| {
            let _captured = &inside;
        });
    });
}

#[test]
fn a_process_that_exits_in_a_greenlet_does_not_kill_that_one() {
    thread_local!(static KEPT: RefCell<Option<Greenlet>> = const { RefCell::new(None) });
    ends_in_order("a_process_that_exits_in_a_greenlet_does_not_kill_that_one", |_| {
        KEPT.with(|_| ());
        let exits = Greenlet::new(|()| std::process::exit(0));
        let child = Greenlet::builder().parent(&exits).build(|()| ()).unwrap();
        // Its only handle goes with a function that never runs.
        KEPT.set(Some(Greenlet::new(move |()| drop(exits))));
        child.switch(()).unwrap();
    });
}

#[test]
fn a_process_that_exits_in_a_generator_does_not_kill_that_one() {
    type Kept = Rc<RefCell<greenlet::Iter<u8>>>;
    thread_local!(static KEPT: RefCell<Option<Greenlet>> = const { RefCell::new(None) });
    thread_local!(static ITEMS: RefCell<Option<Kept>> = const { RefCell::new(None) });
    ends_in_order("a_process_that_exits_in_a_generator_does_not_kill_that_one", |_| {
        KEPT.with(|_| ());
        ITEMS.with(|_| ());
        let items: Kept = Rc::new(RefCell::new(greenlet::iter(|_| std::process::exit(0))));
        let captured = Rc::clone(&items);
        KEPT.set(Some(Greenlet::new(move |()| drop(captured))));
        ITEMS.set(Some(items));
        ITEMS.with(|items| items.borrow().as_ref().unwrap().borrow_mut().next());
    });
}

#[test]
fn a_process_that_exits_in_a_call_unwinds_nothing() {
    ends_in_order("a_process_that_exits_in_a_call_unwinds_nothing", |value| {
        let inside = inside(value);
        hub::schedule_call_global(HOUR, move || drop(inside));
        hub::schedule_call_global(NOW, || std::process::exit(0));
        sleep(HOUR);
    });
}
