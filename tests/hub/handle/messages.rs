//! Handles: what is sent to a hub runs there, once, and its result comes back; and the end of a hub.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use stolon::greenlet::{Greenlet, GreenletExit};
use stolon::hub::{self, HubHandle};
use stolon::{sleep, spawn};

use super::wakers::reports_deadlock;
use super::{AGE, MS, NOW, Remote, text_of};
use crate::util::leak::guarded;

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

#[test]
fn an_exit_of_what_run_calls_does_not_end_the_loop() {
    guarded(|| {
        let exit = || std::panic::resume_unwind(Box::new(GreenletExit));
        hub::handle().run(exit).unwrap();
        // The loop's parent waits for a child of its own, and is to be told of nothing else.
        let child = Greenlet::new(|()| sleep(2 * MS));
        child.switch(()).unwrap();
        assert!(child.is_dead());
    });
}
