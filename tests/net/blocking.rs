//! Sockets whose file description somebody else puts into blocking mode. A duplicate stands for
//! another process's descriptor: both have the same description.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use stolon::green::net::{TcpListener, TcpStream};
use stolon::{sleep, spawn};

use crate::util::leak::guarded;
use crate::util::server::PATIENCE;

/// The two ends of a connection: a green one, which is in blocking mode, and a plain one.
fn blocking_pair() -> (TcpStream, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let duplicate = near.try_clone().unwrap();
    let near = TcpStream::from(near);
    duplicate.set_nonblocking(false).unwrap();
    (near, far)
}

/// Frees a thread that is blocked, if it is still so after a long time, by `free`, so that a failing
/// test ends.
fn rescue(free: impl FnOnce() + Send + 'static) -> impl FnOnce() {
    let (done, is_done): (Sender<()>, _) = mpsc::channel();
    let rescuer = thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE / 4).is_err() {
            free();
        }
    });
    move || {
        let _ = done.send(());
        rescuer.join().unwrap();
    }
}

/// Runs `op`, which has to wait until `release` was called, and holds that others ran meanwhile.
fn waits_greenly(rescued: net::TcpStream, release: impl FnOnce() + 'static, op: impl FnOnce()) {
    let is_rescued = rescue(move || rescued.shutdown(Shutdown::Both).unwrap());
    let turns = Rc::new(Cell::new(0));
    let ticker = spawn({
        let turns = Rc::clone(&turns);
        move || {
            for _ in 0..10 {
                turns.set(turns.get() + 1);
                sleep(std::time::Duration::from_millis(1));
            }
            release();
        }
    });
    op();
    assert_eq!(turns.get(), 10, "turns of another green thread while this one waited");
    ticker.wait();
    is_rescued();
}

/// Reads in the way of `read` what comes when it already waits.
fn a_read_waits(read: fn(&mut TcpStream) -> usize) {
    guarded(move || {
        let (mut near, mut far) = blocking_pair();
        let release = {
            let mut far = far.try_clone().unwrap();
            move || far.write_all(b"now").unwrap()
        };
        waits_greenly(far.try_clone().unwrap(), release, || assert_eq!(read(&mut near), 3));
        // Once more, when the hub knows the socket.
        let release = move || far.write_all(b"now").unwrap();
        let mut drained = [0; 8];
        let _ = near.set_nonblocking(true);
        while near.read(&mut drained).is_ok() {}
        let _ = near.set_nonblocking(false);
        let rescued = net::TcpStream::from(near.try_clone().unwrap());
        rescued.set_nonblocking(false).unwrap();
        waits_greenly(rescued, release, || assert_eq!(read(&mut near), 3));
    });
}

#[test]
fn a_read_of_a_blocking_socket_blocks_the_green_thread_only() {
    a_read_waits(|near| near.read(&mut [0; 8]).unwrap());
}

#[test]
fn a_vectored_read_of_a_blocking_socket_blocks_the_green_thread_only() {
    a_read_waits(|near| {
        let mut bufs = [[0; 2]; 2];
        let [first, second] = &mut bufs;
        let bytes =
            near.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)]).unwrap();
        assert_eq!(bufs, [*b"no", [b'w', 0]]);
        bytes
    });
}

#[test]
fn a_peek_at_a_blocking_socket_blocks_the_green_thread_only() {
    a_read_waits(|near| near.peek(&mut [0; 8]).unwrap());
}

/// Writes in the way of `write` more than there is room for.
fn a_write_waits(write: fn(&mut TcpStream, &[u8]) -> usize) {
    guarded(move || {
        let (mut near, mut far) = blocking_pair();
        let rescued = far.try_clone().unwrap();
        let ended = Rc::new(Cell::new(None));
        // Reads all, when it is time.
        let release = {
            let ended = Rc::clone(&ended);
            move || {
                let reader = thread::spawn(move || {
                    let mut bytes = Vec::new();
                    far.read_to_end(&mut bytes).map(|_| bytes.len())
                });
                ended.set(Some(reader));
            }
        };
        let (part, mut written) = ([7; 65536], 0);
        waits_greenly(rescued, release, || {
            while written < 16 << 20 {
                written += write(&mut near, &part);
            }
        });
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ended.take().unwrap().join().unwrap().unwrap(), written);
    });
}

#[test]
fn a_write_to_a_blocking_socket_blocks_the_green_thread_only() {
    a_write_waits(|near, part| near.write(part).unwrap());
}

#[test]
fn a_vectored_write_to_a_blocking_socket_blocks_the_green_thread_only() {
    a_write_waits(|near, part| {
        let (first, second) = part.split_at(100);
        near.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]).unwrap()
    });
}

#[test]
fn accepting_of_a_blocking_listener_blocks_the_green_thread_only() {
    guarded(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let duplicate = listener.try_clone().unwrap();
        let listener = TcpListener::from(listener);
        duplicate.set_nonblocking(false).unwrap();
        let is_rescued = rescue(move || drop(net::TcpStream::connect(addr)));
        // More at a time than one.
        for count in [1, 3, 1] {
            let turns = Rc::new(Cell::new(0));
            let client = spawn({
                let turns = Rc::clone(&turns);
                move || {
                    for _ in 0..10 {
                        turns.set(turns.get() + 1);
                        sleep(std::time::Duration::from_millis(1));
                    }
                    (0..count).for_each(|_| drop(net::TcpStream::connect(addr).unwrap()));
                }
            });
            for _ in 0..count {
                listener.accept().unwrap();
            }
            assert_eq!(turns.get(), 10, "turns of another green thread while this one waited");
            client.wait();
        }
        is_rescued();
    });
}
