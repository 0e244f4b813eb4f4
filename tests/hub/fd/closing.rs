//! HB-09 and corner 14: closing what others wait for.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

use stolon::debug::hub_prevent_multiple_readers;
use stolon::green::net::TcpStream;
use stolon::hub::{notify_close, trampoline};
use stolon::poller::Interest;
use stolon::{sleep, spawn};

use super::{Log, MS, NOW, borrowed, close, waiting, watched};
use crate::util::leak::guarded;
use crate::util::sockets::{fill, pair, read_once};

#[test]
fn news_of_a_close_wakes_every_waiter_with_an_error_in_order_and_at_once() {
    guarded(|| {
        hub_prevent_multiple_readers(false);
        let (near, _far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[1; 4096]).is_ok() {}
        let (fd, log) = (near.as_raw_fd(), Log::default());
        let wait = |(name, interest): (&'static str, Interest)| {
            let log = Rc::clone(&log);
            let green = spawn(move || {
                let outcome = trampoline(borrowed(fd), interest, None).map_err(|e| e.kind());
                log.borrow_mut().push(name);
                assert_ne!(name, "fails", "a waiter that fails");
                outcome
            });
            sleep(NOW);
            green
        };
        let greens = [
            ("first", Interest::READABLE),
            ("fails", Interest::READABLE),
            ("third", Interest::READABLE),
            ("writer", Interest::WRITABLE),
        ]
        .map(wait);
        notify_close(fd);
        close(near.into_raw_fd());
        let later = Rc::clone(&log);
        spawn(move || later.borrow_mut().push("later"));
        sleep(NOW);
        let all_in_this_pass = ["first", "fails", "third", "writer", "later"];
        assert_eq!(*log.borrow(), all_in_this_pass);
        for (at, green) in greens.into_iter().enumerate() {
            match green.join() {
                Ok(outcome) => assert_eq!(outcome, Err(ErrorKind::NotConnected)),
                Err(_) => assert_eq!(at, 1, "one that fails is nobody else's trouble"),
            }
        }
        assert!(watched().is_empty());
    });
}

#[test]
fn a_green_socket_that_was_closed_behind_its_back_is_of_no_use() {
    guarded(|| {
        let (near, far) = pair();
        let far = Rc::new(far);
        let reader = read_once(&far);
        sleep(NOW);
        notify_close(far.as_raw_fd());
        assert_eq!(reader.wait(), Err(ErrorKind::NotConnected));
        (&near).write_all(b"byte").unwrap();
        for nonblocking in [false, true] {
            far.set_nonblocking(nonblocking).unwrap();
            let error = (&*far).read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected);
            let error = (&*far).write(b"byte").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected);
        }
        // Telling twice, or of what nobody knows, is fine.
        notify_close(far.as_raw_fd());
        notify_close(-1);
        notify_close(RawFd::MAX);
    });
}

#[test]
fn a_close_comes_before_a_timeout_of_the_same_pass() {
    guarded(|| {
        let (near, _far) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        let wait = move || trampoline(borrowed(fd), Interest::READABLE, Some(MS));
        let green = spawn(move || wait().map_err(|error| error.kind()));
        sleep(NOW);
        let start = Instant::now();
        while start.elapsed() < 2 * MS {}
        notify_close(fd);
        assert_eq!(green.wait(), Err(ErrorKind::NotConnected));
    });
}

#[test]
fn closing_a_green_socket_wakes_those_that_wait_for_its_number() {
    guarded(|| {
        let closing: [fn(TcpStream); 3] = [
            drop,
            |socket| drop(std::net::TcpStream::from(socket)),
            |socket| {
                close(socket.into_raw_fd());
            },
        ];
        for close in closing {
            let (near, far) = pair();
            // It is registered from now on.
            far.set_read_timeout(Some(MS)).unwrap();
            assert!((&far).read(&mut [0]).is_err());
            let waits = waiting(far.as_raw_fd(), Interest::READABLE);
            close(far);
            assert_eq!(waits.wait(), Err(ErrorKind::NotConnected));
            drop(near);
        }
    });
}

#[test]
fn a_number_that_is_another_files_wakes_those_that_wait_for_the_file_before() {
    guarded(|| {
        // By a green socket, and by a visitor; with the file closed, and living on elsewhere.
        for (by_socket, lives_on) in [(true, false), (true, true), (false, false), (false, true)] {
            let (old, _old_far) = UnixStream::pair().unwrap();
            let duplicate = lives_on.then(|| old.try_clone().unwrap());
            let old = old.into_raw_fd();
            let forgotten = waiting(old, Interest::READABLE);
            close(old);
            let (reused, other) = UnixStream::pair().unwrap();
            let reused = &TcpStream::from(OwnedFd::from(reused));
            assert_eq!(reused.as_raw_fd(), old, "the number is used again");
            assert!(!forgotten.is_dead());
            if by_socket {
                reused.set_read_timeout(Some(MS)).unwrap();
                let error = { reused }.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
            } else {
                let error = trampoline(reused, Interest::READABLE, Some(MS)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
            }
            assert_eq!(forgotten.wait(), Err(ErrorKind::NotConnected));
            // Whatever happens to the old file does not wake those who wait for the new one.
            let waits = waiting(old, Interest::READABLE);
            drop((duplicate, _old_far));
            sleep(2 * MS);
            assert!(!waits.is_dead());
            (&other).write_all(b"byte").unwrap();
            assert_eq!(waits.wait(), Ok(()));
        }
    });
}

#[test]
fn a_green_socket_and_a_visitor_share_a_registration() {
    guarded(|| {
        let (near, far) = pair();
        // The visitor comes first, then the socket; they wait in different directions.
        fill(&far);
        let far = Rc::new(far);
        let visitor = waiting(far.as_raw_fd(), Interest::WRITABLE);
        let reader = read_once(&far);
        sleep(NOW);
        let its = || watched().iter().filter(|fd| **fd == far.as_raw_fd()).count();
        assert_eq!(its(), 1);
        (&near).write_all(b"byte").unwrap();
        assert_eq!(reader.wait().unwrap(), b"byte");
        visitor.kill();
        assert_eq!(its(), 1);
        // The visitor's end has not ended the registration: the socket is still told.
        let reader = read_once(&far);
        sleep(NOW);
        (&near).write_all(b"more").unwrap();
        assert_eq!(reader.wait().unwrap(), b"more");
        // And a visitor sees what the socket has been told of already.
        (&near).write_all(b"last").unwrap();
        for _ in 0..2 {
            trampoline(&*far, Interest::READABLE, None).unwrap();
        }
        assert_eq!(read_once(&far).wait().unwrap(), b"last");
    });
}
