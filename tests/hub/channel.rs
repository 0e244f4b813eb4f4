//! Channels between green threads of one hub and of several, beside std's.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::server::is_emulated;
use quickcheck::quickcheck;
use stolon::hub::channel::{
    Receiver, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError, channel,
    sync_channel,
};
use stolon::hub::{self, HubHandle, Waiter, Waker};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// Starts to receive once, and notes when.
fn receive(receiver: &Arc<Receiver<u32>>) -> GreenThread<Result<u32, RecvError>> {
    let receiver = Arc::clone(receiver);
    spawn(move || receiver.recv())
}

fn is_sync<T: Send + Sync>(value: T) -> T {
    value
}

#[test]
fn messages_arrive_in_the_order_of_sending() {
    guarded(|| {
        let (sender, receiver) = is_sync(channel());
        let consumer = spawn(move || receiver.iter().collect::<Vec<u32>>());
        (0..100).for_each(|number| sender.send(number).unwrap());
        drop(sender);
        assert_eq!(consumer.wait(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn receiving_blocks_the_green_thread_only() {
    guarded(|| {
        let (sender, receiver) = channel();
        let consumer = receive(&Arc::new(receiver));
        let ticker = spawn(|| (0..3).for_each(|_| sleep(MS)));
        ticker.wait();
        assert!(!consumer.is_dead());
        sender.send(1).unwrap();
        assert_eq!(consumer.wait(), Ok(1));
    });
}

#[test]
fn a_full_channel_blocks_its_sender_until_there_is_room() {
    guarded(|| {
        let (sender, receiver) = sync_channel(2);
        let sent = Rc::new(Cell::new(0));
        let counted = Rc::clone(&sent);
        let producer = spawn(move || {
            for number in 0..5 {
                sender.send(number).unwrap();
                counted.set(number + 1);
            }
        });
        sleep(NOW);
        for expected in 0..5 {
            assert_eq!(sent.get(), (expected + 2).min(5));
            assert_eq!(receiver.recv(), Ok(expected));
            sleep(NOW);
            sleep(NOW);
        }
        producer.wait();
        assert_eq!(receiver.recv(), Err(RecvError));
    });
}

#[test]
fn a_channel_of_zero_hands_over() {
    guarded(|| {
        let (sender, receiver) = sync_channel(0);
        assert_eq!(sender.try_send(0), Err(TrySendError::Full(0)));
        let receiver = Arc::new(receiver);
        let first = receive(&receiver);
        sleep(NOW);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!(first.wait(), Ok(1));
        let producer = spawn(move || sender.send(3));
        sleep(NOW);
        assert!(!producer.is_dead());
        assert_eq!(receiver.try_recv(), Ok(3));
        assert_eq!(producer.wait(), Ok(()));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn who_offers_to_nobody_gets_its_message_back() {
    guarded(|| {
        let (sender, receiver) = sync_channel(0);
        let offers: Vec<_> = (0..3)
            .map(|number| {
                let sender = sender.clone();
                spawn(move || sender.send(number))
            })
            .collect();
        sleep(NOW);
        assert_eq!(receiver.recv(), Ok(0));
        drop(receiver);
        let results: Vec<_> = offers.iter().map(GreenThread::wait).collect();
        assert_eq!(results, [Ok(()), Err(SendError(1)), Err(SendError(2))]);
    });
}

#[test]
fn disconnection_is_as_with_std() {
    guarded(|| {
        let (sender, receiver) = channel();
        sender.clone().send(1).unwrap();
        drop(sender);
        assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Err(RecvError)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(MS), Err(RecvTimeoutError::Disconnected));

        let token = Rc::new(());
        let (sender, receiver) = sync_channel(1);
        sender.send(Rc::clone(&token)).unwrap();
        let blocked = sender.clone();
        let copy = Rc::clone(&token);
        let producer = spawn(move || blocked.send(copy).is_err());
        sleep(NOW);
        drop(receiver);
        assert!(producer.wait());
        assert!(matches!(sender.try_send(Rc::clone(&token)), Err(TrySendError::Disconnected(_))));
        assert!(sender.send(Rc::clone(&token)).is_err());
        assert_eq!(Rc::strong_count(&token), 1);

        let (sender, receiver) = channel();
        let receiver = Arc::new(receiver);
        let waiting = [receive(&receiver), receive(&receiver)];
        sleep(NOW);
        drop(sender);
        assert!(waiting.iter().all(|waiting| waiting.wait() == Err(RecvError)));
    });
}

#[test]
fn a_timeout_ends_a_receivers_wait_and_no_message_is_lost_by_it() {
    guarded(|| {
        let (sender, receiver) = channel();
        let start = Instant::now();
        assert_eq!(receiver.recv_timeout(2 * MS), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= 2 * MS);
        assert_eq!(receiver.recv_timeout(NOW), Err(RecvTimeoutError::Timeout));
        let receiver = Arc::new(receiver);
        let patient = receive(&receiver);
        sleep(NOW);
        let hasty = Arc::clone(&receiver);
        let hasty = spawn(move || hasty.recv_timeout(MS));
        assert_eq!(hasty.wait(), Err(RecvTimeoutError::Timeout));
        sender.send(7).unwrap();
        assert_eq!(patient.wait(), Ok(7));
        sender.send(8).unwrap();
        assert_eq!(receiver.recv_timeout(NOW), Ok(8));
    });
}

#[test]
fn receivers_are_served_in_the_order_in_which_they_came() {
    guarded(|| {
        let (sender, receiver) = channel();
        let receiver = Arc::new(receiver);
        let waiting: Vec<_> = (0..5).map(|_| receive(&receiver)).collect();
        sleep(NOW);
        (0..6).for_each(|number| sender.send(number).unwrap());
        // They have not run yet; who comes now gets what is left.
        assert_eq!(receiver.try_recv(), Ok(5));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let served: Vec<_> = waiting.iter().map(|waiting| waiting.wait().unwrap()).collect();
        assert_eq!(served, [0, 1, 2, 3, 4]);
        drop(sender);
    });
}

#[test]
fn senders_are_served_in_the_order_in_which_they_came() {
    guarded(|| {
        let (sender, receiver) = sync_channel(1);
        sender.send(0).unwrap();
        let waiting: Vec<_> = (1..5)
            .map(|number| {
                let sender = sender.clone();
                spawn(move || sender.send(number).unwrap())
            })
            .collect();
        sleep(NOW);
        assert_eq!(receiver.recv(), Ok(0));
        // There is room, and it is the first one's.
        assert_eq!(sender.try_send(9), Err(TrySendError::Full(9)));
        assert!((1..5).all(|number| receiver.recv() == Ok(number)));
        waiting.iter().for_each(GreenThread::wait);
    });
}

// Waiters that die.

#[test]
fn a_killed_receiver_swallows_no_message() {
    guarded(|| {
        for killed_late in [false, true] {
            let (sender, receiver) = channel();
            let receiver = Arc::new(receiver);
            let [victim, next] = [receive(&receiver), receive(&receiver)];
            sleep(NOW);
            if killed_late {
                // It has been called, and has not run.
                sender.send(1).unwrap();
                victim.kill();
            } else {
                victim.kill();
                sender.send(1).unwrap();
            }
            assert_eq!(next.wait(), Ok(1));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            drop(sender);
        }
    });
}

#[test]
fn killed_receivers_leave_messages_in_order() {
    guarded(|| {
        let (sender, receiver) = channel();
        let receiver = Arc::new(receiver);
        let victims: Vec<_> = (0..4).map(|_| receive(&receiver)).collect();
        sleep(NOW);
        (0..4).for_each(|number| sender.send(number).unwrap());
        // The others have their turns before this returns.
        victims[0].kill();
        assert!(victims[1..].iter().map(|other| other.wait().unwrap()).eq(0..3));
        drop(sender);
        assert!(receiver.iter().eq([3]));
    });
}

#[test]
fn a_killed_sender_has_not_sent_and_leaves_room_to_the_next() {
    guarded(|| {
        for bound in [0, 1] {
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|_| sender.send(0).unwrap());
            let send = |number| {
                let sender = sender.clone();
                spawn(move || sender.send(number).unwrap())
            };
            let [early, late, last] = [send(1), send(2), send(3)];
            sleep(NOW);
            early.kill();
            if bound == 1 {
                // Room has been made for this one.
                assert_eq!(receiver.recv(), Ok(0));
            }
            late.kill();
            assert_eq!(receiver.recv(), Ok(3));
            last.wait();
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

#[test]
fn on_the_mainloop_a_channel_that_would_wait_says_so() {
    guarded(|| {
        let (sender, receiver) = channel::<u32>();
        let (tell, told) = channel();
        hub::handle()
            .run(move || {
                let ended = std::panic::catch_unwind(|| receiver.recv());
                let payload = ended.unwrap_err().downcast::<&str>().unwrap();
                sender.send(1).unwrap();
                tell.send((*payload, receiver.recv())).unwrap();
            })
            .unwrap();
        let expected = "do not call blocking functions from the mainloop";
        assert_eq!(told.recv().unwrap(), (expected, Ok(1)));
    });
}

// Across threads.

#[test]
fn a_message_crosses_from_hub_to_hub_and_from_and_to_plain_threads() {
    guarded(|| {
        for bound in [None, Some(0), Some(1)] {
            let pipe = |count: u32| match bound {
                None => {
                    let (sender, receiver) = channel();
                    let send = move || (0..count).for_each(|n| sender.send(n).unwrap());
                    (Box::new(send) as Box<dyn FnOnce() + Send>, receiver)
                }
                Some(bound) => {
                    let (sender, receiver) = sync_channel(bound);
                    let send = move || (0..count).for_each(|n| sender.send(n).unwrap());
                    (Box::new(send) as Box<dyn FnOnce() + Send>, receiver)
                }
            };
            let sum = |receiver: Receiver<u32>| receiver.iter().sum::<u32>();
            // From a green thread to one of another hub.
            let (send, receiver) = pipe(100);
            let there = thread::spawn(move || spawn(move || sum(receiver)).wait());
            spawn(send).wait();
            assert_eq!(join(there), 4950);
            // From a plain thread, and to one.
            let (send, receiver) = pipe(100);
            let there = thread::spawn(send);
            assert_eq!(spawn(move || sum(receiver)).wait(), 4950);
            join(there);
            let (send, receiver) = pipe(100);
            let there = thread::spawn(move || sum(receiver));
            spawn(send).wait();
            assert_eq!(join(there), 4950);
        }
    });
}

/// Joins a thread while the hub goes on.
fn join<R>(thread: thread::JoinHandle<R>) -> R {
    while !thread.is_finished() {
        sleep(MS);
    }
    thread.join().unwrap()
}

/// A thread with a hub that serves others.
fn remote() -> (HubHandle, Waker, thread::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut end = Waiter::new();
        sender.send((hub::handle(), end.waker())).unwrap();
        end.wait();
    });
    let (handle, end) = receiver.recv().unwrap();
    (handle, end, thread)
}

// No message is lost or doubled, whoever is killed, on whichever thread.
#[test]
fn a_storm_of_senders_receivers_and_kills_on_several_hubs_loses_nothing() {
    let count: u64 = if is_emulated() { 300 } else { 3_000 };
    guarded(move || {
        for bound in [0, 1, 16] {
            let (sender, receiver) = sync_channel::<u64>(bound);
            let receiver = Arc::new(receiver);
            let received = Arc::new(AtomicUsize::new(0));
            let remotes = [remote(), remote()];
            let consume = |handle: &HubHandle| {
                let (receiver, received) = (Arc::clone(&receiver), Arc::clone(&received));
                let consume = move || {
                    let sum = Rc::new(Cell::new(0));
                    let over = Rc::new(Cell::new(false));
                    // Each receives what it can until it is killed; between that and noting it down
                    // nothing blocks.
                    let start = |_| {
                        let (receiver, sum) = (Arc::clone(&receiver), Rc::clone(&sum));
                        let (received, over) = (Arc::clone(&received), Rc::clone(&over));
                        spawn(move || {
                            while let Ok(message) = receiver.recv() {
                                sum.set(sum.get() + message);
                                received.fetch_add(1, Ordering::Relaxed);
                            }
                            over.set(true);
                        })
                    };
                    let mut consumers: VecDeque<_> = (0..8).map(start).collect();
                    while !over.get() {
                        sleep(NOW);
                        if let Some(victim) = consumers.pop_front() {
                            victim.kill();
                        }
                        consumers.push_back(start(0));
                        sleep(MS / 10);
                    }
                    consumers.iter().for_each(GreenThread::wait);
                    sum.get()
                };
                handle.spawn(consume).unwrap()
            };
            let consumers: Vec<_> = remotes.iter().map(|(handle, ..)| consume(handle)).collect();
            let produce = |from: u64| {
                let sender = sender.clone();
                move || (from..from + count).for_each(|number| sender.send(number).unwrap())
            };
            let here = spawn(produce(0));
            let there = remotes[0].0.spawn(produce(count)).unwrap();
            let plain = thread::spawn(produce(2 * count));
            drop(sender);
            here.wait();
            there.join().unwrap();
            join(plain);
            let sum: u64 = consumers.into_iter().map(|consumer| consumer.join().unwrap()).sum();
            assert_eq!(received.load(Ordering::Relaxed) as u64, 3 * count, "bound {bound}");
            assert_eq!(sum, (0..3 * count).sum(), "bound {bound}");
            for (_, end, thread) in remotes {
                end.wake();
                thread.join().unwrap();
            }
        }
    });
}

// Without waiting a channel is a queue.

/// Even numbers are sent, odd ones receive; the bound is less than four.
fn agrees_with_a_queue(bound: u8, steps: Vec<u8>) -> bool {
    let bound = usize::from(bound % 4);
    let (sender, receiver) = sync_channel(bound);
    let mut model = VecDeque::new();
    steps.into_iter().all(|step| {
        if step % 2 == 0 {
            let fits = model.len() < bound;
            model.extend(fits.then_some(step));
            sender.try_send(step).is_ok() == fits
        } else {
            receiver.try_recv().ok() == model.pop_front()
        }
    })
}

/// Random programs of green threads: each sends its number, or receives, and some are killed
/// wherever they are then. What was sent is received once, or is still there.
fn nothing_is_lost(bound: u8, steps: Vec<(bool, bool)>) -> bool {
    let (sender, receiver) = sync_channel(usize::from(bound % 4));
    let receiver = Arc::new(receiver);
    let received = Rc::new(Cell::new((0_usize, 0_usize)));
    let sent = Rc::new(Cell::new((0_usize, 0_usize)));
    let add = |to: &Cell<(usize, usize)>, n| to.set((to.get().0 + 1, to.get().1 + n));
    let mut threads = Vec::new();
    for (number, (sends, dies)) in steps.into_iter().enumerate() {
        let thread = if sends {
            let (sender, sent) = (sender.clone(), Rc::clone(&sent));
            spawn(move || {
                if sender.send(number).is_ok() {
                    add(&sent, number)
                }
            })
        } else {
            let (receiver, received) = (Arc::clone(&receiver), Rc::clone(&received));
            spawn(move || {
                if let Ok(n) = receiver.recv() {
                    add(&received, n)
                }
            })
        };
        if dies {
            threads.push(thread);
        }
        if number % 3 == 0 {
            sleep(NOW);
        }
    }
    // A sender that handed over and was killed before it ran has sent, and cannot say so: only
    // receivers are killed here when they have been called.
    let before = (received.get(), sent.get());
    for _ in 0..3 {
        sleep(NOW);
    }
    assert!(received.get() >= before.0 && sent.get() >= before.1);
    threads.iter().filter(|thread| !thread.is_dead()).for_each(GreenThread::kill);
    drop(sender);
    for _ in 0..3 {
        sleep(NOW);
    }
    // Until all senders have ended.
    while let Ok(n) = receiver.recv() {
        add(&received, n);
    }
    (0..3).for_each(|_| sleep(NOW));
    received.get() == sent.get()
}

#[test]
fn a_channel_agrees_with_a_queue() {
    guarded(|| quickcheck(agrees_with_a_queue as fn(u8, Vec<u8>) -> bool));
}

#[test]
fn what_is_sent_is_received_or_still_there() {
    guarded(|| quickcheck(nothing_is_lost as fn(u8, Vec<(bool, bool)>) -> bool));
}
