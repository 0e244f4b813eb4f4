//! HB-08 and corner 13: those who wait for one descriptor in the same direction.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use stolon::debug::hub_prevent_multiple_readers;
use stolon::green::net::{TcpListener, TcpStream};
use stolon::greenthread::Builder;
use stolon::hub::trampoline;
use stolon::poller::Interest;
use stolon::{GreenThread, sleep, spawn};

use super::{Log, MS, NOW, borrowed, waiting, watched};
use crate::util::leak::guarded;
use crate::util::sockets::{pair, pipe};

#[test]
fn the_error_of_a_second_waiter_names_the_first() {
    guarded(|| {
        let (near, far) = pair();
        let far = Rc::new(far);
        let reading = Rc::clone(&far);
        let read = move || (&*reading).read(&mut [0; 8]).unwrap();
        let first = Builder::new().name("alice").spawn(read).unwrap();
        sleep(NOW);
        let fd = far.as_raw_fd();
        let by_read = (&*far).read(&mut [0; 8]).unwrap_err().to_string();
        let by_trampoline = trampoline(&*far, Interest::BOTH, None).unwrap_err().to_string();
        for error in [by_read, by_trampoline] {
            let expected = format!("second simultaneous read on descriptor {fd}: Greenlet('alice'");
            assert!(error.starts_with(&expected), "{error}");
        }
        // The other direction is free, and the first has lost nothing.
        trampoline(&*far, Interest::WRITABLE, None).unwrap();
        (&*far).write_all(b"to near").unwrap();
        (&near).write_all(b"byte").unwrap();
        assert_eq!(first.wait(), 4);
    });
}

#[test]
fn a_first_that_was_woken_and_has_not_run_is_named_too() {
    guarded(|| {
        let (reader, mut writer) = pipe();
        let (trigger_reader, mut trigger) = pipe();
        let fd = reader.as_raw_fd();
        let wait = move || trampoline(borrowed(fd), Interest::READABLE, None).unwrap();
        let second = spawn(move || {
            trampoline(&trigger_reader, Interest::READABLE, None).unwrap();
            trampoline(borrowed(fd), Interest::READABLE, None).map_err(|error| error.to_string())
        });
        sleep(NOW);
        let first = Builder::new().name("bob").spawn(wait).unwrap();
        sleep(NOW);
        // One look at the descriptors wakes both, the second first.
        trigger.write_all(b"!").unwrap();
        writer.write_all(b"!").unwrap();
        let error = second.wait().unwrap_err();
        assert!(error.contains("Greenlet('bob'"), "{error}");
        first.wait();
    });
}

/// Starts to read a byte, and notes `name` when it has it.
fn reads(
    stream: &Rc<TcpStream>,
    log: &Log,
    name: &'static str,
) -> GreenThread<Result<u8, ErrorKind>> {
    let (stream, log) = (Rc::clone(stream), Rc::clone(log));
    let read = move || {
        let mut byte = [0];
        let result = (&*stream).read_exact(&mut byte).map_err(|error| error.kind());
        log.borrow_mut().push(name);
        result.map(|()| byte[0])
    };
    let green = spawn(read);
    sleep(NOW);
    green
}

#[test]
fn with_the_check_off_readers_are_served_first_come_first_served() {
    guarded(|| {
        hub_prevent_multiple_readers(false);
        let (near, far) = pair();
        let (far, log) = (Rc::new(far), Log::default());
        let readers = ["a", "b", "c"].map(|name| reads(&far, &log, name));
        (&near).write_all(b"1").unwrap();
        assert_eq!(readers[0].wait(), Ok(b'1'));
        sleep(MS);
        assert_eq!(*log.borrow(), ["a"], "each readiness wakes only the first");
        // Two bytes at once are one event: what the first leaves wakes the next.
        (&near).write_all(b"23").unwrap();
        assert_eq!(readers[1].wait(), Ok(b'2'));
        assert_eq!(readers[2].wait(), Ok(b'3'));
        assert_eq!(*log.borrow(), ["a", "b", "c"]);
        // The end is seen by all.
        let readers = ["d", "e"].map(|name| reads(&far, &log, name));
        drop(near);
        for reader in readers {
            assert_eq!(reader.wait(), Err(ErrorKind::UnexpectedEof));
        }
    });
}

// HB-07.
#[test]
fn a_second_reader_that_is_thrown_out_by_a_timeout_takes_nothing_with_it() {
    guarded(|| {
        hub_prevent_multiple_readers(false);
        let (reader, mut writer) = pipe();
        let first = waiting(reader.as_raw_fd(), Interest::READABLE);
        let error = trampoline(&reader, Interest::READABLE, Some(MS)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        writer.write_all(b"byte").unwrap();
        assert_eq!(first.wait(), Ok(()));
        // On a green socket, too.
        let (near, far) = pair();
        let (far, log) = (Rc::new(far), Log::default());
        let first = reads(&far, &log, "first");
        let clone = Rc::clone(&far);
        clone.set_read_timeout(Some(MS)).unwrap();
        assert_eq!((&*clone).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        (&near).write_all(b"1").unwrap();
        assert_eq!(first.wait(), Ok(b'1'));
    });
}

#[test]
fn whoever_goes_makes_room_for_the_next_in_line() {
    guarded(|| {
        hub_prevent_multiple_readers(false);
        let (near, far) = pair();
        let (far, log) = (Rc::new(far), Log::default());
        let [a, b, c] = ["a", "b", "c"].map(|name| reads(&far, &log, name));
        // The first, before anything has come, and one in the middle.
        a.kill();
        b.kill();
        (&near).write_all(b"1").unwrap();
        assert_eq!(c.wait(), Ok(b'1'));
        // One that was woken and is killed before it runs: the next has its byte.
        let (killer_reader, mut trigger) = pipe();
        let doomed = Rc::new(RefCell::new(None::<GreenThread<_>>));
        let victim = Rc::clone(&doomed);
        let killer = spawn(move || {
            trampoline(&killer_reader, Interest::READABLE, None).unwrap();
            victim.take().unwrap().kill();
        });
        sleep(NOW);
        *doomed.borrow_mut() = Some(reads(&far, &log, "doomed"));
        let heir = reads(&far, &log, "heir");
        trigger.write_all(b"!").unwrap();
        (&near).write_all(b"2").unwrap();
        assert_eq!(heir.wait(), Ok(b'2'));
        killer.wait();
        assert_eq!(*log.borrow(), ["c", "heir"]);
    });
}

#[test]
fn what_one_visitor_leaves_is_reported_to_the_next() {
    guarded(|| {
        hub_prevent_multiple_readers(false);
        let (reader, mut writer) = pipe();
        let reader = Rc::new(reader);
        let read = |reader: Rc<File>| {
            let read = move || {
                trampoline(&*reader, Interest::READABLE, None).unwrap();
                let mut byte = [0];
                (&*reader).read_exact(&mut byte).unwrap();
                byte[0]
            };
            let green = spawn(read);
            sleep(NOW);
            green
        };
        let greens: Vec<_> = (0..3).map(|_| read(Rc::clone(&reader))).collect();
        writer.write_all(b"12").unwrap();
        assert_eq!((greens[0].wait(), greens[1].wait()), (b'1', b'2'));
        sleep(MS);
        assert!(!greens[2].is_dead());
        writer.write_all(b"3").unwrap();
        assert_eq!(greens[2].wait(), b'3');
        assert!(watched().is_empty());
    });
}

#[test]
fn acceptors_that_line_up_have_a_connection_each() {
    guarded(|| {
        hub_prevent_multiple_readers(false);
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let accepts = (0..4).map(|_| {
            let listener = Rc::clone(&listener);
            spawn(move || drop(listener.accept().unwrap()))
        });
        let acceptors: Vec<_> = accepts.collect();
        sleep(NOW);
        // All come before anyone looks: one event.
        let clients: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        acceptors.iter().for_each(GreenThread::wait);
        drop(clients);
    });
}
