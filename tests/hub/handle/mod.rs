//! Hubs reached from other threads and from signal handlers: by handles and by wakers.
#![allow(unsafe_code)]

mod messages;
mod wakers;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use stolon::hub::{self, HubHandle, Waiter, Waker};
use stolon::{GreenThread, sleep, spawn};

use crate::util::leak::guarded;
use crate::util::server::PATIENCE;

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
    let wakes: usize = if crate::util::server::is_emulated() { 2_000 } else { 20_000 };
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
