//! Time limits of green TCP sockets: when they strike, and that nothing is lost by it.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::sockets::{fill, pair, read_once, silent_addr};
use stolon::green::net::TcpStream;
use stolon::{sleep, spawn};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_read_times_out_and_loses_nothing() {
    guarded(|| {
        let (near, far) = pair();
        far.set_read_timeout(Some(5 * MS)).unwrap();
        for turn in 0..3_u8 {
            let start = Instant::now();
            let error = (&far).read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(start.elapsed() >= 5 * MS);
            (&near).write_all(&[turn; 4]).unwrap();
            // What has come in meanwhile is there, however late it is read.
            sleep(MS);
            let mut bytes = [9; 4];
            (&far).read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, [turn; 4]);
        }
    });
}

#[test]
fn a_peek_times_out() {
    guarded(|| {
        let (_near, far) = pair();
        far.set_read_timeout(Some(MS)).unwrap();
        assert_eq!(far.peek(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_write_times_out_and_goes_on_when_there_is_room() {
    guarded(|| {
        let (near, far) = pair();
        fill(&near);
        near.set_write_timeout(Some(5 * MS)).unwrap();
        for _ in 0..2 {
            let error = (&near).write(&[2; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        let reader = spawn(move || {
            let mut bytes = Vec::new();
            (&far).read_to_end(&mut bytes).unwrap();
            bytes
        });
        near.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        (&near).write_all(&[3; 8]).unwrap();
        drop(near);
        let bytes = reader.wait();
        // What timed out has sent nothing.
        assert!(!bytes.contains(&2) && bytes.ends_with(&[1, 3, 3, 3, 3, 3, 3, 3, 3]));
    });
}

#[test]
fn a_deadline_covers_the_whole_of_one_read() {
    guarded(|| {
        let (near, far) = pair();
        let (trigger, waiting) = pair();
        let clone = far.try_clone().unwrap();
        clone.set_nonblocking(true).unwrap();
        far.set_read_timeout(Some(40 * MS)).unwrap();
        let reader = read_once(&Rc::new(far));
        let thief = spawn(move || {
            while (&waiting).read(&mut [0]).unwrap() > 0 {
                assert_eq!((&clone).read(&mut [0]).unwrap(), 1);
            }
        });
        // So that the first events, of room to write, are over.
        sleep(MS);
        // One look at the descriptors wakes both, the thief first: when the reader looks, there is
        // nothing any more.
        let feeder = spawn(move || {
            for _ in 0..200 {
                (&trigger).write_all(b"!").unwrap();
                (&near).write_all(b"x").unwrap();
                sleep(2 * MS);
            }
        });
        assert_eq!(reader.wait(), Err(ErrorKind::TimedOut));
        assert!(!feeder.is_dead());
        feeder.kill();
        thief.wait();
    });
}

#[test]
fn timeout_then_non_blocking_then_timeout_again() {
    guarded(|| {
        let (_near, far) = pair();
        far.set_read_timeout(Some(2 * MS)).unwrap();
        let kind = || (&far).read(&mut [0; 8]).unwrap_err().kind();
        assert_eq!(kind(), ErrorKind::TimedOut);
        far.set_nonblocking(true).unwrap();
        assert_eq!(kind(), ErrorKind::WouldBlock);
        far.set_nonblocking(false).unwrap();
        assert_eq!(kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn connecting_to_one_that_does_not_answer_times_out_and_others_run() {
    guarded(|| {
        let (silent, _listener) = silent_addr();
        let ticks = Rc::new(Cell::new(0));
        let ticking = Rc::clone(&ticks);
        let ticker = spawn(move || {
            loop {
                sleep(MS);
                ticking.set(ticking.get() + 1);
            }
        });
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&silent, 30 * MS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= 30 * MS && ticks.get() > 0);
        ticker.kill();
    });
}
