//! A server on several threads, each with a hub and a listener of its own.

mod worker;

use std::any::Any;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::green::net::TcpStream;
use crate::hub::channel::{self, Receiver, Sender};
use crate::sys;
use worker::{Order, Worker};

/// What each connection is given to.
type Handler = Arc<dyn Fn(TcpStream, SocketAddr) + Send + Sync>;

/// As many connections at a time each thread has if nothing else is said, as eventlet's `serve`.
const DEFAULT_CONCURRENCY: usize = 1000;

/// Serves connections on several cores: eventlet's `serve`, once on each of a number of threads.
///
/// Each thread has a hub, and a listener of its own at the common address (`SO_REUSEPORT`), among
/// which the kernel distributes connections. Each connection has a green thread, which stays on its
/// thread.
///
/// ```
/// use std::io::{Read, Write};
/// use std::time::Duration;
/// use stolon::convenience::Server;
///
/// let server = Server::builder().threads(2).start("127.0.0.1:0", |mut stream, _peer| {
///     let _ = stream.write_all(b"hello");
/// })?;
/// let mut client = stolon::green::net::TcpStream::connect(server.local_addr())?;
/// let mut text = String::new();
/// client.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
///
/// server.stopper().stop(Duration::from_secs(5));
/// assert_eq!(server.join()?.served, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `start` is called"]
pub struct ServerBuilder {
    threads: usize,
    concurrency: usize,
    grace: Duration,
}

impl ServerBuilder {
    /// How many threads; by default as many as the machine runs at once.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// How many connections each thread has at a time, by default 1000. Others wait until one ends.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// How long connections may go on when the server stops because a thread has failed; by default
    /// not at all.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Binds to the first of the addresses that can be bound to, and starts the threads. When this
    /// returns, the server can be connected to.
    ///
    /// `handler` is called for each connection, in a green thread of its own. When it returns, the
    /// connection is closed, unless it has given it away. The panic hook reports a panic of `handler`,
    /// which ends its connection and nothing else; that differs from eventlet's `serve`, which ends.
    ///
    /// For want of descriptors or memory it waits and goes on; what becomes of a connection before
    /// it is accepted harms no other. Any other failure of a thread to accept stops the server, and
    /// is what [`Server::join`] returns.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for no threads or no connections at a time; the
    /// kernel's, when it cannot be bound or a thread cannot be started. Nothing is left running then.
    pub fn start<A, F>(self, addr: A, handler: F) -> io::Result<Server>
    where
        A: ToSocketAddrs,
        F: Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    {
        if self.threads == 0 || self.concurrency == 0 {
            let text = "a server needs a thread, and each thread a connection at a time";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let first = bind(addr)?;
        let local_addr = first.local_addr()?;
        let mut listeners = vec![first];
        for _ in 1..self.threads {
            listeners.push(sys::net::listen_beside_others(&local_addr)?.into());
        }
        let (done, outcomes) = channel::channel();
        let stopper = Stopper { shared: Arc::default() };
        let mut server = Server { local_addr, stopper, outcomes, threads: Vec::new() };
        let handler: Handler = Arc::new(handler);
        for listener in listeners {
            if let Err(e) = server.start_thread(&self, listener, &handler, &done) {
                server.stopper.stop(Duration::ZERO);
                drop(done);
                let _ = server.join();
                return Err(e);
            }
        }
        Ok(server)
    }
}

/// Binds to the first address that can be bound to; to no port that is another's already.
fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        // Others of the same user, too, could listen at the same port beside this one, unnoticed.
        let is_free = if addr.port() == 0 { Ok(()) } else { TcpListener::bind(addr).map(drop) };
        match is_free.and_then(|()| sys::net::listen_beside_others(&addr)) {
            Ok(listener) => return Ok(listener.into()),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}

/// A running server on several threads; made by [`Server::builder`]. Dropping it detaches: the
/// threads serve on.
#[must_use = "dropping it leaves the server running, and its errors unseen"]
pub struct Server {
    local_addr: SocketAddr,
    stopper: Stopper,
    outcomes: Receiver<Outcome>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// How a thread has ended.
type Outcome = Result<Stopped, Failure>;

enum Failure {
    /// It could not accept.
    Accept(io::Error),
    /// It panicked.
    Panic(Box<dyn Any + Send>),
}

impl Server {
    /// A server to be: on as many threads as the machine runs at once.
    pub fn builder() -> ServerBuilder {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ServerBuilder { threads, concurrency: DEFAULT_CONCURRENCY, grace: Duration::ZERO }
    }

    fn start_thread(
        &mut self,
        builder: &ServerBuilder,
        listener: TcpListener,
        handler: &Handler,
        done: &Sender<Outcome>,
    ) -> io::Result<()> {
        let (orders, to_obey) = channel::channel();
        let worker = Worker {
            listener,
            handler: Arc::clone(handler),
            concurrency: builder.concurrency,
            grace: builder.grace,
            stopper: self.stopper.clone(),
            orders: orders.clone(),
            to_obey,
        };
        let done = done.clone();
        let name = format!("stolon-server-{}", self.threads.len());
        let work = move || drop(done.send(worker.run()));
        let thread = thread::Builder::new().name(name).spawn(work)?;
        self.stopper.enroll(orders);
        self.threads.push(thread);
        Ok(())
    }

    /// The address that it listens at.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Something that stops it, for handlers, other threads and green threads to have.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until the server has been stopped and all its threads have ended, which blocks the
    /// current greenlet and no other.
    ///
    /// # Errors
    ///
    /// The first one with which a thread failed to accept; the others have stopped then, too.
    ///
    /// # Panics
    ///
    /// With the panic of a thread, if one has panicked: not for a handler, whose panics end with its
    /// connection. And on the hub's own loop.
    pub fn join(self) -> io::Result<Stopped> {
        let (mut sum, mut failure) = (Stopped::default(), None);
        for _ in &self.threads {
            match self.outcomes.recv() {
                Ok(Ok(stopped)) => sum.add(stopped),
                Ok(Err(other)) => failure = failure.or(Some(other)),
                // Not even that could be sent: it shows below.
                Err(_) => break,
            }
        }
        for thread in self.threads {
            // It has come to its end, or is about to.
            if let Err(payload) = thread.join() {
                failure = failure.or(Some(Failure::Panic(payload)));
            }
        }
        match failure {
            None => Ok(sum),
            Some(Failure::Accept(e)) => Err(e),
            Some(Failure::Panic(payload)) => resume_unwind(payload),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

/// What a server has done when it has stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How many connections were given to the handler.
    pub served: u64,
    /// How many of them ended by a panic of the handler.
    pub panicked: u64,
    /// How many were still going on at the deadline, and were killed.
    pub cut_short: u64,
}

impl Stopped {
    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.panicked += other.panicked;
        self.cut_short += other.cut_short;
    }
}

/// Stops a [`Server`], from any thread; made by [`Server::stopper`].
#[derive(Clone)]
pub struct Stopper {
    shared: Arc<Mutex<Orders>>,
}

#[derive(Default)]
struct Orders {
    /// To each thread.
    senders: Vec<Sender<Order>>,
    /// The last one, for threads that are yet to come.
    stopped: Option<Duration>,
}

impl Stopper {
    /// Has the server accept no more, and lets its connections go on for at most `grace`; then those
    /// that are left are killed. What the kernel has accepted by now is still served. Called again,
    /// the earlier deadline counts. Does not wait; [`Server::join`] does.
    pub fn stop(&self, grace: Duration) {
        let mut orders = self.lock();
        orders.stopped = Some(grace);
        for sender in &orders.senders {
            // Those that have ended do not hear it.
            let _ = sender.send(Order::Stop(grace));
        }
    }

    fn enroll(&self, sender: Sender<Order>) {
        let mut orders = self.lock();
        if let Some(grace) = orders.stopped {
            let _ = sender.send(Order::Stop(grace));
        }
        orders.senders.push(sender);
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").finish_non_exhaustive()
    }
}
