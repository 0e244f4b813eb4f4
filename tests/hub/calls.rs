//! What runs in a scheduled call: it may do what a function may, but block; and whatever it does, the
//! hub goes on. On a simulated clock, unless the test says otherwise.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::util::leak::{guarded, simulated};
use crate::util::on_drop::OnDrop;
use stolon::green::net::MemoryStream;
use stolon::greenlet::{self, Greenlet, GreenletExit};
use stolon::hub::{self, schedule_call_global, schedule_call_local};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

const MAINLOOP_ERROR: &str = "do not call blocking functions from the mainloop";

/// What happened, in order.
type Log = Rc<RefCell<Vec<String>>>;

fn note(log: &Log, text: impl Into<String>) {
    log.borrow_mut().push(text.into());
}

/// Has what goes wrong in calls written into the log, which is returned.
fn hooked() -> Log {
    let log = Log::default();
    let in_hook = Rc::clone(&log);
    hub::set_error_hook(move |panic| {
        let text = panic.payload().downcast_ref::<&str>().map_or("something", |text| *text);
        note(&in_hook, text);
    });
    log
}

/// Runs `f` in a call, and returns what it came to.
fn in_call<R: 'static>(f: impl FnOnce() -> R + 'static) -> thread::Result<R> {
    let result = Rc::new(Cell::new(None));
    let to_set = Rc::clone(&result);
    schedule_call_global(NOW, move || to_set.set(Some(catch_unwind(AssertUnwindSafe(f)))));
    sleep(MS);
    result.take().expect("it was called")
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map_or_else(|| payload.downcast_ref::<&str>().expect("a text"), String::as_str)
}

// Panics.

// HB-05, D14, corner 11.
#[test]
fn a_call_that_panics_shortens_no_sleep_and_stops_no_later_call() {
    simulated(|| {
        let log = Log::default();
        let start = hub::now();
        let [same_pass, later] = [Rc::clone(&log), Rc::clone(&log)];
        schedule_call_global(MS, || panic!("on purpose"));
        schedule_call_global(MS, move || note(&same_pass, "same pass"));
        schedule_call_global(2 * MS, || panic!("again"));
        schedule_call_global(3 * MS, move || note(&later, "later"));
        sleep(10 * MS);
        assert_eq!(hub::now() - start, 10 * MS);
        assert_eq!(*log.borrow(), ["same pass", "later"]);
    });
}

#[test]
fn the_hook_is_told_of_each_panic_once_with_its_payload_and_the_place() {
    simulated(|| {
        let told: Rc<RefCell<Vec<(String, u32)>>> = Rc::default();
        let in_hook = Rc::clone(&told);
        hub::set_error_hook(move |panic| {
            assert!(panic.scheduled_at().file().ends_with("hub/calls.rs"));
            in_hook.borrow_mut().push((panic.to_string(), panic.scheduled_at().line()));
        });
        let first_line = line!() + 1;
        schedule_call_global(MS, || panic!("a text"));
        schedule_call_local(MS, || panic!("number {}", 2));
        schedule_call_global(MS, || panic_any(3));
        sleep(2 * MS);
        let told = told.take();
        assert!(told[0].0.ends_with(" has panicked: a text"), "{told:?}");
        assert!(told[1].0.ends_with(" has panicked: number 2"), "{told:?}");
        assert!(told[2].0.ends_with(" has panicked"), "{told:?}");
        assert!(told.iter().map(|(_, line)| *line).eq(first_line..first_line + 3), "{told:?}");
    });
}

#[test]
fn a_hook_may_panic_block_schedule_and_replace_itself_and_the_loop_goes_on() {
    simulated(|| {
        let log = Log::default();
        let in_hook = Rc::clone(&log);
        hub::set_error_hook(move |_| {
            note(&in_hook, "told");
            let in_call = Rc::clone(&in_hook);
            schedule_call_global(NOW, move || note(&in_call, "scheduled by the hook"));
            // It is the last to refer to itself from here on.
            hub::clear_error_hook();
            sleep(MS);
        });
        schedule_call_global(MS, || panic!("on purpose"));
        schedule_call_global(MS, || panic!("nobody is told any more"));
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["told", "scheduled by the hook"]);
        assert_eq!(Rc::strong_count(&log), 1);
    });
}

#[test]
fn a_payload_that_panics_when_it_is_dropped_stops_nobody() {
    simulated(|| {
        let payload = || OnDrop(|| panic!("in the payload's destructor"));
        schedule_call_global(MS, move || panic_any(payload()));
        assert!(in_call(|| ()).is_ok());
        sleep(MS);
        assert!(in_call(|| ()).is_ok());
    });
}

// Corner 11.
#[test]
fn an_exit_that_a_call_raises_is_told_like_any_panic_and_the_loop_goes_on() {
    simulated(|| {
        let told = Rc::new(Cell::new(0));
        let in_hook = Rc::clone(&told);
        hub::set_error_hook(move |panic| {
            assert!(panic.payload().is::<GreenletExit>());
            in_hook.set(in_hook.get() + 1);
        });
        let killed = Rc::new(spawn(|| sleep(HOUR)));
        sleep(NOW);
        killed.kill();
        // It raises what the green thread ended with.
        schedule_call_global(MS, move || killed.wait());
        schedule_call_global(MS, || resume_unwind(Box::new(GreenletExit)));
        // The loop is not to be killed in a call.
        schedule_call_global(MS, || drop(greenlet::current::<()>().kill()));
        // Main waits for a value meanwhile that has nothing to do with the hub.
        let main = greenlet::current::<i32>();
        let sleeper = Greenlet::new(move |n: i32| {
            sleep(2 * MS);
            main.switch(n + 1).unwrap()
        });
        assert_eq!(sleeper.switch(1).unwrap(), 2);
        assert_eq!(told.get(), 3);
        drop(sleeper);
    });
}

// Blocking: corner 12.

// HB-17.
#[test]
fn in_a_call_sleeping_for_no_time_returns_at_once() {
    simulated(|| {
        let log = Log::default();
        let [in_green, of_call] = [Rc::clone(&log), Rc::clone(&log)];
        schedule_call_global(MS, move || {
            let in_green = Rc::clone(&in_green);
            spawn(move || note(&in_green, "green"));
            sleep(NOW);
            note(&of_call, "call");
        });
        sleep(2 * MS);
        assert_eq!(*log.borrow(), ["call", "green"]);
    });
}

// HB-17.
#[test]
fn in_a_call_all_that_blocks_is_an_error_that_names_the_mainloop() {
    simulated(|| {
        let (near, _far) = MemoryStream::pair();
        let (socket, _peer) = crate::util::sockets::unix_pair();
        let green = spawn(|| sleep(HOUR));
        let green = Rc::new(green);
        let waited_for = Rc::clone(&green);
        let blocking: [Box<dyn FnOnce()>; 4] = [
            Box::new(|| sleep(MS)),
            Box::new(move || waited_for.wait()),
            Box::new(move || drop((&near).read(&mut [0]))),
            Box::new(move || drop((&socket).read(&mut [0]))),
        ];
        for block in blocking {
            let payload = in_call(block).unwrap_err();
            assert_eq!(message(&*payload), MAINLOOP_ERROR);
        }
        // What need not wait does not.
        let (near, mut far) = MemoryStream::pair();
        (&near).write_all(b"byte").unwrap();
        assert_eq!(in_call(move || far.read(&mut [0; 8]).unwrap()).unwrap(), 4);
        green.kill();
    });
}

#[test]
fn a_greenlet_that_a_call_switches_to_may_not_block_either() {
    simulated(|| {
        let ended = in_call(|| {
            let plain = Greenlet::new(|n| {
                sleep(NOW);
                let blocked = catch_unwind(|| sleep(MS)).unwrap_err();
                assert!(message(&*blocked).contains("mainloop"));
                let victim = spawn(|| ());
                assert!(catch_unwind(AssertUnwindSafe(|| victim.kill())).is_err());
                n + 1
            });
            plain.switch(1).unwrap()
        });
        assert_eq!(ended.unwrap(), 2);
        assert_eq!(spawn(|| 3).wait(), 3);
    });
}

#[test]
fn what_is_dropped_on_the_mainloop_may_wait_in_its_destructor() {
    simulated(|| {
        let log = Log::default();
        let waiting = |log: &Log| {
            let (main, log) = (greenlet::current::<()>(), Rc::clone(log));
            let waiting = Greenlet::new(move |()| {
                let _waits = OnDrop(|| {
                    note(&log, "destructor");
                    sleep(2 * MS);
                    note(&log, "has waited");
                });
                drop(main.switch(()));
            });
            waiting.switch(()).unwrap();
            waiting
        };
        // By a call, with its function, and by a hook that is replaced there.
        let (called, dropped, hooked) = (waiting(&log), waiting(&log), waiting(&log));
        let in_call = Rc::clone(&log);
        schedule_call_global(NOW, move || {
            drop(called);
            note(&in_call, "goes on");
        });
        let owner = spawn(|| schedule_call_local(5 * MS, move || drop(dropped))).join().unwrap();
        sleep(10 * MS);
        assert!(!owner.is_pending());
        hub::set_error_hook(move |_| {
            let _captured = &hooked;
        });
        schedule_call_global(NOW, hub::clear_error_hook);
        sleep(10 * MS);
        let order = ["destructor", "goes on", "has waited"];
        assert_eq!(log.borrow()[..3], order);
        assert_eq!(log.borrow()[3..], ["destructor", "has waited", "destructor", "has waited"]);
    });
}

#[test]
fn the_last_handle_that_the_queue_has_is_dropped_like_any_other() {
    guarded(|| {
        let main = greenlet::current::<()>();
        let slot = Rc::new(RefCell::new(None::<Greenlet>));
        let has_waited = Rc::new(Cell::new(false));
        let (taken, noted, to_main) = (Rc::clone(&slot), Rc::clone(&has_waited), main.clone());
        let thrower = move || {
            let target: Greenlet = taken.take().unwrap();
            drop(target.throw(Box::new("out of the queue")));
        };
        let builder = stolon::greenthread::Builder::new().name("thrower");
        let _thrower = builder.spawn(thrower).unwrap();
        let stale = Greenlet::new(move |()| {
            let _waits = OnDrop(|| {
                sleep(MS);
                noted.set(true);
            });
            // Stands in the queue, and is thrown out of it.
            let _ = catch_unwind(AssertUnwindSafe(|| sleep(NOW)));
            to_main.switch(()).unwrap();
        });
        *slot.borrow_mut() = Some(stale.clone());
        stale.switch(()).unwrap();
        // The other handles are the thrower's and the queue's.
        drop(stale);
        let all = greenlet::all();
        let thrower = all.into_iter().find(|greenlet| greenlet.name() == Some("thrower")).unwrap();
        spawn(move || main.switch(()));
        // It ends, and the mainloop finds the other in its queue.
        thrower.switch(()).unwrap();
        sleep(5 * MS);
        assert!(has_waited.get());
        // Who has switched to the main greenlet is still suspended.
        greenlet::killall();
    });
}

// What it may do.

#[test]
fn a_call_may_spawn_and_what_it_spawns_runs_after_the_pass() {
    simulated(|| {
        let log = Log::default();
        let [in_green, of_call] = [Rc::clone(&log), Rc::clone(&log)];
        schedule_call_global(MS, move || {
            spawn(move || {
                sleep(MS);
                note(&in_green, "green");
            });
        });
        schedule_call_global(MS, move || note(&of_call, "same pass"));
        sleep(3 * MS);
        assert_eq!(*log.borrow(), ["same pass", "green"]);
    });
}

// Corner 7: from the hub there is no rescheduling.
#[test]
fn a_call_may_kill_and_goes_on_when_the_victim_has_ended_or_waits() {
    simulated(|| {
        let log = Log::default();
        let victim = |name: &'static str, waits: bool| {
            let log = Rc::clone(&log);
            Rc::new(spawn(move || {
                let _ends = OnDrop(|| {
                    if waits {
                        sleep(MS);
                    }
                    note(&log, name);
                });
                sleep(HOUR);
            }))
        };
        let (ends, waits) = (victim("ends", false), victim("has waited", true));
        sleep(NOW);
        let victims = [&ends, &waits].map(Rc::clone);
        let of_call = Rc::clone(&log);
        schedule_call_global(MS, move || {
            let unstarted = spawn(|| unreachable!());
            unstarted.kill();
            victims.iter().for_each(|victim| victim.kill());
            assert!(unstarted.is_dead() && victims[0].is_dead() && !victims[1].is_dead());
            note(&of_call, "call");
            // On the loop as before: blocking is an error.
            let blocked = catch_unwind(|| sleep(MS)).unwrap_err();
            assert_eq!(message(&*blocked), MAINLOOP_ERROR);
            note(&of_call, "blocked");
        });
        sleep(10 * MS);
        assert_eq!(*log.borrow(), ["ends", "call", "blocked", "has waited"]);
        for victim in [ends, waits] {
            let victim = Rc::into_inner(victim).expect("the call has dropped its own");
            assert!(victim.join().unwrap_err().is::<GreenletExit>());
        }
    });
}

#[test]
fn a_call_may_switch_to_a_greenlet_that_switches_back() {
    simulated(|| {
        let generator = |range: std::ops::Range<u32>| {
            greenlet::iter(move |y| {
                range.for_each(|n| y.yield_(n));
            })
        };
        assert_eq!(in_call(move || generator(0..4).sum::<u32>()).unwrap(), 6);
    });
}

#[test]
fn what_a_call_holds_may_schedule_cancel_and_panic_as_it_is_dropped() {
    simulated(|| {
        let log = hooked();
        let count = Rc::new(Cell::new(0));
        let other = schedule_call_global(HOUR, || unreachable!());
        let in_drop = Rc::clone(&count);
        let holds = OnDrop(move || {
            assert!(other.cancel());
            let in_call = Rc::clone(&in_drop);
            schedule_call_global(MS, move || in_call.set(in_call.get() + 1));
        });
        // By a cancelling,
        let cancelled = schedule_call_global(HOUR, move || drop(holds));
        assert!(cancelled.cancel() && !cancelled.is_pending());
        // by its call,
        let in_drop = Rc::clone(&count);
        let holds = OnDrop(move || in_drop.set(in_drop.get() + 10));
        schedule_call_global(MS, move || drop(holds));
        // and because its greenlet is dead; that one's panic is told, too.
        spawn(|| {
            let holds = OnDrop(|| panic!("in a destructor"));
            schedule_call_local(MS, move || drop(holds));
        });
        sleep(2 * MS);
        assert_eq!(count.get(), 11);
        assert_eq!(*log.borrow(), ["in a destructor"]);
        hub::clear_error_hook();
    });
}

// Ends.

// HB-20.
#[test]
fn abort_returns_though_a_far_call_is_pending_and_a_later_sleep_starts_the_loop_again() {
    simulated(|| {
        let dropped = Rc::new(Cell::new(false));
        let in_drop = Rc::clone(&dropped);
        let holds = OnDrop(move || in_drop.set(true));
        let far = schedule_call_global(HOUR, move || drop(holds));
        let mainloop = spawn(|| greenlet::current::<()>().parent::<()>().unwrap()).join().unwrap();
        let sleeper = spawn(|| sleep(MS));
        sleep(NOW);
        let stacks = stolon::stack::stack_counts().in_use;
        assert_eq!(hub::abort(), 1);
        assert!(mainloop.is_dead() && dropped.get() && !far.is_pending());
        assert_eq!(stolon::stack::stack_counts().in_use, stacks - 1);
        let start = hub::now();
        sleep(2 * MS);
        assert_eq!(hub::now() - start, 2 * MS);
        assert!(sleeper.is_dead(), "who slept is none of its business");
        // From a green thread, and in a call.
        let aborted = spawn(|| {
            schedule_call_global(HOUR, || unreachable!());
            let aborted = hub::abort();
            sleep(MS);
            aborted
        });
        assert_eq!(aborted.wait(), 1);
        schedule_call_global(2 * MS, || unreachable!());
        assert_eq!(in_call(hub::abort).unwrap(), 1);
        assert_eq!(hub::abort(), 0);
    });
}

// On a real hub.
#[test]
fn abort_in_what_a_call_kills_leaves_the_loop_to_the_call() {
    guarded(|| {
        let victim = spawn(|| {
            // As good as any destructor, but nobody unwinds any more.
            let exit = catch_unwind(|| sleep(HOUR)).unwrap_err();
            (exit.is::<GreenletExit>(), hub::abort())
        });
        let (victim, goes_on) = (Rc::new(victim), Rc::new(Cell::new(false)));
        sleep(NOW);
        let (killed, goes) = (Rc::clone(&victim), Rc::clone(&goes_on));
        schedule_call_global(NOW, move || {
            killed.kill();
            goes.set(true);
        });
        schedule_call_global(HOUR, || unreachable!());
        assert_eq!(victim.wait(), (true, 1));
        assert!(goes_on.get());
    });
}

#[test]
fn when_its_thread_exits_a_call_is_dropped_and_not_called() {
    guarded(|| {
        let dropped = Arc::new(AtomicU32::new(0));
        let in_thread = Arc::clone(&dropped);
        thread::spawn(move || {
            for n in 0..3 {
                let dropped = Arc::clone(&in_thread);
                let holds = OnDrop(move || {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    // Nothing comes of that any more.
                    assert!(!schedule_call_global(NOW, || unreachable!()).is_pending());
                    assert!(n > 0, "which nobody minds");
                });
                schedule_call_global(HOUR, move || drop(holds));
            }
        })
        .join()
        .unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn in_late_destructors_of_a_thread_scheduling_does_nothing() {
    struct Late(Arc<AtomicBool>);
    impl Drop for Late {
        fn drop(&mut self) {
            let global = schedule_call_global(NOW, || unreachable!());
            let local = schedule_call_local(NOW, || unreachable!());
            let pending = [global, local].iter().any(|timer| timer.is_pending() || timer.cancel());
            self.0.store(!pending && hub::abort() == 0, Ordering::Relaxed);
        }
    }
    thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });
    guarded(|| {
        let went_well = Arc::new(AtomicBool::new(false));
        let in_thread = Arc::clone(&went_well);
        thread::spawn(move || {
            // Before the hub, so that it outlives it.
            LATE.set(Some(Late(in_thread)));
            sleep(NOW);
        })
        .join()
        .unwrap();
        assert!(went_well.load(Ordering::Relaxed));
    });
}

// HB-13, corner 12.
#[test]
fn a_loop_that_died_is_replaced_and_its_calls_and_green_threads_go_on_in_the_new_one() {
    simulated(|| {
        let parent = || spawn(|| greenlet::current::<()>().parent::<()>().unwrap()).join().unwrap();
        let old = parent();
        let log = Log::default();
        let [of_call, in_green] = [Rc::clone(&log), Rc::clone(&log)];
        schedule_call_global(MS, move || note(&of_call, "call"));
        let cell: Rc<RefCell<Option<Greenlet>>> = Rc::default();
        let to_set = Rc::clone(&cell);
        let green = spawn(move || {
            *to_set.borrow_mut() = Some(greenlet::current());
            let _ends = OnDrop(|| note(&in_green, "green"));
            sleep(HOUR);
        });
        sleep(NOW);
        assert!(old.kill().is_err() && old.is_dead());
        // The killed one ends in the new loop, and this goes on by its own timer.
        green.kill();
        let start = hub::now();
        sleep(2 * MS);
        assert_eq!(hub::now() - start, 2 * MS);
        assert_eq!(*log.borrow(), ["green", "call"]);
        let new = parent();
        assert!(new != old && !new.is_dead() && old.parent::<()>() == Some(new));
        drop(cell.take());
    });
}

// HB-14.
#[test]
fn green_threads_that_wait_with_an_error_in_hand_see_nothing_of_each_others() {
    simulated(|| {
        let handler = |text: &'static str| {
            spawn(move || {
                let error = catch_unwind(|| panic_any(text)).unwrap_err();
                assert!(!thread::panicking());
                sleep(MS);
                assert!(!thread::panicking());
                let again = catch_unwind(AssertUnwindSafe(|| resume_unwind(error))).unwrap_err();
                *again.downcast::<&str>().unwrap()
            })
        };
        let handlers = ["a", "b"].map(handler);
        let none = spawn(|| {
            sleep(MS / 2);
            thread::panicking()
        });
        assert!(!none.wait());
        assert_eq!(handlers.each_ref().map(GreenThread::wait), ["a", "b"]);
    });
}
