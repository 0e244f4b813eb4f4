//! Blocking detection: who holds the hub for too long is reported while it does, and once.

mod util;

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use stolon::debug::{self, Blocked, hub_blocking_detection};
use stolon::greenthread::Builder;
use stolon::{greenlet, hub, sleep, spawn};
use util::leak::guarded;
use util::server::is_emulated;
use util::sockets::pair;

const NOW: Duration = Duration::ZERO;

/// An emulator is slow to find names.
fn limit() -> Duration {
    Duration::from_millis(if is_emulated() { 500 } else { 100 })
}

/// Computes for as long, without letting anybody run.
#[inline(never)]
fn hog(time: Duration) {
    let start = Instant::now();
    while black_box(start.elapsed()) < time {}
    // So that the frame is there.
    black_box(time);
}

/// A detection, whose reports may be received. Under load anybody may hold the hub for too long: so
/// each test looks at those that it knows by name.
struct Detection(Receiver<(Blocked, Instant)>);

impl Detection {
    fn start() -> Self {
        let (sender, reports) = mpsc::channel();
        debug::set_blocking_hook(move |blocked| {
            // It may come when a test has failed.
            let _ = sender.send((blocked.clone(), Instant::now()));
        });
        hub_blocking_detection(Some(limit())).unwrap();
        Self(reports)
    }

    /// Waits for the next report of `name`, and says when it came, too.
    fn of(&self, name: Option<&str>) -> (Blocked, Instant) {
        self.0.iter().find(|(blocked, _)| blocked.name() == name).unwrap()
    }

    /// Ends it, and returns how many more reports there are of `name`.
    fn end(self, name: Option<&str>) -> usize {
        hub_blocking_detection(None).unwrap();
        assert!(debug::take_blocking_hook());
        // Until all who report have let go of the hook, too.
        self.0.iter().filter(|(blocked, _)| blocked.name() == name).count()
    }
}

fn named(name: &str) -> Builder {
    Builder::new().name(name)
}

// HB-15: a green thread that blocks natively for 0.5 s is reported by a detector of 0.1 s.
#[test]
fn who_holds_the_hub_is_reported_once_and_while_it_does() {
    guarded(|| {
        let detection = Detection::start();
        let line = line!() + 1;
        let stuck = named("stuck").spawn(|| hog(5 * limit())).unwrap();
        stuck.join().unwrap();
        let over = Instant::now();
        let (blocked, told) = detection.of(Some("stuck"));
        assert!(told < over, "{:?} too late", told - over);
        let place = blocked.made_at().unwrap();
        assert_eq!((place.file(), place.line()), (file!(), line));
        assert!(blocked.held() >= limit(), "{:?}", blocked.held());
        let text = blocked.to_string();
        let backtrace = blocked.backtrace().unwrap();
        assert!(
            text.starts_with("greenlet 'stuck' (#2), made at tests/debug_blocking.rs:"),
            "{text}"
        );
        assert!(backtrace.contains("debug_blocking::hog"), "{text}");
        assert!(backtrace.contains("stolon_0_1_start"), "{text}");
        assert!(!backtrace.contains("retrace") && !backtrace.contains("watchdog"), "{text}");
        assert_eq!(detection.end(Some("stuck")), 0);
    });
}

#[test]
fn who_blocks_in_the_kernel_is_reported_too() {
    guarded(|| {
        let detection = Detection::start();
        named("sleepy").spawn(|| thread::sleep(3 * limit())).unwrap().join().unwrap();
        let (blocked, _) = detection.of(Some("sleepy"));
        assert!(blocked.backtrace().unwrap().contains("sleep"), "{blocked}");
        assert_eq!(detection.end(Some("sleepy")), 0);
    });
}

#[test]
fn the_main_greenlet_is_reported_as_well() {
    guarded(|| {
        let detection = Detection::start();
        hog(3 * limit());
        let (blocked, _) = detection.of(None);
        assert_eq!((blocked.id(), blocked.made_at()), (Some(0), None));
        let text = blocked.to_string();
        assert!(text.starts_with("the main greenlet has held the hub of thread 'the_"), "{text}");
        assert!(text.contains("debug_blocking::hog"), "{text}");
        detection.end(None);
    });
}

#[test]
fn a_second_hold_is_another_report() {
    guarded(|| {
        let detection = Detection::start();
        let twice = named("twice").spawn(|| {
            hog(3 * limit());
            sleep(NOW);
            hog(3 * limit());
        });
        twice.unwrap().join().unwrap();
        assert_eq!(detection.end(Some("twice")), 2);
    });
}

#[test]
fn who_lets_others_run_is_not_reported_nor_is_a_hub_that_waits() {
    guarded(|| {
        // On a machine that is busy with something else it may take some tries.
        let is_quiet = || {
            let detection = Detection::start();
            let polite = || {
                for _ in 0..30 {
                    hog(limit() / 20);
                    sleep(NOW);
                }
            };
            named("polite").spawn(polite).unwrap().join().unwrap();
            named("idle").spawn(|| sleep(3 * limit())).unwrap().join().unwrap();
            hub_blocking_detection(None).unwrap();
            assert!(debug::take_blocking_hook());
            detection.0.iter().count() == 0
        };
        assert!((0..10).any(|_| is_quiet()), "somebody is reported each time");
    });
}

#[test]
fn a_generator_in_a_green_thread_is_named_itself() {
    guarded(|| {
        let detection = Detection::start();
        let green = spawn(|| {
            let inner = greenlet::Greenlet::builder().name("inner");
            inner.build(|()| hog(3 * limit())).unwrap().switch(()).unwrap();
        });
        green.join().unwrap();
        assert_eq!(detection.end(Some("inner")), 1);
    });
}

#[test]
fn a_call_on_the_hubs_loop_is_a_turn_of_its_own() {
    guarded(|| {
        let detection = Detection::start();
        let call = hub::schedule_call_global(NOW, || hog(3 * limit()));
        sleep(Duration::from_millis(1));
        assert!(!call.is_pending());
        let (blocked, _) = detection.of(Some("mainloop"));
        assert!(blocked.backtrace().unwrap().contains("debug_blocking::hog"), "{blocked}");
        assert_eq!(detection.end(Some("mainloop")), 0);
    });
}

#[test]
fn a_hook_that_panics_keeps_nobody_from_being_reported() {
    guarded(|| {
        let (sender, reports) = mpsc::channel();
        debug::set_blocking_hook(move |blocked| {
            sender.send(blocked.name().map(str::to_owned)).unwrap();
            panic!("a hook's");
        });
        hub_blocking_detection(Some(limit())).unwrap();
        for name in ["first", "second"] {
            named(name).spawn(|| hog(3 * limit())).unwrap().join().unwrap();
            assert!(reports.iter().any(|reported| reported.as_deref() == Some(name)));
        }
        hub_blocking_detection(None).unwrap();
        named("third").spawn(|| hog(3 * limit())).unwrap().join().unwrap();
        debug::take_blocking_hook();
        assert!(reports.iter().all(|reported| reported.as_deref() != Some("third")));
    });
}

#[test]
fn no_more_than_sixteen_reports_are_under_way_at_once() {
    guarded(|| {
        let (sender, reports) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        debug::set_blocking_hook(move |_| {
            sender.send(()).unwrap();
            // Until there is nobody to release it.
            let _ = gate.lock().unwrap().recv();
        });
        hub_blocking_detection(Some(limit() / 10)).unwrap();
        let hold = || {
            hog(limit() / 5);
            sleep(NOW);
        };
        let mut under_way = 0;
        while under_way < 16 {
            hold();
            under_way += reports.try_iter().count();
        }
        (0..5).for_each(|_| hold());
        assert_eq!(under_way + reports.try_iter().count(), 16);
        drop(release);
        while reports.try_iter().count() == 0 {
            hold();
        }
        hub_blocking_detection(None).unwrap();
        debug::take_blocking_hook();
        reports.iter().for_each(drop);
    });
}

#[test]
fn a_thread_may_end_while_it_is_watched() {
    guarded(|| {
        for _ in 0..20 {
            let watched = thread::spawn(|| {
                hub_blocking_detection(Some(limit())).unwrap();
                spawn(|| sleep(NOW)).join().unwrap();
            });
            watched.join().unwrap();
        }
    });
}

// Counts.

#[test]
fn the_same_turns_are_counted_whether_detection_is_on_or_off() {
    guarded(|| {
        let turns = |count| {
            let before = hub::stats();
            let yields = || spawn(move || (0..count).for_each(|_| sleep(NOW)));
            let both = [yields(), yields()];
            both.into_iter().for_each(|thread| thread.join().unwrap());
            hub::stats().switches - before.switches
        };
        let off = turns(1000);
        // Each starts once, and yields a thousand times; main waits.
        assert!((2002..2010).contains(&off), "{off}");
        hub_blocking_detection(Some(limit())).unwrap();
        let on = turns(1000);
        hub_blocking_detection(None).unwrap();
        assert!((2002..2010).contains(&on), "{on}");
        assert_eq!(turns(1000), off);
    });
}

#[test]
fn who_is_ready_and_parked_is_counted_and_what_they_wait_for() {
    guarded(|| {
        let (near, far) = pair();
        let reader = spawn(move || (&far).read(&mut [0; 8]).unwrap());
        let sleepers: Vec<_> = (0..3).map(|_| spawn(|| sleep(20 * limit()))).collect();
        sleep(NOW);
        let _ready = spawn(|| ());
        let stats = hub::stats();
        assert_eq!((stats.ready, stats.parked), (1, 4));
        assert_eq!((stats.descriptors, stats.timers), (1, 3));
        let before = stats.polls;
        (&near).write_all(b"byte").unwrap();
        assert_eq!(reader.wait(), 4);
        assert!(hub::stats().polls > before);
        sleepers.iter().for_each(|sleeper| sleeper.kill());
        let stats = hub::stats();
        assert_eq!((stats.ready, stats.parked, stats.timers), (0, 0, 0));
    });
}

#[test]
fn what_a_hog_costs_others_is_the_lag() {
    guarded(|| {
        let beat = spawn(|| sleep(limit() / 10));
        sleep(NOW);
        assert_eq!(hub::stats().timer_passes, 0);
        hog(2 * limit());
        beat.join().unwrap();
        let stats = hub::stats();
        assert_eq!((stats.timer_passes, stats.timers_late), (1, 1));
        assert!(stats.lag_max >= limit(), "{stats:?}");
        assert_eq!((stats.lag_last, stats.lag_mean), (stats.lag_max, stats.lag_max));
    });
}
