//! The simulated hub: time that jumps, orders that a seed decides, and nothing of it outside.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::util::child;
use crate::util::leak::guarded;
use stolon::green::net::{MemoryStream, TcpListener, TcpStream};
use stolon::hub::{self, schedule_call_global, simulate_seeds, simulated};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// How a program that failed said why.
fn failure(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a text")).to_owned(),
    }
}

/// Ten green threads that take turns; the order in which they had them.
fn turns() -> Vec<u32> {
    let log = Rc::new(RefCell::new(Vec::new()));
    let take_turns = |n| {
        let log = Rc::clone(&log);
        spawn(move || {
            for _ in 0..10 {
                log.borrow_mut().push(n);
                sleep(NOW);
            }
        })
    };
    let greens: Vec<_> = (0..10).map(take_turns).collect();
    greens.iter().for_each(GreenThread::wait);
    log.take()
}

// Time.

#[test]
fn hours_of_timeouts_take_no_time_and_are_exact() {
    guarded(|| {
        let start = Instant::now();
        let elapsed = simulated(1).run(|| {
            let start = hub::now();
            let (client, server) = MemoryStream::pair();
            let server = spawn(move || {
                // Each answer is later than the one before.
                for seconds in 0.. {
                    let read = (&server).read(&mut [0; 8]).unwrap();
                    sleep(seconds * SECOND);
                    if read == 0 || (&server).write_all(b"pong").is_err() {
                        return seconds;
                    }
                }
                unreachable!()
            });
            client.set_read_timeout(Some(600 * SECOND)).unwrap();
            let mut answers = 0;
            loop {
                (&client).write_all(b"ping").unwrap();
                match (&client).read(&mut [0; 8]) {
                    Ok(bytes) => answers += u32::from(bytes == 4),
                    Err(e) => break assert_eq!(e.kind(), ErrorKind::TimedOut),
                }
            }
            drop(client);
            // It was given up in the very moment before the 600th second's answer, or with it.
            assert!(answers == 600 || answers == 601, "{answers}");
            assert!(server.wait() >= answers);
            hub::now() - start
        });
        assert!(elapsed > 50 * HOUR, "{elapsed:?}");
        assert!(start.elapsed() < crate::util::server::PATIENCE / 2);
    });
}

#[test]
fn time_stands_still_while_anyone_can_run_and_jumps_to_the_next_deadline() {
    guarded(|| {
        simulated(2).run(|| {
            let start = hub::now();
            turns();
            assert_eq!(hub::now(), start);
            let sleeper = spawn(|| sleep(HOUR));
            sleep(7 * MS);
            assert_eq!(hub::now() - start, 7 * MS);
            sleeper.wait();
            assert_eq!(hub::now() - start, HOUR);
            hub::advance(3 * MS);
            assert_eq!(hub::now() - start, HOUR + 3 * MS);
        });
    });
}

#[test]
fn one_that_waits_by_yielding_does_not_stop_the_time() {
    for simulated in [simulated(3), simulated(3).in_order()] {
        guarded(move || {
            simulated.run(|| {
                let over = Rc::new(Cell::new(false));
                let in_call = Rc::clone(&over);
                schedule_call_global(HOUR, move || in_call.set(true));
                while !over.get() {
                    sleep(NOW);
                }
            });
        });
    }
}

#[test]
fn if_turns_take_time_a_crowd_that_yields_delays_a_timer_by_the_budget_at_most() {
    for simulated in [simulated(4), simulated(4).in_order()] {
        guarded(move || {
            simulated.turn_takes(Duration::from_micros(1)).run(|| {
                let over = Rc::new(Cell::new(false));
                for _ in 0..10 {
                    let over = Rc::clone(&over);
                    spawn(move || {
                        while !over.get() {
                            sleep(NOW);
                        }
                    });
                }
                let start = hub::now();
                let late = Rc::new(Cell::new(None));
                let in_call = Rc::clone(&late);
                schedule_call_global(5 * MS, move || in_call.set(Some(hub::now() - start)));
                sleep(10 * MS);
                over.set(true);
                let late = late.get().unwrap() - 5 * MS;
                assert!(late <= Duration::from_micros(128), "{late:?}");
                assert!(hub::now() - start >= 10 * MS);
            });
        });
    }
}

#[test]
fn a_real_hub_tells_real_time_and_has_it_advanced_by_nobody() {
    guarded(|| {
        let before = Instant::now();
        let now = hub::now();
        assert!(before <= now && now <= Instant::now());
        assert!(failure(|| hub::advance(MS)).contains("simulated"));
    });
}

// Order.

#[test]
fn the_same_seed_is_the_same_order_and_others_are_others() {
    guarded(|| {
        let orders: BTreeSet<_> = (0..20)
            .map(|seed| {
                let order = simulated(seed).run(turns);
                assert_eq!(order.len(), 100);
                assert_eq!(order, simulated(seed).run(turns), "seed {seed}");
                order
            })
            .collect();
        assert_eq!(orders.len(), 20);
        let in_order: Vec<_> = (0..10).flat_map(|_| 0..10).collect();
        assert!(!orders.contains(&in_order));
        assert_eq!(simulated(5).in_order().run(turns), in_order);
    });
}

#[test]
fn seeds_decide_among_those_whose_time_or_descriptor_comes_at_one_moment() {
    fn by_time() -> Vec<usize> {
        finish_in_order(|_| sleep(MS))
    }
    fn by_descriptor() -> Vec<usize> {
        let (near, far): (Vec<_>, Vec<_>) =
            (0..4).map(|_| crate::util::sockets::unix_pair()).unzip();
        let far = Rc::new(far);
        spawn(move || {
            sleep(MS);
            near.iter().for_each(|mut near| near.write_all(b"!").unwrap());
            sleep(MS);
        });
        finish_in_order(move |n| (&far[n]).read_exact(&mut [0]).unwrap())
    }
    /// Four green threads; the order in which they get to their ends.
    fn finish_in_order(run: impl Fn(usize) + 'static) -> Vec<usize> {
        let (log, run) = (Rc::new(RefCell::new(Vec::new())), Rc::new(run));
        let start = |n| {
            let (log, run) = (Rc::clone(&log), Rc::clone(&run));
            spawn(move || {
                run(n);
                log.borrow_mut().push(n);
            })
        };
        let greens: Vec<_> = (0..4).map(start).collect();
        greens.iter().for_each(GreenThread::wait);
        log.take()
    }
    guarded(|| {
        for program in [by_time, by_descriptor] {
            let runs = || (0..60).map(move |seed| simulated(seed).run(program));
            // Most of the 24 that there are, and the same again.
            let orders: BTreeSet<_> = runs().collect();
            assert!(orders.len() > 16, "{orders:?}");
            assert!(runs().eq(runs()));
        }
    });
}

#[test]
fn calls_of_one_moment_keep_their_order_under_every_seed() {
    guarded(|| {
        simulate_seeds(0..50, || {
            let log = Rc::new(RefCell::new(Vec::new()));
            for n in 0..5 {
                let log = Rc::clone(&log);
                schedule_call_global(MS, move || log.borrow_mut().push(n));
            }
            sleep(2 * MS);
            assert_eq!(*log.borrow(), [0, 1, 2, 3, 4]);
        });
    });
}

/// A program with a bug: money is paid in and taken out in the same moment, and nothing but the order
/// in which the two were started, which a real hub happens to keep, has the one come before the other.
fn cashiers() {
    let balance = Rc::new(Cell::new(0));
    let of_deposit = Rc::clone(&balance);
    let deposit = spawn(move || {
        sleep(MS);
        of_deposit.set(of_deposit.get() + 100);
    });
    let withdrawal = spawn(move || {
        sleep(MS);
        assert!(balance.get() >= 30, "only {} are there", balance.get());
        balance.set(balance.get() - 30);
    });
    deposit.wait();
    withdrawal.wait();
}

#[test]
fn a_bug_that_depends_on_the_order_is_found_by_seeds_and_replayed_by_its_own() {
    if child::is_child() {
        return simulate_seeds(0..1000, cashiers);
    }
    guarded(|| {
        simulated(0).in_order().run(cashiers);
        let fails = |seed| catch_unwind(|| simulated(seed).run(cashiers)).is_err();
        let failing: Vec<_> = (0..100).filter(|seed| fails(*seed)).collect();
        assert!(!failing.is_empty() && failing.len() < 100, "{failing:?}");
        assert!(failing.iter().all(|seed| fails(*seed)));

        // As a test program has it: it names the first seed, and is run under that one again.
        let name = "a_bug_that_depends_on_the_order_is_found_by_seeds_and_replayed_by_its_own";
        let output = child::run(name);
        let text = child::text_of(&output);
        let replay = format!("replay it with STOLON_SEED={}", failing[0]);
        assert!(!output.status.success() && text.contains(&replay), "{text}");
        let seeds = [(failing[0], false), (*failing.last().unwrap(), false)];
        let passing = (0..100).find(|seed| !failing.contains(seed)).unwrap();
        for (seed, passes) in seeds.into_iter().chain([(passing, true)]) {
            let output = child::command(name).env("STOLON_SEED", seed.to_string()).output();
            let output = output.unwrap();
            assert_eq!(output.status.success(), passes, "{}", child::text_of(&output));
        }
        let output = child::command(name).env("STOLON_SEED", "many").output().unwrap();
        let text = child::text_of(&output);
        assert!(text.contains("STOLON_SEED is \"many\", which is no seed"), "{text}");
    });
}

// World.

#[test]
fn what_it_returns_and_what_it_panics_with_comes_to_the_caller() {
    guarded(|| {
        assert_eq!(simulated(0).run(|| spawn(|| vec![1, 2]).wait()), [1, 2]);
        let borrowed = String::from("borrowed");
        assert_eq!(simulated(0).run(|| borrowed.as_str()), "borrowed");
        let payload = catch_unwind(|| simulated(0).run(|| std::panic::panic_any(7))).unwrap_err();
        assert_eq!(*payload.downcast::<i32>().unwrap(), 7);
    });
}

#[test]
fn a_simulation_disturbs_no_hub_around_it_and_may_have_another_inside() {
    guarded(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let in_green = Rc::clone(&log);
        let outer = spawn(move || {
            in_green.borrow_mut().push("before");
            let times = simulated(1).run(|| {
                let start = hub::now();
                sleep(HOUR);
                let inner = simulated(2).run(|| {
                    let start = hub::now();
                    sleep(2 * HOUR);
                    hub::now() - start
                });
                (hub::now() - start, inner)
            });
            assert_eq!(times, (HOUR, 2 * HOUR));
            in_green.borrow_mut().push("after");
        });
        let start = Instant::now();
        outer.wait();
        sleep(MS);
        assert!(start.elapsed() < HOUR / 2);
        assert_eq!(*log.borrow(), ["before", "after"]);
    });
}

#[test]
fn what_is_alive_at_the_end_is_killed_and_what_is_pending_is_dropped() {
    struct Tells<'a>(&'a Mutex<Vec<&'static str>>, &'static str);
    impl Drop for Tells<'_> {
        fn drop(&mut self) {
            if self.1 == "sleeper" {
                sleep(HOUR);
            }
            self.0.lock().unwrap().push(self.1);
        }
    }
    static LOG: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    guarded(|| {
        for panics in [false, true] {
            let run = || {
                simulated(0).run(|| {
                    let tells = |name| Tells(&LOG, name);
                    let [sleeper, unstarted, call] = ["sleeper", "unstarted", "call"].map(tells);
                    spawn(move || {
                        let _sleeper = sleeper;
                        sleep(HOUR);
                    });
                    schedule_call_global(HOUR, move || drop(call));
                    sleep(MS);
                    spawn(move || drop(unstarted));
                    assert!(!panics, "on purpose");
                });
            };
            assert_eq!(catch_unwind(run).is_err(), panics);
            let mut log = std::mem::take(&mut *LOG.lock().unwrap());
            log.sort_unstable();
            assert_eq!(log, ["call", "sleeper", "unstarted"]);
        }
    });
}

#[test]
fn a_deadlock_is_reported_as_on_a_real_hub() {
    guarded(|| {
        for simulated in [simulated(6), simulated(6).in_order()] {
            let (near, _far) = MemoryStream::pair();
            drop(near);
            let report = failure(|| {
                simulated.run(|| {
                    let (near, _far) = MemoryStream::pair();
                    let reader = stolon::greenthread::Builder::new().name("reader");
                    let read = move || (&near).read(&mut [0]).unwrap();
                    reader.spawn(read).unwrap().wait();
                });
            });
            assert!(report.contains("would block forever"), "{report}");
            assert!(report.contains("'reader'"), "{report}");
            assert!(report.contains("the other end of a stream in memory"), "{report}");
        }
        // Who waits for a descriptor is given a while, in real time.
        let start = Instant::now();
        let report = failure(|| {
            simulated(6).run(|| {
                let (near, _far) = crate::util::sockets::unix_pair();
                (&near).read_exact(&mut [0]).unwrap();
            });
        });
        assert!(report.contains("to become readable") && start.elapsed() >= SECOND, "{report}");
    });
}

#[test]
fn sockets_work_with_each_other_and_with_what_is_outside() {
    guarded(|| {
        simulate_seeds(0..5, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let server = spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap()
            });
            let mut client = TcpStream::connect(addr).unwrap();
            let mut echo = [0; 1000];
            for _ in 0..10 {
                client.write_all(&[7; 1000]).unwrap();
                client.read_exact(&mut echo).unwrap();
                assert_eq!(echo, [7; 1000]);
            }
            drop(client);
            assert_eq!(server.wait(), 10_000);
        });
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let outside = thread::spawn(move || (&far).write_all(b"byte"));
        let read = simulated(0).run(move || {
            let near = TcpStream::from(std::os::fd::OwnedFd::from(near));
            (&near).read(&mut [0; 8]).unwrap()
        });
        assert_eq!(read, 4);
        outside.join().unwrap().unwrap();
    });
}
