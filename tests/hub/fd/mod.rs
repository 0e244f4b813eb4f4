//! Descriptors and the hub: waiting for any of them, who comes second, what becomes of those that
//! wait when one is closed.
#![allow(unsafe_code)]

mod closing;
mod lines;
mod waiting;

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::hub::trampoline;
use stolon::poller::Interest;
use stolon::{GreenThread, sleep, spawn};

use crate::util::child;
use crate::util::leak::alone;
use crate::util::server::eventually;
use crate::util::sockets::pipe;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

type Outcome = Result<(), ErrorKind>;
type Log = Rc<RefCell<Vec<&'static str>>>;

/// A number as a descriptor, which may be closed.
fn borrowed(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: what is done with it is to wait, which harms no memory whatever the number means.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn close(fd: RawFd) {
    // SAFETY: a plain system call; the tests close what they have taken out of its owner.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

/// Starts to wait for a number.
fn waiting(fd: RawFd, interest: Interest) -> GreenThread<Outcome> {
    let wait = move || trampoline(borrowed(fd), interest, None).map_err(|error| error.kind());
    let green = spawn(wait);
    sleep(NOW);
    green
}

/// The descriptors that this process's pollers watch.
fn watched() -> Vec<RawFd> {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
    let number = |line: &str| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok();
    let watched = infos.flat_map(|info| info.lines().filter_map(number).collect::<Vec<RawFd>>());
    // The poller's own are not counted.
    let is_own = |fd: &RawFd| {
        let file = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        let own = ["[timerfd]", "[eventfd]"];
        file.is_ok_and(|file| own.iter().any(|own| file.to_string_lossy().contains(own)))
    };
    watched.filter(|fd| !is_own(fd)).collect()
}

// HB-12.
#[test]
fn a_process_that_is_stopped_and_continued_while_it_waits_goes_on_waiting() {
    if child::is_child() {
        let (reader, _writer) = pipe();
        let start = Instant::now();
        println!("waiting");
        let error = trampoline(&reader, Interest::READABLE, Some(300 * MS)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= 300 * MS);
        println!("on time");
        return;
    }
    alone(|| {
        stop_and_continue("a_process_that_is_stopped_and_continued_while_it_waits_goes_on_waiting")
    });
}

/// Runs the test `name` as a child, which says when it waits, and stops it a few times meanwhile.
fn stop_and_continue(name: &str) {
    let mut command = child::command(name);
    let piped = command.stdout(std::process::Stdio::piped());
    let mut process = piped.spawn().unwrap();
    let mut stdout = io::BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting") {
        line.clear();
        assert_ne!(io::BufRead::read_line(&mut stdout, &mut line).unwrap(), 0);
    }
    let (pid, stat) = (process.id(), format!("/proc/{}/stat", process.id()));
    let state = || {
        let stat = std::fs::read_to_string(&stat).unwrap();
        stat.rsplit(") ").next().and_then(|fields| fields.chars().next()).unwrap()
    };
    // SAFETY: plain system calls; the child was not waited for, so the number is still its.
    let signal = |number| assert_eq!(unsafe { libc::kill(pid as libc::pid_t, number) }, 0);
    for _ in 0..3 {
        signal(libc::SIGSTOP);
        eventually("the child is stopped", || state() == 'T');
        signal(libc::SIGCONT);
        eventually("the child goes on", || state() != 'T');
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("on time"), "{rest}");
    assert!(process.wait().unwrap().success());
}
