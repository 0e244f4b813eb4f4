//! Listening, connecting and serving, as eventlet's `convenience` has them.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::util::leak::guarded;
use stolon::convenience::{
    StopServe, connect, connect_from, listen, listen_reuse_port, listen_with_backlog, serve,
};
use stolon::green::net::{TcpListener, TcpStream};
use stolon::{GreenThread, sleep, spawn};

const LOCAL: &str = "127.0.0.1:0";

fn listening() -> (TcpListener, SocketAddr) {
    let listener = listen(LOCAL).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn all(addr: SocketAddr) -> String {
    let mut text = String::new();
    connect(addr).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Answers each byte, until there are no more.
fn echo(mut stream: TcpStream, _peer: SocketAddr) {
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 {
        stream.write_all(&byte).unwrap();
    }
}

/// A connection that has been answered once.
fn echoing(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr).unwrap();
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

// CV-01.
#[test]
fn the_one_too_many_is_served_when_another_has_ended() {
    guarded(|| {
        let (listener, addr) = listening();
        let server = spawn(move || serve(listener, 5, echo));
        let mut served: Vec<_> = (0..5).map(|_| echoing(addr)).collect();
        let mut sixth = connect(addr).unwrap();
        sixth.write_all(b"b").unwrap();
        sixth.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(sixth.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        served.pop();
        sixth.set_read_timeout(None).unwrap();
        sixth.read_exact(&mut [0]).unwrap();
        server.kill();
        // Those that are served go on.
        served[0].write_all(b"c").unwrap();
        served[0].read_exact(&mut [0]).unwrap();
        drop((served, sixth));
        assert_eq!(connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

// CV-03.
#[test]
fn a_handler_that_raises_stop_serve_has_the_server_return() {
    guarded(|| {
        let (listener, addr) = listening();
        let client = spawn(move || all(addr));
        let handler = |mut stream: TcpStream, _| {
            stream.write_all(b"bye").unwrap();
            StopServe::raise()
        };
        serve(listener, 10, handler).unwrap();
        assert_eq!(client.wait(), "bye");
        assert_eq!(connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

// CV-04.
#[test]
fn a_hundred_connections_are_a_hundred_calls_and_end_when_these_return() {
    guarded(|| {
        let (listener, addr) = listening();
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let handler = move |_, _| counted.set(counted.get() + 1);
        let server = spawn(move || serve(listener, 10, handler));
        let clients: Vec<_> = (0..100).map(|_| spawn(move || all(addr))).collect();
        assert!(clients.iter().map(GreenThread::wait).all(|text| text.is_empty()));
        assert_eq!(calls.get(), 100);
        server.kill();
        // What accepts is killed by who unwinds, and so late.
        sleep(Duration::ZERO);
    });
}

#[test]
fn a_handler_that_panics_ends_the_server_with_its_panic() {
    guarded(|| {
        let (listener, addr) = listening();
        let client = spawn(move || all(addr));
        let served =
            catch_unwind(AssertUnwindSafe(|| serve(listener, 10, |_, _| panic!("on purpose"))));
        assert_eq!(*served.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
        assert_eq!(client.wait(), "");
        assert_eq!(connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_server_of_no_connections_is_an_error() {
    guarded(|| {
        let (listener, _) = listening();
        assert_eq!(serve(listener, 0, echo).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

// CV-05.
#[test]
fn a_port_can_be_listened_at_again_at_once_and_shared_if_that_is_asked_for() {
    guarded(|| {
        let (listener, addr) = listening();
        let near = connect(addr).unwrap();
        let (far, _) = listener.accept().unwrap();
        // The side that closes first keeps the port for a while.
        drop(far);
        drop(near);
        drop(listener);
        sleep(Duration::ZERO);
        drop(listen(addr).unwrap());

        let first = listen_reuse_port(addr).unwrap();
        let second = listen_reuse_port(addr).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        assert_eq!(listen(addr).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(listen_reuse_port(LOCAL).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

// eventlet's `listen` with `backlog`.
#[test]
fn no_more_connections_wait_to_be_accepted_than_was_said() {
    guarded(|| {
        let listener = listen_with_backlog(LOCAL, 2).unwrap();
        let addr = listener.local_addr().unwrap();
        // Who gets no answer asks again after a second.
        let attempt = || TcpStream::connect_timeout(&addr, Duration::from_millis(100));
        // The kernel lets one more wait.
        let waiting: Vec<_> = (0..3).map(|_| attempt().unwrap()).collect();
        assert_eq!(attempt().unwrap_err().kind(), ErrorKind::TimedOut);
        let accepted = listener.accept().unwrap();
        let more = attempt().unwrap();
        assert_eq!(attempt().unwrap_err().kind(), ErrorKind::TimedOut);
        drop((waiting, accepted, more));
    });
}

// eventlet's `connect` with `bind`.
#[test]
fn a_connection_comes_from_the_address_that_was_said() {
    guarded(|| {
        let (listener, addr) = listening();
        let from = |text: &str| connect_from(addr, text.parse().unwrap());
        let any_port = from("127.0.0.2:0").unwrap();
        let local = any_port.local_addr().unwrap();
        assert_eq!(
            (local.ip().to_string().as_str(), listener.accept().unwrap().1),
            ("127.0.0.2", local)
        );

        // A port that nobody has.
        let port = listen("127.0.0.3:0").unwrap().local_addr().unwrap();
        let stream = connect_from(addr, port).unwrap();
        assert_eq!([stream.local_addr().unwrap(), listener.accept().unwrap().1], [port, port]);
        assert_eq!(connect_from(addr, port).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(from("192.0.2.1:0").unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn from_a_local_address_only_those_of_its_family_are_tried() {
    guarded(|| {
        let (listener, addr) = listening();
        let refused = { listening().1 };
        let other: SocketAddr = "[::1]:1".parse().unwrap();
        let local = "127.0.0.2:0".parse().unwrap();
        let stream = connect_from(&[other, refused, addr][..], local).unwrap();
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
        let kind = |addrs: &[SocketAddr]| connect_from(addrs, local).unwrap_err().kind();
        assert_eq!(kind(&[refused, other]), ErrorKind::ConnectionRefused);
        assert_eq!([kind(&[other]), kind(&[])], [ErrorKind::InvalidInput; 2]);
    });
}
