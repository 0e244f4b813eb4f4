//! Hubs reached from other threads and from signal handlers: by handles and by wakers.
#![allow(unsafe_code)]

mod util;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use stolon::greenlet::GreenletExit;
use stolon::hub::{self, HubHandle, Waiter, Waker};
use stolon::{GreenThread, sleep, spawn};
use util::leak::guarded;
use util::server::PATIENCE;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
/// Longer than any test: who waits for so long was forgotten.
const AGE: Duration = Duration::from_secs(3600);

/// A thread with a hub that does nothing but what others ask for, until it is told to end.
struct Remote {
    handle: HubHandle,
    end: Waker,
    thread: thread::JoinHandle<()>,
}

impl Remote {
    fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut end = Waiter::new();
            sender.send((hub::handle(), end.waker())).unwrap();
            drop(sender);
            end.wait();
        });
        let (handle, end) = receiver.recv().unwrap();
        Self { handle, end, thread }
    }

    fn end(self) {
        self.end.wake();
        self.thread.join().unwrap();
    }
}

fn text_of(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
    }
}

// Handles.

#[test]
fn run_calls_on_the_hubs_thread_in_the_order_of_sending() {
    guarded(|| {
        let remote = Remote::start();
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            remote
                .handle
                .run(move || sender.send((number, thread::current().id())).unwrap())
                .unwrap();
        }
        let id = remote.thread.thread().id();
        assert!((0..100).all(|number| receiver.recv() == Ok((number, id))));
        remote.end();
    });
}

#[test]
fn what_run_calls_must_not_block_and_says_so() {
    guarded(|| {
        let remote = Remote::start();
        let (sender, receiver) = mpsc::channel();
        let blocks = move || {
            let ended = catch_unwind(|| sleep(MS));
            sender.send(text_of(ended.unwrap_err())).unwrap();
        };
        remote.handle.run(blocks).unwrap();
        assert_eq!(receiver.recv().unwrap(), "do not call blocking functions from the mainloop");
        remote.end();
    });
}

#[test]
fn a_panic_of_what_run_calls_harms_nobody() {
    guarded(|| {
        let remote = Remote::start();
        for _ in 0..3 {
            remote.handle.run(|| panic!("on purpose")).unwrap();
        }
        assert_eq!(remote.handle.spawn(|| 1).unwrap().join().unwrap(), 1);
        remote.end();
    });
}

#[test]
fn spawn_runs_a_green_thread_that_may_block_there() {
    guarded(|| {
        let remote = Remote::start();
        let id = remote.thread.thread().id();
        let sleeper = |ms: u32| {
            move || {
                sleep(ms * MS);
                (ms, thread::current().id(), spawn(move || ms + 1).wait())
            }
        };
        let handles: Vec<_> =
            [7, 1, 4].into_iter().map(|ms| remote.handle.spawn(sleeper(ms)).unwrap()).collect();
        let results = handles.into_iter().map(|handle| handle.join().unwrap());
        assert!(results.eq([(7, id, 8), (1, id, 2), (4, id, 5)]));
        remote.end();
    });
}

#[test]
fn to_join_blocks_the_green_thread_only() {
    guarded(|| {
        let remote = Remote::start();
        let go = Arc::new(AtomicBool::new(false));
        let awaited = Arc::clone(&go);
        let wait = move || {
            while !awaited.load(Ordering::Relaxed) {
                sleep(NOW);
            }
            "done"
        };
        let handle = remote.handle.spawn(wait).unwrap();
        let joiner = spawn(move || handle.join().unwrap());
        let ticks = spawn(|| (0..5).for_each(|_| sleep(MS)));
        ticks.wait();
        assert!(!joiner.is_dead());
        go.store(true, Ordering::Relaxed);
        assert_eq!(joiner.wait(), "done");
        remote.end();
    });
}

#[test]
fn a_plain_thread_joins_and_makes_no_hub_for_it() {
    guarded(|| {
        let handle = hub::handle();
        let waits = spawn(|| {
            sleep(5 * MS);
            5
        });
        let plain = thread::spawn(move || {
            let joined = handle.spawn(|| 6).unwrap().join().unwrap();
            (joined, handle.is_current(), handle.is_gone())
        });
        assert_eq!(waits.wait(), 5);
        while !plain.is_finished() {
            sleep(MS);
        }
        assert_eq!(plain.join().unwrap(), (6, false, false));
    });
}

#[test]
fn a_panic_is_delivered_with_its_payload() {
    guarded(|| {
        let remote = Remote::start();
        let number = remote.handle.spawn(|| std::panic::panic_any(7_u8)).unwrap();
        assert_eq!(number.join().unwrap_err().downcast_ref(), Some(&7_u8));
        let text = remote.handle.spawn(|| panic!("text {}", 1)).unwrap();
        assert_eq!(text_of(text.join().unwrap_err()), "text 1");
        remote.end();
    });
}

#[test]
fn a_hub_may_send_to_itself() {
    guarded(|| {
        let handle = hub::handle();
        assert!(handle.is_current() && handle == hub::handle());
        let again = handle.clone();
        let nested = handle.spawn(move || again.spawn(|| 1).unwrap().join().unwrap() + 1);
        assert_eq!(nested.unwrap().join().unwrap(), 2);
    });
}

#[test]
fn those_who_run_all_the_time_do_not_keep_messages_waiting() {
    guarded(|| {
        let over = Arc::new(AtomicBool::new(false));
        let (handle, told) = (hub::handle(), Arc::clone(&over));
        let turns = Rc::new(Cell::new(0_u64));
        let counted = Rc::clone(&turns);
        handle.run(move || told.store(true, Ordering::Relaxed)).unwrap();
        let spinner = spawn(move || {
            while !over.load(Ordering::Relaxed) && counted.get() < 1_000_000 {
                sleep(NOW);
                counted.set(counted.get() + 1);
            }
        });
        spinner.wait();
        assert!(turns.get() <= 256, "{} turns", turns.get());
    });
}

#[test]
fn messages_that_beget_messages_do_not_starve_the_rest() {
    guarded(|| {
        fn again(handle: HubHandle, over: Arc<AtomicBool>) {
            let next = handle.clone();
            if !over.load(Ordering::Relaxed) {
                handle.run(move || again(next, over)).unwrap();
            }
        }
        let over = Arc::new(AtomicBool::new(false));
        again(hub::handle(), Arc::clone(&over));
        sleep(2 * MS);
        spawn(|| ()).wait();
        over.store(true, Ordering::Relaxed);
        sleep(NOW);
    });
}

// The end of a hub.

#[test]
fn a_handle_whose_hub_is_gone_hands_back_what_it_is_given() {
    guarded(|| {
        let remote = Remote::start();
        let handle = remote.handle.clone();
        remote.end();
        assert!(handle.is_gone());
        let token = Rc::new(());
        let refused = handle.run(|| ()).unwrap_err();
        assert!(refused.to_string().starts_with("the hub is gone"), "{refused}");
        let refused = handle.spawn(|| 7).unwrap_err();
        assert_eq!((refused.0)(), 7);
        assert_eq!(Rc::strong_count(&token), 1);
    });
}

#[test]
fn what_is_in_the_inbox_when_the_thread_ends_is_dropped_there_and_told() {
    struct Noted(Arc<Mutex<Vec<thread::ThreadId>>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().id());
            panic!("of a destructor, which nobody hears at the end of a thread");
        }
    }
    guarded(|| {
        let (sender, receiver) = mpsc::channel();
        let (full, filled) = mpsc::channel();
        let thread = thread::spawn(move || {
            sender.send(hub::handle()).unwrap();
            // Without ever being in the hub.
            filled.recv().unwrap();
        });
        let (handle, id) = (receiver.recv().unwrap(), thread.thread().id());
        let dropped = Arc::new(Mutex::new(Vec::new()));
        let noted = Noted(Arc::clone(&dropped));
        handle.run(move || drop(noted)).unwrap();
        let spawned = handle.spawn(|| ()).unwrap();
        let joiner = spawn(move || spawned.join().unwrap_err().is::<GreenletExit>());
        sleep(NOW);
        full.send(()).unwrap();
        assert!(joiner.wait());
        thread.join().unwrap();
        assert_eq!(*dropped.lock().unwrap(), [id]);
    });
}

#[test]
fn who_joins_is_told_when_the_thread_ends_before_the_green_thread() {
    guarded(|| {
        let (sender, receiver) = mpsc::channel();
        let remote = Remote::start();
        let started = move || {
            sender.send(()).unwrap();
            sleep(AGE);
        };
        let spawned = remote.handle.spawn(started).unwrap();
        receiver.recv().unwrap();
        remote.end();
        assert!(spawned.is_finished());
        assert!(spawned.join().unwrap_err().is::<GreenletExit>());
    });
}

#[test]
fn a_killed_joiner_leaves_nothing_behind() {
    guarded(|| {
        let remote = Remote::start();
        let spawned = remote.handle.spawn(|| sleep(AGE)).unwrap();
        let joiner = spawn(move || spawned.join().is_ok());
        sleep(MS);
        joiner.kill();
        assert!(joiner.is_dead());
        // No waker is left that might wake anyone here.
        assert!(reports_deadlock());
        remote.end();
    });
}

// Wakers.

#[test]
fn a_waker_wakes_from_another_thread_before_and_during_the_wait() {
    guarded(|| {
        for early in [true, false] {
            let mut waiter = Waiter::new();
            let (waker, (go, wait)) = (waiter.waker(), mpsc::channel());
            let thread = thread::spawn(move || {
                wait.recv().unwrap();
                waker.wake()
            });
            if early {
                go.send(()).unwrap();
            } else {
                // This runs when the main greenlet waits.
                spawn(move || go.send(()).unwrap());
            }
            while early && !thread.is_finished() {
                thread::yield_now();
            }
            waiter.wait();
            assert!(thread.join().unwrap());
        }
    });
}

#[test]
fn several_wakes_count_as_one_and_a_waiter_may_wait_again() {
    guarded(|| {
        let mut waiter = Waiter::new();
        let waker = waiter.waker();
        for _ in 0..3 {
            assert!(waker.wake());
            assert!(!waker.wake() && !waker.clone().wake());
            waiter.wait();
            assert!(!waiter.wait_timeout(NOW));
            let start = Instant::now();
            assert!(!waiter.wait_timeout(2 * MS));
            assert!(start.elapsed() >= 2 * MS);
        }
    });
}

// Corner 8: a wake-up that belongs to an earlier wait never ends a later one.
#[test]
fn a_late_wake_ends_no_other_wait() {
    guarded(|| {
        let late: Vec<_> = (0..200).map(|_| Waiter::new().waker()).collect();
        let mut waiters: Vec<_> = (0..200).map(|_| Waiter::new()).collect();
        assert!(late.iter().all(|waker| !waker.wake()));
        let waiting = |mut waiter: Waiter| spawn(move || waiter.wait_timeout(3 * MS));
        let waiting: Vec<_> = waiters.drain(..).map(waiting).collect();
        sleep(NOW);
        assert!(late.iter().all(|waker| !waker.wake()));
        assert!(!waiting.iter().any(GreenThread::wait));
        // Nor a wait of another kind of the same greenlet.
        let waiter = Waiter::new();
        assert!(waiter.waker().wake());
        let start = Instant::now();
        sleep(3 * MS);
        assert!(start.elapsed() >= 3 * MS);
        drop(waiter);
    });
}

#[test]
fn a_killed_waiter_is_not_woken() {
    guarded(|| {
        let waker = Rc::new(RefCell::new(None));
        let given = Rc::clone(&waker);
        let waiting = spawn(move || {
            let mut waiter = Waiter::new();
            *given.borrow_mut() = Some(waiter.waker());
            waiter.wait();
        });
        sleep(NOW);
        let waker = waker.take().unwrap();
        waiting.kill();
        assert!(!waker.wake());
    });
}

// Deadlocks.

/// Whether the main greenlet hears at once that nothing can wake it.
fn reports_deadlock() -> bool {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut forgotten = Waiter::new();
        forgotten.wait();
    }));
    let report = text_of(ended.unwrap_err());
    report.contains("would block forever") && report.contains("a waker")
}

#[test]
fn a_deadlock_is_reported_when_no_handle_and_no_waker_is_left() {
    guarded(|| {
        assert!(reports_deadlock());
        // They are made, and go.
        drop(hub::handle());
        let waker = Waiter::new().waker();
        thread::spawn(move || drop(waker.clone())).join().unwrap();
        assert!(reports_deadlock());
    });
}

#[test]
fn a_deadlock_is_reported_when_the_last_handle_goes_while_all_wait() {
    guarded(|| {
        for _ in 0..20 {
            let (go, wait) = mpsc::channel::<()>();
            let handle = hub::handle();
            let thread = thread::spawn(move || {
                wait.recv().unwrap();
                drop(handle);
            });
            spawn(move || go.send(()).unwrap());
            assert!(reports_deadlock());
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_deadlock_is_reported_while_what_was_sent_last_is_still_to_be_done() {
    guarded(|| {
        for _ in 0..200 {
            let mut waiter = Waiter::new();
            let slot = Rc::new(Cell::new(false));
            let (handle, waker) = (hub::handle(), waiter.waker());
            // The handle and the waker are gone by the time that the hub looks, or are not.
            let thread = thread::spawn(move || {
                let wake = move || {
                    waker.wake();
                };
                handle.run(wake).unwrap();
            });
            waiter.wait();
            slot.set(true);
            thread.join().unwrap();
        }
    });
}

// Signal handlers.

static HANDLER_WAKES: OnceLock<Waker> = OnceLock::new();

extern "C" fn wake_from_handler(_signal: libc::c_int) {
    if let Some(waker) = HANDLER_WAKES.get() {
        waker.wake();
    }
}

// Corner 24: a green thread that a handler has woken starts at once, not when the hub would have
// woken anyway.
#[test]
fn a_signal_handler_wakes_a_green_thread_at_once() {
    const NAME: &str = "a_signal_handler_wakes_a_green_thread_at_once";
    if util::child::is_child() {
        let mut waiter = Waiter::new();
        HANDLER_WAKES.set(waiter.waker()).unwrap();
        let handler = wake_from_handler as extern "C" fn(libc::c_int);
        // SAFETY: the handler does only what one may do.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        // SAFETY: a plain system call.
        let this = unsafe { libc::pthread_self() };
        let asleep = Arc::new(AtomicUsize::new(0));
        let announced = Arc::clone(&asleep);
        // SAFETY: a plain system call.
        let tid = unsafe { libc::gettid() };
        let signals = thread::spawn(move || {
            for round in 1..=20 {
                while announced.load(Ordering::Acquire) < round || !is_waiting(tid) {
                    thread::yield_now();
                }
                // To the thread whose hub it is, or to this one.
                // SAFETY: both threads exist.
                let to = if round % 2 == 0 { this } else { unsafe { libc::pthread_self() } };
                // SAFETY: as above.
                assert_eq!(unsafe { libc::pthread_kill(to, libc::SIGUSR1) }, 0);
            }
        });
        let start = Instant::now();
        let woken = spawn(move || {
            for round in 1..=20 {
                asleep.store(round, Ordering::Release);
                waiter.wait();
                // It was late if the sleep below had to end first.
                assert!(spawn(move || start.elapsed()).wait() < AGE / 2);
            }
        });
        let sleeper = spawn(|| sleep(AGE));
        woken.wait();
        assert!(!sleeper.is_dead() && start.elapsed() < PATIENCE);
        signals.join().unwrap();
        println!("woken every time");
        return;
    }
    guarded(|| {
        let output = util::child::run(NAME);
        let text = util::child::text_of(&output);
        assert!(output.status.success() && text.contains("woken every time"), "{text}");
    });
}

/// Whether a thread of this process sleeps in the kernel.
fn is_waiting(tid: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}

// Several threads.

// HB-19. The deadlines are far apart beside what a scheduler needs; on a machine that is busier than
// that, one of several attempts does.
#[test]
fn two_threads_with_sleeping_green_threads_interleave_and_their_hubs_are_distinct() {
    guarded(|| {
        let attempt = |spacing: Duration| {
            let log = Arc::new(Mutex::new(Vec::new()));
            let together = Arc::new(Barrier::new(2));
            let run = |numbers: &'static [u32]| {
                let (log, together) = (Arc::clone(&log), Arc::clone(&together));
                thread::spawn(move || {
                    together.wait();
                    let sleeper = |&number: &u32| {
                        let log = Arc::clone(&log);
                        spawn(move || {
                            sleep(number * spacing);
                            log.lock().unwrap().push(number);
                        })
                    };
                    let sleepers: Vec<_> = numbers.iter().map(sleeper).collect();
                    sleepers.iter().for_each(GreenThread::wait);
                    hub::handle()
                })
            };
            let [first, second] = [run(&[1, 2, 3]), run(&[1, 2])].map(|it| it.join().unwrap());
            assert!(first != second && first == first.clone());
            let log = log.lock().unwrap().clone();
            log == [1, 1, 2, 2, 3]
        };
        assert!((1..8).any(|number| attempt(number * 20 * MS)));
    });
}

// A storm: what many threads send and wake arrives, once, whatever the order.
#[test]
fn many_threads_that_wake_random_waiters_lose_nothing() {
    const THREADS: usize = 4;
    const WAITERS: usize = 100;
    let wakes: usize = if util::server::is_emulated() { 2_000 } else { 20_000 };
    guarded(move || {
        let seen: Arc<Vec<AtomicUsize>> = Arc::new((0..WAITERS).map(|_| 0.into()).collect());
        let sent: Arc<Vec<AtomicUsize>> = Arc::new((0..WAITERS).map(|_| 0.into()).collect());
        let over = Arc::new(AtomicBool::new(false));
        let mut wakers = Vec::new();
        let mut waiting = Vec::new();
        for place in 0..WAITERS {
            let mut waiter = Waiter::new();
            wakers.push(waiter.waker());
            let (seen, sent, over) = (Arc::clone(&seen), Arc::clone(&sent), Arc::clone(&over));
            waiting.push(spawn(move || {
                while !over.load(Ordering::Acquire) {
                    waiter.wait();
                    // What was sent before this wake-up is seen now.
                    seen[place].store(sent[place].load(Ordering::Acquire), Ordering::Release);
                }
            }));
        }
        let wakers = Arc::new(wakers);
        let calls = Arc::new(AtomicUsize::new(0));
        let handle = hub::handle();
        let storm = |seed: usize| {
            let (wakers, sent, seen) = (Arc::clone(&wakers), Arc::clone(&sent), Arc::clone(&seen));
            let (handle, calls) = (handle.clone(), Arc::clone(&calls));
            thread::spawn(move || {
                let mut random = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for number in 0..wakes {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let place = random as usize % WAITERS;
                    let mine = sent[place].fetch_add(1, Ordering::AcqRel) + 1;
                    wakers[place].wake();
                    if number % 64 == 0 {
                        let counted = Arc::clone(&calls);
                        let count = move || {
                            counted.fetch_add(1, Ordering::Relaxed);
                        };
                        handle.run(count.clone()).unwrap();
                        handle.spawn(count).unwrap().join().unwrap();
                        let start = Instant::now();
                        while seen[place].load(Ordering::Acquire) < mine {
                            assert!(start.elapsed() < PATIENCE, "a wake-up of {place} was lost");
                            thread::yield_now();
                        }
                    }
                }
            })
        };
        let threads: Vec<_> = (0..THREADS).map(storm).collect();
        let joined = join_all(threads);
        assert_eq!(joined, THREADS);
        assert_eq!(calls.load(Ordering::Relaxed), 2 * THREADS * wakes.div_ceil(64));
        over.store(true, Ordering::Release);
        wakers.iter().for_each(|waker| {
            waker.wake();
        });
        waiting.iter().for_each(GreenThread::wait);
    });
}

/// Joins threads while the hub goes on.
fn join_all(threads: Vec<thread::JoinHandle<()>>) -> usize {
    let join = |thread: thread::JoinHandle<()>| {
        while !thread.is_finished() {
            sleep(MS);
        }
        thread.join().unwrap();
    };
    threads.into_iter().map(join).count()
}

#[test]
fn hubs_that_send_to_each_other_at_once_do_not_wait_for_each_other() {
    guarded(|| {
        let remotes: Vec<_> = (0..3).map(|_| Remote::start()).collect();
        let handles: Vec<_> = remotes.iter().map(|remote| remote.handle.clone()).collect();
        let tours: Vec<_> = (0..30)
            .map(|start| {
                let handles = handles.clone();
                let tour = move || {
                    let hops = (0..20).map(|hop| {
                        let next = &handles[(start + hop) % handles.len()];
                        next.spawn(move || hop).unwrap().join().unwrap()
                    });
                    hops.sum::<usize>()
                };
                remotes[start % 3].handle.spawn(tour).unwrap()
            })
            .collect();
        assert!(tours.into_iter().all(|tour| tour.join().unwrap() == 190));
        remotes.into_iter().for_each(Remote::end);
    });
}
