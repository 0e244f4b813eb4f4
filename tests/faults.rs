//! Green sockets on a kernel that interrupts, stalls, runs out of descriptors, resets and moves less
//! than it could: `src/sys/trouble.rs`, in place with `--cfg stolon_faults`.
#![cfg(stolon_faults)]

mod util;

use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use stolon::faults::{self, Counts, Rates};
use stolon::green::net::{TcpListener, TcpStream};
use stolon::hub::trampoline;
use stolon::poller::Interest;
use stolon::spawn;
use util::leak::guarded;
use util::sockets::{pair, pipe};

/// What is to be borne without a word.
const NUISANCES: Rates =
    Rates { interrupted: 200, would_block: 200, no_descriptor: 0, reset: 0, short: 500 };
const MS: Duration = Duration::from_millis(1);
const NONE: Rates = Rates { interrupted: 0, would_block: 0, no_descriptor: 0, reset: 0, short: 0 };

/// Sends bytes both ways, and returns what the double did meanwhile.
fn transfer(seed: u64) -> Counts {
    let (near, far) = pair();
    faults::start(seed, NUISANCES);
    let echo = spawn(move || {
        let mut chunk = [0; 1000];
        loop {
            match (&far).read(&mut chunk).unwrap() {
                0 => break,
                count => (&far).write_all(&chunk[..count]).unwrap(),
            }
        }
    });
    let near = Rc::new(near);
    let writing = Rc::clone(&near);
    let sent: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let expected = sent.clone();
    let writer = spawn(move || {
        (&*writing).write_all(&sent).unwrap();
        writing.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    (&*near).read_to_end(&mut received).unwrap();
    writer.wait();
    echo.wait();
    assert!(received == expected, "every byte arrives, once and in order");
    faults::stop()
}

#[test]
fn what_the_kernel_may_do_to_a_transfer_is_borne_without_a_word() {
    guarded(|| {
        for seed in 1..20 {
            let counts = transfer(seed);
            assert!(counts.interrupted > 10 && counts.would_block > 10, "{counts:?}");
            assert!(counts.short > 10, "{counts:?}");
        }
    });
}

#[test]
fn connections_are_made_though_the_kernel_interrupts_and_stalls() {
    guarded(|| {
        faults::start(7, NUISANCES);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = spawn(move || {
            for _ in 0..100 {
                listener.accept().unwrap().0.write_all(b"hello").unwrap();
            }
        });
        for _ in 0..100 {
            let mut text = String::new();
            TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        acceptor.wait();
        faults::stop();
    });
}

#[test]
fn an_acceptor_without_descriptors_is_told_and_goes_on() {
    guarded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        faults::start(1, Rates { no_descriptor: 500, ..NONE });
        let mut refused = 0;
        for _ in 0..50 {
            let _client = std::net::TcpStream::connect(addr).unwrap();
            // The connection is still there at the next try: no edge is needed for that.
            while let Err(error) = listener.accept() {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                refused += 1;
            }
        }
        assert_eq!(faults::stop().no_descriptor, refused);
        assert!(refused > 10);
    });
}

#[test]
fn what_is_ready_when_the_time_is_over_is_so_though_no_wait_has_said_it() {
    guarded(|| {
        let (reader, mut writer) = pipe();
        let wait = |timeout| trampoline(&reader, Interest::READABLE, Some(timeout));
        // Each wait for events is interrupted.
        faults::start(1, Rates { interrupted: 1000, ..NONE });
        assert_eq!(wait(MS).unwrap_err().kind(), ErrorKind::TimedOut);
        writer.write_all(b"byte").unwrap();
        wait(MS).unwrap();
        faults::stop();
    });
}

#[test]
fn a_reset_is_seen_by_both_sides() {
    guarded(|| {
        let (near, mut far) = pair();
        let reader = spawn(move || {
            let mut bytes = Vec::new();
            (&near).read_to_end(&mut bytes).map_err(|error| error.kind())
        });
        stolon::sleep(Duration::ZERO);
        faults::start(1, Rates { reset: 1000, ..NONE });
        let error = far.write(b"byte").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        faults::stop();
        assert_eq!(reader.wait(), Ok(0));
    });
}

#[test]
fn the_same_seed_brings_the_same_faults() {
    guarded(|| {
        // One stream and one thread: nothing but the seed decides.
        let run = |seed| {
            let (mut near, mut far) = pair();
            faults::start(seed, NUISANCES);
            let mut moved = Vec::new();
            for _ in 0..200 {
                moved.push(near.write(&[1; 100]).unwrap());
                let mut rest = *moved.last().unwrap();
                while rest > 0 {
                    let mut bytes = [0; 100];
                    let count = far.read(&mut bytes[..rest]).unwrap();
                    moved.push(count);
                    rest -= count;
                }
            }
            (moved, faults::stop())
        };
        assert_eq!(run(5).0, run(5).0);
        assert_ne!(run(5).0, run(6).0);
    });
}
