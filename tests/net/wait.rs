//! Waiting on green TCP sockets: who may, who wakes whom, and what is lost meanwhile (nothing).

use std::cell::Cell;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use crate::util::leak::guarded;
use crate::util::sockets::{closed_addr, fill, pair, read_once, reset, send_urgent, silent_addr};
use stolon::green::net::{TcpListener, TcpStream};
use stolon::{sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

// Who may wait.

#[test]
fn a_second_reader_gets_an_error_and_the_first_its_byte() {
    guarded(|| {
        let (near, far) = pair();
        let far = Rc::new(far);
        let first = read_once(&far);
        sleep(NOW);
        let error = (&*far).read(&mut [0; 8]).unwrap_err();
        let expected = format!("second simultaneous read on descriptor {}", far.as_raw_fd());
        assert!(error.to_string().contains(&expected), "{error}");
        assert!(!first.is_dead());
        (&near).write_all(b"1").unwrap();
        assert_eq!(first.wait().unwrap(), b"1");
        // Now it is another's turn.
        (&near).write_all(b"2").unwrap();
        assert_eq!(read_once(&far).wait().unwrap(), b"2");
    });
}

#[test]
fn a_reader_that_was_woken_keeps_its_byte_until_it_runs() {
    guarded(|| {
        let (near, far) = pair();
        let (trigger, waiting) = pair();
        let far = Rc::new(far);
        let first = read_once(&far);
        let contended = Rc::clone(&far);
        let second = spawn(move || {
            (&waiting).read_exact(&mut [0]).unwrap();
            (&*contended).read(&mut [0; 8]).map_err(|error| error.to_string())
        });
        sleep(MS);
        // One look at the descriptors wakes both, the second first.
        (&trigger).write_all(b"!").unwrap();
        (&near).write_all(b"1").unwrap();
        assert!(second.wait().unwrap_err().contains("second simultaneous read"));
        assert_eq!(first.wait().unwrap(), b"1");
    });
}

#[test]
fn a_second_writer_gets_an_error() {
    guarded(|| {
        let (near, far) = pair();
        fill(&near);
        let near = Rc::new(near);
        let writing = Rc::clone(&near);
        let first = spawn(move || (&*writing).write(&[2; 8]).unwrap());
        sleep(NOW);
        let error = (&*near).write(&[3; 8]).unwrap_err();
        assert!(error.to_string().contains("second simultaneous write"), "{error}");
        let reader = spawn(move || std::io::copy(&mut &far, &mut std::io::sink()).unwrap());
        assert_eq!(first.wait(), 8);
        drop(near);
        reader.wait();
    });
}

#[test]
fn a_writer_beside_a_reader_is_fine() {
    guarded(|| {
        let (near, far) = pair();
        fill(&near);
        let near = Rc::new(near);
        let reader = read_once(&near);
        let writing = Rc::clone(&near);
        let writer = spawn(move || (&*writing).write_all(b"end").unwrap());
        sleep(NOW);
        assert!(!reader.is_dead() && !writer.is_dead());
        (&far).write_all(b"byte").unwrap();
        assert_eq!(reader.wait().unwrap(), b"byte");
        assert!(!writer.is_dead());
        let rest = spawn(move || std::io::copy(&mut &far, &mut std::io::sink()).unwrap());
        writer.wait();
        drop(near);
        rest.wait();
    });
}

#[test]
fn a_second_acceptor_gets_an_error() {
    guarded(|| {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let accepting = Rc::clone(&listener);
        let first = spawn(move || accepting.accept().unwrap().1);
        sleep(NOW);
        let error = listener.accept().unwrap_err();
        assert!(error.to_string().contains("second simultaneous read"), "{error}");
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(first.wait(), near.local_addr().unwrap());
    });
}

#[test]
fn a_killed_reader_makes_room_for_another() {
    guarded(|| {
        let (near, far) = pair();
        let far = Rc::new(far);
        let victim = read_once(&far);
        sleep(NOW);
        victim.kill();
        let next = read_once(&far);
        sleep(NOW);
        (&near).write_all(b"byte").unwrap();
        assert_eq!(next.wait().unwrap(), b"byte");
    });
}

#[test]
fn a_green_thread_that_connects_in_vain_can_be_killed() {
    guarded(|| {
        let (silent, _listener) = silent_addr();
        let victim = spawn(move || drop(TcpStream::connect(silent)));
        sleep(MS);
        victim.kill();
        assert!(victim.join().is_err());
        assert!(TcpStream::connect(closed_addr()).is_err());
    });
}

#[test]
fn a_reader_that_is_killed_between_two_reads_has_taken_no_byte() {
    guarded(|| {
        let (near, far) = pair();
        (&near).write_all(&[7; 1000]).unwrap();
        let (far, taken) = (Rc::new(far), Rc::new(Cell::new(0)));
        let (reading, count) = (Rc::clone(&far), Rc::clone(&taken));
        let victim = spawn(move || {
            loop {
                (&*reading).read_exact(&mut [0]).unwrap();
                count.set(count.get() + 1);
            }
        });
        // After a few reads others have a turn: this one.
        sleep(NOW);
        victim.kill();
        drop(near);
        let mut rest = Vec::new();
        (&*far).read_to_end(&mut rest).unwrap();
        assert!(taken.get() > 0);
        assert_eq!(taken.get() + rest.len(), 1000);
    });
}

// Who wakes whom.

#[test]
fn a_shutdown_wakes_the_reader() {
    guarded(|| {
        for how in [Shutdown::Read, Shutdown::Both] {
            let (_near, far) = pair();
            let far = Rc::new(far);
            let reader = read_once(&far);
            sleep(NOW);
            far.shutdown(how).unwrap();
            assert_eq!(reader.wait().unwrap(), b"");
        }
    });
}

#[test]
fn a_shutdown_wakes_the_writer() {
    guarded(|| {
        let (near, _far) = pair();
        fill(&near);
        let near = Rc::new(near);
        let writing = Rc::clone(&near);
        let writer = spawn(move || (&*writing).write(b"more").unwrap_err().kind());
        sleep(NOW);
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writer.wait(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_peer_that_closes_wakes_the_reader_with_the_end() {
    guarded(|| {
        let (near, far) = pair();
        let reader = read_once(&Rc::new(far));
        sleep(NOW);
        drop(near);
        assert_eq!(reader.wait().unwrap(), b"");
    });
}

#[test]
fn a_reset_wakes_the_reader_and_the_writer() {
    guarded(|| {
        let (near, far) = pair();
        fill(&far);
        let far = Rc::new(far);
        let reader = read_once(&far);
        let writing = Rc::clone(&far);
        let writer = spawn(move || (&*writing).write(b"more").unwrap_err().kind());
        sleep(NOW);
        reset(near);
        // One takes the error off the socket, the other finds it closed.
        let ends = (reader.wait(), writer.wait());
        let expected = (Err(ErrorKind::ConnectionReset), ErrorKind::BrokenPipe);
        assert!(ends == expected || ends == (Ok(vec![]), ErrorKind::ConnectionReset), "{ends:?}");
    });
}

// What is easily taken for an empty or a full buffer.

#[test]
fn what_follows_urgent_data_is_read() {
    guarded(|| {
        let (near, far) = pair();
        let far = Rc::new(far);
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..3 {
            let before = read_once(&far);
            sleep(NOW);
            (&near).write_all(b"abc").unwrap();
            send_urgent(&near);
            (&near).write_all(b"def").unwrap();
            // A read stops at the urgent byte, which is no part of the stream.
            assert_eq!(before.wait().unwrap(), b"abc");
            assert_eq!(read_once(&far).wait().unwrap(), b"def");
        }
    });
}

#[test]
fn more_buffers_than_the_kernel_takes_at_once_are_neither_full_nor_empty() {
    guarded(|| {
        const COUNT: usize = 3000;
        let (near, far) = pair();
        // Both have waited before, so they count on what they are told about their buffers.
        let far = Rc::new(far);
        let (ping, near) = (read_once(&far), Rc::new(near));
        let pong = read_once(&near);
        sleep(NOW);
        (&*near).write_all(b"ping").unwrap();
        (&*far).write_all(b"pong").unwrap();
        assert!(ping.wait().is_ok() && pong.wait().is_ok());
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let mut written = 0;
        while written < COUNT {
            let bufs = vec![IoSlice::new(b"x"); COUNT - written];
            written += (&*near).write_vectored(&bufs).unwrap();
        }
        let (mut bytes, mut read) = ([0; COUNT], 0);
        while read < COUNT {
            let mut bufs: Vec<_> = bytes[read..].chunks_mut(1).map(IoSliceMut::new).collect();
            read += (&*far).read_vectored(&mut bufs).unwrap();
        }
        assert_eq!(bytes, [b'x'; COUNT]);
    });
}

/// How many descriptors this process's hubs watch, without those of their pollers.
fn watched() -> usize {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
    let of_others = |line: &&str| line.starts_with("tfd:") && !line.contains("ffffffff ");
    infos.map(|info| info.lines().filter(of_others).count()).sum()
}

#[test]
fn a_socket_that_is_gone_is_watched_no_more_though_its_file_lives_on() {
    guarded(|| {
        for goes_to_std in [false, true] {
            let (_near, far) = pair();
            let clone = far.try_clone().unwrap();
            let before = watched();
            far.set_read_timeout(Some(MS)).unwrap();
            assert!((&far).read(&mut [0; 8]).is_err());
            assert_eq!(watched(), before + 1);
            let kept = goes_to_std.then_some(far).map(std::net::TcpStream::from);
            assert_eq!(watched(), before);
            drop((clone, kept));
        }
    });
}

#[test]
fn a_number_that_is_used_again_gets_no_events_of_the_socket_before() {
    guarded(|| {
        let (silent, _listener) = silent_addr();
        let (near, far) = pair();
        far.set_read_timeout(Some(MS)).unwrap();
        assert!((&far).read(&mut [0; 8]).is_err());
        // The connection lives on under another number, and something happens to it.
        let (number, clone) = (far.as_raw_fd(), far.try_clone().unwrap());
        drop(far);
        let connecting = spawn(move || TcpStream::connect_timeout(&silent, 20 * MS).map(drop));
        sleep(NOW);
        let opened = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert!(opened.to_string_lossy().starts_with("socket:"), "the number is used again");
        (&near).write_all(b"byte").unwrap();
        drop(near);
        let error = connecting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(clone);
    });
}
