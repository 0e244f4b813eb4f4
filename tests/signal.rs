//! Signals as something to wait for. They are sent to the test's own thread, where they are
//! blocked.
#![allow(unsafe_code)]

mod util;

use std::fs;
use std::io::ErrorKind;
use std::mem;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use stolon::green::signal::{SIGHUP, SIGTERM, SIGUSR1, SIGUSR2, Signals};
use stolon::{sleep, spawn};
use util::child;
use util::leak::guarded;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

/// Sends a signal to this thread.
fn raise(signal: i32) {
    // SAFETY: the thread is this one, so it exists.
    assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
}

/// The signals that are blocked on this thread, as bits.
fn blocked() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

fn bits(signals: &[i32]) -> u64 {
    signals.iter().map(|signal| 1 << (signal - 1)).sum()
}

#[test]
fn wait_returns_the_number_of_a_signal_that_came_before() {
    guarded(|| {
        let signals = Signals::new(&[SIGUSR1, SIGUSR2]).unwrap();
        for signal in [SIGUSR2, SIGUSR1, SIGUSR2] {
            raise(signal);
            assert_eq!(signals.wait().unwrap(), signal);
        }
    });
}

#[test]
fn waiting_blocks_the_green_thread_only_until_the_signal_comes() {
    guarded(|| {
        let signals = Signals::new(&[SIGUSR1]).unwrap();
        let waiter = spawn(move || signals.wait().unwrap());
        for _ in 0..3 {
            sleep(MS);
            assert!(!waiter.is_dead());
        }
        raise(SIGUSR1);
        assert_eq!(waiter.wait(), SIGUSR1);
    });
}

#[test]
fn several_of_one_kind_may_arrive_as_one_and_kinds_do_not_mix() {
    guarded(|| {
        let usr1 = Signals::new(&[SIGUSR1]).unwrap();
        let usr2 = Signals::new(&[SIGUSR2]).unwrap();
        raise(SIGUSR1);
        raise(SIGUSR1);
        assert_eq!(usr1.wait().unwrap(), SIGUSR1);
        let waiters = [spawn(move || usr1.wait().unwrap()), spawn(move || usr2.wait().unwrap())];
        sleep(MS);
        assert!(!waiters[0].is_dead() && !waiters[1].is_dead());
        raise(SIGUSR2);
        assert_eq!(waiters[1].wait(), SIGUSR2);
        waiters[0].kill();
    });
}

#[test]
fn only_one_may_wait_for_one_set() {
    guarded(|| {
        let signals = Rc::new(Signals::new(&[SIGUSR1]).unwrap());
        let waiting = Rc::clone(&signals);
        let first = spawn(move || waiting.wait().unwrap());
        sleep(NOW);
        assert!(signals.wait().unwrap_err().to_string().contains("second simultaneous read"));
        raise(SIGUSR1);
        assert_eq!(first.wait(), SIGUSR1);
    });
}

#[test]
fn dropping_restores_what_was_blocked() {
    guarded(|| {
        let before = blocked();
        let signals = Signals::new(&[SIGUSR1, SIGTERM]).unwrap();
        assert_eq!(blocked(), before | bits(&[SIGUSR1, SIGTERM]));
        assert_eq!(format!("{signals:?}"), format!("Signals([{SIGUSR1}, {SIGTERM}])"));
        drop(signals);
        assert_eq!(blocked(), before);
    });
}

#[test]
fn sets_may_be_dropped_in_any_order() {
    guarded(|| {
        let before = blocked();
        let first = Signals::new(&[SIGUSR1]).unwrap();
        let second = Signals::new(&[SIGUSR2, SIGHUP]).unwrap();
        drop(first);
        assert_eq!(blocked(), before | bits(&[SIGUSR2, SIGHUP]));
        raise(SIGUSR2);
        assert_eq!(second.wait().unwrap(), SIGUSR2);
        drop(second);
        assert_eq!(blocked(), before);
    });
}

#[test]
fn what_was_blocked_before_stays_so() {
    guarded(|| {
        let outer = Signals::new(&[SIGUSR1]).unwrap();
        let with_outer = blocked();
        drop(Signals::new(&[SIGUSR1, SIGUSR2]).unwrap());
        assert_eq!(blocked(), with_outer);
        raise(SIGUSR1);
        assert_eq!(outer.wait().unwrap(), SIGUSR1);
    });
}

#[test]
fn a_number_that_is_no_signal_is_invalid_and_nothing_is_blocked() {
    guarded(|| {
        let before = blocked();
        for number in [0, -1, 1000] {
            let error = Signals::new(&[SIGUSR1, number]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{number}");
        }
        assert_eq!(blocked(), before);
    });
}

#[test]
fn a_killed_waiter_restores_what_was_blocked() {
    guarded(|| {
        let before = blocked();
        let waiter = spawn(|| Signals::new(&[SIGUSR1]).unwrap().wait().unwrap());
        sleep(NOW);
        assert_ne!(blocked(), before);
        waiter.kill();
        assert_eq!(blocked(), before);
    });
}

#[test]
fn one_that_nobody_waited_for_is_delivered_after_all() {
    const NAME: &str = "one_that_nobody_waited_for_is_delivered_after_all";
    if child::is_child() {
        let signals = Signals::new(&[SIGTERM]).unwrap();
        raise(SIGTERM);
        sleep(MS);
        println!("still here");
        drop(signals);
        println!("and here");
        return;
    }
    guarded(|| {
        let output = child::run(NAME);
        let text = child::text_of(&output);
        assert_eq!(output.status.signal(), Some(SIGTERM), "{text}");
        assert!(text.contains("still here") && !text.contains("and here"), "{text}");
    });
}

#[test]
fn a_signal_to_the_process_is_waited_for_where_all_threads_block_it() {
    const NAME: &str = "a_signal_to_the_process_is_waited_for_where_all_threads_block_it";
    if child::is_child() {
        // Blocked on all threads, as it was when the program started.
        assert_eq!(blocked() & bits(&[SIGTERM]), bits(&[SIGTERM]));
        let signals = Signals::new(&[SIGTERM]).unwrap();
        let waiter = spawn(move || signals.wait().unwrap());
        sleep(NOW);
        let mut kill = Command::new("kill");
        assert!(kill.args(["-TERM", &std::process::id().to_string()]).status().unwrap().success());
        assert_eq!(waiter.wait(), SIGTERM);
        println!("waited for");
        return;
    }
    guarded(|| {
        let mut command = child::command(NAME);
        let block = || {
            let _blocked = mem::ManuallyDrop::new(Signals::new(&[SIGTERM])?);
            Ok(())
        };
        // SAFETY: the child of the fork makes system calls, and allocates, which glibc allows
        // there.
        unsafe { command.pre_exec(block) };
        let output = command.output().unwrap();
        let text = child::text_of(&output);
        assert!(output.status.success() && text.contains("waited for"), "{text}");
    });
}
