//! Sockets of other kinds than TCP, of which a short read leaves something behind.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use stolon::green::net::TcpStream;
use stolon::{sleep, spawn};

use crate::util::leak::guarded;
use crate::util::server::PATIENCE;
use crate::util::sockets::send_with_descriptor;

/// Reads `count` times of `near`, which waits before `send` is called.
fn reads_after(near: OwnedFd, count: usize, send: impl FnOnce() + 'static) -> Vec<Vec<u8>> {
    let mut near = TcpStream::from(near);
    near.set_read_timeout(Some(PATIENCE / 4)).unwrap();
    let sender = spawn(|| {
        sleep(Duration::ZERO);
        send();
    });
    let mut read = || {
        let mut buf = [0; 64];
        let bytes = near.read(&mut buf).expect("it has come");
        buf[..bytes].to_vec()
    };
    let all = (0..count).map(|_| read()).collect();
    sender.wait();
    all
}

#[test]
fn datagrams_that_came_together_are_all_read() {
    guarded(|| {
        let (near, far) = UnixDatagram::pair().unwrap();
        let all = reads_after(near.into(), 3, move || {
            for text in ["one", "two", "three"] {
                far.send(text.as_bytes()).unwrap();
            }
        });
        assert_eq!(all, [&b"one"[..], b"two", b"three"]);
    });
}

#[test]
fn a_stream_whose_read_stops_at_a_passed_descriptor_is_read_on() {
    guarded(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let all = reads_after(near.into(), 2, move || {
            send_with_descriptor(&far, b"with", &far);
            send_with_descriptor(&far, b"another", &far);
        });
        assert_eq!(all, [&b"with"[..], b"another"]);
    });
}

#[test]
fn a_duplicate_handle_reads_all_datagrams_too() {
    guarded(|| {
        let (near, far) = UnixDatagram::pair().unwrap();
        let near = TcpStream::from(OwnedFd::from(near));
        let mut duplicate = near.try_clone().unwrap();
        duplicate.set_read_timeout(Some(PATIENCE / 4)).unwrap();
        let sender = spawn(move || {
            far.send(b"one").unwrap();
            far.send(b"two").unwrap();
            far
        });
        for expected in [b"one", b"two"] {
            let mut buf = [0; 64];
            assert_eq!(duplicate.read(&mut buf).unwrap(), 3);
            assert_eq!(&buf[..3], expected);
        }
        sender.join().unwrap();
    });
}
