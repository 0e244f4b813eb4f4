//! The poller by itself: what it reports, when, and what it leaves to its caller.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use stolon::poller::{Event, Events, Interest, Poller, Token};

const TOKEN: Token = Token::new(1, 1);
const OTHER: Token = Token::new(2, 1);

/// Longer than any test takes: a wait that needs it has failed.
const LONG: Option<Duration> = Some(Duration::from_secs(60));
const NOW: Option<Duration> = Some(Duration::ZERO);

/// A connected pair that does not block.
fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// A pipe: the end to read from, the end to write to.
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: the pointer is valid for writing two descriptors.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: the kernel has just made them, and nobody else knows of them.
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

/// What one wait brings.
fn wait(poller: &Poller, timeout: Option<Duration>) -> Vec<Event> {
    let mut events = Events::with_capacity(16);
    poller.wait(&mut events, timeout).unwrap();
    events.iter().collect()
}

/// The one event that a wait brings.
fn wait_for_one(poller: &Poller) -> Event {
    let events = wait(poller, LONG);
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]
}

/// Adds a descriptor and takes the event which says that there is room to write.
fn add_quietly(poller: &Poller, fd: BorrowedFd<'_>) {
    poller.add(fd, TOKEN).unwrap();
    let event = wait_for_one(poller);
    assert!(event.is_writable() && !event.is_readable());
}

#[test]
fn nothing_watched_brings_nothing() {
    assert!(wait(&Poller::new().unwrap(), NOW).is_empty());
}

#[test]
fn arriving_data_makes_readable_under_the_token_given() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    add_quietly(&poller, far.as_fd());
    near.write_all(b"x").unwrap();
    let event = wait_for_one(&poller);
    assert_eq!(event.token(), TOKEN);
    assert!(event.is_readable() && !event.is_read_closed() && !event.is_hangup());
}

#[test]
fn an_edge_is_reported_once() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    add_quietly(&poller, far.as_fd());
    near.write_all(b"x").unwrap();
    wait_for_one(&poller);
    // The byte is still there.
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn more_data_is_a_new_edge_even_if_the_former_was_not_read() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    add_quietly(&poller, far.as_fd());
    for _ in 0..3 {
        near.write_all(b"x").unwrap();
        assert!(wait_for_one(&poller).is_readable());
    }
}

#[test]
fn one_registration_serves_both_directions() {
    let poller = Poller::new().unwrap();
    let (mut near, mut far) = pair();
    add_quietly(&poller, far.as_fd());
    let filler = [0; 65_536];
    while far.write(&filler).is_ok() {}
    assert!(wait(&poller, NOW).is_empty());

    near.write_all(b"x").unwrap();
    let event = wait_for_one(&poller);
    assert!(event.is_readable() && !event.is_writable());

    let mut sink = vec![0; 65_536];
    while near.read(&mut sink).is_ok() {}
    assert!(wait_for_one(&poller).is_writable());
}

#[test]
fn what_is_ready_when_it_is_added_is_reported() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    near.write_all(b"x").unwrap();
    poller.add(far.as_fd(), TOKEN).unwrap();
    let event = wait_for_one(&poller);
    assert!(event.is_readable() && event.is_writable());
}

#[test]
fn a_level_is_reported_for_as_long_as_it_lasts() {
    let poller = Poller::new().unwrap();
    let (mut near, mut far) = pair();
    poller.add_with(far.as_fd(), TOKEN, Interest::READABLE.level()).unwrap();
    assert!(wait(&poller, NOW).is_empty());
    near.write_all(b"x").unwrap();
    assert!(wait_for_one(&poller).is_readable());
    assert!(wait_for_one(&poller).is_readable());
    far.read_exact(&mut [0]).unwrap();
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn one_direction_alone_can_be_watched_and_changed() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    near.write_all(b"x").unwrap();
    poller.add_with(far.as_fd(), TOKEN, Interest::WRITABLE).unwrap();
    let event = wait_for_one(&poller);
    assert!(event.is_writable() && !event.is_readable());
    poller.modify(far.as_fd(), OTHER, Interest::READABLE).unwrap();
    let event = wait_for_one(&poller);
    assert!(event.is_readable() && !event.is_writable());
    assert_eq!(event.token(), OTHER);
}

#[test]
fn a_peer_that_shuts_down_writing_closes_reading_only() {
    let poller = Poller::new().unwrap();
    let (near, far) = pair();
    add_quietly(&poller, far.as_fd());
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let event = wait_for_one(&poller);
    assert!(event.is_readable() && event.is_read_closed() && !event.is_hangup());
}

#[test]
fn a_peer_that_closes_hangs_up_and_wakes_both_directions() {
    let poller = Poller::new().unwrap();
    let (near, far) = pair();
    add_quietly(&poller, far.as_fd());
    drop(near);
    let event = wait_for_one(&poller);
    assert!(event.is_hangup() && event.is_read_closed());
    assert!(event.is_readable() && event.is_writable());
}

#[test]
fn an_error_wakes_both_directions() {
    let poller = Poller::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    add_quietly(&poller, near.as_fd());
    // Closing with unread data resets the connection.
    (&near).write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    (&near).write_all(b"y").unwrap();
    while far.peek(&mut [0]).unwrap() == 0 {}
    drop(far);
    let mut event = wait_for_one(&poller);
    while !event.is_error() {
        event = wait_for_one(&poller);
    }
    assert!(event.is_readable() && event.is_writable());
    let reason = near.take_error().unwrap().unwrap();
    assert_eq!(reason.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_writer_whose_reader_is_gone_gets_an_error_event() {
    let poller = Poller::new().unwrap();
    let (reader, writer) = pipe();
    add_quietly(&poller, writer.as_fd());
    drop(reader);
    let event = wait_for_one(&poller);
    assert!(event.is_error() && event.is_writable());
}

#[test]
fn a_deleted_descriptor_is_silent() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    add_quietly(&poller, far.as_fd());
    poller.delete(far.as_fd()).unwrap();
    near.write_all(b"x").unwrap();
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn a_descriptor_that_is_not_watched_can_be_neither_deleted_nor_changed() {
    let poller = Poller::new().unwrap();
    let (near, _far) = pair();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(poller.delete(near.as_fd())), io::ErrorKind::NotFound);
    let modified = poller.modify(near.as_fd(), TOKEN, Interest::BOTH);
    assert_eq!(kind(modified), io::ErrorKind::NotFound);
}

#[test]
fn adding_again_replaces_the_token_and_reports_anew() {
    let poller = Poller::new().unwrap();
    let (_near, far) = pair();
    add_quietly(&poller, far.as_fd());
    poller.add(far.as_fd(), OTHER).unwrap();
    let event = wait_for_one(&poller);
    assert!(event.is_writable() && event.token() == OTHER);
}

#[test]
fn a_closed_descriptor_is_forgotten() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    add_quietly(&poller, far.as_fd());
    drop(far);
    assert!(near.write_all(b"x").is_err());
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn a_closed_descriptor_with_a_duplicate_reports_under_its_old_token() {
    let poller = Poller::new().unwrap();
    let (mut near, far) = pair();
    add_quietly(&poller, far.as_fd());
    let duplicate = far.try_clone().unwrap();
    drop(far);
    near.write_all(b"x").unwrap();
    assert_eq!(wait_for_one(&poller).token(), TOKEN);
    drop(duplicate);
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn the_reserved_token_is_refused() {
    let poller = Poller::new().unwrap();
    let (near, _far) = pair();
    let error = poller.add(near.as_fd(), Token::RESERVED).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_regular_file_is_refused_with_eperm() {
    let poller = Poller::new().unwrap();
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let error = poller.add(file.as_fd(), TOKEN).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

#[test]
fn a_descriptor_that_is_not_open_for_input_or_output_is_refused_with_ebadf() {
    let poller = Poller::new().unwrap();
    let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/").unwrap();
    let error = poller.add(path.as_fd(), TOKEN).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn more_events_than_there_is_room_for_come_with_the_next_waits() {
    let poller = Poller::new().unwrap();
    let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
    for (slot, (near, _)) in pairs.iter().enumerate() {
        poller.add(near.as_fd(), Token::new(slot as u32, 0)).unwrap();
    }
    let mut events = Events::with_capacity(4);
    let mut slots = Vec::new();
    while slots.len() < 10 {
        poller.wait(&mut events, LONG).unwrap();
        assert!(!events.is_empty() && events.len() <= events.capacity());
        slots.extend(events.iter().map(|event| event.token().slot()));
    }
    slots.sort();
    assert_eq!(slots, (0..10).collect::<Vec<_>>());
}

#[test]
fn room_for_nothing_is_room_for_one() {
    assert_eq!(Events::with_capacity(0).capacity(), 1);
}

#[test]
fn a_wait_replaces_the_events_of_the_one_before() {
    let poller = Poller::new().unwrap();
    let (near, _far) = pair();
    poller.add(near.as_fd(), TOKEN).unwrap();
    poller.notify().unwrap();
    let mut events = Events::new();
    poller.wait(&mut events, LONG).unwrap();
    assert!(events.len() == 1 && events.get(0).is_some() && events.is_notified());
    poller.wait(&mut events, NOW).unwrap();
    assert!(events.is_empty() && events.get(0).is_none() && !events.is_notified());
}

#[test]
fn a_timeout_is_never_cut_short() {
    let poller = Poller::new().unwrap();
    let mut events = Events::new();
    for timeout_ns in [1, 999, 100_000, 1_000_000, 1_000_001, 1_500_000, 2_999_999] {
        let timeout = Duration::from_nanos(timeout_ns);
        let start = Instant::now();
        poller.wait(&mut events, Some(timeout)).unwrap();
        assert!(start.elapsed() >= timeout, "{:?} < {timeout:?}", start.elapsed());
        assert!(events.is_empty() && !events.is_notified());
    }
}

#[test]
fn an_endless_timeout_is_ended_by_an_event() {
    let poller = Poller::new().unwrap();
    for timeout in [None, Some(Duration::MAX), Some(Duration::from_nanos(u64::MAX))] {
        poller.notify().unwrap();
        assert!(wait(&poller, timeout).is_empty());
    }
}

#[test]
fn a_notification_ends_the_next_wait_once() {
    let poller = Poller::new().unwrap();
    let mut events = Events::new();
    for _ in 0..3 {
        poller.notify().unwrap();
        poller.notify().unwrap();
        poller.wait(&mut events, LONG).unwrap();
        assert!(events.is_notified() && events.is_empty());
        poller.wait(&mut events, NOW).unwrap();
        assert!(!events.is_notified());
    }
}

#[test]
fn every_notification_of_another_thread_ends_a_wait() {
    const ROUNDS: usize = 1_000;
    let poller = Arc::new(Poller::new().unwrap());
    let waker = poller.waker().unwrap();
    let (seen, see) = mpsc::channel();
    let other = thread::spawn(move || {
        for _ in 0..ROUNDS {
            waker.notify().unwrap();
            see.recv().unwrap();
        }
    });
    let mut events = Events::new();
    for _ in 0..ROUNDS {
        poller.wait(&mut events, LONG).unwrap();
        assert!(events.is_notified());
        seen.send(()).unwrap();
    }
    other.join().unwrap();
}

#[test]
fn threads_that_make_the_waker_at_once_share_it() {
    for _ in 0..100 {
        let poller = Poller::new().unwrap();
        let start = Barrier::new(2);
        let notify = || {
            start.wait();
            poller.notify().unwrap();
        };
        thread::scope(|scope| {
            scope.spawn(notify);
            scope.spawn(notify);
        });
        let mut events = Events::new();
        poller.wait(&mut events, LONG).unwrap();
        assert!(events.is_notified() && events.is_empty());
    }
}

#[test]
fn a_waker_may_outlive_its_poller() {
    let waker = Poller::new().unwrap().waker().unwrap();
    waker.notify().unwrap();
}

#[test]
fn a_poller_can_be_watched_by_another() {
    let (inner, outer) = (Poller::new().unwrap(), Poller::new().unwrap());
    outer.add(inner.as_fd(), TOKEN).unwrap();
    assert!(wait(&outer, NOW).is_empty());
    inner.notify().unwrap();
    assert!(wait_for_one(&outer).is_readable());
}

#[test]
fn a_signal_ends_a_wait_without_an_error() {
    extern "C" fn ignore(_signal: libc::c_int) {}

    // Not an action that restarts system calls, though that would make no difference to a wait.
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a valid `sigaction`, and the pointer to the handler's field is into it;
    // the handler does nothing, so it may interrupt anything.
    unsafe {
        (*action.as_mut_ptr()).sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, action.as_ptr(), ptr::null_mut()), 0);
    }

    let (done, is_done) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let poller = Poller::new().unwrap();
        let mut events = Events::new();
        for timeout in [LONG, None] {
            let start = Instant::now();
            let result = poller.wait(&mut events, timeout);
            done.send((result, events.len(), start.elapsed() < LONG.unwrap())).unwrap();
        }
    });
    for _ in 0..2 {
        // The signal may come before the wait, or after it; so it is sent until the wait is over.
        let (result, count, early) = loop {
            // SAFETY: the thread has not been joined, so its handle is valid.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
            match is_done.recv_timeout(Duration::from_millis(1)) {
                Ok(report) => break report,
                Err(error) => assert_eq!(error, mpsc::RecvTimeoutError::Timeout),
            }
        };
        result.unwrap();
        assert!(count == 0 && early);
    }
    waiter.join().unwrap();
}
