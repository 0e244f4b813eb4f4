//! Blocking detection: who holds the hub for too long is reported while it does, and once.

mod util;

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use stolon::debug::{self, Blocked, hub_blocking_detection};
use stolon::greenthread::Builder;
use stolon::{greenlet, hub, sleep, spawn};
use util::leak::guarded;
use util::sockets::pair;

const NOW: Duration = Duration::ZERO;
const LIMIT: Duration = Duration::from_millis(100);

/// Computes for as long, without letting anybody run.
#[inline(never)]
fn hog(time: Duration) {
    let start = Instant::now();
    while black_box(start.elapsed()) < time {}
    // So that the frame is there.
    black_box(time);
}

/// Runs `body` with detection on, and returns what was reported that it did not receive itself.
fn detecting(body: impl FnOnce(&Receiver<(Blocked, Instant)>)) -> Vec<Blocked> {
    let (sender, reports) = mpsc::channel();
    debug::set_blocking_hook(move |blocked| {
        sender.send((blocked.clone(), Instant::now())).unwrap();
    });
    hub_blocking_detection(Some(LIMIT)).unwrap();
    body(&reports);
    hub_blocking_detection(None).unwrap();
    assert!(debug::take_blocking_hook());
    // Until the watchdog has let go of the hook, too.
    reports.iter().map(|(blocked, _)| blocked).collect()
}

// HB-15: a green thread that blocks natively for 0.5 s is reported by a detector of 0.1 s.
#[test]
fn who_holds_the_hub_is_reported_once_and_while_it_does() {
    guarded(|| {
        let reports = detecting(|reports| {
            let line = line!() + 1;
            let stuck = Builder::new().name("stuck").spawn(|| hog(5 * LIMIT)).unwrap();
            stuck.join().unwrap();
            let over = Instant::now();
            let (blocked, told) = reports.recv().unwrap();
            assert!(told < over, "{:?} too late", told - over);
            assert_eq!(blocked.name(), Some("stuck"));
            let place = blocked.made_at().unwrap();
            assert_eq!((place.file(), place.line()), (file!(), line));
            assert!(blocked.held() >= LIMIT, "{:?}", blocked.held());
            let text = blocked.to_string();
            let backtrace = blocked.backtrace().unwrap();
            assert!(backtrace.contains("debug_blocking::hog"), "{text}");
            assert!(backtrace.contains("stolon_0_1_start"), "{text}");
            assert!(!backtrace.contains("retrace") && !backtrace.contains("watchdog"), "{text}");
        });
        assert!(reports.is_empty(), "{reports:?}");
    });
}

#[test]
fn who_blocks_in_the_kernel_is_reported_too_and_main_as_well() {
    guarded(|| {
        let reports = detecting(|reports| {
            spawn(|| std::thread::sleep(3 * LIMIT)).join().unwrap();
            let (blocked, _) = reports.recv().unwrap();
            assert_eq!((blocked.name(), blocked.id()), (None, Some(2)));
            assert!(blocked.backtrace().unwrap().contains("sleep"), "{blocked}");
            hog(3 * LIMIT);
            let (blocked, _) = reports.recv().unwrap();
            assert_eq!((blocked.id(), blocked.made_at()), (Some(0), None));
            let text = blocked.to_string();
            assert!(
                text.starts_with("the main greenlet has held the hub of thread 'who_"),
                "{text}"
            );
            assert!(text.contains("debug_blocking::hog"), "{text}");
        });
        assert!(reports.is_empty(), "{reports:?}");
    });
}

#[test]
fn a_second_hold_is_another_report() {
    guarded(|| {
        let reports = detecting(|_| {
            let twice = spawn(|| {
                hog(3 * LIMIT);
                sleep(NOW);
                hog(3 * LIMIT);
            });
            twice.join().unwrap();
        });
        assert_eq!(reports.len(), 2, "{reports:?}");
        assert_eq!(reports[0].id(), reports[1].id());
    });
}

#[test]
fn who_lets_others_run_is_not_reported_nor_is_a_hub_that_waits() {
    guarded(|| {
        let reports = detecting(|_| {
            let polite = spawn(|| {
                for _ in 0..30 {
                    hog(LIMIT / 20);
                    sleep(NOW);
                }
            });
            polite.join().unwrap();
            sleep(3 * LIMIT);
        });
        assert!(reports.is_empty(), "{reports:?}");
    });
}

#[test]
fn a_generator_in_a_green_thread_is_named_itself() {
    guarded(|| {
        let reports = detecting(|_| {
            let green = spawn(|| {
                let inner = greenlet::Greenlet::builder().name("inner");
                inner.build(|()| hog(2 * LIMIT)).unwrap().switch(()).unwrap();
            });
            green.join().unwrap();
        });
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].name(), Some("inner"));
    });
}

#[test]
fn a_hook_that_panics_keeps_nobody_from_being_reported() {
    guarded(|| {
        let (sender, reports) = mpsc::channel();
        debug::set_blocking_hook(move |blocked| {
            sender.send(blocked.id()).unwrap();
            panic!("a hook's");
        });
        hub_blocking_detection(Some(LIMIT)).unwrap();
        for _ in 0..2 {
            spawn(|| hog(2 * LIMIT)).join().unwrap();
            assert!(reports.recv().unwrap().is_some());
        }
        hub_blocking_detection(None).unwrap();
        debug::take_blocking_hook();
        spawn(|| hog(2 * LIMIT)).join().unwrap();
        assert!(reports.recv().is_err(), "reported when it was off");
    });
}

#[test]
fn a_thread_may_end_while_it_is_watched() {
    guarded(|| {
        for _ in 0..20 {
            let watched = std::thread::spawn(|| {
                hub_blocking_detection(Some(Duration::from_micros(100))).unwrap();
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
        hub_blocking_detection(Some(LIMIT)).unwrap();
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
        let sleepers: Vec<_> = (0..3).map(|_| spawn(|| sleep(20 * LIMIT))).collect();
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
        let beat = spawn(|| sleep(LIMIT / 10));
        sleep(NOW);
        assert_eq!(hub::stats().timer_passes, 0);
        hog(2 * LIMIT);
        beat.join().unwrap();
        let stats = hub::stats();
        assert_eq!((stats.timer_passes, stats.timers_late), (1, 1));
        assert!(stats.lag_max >= LIMIT, "{stats:?}");
        assert_eq!((stats.lag_last, stats.lag_mean), (stats.lag_max, stats.lag_max));
    });
}
