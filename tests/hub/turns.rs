//! The hub seen from outside: nothing starves, deadlocks are reported, plain greenlets may block,
//! each thread has one.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::server::PATIENCE;
use crate::util::sockets::pair;
use stolon::greenlet::{self, Greenlet};
use stolon::greenthread::Builder;
use stolon::stack::stack_counts;
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// A green thread that nothing can ever wake: it waits for its own end.
fn waits_for_itself(name: &str) -> Rc<GreenThread<()>> {
    let itself = Rc::new(OnceCell::<Rc<GreenThread<()>>>::new());
    let waited_for = Rc::clone(&itself);
    let wait = move || {
        let green = Rc::clone(waited_for.get().unwrap());
        green.wait();
    };
    let green = Rc::new(Builder::new().name(name).spawn(wait).unwrap());
    assert!(itself.set(Rc::clone(&green)).is_ok());
    green
}

/// What the panic says that waiting for `green` ends with.
fn report(green: &GreenThread<()>) -> String {
    let ended = catch_unwind(AssertUnwindSafe(|| green.wait()));
    ended.unwrap_err().downcast_ref::<String>().expect("a report").clone()
}

// Deadlocks.

#[test]
fn a_deadlock_of_main_is_reported_with_the_names_of_all_that_wait() {
    guarded(|| {
        let (alice, bob) = (waits_for_itself("alice"), waits_for_itself("bob"));
        let ended = Builder::new().name("carol").spawn(|| ()).unwrap();
        let report = report(&alice);
        assert!(report.contains("would block forever"), "{report}");
        for waiting in ["'alice'", "'bob'", "main"] {
            let line = report.lines().find(|line| line.contains(&format!("Greenlet({waiting}")));
            assert!(line.is_some_and(|line| line.contains("a green thread to end")), "{report}");
        }
        assert!(ended.is_dead() && !report.contains("carol"), "{report}");
        alice.kill();
        bob.kill();
    });
}

#[test]
fn after_a_deadlock_the_hub_is_as_good_as_new() {
    guarded(|| {
        for _ in 0..3 {
            let lost = waits_for_itself("lost");
            report(&lost);
            let sleeper = spawn(|| {
                sleep(5 * MS);
                "well"
            });
            assert_eq!(sleeper.wait(), "well");
            let (near, mut far) = pair();
            spawn(move || (&near).write_all(b"byte").unwrap());
            let mut text = String::new();
            far.read_to_string(&mut text).unwrap();
            assert_eq!(text, "byte");
            lost.kill();
        }
    });
}

#[test]
fn who_ends_after_a_deadlock_does_not_wake_main_too_early() {
    guarded(|| {
        let lost = waits_for_itself("lost");
        let waited_for = Rc::clone(&lost);
        let waiter = spawn(move || {
            assert!(catch_unwind(AssertUnwindSafe(|| waited_for.wait())).is_err());
        });
        report(&lost);
        // From here on there is no mainloop, and the waiter is runnable.
        lost.kill();
        let start = Instant::now();
        sleep(20 * MS);
        assert!(start.elapsed() >= 20 * MS, "{:?}", start.elapsed());
        waiter.wait();
    });
}

#[test]
fn who_waits_for_time_or_a_descriptor_is_in_no_deadlock() {
    guarded(|| {
        let lost = waits_for_itself("lost");
        let (near, far) = pair();
        let reader = spawn(move || (&far).read(&mut [0; 8]).unwrap());
        let writer = spawn(move || {
            sleep(5 * MS);
            (&near).write_all(b"byte").unwrap();
        });
        assert_eq!(reader.wait(), 4);
        writer.wait();
        lost.kill();
    });
}

// Fairness.

#[test]
fn those_that_yield_all_the_time_do_not_starve_a_timer() {
    guarded(|| {
        let over = Rc::new(Cell::new(false));
        let spinners: Vec<_> = (0..3).map(|_| spin(&over)).collect();
        let start = Instant::now();
        sleep(5 * MS);
        over.set(true);
        assert!(start.elapsed() < PATIENCE / 2);
        assert!(spinners.iter().all(|spinner| spinner.wait() > 0));
    });
}

/// Yields until it is over, and returns how often.
fn spin(over: &Rc<Cell<bool>>) -> GreenThread<u64> {
    let over = Rc::clone(over);
    spawn(move || {
        let (start, mut turns) = (Instant::now(), 0);
        while !over.get() && start.elapsed() < PATIENCE / 2 {
            sleep(NOW);
            turns += 1;
        }
        turns
    })
}

#[test]
fn those_that_yield_all_the_time_do_not_starve_a_reader() {
    guarded(|| {
        let over = Rc::new(Cell::new(false));
        let turns = Rc::new(Cell::new(0_u64));
        let (near, far) = pair();
        let read = Rc::clone(&over);
        let reader = spawn(move || {
            (&far).read_exact(&mut [0; 4]).unwrap();
            read.set(true);
        });
        let counted = Rc::clone(&turns);
        let spinner = spawn(move || {
            while !over.get() && counted.get() < 1_000_000 {
                sleep(NOW);
                counted.set(counted.get() + 1);
            }
        });
        sleep(MS);
        let before = turns.get();
        (&near).write_all(b"byte").unwrap();
        reader.wait();
        spinner.wait();
        // The descriptors are looked at after 128 turns at the latest.
        assert!(turns.get() - before <= 256, "{} turns", turns.get() - before);
    });
}

// Plain greenlets.

#[test]
fn a_plain_greenlet_that_blocks_lets_green_threads_run() {
    guarded(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let (in_plain, in_green) = (Rc::clone(&log), Rc::clone(&log));
        spawn(move || in_green.borrow_mut().push("green"));
        let plain = Greenlet::new(move |()| {
            sleep(MS);
            in_plain.borrow_mut().push("plain");
        });
        plain.switch(()).unwrap();
        assert!(plain.is_dead());
        assert_eq!(*log.borrow(), ["green", "plain"]);
    });
}

#[test]
fn a_plain_greenlet_in_a_green_thread_may_block_in_any_way() {
    guarded(|| {
        let (near, far) = pair();
        let green = spawn(move || {
            let reader = Greenlet::new(move |mut bytes: Vec<u8>| {
                bytes.resize(4, 0);
                (&far).read_exact(&mut bytes).unwrap();
                sleep(MS);
                bytes.extend(spawn(|| *b"!").wait());
                bytes
            });
            reader.switch(Vec::new()).unwrap()
        });
        sleep(MS);
        (&near).write_all(b"byte").unwrap();
        assert_eq!(green.wait(), b"byte!");
    });
}

#[test]
fn a_generator_may_block_between_its_values() {
    guarded(|| {
        let consumer = greenlet::current::<Option<i32>>();
        let generator = Greenlet::new(move |_| {
            for n in 0..3 {
                sleep(MS);
                consumer.switch(Some(n)).unwrap();
            }
            None
        });
        let next = || generator.switch(None).unwrap();
        let values: Vec<i32> = std::iter::from_fn(next).collect();
        assert_eq!(values, [0, 1, 2]);
    });
}

// Threads.

#[test]
fn each_os_thread_has_a_hub_of_its_own() {
    guarded(|| {
        let count = 4;
        let together = Arc::new(Barrier::new(count));
        let run = |number: usize, together: Arc<Barrier>| {
            let log = Rc::new(RefCell::new(Vec::new()));
            for name in 0..3 {
                let log = Rc::clone(&log);
                spawn(move || {
                    for turn in 0..3 {
                        log.borrow_mut().push((turn, name, number));
                        sleep(NOW);
                    }
                });
            }
            // All have made theirs by now, and none has run one.
            together.wait();
            (0..4).for_each(|_| sleep(NOW));
            let in_turns = (0..3).flat_map(|turn| (0..3).map(move |name| (turn, name, number)));
            assert!(log.borrow().iter().copied().eq(in_turns), "{log:?}");
            assert_eq!(stack_counts().in_use, 1);
        };
        let start = |number| {
            let together = Arc::clone(&together);
            thread::spawn(move || run(number, together))
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn threads_talk_over_sockets() {
    guarded(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let listener = stolon::green::net::TcpListener::from(listener);
            let serve = |_| {
                let (mut stream, _) = listener.accept().unwrap();
                spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap())
            };
            let served: Vec<_> = (0..10).map(serve).collect();
            served.iter().map(GreenThread::wait).sum::<u64>()
        });
        let client = |n: u8| {
            spawn(move || {
                let mut stream = stolon::green::net::TcpStream::connect(addr).unwrap();
                let mut echo = [0; 100];
                for _ in 0..10 {
                    stream.write_all(&[n; 100]).unwrap();
                    stream.read_exact(&mut echo).unwrap();
                    assert_eq!(echo, [n; 100]);
                }
            })
        };
        let clients: Vec<_> = (0..10).map(client).collect();
        clients.iter().for_each(GreenThread::wait);
        assert_eq!(server.join().unwrap(), 10_000);
    });
}
