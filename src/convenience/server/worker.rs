//! One thread of a server.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Failure, Handler, Outcome, Stopped, Stopper};
use crate::green::net::{SocketAddr, TcpListener, TcpStream};
use crate::greenlet::{self, GreenletExit};
use crate::greenthread::{Builder, GreenThread, sleep};
use crate::hub::channel::{Receiver, RecvTimeoutError, Sender};
use crate::hub::{Waiter, Waker};
use crate::sys;

/// So long nobody is accepted when there was no descriptor or no memory for it.
const PAUSE: Duration = Duration::from_millis(20);

/// What the thread's main greenlet is told.
pub(super) enum Order {
    /// To stop, and to leave so much time to connections.
    Stop(Duration),
    /// By its own acceptor: that it cannot go on.
    Failed(io::Error),
    /// By the last connection, when the server is stopping: that there is no other.
    Idle,
}

pub(super) struct Worker {
    pub(super) listener: std::net::TcpListener,
    pub(super) handler: Handler,
    pub(super) concurrency: usize,
    pub(super) grace: Duration,
    pub(super) stopper: Stopper,
    /// To itself.
    pub(super) orders: Sender<Order>,
    pub(super) to_obey: Receiver<Order>,
}

impl Worker {
    /// Serves until the end.
    pub(super) fn run(self) -> Outcome {
        let (stopper, grace) = (self.stopper.clone(), self.grace);
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let outcome = ended.unwrap_or_else(|payload| Err(Failure::Panic(payload)));
        if outcome.is_err() {
            stopper.stop(grace);
        }
        outcome
    }

    fn serve(self) -> Outcome {
        let Self { handler, orders, to_obey, concurrency, grace, stopper, .. } = self;
        let listener = Rc::new(TcpListener::from(self.listener));
        let connections = Rc::new(Connections::new(handler, concurrency, orders.clone()));
        let acceptor = {
            let (listener, connections) = (Rc::clone(&listener), Rc::clone(&connections));
            let accept = move || {
                let Err(e) = connections.accept_all(&listener);
                let _ = orders.send(Order::Failed(e));
            };
            Builder::new().name("acceptor").spawn(accept).map_err(Failure::Accept)?
        };
        let mut failure = None;
        let grace = match to_obey.recv() {
            Ok(Order::Stop(grace)) => grace,
            Ok(Order::Failed(e)) => {
                // The others are to stop now, not when this one's connections have ended.
                stopper.stop(grace);
                failure = Some(Failure::Accept(e));
                grace
            }
            _ => grace,
        };
        connections.stopping.set(true);
        acceptor.kill();
        connections.accept_rest(&listener);
        drop(listener);
        connections.wait_for_end(&to_obey, grace);
        connections.cut_short();
        // What the handlers have started.
        greenlet::killall();
        failure.map_or_else(|| Ok(connections.counts.get()), Err)
    }
}

/// The connections of one thread.
struct Connections {
    handler: Handler,
    concurrency: usize,
    orders: Sender<Order>,
    stopping: Cell<bool>,
    counts: Cell<Stopped>,
    /// By their numbers.
    going_on: RefCell<HashMap<u64, GreenThread<()>>>,
    /// Wakes the acceptor when it waits for one to end.
    ended: RefCell<Option<Waker>>,
}

/// What never is.
enum Never {}

impl Connections {
    fn new(handler: Handler, concurrency: usize, orders: Sender<Order>) -> Self {
        Self {
            handler,
            concurrency,
            orders,
            stopping: Cell::new(false),
            counts: Cell::default(),
            going_on: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    fn count(&self, count: impl FnOnce(&mut Stopped)) {
        let mut counts = self.counts.get();
        count(&mut counts);
        self.counts.set(counts);
    }

    fn len(&self) -> usize {
        self.going_on.borrow().len()
    }

    /// Accepts until that fails for good.
    fn accept_all(self: &Rc<Self>, listener: &TcpListener) -> Result<Never, io::Error> {
        let mut waiter = Waiter::new();
        loop {
            while self.len() >= self.concurrency {
                *self.ended.borrow_mut() = Some(waiter.waker());
                waiter.wait();
            }
            match listener.accept() {
                Ok((stream, peer)) => {
                    if self.start(stream, peer).is_err() {
                        // No stack could be had; the connection is closed.
                        sleep(PAUSE);
                    }
                }
                Err(e) if sys::net::is_of_one_connection(&e) => {}
                Err(e) if sys::net::is_exhaustion(&e) => sleep(PAUSE),
                Err(e) => return Err(e),
            }
        }
    }

    /// Accepts what is there: who has connected before the end is served.
    fn accept_rest(self: &Rc<Self>, listener: &TcpListener) {
        let _ = listener.set_nonblocking(true);
        loop {
            match listener.accept() {
                Ok((stream, peer)) => drop(self.start(stream, peer)),
                Err(e) if sys::net::is_of_one_connection(&e) => {}
                Err(_) => return,
            }
        }
    }

    /// Gives a connection to the handler, in a green thread of its own.
    fn start(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let key = self.counts.get().served;
        let connections = Rc::clone(self);
        let serve = move || {
            let this = Connection { connections, key };
            let handler = Rc::clone(&this.connections);
            let ended = catch_unwind(AssertUnwindSafe(|| (handler.handler)(stream, peer)));
            if let Err(payload) = ended {
                let panicked = !payload.is::<GreenletExit>();
                this.connections.count(|counts| counts.panicked += u64::from(panicked));
                drop(this);
                resume_unwind(payload);
            }
        };
        let green = Builder::new().name(format!("connection of {peer}")).spawn(serve)?;
        self.count(|counts| counts.served += 1);
        self.going_on.borrow_mut().insert(key, green);
        Ok(())
    }

    /// Waits until all have ended, or the time is over.
    fn wait_for_end(&self, to_obey: &Receiver<Order>, grace: Duration) {
        // None is more than can be said.
        let mut deadline = Instant::now().checked_add(grace);
        while self.len() > 0 {
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let order = match rest {
                Some(rest) => to_obey.recv_timeout(rest),
                None => to_obey.recv().map_err(RecvTimeoutError::from),
            };
            match order {
                Ok(Order::Stop(grace)) => {
                    let sooner = Instant::now().checked_add(grace);
                    deadline = [deadline, sooner].into_iter().flatten().min();
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Kills those that are left.
    fn cut_short(&self) {
        let left = mem::take(&mut *self.going_on.borrow_mut());
        self.count(|counts| counts.cut_short += left.len() as u64);
        left.values().for_each(GreenThread::kill);
    }
}

/// A connection, until it ends.
struct Connection {
    connections: Rc<Connections>,
    key: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let green = self.connections.going_on.borrow_mut().remove(&self.key);
        drop(green);
        let waker = self.connections.ended.take();
        if let Some(waker) = waker {
            waker.wake();
        }
        if self.connections.stopping.get() && self.connections.len() == 0 {
            let _ = self.connections.orders.send(Order::Idle);
        }
    }
}
