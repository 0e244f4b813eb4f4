//! A storm: thousands of green threads that connect, read, write, run out of time, close what others
//! wait for, kill each other and are woken by other threads, at random. Nobody may sleep for ever,
//! nobody may be woken for nothing, and nothing may be left.
//!
//! `STOLON_STORM_SECONDS` says how long it lasts, `STOLON_STORM_SEED` which storm it is. With
//! `--cfg stolon_faults` the kernel joins in.

mod util;

use std::cell::{Cell, RefCell};
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use stolon::green::net::{TcpListener, TcpStream};
use stolon::hub::{self, Waiter, Waker, notify_close, trampoline};
use stolon::poller::Interest;
use stolon::{GreenThread, sleep, spawn};
use util::leak::guarded_for;
use util::server::{PATIENCE, is_emulated};
use util::sockets::reset;

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);

/// A worker that does nothing for so long has lost a wake-up.
const LOST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 40 } else { 30 });

/// Room for a message's name: of its sender, of itself, and its length.
const HEAD: usize = 20;

/// A row of numbers that a seed decides.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, count: u64) -> u64 {
        (self.next() >> 11) % count
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What all threads see: when each worker last did something, and what.
struct Progress {
    start: Instant,
    beats: Vec<[AtomicU64; 2]>,
    over: AtomicBool,
}

impl Progress {
    fn beat(&self, slot: usize, step: u64) {
        let now = self.start.elapsed().as_millis() as u64;
        self.beats[slot][0].store(now, Ordering::Relaxed);
        self.beats[slot][1].store(step, Ordering::Relaxed);
    }

    /// Ends the process if a worker is stuck: the hub may be, too.
    fn watch(&self, seed: u64) {
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(100 * MS);
            let now = self.start.elapsed().as_millis() as u64;
            for (slot, [beat, step]) in self.beats.iter().enumerate() {
                let age = Duration::from_millis(now.saturating_sub(beat.load(Ordering::Relaxed)));
                let step = step.load(Ordering::Relaxed);
                if step != DONE && age > LOST {
                    eprintln!("seed {seed}: worker {slot} is stuck in step {step} for {age:?}");
                    process::abort();
                }
            }
        }
    }
}

/// The step of a worker that has ended.
const DONE: u64 = u64::MAX;

/// What is counted, to see that the storm was one.
#[derive(Default)]
struct Counts {
    echoes: Cell<u64>,
    expired: Cell<u64>,
    failed: Cell<u64>,
    closed: Cell<u64>,
    killed: Cell<u64>,
    woken: Cell<u64>,
    /// Connections that are being served.
    handlers: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// A counted green thread, until it ends.
struct Alive<'a>(&'a Cell<u64>);

impl<'a> Alive<'a> {
    fn new(count: &'a Cell<u64>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What another thread is asked to do after a while: to write a number, or to wake.
enum Errand {
    Write(UnixStream, u64),
    Wake(Waker, Arc<AtomicU64>, u64),
    Run(hub::HubHandle, Waker, Arc<AtomicU64>, u64),
}

struct Storm {
    addrs: Vec<SocketAddr>,
    progress: Arc<Progress>,
    counts: Counts,
    errands: mpsc::Sender<Errand>,
    random: RefCell<Random>,
    workers: RefCell<Vec<Option<GreenThread<()>>>>,
    names: Cell<u64>,
    over: Cell<bool>,
}

/// What a byte of a message is.
fn byte_of(name: u64, sequence: u64, at: usize) -> u8 {
    (name.wrapping_mul(31) ^ sequence.wrapping_mul(17) ^ at as u64) as u8
}

fn message(name: u64, sequence: u64, bytes: usize) -> Vec<u8> {
    let mut message = [name.to_le_bytes(), sequence.to_le_bytes()].concat();
    message.extend((bytes as u32).to_le_bytes());
    message.extend((0..bytes).map(|at| byte_of(name, sequence, at)));
    message
}

/// Sends back what comes, and checks that one sender's messages come whole and in order.
fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut last: Option<(u64, u64)> = None;
    loop {
        let mut head = [0; HEAD];
        { stream }.read_exact(&mut head)?;
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let (name, sequence) = (number(0), number(8));
        let bytes = u32::from_le_bytes(head[16..].try_into().unwrap()) as usize;
        assert!(bytes < 100_000, "a message of {bytes} bytes");
        let expected = last.map_or(0, |(_, sequence)| sequence + 1);
        assert_eq!(sequence, expected, "message of {name}");
        assert!(last.is_none_or(|(sender, _)| sender == name), "one sender for each connection");
        last = Some((name, sequence));
        let mut answer = vec![0; HEAD + bytes];
        answer[..HEAD].copy_from_slice(&head);
        { stream }.read_exact(&mut answer[HEAD..])?;
        assert!(
            answer[HEAD..].iter().zip(0..).all(|(byte, at)| *byte == byte_of(name, sequence, at))
        );
        { stream }.write_all(&answer)?;
    }
}

impl Storm {
    fn below(&self, count: u64) -> u64 {
        self.random.borrow_mut().below(count)
    }

    fn one_in(&self, count: u64) -> bool {
        self.random.borrow_mut().one_in(count)
    }

    fn pause(&self, most_us: u64) {
        sleep(US * self.below(most_us + 1) as u32);
    }

    fn new_name(&self) -> u64 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    fn accept(self: &Rc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let storm = Rc::clone(self);
                    spawn(move || {
                        let _alive = Alive::new(&storm.counts.handlers);
                        // That the client is gone is no failure.
                        let _ = echo(&stream);
                    });
                }
                // Out of descriptors, or the client is gone: the next one may do.
                Err(_) => sleep(MS),
            }
        }
    }

    fn work(self: &Rc<Self>, slot: usize) {
        while !self.over.get() {
            let step = self.below(8);
            self.progress.beat(slot, step);
            let done = match step {
                0..=3 => self.talk(slot),
                4 => self.wait_for_a_number(),
                5 => self.close_under_a_reader(),
                6 => self.kill_a_waiter(),
                _ => self.be_woken_by_another_thread(),
            };
            if let Err(error) = done {
                count(&self.counts.failed);
                assert!(is_weather(&error), "{error:?} in step {step}");
                self.pause(2000);
            }
        }
        self.progress.beat(slot, DONE);
    }

    /// Connects, and has a few messages echoed.
    fn talk(&self, slot: usize) -> io::Result<()> {
        let addr = self.addrs[self.below(self.addrs.len() as u64) as usize];
        let mut stream = match self.one_in(4) {
            true => TcpStream::connect_timeout(&addr, MS * (1 + self.below(50) as u32))?,
            false => TcpStream::connect(addr)?,
        };
        let name = self.new_name();
        let rounds = 1 + self.below(20);
        for sequence in 0..rounds {
            let bytes = if self.one_in(10) { self.below(60_000) } else { self.below(600) };
            let sent = message(name, sequence, bytes as usize);
            stream.write_all(&sent)?;
            let mut received = vec![0; sent.len()];
            self.read_all(&mut stream, &mut received)?;
            assert!(received == sent, "an answer to somebody else");
            count(&self.counts.echoes);
            self.progress.beat(slot, 0);
            if self.over.get() {
                break;
            }
            if self.one_in(4) {
                self.pause(500);
            }
        }
        match self.below(3) {
            // As most do: no port is kept by the kernel for a while.
            0 | 1 => reset(stream),
            _ => {
                stream.shutdown(Shutdown::Write)?;
                assert_eq!(stream.read(&mut [0])?, 0, "more than an echo");
            }
        }
        Ok(())
    }

    /// Reads, and at times lets the time run out in between; nothing is lost by that.
    fn read_all(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        let hurries = self.one_in(4);
        stream.set_read_timeout(hurries.then(|| US * (1 + self.below(300) as u32)))?;
        while filled < buffer.len() {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    count(&self.counts.expired);
                    stream.set_read_timeout(None)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for a number that another green thread or another thread writes.
    fn wait_for_a_number(self: &Rc<Self>) -> io::Result<()> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let name = self.new_name();
        if self.one_in(2) {
            self.errands.send(Errand::Write(far, name)).expect("somebody runs errands");
        } else {
            let storm = Rc::clone(self);
            spawn(move || {
                storm.pause(1000);
                // Its reader may have been killed.
                let _ = (&far).write_all(&name.to_le_bytes());
            });
        }
        self.read_number(&near, name)
    }

    fn read_number(&self, near: &UnixStream, name: u64) -> io::Result<()> {
        let timeout = self.one_in(3).then(|| US * self.below(800) as u32);
        match trampoline(near, Interest::READABLE, timeout) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                count(&self.counts.expired);
                trampoline(near, Interest::READABLE, None)?;
            }
            waited => waited?,
        }
        let mut number = [0; 8];
        // It would block if it had been woken for nothing.
        assert_eq!({ near }.read(&mut number).expect("what was waited for"), 8);
        assert_eq!(u64::from_le_bytes(number), name, "a number for somebody else");
        Ok(())
    }

    /// Closes what another green thread waits for.
    fn close_under_a_reader(self: &Rc<Self>) -> io::Result<()> {
        let (near, far) = UnixStream::pair()?;
        let is_green = self.one_in(2);
        near.set_nonblocking(true)?;
        let near = Rc::new(TcpStream::from(OwnedFd::from(near)));
        let waited_for = Rc::clone(&near);
        let reader = spawn(move || match is_green {
            true => { &*waited_for }.read(&mut [0]).map(drop),
            false => trampoline(&*waited_for, Interest::READABLE, None),
        });
        self.pause(300);
        let writes = self.one_in(4);
        if writes {
            { &far }.write_all(b"!")?;
            self.pause(100);
        }
        notify_close(near.as_raw_fd());
        match reader.join().expect("nobody kills it") {
            Ok(()) => assert!(writes, "woken for nothing"),
            Err(error) => match error.kind() {
                ErrorKind::NotConnected => count(&self.counts.closed),
                _ => assert!(is_weather(&error), "{error:?}"),
            },
        }
        Ok(())
    }

    /// Kills a green thread that waits for what this one waits for next.
    fn kill_a_waiter(self: &Rc<Self>) -> io::Result<()> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let (near, name) = (Rc::new(near), self.new_name());
        let waited_for = Rc::clone(&near);
        let victim = spawn(move || trampoline(&*waited_for, Interest::READABLE, None));
        self.pause(100);
        let storm = Rc::clone(self);
        spawn(move || {
            storm.pause(100);
            let _ = (&far).write_all(&name.to_le_bytes());
            // It is not closed before the number is read, or its reader is gone.
            let _ = trampoline(&far, Interest::READABLE, None);
        });
        self.pause(200);
        victim.kill();
        self.read_number(&near, name)
    }

    fn be_woken_by_another_thread(&self) -> io::Result<()> {
        let mut waiter = Waiter::new();
        let (waker, name) = (waiter.waker(), self.new_name());
        let told = Arc::new(AtomicU64::new(0));
        let errand = match self.one_in(2) {
            true => Errand::Wake(waker, Arc::clone(&told), name),
            false => Errand::Run(hub::handle(), waker, Arc::clone(&told), name),
        };
        self.errands.send(errand).expect("somebody runs errands");
        if self.one_in(3) && !waiter.wait_timeout(US * self.below(500) as u32) {
            count(&self.counts.expired);
            waiter.wait();
        } else if told.load(Ordering::Acquire) == 0 {
            waiter.wait();
        }
        assert_eq!(told.load(Ordering::Acquire), name, "woken for nothing");
        count(&self.counts.woken);
        Ok(())
    }

    /// Starts a worker in a slot.
    fn hire(self: &Rc<Self>, slot: usize) {
        let storm = Rc::clone(self);
        self.progress.beat(slot, 0);
        let worker = spawn(move || storm.work(slot));
        self.workers.borrow_mut()[slot] = Some(worker);
    }

    /// Kills workers wherever they are, and starts others in their slots.
    fn kill_workers(self: &Rc<Self>) {
        while !self.over.get() {
            self.pause(2000);
            let slot = self.below(self.workers.borrow().len() as u64) as usize;
            // Two may have chosen the same.
            let victim = self.workers.borrow_mut()[slot].take();
            if let Some(victim) = victim {
                victim.kill();
                assert!(victim.is_dead());
                count(&self.counts.killed);
                self.hire(slot);
            }
        }
    }
}

/// What may come of it when others reset, close and run out of ports or descriptors.
fn is_weather(error: &io::Error) -> bool {
    use ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, TimedOut,
        UnexpectedEof,
    };
    let kinds = [
        AddrNotAvailable,
        BrokenPipe,
        ConnectionRefused,
        ConnectionReset,
        NotConnected,
        TimedOut,
        UnexpectedEof,
    ];
    let is_short = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    kinds.contains(&error.kind()) || is_short
}

/// Runs errands in a thread of its own.
fn run_errands(errands: &mpsc::Receiver<Errand>, seed: u64) {
    let mut random = Random(seed);
    for errand in errands {
        if random.one_in(3) {
            thread::sleep(US * random.below(200) as u32);
        }
        match errand {
            Errand::Write(far, name) => {
                // Its reader may have been killed.
                let _ = { &far }.write_all(&name.to_le_bytes());
            }
            Errand::Wake(waker, told, name) => {
                told.store(name, Ordering::Release);
                waker.wake();
            }
            Errand::Run(handle, waker, told, name) => {
                let run = move || {
                    told.store(name, Ordering::Release);
                    waker.wake();
                };
                // The hub is there for as long as its storm.
                assert!(handle.run(run).is_ok());
            }
        }
    }
}

fn storm(seed: u64, duration: Duration, workers: usize) {
    let beats = (0..workers).map(|_| Default::default()).collect();
    let progress = Arc::new(Progress { start: Instant::now(), beats, over: false.into() });
    let watched = Arc::clone(&progress);
    let watchdog = thread::spawn(move || watched.watch(seed));
    let (errands, inbox) = mpsc::channel();
    let runner = thread::spawn(move || run_errands(&inbox, seed | 1));

    let listeners: Vec<_> =
        (1..=8).map(|n| TcpListener::bind((Ipv4Addr::new(127, 0, 0, n), 0)).unwrap()).collect();
    let addrs = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let random = RefCell::new(Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    let (counts, names, over) = (Counts::default(), Cell::new(0), Cell::new(false));
    let slots = RefCell::new((0..workers).map(|_| None).collect());
    let storm = Storm { addrs, progress, counts, errands, random, workers: slots, names, over };
    let storm = Rc::new(storm);
    faults_on(seed);
    let start_acceptor = |listener| {
        let storm = Rc::clone(&storm);
        spawn(move || storm.accept(&listener))
    };
    let acceptors: Vec<_> = listeners.into_iter().map(start_acceptor).collect();
    (0..workers).for_each(|slot| storm.hire(slot));
    let start_killer = |_| {
        let storm = Rc::clone(&storm);
        spawn(move || storm.kill_workers())
    };
    let killers: Vec<_> = (0..32).map(start_killer).collect();

    sleep(duration);
    storm.over.set(true);
    killers.iter().for_each(GreenThread::wait);
    let all: Vec<_> = storm.workers.take();
    all.into_iter().flatten().for_each(|worker| worker.join().expect("no worker panics"));
    acceptors.iter().for_each(GreenThread::kill);
    while storm.counts.handlers.get() > 0 {
        sleep(MS);
    }
    let did = faults_off();
    storm.progress.over.store(true, Ordering::Relaxed);
    watchdog.join().unwrap();
    let counts = &storm.counts;
    let [echoes, expired, failed, closed, killed, woken] = [
        &counts.echoes,
        &counts.expired,
        &counts.failed,
        &counts.closed,
        &counts.killed,
        &counts.woken,
    ]
    .map(Cell::get);
    println!(
        "seed {seed}: {echoes} echoes, {expired} times expired, {failed} failed, {closed} closed, \
         {killed} killed, {woken} woken by other threads; {did}"
    );
    for count in [echoes, expired, closed, killed, woken] {
        assert!(count > 10, "no storm at all");
    }
    // What was not told yet ends with its receiver; those that wait for it are gone.
    drop(storm);
    runner.join().unwrap();
    // Those that wrote numbers may have a turn left.
    sleep(20 * MS);
}

#[cfg(stolon_faults)]
fn faults_on(seed: u64) {
    let rates = stolon::faults::Rates {
        interrupted: 30,
        would_block: 30,
        no_descriptor: 20,
        reset: 2,
        short: 100,
    };
    stolon::faults::start(seed, rates);
}

#[cfg(stolon_faults)]
fn faults_off() -> String {
    format!("{:?}", stolon::faults::stop())
}

#[cfg(not(stolon_faults))]
fn faults_on(_seed: u64) {}

#[cfg(not(stolon_faults))]
fn faults_off() -> String {
    "no faults".into()
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn in_a_storm_nobody_sleeps_for_ever_or_wakes_for_nothing_and_nothing_is_left() {
    let limit = stolon::convenience::raise_descriptor_limit().unwrap();
    let most = if is_emulated() { 300 } else { 2000 };
    let workers = most.min(limit as usize / 8);
    let duration = Duration::from_secs(variable("STOLON_STORM_SECONDS").unwrap_or(5));
    let seed = variable("STOLON_STORM_SEED").unwrap_or_else(|| u64::from(process::id()));
    println!("seed {seed}, {workers} workers, {duration:?}");
    guarded_for(duration + 3 * PATIENCE, move || storm(seed, duration, workers));
}
