//! A process that has no descriptor left: what its hubs have promised they can do all the same.
#![allow(unsafe_code)]

mod util;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use stolon::hub::channel::{self, RecvTimeoutError};
use stolon::hub::{self, Waiter};
use stolon::{sleep, spawn, tpool};
use util::child;
use util::server::PATIENCE;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// Runs `body` in a process of its own, which has a hub and may open few files.
#[track_caller]
fn in_a_process(test: &str, body: impl FnOnce()) {
    if child::is_child() {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the limit is live.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        sleep(NOW);
        body();
        println!("to the end");
        return;
    }
    let output = child::run(test);
    let text = child::text_of(&output);
    assert!(output.status.success() && text.contains("to the end"), "{text}");
}

/// Opens as many files as may be open.
fn all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn the_result_of_what_has_finished_is_joined_without_a_descriptor() {
    in_a_process("the_result_of_what_has_finished_is_joined_without_a_descriptor", || {
        let job = tpool::spawn(|| String::from("the result"));
        let _all = all_descriptors();
        while !job.is_finished() {
            thread::yield_now();
        }
        assert_eq!(job.join().unwrap(), "the result");
    });
}

#[test]
fn the_pool_runs_something_without_a_descriptor() {
    in_a_process("the_pool_runs_something_without_a_descriptor", || {
        let _all = all_descriptors();
        assert_eq!(tpool::execute(|| 5), 5);
        assert_eq!(spawn(|| tpool::execute(|| 6)).wait(), 6);
    });
}

#[test]
fn a_channel_loses_no_message_without_a_descriptor() {
    in_a_process("a_channel_loses_no_message_without_a_descriptor", || {
        let (sender, receiver) = channel::sync_channel(1);
        sender.send("first").unwrap();
        let _all = all_descriptors();
        let waits = spawn(move || sender.send("second"));
        sleep(NOW);
        assert_eq!(receiver.recv().unwrap(), "first");
        assert_eq!(receiver.recv_timeout(MS).unwrap(), "second");
        assert_eq!(receiver.recv_timeout(MS).unwrap_err(), RecvTimeoutError::Disconnected);
        waits.wait().unwrap();
    });
}

#[test]
fn handles_and_waiters_are_made_without_a_descriptor() {
    in_a_process("handles_and_waiters_are_made_without_a_descriptor", || {
        let _all = all_descriptors();
        let (handle, mut waiter) = (hub::handle(), Waiter::new());
        let waker = waiter.waker();
        let thread = thread::spawn(move || {
            let seven = handle.spawn(|| 7).unwrap().join().unwrap();
            waker.wake();
            seven
        });
        waiter.wait();
        assert_eq!(thread.join().unwrap(), 7);
        let start = hub::now();
        sleep(MS);
        assert!(hub::now().duration_since(start) >= MS);
    });
}

#[test]
fn a_thread_whose_hub_cannot_be_made_says_so_and_loses_nothing() {
    in_a_process("a_thread_whose_hub_cannot_be_made_says_so_and_loses_nothing", || {
        let (sender, receiver) = channel::channel();
        let all = all_descriptors();
        let told = thread::spawn(move || {
            let refused = catch_unwind(|| sleep(NOW)).is_err();
            // Without a hub the thread waits as a whole.
            let executed = tpool::execute(|| 8);
            sender.send((refused, executed)).unwrap();
            drop(all);
            catch_unwind(|| sleep(NOW)).is_ok()
        });
        assert_eq!(receiver.recv().unwrap(), (true, 8));
        assert!(told.join().unwrap());
    });
}

/// Runs `body` in a forked child, and returns whether it came to its end.
fn fork(body: impl FnOnce()) -> bool {
    // SAFETY: the C library sees to its own locks, and the child runs no other thread's code.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(PATIENCE.as_secs() as libc::c_uint) };
        let ended = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: a plain system call.
        unsafe { libc::_exit(i32::from(ended.is_err())) }
    }
    let mut status = 0;
    // SAFETY: the status is live.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status == 0
}

#[test]
fn the_child_of_a_fork_needs_no_descriptor_more_than_its_parent() {
    in_a_process("the_child_of_a_fork_needs_no_descriptor_more_than_its_parent", || {
        let _all = all_descriptors();
        let use_hub = || {
            let (handle, mut waiter) = (hub::handle(), Waiter::new());
            let waker = waiter.waker();
            sleep(MS);
            handle.run(move || assert!(waker.wake())).unwrap();
            waiter.wait();
        };
        // Nobody has used what other threads reach, and then somebody has.
        assert!(fork(use_hub));
        use_hub();
        let kept = (hub::handle(), Waiter::new());
        assert!(fork(|| {
            use_hub();
            assert!(kept.0.is_gone());
            assert!(fork(use_hub));
            use_hub();
        }));
        use_hub();
    });
}
