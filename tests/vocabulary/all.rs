//! What events, semaphores, queues and timeouts have in common: what they do on the hub's own loop, in
//! the report of a deadlock, and on a thread that exits.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::util::leak::guarded;
use stolon::coros::WaitGroup;
use stolon::dagpool::DAGPool;
use stolon::event::Event;
use stolon::hub;
use stolon::queue::{Empty, Full, LifoQueue, LightQueue, PriorityQueue, Queue};
use stolon::semaphore::{BoundedSemaphore, CappedSemaphore, Semaphore};
use stolon::timeout::{Timeout, with_timeout};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| String::from(*text));
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What `f` panics with when it is called, or nothing.
fn panic_of(f: impl FnOnce()) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => String::from("no panic"),
        Err(payload) => text_of(&*payload),
    }
}

/// Calls `f` on the hub's own loop.
fn in_mainloop<R: 'static>(f: impl FnOnce() -> R + 'static) -> R {
    let result = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&result);
    hub::schedule_call_global(NOW, move || {
        let value = f();
        *slot.borrow_mut() = Some(value);
    });
    while result.borrow().is_none() {
        sleep(MS);
    }
    result.take().unwrap()
}

/// Something that blocks, with what it is reported to wait for.
type Blocking = (&'static str, Box<dyn FnOnce()>);

fn all_that_blocks() -> Vec<Blocking> {
    let full = Queue::new(1);
    full.put(1);
    let unfinished = full.clone();
    let capped = CappedSemaphore::new(1, 1);
    let group = WaitGroup::new();
    group.inc(1);
    vec![
        ("an event to be sent", Box::new(|| Event::new().wait())),
        ("a permit of a semaphore", Box::new(|| Semaphore::new(0).acquire())),
        ("a permit of a semaphore", Box::new(|| drop(Semaphore::new(0).access()))),
        ("a permit of a semaphore", Box::new(|| BoundedSemaphore::new(0).acquire())),
        ("a permit of a semaphore", Box::new(|| CappedSemaphore::new(0, 1).acquire())),
        ("room for a permit in a semaphore", Box::new(move || capped.release())),
        ("an item of a queue", Box::new(|| Queue::new(None).get())),
        ("an item of a queue", Box::new(|| LightQueue::new(2).get())),
        ("an item of a queue", Box::new(|| PriorityQueue::new(0).get())),
        ("room in a queue", Box::new(move || full.put(2))),
        ("room in a queue", Box::new(|| LifoQueue::new(0).put(2))),
        ("the items of a queue to be done", Box::new(move || unfinished.join())),
        ("the members of a group to be done", Box::new(move || group.wait())),
    ]
}

#[test]
fn what_would_block_on_the_hubs_own_loop_is_an_error_that_says_so_and_leaves_nothing() {
    guarded(|| {
        for (what, block) in all_that_blocks() {
            let text = in_mainloop(move || panic_of(block));
            assert_eq!(text, "do not call blocking functions from the mainloop", "{what}");
        }
        let (semaphore, event, queue) = (Semaphore::new(0), Event::<u32>::new(), Queue::new(0));
        let held = (semaphore.clone(), event.clone(), queue.clone());
        let errors = in_mainloop(move || {
            let (semaphore, event, queue) = held;
            [
                panic_of(|| assert!(semaphore.acquire_timeout(HOUR))),
                panic_of(|| assert!(event.wait_timeout(HOUR).is_some())),
                panic_of(|| assert!(queue.put_timeout(1, HOUR).is_ok())),
                panic_of(|| assert!(queue.get_timeout(HOUR).is_ok())),
                panic_of(|| assert!(with_timeout(HOUR, || sleep(HOUR)).is_ok())),
            ]
        });
        for text in errors {
            assert_eq!(text, "do not call blocking functions from the mainloop");
        }
        assert_eq!((semaphore.balance(), queue.putting(), queue.getting()), (0, 0, 0));
        assert_eq!(queue.get_nowait(), Err(Empty));
        assert!(format!("{event:?}").contains("waiting: 0"));
    });
}

// QU-10
#[test]
fn put_nowait_and_get_nowait_work_on_the_hubs_own_loop() {
    guarded(|| {
        let queue = Queue::new(1);
        let inner = queue.clone();
        let results = in_mainloop(move || (inner.put_nowait(2), inner.put_nowait(3)));
        assert_eq!(results, (Ok(()), Err(Full(3))));
        let inner = queue.clone();
        assert_eq!(
            in_mainloop(move || (inner.get_nowait(), inner.get_nowait())),
            (Ok(2), Err(Empty))
        );

        let channel = Queue::new(0);
        let (putter, inner) = (channel.clone(), channel.clone());
        let putter = spawn(move || putter.put(5));
        sleep(NOW);
        assert_eq!(
            in_mainloop(move || (inner.get_nowait(), inner.get_nowait())),
            (Ok(5), Err(Empty))
        );
        putter.wait();
        let (getter, inner) = (channel.clone(), channel.clone());
        let getter = spawn(move || getter.get());
        sleep(NOW);
        let results = in_mainloop(move || (inner.put_nowait(6), inner.put_nowait(7)));
        assert_eq!(results, (Ok(()), Err(Full(7))));
        assert_eq!(getter.wait(), 6);
    });
}

#[test]
fn what_does_not_block_works_on_the_hubs_own_loop_and_wakes_who_waits() {
    guarded(|| {
        let (semaphore, event, queue) = (Semaphore::new(0), Event::new(), Queue::new(None));
        let waiters: [GreenThread<u32>; 3] = [
            spawn({
                let semaphore = semaphore.clone();
                move || {
                    semaphore.acquire();
                    1
                }
            }),
            spawn({
                let event = event.clone();
                move || event.wait()
            }),
            spawn({
                let queue = queue.clone();
                move || queue.get()
            }),
        ];
        sleep(NOW);
        in_mainloop(move || {
            semaphore.release();
            semaphore.release();
            assert!(semaphore.try_acquire() && !semaphore.try_acquire());
            event.send(2).unwrap();
            assert_eq!(event.wait(), 2);
            queue.put(3);
            queue.put(4);
            assert_eq!(queue.get(), 3);
            assert_eq!(with_timeout(HOUR, || 1), Ok(1));
        });
        assert_eq!(waiters.map(|waiter| waiter.wait()), [1, 2, 4]);
    });
}

#[test]
fn the_report_of_a_deadlock_says_what_each_waits_for() {
    guarded(|| {
        let whats: Vec<_> = all_that_blocks().into_iter().map(|(what, _)| what).collect();
        let waiting: Vec<_> =
            all_that_blocks().into_iter().map(|(_, block)| spawn(block)).collect();
        let text = panic_of(|| waiting[0].wait());
        assert!(text.starts_with("this operation would block forever"), "{text}");
        for what in whats {
            assert!(text.contains(&format!("waits for {what}")), "{what} in {text}");
        }
        for green in waiting {
            green.kill();
        }
    });
}

/// Reports what happens when a thread exits.
struct AtExit(Sender<Vec<String>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        let mut log: Vec<_> =
            all_that_blocks().into_iter().map(|(_, block)| panic_of(block)).collect();
        let (queue, semaphore) = (Queue::new(0), Semaphore::new(0));
        let in_vain = [
            queue.get_timeout(HOUR).is_ok(),
            queue.put_timeout(1, HOUR).is_ok(),
            semaphore.acquire_timeout(HOUR),
            Event::<()>::new().wait_timeout(HOUR).is_some(),
            Timeout::new(HOUR).pending(),
        ];
        log.push(format!("{in_vain:?}"));
        semaphore.release();
        log.push(format!("{:?}", (semaphore.try_acquire(), queue.put_nowait(1), queue.qsize())));
        self.0.send(log).unwrap();
    }
}

thread_local! {
    static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
}

#[test]
fn on_a_thread_that_exits_nobody_waits() {
    guarded(|| {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            // Made before the hub, so dropped after it.
            AT_EXIT.set(Some(AtExit(sender)));
            sleep(NOW);
        });
        let mut log = receiver.recv().unwrap();
        thread.join().unwrap();
        let last = log.split_off(log.len() - 2);
        assert_eq!(last[0], "[false, false, false, false, false]");
        assert_eq!(last[1], "(true, Err(Full(..)), 0)");
        for text in log {
            assert!(text.ends_with("this thread is exiting"), "{text}");
        }
    });
}

// D5: all of it blocks the green thread only.
#[test]
fn a_ticker_goes_on_while_others_wait() {
    guarded(|| {
        hub::simulated(1).run(|| {
            let ticks = Rc::new(Cell::new(0));
            let counter = Rc::clone(&ticks);
            spawn(move || {
                loop {
                    sleep(MS);
                    counter.set(counter.get() + 1);
                }
            });
            for (_, block) in all_that_blocks() {
                spawn(block);
            }
            assert!(!Semaphore::new(0).acquire_timeout(20 * MS + MS / 2));
            assert_eq!(ticks.get(), 20);
        });
    });
}

/// What is written here lets others run each time.
struct Blocks;

impl Write for Blocks {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        sleep(NOW);
        Ok(())
    }
}

/// Shows `shown` somewhere that blocks, and has `used` called again and again meanwhile.
fn show_while_used(shown: impl Debug + 'static, mut used: impl FnMut() + 'static) {
    let shows = spawn(move || write!(Blocks, "{shown:?}"));
    while !shows.is_dead() {
        used();
        sleep(NOW);
    }
    shows.wait().unwrap();
}

#[test]
fn what_is_shown_somewhere_that_blocks_may_be_used_meanwhile() {
    guarded(|| {
        let event = Event::<u32>::new();
        show_while_used(event.clone(), move || {
            let waits = event.clone();
            let waiter = spawn(move || waits.wait());
            sleep(NOW);
            waiter.kill();
            assert!(waiter.join().unwrap_err().is::<stolon::greenlet::GreenletExit>());
        });
        let dag = DAGPool::new([("a", 1)]);
        show_while_used(dag.clone(), move || dag.replace("a", 2).unwrap());
        let semaphore = CappedSemaphore::new(1, 2);
        show_while_used(semaphore.clone(), move || {
            assert!(!semaphore.acquire_timeout(NOW) || semaphore.release_timeout(NOW));
        });
        let queue = Queue::new(1);
        show_while_used(queue.clone(), move || {
            queue.put(1);
            queue.get();
        });
        let pool = stolon::pools::Pool::new(1, || 1);
        show_while_used(pool.clone(), move || assert_eq!(*pool.get(), 1));
        let pool = stolon::GreenPool::new(1);
        show_while_used(pool.clone(), move || assert_eq!(pool.spawn(|| 1).wait(), 1));
    });
}
