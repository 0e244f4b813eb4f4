//! Listening, connecting and serving on this thread's hub.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::event::Event;
use crate::green::net::{TcpListener, TcpStream};
use crate::greenlet::GreenletExit;
use crate::greenpool::GreenPool;
use crate::greenthread::{GreenThread, sleep, spawn};
use crate::sys;

/// The pause after nothing could be accepted for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener at the first of the addresses that can be bound to, mirroring eventlet's `listen`. One
/// that was closed just before does not keep a port from being used again.
///
/// # Errors
///
/// As [`TcpListener::bind`].
pub fn listen<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
}

/// As [`listen`], with room for `backlog` connections that wait to be accepted, mirroring eventlet's
/// `listen` with `backlog`. [`listen`] itself has room for as many as the system allows
/// (`net.core.somaxconn`), which is the limit here, too.
///
/// Linux lets one more wait than that. While there is no room it answers no attempts to connect, which
/// clients repeat until their time is over, so that a server that cannot keep up is not asked for what
/// it will serve too late.
///
/// # Errors
///
/// As [`listen`].
pub fn listen_with_backlog<A: ToSocketAddrs>(addr: A, backlog: u32) -> io::Result<TcpListener> {
    let listener = listen(addr)?;
    sys::net::set_backlog(listener.as_fd(), backlog)?;
    Ok(listener)
}

/// As [`listen`], at a port that others may listen at, too, who have asked for it in the same way, in
/// this process or another one of the same user: the kernel distributes connections among them.
/// Mirrors eventlet's `listen` with `reuse_port`.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for port 0, as nobody else would come to listen at a
/// port of the system's choice; else as [`listen`].
pub fn listen_reuse_port<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        if addr.port() == 0 {
            return Err(invalid("a port to be shared has to be named, and is not 0"));
        }
        match sys::net::listen_beside_others(&addr) {
            Ok(listener) => return Ok(TcpListener::from(listener)),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| invalid("could not resolve to any addresses")))
}

/// A connection to the first of the addresses that accepts one, mirroring eventlet's `connect`.
///
/// # Errors
///
/// As [`TcpStream::connect`].
pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
    TcpStream::connect(addr)
}

/// As [`connect`], from the address `local`, mirroring eventlet's `connect` with `bind`: for a machine
/// with several addresses, or a peer that wants to be called from a certain port. Port 0 leaves the port
/// to the system.
///
/// Only addresses of the family of `local` are tried.
///
/// ```
/// use stolon::convenience::{connect_from, listen};
///
/// let listener = listen("127.0.0.1:0")?;
/// let stream = connect_from(listener.local_addr()?, "127.0.0.2:0".parse().unwrap())?;
/// let (_, peer) = listener.accept()?;
/// assert_eq!((peer, peer.ip().to_string()), (stream.local_addr()?, "127.0.0.2".to_owned()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if no address is of that family,
/// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if `local` is not one of this machine's, and
/// [`AddrInUse`](io::ErrorKind::AddrInUse) if its port is somebody else's; else as [`connect`].
pub fn connect_from<A: ToSocketAddrs>(addr: A, local: SocketAddr) -> io::Result<TcpStream> {
    let mut last = None;
    for addr in addr.to_socket_addrs()?.filter(|addr| addr.is_ipv4() == local.is_ipv4()) {
        match TcpStream::connect_from(&addr, &local) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| invalid("no address is of the family of the local one")))
}

/// What a handler raises to have [`serve`] return, mirroring eventlet's exception of this name.
///
/// It is the payload of an unwinding that calls no panic hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopServe;

impl StopServe {
    /// Ends the handler that calls it, and the server.
    ///
    /// # Panics
    ///
    /// Always: with `StopServe`.
    pub fn raise() -> ! {
        resume_unwind(Box::new(StopServe))
    }
}

/// Serves connections on this thread, each in a green thread of its own, at most `concurrency` at a
/// time; others wait until one ends. Mirrors eventlet's `serve`. [`Server`](super::Server) is for
/// several threads.
///
/// `handler` is called for each connection. When it returns, the connection is closed, unless it has
/// given it away. `serve` returns when a handler raises [`StopServe`]; the listener is closed then, and
/// other connections go on. So do they when it is killed or a handler panics.
///
/// For want of descriptors or memory it waits and goes on; what becomes of a connection before it is
/// accepted harms no other.
///
/// ```
/// use std::io::{Read, Write};
/// use stolon::convenience::{StopServe, connect, listen, serve};
///
/// let listener = listen("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// let client = stolon::spawn(move || -> std::io::Result<String> {
///     let mut text = String::new();
///     connect(addr)?.read_to_string(&mut text)?;
///     Ok(text)
/// });
/// serve(listener, 1000, |mut stream, _peer| {
///     stream.write_all(b"hello").unwrap();
///     StopServe::raise()
/// })?;
/// assert_eq!(client.join().unwrap()?, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if no connection may be served; and that of accepting,
/// if it fails for good.
///
/// # Panics
///
/// With the panic of a handler, which ends the server. And on the hub's own loop.
pub fn serve<F>(listener: TcpListener, concurrency: usize, handler: F) -> io::Result<()>
where
    F: Fn(TcpStream, SocketAddr) + 'static,
{
    if concurrency == 0 {
        return Err(invalid("a server needs a connection at a time"));
    }
    let end = Rc::new(End::default());
    let acceptor = spawn({
        let end = Rc::clone(&end);
        move || {
            let accepts = || accept_all(&listener, concurrency, handler, &end);
            end.come(match catch_unwind(AssertUnwindSafe(accepts)) {
                Ok(error) => Outcome::Failed(error),
                Err(payload) => Outcome::Panicked(payload),
            });
        }
    });
    let acceptor = Acceptor(acceptor);
    end.has_come.wait();
    drop(acceptor);
    let outcome = end.outcome.borrow_mut().take();
    match outcome {
        None | Some(Outcome::Stopped) => Ok(()),
        Some(Outcome::Failed(error)) => Err(error),
        Some(Outcome::Panicked(payload)) => resume_unwind(payload),
    }
}

/// Ends with the server, however that ends.
struct Acceptor(GreenThread<()>);

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// How a server ends.
enum Outcome {
    Stopped,
    Failed(io::Error),
    Panicked(Box<dyn Any + Send>),
}

#[derive(Default)]
struct End {
    /// The first one counts.
    outcome: RefCell<Option<Outcome>>,
    has_come: Event<()>,
}

impl End {
    fn come(&self, outcome: Outcome) {
        if !self.has_come.ready() {
            *self.outcome.borrow_mut() = Some(outcome);
            let _ = self.has_come.send(());
        }
    }
}

/// Accepts until that fails for good.
fn accept_all<F>(listener: &TcpListener, concurrency: usize, handler: F, end: &Rc<End>) -> io::Error
where
    F: Fn(TcpStream, SocketAddr) + 'static,
{
    let (pool, handler) = (GreenPool::new(concurrency), Rc::new(handler));
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let (handler, end) = (Rc::clone(&handler), Rc::clone(end));
                let serve = move || handle(|| handler(stream, peer), &end);
                if pool.try_spawn_n(serve).is_err() {
                    // No stack could be had; the connection is closed.
                    sleep(PAUSE);
                }
            }
            Err(e) if sys::net::is_of_one_connection(&e) => {}
            Err(e) if sys::net::is_exhaustion(&e) => sleep(PAUSE),
            Err(e) => return e,
        }
    }
}

fn handle(handler: impl FnOnce(), end: &End) {
    match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(()) => {}
        Err(payload) if payload.is::<GreenletExit>() => resume_unwind(payload),
        Err(payload) if payload.is::<StopServe>() => end.come(Outcome::Stopped),
        Err(payload) => end.come(Outcome::Panicked(payload)),
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
