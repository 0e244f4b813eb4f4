//! What happens around the end of a green thread: links, kills with a payload, what nobody waits for.

use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Log;
use crate::util::leak::guarded;
use stolon::greenlet::GreenletExit;
use stolon::greenthread::{Builder, getcurrent, kill, set_unhandled_hook};
use stolon::{GreenThread, sleep, spawn, spawn_n};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Notes when it is dropped.
struct Noted(Log, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

/// The payload that waiting ends with, which is a `T`.
fn payload_of<T: 'static, R: Clone + 'static>(green: &GreenThread<R>) -> T {
    let ended = catch_unwind(AssertUnwindSafe(|| green.wait()));
    let payload = ended.err().expect("it panics");
    *payload.downcast::<T>().unwrap_or_else(|_| panic!("another payload"))
}

fn was_killed<R: Clone + 'static>(green: &GreenThread<R>) -> bool {
    payload_of::<GreenletExit, R>(green) == GreenletExit
}

// Links.

// GT-08, corner 9.
#[test]
fn links_run_in_order_in_the_green_thread_before_who_waits_goes_on() {
    guarded(|| {
        let log = Log::default();
        let green = Rc::new(Builder::new().name("green").spawn(|| 42).unwrap());
        for name in ["one", "two"] {
            let log = log.clone();
            green.link(move |ended| {
                let here = getcurrent();
                assert!(!here.is_dead() && !ended.is_dead(), "it is not dead yet");
                log.note(format!("{name}:{}:{}", here.name().unwrap(), ended.wait()));
            });
        }
        let (waiter, waiting) = (log.clone(), Rc::clone(&green));
        let waiter = spawn(move || waiter.note(format!("waiter:{}", waiting.wait())));
        waiter.wait();
        assert_eq!(log.take(), "one:green:42 two:green:42 waiter:42");
        assert!(green.is_dead());
    });
}

#[test]
fn who_waits_is_told_when_links_that_block_are_done() {
    guarded(|| {
        let log = Log::default();
        let green = spawn(|| 1);
        let in_link = log.clone();
        green.link(move |ended| {
            sleep(MS);
            in_link.note(format!("link:{}", ended.wait()));
        });
        sleep(NOW);
        assert!(!green.is_dead());
        log.note(format!("waited:{}", green.wait()));
        assert_eq!(log.take(), "link:1 waited:1");
    });
}

// GT-09
#[test]
fn a_link_that_is_added_after_the_end_runs_at_once_in_the_adder() {
    guarded(|| {
        let log = Log::default();
        let green = spawn(|| 7);
        green.wait();
        let (adder, in_link) = (getcurrent(), log.clone());
        green.link(move |ended| {
            assert!(getcurrent() == adder);
            in_link.note(format!("link:{}", ended.wait()));
        });
        assert_eq!(log.take(), "link:7");
    });
}

// GT-09
#[test]
fn links_that_links_add_run_in_the_same_sweep_however_many() {
    guarded(|| {
        const MANY: u32 = 10_000;
        fn add(count: Rc<Cell<u32>>) -> impl FnOnce(&GreenThread<()>) {
            move |ended| {
                count.set(count.get() + 1);
                if count.get() < MANY {
                    ended.link(add(Rc::clone(&count)));
                }
            }
        }
        let (count, green) = (Rc::new(Cell::new(0)), spawn(|| ()));
        green.link(add(Rc::clone(&count)));
        let log = Log::default();
        let in_link = log.clone();
        green.link(move |_| in_link.note("second"));
        green.wait();
        assert_eq!((count.get(), log.take().as_str()), (MANY, "second"));
    });
}

// GT-10, corner 9.
#[test]
fn a_link_that_panics_is_reported_and_keeps_no_other_from_running() {
    guarded(|| {
        let reports = collect_unhandled();
        let log = Log::default();
        let green = spawn(|| "result");
        green.link(|_| panic!("a link"));
        green.link(|_| panic_any(GreenletExit));
        let in_link = log.clone();
        green.link(move |_| in_link.note("third"));
        assert_eq!(green.wait(), "result");
        assert_eq!(log.take(), "third");
        assert_eq!(reports.take(), ["None a link"]);
    });
}

#[test]
fn a_link_that_is_killed_while_it_blocks_keeps_no_other_from_running() {
    guarded(|| {
        let log = Log::default();
        let green = spawn(|| 3);
        let unwound = log.clone();
        green.link(move |_| {
            let _unwound = Noted(unwound, "unwound");
            sleep(HOUR);
        });
        let second = log.clone();
        green.link(move |_| second.note("second"));
        sleep(NOW);
        green.kill();
        assert_eq!(log.take(), "unwound second");
        assert_eq!(green.wait(), 3, "its result was there already");
    });
}

#[test]
fn what_is_unlinked_is_not_called_and_dropped() {
    guarded(|| {
        let log = Log::default();
        let green = spawn(|| ());
        let (called, held) = (log.clone(), Noted(log.clone(), "dropped"));
        let link = green.link(move |_| {
            let _held = held;
            called.note("called");
        });
        assert!(green.unlink(link));
        assert_eq!(log.take(), "dropped");
        assert!(!green.unlink(link));
        green.wait();
        assert_eq!(log.take(), "");
        let late = green.link(|_| ());
        assert!(!green.unlink(late), "it has been called");
    });
}

// Corner 6.
#[test]
fn links_of_one_that_is_killed_before_it_starts_run_within_the_kill() {
    guarded(|| {
        let log = Log::default();
        let green = spawn(|| ());
        let in_link = log.clone();
        green.link(move |ended| in_link.note(format!("killed:{}", was_killed(ended))));
        let ready = log.clone();
        spawn_n(move || ready.note("ready"));
        green.kill();
        log.note("killer");
        assert_eq!(log.take(), "killed:true ready killer");
    });
}

// Kills.

// GT-07
#[test]
fn a_payload_for_one_that_has_not_started_is_what_waiting_raises() {
    guarded(|| {
        let log = Log::default();
        let (held, ran) = (Noted(log.clone(), "dropped"), log.clone());
        let green = spawn(move || {
            let _held = held;
            ran.note("ran");
        });
        green.kill_with(Box::new(17u8));
        assert_eq!(log.take(), "dropped");
        assert_eq!(payload_of::<u8, _>(&green), 17);
    });
}

#[test]
fn a_payload_is_raised_where_the_victim_waits_and_where_it_is_waited_for() {
    guarded(|| {
        let log = Log::default();
        let in_victim = log.clone();
        let green = spawn(move || {
            let _unwound = Noted(in_victim.clone(), "unwound");
            let raised = catch_unwind(AssertUnwindSafe(|| sleep(HOUR))).unwrap_err();
            in_victim.note(format!("caught:{}", raised.downcast_ref::<u32>().unwrap()));
            std::panic::resume_unwind(raised);
        });
        sleep(NOW);
        let ready = log.clone();
        spawn_n(move || ready.note("ready"));
        green.kill_with(Box::new(5u32));
        log.note("killer");
        assert_eq!(log.take(), "caught:5 unwound ready killer");
        assert_eq!(payload_of::<u32, _>(&green), 5);
    });
}

// GT-13
#[test]
fn one_that_swallows_what_it_is_killed_with_ends_with_its_result() {
    guarded(|| {
        let stubborn = || {
            spawn(|| {
                let _ = catch_unwind(AssertUnwindSafe(|| sleep(HOUR)));
                "ret"
            })
        };
        let [killed, thrown] = [stubborn(), stubborn()];
        sleep(NOW);
        killed.kill();
        thrown.kill_with(Box::new(()));
        assert_eq!((killed.wait(), thrown.wait()), ("ret", "ret"));
    });
}

#[test]
fn a_payload_from_a_destructor_arrives_though_the_thread_unwinds() {
    guarded(|| {
        struct Kills(Rc<GreenThread<()>>);
        impl Drop for Kills {
            fn drop(&mut self) {
                // It cannot unwind before this thread's unwinding is over.
                self.0.kill_with(Box::new("from a destructor"));
            }
        }
        let victim = Rc::new(spawn(|| sleep(HOUR)));
        sleep(NOW);
        let kills = Kills(Rc::clone(&victim));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _kills = kills;
            panic!("unwinds");
        }));
        assert!(panicked.is_err());
        assert_eq!(payload_of::<&str, _>(&victim), "from a destructor");
    });
}

#[test]
fn a_payload_for_oneself_is_raised_at_once() {
    guarded(|| {
        let me = Rc::new(OnceCell::<GreenThread<()>>::new());
        let myself = Rc::clone(&me);
        let green = spawn(move || myself.get().unwrap().kill_with(Box::new('x')));
        assert!(me.set(green).is_ok());
        assert_eq!(payload_of::<char, _>(me.get().unwrap()), 'x');
    });
}

#[test]
fn a_payload_for_one_that_has_ended_is_dropped() {
    guarded(|| {
        let green = spawn(|| 1);
        green.wait();
        green.kill_with(Box::new("late"));
        assert_eq!(green.wait(), 1);
    });
}

#[test]
fn a_detached_one_is_killed_by_its_greenlet_and_the_killer_goes_on() {
    guarded(|| {
        let log = Log::default();
        let own = Rc::new(OnceCell::new());
        let (in_victim, myself) = (log.clone(), Rc::clone(&own));
        spawn_n(move || {
            let _unwound = Noted(in_victim, "unwound");
            myself.set(getcurrent()).unwrap();
            sleep(HOUR);
        });
        sleep(NOW);
        let victim = own.get().unwrap();
        kill(victim);
        log.note("killer");
        assert!(victim.is_dead());
        kill(victim);
        assert_eq!(log.take(), "unwound killer");
    });
}

// GT-06
#[test]
fn cancel_ends_one_that_has_not_started_and_leaves_others_alone() {
    guarded(|| {
        let pending = spawn(|| 22);
        assert!(pending.cancel());
        assert!(pending.is_dead() && was_killed(&pending));
        assert!(!pending.cancel());
        let started = spawn(|| {
            sleep(MS);
            22
        });
        sleep(NOW);
        assert!(!started.cancel());
        assert_eq!(started.wait(), 22);
    });
}

// What nobody waits for.

#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        // The hook has the other one.
        if Arc::strong_count(&self.0) == 2 {
            set_unhandled_hook(None);
        }
    }
}

/// Has names and messages collected from now on.
fn collect_unhandled() -> Reports {
    let reports = Reports::default();
    let to = Arc::clone(&reports.0);
    set_unhandled_hook(Some(Arc::new(move |unhandled| {
        let message = unhandled.message().unwrap_or("no text");
        let name = unhandled.name().map_or("None", |name| name);
        to.lock().unwrap().push(format!("{name} {message}"));
    })));
    reports
}

// GT-12
#[test]
fn waiting_raises_a_panic_each_time_and_the_hook_does_not_see_it() {
    guarded(|| {
        let reports = collect_unhandled();
        let green = spawn(|| panic!("seen"));
        assert_eq!(payload_of::<&str, ()>(&green), "seen");
        assert_eq!(payload_of::<&str, ()>(&green), "seen");
        drop(green);
        assert!(spawn(|| panic!("joined")).join().is_err());
        assert!(reports.take().is_empty());
    });
}

#[test]
fn the_hook_gets_each_panic_that_nobody_was_told_of_once() {
    guarded(|| {
        let reports = collect_unhandled();
        spawn_n(|| panic!("of spawn_n"));
        sleep(NOW);
        assert_eq!(reports.take(), ["None of spawn_n"]);

        let named = Builder::new().name("named").spawn(|| panic!("dropped {}", 1)).unwrap();
        sleep(NOW);
        assert!(reports.take().is_empty(), "somebody may still wait");
        drop::<GreenThread<()>>(named);
        assert_eq!(reports.take(), ["named dropped 1"]);

        drop(spawn(|| panic_any(1)));
        sleep(NOW);
        assert_eq!(reports.take(), ["None no text"]);

        let killed = spawn(|| sleep(HOUR));
        sleep(NOW);
        killed.kill();
        drop(killed);
        assert!(reports.take().is_empty(), "an exit is no panic");
    });
}

#[test]
fn a_hook_that_panics_or_sets_another_harms_nobody() {
    guarded(|| {
        set_unhandled_hook(Some(Arc::new(|_| {
            set_unhandled_hook(None);
            panic!("a hook");
        })));
        spawn_n(|| panic!("lost"));
        spawn_n(|| panic!("lost as well"));
        sleep(NOW);
        assert!(set_unhandled_hook(None).is_none());
        assert_eq!(spawn(|| 1).wait(), 1);
    });
}
