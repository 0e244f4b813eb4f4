//! The server on several threads.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::util::leak::guarded;
use crate::util::server::PATIENCE;
use stolon::convenience::{Server, Stopped, Stopper};
use stolon::green::net::TcpStream;
use stolon::timeout::with_timeout;
use stolon::{GreenThread, sleep, spawn};

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const LOCAL: &str = "127.0.0.1:0";

/// All that a client gets.
fn all(addr: SocketAddr) -> String {
    let mut text = String::new();
    TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn echo(mut stream: TcpStream, _peer: SocketAddr) {
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// A connection that the server has begun to serve.
fn echoing(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"word").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream
}

fn stop(server: Server, grace: Duration) -> Stopped {
    server.stopper().stop(grace);
    server.join().unwrap()
}

// CV-04, on several threads.
#[test]
fn each_connection_is_handled_once_on_one_of_the_threads_and_closed_afterwards() {
    guarded(|| {
        let name = |mut stream: TcpStream, peer: SocketAddr| {
            let name = thread::current().name().unwrap().to_owned();
            write!(stream, "{name} {peer}").unwrap();
        };
        let server = Server::builder().threads(3).start(LOCAL, name).unwrap();
        let addr = server.local_addr();
        let clients: Vec<_> = (0..100).map(|_| spawn(move || all(addr))).collect();
        let answers: HashSet<_> = clients.iter().map(GreenThread::wait).collect();
        assert_eq!(answers.len(), 100);
        let threads: HashSet<_> =
            answers.iter().map(|answer| answer.split(' ').next().unwrap().to_owned()).collect();
        let expected = (0..3).map(|number| format!("stolon-server-{number}")).collect();
        assert!(threads.len() > 1 && threads.is_subset(&expected), "{threads:?}");
        let stopped = stop(server, NOW);
        assert_eq!(stopped, Stopped { served: 100, ..Stopped::default() });
    });
}

#[test]
fn stopping_refuses_new_connections_and_lets_others_end() {
    guarded(|| {
        let server = Server::builder().threads(2).start(LOCAL, echo).unwrap();
        let addr = server.local_addr();
        let mut going_on: Vec<_> = (0..8).map(|_| echoing(addr)).collect();
        server.stopper().stop(PATIENCE);
        let joined = spawn(move || server.join().unwrap());
        while TcpStream::connect(addr).is_ok() {
            sleep(MS);
        }
        for stream in &mut going_on {
            stream.write_all(b"more").unwrap();
            let mut more = [0; 4];
            stream.read_exact(&mut more).unwrap();
            assert_eq!(&more, b"more");
        }
        assert!(!joined.is_dead());
        let start = Instant::now();
        drop(going_on);
        assert_eq!(joined.wait().cut_short, 0);
        assert!(start.elapsed() < PATIENCE / 2);
    });
}

#[test]
fn who_has_connected_before_the_stop_is_served() {
    guarded(|| {
        // The one connection at a time goes on, so the others wait in the kernel's queue.
        let server = Server::builder().threads(1).concurrency(1).start(LOCAL, echo).unwrap();
        let first = echoing(server.local_addr());
        let mut queued: Vec<_> =
            (0..5).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
        queued.iter_mut().for_each(|stream| stream.write_all(b"word").unwrap());
        server.stopper().stop(PATIENCE);
        for mut stream in queued {
            stream.read_exact(&mut [0; 4]).unwrap();
        }
        drop(first);
        assert_eq!(server.join().unwrap(), Stopped { served: 6, ..Stopped::default() });
    });
}

#[test]
fn at_the_deadline_connections_are_cut_short_and_destructors_run() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    guarded(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&dropped);
        let handler = move |stream: TcpStream, peer| {
            let _counted = Counted(Arc::clone(&counter));
            // What a handler has started ends with its thread, too.
            let companion = Counted(Arc::clone(&counter));
            spawn(move || {
                let _companion = companion;
                sleep(Duration::MAX);
            });
            echo(stream, peer);
        };
        let server = Server::builder().threads(2).start(LOCAL, handler).unwrap();
        let mut going_on: Vec<_> = (0..6).map(|_| echoing(server.local_addr())).collect();
        let start = Instant::now();
        // The earlier deadline counts.
        server.stopper().stop(PATIENCE);
        let stopped = stop(server, 20 * MS);
        assert!(start.elapsed() >= 20 * MS && start.elapsed() < PATIENCE / 2);
        assert_eq!((stopped.served, stopped.cut_short), (6, 6));
        assert_eq!(dropped.load(Ordering::Relaxed), 12);
        for stream in &mut going_on {
            assert!(matches!(stream.read(&mut [0; 4]), Ok(0) | Err(_)));
        }
    });
}

// CV-01, on one thread.
#[test]
fn a_client_that_does_not_read_keeps_neither_a_timeout_nor_the_end_of_the_server_waiting() {
    guarded(|| {
        let (sender, receiver) = mpsc::channel();
        let sender = Mutex::new(sender);
        let handler = move |stream: TcpStream, _: SocketAddr| {
            let _ = with_timeout(20 * MS, || {
                // More than all buffers hold: it flushes as it is unwound, and its peer does not read.
                let mut answer = BufWriter::with_capacity(64 << 20, stream);
                answer.write_all(&vec![0; 32 << 20]).unwrap();
                sender.lock().unwrap().send(()).unwrap();
                sleep(PATIENCE);
            });
        };
        let server = Server::builder().threads(1).start(LOCAL, handler).unwrap();
        let addr = server.local_addr();
        let mute = std::net::TcpStream::connect(addr).unwrap();
        receiver.recv().unwrap();
        let start = Instant::now();
        assert_eq!(stop(server, NOW).cut_short, 1);
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        let refused = std::net::TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(mute);
    });
}

#[test]
fn no_more_connections_are_served_at_a_time_than_was_said() {
    guarded(|| {
        let server = Server::builder().threads(1).concurrency(5).start(LOCAL, echo).unwrap();
        let addr = server.local_addr();
        let mut served: Vec<_> = (0..5).map(|_| echoing(addr)).collect();
        let mut sixth = TcpStream::connect(addr).unwrap();
        sixth.write_all(b"word").unwrap();
        sixth.set_read_timeout(Some(10 * MS)).unwrap();
        let mut word = [0; 4];
        assert_eq!(sixth.read_exact(&mut word).unwrap_err().kind(), ErrorKind::TimedOut);
        served.pop();
        sixth.set_read_timeout(None).unwrap();
        sixth.read_exact(&mut word).unwrap();
        drop((served, sixth));
        assert_eq!(stop(server, PATIENCE).served, 6);
    });
}

#[test]
fn a_handler_that_panics_harms_its_own_connection_only() {
    guarded(|| {
        let handler = |mut stream: TcpStream, peer| {
            let mut kind = [0];
            stream.read_exact(&mut kind).unwrap();
            assert!(kind != *b"!", "on purpose");
            echo(stream, peer);
        };
        let server = Server::builder().threads(2).start(LOCAL, handler).unwrap();
        for kind in [b"!word", b".word", b"!word", b".word"] {
            let mut stream = TcpStream::connect(server.local_addr()).unwrap();
            stream.write_all(kind).unwrap();
            let answered = stream.read_exact(&mut [0; 4]).is_ok();
            assert_eq!(answered, kind[0] == b'.');
        }
        let stopped = stop(server, PATIENCE);
        assert_eq!(stopped, Stopped { served: 4, panicked: 2, cut_short: 0 });
    });
}

// CV-03, in the way of this server.
#[test]
fn a_handler_may_stop_the_server() {
    guarded(|| {
        let (tell, told) = mpsc::channel::<Stopper>();
        let told = Mutex::new(told);
        let handler = move |mut stream: TcpStream, _| {
            told.lock().unwrap().recv().unwrap().stop(PATIENCE);
            stream.write_all(b"bye").unwrap();
        };
        let server = Server::builder().threads(3).start(LOCAL, handler).unwrap();
        tell.send(server.stopper()).unwrap();
        assert_eq!(all(server.local_addr()), "bye");
        assert_eq!(server.join().unwrap().served, 1);
    });
}

/// The descriptors that listen at a port.
fn listeners_at(addr: SocketAddr) -> Vec<i32> {
    let hex = format!(":{:04X}", addr.port());
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let listening = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words[1].ends_with(&hex) && words[3] == "0A").then(|| format!("socket:[{}]", words[9]))
    });
    let inodes: HashSet<_> = listening.collect();
    let fds = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let listens = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|link| inodes.contains(&*link.to_string_lossy()))
    };
    fds.filter(listens).map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_thread_that_cannot_accept_stops_the_server_and_its_error_surfaces() {
    guarded(|| {
        let server = Server::builder().threads(3).grace(PATIENCE).start(LOCAL, echo).unwrap();
        let addr = server.local_addr();
        let mut going_on = echoing(addr);
        let listeners = listeners_at(addr);
        assert_eq!(listeners.len(), 3);
        // SAFETY: a plain system call; the descriptor is open.
        assert_eq!(unsafe { libc::shutdown(listeners[1], libc::SHUT_RDWR) }, 0);
        let joined = spawn(move || Rc::new(server.join()));
        while TcpStream::connect(addr).is_ok() {
            sleep(MS);
        }
        // Within the grace that was given.
        going_on.write_all(b"word").unwrap();
        going_on.read_exact(&mut [0; 4]).unwrap();
        drop(going_on);
        let error = Rc::into_inner(joined.join().unwrap()).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    });
}

#[test]
fn what_cannot_be_started_is_an_error_and_leaves_nothing() {
    guarded(|| {
        let kind = |started: io::Result<Server>| started.unwrap_err().kind();
        assert_eq!(kind(Server::builder().threads(0).start(LOCAL, echo)), ErrorKind::InvalidInput);
        let none = Server::builder().concurrency(0);
        assert_eq!(kind(none.start(LOCAL, echo)), ErrorKind::InvalidInput);
        let taken = TcpListener::bind(LOCAL).unwrap();
        let addr = taken.local_addr().unwrap();
        let two = Server::builder().threads(2);
        assert_eq!(kind(two.clone().start(addr, echo)), ErrorKind::AddrInUse);
        // Nor beside another server, which would go unnoticed.
        let server = two.clone().start(LOCAL, echo).unwrap();
        assert_eq!(kind(two.clone().start(server.local_addr(), echo)), ErrorKind::AddrInUse);
        // The next address is tried.
        let addrs = [addr, LOCAL.parse().unwrap()];
        stop(two.start(&addrs[..], echo).unwrap(), NOW);
        stop(server, NOW);
    });
}

#[test]
fn it_starts_and_stops_again_and_again_at_one_address() {
    guarded(|| {
        let mut addr: SocketAddr = LOCAL.parse().unwrap();
        for _ in 0..10 {
            let server = Server::builder().threads(2).start(addr, echo).unwrap();
            addr = server.local_addr();
            drop(echoing(addr));
            assert_eq!(stop(server, PATIENCE).served, 1);
        }
    });
}
