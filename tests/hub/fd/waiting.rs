//! Waiting for any descriptor, and what a poller does not take.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use stolon::hub::trampoline;
use stolon::poller::Interest;
use stolon::{sleep, spawn};

use super::{MS, NOW, borrowed, close, waiting, watched};
use crate::util::child;
use crate::util::leak::{alone, guarded};
use crate::util::server::is_emulated;
use crate::util::sockets::{fill, pair, pipe, reset};

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

#[test]
fn signals_do_not_interrupt_the_look_at_the_end_of_a_timeout() {
    extern "C" fn ignore(_signal: libc::c_int) {}

    // An emulator does nothing but handle signals that come so often.
    if is_emulated() {
        return;
    }
    if child::is_child() {
        // SAFETY: the handler does nothing, and all that is passed is live.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
            assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
            let often = libc::timeval { tv_sec: 0, tv_usec: 20 };
            let timer = libc::itimerval { it_interval: often, it_value: often };
            assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
        }
        let (reader, _writer) = pipe();
        for _ in 0..20_000 {
            let error = trampoline(&reader, Interest::READABLE, Some(NOW)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        return;
    }
    alone(|| {
        let output = child::run("signals_do_not_interrupt_the_look_at_the_end_of_a_timeout");
        assert!(output.status.success(), "{}", child::text_of(&output));
    });
}
