//! What greenlets do in destructors while they unwind is nobody else's trouble.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread::panicking;
use std::time::Duration;

use stolon::event::Event;
use stolon::green::net::MemoryStream;
use stolon::greenlet::{self, Greenlet, GreenletExit};
use stolon::timeout::{Timeout, with_timeout};
use stolon::{GreenThread, hub, sleep, spawn};

use crate::util::leak::{guarded, simulated};
use crate::util::on_drop::OnDrop;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A green thread that unwinds, by a kill, a timeout or a panic, and runs `destructor` meanwhile.
fn unwinding(how: usize, destructor: impl FnMut() + 'static) -> GreenThread<()> {
    let green = spawn(move || {
        let _runs = OnDrop(destructor);
        match how % 3 {
            0 => sleep(HOUR),
            1 => {
                let _raised = Timeout::new(MS);
                sleep(HOUR);
            }
            _ => resume_unwind(Box::new("a panic")),
        }
    });
    sleep(NOW);
    match how % 3 {
        0 => green.kill(),
        1 => sleep(MS),
        _ => {}
    }
    green
}

/// What a destructor may do for a minute or so.
fn destructor(what: usize) -> Box<dyn FnMut()> {
    match what % 6 {
        0 => Box::new(|| sleep(Duration::from_secs(60))),
        1 => Box::new(|| (0..1000).for_each(|_| sleep(NOW))),
        2 => Box::new(|| (0..1000).for_each(|_| sleep(MS))),
        // Unwinds once more in there.
        3 => Box::new(|| {
            let ended = catch_unwind(|| {
                let _waits = OnDrop(|| sleep(Duration::from_secs(30)));
                resume_unwind(Box::new("another"));
            });
            assert!(ended.is_err());
            sleep(Duration::from_secs(30));
        }),
        // Waits for another that unwinds.
        4 => Box::new(|| {
            let inner = spawn(|| {
                let _waits = OnDrop(|| sleep(Duration::from_secs(30)));
                sleep(HOUR);
            });
            sleep(MS);
            inner.kill();
            assert!(inner.join().is_err());
        }),
        // Drops a generator half way, which waits as it unwinds.
        _ => Box::new(|| {
            let mut items = greenlet::iter(|y| {
                let _waits = OnDrop(|| sleep(Duration::from_secs(30)));
                y.yield_(1);
            });
            items.next();
            drop(items);
            sleep(Duration::from_secs(30));
        }),
    }
}

#[test]
fn timeouts_and_kills_of_others_come_in_time_whatever_is_done_in_destructors() {
    for what in 0..6 {
        simulated(move || {
            let unwind = (0..6).map(|how| unwinding(how, destructor(what + how / 3)));
            let unwind: Vec<_> = unwind.collect();
            assert!(panicking());
            for _ in 0..20 {
                let start = hub::now();
                assert!(with_timeout(7 * MS, || sleep(HOUR)).is_err());
                assert_eq!(hub::now() - start, 7 * MS, "what {what}");
                let victim = spawn(|| sleep(HOUR));
                sleep(NOW);
                victim.kill();
                assert!(victim.is_dead());
            }
            for green in unwind {
                assert!(green.join().is_err());
            }
            assert!(!panicking());
        });
    }
}

#[test]
fn a_timeout_is_due_before_a_deadlock_is_reported() {
    simulated(|| {
        let never = Rc::new(Event::<()>::new());
        let stuck = unwinding(0, {
            let never = Rc::clone(&never);
            move || never.wait()
        });
        let told = Event::new();
        spawn({
            let told = told.clone();
            move || {
                assert!(with_timeout(MS, || sleep(HOUR)).is_err());
                told.send(()).unwrap();
            }
        });
        told.wait();
        never.send(()).unwrap();
        assert!(stuck.join().is_err());
    });
}

#[test]
fn a_greenlet_that_unwinds_beside_another_is_not_killed_before_its_destructor_has_ended() {
    simulated(|| {
        let first = unwinding(0, || sleep(20 * MS));
        let ended = Rc::new(Cell::new(false));
        let second = spawn({
            let ended = Rc::clone(&ended);
            move || {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    let _waits = OnDrop(|| {
                        sleep(5 * MS);
                        ended.set(true);
                    });
                    resume_unwind(Box::new("its own"));
                }));
                assert!(caught.unwrap_err().is::<&str>());
                sleep(HOUR);
                unreachable!("it was killed");
            }
        });
        sleep(MS);
        second.kill();
        assert!(!second.is_dead() && !ended.get());
        assert!(second.join().unwrap_err().is::<GreenletExit>());
        assert!(ended.get() && !first.is_dead());
        assert!(first.join().is_err());
    });
}

#[test]
fn a_greenlet_that_is_dropped_while_another_unwinds_unwinds_as_well() {
    simulated(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let green = spawn({
            let log = Rc::clone(&log);
            move || {
                let main = greenlet::current::<()>();
                let waits = Greenlet::new(move |()| {
                    let _notes = OnDrop(|| log.borrow_mut().push("unwound"));
                    drop(main.switch(()));
                    log.borrow_mut().push("went on");
                });
                waits.switch(()).unwrap();
                // Dropped in its turn, while this one unwinds.
                let _waits = waits;
                sleep(HOUR);
            }
        });
        sleep(NOW);
        green.kill();
        assert!(green.join().is_err());
        assert_eq!(*log.borrow(), ["unwound"]);
    });
}

#[test]
fn a_payload_reaches_a_green_thread_though_another_unwinds() {
    simulated(|| {
        let unwinds = unwinding(0, || sleep(HOUR));
        let victim = spawn(|| {
            let raised = catch_unwind(|| sleep(HOUR)).unwrap_err();
            *raised.downcast::<i32>().unwrap()
        });
        sleep(NOW);
        victim.kill_with(Box::new(7));
        assert_eq!(victim.join().unwrap(), 7);
        assert!(unwinds.join().is_err());
    });
}

#[test]
fn destructors_of_what_is_killed_wait_a_second_at_most_for_their_peers() {
    simulated(|| {
        for how in 0..2 {
            let (near, _far) = MemoryStream::pair();
            let start = hub::now();
            let errors = Rc::new(RefCell::new(Vec::new()));
            let green = unwinding(how, {
                let errors = Rc::clone(&errors);
                move || {
                    let error = (&near).read(&mut [0]).unwrap_err();
                    errors.borrow_mut().push((error.kind(), hub::now() - start));
                }
            });
            assert!(green.join().is_err());
            let errors = errors.borrow();
            let [(kind, waited)] = errors[..] else { panic!("{errors:?}") };
            assert_eq!(kind, std::io::ErrorKind::TimedOut);
            assert!((1000 * MS..1010 * MS).contains(&waited), "{waited:?}");
        }
    });
}

#[test]
fn destructors_of_what_panics_wait_for_their_peers_and_so_does_what_has_caught_its_kill() {
    simulated(|| {
        for how in 0..2 {
            let (near, far) = MemoryStream::pair();
            let reads = move || (&near).read_exact(&mut [0]).unwrap();
            let green = match how {
                0 => unwinding(2, reads),
                _ => {
                    let green = spawn(move || {
                        assert!(catch_unwind(|| sleep(HOUR)).is_err());
                        reads();
                    });
                    sleep(NOW);
                    green.kill();
                    green
                }
            };
            sleep(Duration::from_secs(10));
            assert!(!green.is_dead());
            (&far).write_all(b"x").unwrap();
            assert_eq!(green.join().is_err(), how == 0);
        }
    });
}

#[test]
fn a_tracer_or_a_dump_makes_no_difference() {
    for look in ["trace", "dump"] {
        simulated(move || {
            if look == "trace" {
                greenlet::settrace(|_, _, _| ());
            }
            let done = Rc::new(Event::<()>::new());
            let waits = unwinding(2, {
                let done = Rc::clone(&done);
                move || done.wait()
            });
            spawn(move || {
                if look == "dump" {
                    assert!(stolon::debug::dump().is_ok());
                }
                let start = hub::now();
                assert!(with_timeout(10 * MS, || sleep(HOUR)).is_err());
                assert_eq!(hub::now() - start, 10 * MS, "{look}");
                done.send(()).unwrap();
            });
            assert!(waits.join().is_err());
            greenlet::cleartrace();
        });
    }
}

#[test]
fn a_generator_that_yields_in_its_own_destructor_is_not_killed_there() {
    simulated(|| {
        let other = unwinding(2, || sleep(100 * MS));
        let mut items = greenlet::iter(|y| {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _yields = OnDrop(|| y.yield_(1));
                resume_unwind(Box::new("its own"));
            }));
            assert!(caught.is_err());
            y.yield_(2);
            unreachable!("it was killed");
        });
        assert_eq!(items.next(), Some(1));
        drop(items);
        assert!(other.join().is_err());
    });
}

#[test]
fn one_that_was_left_by_hand_in_its_destructor_is_not_killed_there_when_the_other_ends() {
    simulated(|| {
        let main = greenlet::current::<()>();
        let by_hand = Greenlet::new(move |()| {
            drop(main.switch(()));
            resume_unwind(Box::new(GreenletExit));
        });
        by_hand.switch(()).unwrap();
        let green = spawn(move || {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _leaves = OnDrop(|| drop(by_hand.switch(())));
                resume_unwind(Box::new("its own"));
            }));
            assert!(caught.unwrap_err().is::<&str>());
        });
        // It ends in here, as a child of this one.
        sleep(MS);
        green.kill();
        sleep(MS);
        // Nobody switches back to it; a second kill finds it unwinding, and it goes on.
        assert!(green.is_dead() && !panicking());
    });
}

#[test]
fn killall_in_a_destructor_of_the_root_is_charged_to_nobody_else() {
    simulated(|| {
        let go = Rc::new(Event::<()>::new());
        let waits = Rc::clone(&go);
        spawn(move || {
            waits.wait();
            loop {
                sleep(MS);
            }
        });
        sleep(NOW);
        let root = greenlet::current::<()>();
        let to_root = root.clone();
        let child = Greenlet::new(move |()| drop(to_root.switch(())));
        child.switch(()).unwrap();
        let victim = Greenlet::new(move |()| {
            let _kills = OnDrop(|| {
                drop(child.kill());
                sleep(300 * MS);
            });
            drop(root.switch(()));
        });
        victim.switch(()).unwrap();
        sleep(MS);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            with_timeout(20 * MS, || {
                let _kills_all = OnDrop(|| {
                    go.send(()).unwrap();
                    greenlet::killall();
                });
                resume_unwind(Box::new("the root's"));
            })
        }));
        assert!(ended.unwrap_err().is::<&str>() && !panicking());
    });
}

#[test]
fn late_kills_are_not_lost_with_the_loop() {
    simulated(|| {
        let first = spawn(|| {
            assert!(catch_unwind(|| sleep(HOUR)).is_err());
            hub::abort();
        });
        let second = spawn(|| sleep(HOUR));
        let by_hand = spawn(|| {
            let _by_hand = OnDrop(|| {
                let me = greenlet::current::<()>();
                let back = Greenlet::new(move |()| {
                    sleep(NOW);
                    drop(me.switch(()));
                });
                back.switch(()).unwrap();
                sleep(20 * MS);
            });
            resume_unwind(Box::new("unwinds"));
        });
        sleep(5 * MS);
        first.kill();
        second.kill();
        assert!(by_hand.join().is_err());
        sleep(10 * MS);
        assert!(first.is_dead() && second.is_dead());
    });
}

/// Random programs: nobody's timeout is late, whoever unwinds.
#[test]
fn under_any_order_of_turns_timeouts_are_in_time() {
    fn random(state: &Cell<u64>, below: u64) -> u64 {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x % below
    }

    type Seen = (Duration, bool);
    static FAULTS: Mutex<Vec<(Seen, Seen)>> = Mutex::new(Vec::new());

    type Others = Rc<RefCell<Vec<Rc<GreenThread<()>>>>>;

    fn act(me: usize, state: &Cell<u64>, others: &Others, depth: u64, unwinds: bool) {
        for _ in 0..4 {
            let some = Duration::from_millis(random(state, 5));
            match random(state, 8) {
                0 => sleep(NOW),
                1 => sleep(some),
                2 | 3 => {
                    let start = hub::now();
                    let ended = with_timeout(some, || sleep(HOUR));
                    // It does not expire in a greenlet that unwinds itself.
                    let expected = (if unwinds { HOUR } else { some }, unwinds);
                    let seen = (hub::now() - start, ended.is_ok());
                    // Told outside: a panic in here would end in a green thread, or abort.
                    if seen != expected {
                        FAULTS.lock().unwrap().push((seen, expected));
                    }
                }
                4 if depth > 0 => {
                    let _ = with_timeout(some, || {
                        let _acts = OnDrop(|| act(me, state, others, depth - 1, true));
                        sleep(HOUR);
                    });
                }
                5 if depth > 0 => {
                    let ended = catch_unwind(AssertUnwindSafe(|| {
                        let _acts = OnDrop(|| act(me, state, others, depth - 1, true));
                        resume_unwind(Box::new("a panic"));
                    }));
                    // Or a kill, if that came last.
                    assert!(ended.is_err());
                }
                6 => {
                    let victim = random(state, 12) as usize;
                    let victim = others.borrow().get(victim).filter(|_| victim != me).cloned();
                    if let Some(victim) = victim {
                        victim.kill();
                    }
                }
                _ => {}
            }
        }
    }

    guarded(|| {
        for seed in 0..150 {
            hub::simulated(seed).run(|| {
                let state = Rc::new(Cell::new(seed * 2 + 1));
                let others = Others::default();
                for me in 0..12 {
                    let (state, others_of_it) = (Rc::clone(&state), Rc::clone(&others));
                    let green = spawn(move || {
                        act(me, &state, &others_of_it, 2, false);
                    });
                    others.borrow_mut().push(Rc::new(green));
                }
                let all = others.borrow().clone();
                for green in &all {
                    let _ = catch_unwind(AssertUnwindSafe(|| green.wait()));
                }
                others.take();
                assert!(!panicking());
            });
            let faults = std::mem::take(&mut *FAULTS.lock().unwrap());
            assert!(faults.is_empty(), "seed {seed}: {faults:?}");
        }
    });
}
