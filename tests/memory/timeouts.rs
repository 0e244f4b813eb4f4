//! What timeouts that are cancelled leave on the heap: nothing that grows.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use stolon::clock::{Deadline, Time};
use stolon::green::net::{TcpListener, TcpStream};
use stolon::timers::Timers;
use stolon::{GreenThread, sleep, spawn};

use crate::growth;
use crate::util::leak;

const FAR: Duration = Duration::from_secs(3_600);

/// Fewer where an emulator is likely.
const TIMEOUTS: u64 = if cfg!(target_arch = "x86_64") { 10_000_000 } else { 1_000_000 };

/// So many are pending at a time.
const IN_FLIGHT: usize = 1_000;

/// Room for them, twice: a vector that grows has its old room beside its new one.
const BOUND: usize = 3 * 64 * 1_024;

#[test]
fn ten_million_timeouts_set_and_cancelled_leave_the_heap_bounded() {
    let growth = growth(|| {
        let (mut timers, mut in_flight) = (Timers::new(), VecDeque::with_capacity(IN_FLIGHT));
        for n in 0..TIMEOUTS {
            if in_flight.len() == IN_FLIGHT {
                // Mostly in the order in which they came, as answers to requests do.
                let from = if n % 64 == 0 { IN_FLIGHT / 2 } else { 0 };
                let oldest = in_flight.remove(from).expect("it is full");
                assert!(timers.cancel(oldest).is_some());
            }
            let deadline = Deadline::after(Time::from_ns(n * 1_000), FAR);
            in_flight.push_back(timers.insert(deadline, (1_u32, 2_u32)));
        }
        assert_eq!(timers.len(), IN_FLIGHT);
    });
    assert!(growth < BOUND, "{growth} bytes");
}

// HB-04: timers that were cancelled do not pile up.
#[test]
fn sleeps_that_are_cut_short_leave_the_heap_bounded() {
    leak::guarded(|| {
        let round = || {
            let sleepers: Vec<_> = (0..100).map(|_| spawn(|| sleep(FAR))).collect();
            sleep(Duration::ZERO);
            sleepers.iter().for_each(GreenThread::kill);
        };
        // So that as many have been alive before.
        (0..2).for_each(|_| round());
        let growth = growth(|| (0..200).for_each(|_| round()));
        assert!(growth < 16 * 1_024, "{growth} bytes");
    });
}

#[test]
fn reads_that_are_answered_before_their_timeout_leave_the_heap_bounded() {
    leak::guarded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let echo = spawn(move || {
            let mut byte = [0];
            far.set_read_timeout(Some(FAR)).unwrap();
            while far.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
                far.write_all(&byte).unwrap();
            }
        });
        near.set_nodelay(true).unwrap();
        near.set_read_timeout(Some(FAR)).unwrap();
        let mut ask = || {
            near.write_all(b"x").unwrap();
            near.read_exact(&mut [0]).unwrap();
        };
        (0..10).for_each(|_| ask());
        assert_eq!(growth(|| (0..5_000).for_each(|_| ask())), 0);

        // And the timer that does fire is not there any more either.
        near.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = near.read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
        drop(near);
        echo.wait();
    });
}
