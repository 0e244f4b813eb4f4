//! `MemoryStream`: what a connection does, without a network.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use crate::util::leak::{guarded, simulated};
use stolon::green::net::MemoryStream;
use stolon::hub::{self, simulate_seeds};
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn read_once(mut stream: &MemoryStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = vec![0; 8];
    let count = stream.read(&mut bytes).map_err(|e| e.kind())?;
    bytes.truncate(count);
    Ok(bytes)
}

#[test]
fn all_bytes_arrive_in_order_however_small_the_room_is() {
    guarded(|| {
        simulate_seeds(0..30, || {
            for capacity_bytes in [1, 3, 1000] {
                let (mut near, mut far) = MemoryStream::pair_with_capacity(capacity_bytes);
                let sent: Vec<u8> = (0..2000).map(|n| (n % 251) as u8).collect();
                let expected = sent.clone();
                let writer = spawn(move || {
                    for chunk in sent.chunks(7) {
                        near.write_all(chunk).unwrap();
                    }
                });
                let mut received = Vec::new();
                far.read_to_end(&mut received).unwrap();
                assert!(received == expected, "{capacity_bytes}");
                writer.wait();
            }
        });
    });
}

#[test]
fn both_directions_are_independent() {
    simulated(|| {
        let (near, far) = MemoryStream::pair_with_capacity(4);
        let (near, far) = (Rc::new(near), Rc::new(far));
        let talk = |stream: &Rc<MemoryStream>| {
            let [reads, writes] = [(); 2].map(|()| Rc::clone(stream));
            let reader = spawn(move || (&*reads).read_exact(&mut [0; 100]).unwrap());
            let writer = spawn(move || (&*writes).write_all(&[7; 100]).unwrap());
            [reader, writer]
        };
        let all = [talk(&near), talk(&far)];
        all.iter().flatten().for_each(GreenThread::wait);
    });
}

#[test]
fn a_read_takes_what_there_is_and_a_write_gives_what_there_is_room_for() {
    simulated(|| {
        let (near, far) = MemoryStream::pair_with_capacity(6);
        assert_eq!((&near).write(b"abcdefgh").unwrap(), 6);
        far.set_nonblocking(true).unwrap();
        assert_eq!((&far).read(&mut [0; 4]).unwrap(), 4);
        // Now it lies in two pieces.
        assert_eq!((&near).write(b"ghij").unwrap(), 4);
        assert_eq!(read_once(&far).unwrap(), b"efghij");
        assert_eq!(read_once(&far).unwrap_err(), ErrorKind::WouldBlock);
        assert_eq!((&far).read(&mut []).unwrap(), 0);
        assert_eq!((&far).write(b"").unwrap(), 0);
        assert_eq!(format!("{near:?}"), "MemoryStream(0 bytes to read, 0 under way)");
    });
}

#[test]
fn the_end_comes_after_the_last_byte_and_writing_to_nobody_is_a_broken_pipe() {
    simulated(|| {
        let (mut near, far) = MemoryStream::pair();
        near.write_all(b"last").unwrap();
        drop(near);
        assert_eq!(read_once(&far).unwrap(), b"last");
        assert_eq!(read_once(&far).unwrap(), b"");
        assert_eq!((&far).write(b"!").unwrap_err().kind(), ErrorKind::BrokenPipe);

        let (near, far) = MemoryStream::pair();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&near).write(b"!").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(read_once(&far).unwrap(), b"");
        (&far).write_all(b"back").unwrap();
        assert_eq!(read_once(&near).unwrap(), b"back");
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!((&far).write(b"!").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn who_waits_is_woken_when_the_other_end_goes() {
    simulated(|| {
        let (near, far) = MemoryStream::pair_with_capacity(1);
        let near = Rc::new(near);
        (&*near).write_all(b"!").unwrap();
        let [reads, writes] = [(); 2].map(|()| Rc::clone(&near));
        let reader = spawn(move || read_once(&reads));
        let writer = spawn(move || (&*writes).write(b"!").map_err(|e| e.kind()));
        sleep(NOW);
        drop(far);
        assert_eq!(reader.wait().unwrap(), b"");
        assert_eq!(writer.wait().unwrap_err(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn timeouts_are_kept_to_the_moment_and_a_byte_in_time_is_read() {
    simulated(|| {
        let (near, mut far) = MemoryStream::pair_with_capacity(1);
        near.set_read_timeout(Some(HOUR)).unwrap();
        near.set_write_timeout(Some(MS)).unwrap();
        assert_eq!(
            (near.read_timeout().unwrap(), near.write_timeout().unwrap()),
            (Some(HOUR), Some(MS))
        );
        assert_eq!(near.set_read_timeout(Some(NOW)).unwrap_err().kind(), ErrorKind::InvalidInput);
        let start = hub::now();
        assert_eq!(read_once(&near).unwrap_err(), ErrorKind::TimedOut);
        assert_eq!(hub::now() - start, HOUR);
        (&near).write_all(b"!").unwrap();
        assert_eq!((&near).write(b"!").unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(hub::now() - start, HOUR + MS);
        let writer = spawn(move || {
            sleep(HOUR - MS);
            far.write_all(b"in time").unwrap();
        });
        assert_eq!(read_once(&near).unwrap(), b"i");
        drop(near);
        assert!(writer.join().is_err(), "the others go nowhere");
    });
}

#[test]
fn a_second_reader_gets_an_error_and_the_first_its_byte() {
    simulated(|| {
        let (near, far) = MemoryStream::pair();
        let near = Rc::new(near);
        let start = || {
            let near = Rc::clone(&near);
            spawn(move || read_once(&near))
        };
        let (first, second) = (start(), start());
        assert_eq!(second.wait().unwrap_err(), ErrorKind::Other);
        (&far).write_all(b"!").unwrap();
        // It was woken and had no turn yet: the direction is still its own.
        assert!((&*near).read(&mut [0]).unwrap_err().to_string().contains("another green thread"));
        assert_eq!(first.wait().unwrap(), b"!");
    });
}

#[test]
fn a_reader_that_is_killed_loses_no_byte_for_the_next() {
    simulated(|| {
        let (near, far) = MemoryStream::pair();
        let near = Rc::new(near);
        for woken in [false, true] {
            let reads = Rc::clone(&near);
            let killed = spawn(move || read_once(&reads));
            sleep(NOW);
            if woken {
                (&far).write_all(b"!").unwrap();
            }
            killed.kill();
            assert!(killed.join().is_err());
        }
        assert_eq!(read_once(&near).unwrap(), b"!");
    });
}
