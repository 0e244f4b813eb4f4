//! stolon itself: greenlets that a driver resumes, greenlets that hand over to each other, and green
//! threads.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stolon::GreenThread;
use stolon::green::{self, net::TcpStream};
use stolon::greenlet::{self, Greenlet};
use stolon::greenthread::Builder;
use stolon::hub;

use super::timers::{laps, per_lap};
use super::{Made, raw};
use crate::bodies::{Body, Frame, Suspend, shuffle};
use crate::coroutine::{self, Ending};
use crate::crowd::Crowd;
use crate::figure::{Figure, Ours};
use crate::measure::{Batch, Contender, time};
use crate::pool;
use crate::slab::{STACK_BYTES, Slot};
use crate::timer::{IN_FLIGHT, NAP, all_as_median, far, overshoot, processor_time, timeout};
use crate::vocabulary;
use crate::wake::{MESSAGE, PAIRS, pair};

/// A greenlet that a driver resumes.
pub struct Coroutine(Greenlet<usize>);

/// Who resumes it.
struct Driver(Greenlet<usize>);

impl Suspend for Driver {
    #[inline(always)]
    fn suspend(&mut self, value: usize) -> usize {
        self.0.switch(value).expect("the driver takes it")
    }
}

fn greenlet(run: impl FnOnce(usize) -> usize + 'static) -> Greenlet<usize> {
    let greenlet = Greenlet::builder().stack_bytes(STACK_BYTES).build(run);
    greenlet.unwrap_or_else(|e| panic!("no greenlet: {e}"))
}

impl coroutine::Coroutine for Coroutine {
    type Stack = ();

    const OWN_STACKS: usize = usize::MAX;

    fn stack() -> Result<(), String> {
        Ok(())
    }

    fn stack_from(_: Slot) -> Result<(), String> {
        Err(String::from("has stacks of its own"))
    }

    fn new((): (), body: Body) -> Self {
        let driver = greenlet::current();
        Self(greenlet(move |value| body.run(&mut Driver(driver), value)))
    }

    #[inline(always)]
    fn resume(&mut self, value: usize) -> usize {
        self.0.switch(value).expect("it does not end")
    }
}

impl Ending for Coroutine {
    type Empty = Greenlet<usize>;

    fn empty((): ()) -> Greenlet<usize> {
        greenlet(|value| value)
    }

    fn run(empty: Greenlet<usize>) {
        let _ = black_box(empty.switch(1));
    }
}

/// Said to a member of a ring, to end it.
const END: usize = usize::MAX;

/// Greenlets that switch to each other, round after round.
struct Ring {
    members: Rc<OnceCell<Vec<Greenlet<usize>>>>,
    first: usize,
}

impl Ring {
    fn new(count: usize, shuffled: bool) -> Self {
        let members = Rc::new(OnceCell::new());
        let mut order: Vec<usize> = (0..count).collect();
        if shuffled {
            shuffle(&mut order);
        }
        let mut next = vec![0; count];
        for (place, &member) in order.iter().enumerate() {
            next[member] = order[(place + 1) % count];
        }
        let made: Vec<_> = next.iter().map(|&next| member(Rc::clone(&members), next)).collect();
        if members.set(made).is_err() {
            unreachable!("set once");
        }
        Self { members, first: order[0] }
    }

    fn members(&self) -> &[Greenlet<usize>] {
        self.members.get().expect("set when it was made")
    }
}

/// Counts down what it is sent, and returns to the driver at zero.
fn member(members: Rc<OnceCell<Vec<Greenlet<usize>>>>, next: usize) -> Greenlet<usize> {
    let driver = greenlet::current::<usize>();
    greenlet(move |mut left| {
        let next = &members.get().expect("the ring is whole")[next];
        let mut frame = Frame::new();
        while left != END {
            black_box(frame.touch(left));
            let to = if left == 0 { &driver } else { next };
            left = to.switch(left.saturating_sub(1)).expect("it takes a word");
        }
        0
    })
}

impl Drop for Ring {
    fn drop(&mut self) {
        for member in self.members() {
            let _ = member.switch(END);
        }
    }
}

/// The contender that has no driver; there is one in rings only.
pub fn hand_over(figure: Figure) -> Made {
    let Figure::Ring { count, shuffled } = figure else {
        return Err(String::from("rings only"));
    };
    let ring = Ring::new(count, shuffled);
    let batch = move |rounds| {
        let switches = rounds as usize * count;
        let first = &ring.members()[ring.first];
        Ok(time(|| {
            black_box(first.switch(switches).expect("it comes back"));
        }))
    };
    Ok(Contender::new(figure.per_iteration(Ours::HandOver), Box::new(batch)))
}

/// The contender that is green threads.
pub fn green_threads(figure: Figure) -> Made {
    let per_iteration = figure.per_iteration(Ours::GreenThread);
    let batch: Batch = match figure {
        Figure::Ring { shuffled: true, .. } => {
            return Err(String::from("its scheduler runs them in the order they are made in"));
        }
        Figure::Ring { count, .. } => turns::<true>(count),
        Figure::Yield(count) => turns::<false>(count),
        Figure::SpawnJoin(count) => Box::new(move |iterations| Ok(spawn_join(iterations, count))),
        Figure::ParkWake => park_wake(),
        Figure::TimerFire(count) => naps(count)?,
        Figure::Overshoot => Box::new(|iterations| {
            let nap = || stolon::sleep(NAP);
            Ok(all_as_median((0..iterations).map(|_| overshoot(nap)).collect()))
        }),
        Figure::Pool(count) => pool::green_pool(count),
        _ => match vocabulary::ours(figure) {
            Some(batch) => batch,
            None => return Err(String::from("compared by greenlets")),
        },
    };
    Ok(Contender::new(per_iteration, batch))
}

/// In a green thread, as the peers' are in theirs.
fn spawn_join(iterations: u64, count: usize) -> Duration {
    let all = spawn(move || {
        let mut threads: Vec<GreenThread<()>> = Vec::with_capacity(count);
        time(|| {
            for _ in 0..iterations {
                threads.extend((0..count).map(|_| stolon::spawn(|| ())));
                for thread in threads.drain(..) {
                    let _ = thread.join();
                }
            }
        })
    });
    all.wait()
}

/// Members of a crowd, which stop when this is dropped.
struct Members {
    crowd: Arc<Crowd>,
    threads: Vec<GreenThread<()>>,
}

impl Drop for Members {
    fn drop(&mut self) {
        self.crowd.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn turns<const FRAME: bool>(count: usize) -> Batch {
    let crowd = Crowd::new(count);
    let member = |crowd: Arc<Crowd>| {
        spawn(move || {
            let mut frame = Frame::new();
            while crowd.goes_on::<FRAME>(&mut frame) {
                stolon::sleep(Duration::ZERO);
            }
        })
    };
    let threads = (1..count).map(|_| member(Arc::clone(&crowd))).collect();
    let members = Members { crowd, threads };
    Box::new(move |rounds| {
        let crowd = Arc::clone(&members.crowd);
        let leader = spawn(move || {
            stolon::sleep(Duration::ZERO);
            let lap = crowd.begin();
            for _ in 0..rounds {
                stolon::sleep(Duration::ZERO);
            }
            crowd.end(&lap, rounds)
        });
        leader.wait()
    })
}

fn spawn<R: 'static>(run: impl FnOnce() -> R + 'static) -> GreenThread<R> {
    let thread = Builder::new().stack_bytes(STACK_BYTES).spawn(run);
    thread.unwrap_or_else(|e| panic!("no green thread: {e}"))
}

/// Echoes for ever.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    let listener = green::net::TcpListener::from(listener);
    loop {
        let (mut connection, _) = listener.accept()?;
        connection.set_nodelay(true)?;
        stolon::spawn_n(move || {
            let mut buffer = [0; 1024];
            while let Ok(bytes @ 1..) = connection.read(&mut buffer) {
                if connection.write_all(&buffer[..bytes]).is_err() {
                    return;
                }
            }
        });
    }
}

/// The ends of pairs of sockets, with a green thread for each that reads messages from it. The last
/// one of a round wakes the driver, by a message more.
struct Readers {
    nears: Vec<OwnedFd>,
    threads: Vec<GreenThread<()>>,
    bell: TcpStream,
}

impl Readers {
    fn new() -> io::Result<Self> {
        let arrived = Rc::new(Cell::new(0));
        let (mut nears, mut threads) = (Vec::new(), Vec::new());
        let (ringer, bell) = pair()?;
        let ringer = Rc::new(ringer);
        for _ in 0..PAIRS {
            let (near, far) = pair()?;
            nears.push(near);
            let (mut far, arrived) = (TcpStream::from(far), Rc::clone(&arrived));
            let ringer = Rc::clone(&ringer);
            threads.push(spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(bytes @ 1..) = far.read(&mut buffer) {
                    assert_eq!(bytes, MESSAGE.len());
                    arrived.set((arrived.get() + 1) % PAIRS);
                    if arrived.get() == 0 {
                        raw::send(ringer.as_raw_fd(), &MESSAGE).expect("there is room");
                    }
                }
            }));
        }
        // Up to their first wait, and once through what the poller says at first.
        (0..4).for_each(|_| stolon::sleep(Duration::ZERO));
        Ok(Self { nears, threads, bell: TcpStream::from(bell) })
    }

    /// A message to each, and a wait until all have come.
    fn round(&mut self) -> io::Result<()> {
        for near in &self.nears {
            raw::send(near.as_raw_fd(), &MESSAGE)?;
        }
        self.bell.read_exact(&mut [0; MESSAGE.len()])
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.nears.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn park_wake() -> Batch {
    let mut readers = None;
    Box::new(move |rounds| {
        let readers = match &mut readers {
            Some(readers) => readers,
            none => none.insert(Readers::new().map_err(|e| e.to_string())?),
        };
        let mut done = Ok(());
        let took = time(|| done = (0..rounds).try_for_each(|_| readers.round()));
        done.map(|()| took).map_err(|e| e.to_string())
    })
}

/// Green threads that nap, again and again, beside so many that sleep for long; by processor time.
fn naps(count: usize) -> Result<Batch, String> {
    if let Some(reason) = crate::run::too_much(count) {
        return Err(reason);
    }
    let mut sleepers = None;
    Ok(Box::new(move |iterations| {
        if sleepers.is_none() {
            let sleeper = |after| spawn(move || stolon::sleep(after));
            sleepers = Some(Sleepers(far().take(count).map(sleeper).collect()));
            stolon::sleep(Duration::ZERO);
        }
        let start = processor_time();
        let napper = |_| spawn(move || (0..laps(iterations)).for_each(|_| stolon::sleep(NAP)));
        for thread in (0..IN_FLIGHT).map(napper).collect::<Vec<_>>() {
            thread.wait();
        }
        Ok(per_lap(processor_time() - start, iterations))
    }))
}

/// Calls that are scheduled and cancelled, beside so many that stay.
pub fn calls(figure: Figure) -> Made {
    let Figure::TimerCancel { count, early } = figure else {
        return Err(String::from("timers only"));
    };
    let mut calls = None;
    let batch = move |iterations| {
        let schedule = |after| hub::schedule_call_global(after, || ());
        let Calls { in_flight, .. } = calls.get_or_insert_with(|| Calls {
            stay: far().take(count).map(schedule).collect(),
            in_flight: (0..IN_FLIGHT).map(|_| schedule(timeout(early))).collect(),
        });
        Ok(time(|| {
            for _ in 0..iterations {
                in_flight.push_back(schedule(timeout(early)));
                let oldest = in_flight.pop_front().expect("the queue never runs dry");
                black_box(oldest.cancel());
            }
        }))
    };
    Ok(Contender::new(figure.per_iteration(Ours::Call), Box::new(batch)))
}

/// Cancelled when this is dropped.
struct Calls {
    stay: Vec<hub::Timer>,
    in_flight: VecDeque<hub::Timer>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        for call in self.stay.iter().chain(&self.in_flight) {
            call.cancel();
        }
    }
}

/// Killed when this is dropped, as a million take their room.
struct Sleepers(Vec<GreenThread<()>>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.0.iter().for_each(GreenThread::kill);
    }
}

/// Green threads that sleep.
pub fn park(count: usize) -> Result<(), String> {
    let far = Duration::from_secs(1_000_000);
    for _ in 0..count {
        let thread = Builder::new().stack_bytes(STACK_BYTES).spawn(move || stolon::sleep(far));
        thread.map_err(|e| e.to_string())?;
    }
    stolon::sleep(Duration::ZERO);
    Ok(())
}
