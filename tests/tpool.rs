//! The pool of threads for what blocks: the cases TP of the semantics.
#![allow(unsafe_code)]

mod util;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use stolon::greenlet::GreenletExit;
use stolon::tpool::{self, Blocking, execute};
use stolon::{GreenThread, hub, sleep, spawn};
use util::child;
use util::leak::guarded;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// The pool is the process's: each test has it for itself, and leaves no thread.
#[track_caller]
fn pooled(size: usize, body: impl FnOnce() + Send + 'static) {
    guarded(move || {
        tpool::set_num_threads(size);
        body();
        tpool::killall();
        none_is_left();
    });
}

/// They are joined, and the kernel wakes who joins a thread before it takes it off its list: a moment
/// later there is none. If there is, the guard's patience ends.
fn none_is_left() {
    while threads() > 0 {
        thread::yield_now();
    }
}

/// How many threads the pool has.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("stolon-tpool")).count()
}

/// A function that blocks its thread until it is told to go on, and what tells it.
fn gate() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<()>();
    let wait = move || {
        let _ = receiver.recv();
    };
    (sender, wait)
}

fn payload_of<R>(f: impl FnOnce() -> R) -> Box<dyn Any + Send> {
    catch_unwind(AssertUnwindSafe(f)).err().expect("a panic")
}

// TP-01
#[test]
fn while_the_pool_blocks_the_hub_ticks_on() {
    pooled(20, || {
        let (open, wait) = gate();
        let blocked = spawn(move || execute(wait));
        let ticker = spawn(|| (0..10).for_each(|_| sleep(MS)));
        ticker.wait();
        assert!(!blocked.is_dead());
        drop(open);
        blocked.wait();
    });
}

#[test]
fn a_result_comes_back_from_another_thread() {
    pooled(20, || {
        let here = thread::current().id();
        let there =
            execute(|| (thread::current().id(), thread::current().name().map(str::to_owned)));
        assert_ne!(there.0, here);
        assert!(there.1.unwrap().starts_with("stolon-tpool-"));
        let handle = tpool::spawn(|| 7);
        assert_eq!(handle.join().unwrap(), 7);
    });
}

#[test]
fn threads_are_started_as_they_are_needed_and_not_more_than_there_may_be() {
    pooled(3, || {
        assert_eq!(threads(), 0);
        (0..10).for_each(|_| execute(|| ()));
        // One, or another that was started as the first was just about to be free.
        assert!((1..=3).contains(&threads()));
        let gates: Vec<_> = (0..5)
            .map(|_| {
                let (open, wait) = gate();
                (open, spawn(move || execute(wait)))
            })
            .collect();
        while threads() < 3 {
            sleep(MS);
        }
        assert_eq!(threads(), 3);
        for (open, blocked) in gates {
            drop(open);
            blocked.wait();
        }
    });
}

#[test]
fn the_size_may_change_at_any_time() {
    pooled(1, || {
        let together = |count: usize| {
            let barrier = Arc::new(Barrier::new(count));
            let meet = |_| {
                let barrier = Arc::clone(&barrier);
                spawn(move || {
                    execute(move || {
                        barrier.wait();
                    })
                })
            };
            let all: Vec<_> = (0..count).map(meet).collect();
            all.iter().for_each(GreenThread::wait);
        };
        together(1);
        tpool::set_num_threads(4);
        together(4);
        tpool::set_num_threads(2);
        while threads() > 2 {
            sleep(MS);
        }
        together(2);
        // What waits for a thread is done by the last one.
        let (open, wait) = gate();
        let blocked = [tpool::spawn(wait), tpool::spawn(|| ())];
        tpool::set_num_threads(0);
        drop(open);
        assert!(blocked.into_iter().all(|blocked| blocked.join().is_ok()));
        while threads() > 0 {
            sleep(MS);
        }
    });
}

// TP-03
#[test]
fn execute_inside_a_worker_runs_inline() {
    pooled(1, || {
        let nested = || {
            let outer = thread::current().id();
            let inner = execute(|| execute(|| thread::current().id()));
            (outer, inner, tpool::spawn(|| thread::current().id()).join().unwrap())
        };
        let (outer, inner, spawned) = execute(nested);
        assert_eq!((outer, outer), (inner, spawned));
        assert_eq!(payload_of(|| execute(|| execute(|| panic_any(1)))).downcast_ref(), Some(&1));
    });
}

// TP-04
#[test]
fn a_panic_of_any_payload_reaches_the_caller_and_the_workers_stay_alive() {
    pooled(1, || {
        let worker = execute(|| thread::current().id());
        assert_eq!(payload_of(|| execute(|| panic!("text"))).downcast_ref(), Some(&"text"));
        let formatted = payload_of(|| execute(|| panic!("{}", 1)));
        assert_eq!(formatted.downcast_ref::<String>().unwrap(), "1");
        assert_eq!(payload_of(|| execute(|| panic_any(7_u8))).downcast_ref(), Some(&7_u8));
        let exit = payload_of(|| execute(|| std::panic::resume_unwind(Box::new(GreenletExit))));
        assert!(exit.is::<GreenletExit>());
        let error = execute(|| fs::read("/nonexistent")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(execute(|| thread::current().id()), worker);
        assert_eq!(threads(), 1);
    });
}

// TP-05
#[test]
fn killall_lets_what_is_in_flight_end_and_the_pool_restarts_on_next_use() {
    pooled(2, || {
        let before = execute(|| thread::current().id());
        let (open, wait) = gate();
        let in_flight = spawn(move || {
            execute(wait);
            "ended"
        });
        let queued: Vec<_> = (0..10)
            .map(|number| {
                let (open, wait) = gate();
                drop(open);
                spawn(move || {
                    execute(wait);
                    number
                })
            })
            .collect();
        sleep(NOW);
        let ends = spawn(tpool::killall);
        sleep(NOW);
        assert!(!ends.is_dead() && !in_flight.is_dead());
        // It is a new pool already.
        assert_eq!(execute(|| 1), 1);
        drop(open);
        ends.wait();
        assert_eq!(in_flight.wait(), "ended");
        assert!(queued.iter().map(GreenThread::wait).eq(0..10));
        assert_ne!(execute(|| thread::current().id()), before);
        tpool::killall();
        tpool::killall();
        none_is_left();
    });
}

#[test]
fn killall_on_a_worker_is_refused() {
    pooled(1, || {
        let payload = payload_of(|| execute(tpool::killall));
        assert!(payload.downcast_ref::<&str>().unwrap().contains("waits for its own end"));
    });
}

// TP-06
#[test]
fn a_pool_of_no_threads_runs_inline_with_one_warning() {
    const NAME: &str = "a_pool_of_no_threads_runs_inline_with_one_warning";
    if child::is_child() {
        let here = thread::current().id();
        (0..3).for_each(|_| assert_eq!(execute(|| thread::current().id()), here));
        assert_eq!(tpool::spawn(|| 7).join().unwrap(), 7);
        assert_eq!(payload_of(|| execute(|| panic_any(1))).downcast_ref(), Some(&1));
        assert_eq!(threads(), 0);
        println!("to the end");
        return;
    }
    guarded(|| {
        let output = child::command(NAME).env("STOLON_THREADPOOL_SIZE", "0").output().unwrap();
        let text = child::text_of(&output);
        assert!(output.status.success() && text.contains("to the end"), "{text}");
        assert_eq!(text.matches("tpool has no threads").count(), 1, "{text}");
    });
}

// TP-06
#[test]
fn a_size_that_is_no_number_is_an_error_that_says_so() {
    const NAME: &str = "a_size_that_is_no_number_is_an_error_that_says_so";
    if child::is_child() {
        for _ in 0..2 {
            let payload = payload_of(|| execute(|| ()));
            println!("{}", payload.downcast_ref::<String>().unwrap());
        }
        // A call has the last word.
        tpool::set_num_threads(1);
        execute(|| println!("to the end"));
        return;
    }
    guarded(|| {
        for value in ["-1", "many", "", "1.5", "99999999999999999999999"] {
            let output =
                child::command(NAME).env("STOLON_THREADPOOL_SIZE", value).output().unwrap();
            let text = child::text_of(&output);
            assert!(output.status.success() && text.contains("to the end"), "{text}");
            let expected = format!("STOLON_THREADPOOL_SIZE is {value:?}; it must be a number");
            assert!(text.matches(&expected).count() >= 2, "{text}");
        }
    });
}

#[test]
fn the_environment_says_how_many_threads_there_are() {
    const NAME: &str = "the_environment_says_how_many_threads_there_are";
    if child::is_child() {
        let expected = std::env::var("STOLON_TEST_EXPECTED").unwrap().parse().unwrap();
        let (sender, started) = mpsc::channel();
        let gates: Vec<_> = (0..30)
            .map(|_| {
                let ((open, wait), sender) = (gate(), sender.clone());
                let work = move || {
                    sender.send(()).unwrap();
                    wait();
                };
                (open, tpool::spawn(work))
            })
            .collect();
        (0..expected).for_each(|_| started.recv().unwrap());
        println!("\n{} threads", threads());
        for (open, blocked) in gates {
            drop(open);
            blocked.join().unwrap();
        }
        return;
    }
    guarded(|| {
        for (value, count) in [(Some(" 3 "), 3), (None, 20)] {
            let mut command = child::command(NAME);
            command
                .env_remove("STOLON_THREADPOOL_SIZE")
                .env("STOLON_TEST_EXPECTED", count.to_string());
            command.envs(value.map(|value| ("STOLON_THREADPOOL_SIZE", value)));
            let text = child::text_of(&command.output().unwrap());
            assert!(text.contains(&format!("\n{count} threads")), "{text}");
        }
    });
}

// TP-07
#[test]
fn every_call_returns_its_own_token() {
    pooled(20, || {
        let caller = |name: u64| {
            spawn(move || {
                for number in 0..100 {
                    let token = (name, number);
                    let pause = Duration::from_micros((name * 31 + number * 17) % 200);
                    let returned = execute(move || {
                        thread::sleep(pause);
                        token
                    });
                    assert_eq!(returned, token);
                }
            })
        };
        let callers: Vec<_> = (0..10).map(caller).collect();
        callers.iter().for_each(GreenThread::wait);
        assert!((1..=20).contains(&threads()));
    });
}

// TP-08
#[test]
fn what_is_captured_is_dropped_after_the_call_also_on_a_panic() {
    pooled(1, || {
        for panics in [false, true] {
            let token = Arc::new(());
            let captured = Arc::clone(&token);
            let outcome = tpool::spawn(move || {
                let _captured = &captured;
                assert!(!panics, "on purpose");
            });
            assert_eq!(outcome.join().is_err(), panics);
            assert_eq!(Arc::strong_count(&token), 1);
        }
    });
}

/// Notes on which threads it was dropped.
struct Noted(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
        panic!("on purpose, in a destructor that nobody waits for");
    }
}

#[test]
fn a_killed_caller_does_not_stop_the_function_and_its_result_is_dropped_there() {
    pooled(1, || {
        let worker = execute(|| thread::current().id());
        let (dropped, ran) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let (open, wait) = gate();
        let (result, counted) = (Noted(Arc::clone(&dropped)), Arc::clone(&ran));
        let running = spawn(move || {
            let result = execute(move || {
                wait();
                counted.fetch_add(1, Ordering::Relaxed);
                result
            });
            std::mem::forget(result);
        });
        let counted = Arc::clone(&ran);
        let count = move || counted.fetch_add(1, Ordering::Relaxed);
        let queued = spawn(move || execute(count));
        sleep(NOW);
        running.kill();
        queued.kill();
        assert!(running.is_dead() && queued.is_dead());
        drop(open);
        // The one worker is alive, and has done all by now.
        assert_eq!(execute(|| thread::current().id()), worker);
        assert_eq!(ran.load(Ordering::Relaxed), 2);
        assert_eq!(*dropped.lock().unwrap(), [worker]);
    });
}

#[test]
fn a_value_is_used_by_one_call_at_a_time_on_the_pools_threads() {
    pooled(4, || {
        let value = Blocking::new(Vec::new());
        let push = |number: u32| {
            let value = value.clone();
            spawn(move || {
                value.call(move |numbers| {
                    let count = numbers.len();
                    thread::yield_now();
                    numbers.push(number);
                    assert_eq!(numbers.len(), count + 1);
                })
            })
        };
        let all: Vec<_> = (0..20).map(push).collect();
        all.iter().for_each(GreenThread::wait);
        assert!(catch_unwind(AssertUnwindSafe(|| value.call(|_| panic!("on purpose")))).is_err());
        let mut numbers = value.call(|numbers| numbers.clone());
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..20));
    });
}

#[test]
fn plain_threads_and_several_hubs_share_the_pool() {
    pooled(2, || {
        let caller = |name: u32| {
            thread::spawn(move || {
                let green = |number| spawn(move || execute(move || name * number));
                match name % 2 {
                    // Without a hub.
                    0 => (0..50).map(|number| execute(move || name * number)).sum::<u32>(),
                    _ => (0..50).map(|number| green(number).wait()).sum::<u32>(),
                }
            })
        };
        let callers: Vec<_> = (0..4).map(caller).collect();
        for (name, caller) in (0..).zip(callers) {
            while !caller.is_finished() {
                sleep(MS);
            }
            assert_eq!(caller.join().unwrap(), 1225 * name);
        }
    });
}

#[test]
fn on_the_mainloop_execute_says_that_it_would_block() {
    pooled(1, || {
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let (open, wait) = gate();
        let blocks = move || {
            let payload = payload_of(|| execute(wait));
            drop(open);
            *heard.lock().unwrap() = (*payload.downcast_ref::<&str>().unwrap()).to_owned();
        };
        hub::handle().run(blocks).unwrap();
        while said.lock().unwrap().is_empty() {
            sleep(MS);
        }
        assert!(said.lock().unwrap().contains("from the mainloop"));
    });
}

#[test]
fn the_child_of_a_fork_has_a_pool_of_its_own() {
    const NAME: &str = "the_child_of_a_fork_has_a_pool_of_its_own";
    if child::is_child() {
        tpool::set_num_threads(2);
        let over = Arc::new(AtomicBool::new(false));
        let awaited = Arc::clone(&over);
        let spins = tpool::spawn(move || {
            while !awaited.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        });
        assert_eq!(execute(|| 1), 1);
        // SAFETY: the child calls what this test is about, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let ended = catch_unwind(|| {
                assert_eq!(threads(), 0);
                assert_eq!(execute(|| 2), 2);
                assert_eq!(threads(), 1);
                tpool::killall();
            });
            // SAFETY: a plain system call.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
        let mut status = 0;
        // SAFETY: the status is live.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
        over.store(true, Ordering::Relaxed);
        spins.join().unwrap();
        println!("to the end");
        return;
    }
    // qemu's own threads do not bear it that a child of several threads starts one.
    if util::server::is_emulated() {
        return;
    }
    guarded(|| {
        let output = child::run(NAME);
        let text = child::text_of(&output);
        assert!(output.status.success() && text.contains("to the end"), "{text}");
    });
}
