//! Descriptors and the hub: waiting for any of them, who comes second, what becomes of those that
//! wait when one is closed.
#![allow(unsafe_code)]

mod util;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stolon::debug::hub_prevent_multiple_readers;
use stolon::green::net::{TcpListener, TcpStream};
use stolon::greenthread::Builder;
use stolon::hub::{notify_close, trampoline};
use stolon::poller::Interest;
use stolon::{GreenThread, sleep, spawn};
use util::child;
use util::leak::{alone, guarded};
use util::server::eventually;
use util::sockets::{fill, pair, pipe, read_once, reset};

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
    // The poller's own alarm is not counted.
    let is_alarm = |fd: &RawFd| {
        let file = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        file.is_ok_and(|file| file.to_string_lossy().contains("[timerfd]"))
    };
    watched.filter(|fd| !is_alarm(fd)).collect()
}

// Waiting for any descriptor.

#[test]
fn a_trampoline_returns_when_there_is_something_to_read() {
    guarded(|| {
        let (mut reader, mut writer) = pipe();
        let wait = spawn(move || {
            trampoline(&reader, Interest::READABLE, None).unwrap();
            let mut bytes = [0; 8];
            let count = reader.read(&mut bytes).unwrap();
            bytes[..count].to_vec()
        });
        sleep(MS);
        assert!(!wait.is_dead());
        writer.write_all(b"byte").unwrap();
        assert_eq!(wait.wait(), b"byte");
    });
}

#[test]
fn a_trampoline_tells_what_is_so_whether_it_is_news_or_not() {
    guarded(|| {
        let (mut reader, mut writer) = pipe();
        writer.write_all(b"123").unwrap();
        for _ in 0..3 {
            trampoline(&reader, Interest::READABLE, None).unwrap();
            reader.read_exact(&mut [0]).unwrap();
        }
        let error = trampoline(&reader, Interest::READABLE, Some(MS)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn what_is_ready_is_so_before_a_timeout_of_zero() {
    guarded(|| {
        let (reader, mut writer) = pipe();
        let error = trampoline(&reader, Interest::READABLE, Some(NOW)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        writer.write_all(b"byte").unwrap();
        trampoline(&reader, Interest::READABLE, Some(NOW)).unwrap();
        trampoline(&writer, Interest::WRITABLE, Some(NOW)).unwrap();
    });
}

#[test]
fn either_direction_ends_a_wait_for_both() {
    guarded(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        trampoline(&near, Interest::BOTH, None).unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[1; 4096]).is_ok() {}
        let error = trampoline(&near, Interest::BOTH, Some(MS)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        far.write_all(b"byte").unwrap();
        trampoline(&near, Interest::BOTH, None).unwrap();
        assert!(watched().is_empty());
    });
}

#[test]
fn others_have_a_turn_while_one_waits_for_what_is_ready() {
    guarded(|| {
        let (reader, mut writer) = pipe();
        writer.write_all(b"byte").unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        for fd in [reader.as_fd(), file.as_fd()] {
            let other = spawn(|| ());
            trampoline(fd, Interest::READABLE, None).unwrap();
            assert!(other.is_dead());
        }
    });
}

// Corner 15: registration failures.

#[test]
fn what_a_poller_refuses_is_ready_at_once() {
    guarded(|| {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
            trampoline(&file, interest, None).unwrap();
            trampoline(&file, interest, Some(NOW)).unwrap();
        }
        assert!(watched().is_empty());
    });
}

// HB-11.
#[test]
fn waiting_for_what_is_not_open_fails_twice_and_leaves_no_listener() {
    guarded(|| {
        let closed = pipe().0.into_raw_fd();
        close(closed);
        for _ in 0..2 {
            for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
                let error = trampoline(borrowed(closed), interest, None).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            }
        }
        // The number's next file can be waited for, so nobody stands there.
        let (reader, mut writer) = pipe();
        assert_eq!(reader.as_raw_fd(), closed);
        writer.write_all(b"byte").unwrap();
        trampoline(&reader, Interest::READABLE, None).unwrap();
    });
}

// HB-16.
#[test]
fn a_timeout_leaves_no_listener_behind() {
    guarded(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        for _ in 0..2 {
            let start = Instant::now();
            let error = trampoline(&near, Interest::READABLE, Some(MS)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(start.elapsed() >= MS);
            assert!(watched().is_empty());
        }
        let waits = waiting(near.as_raw_fd(), Interest::READABLE);
        assert_eq!(watched(), [near.as_raw_fd()]);
        far.write_all(b"byte").unwrap();
        assert_eq!(waits.wait(), Ok(()));
        assert!(watched().is_empty());
    });
}

#[test]
fn a_kill_leaves_no_listener_behind() {
    guarded(|| {
        let (near, _far) = UnixStream::pair().unwrap();
        let victim = waiting(near.as_raw_fd(), Interest::READABLE);
        victim.kill();
        assert!(victim.is_dead() && watched().is_empty());
        let error = trampoline(&near, Interest::READABLE, Some(MS)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_hang_up_or_an_error_makes_both_directions_ready() {
    guarded(|| {
        // A hang-up.
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[1; 4096]).is_ok() {}
        let waits = [Interest::READABLE, Interest::WRITABLE]
            .map(|interest| waiting(near.as_raw_fd(), interest));
        sleep(MS);
        assert!(waits.iter().all(|wait| !wait.is_dead()));
        drop(far);
        assert!(waits.iter().all(|wait| wait.wait() == Ok(())));
        // An error: nobody reads the pipe any more.
        let (reader, writer) = pipe();
        let waits = waiting(writer.as_raw_fd(), Interest::READABLE);
        drop(reader);
        assert_eq!(waits.wait(), Ok(()));
        // A reset.
        let (near, far) = pair();
        fill(&near);
        let waits = [Interest::READABLE, Interest::WRITABLE]
            .map(|interest| waiting(near.as_raw_fd(), interest));
        reset(far);
        assert!(waits.iter().all(|wait| wait.wait() == Ok(())));
    });
}

#[test]
fn the_end_of_one_direction_wakes_its_waiter_and_not_the_other() {
    guarded(|| {
        let (near, far) = pair();
        fill(&near);
        let reads = waiting(near.as_raw_fd(), Interest::READABLE);
        let writes = waiting(near.as_raw_fd(), Interest::WRITABLE);
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reads.wait(), Ok(()));
        sleep(MS);
        assert!(!writes.is_dead());
        let rest = spawn(move || io::copy(&mut &far, &mut io::sink()).unwrap());
        assert_eq!(writes.wait(), Ok(()));
        drop(near);
        rest.wait();
    });
}

// HB-08 and corner 13: a second one in the same direction.

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

// HB-09 and corner 14: closing what others wait for.

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
